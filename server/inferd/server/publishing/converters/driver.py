"""Started in the interpreter that trained the model: python -I driver.py CONVERTER DESCRIPTOR, a JSON request on stdin.

Uses the standard library only, until a converter asks for more. Answers go to DESCRIPTOR, one JSON object a line.
"""

from __future__ import annotations

import ast
import ctypes
import importlib
import importlib.util
import inspect
import json
import os
import platform
import signal
import sys
from typing import Any

ROWS = 64  # of made-up rows


class Refused(Exception):
    """The model is not converted. The message is for the person who publishes it."""


class Missing(Exception):
    """A package is not installed here. `names`: what `pip install` takes."""

    def __init__(self, *names: str) -> None:
        super().__init__(", ".join(names))
        self.names = names


class Tools:
    """What converters share. One request only."""

    Refused = Refused
    Missing = Missing

    def __init__(self, request: dict[str, Any], descriptor: int) -> None:
        self.request = request
        self.made_with: dict[str, str] = {}
        self.notes: list[str] = []
        self._descriptor = descriptor

    # -- talking -------------------------------------------------------------------------------------------------------

    def say(self, text: str) -> None:
        """Shows what is being done."""
        self._write({"progress": text})

    def note(self, text: str) -> None:
        """Tells something that the person should know, at the end."""
        self.notes.append(text)

    def answer(self, **content: Any) -> None:
        """Gives an answer of another kind."""
        self._write(content)

    def _write(self, content: dict[str, Any]) -> None:
        data = json.dumps(content).encode() + b"\n"
        while data:
            data = data[os.write(self._descriptor, data) :]

    # -- packages ------------------------------------------------------------------------------------------------------

    def need(self, module: str, *packages: str) -> Any:
        """The module, imported. Raises Missing, which says that `packages` have to be installed."""
        try:
            found = importlib.import_module(module)
        except ImportError as error:
            missing = (error.name or module).partition(".")[0]
            wanted = packages or (module.partition(".")[0],)
            raise Missing(*(wanted if missing == module.partition(".")[0] else (missing,))) from None
        top = sys.modules[module.partition(".")[0]]
        self.made_with[module.partition(".")[0]] = str(getattr(top, "__version__", "unknown"))[:40]
        return found

    # -- sample rows ---------------------------------------------------------------------------------------------------

    def sample(self) -> dict[str, Any] | None:
        """The given sample rows by name, None if none are given."""
        path = self.request.get("sample")
        if not path:
            return None
        numpy = self.need("numpy")
        with numpy.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}

    def rows_for(self, names: list[str]) -> dict[str, Any] | None:
        """The given sample rows by these names; a single array fits a single name. Raises Refused."""
        sample = self.sample()
        if sample is None:
            return None
        if len(sample) == 1 and len(names) == 1:
            return {names[0]: next(iter(sample.values()))}
        missing = [name for name in names if name not in sample]
        if missing:
            raise Refused(f"the sample lacks {', '.join(missing[:10])}: it holds {', '.join(list(sample)[:10])}")
        return {name: sample[name] for name in names}

    def keep(self, inputs: dict[str, Any], expected: dict[str, Any]) -> None:
        """Writes the rows that the version must answer, and the original's answers to them."""
        numpy = self.need("numpy")
        for name, arrays in (("sample.npz", inputs), ("expected.npz", expected)):
            plain = {key: _plain(numpy, numpy.asarray(value)) for key, value in arrays.items()}
            numpy.savez(os.path.join(self.request["work"], name), **plain)

    # -- code ----------------------------------------------------------------------------------------------------------

    def code(self) -> Any:
        """The class or function that --module names: "net.py:Net". Its directory is importable from now on. Raises
        Refused."""
        place = self.request.get("module") or ""
        path, _, name = place.rpartition(":")
        if not path or not name:
            raise Refused(f"--module {place!r}: expected FILE.py:NAME, the class or function that makes the model")
        path = os.path.abspath(path)
        if not os.path.isfile(path):
            raise Refused(f"--module: {path} does not exist")
        sys.path.insert(0, os.path.dirname(path))
        spec = importlib.util.spec_from_file_location(os.path.splitext(os.path.basename(path))[0], path)
        if spec is None or spec.loader is None:
            raise Refused(f"--module: {path} is no Python file")
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module
        spec.loader.exec_module(module)
        found = getattr(module, name, None)
        if found is None:
            there = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
            raise Refused(f"--module: {path} has no {name!r}; it has {', '.join(there[:10]) or 'nothing callable'}")
        return found

    def made(self) -> Any:
        """The model that --module makes, with the arguments of --args. Raises Refused."""
        maker = self.code()
        if not callable(maker):
            return maker
        arguments = self.request.get("arguments") or {}
        try:
            inspect.signature(maker).bind(**arguments)
        except TypeError as error:
            raise Refused(
                f"--module {self.request['module']}: {error}; give its arguments as --args '{{...}}'"
            ) from None
        except ValueError:
            pass  # it has no signature that can be read
        return maker(**arguments)

    def trust(self, what: str) -> None:
        """Raises Refused unless the file may run code with the rights of the user."""
        if not self.request.get("trust"):
            raise Refused(
                f"{what}. That runs code from the file: publish it with --trust, if you trust where it comes from"
            )


def _plain(numpy: Any, array: Any) -> Any:
    if array.dtype == object:
        return numpy.array([str(item) for item in array.ravel()], dtype=str).reshape(array.shape)
    return array


def _literal(text: str) -> Any:
    """For converters: a Python literal in a file, such as a dtype's description."""
    return ast.literal_eval(text)


def _end_with_parent(parent: int) -> None:
    """Lets the kernel kill this process when the command ends, however it ends."""
    try:
        ctypes.CDLL(None).prctl(1, int(signal.SIGKILL))
    except (OSError, AttributeError):
        return
    if os.getppid() != parent:
        os._exit(1)


def main() -> None:
    descriptor = int(sys.argv[-1])
    request = json.load(sys.stdin)
    _end_with_parent(int(request["parent"]))
    os.set_inheritable(descriptor, False)
    tools = Tools(request, descriptor)
    path = sys.argv[1]
    spec = importlib.util.spec_from_file_location("inferd_" + os.path.splitext(os.path.basename(path))[0], path)
    assert spec is not None
    assert spec.loader is not None
    converter = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = converter
    try:
        spec.loader.exec_module(converter)
        done = converter.convert(request, tools)
        done["made_with"] = {"python": platform.python_version(), **tools.made_with}
        done["notes"] = tools.notes
        tools.answer(done=done)
    except Refused as error:
        tools.answer(failed=str(error))
    except Missing as error:
        tools.answer(failed=str(error), install=list(error.names))
    except MemoryError:
        tools.answer(failed="not enough memory")
    except Exception as error:
        import traceback

        traceback.print_exc()
        first = (str(error).strip().splitlines() or ["no message"])[0]
        tools.answer(failed=f"{type(error).__name__}: {first[:500]}")
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)  # some frameworks hang or crash in the interpreter's own shutdown


if __name__ == "__main__":
    main()
