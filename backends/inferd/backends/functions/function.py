"""One function of a version's file: which arrays it takes, and what is made of its errors.

ValueError        the caller's fault: InvalidInput, with its text
all else          the code's fault: BackendError, with the type only; the traceback is logged
"""

from __future__ import annotations

import inspect
import logging
import types
from collections.abc import Collection, Mapping
from time import monotonic
from typing import Any, Final

from inferd.backends.api import Array, BackendError, InvalidInput, LoadError
from inferd.backends.functions.source import IDEMPOTENT, Source, brief

_LOG_EVERY = 10.0  # seconds between two tracebacks of one function
_BY_NAME = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
_log = logging.getLogger("inferd.backends.python")


class Function:
    """A function of one instance's module. Not thread-safe, as the instance.

    takes      the names of its arguments
    needs      those of them without a default
    takes_all  it has `**arguments`
    """

    def __init__(self, source: Source, name: str, function: Any) -> None:
        """Raises LoadError if it is no function that takes its arguments by name."""
        self._source = source
        self._function = function
        self.name: Final = name
        self.where: Final = f"{source.name}: {name}"
        if not callable(function):
            raise LoadError(f"{source.name}: expected a function {name}, got {type(function).__name__}")
        try:
            parameters = inspect.signature(function).parameters.values()
        except (TypeError, ValueError):
            raise LoadError(f"{self.where} does not tell its arguments: write it as a plain function") from None
        if inspect.iscoroutinefunction(function) or inspect.isgeneratorfunction(function):
            raise LoadError(f"{self.where}: expected a plain function, got one with async or yield")
        for parameter in parameters:
            if parameter.kind is parameter.POSITIONAL_ONLY and parameter.default is parameter.empty:
                raise LoadError(f"{self.where}: expected arguments by name, got the positional {parameter.name!r}")
        by_name = [p for p in parameters if p.kind in _BY_NAME]
        self.takes: Final = tuple(p.name for p in by_name)
        self.needs: Final = tuple(p.name for p in by_name if p.default is p.empty)
        self.takes_all: Final = any(p.kind is p.VAR_KEYWORD for p in parameters)
        self._logged_at = 0.0
        self._unlogged = 0

    def check(self, given: Collection[str], optional: Collection[str], what: str) -> None:
        """Raises LoadError if the function cannot be called with the arrays `given`, of which those in `optional` may
        be missing. `what` says what they are."""
        names = ", ".join(given) or "none"
        for name in self.needs:
            if name not in given:
                raise LoadError(f"{self.where} takes {name!r}, but {what} are {names}")
            if name in optional:
                raise LoadError(f"{self.where}: {name!r} is optional: give the argument a default")
        left = [name for name in given if name not in self.takes]
        if left and not self.takes_all:
            takes = ", ".join(self.takes) or "nothing"
            raise LoadError(f"{self.where} takes {takes}, but {what} are {names}: add {left[0]!r} or **others")

    def __call__(self, arrays: Mapping[str, Array]) -> Mapping[Any, Any]:
        """The result of one call. Raises InvalidInput and BackendError."""
        try:
            result = self._function(**arrays)
        except ValueError as error:
            raise InvalidInput(brief(error) or type(error).__name__) from None
        except MemoryError:
            raise BackendError(f"{self.where}: out of memory") from None
        except BackendError:
            raise
        except (Exception, SystemExit) as error:
            self._log(error)
            raise BackendError(f"{self.where} raised {type(error).__name__}; see the server's log") from None
        if not isinstance(result, Mapping):
            raise BackendError(f"{self.where}: expected a dict of arrays by name, got {type(result).__name__}")
        return result

    def _log(self, error: BaseException) -> None:
        now = monotonic()
        if self._logged_at and now - self._logged_at < _LOG_EVERY:
            self._unlogged += 1
            return
        _log.error("%s (%d more since the last such line)", self.where, self._unlogged, exc_info=error)
        self._logged_at, self._unlogged = now, 0


def function_of(source: Source, module: types.ModuleType, name: str) -> Function | None:
    """The function `name` of an executed file, None if there is none."""
    found = module.__dict__.get(name)
    return None if found is None else Function(source, name, found)


def declared_idempotent(source: Source, module: types.ModuleType) -> bool:
    """Whether the file declares that its functions may be called again with the same arrays. Raises LoadError."""
    value = module.__dict__.get(IDEMPOTENT, False)
    if not isinstance(value, bool):
        raise LoadError(f"{source.name}: expected {IDEMPOTENT} = True or False, got {brief(ValueError(repr(value)))}")
    return value


def call_load(source: Source, module: types.ModuleType) -> None:
    """Calls `load(directory)`, if the file has one. Raises LoadError."""
    load = module.__dict__.get("load")
    if load is None:
        return
    if not callable(load):
        raise LoadError(f"{source.name}: expected a function load(directory), got {type(load).__name__}")
    try:
        takes = len(inspect.signature(load).parameters)
    except (TypeError, ValueError):
        takes = 1
    try:
        load(*(source.directory,) if takes else ())
    except MemoryError:
        raise LoadError(f"{source.name}: load: out of memory") from None
    except (Exception, SystemExit) as error:
        raise source.failed("load", error) from None
