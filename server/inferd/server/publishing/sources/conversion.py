"""Runs a converter in the interpreter that trained the model, and takes what it has written."""

from __future__ import annotations

import json
import os
import shutil
import stat
import sys
from collections.abc import Callable, Mapping
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any, Final

import numpy as np

from inferd.server.publishing.errors import PublishError
from inferd.server.publishing.record import Provenance
from inferd.server.publishing.rows import read_rows, write_rows
from inferd.server.publishing.sources.material import SourceMaterial, SourceOptions
from inferd.server.publishing.staging import Staging
from inferd.server.publishing.tasks import TaskFailed, clean, run_task

Say = Callable[[str], None]
FORMATS: Final = ("onnx", "pt2", "savedmodel", "litert")
_MOST_FILES: Final = 10_000


def convert(
    converter: str,
    source: Path,
    staging: Staging,
    options: SourceOptions,
    say: Say,
    *,
    provenance: Provenance,
    sample: Path | None = None,
    **more: Any,
) -> SourceMaterial:
    """Runs the converter of this name on `source`; its files are in `staging.version` afterwards. `sample`: rows that
    came with the source. Raises PublishError."""
    if options.to and options.to not in FORMATS:
        raise PublishError(f"--to {options.to!r}: expected {', '.join(FORMATS)}", usage=True)
    given = options.sample or sample
    labels = None
    plain = staging.work / "given.npz"
    if given is not None:
        rows = read_rows(given)
        labels = rows.expected
        write_rows(plain, rows.inputs)
    found = run_converter(
        converter,
        {
            **more,
            "source": str(source.absolute()),
            "target": str(staging.version),
            "sample": str(plain) if given is not None else "",
            "to": options.to,
            "module": _module(options.module),
            "arguments": _arguments(options.arguments),
            "key": options.key,
            "inputs": list(options.inputs),
            "names": list(options.names),
            "dtype": options.dtype,
        },
        staging,
        options,
        say,
    )
    _check_files(staging.version)
    provenance.made_with |= _texts(found.get("made_with"))
    expected, rows_file = staging.work / "expected.npz", staging.work / "sample.npz"
    classes = found.get("classes")
    return SourceMaterial(
        provenance,
        sample=rows_file if rows_file.exists() else given,
        expected=expected if expected.exists() else None,
        pairs=_texts(found.get("pairs")),
        order=tuple(map(str, found.get("order") or ())),
        labels=labels,
        classes=np.array(classes) if isinstance(classes, list) and classes else None,
        sample_source={"from": _rows_from(options.sample, sample)},
        rounds=converter == "sklearn_models" and options.dtype == "FP32",
        notes=tuple(clean(str(note)) for note in found.get("notes") or ()),
    )


def run_converter(
    converter: str, request: Mapping[str, Any], staging: Staging, options: SourceOptions, say: Say
) -> dict[str, Any]:
    """The result of a converter. Raises PublishError, which says what to install where."""
    python = interpreter(options)
    with as_file(files("inferd.server.publishing") / "converters") as scripts:
        say(f"converting with {python} …")
        try:
            return run_task(
                [python, "-I", str(scripts / "driver.py"), str(scripts / f"{converter}.py")],
                {
                    **request,
                    "parent": os.getpid(),
                    "work": str(staging.work),
                    "trust": options.trust,
                },
                what="the conversion",
                directory=staging.work,
                limits=options.limits,
                progress=lambda line: say(f"  {line}"),
                output=options.output or (lambda _line: None),
            )
        except TaskFailed as error:
            if not error.install:
                raise
            packages = " ".join(error.install)
            raise PublishError(
                f"the conversion needs {' and '.join(error.install)}, which {python} does not have: name the "
                f"interpreter that trained the model with --python, or run: {python} -m pip install {packages}"
            ) from None


def interpreter(options: SourceOptions) -> str:
    """The interpreter that converts. Raises PublishError."""
    if not options.python:
        return sys.executable
    found = shutil.which(options.python)
    if found is None:
        raise PublishError(f"--python {options.python}: there is no such program", usage=True)
    return os.path.abspath(found)


def _rows_from(asked: Path | None, example: Path | None) -> str:
    if asked is not None:
        return str(asked)
    return "the example that came with the model" if example is not None else "made up"


def _module(text: str) -> str:
    path, colon, name = text.rpartition(":")
    return f"{os.path.abspath(path)}{colon}{name}" if colon else text


def _arguments(text: str) -> dict[str, Any]:
    if not text:
        return {}
    try:
        value = json.loads(text)
    except ValueError as error:
        raise PublishError(f"--args {text!r}: expected a JSON object: {error}", usage=True) from None
    if not isinstance(value, dict):
        raise PublishError(f"--args {text!r}: expected a JSON object, such as '{{\"width\": 64}}'", usage=True)
    return value


def _texts(value: object) -> dict[str, str]:
    return {str(key): clean(str(text), 100) for key, text in value.items()} if isinstance(value, dict) else {}


def _check_files(version: Path) -> None:
    """Raises PublishError unless the converter has written plain files: a link could lead anywhere."""
    count = 0
    for folder, directories, names in os.walk(version):
        for name in (*directories, *names):
            path = Path(folder, name)
            kind = path.lstat().st_mode
            count += 1
            if not (stat.S_ISREG(kind) or stat.S_ISDIR(kind)):
                raise PublishError(f"the conversion has made {path.name}, which is no plain file")
            if count > _MOST_FILES:
                raise PublishError(f"the conversion has made more than {_MOST_FILES} files")
    if not count:
        raise PublishError("the conversion has made no file")
