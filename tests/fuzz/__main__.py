"""Coverage-guided fuzzing of every reader: `make fuzz SECONDS=600`, or `python -m fuzz [TARGET...] --seconds N`.

Each target runs in a separate process. It starts with its seeds and with the inputs that earlier runs have kept (in the
folder of `--keep`). It fails on an exception, if one input takes more than 10 s, or if memory exceeds 2 GiB. The input
that made it fail is stored in that folder as `crash-*`, `timeout-*` or `oom-*`: copy it to tests/fuzz/corpus/TARGET/,
and the test suite runs it from then on.
"""

from __future__ import annotations

import argparse
import hashlib
import re
import subprocess
import sys
from pathlib import Path

from fuzz.seeds import SEEDS
from fuzz.targets import TARGETS

CORPUS = Path(__file__).with_name("corpus")
_CHILD = """
import sys
import atheris
with atheris.instrument_imports(include=["inferd"]):
    from fuzz.targets import TARGETS
atheris.Setup(sys.argv, TARGETS[sys.argv.pop(1)])
atheris.Fuzz()
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"of {', '.join(TARGETS)}; default: all")
    parser.add_argument("--seconds", type=int, default=600, help="for each target (default: 600)")
    parser.add_argument("--keep", type=Path, default=Path("var/fuzz"), help="inputs that reached something new")
    args = parser.parse_args()
    unknown = set(args.targets) - set(TARGETS)
    if unknown:
        parser.error(f"no target {', '.join(sorted(unknown))}; expected some of {', '.join(TARGETS)}")
    failed = [name for name in args.targets or TARGETS if not fuzz(name, args.seconds, args.keep.resolve() / name)]
    print(f"failed: {', '.join(failed)}" if failed else "nothing failed")
    return 1 if failed else 0


def fuzz(name: str, seconds: int, keep: Path) -> bool:
    """Runs one target. Returns whether it succeeded."""
    keep.mkdir(parents=True, exist_ok=True)
    for seed in SEEDS[name]:
        (keep / hashlib.sha1(seed, usedforsecurity=False).hexdigest()).write_bytes(seed)
    command = [sys.executable, "-c", _CHILD, name, str(keep)]
    if (CORPUS / name).is_dir():
        command.append(str(CORPUS / name))
    command += [f"-max_total_time={seconds}", "-timeout=10", "-rss_limit_mb=2048", f"-artifact_prefix={keep}/"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    ran = re.findall(r"^#(\d+)", done.stderr, re.MULTILINE)
    covered = re.findall(r"cov: (\d+)", done.stderr)
    print(f"{name}: {ran[-1] if ran else 0} inputs, {covered[-1] if covered else 0} branches, ", end="")
    print("ok" if done.returncode == 0 else f"FAILED\n{done.stdout[-4000:]}\n{done.stderr[-2000:]}", flush=True)
    return done.returncode == 0


if __name__ == "__main__":
    sys.exit(main())
