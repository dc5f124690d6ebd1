"""`inferd init`: writes a directory to start from: a repository with one small real model, its model.yaml, the server's
config.yaml, and a client script. Nothing that is there already is changed."""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path
from typing import Any

from inferd.server.cli.errors import CommandError, usage
from inferd.server.cli.first_steps.sample_model import BETTER, NAME, held_out

_TEMPLATES = Path(__file__).with_name("templates")
_WRITTEN = (
    ("config.yaml", "settings of the server"),
    (f"models/{NAME}/1/model.onnx", "a model, which reads handwritten digits"),
    (f"models/{NAME}/model.yaml", "its settings"),
    ("client.py", "a script that calls it"),
)


def add(subparsers: Any) -> None:
    parser = subparsers.add_parser("init", help="write a repository, settings and a client script", description=__doc__)
    parser.add_argument("directory", type=Path, metavar="DIR", help="a new or empty directory")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    target: Path = args.directory
    _refuse_content(target)
    try:
        version = target / "models" / NAME / "1"
        version.mkdir(parents=True)
        shutil.copyfile(BETTER, version / BETTER.name)
        shutil.copyfile(_TEMPLATES / "model.yaml", version.parent / "model.yaml")
        shutil.copyfile(_TEMPLATES / "config.yaml", target / "config.yaml")
        (target / "client.py").write_text(_client(), encoding="utf-8")
    except OSError as error:
        raise CommandError(f"cannot write to {target}: {error.strerror or error}") from None
    print(f"{target} holds now:")
    for name, what in _WRITTEN:
        print(f"  {name:<30}{what}")
    print("\nNext:")
    print(f"  $ cd {target} && inferd serve --config config.yaml")
    print("  $ python client.py                                    in a second terminal, in the same directory")
    print("  $ inferd publish MODEL FILE --repository models       your own model; it goes live in about two seconds")
    return 0


def _refuse_content(target: Path) -> None:
    try:
        content = sorted(entry.name for entry in target.iterdir())
    except FileNotFoundError:
        return
    except NotADirectoryError:
        raise usage(f"{target} is a file; expected a new or empty directory") from None
    except OSError as error:
        raise CommandError(f"cannot read {target}: {error.strerror or error}") from None
    if content:
        more = f" and {len(content) - 3} more" if len(content) > 3 else ""
        raise usage(f"{target} holds {', '.join(content[:3])}{more}; expected a new or empty directory")


def _client() -> str:
    image = held_out()[0][0].reshape(8, 8)
    rows = "".join("    " + " ".join(f"{int(value):2d}," for value in row) + "\n" for row in image)
    return (_TEMPLATES / "client.py.txt").read_text(encoding="utf-8").replace("DIGIT", rows)
