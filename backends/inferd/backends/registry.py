"""Finds the backends in the entry-point group `inferd.backends`, and the backend that serves a version directory.

A backend is known by the name of its entry point. The object behind the entry point is loaded at its first use. If one
plug-in cannot be loaded, only the models that need it fail, with the reason; the other backends work.
"""

from __future__ import annotations

import difflib
import threading
from collections.abc import Collection, Iterable
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path

from inferd.backends.api import Backend, IncompleteArtefact, LoadError
from inferd.backends.foreign_formats import by_name

GROUP = "inferd.backends"
_SHOWN_FILES = 8
_LOOKED_AT = 1000  # entries of a directory


class Registry:
    """The backends of one server. Thread-safe. Making a registry loads no backend."""

    def __init__(self, plugins: Iterable[EntryPoint] | None = None) -> None:
        """`plugins`: the entry points to use; None for those of the installed packages."""
        self._lock = threading.Lock()
        self._loaded: dict[str, Backend] = {}
        self._broken: dict[str, str] = {}
        self._added: set[str] = set()
        self._points: dict[str, list[EntryPoint]] = {}
        for point in entry_points(group=GROUP) if plugins is None else plugins:
            same_name = self._points.setdefault(point.name, [])
            # An editable install beside a wheel lists the same entry point twice.
            if all(point.value != other.value for other in same_name):
                same_name.append(point)

    def names(self) -> tuple[str, ...]:
        """The names of all backends, sorted; those that cannot be loaded are included. Loads nothing."""
        with self._lock:
            return tuple(sorted(self._points.keys() | self._loaded.keys()))

    def add(self, backend: Backend) -> None:
        """Adds a backend under its own name. It takes precedence over a plug-in of that name."""
        with self._lock:
            self._loaded[backend.name] = backend
            self._added.add(backend.name)
            self._broken.pop(backend.name, None)

    def get(self, name: str) -> Backend:
        """The backend with this name, loaded at the first call. Raises LoadError for an unknown name, and for a
        plug-in that cannot be loaded: it is not tried again."""
        with self._lock:
            found = self._loaded.get(name)
            if found is not None:
                return found
            if name not in self._points:
                raise LoadError(f"unknown backend {name!r}; known: {', '.join(sorted(self._points)) or 'none'}")
            if name not in self._broken:
                try:
                    self._loaded[name] = found = _load(name, self._points[name])
                    return found
                except Exception as error:  # a plug-in may raise anything while it is imported
                    self._broken[name] = f"{_type_prefix(error)}{error}"
            raise LoadError(f"the backend {name!r} cannot be loaded: {self._broken[name]}")

    def value(self, name: str) -> str:
        """The location of the backend with this name, in the form of an entry point ("package.module:Class"): with it,
        a worker process loads the same backend.

        Raises LoadError as `get` does, and for an added backend whose class is not at the top level of a module: no
        other process can import it.
        """
        backend = self.get(name)
        with self._lock:
            points = self._points.get(name)
            if points and name not in self._added:
                return points[0].value
        cls = type(backend)
        if "<" in cls.__qualname__ or cls.__module__ == "__main__":
            raise LoadError(f"the backend {name!r} lives in this process only: a worker process cannot find it")
        return f"{cls.__module__}:{cls.__qualname__}"

    def named(self, wanted: str) -> Backend:
        """The backend with this name or with this platform name of Triton ("onnxruntime_onnx"). Raises LoadError if
        there is none, or if it cannot be loaded."""
        if wanted in self.names():
            return self.get(wanted)
        backends, broken = self._all()
        for backend in backends:
            if wanted in backend.platforms:
                return backend
        known = ", ".join(f"{b.name} ({', '.join(b.platforms)})" if b.platforms else b.name for b in backends)
        names = [*self.names(), *(platform for backend in backends for platform in backend.platforms)]
        near = difflib.get_close_matches(wanted, names, n=1)
        meant = f"; did you mean {near[0]!r}?" if near else ""
        raise LoadError(f"unknown backend {wanted!r}; known: {known or 'none'}{meant}{_broken_text(broken)}")

    def artefact_names(self) -> frozenset[str]:
        """The names of the files and directories that the backends look for. Loads the backends; those that cannot be
        loaded, plug-ins that do not tell, and code are left out: a file of code need not be a model."""
        backends = [backend for backend in self._all()[0] if not code_of(backend)]
        return frozenset(name.rstrip("/") for backend in backends for name in getattr(backend, "artefacts", ()))

    def detect(self, directory: Path, wanted: str | None = None, allow: Collection[str] = ()) -> tuple[Backend, Path]:
        """The backend that serves a version directory, and its artefact in that directory.

        `wanted` is the name of a backend or a platform name of Triton. Without it, every backend looks at the
        directory. `allow`: the kinds of code that the version may bring along. An artefact that is code of another kind
        (see `code_of`) does not count beside other artefacts: people keep the sources of a model beside it.

        Raises LoadError if no backend finds an artefact (the message says what was looked for and what is there), if
        several artefacts are found, or if the artefact is refused. Raises IncompleteArtefact if parts of the only
        artefact are missing.
        """
        if wanted is not None:
            backend = self.named(wanted)
            artefact = _find(backend, directory)
            if artefact is None:
                raise LoadError(
                    f"{_known(directory, self.artefact_names())}{_looks_for(backend)}; {_listing(directory)}"
                )
            return backend, artefact

        backends, broken = self._all()
        found: list[tuple[Backend, Path]] = []
        parts: list[tuple[Backend, IncompleteArtefact]] = []
        refused: list[LoadError] = []
        for backend in backends:
            try:
                artefact = _find(backend, directory)
            except IncompleteArtefact as error:
                parts.append((backend, error))
            except LoadError as error:
                refused.append(error)
            else:
                if artefact is not None:
                    found.append((backend, artefact))
        if len(found) + len(parts) > 1:
            found = [(backend, artefact) for backend, artefact in found if code_of(backend) in ("", *allow)]
        if len(found) + len(parts) > 1:
            there = [f"{a.name} ({b.name})" for b, a in found] + [f"part of one ({b.name})" for b, _ in parts]
            raise LoadError(f"more than one artefact: {', '.join(there)}; say which with 'backend:' in model.yaml")
        if parts:
            raise parts[0][1]
        if found:
            return found[0]
        if len(refused) == 1:
            raise refused[0]
        if refused:
            raise LoadError("; ".join(str(error) for error in refused))
        looked = "; ".join(_looks_for(backend) for backend in backends) or "no backend is installed"
        known = _known(directory, self.artefact_names()) or f"no model found: {looked}; "
        raise LoadError(f"{known}{_listing(directory)}{_broken_text(broken)}")

    def _all(self) -> tuple[list[Backend], dict[str, str]]:
        """The backends that can be loaded, in the order of their names; for the others, the reason by name."""
        backends = []
        broken = {}
        for name in self.names():
            try:
                backends.append(self.get(name))
            except LoadError as error:
                broken[name] = str(error)
        return backends, broken


