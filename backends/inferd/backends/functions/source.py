"""The Python file of a version: read once, and executed once for each instance.

Code often reads files that lie beside it, at import, in `load`, or much later. The version directory may change or
vanish meanwhile, so the code sees a private copy of the version's files: `__file__` lies in it, and `load` gets it.
"""

from __future__ import annotations

import itertools
import logging
import os
import shutil
import sys
import tempfile
import types
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

from inferd.backends.api import LoadError, OpenRequest
from inferd.backends.files import FileRefused

KIND: Final = "python"
"""The kind of code (`api.CODE_KINDS`) that must be allowed."""
IDEMPOTENT: Final = "IDEMPOTENT"
"""The name by which a file declares that its functions may be called again with the same arrays."""

_MAX_BYTES = 4 * 2**20  # of the file itself; data belongs into files beside it
_CHUNK = 2**20
_TRITON = "triton_python_backend_utils"
_LONGEST = 300  # characters of an error
_log = logging.getLogger("inferd.backends.python")
_numbers = itertools.count(1)


class Source:
    """A version's Python file, compiled, with a private copy of the version's files. Thread-safe, except for `close`.

    name         the file's name, for messages
    directory    the private copy of the version directory
    """

    def __init__(self, file: Path, request: OpenRequest, left_out: Iterable[Path] = ()) -> None:
        """Reads and compiles `file`; runs nothing of it. `left_out`: files and directories of the version that the code
        does not need. Raises LoadError: also for code that is not allowed."""
        self.name: Final = file.name
        if KIND not in request.allow:
            raise LoadError(not_allowed(self.name))
        self._isolated = request.isolated
        self._modules: list[str] = []
        self.directory: Final = Path(tempfile.mkdtemp(prefix="inferd-code-"))
        try:
            self._beside = _copy(request, self.directory, {os.path.abspath(path) for path in left_out})
            self._code = self._compiled(file, request)
        except BaseException:
            self.close()
            raise
        if self._isolated and sys.path[-1:] != [str(self.directory)]:
            sys.path.append(str(self.directory))  # the process is this version's own

    def executed(self) -> types.ModuleType:
        """A new module, with the file executed in it. Raises LoadError."""
        # Some libraries look a module up by its name (dataclasses, pickle), so it is registered, under a name of its
        # own: several versions and instances may live in one process.
        name = f"inferd_{self.name.partition('.')[0]}_{next(_numbers)}"
        module = types.ModuleType(name)
        module.__file__ = str(self.directory / self.name)
        sys.modules[name] = module
        self._modules.append(name)
        try:
            exec(self._code, module.__dict__)
        except (Exception, SystemExit) as error:
            raise self.failed("", error) from None
        return module

    def failed(self, function: str, error: BaseException) -> LoadError:
        """The error of a load that failed with `error` in a function, or ("") while the file was executed. Writes the
        traceback to the log."""
        at = f"{self.name}: {function} failed" if function else self.name
        _log.error("%s", at, exc_info=error)
        if isinstance(error, ModuleNotFoundError) and error.name is not None:
            return LoadError(f"{at}: {self._missing_module(error.name)}")
        if isinstance(error, LoadError):
            return error
        return LoadError(f"{at}: {type(error).__name__}: {brief(error)}{self.line_of(error)}")

    def line_of(self, error: BaseException) -> str:
        """Where in the file an error was raised: " (line 12)", "" if it was not."""
        trace, line = error.__traceback__, 0
        while trace is not None:
            if trace.tb_frame.f_code.co_filename == str(self.directory / self.name):
                line = trace.tb_lineno
            trace = trace.tb_next
        return f" (line {line})" if line else ""

    def forget(self, module: types.ModuleType) -> None:
        """An instance is closed: frees what its module holds."""
        sys.modules.pop(module.__name__, None)
        module.__dict__.clear()  # functions and their module hold each other

    def close(self) -> None:
        """Removes the private copy."""
        for name in self._modules:
            sys.modules.pop(name, None)
        shutil.rmtree(self.directory, ignore_errors=True)

    def _compiled(self, file: Path, request: OpenRequest) -> Any:
        try:
            text = request.rule.read(file, _MAX_BYTES)
        except FileNotFoundError:
            raise LoadError(f"{self.name} is missing") from None
        except OSError as error:
            raise LoadError(f"{self.name} cannot be read: {error.strerror or error}") from None
        if not text.strip():
            raise LoadError(f"{self.name} is empty")
        try:
            return compile(text, str(self.directory / self.name), "exec", dont_inherit=True)
        except SyntaxError as error:
            line = f", line {error.lineno}" if error.lineno else ""
            raise LoadError(f"{self.name}{line}: {error.msg}") from None
        except (ValueError, MemoryError, RecursionError, OverflowError) as error:
            raise LoadError(f"{self.name} is no Python code: {brief(error)}") from None

    def _missing_module(self, module: str) -> str:
        top = module.partition(".")[0]
        if top == _TRITON:
            return (
                "it is written for Triton's Python backend; write load(directory) and predict(**inputs) as plain "
                "functions (docs/python-steps.md)"
            )
        if not self._isolated and ({f"{top}.py", f"{top}/__init__.py"} & self._beside):
            return (
                f"imports {module!r}, which lies beside it: other files of a version can be imported only in a process "
                "of its own (isolation: process)"
            )
        return f"there is no module {module!r} in {sys.executable}: install it there"


def not_allowed(name: str) -> str:
    """Why a file of Python code is not run."""
    return (
        f"{name} is Python code, which is run only where repository.allow, in the server's own configuration, names "
        "python"
    )


def brief(error: BaseException) -> str:
    """An error's text in one line of bounded length."""
    try:
        line = " ".join(str(error).split())
    except Exception:
        return "it cannot say what"
    return line if len(line) <= _LONGEST else f"{line[: _LONGEST - 3]}..."


def _copy(request: OpenRequest, target: Path, left_out: set[str]) -> frozenset[str]:
    """Copies the visible files of the version. Returns their paths below it."""
    top = os.path.abspath(request.directory)
    copied = []
    try:
        with request.rule.opened() as root, root.find(request.directory) as found:
            listed = found.open_directory()
            try:
                for entry in root.walk(listed, top, lambda name: not name.startswith(".")):
                    place = os.path.join(top, entry.path)
                    if any(place == out or place.startswith(out + os.sep) for out in left_out):
                        continue
                    to = target / entry.path
                    if entry.same_as is not None:
                        to.symlink_to(target / entry.same_as, target_is_directory=True)
                    elif entry.found is None:
                        continue
                    elif entry.found.is_directory:
                        to.mkdir()
                    else:
                        _copy_file(entry.found.open(), to)
                        copied.append(entry.path)
            finally:
                os.close(listed)
    except FileRefused as error:
        raise LoadError(str(error)) from None
    except OSError as error:
        where = os.path.relpath(error.filename, top) if error.filename else request.directory.name
        raise LoadError(f"{where} cannot be copied for the version's code: {error.strerror or error}") from None
    return frozenset(copied)


def _copy_file(descriptor: int, target: Path) -> None:
    with open(descriptor, "rb", buffering=0) as source, open(target, "xb") as file:
        shutil.copyfileobj(source, file, _CHUNK)
