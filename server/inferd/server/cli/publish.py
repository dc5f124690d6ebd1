"""`inferd publish`: puts a new version into a repository so that no server ever sees half of it.

The files are copied to a hidden directory beside the other versions and reach their place by a rename, which is all or
nothing. Without --version the next free number is taken.
"""

from __future__ import annotations

import argparse
import os
import secrets
import shutil
import sys
from pathlib import Path
from typing import Any

from inferd.client import Client, VersionState
from inferd.server.cli.connection import add_connection, open_client
from inferd.server.cli.errors import CommandError, usage
from inferd.server.cli.output import print_json
from inferd.server.errors import LayoutError
from inferd.server.repository.layout import MAX_VERSION, PARTIAL_SUFFIXES, is_partial, readable, version_number
from inferd.server.repository.tree import read_tree

_FILES = {".onnx": "model.onnx", ".pt": "model.pt", ".pt2": "model.pt2"}
_WAIT = 300.0


def add(subparsers: Any) -> None:
    parser = subparsers.add_parser("publish", help="put a new version into a repository", description=__doc__)
    parser.add_argument("model", help="the model's name, which is its directory in the repository")
    parser.add_argument("path", type=Path, help="a version's directory, or one .onnx, .pt or .pt2 file")
    parser.add_argument("-r", "--repository", type=Path, required=True, metavar="DIR")
    parser.add_argument("--version", type=int, metavar="N", help="default: the highest one there and 1")
    parser.add_argument("--wait", action="store_true", help="until the server at --address serves it, or says why not")
    add_connection(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    if args.version is not None and not 0 <= args.version <= MAX_VERSION:
        raise usage(f"--version {args.version}: expected 0 to {MAX_VERSION}")
    place = publish(args.model, args.path, args.repository, args.version)
    version = int(place.name)
    state = "published"
    if not args.json:
        print(f"{args.model}:{version} is at {place}")
    if args.wait:
        with open_client(args) as client:
            wait_available(client, args.model, version, args.timeout or _WAIT)
        state = "available"
        if not args.json:
            print(f"{args.model}:{version} is served")
    if args.json:
        print_json({"model": args.model, "version": version, "path": str(place), "state": state})
    return 0


def publish(model: str, path: Path, repository: Path, version: int | None = None) -> Path:
    """Copies `path` to <repository>/<model>/<version> and returns that directory. Raises CommandError; then nothing is
    left in the repository."""
    if not model or model.startswith(".") or "/" in model or "\0" in model:
        raise usage(f"{model!r} is no name for a model: it is the name of a directory, and none that begins with a dot")
    if is_partial(model) or readable(model) != model:
        ends = " ".join(PARTIAL_SUFFIXES)
        raise usage(f"{model!r} is no name for a model: it is UTF-8 text that does not end in {ends}")
    if not repository.is_dir():
        raise CommandError(f"{repository} is no directory; expected the repository that the server watches")
    _check_source(path)
    parent = repository / model
    created = not parent.exists()
    try:
        parent.mkdir(exist_ok=True)
        hidden = parent / f".publish-{secrets.token_hex(6)}"
        try:
            _copy(path, hidden)
            return _rename(hidden, parent, version)
        finally:
            shutil.rmtree(hidden, ignore_errors=True)
            if created:
                _remove_if_empty(parent)
    except (OSError, shutil.Error) as error:
        raise CommandError(f"cannot publish {path} to {parent}: {_reason(error)}") from None


def wait_available(client: Client, model: str, version: int, timeout: float) -> None:
    """Watches the server until it serves the version. Raises CommandError if the version fails or is not served in
    time. `timeout` in seconds."""
    print(f"waiting for {model}:{version} …", file=sys.stderr)
    last = "the server has not seen it; does it watch this repository, and does its version policy want this version?"
    for change in client.watch(timeout=timeout):
        if change.model != model or change.version.version != version:
            continue
        state, error = change.version.state, change.version.error
        if state is VersionState.AVAILABLE:
            return
        if error:
            raise CommandError(f"{model}:{version} failed to load: {error}")
        last = f"it is {state.name}"
    raise CommandError(f"{model}:{version} is not served after {timeout:g} s: {last}")


def _check_source(path: Path) -> None:
    if path.is_dir():
        try:
            if not any(path.iterdir()):
                raise CommandError(f"{path} is empty; expected the files of one version")
            held = read_tree(path).held
        except OSError as error:
            raise CommandError(f"{path} cannot be read: {_reason(error)}") from None
        except LayoutError as error:
            raise CommandError(str(error)) from None
        if held:
            raise CommandError(f"{path}: a server would wait for ever, {held}")
    elif not path.is_file():
        raise CommandError(f"{path} does not exist")
    elif path.suffix not in _FILES:
        raise usage(f"{path}: expected a directory, or a file that ends in {', '.join(_FILES)}")


def _copy(path: Path, hidden: Path) -> None:
    if path.is_dir():
        shutil.copytree(path, hidden)
    else:
        hidden.mkdir()
        shutil.copy2(path, hidden / _FILES[path.suffix])
    # A rename may reach the disk before the data. Without fsync, a power cut could leave an empty version.
    for folder, _, files in os.walk(hidden):
        for name in files:
            _sync(Path(folder, name))
        _sync(Path(folder))


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _rename(hidden: Path, parent: Path, version: int | None) -> Path:
    number = version
    for _ in range(100):
        taken = {found for child in parent.iterdir() if (found := version_number(child.name)) is not None}
        if version is None:
            number = max(taken, default=0) + 1
            if number > MAX_VERSION:
                raise CommandError(f"{parent} holds version {MAX_VERSION}, the highest there can be; give --version")
        elif version in taken:
            raise CommandError(f"{parent.name}:{version} is there already; a new version needs a new number")
        place = parent / str(number)
        try:
            hidden.rename(place)
        except OSError:
            # Another publisher has taken the number after the directory was read.
            if place.exists():
                continue
            raise
        _sync(parent)
        return place
    raise CommandError(f"{parent}: no free version number was found in 100 tries")


def _remove_if_empty(parent: Path) -> None:
    try:
        parent.rmdir()
    except OSError:
        pass


def _reason(error: Exception) -> str:
    return error.strerror if isinstance(error, OSError) and error.strerror else str(error)
