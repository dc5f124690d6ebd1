"""`python -m differential --base COMMIT` (make differential): sends the same traffic to servers of two versions of the
code and compares everything that a caller or an operator can see.

The base is built into a wheel and installed below var/differential/, separate from the code at hand. The exit code is 1
if there is a difference that expected.toml does not list, or if either side breaks an invariant.
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import shutil
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from differential.catalogue import SCENES
from differential.code import PLACE, Code, WrongCode, checkout, commit, tree
from differential.compare import Report, read_expected
from differential.play import play

EXPECTED = Path(__file__).with_name("expected.toml")


def main(arguments: Sequence[str]) -> int:
    """Gives the exit code."""
    parser = argparse.ArgumentParser(prog="python -m differential", description=__doc__)
    parser.add_argument("scenes", nargs="*", metavar="SCENE", help="patterns of names, such as 'cq/*'; default: all")
    parser.add_argument("--base", default="HEAD", help="a commit (default: %(default)s)")
    parser.add_argument(
        "--head",
        help="a commit, too, or a directory with the source; default: the code at hand, uncommitted changes included",
    )
    parser.add_argument("--expected", type=Path, default=EXPECTED, help="the differences that are expected")
    parser.add_argument("--seen", type=Path, metavar="FILE", help="write what the base answered, case by case, as JSON")
    parser.add_argument("--list", action="store_true", help="list the scenes")
    said = parser.parse_args(arguments)
    if said.list:
        print("\n".join(scene.name for scene in SCENES))
        return 0
    patterns = said.scenes or ["*"]
    scenes = [scene for scene in SCENES if any(fnmatch.fnmatchcase(scene.name, pattern) for pattern in patterns)]
    if not scenes:
        parser.error(f"no such scene: {' '.join(patterns)}")
    # The default would leave the servers behind.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    begun = time.monotonic()
    report = Report(read_expected(said.expected))
    try:
        base = _verified(commit(said.base))
        head = _verified(_chosen(said.head))
    except WrongCode as error:
        print(f"differential: {error}", file=sys.stderr)
        return 2
    print(f"base {base.name} in {base.python.parents[1]}\nhead {head.name} in {head.python.parents[1]}", flush=True)
    play(base, head, scenes, report, lambda line: print(line, flush=True))
    if said.seen:
        said.seen.write_text(json.dumps(report.seen, indent=1))
    print(f"\n{report.text(whole=not said.scenes)}\n{time.monotonic() - begun:.0f} s")
    return 1 if report.failed else 0


def _chosen(head: str | None) -> Code:
    if head is None:
        return checkout()
    source = Path(head).resolve()
    if not source.is_dir():
        return commit(head)
    place = PLACE / "trees" / source.name
    shutil.rmtree(place, ignore_errors=True)
    return tree(source, place)


def _verified(code: Code) -> Code:
    code.verify()
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