def code_of(backend: Backend) -> str:
    """The kind of code (`api.CODE_KINDS`) that the backend's artefacts are, "" if they are none. A backend tells it by
    an attribute `code`, which is not part of the contract."""
    return str(getattr(backend, "code", ""))


def _load(name: str, points: list[EntryPoint]) -> Backend:
    if len(points) > 1:
        raise LoadError(f"two plug-ins have this name: {', '.join(sorted(p.value for p in points))}")
    factory = points[0].load()
    backend = factory() if callable(factory) else factory
    if not isinstance(backend, Backend):
        missing = [m for m in _MEMBERS if not hasattr(backend, m)]
        raise LoadError(f"{points[0].value} is no backend: it lacks {', '.join(missing)}")
    if backend.name != name:
        raise LoadError(f"{points[0].value} calls itself {backend.name!r}, but its entry point is {name!r}")
    return backend


_MEMBERS = ("name", "platforms", "find", "complete", "files", "open", "devices")


def _find(backend: Backend, directory: Path) -> Path | None:
    """`backend.find`, with every exception turned into a LoadError: a bug in one plug-in must not hide the models of
    other backends."""
    try:
        return backend.find(directory)
    except LoadError:
        raise
    except OSError as error:
        raise LoadError(f"{directory.name} cannot be read: {error.strerror or error}") from None
    except Exception as error:
        raise LoadError(f"the backend {backend.name!r} failed while it looked: {_type_prefix(error)}{error}") from error


def _looks_for(backend: Backend) -> str:
    # `artefacts` is not part of the contract; a backend that has it gets a better message.
    names = getattr(backend, "artefacts", ())
    return f"{backend.name} looks for {' or '.join(names)}" if names else f"{backend.name} finds nothing"


def _known(directory: Path, artefacts: frozenset[str]) -> str:
    """What the files are that no backend here serves, "" if their names do not tell."""
    try:
        entries = sorted(directory.iterdir())[:_LOOKED_AT]
        for inner in entries:
            deeper = sorted(path.name for path in inner.iterdir()) if inner.is_dir() else []
            found = next((name for name in deeper if name in artefacts), "")
            if found:
                return f"{inner.name}/{found} lies one directory too deep: expected {directory.name}/{found}; "
    except OSError:
        return ""
    text = by_name(path.name for path in entries)
    return f"{text}; " if text else ""


def _listing(directory: Path) -> str:
    try:
        names = sorted(p.name + ("/" if p.is_dir() else "") for p in directory.iterdir())
    except OSError as error:
        return f"the directory cannot be read: {error.strerror or error}"
    if not names:
        return "the directory is empty"
    more = f" and {len(names) - _SHOWN_FILES} more" if len(names) > _SHOWN_FILES else ""
    return f"the directory holds {', '.join(names[:_SHOWN_FILES])}{more}"


def _broken_text(broken: dict[str, str]) -> str:
    return "".join(f"; {reason}" for reason in broken.values())


def _type_prefix(error: BaseException) -> str:
    """ "TypeError: " and so on; "" for a LoadError, whose message says everything."""
    return "" if isinstance(error, LoadError) else f"{type(error).__name__}: "
