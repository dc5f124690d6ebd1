"""The LiteRT backend: `model.tflite`, on the CPU.

The file is read into memory when a version is opened; all instances share these bytes. Files of any origin may be
damaged on purpose: inferd reads the file within bounds (`flatbuffer.py`, `graph.py`) before LiteRT sees it, and LiteRT
verifies its structure again.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from inferd.backends.api import (
    IncompleteArtefact,
    Independence,
    Instance,
    LoadError,
    Model,
    OpenRequest,
    Placement,
    Signature,
    Traits,
)
from inferd.backends.checks import narrowed
from inferd.backends.files import FileWindow, regular_file
from inferd.backends.litert import instance as litert_instance
from inferd.backends.litert.flatbuffer import Malformed, MemoryBytes, Truncated
from inferd.backends.litert.graph import LiteGraph, read_graph
from inferd.backends.litert.independence.proof import analyse_model
from inferd.backends.litert.options import LiteRtOptions
from inferd.backends.litert.signatures import Entry, entries_of, keeps_state, notes_on

ARTEFACT = "model.tflite"
_FLEX = "custom:Flex"


class LiteRtBackend:
    """Opens LiteRT models. Thread-safe; imports LiteRT only in `open`."""

    name = "litert"
    platforms = ("tflite", "litert")
    artefacts = (ARTEFACT,)

    def find(self, directory: Path) -> Path | None:
        """`model.tflite` in the version directory. Raises LoadError if only such files of other names are there."""
        artefact = directory / ARTEFACT
        if artefact.is_file():
            return artefact
        others = sorted(p.name for p in directory.glob("*.tflite") if not p.name.startswith("."))
        if others:
            raise LoadError(f"a LiteRT model must be called {ARTEFACT}, found {', '.join(others)}: rename it")
        return None

    def complete(self, artefact: Path) -> str | None:
        """Why the file is cut short, as far as its tables show; None if it is not."""
        try:
            descriptor = regular_file(artefact)
        except FileNotFoundError:
            return f"{artefact.name} is missing"
        except OSError:
            return None  # nothing is missing; `open` reports what is wrong
        try:
            read_graph(FileWindow(descriptor))
        except Truncated as error:
            return f"{artefact.name} is cut short: {error}"
        except (Malformed, OSError):
            return None
        finally:
            os.close(descriptor)
        return None

    def files(self, artefact: Path) -> Sequence[Path]:
        return ()

    def open(self, request: OpenRequest) -> Model:
        """Reads the model into memory. Raises LoadError."""
        options = LiteRtOptions.read(request.options)
        litert_instance.runtime()
        try:
            data = request.read(request.artefact)
            graph = read_graph(MemoryBytes(data))
        except FileNotFoundError:
            raise IncompleteArtefact(f"{request.artefact.name} is missing") from None
        except OSError as error:
            raise LoadError(f"{request.artefact.name} cannot be read: {error.strerror or error}") from None
        except Truncated as error:
            raise IncompleteArtefact(f"{request.artefact.name} is cut short: {error}") from None
        except Malformed as error:
            raise LoadError(f"{request.artefact.name} is no LiteRT model that can be served: {error}") from None
        return LiteRtModel(data, graph, options, request.signatures)

    def devices(self) -> Sequence[str]:
        litert_instance.runtime()
        return ("cpu",)


class LiteRtModel:
    """An opened LiteRT model: its bytes, its graph and its signatures. Thread-safe until closed."""

    def __init__(self, data: bytes, graph: LiteGraph, options: LiteRtOptions, declared: Sequence[Signature]) -> None:
        """Raises LoadError if the model cannot be served."""
        flex = sorted({operator.name for operator in graph.operators() if operator.name.startswith(_FLEX)})
        if flex:
            names = ", ".join(name.removeprefix(_FLEX) for name in flex)
            raise LoadError(
                f"the model needs TensorFlow's operators {names} (Flex), "
                "which LiteRT does not have: convert it with LiteRT's own operators, or serve the SavedModel"
            )
        self._data: bytes | None = data
        self._graph = graph
        self._options = options
        self._entries = _with_declared(entries_of(graph), declared)
        self._variables = any(tensor.variable for subgraph in graph.subgraphs for tensor in subgraph.tensors)
        signatures = self.signatures
        leading = [spec.shape[0] for s in signatures for spec in s.inputs if spec.shape]
        fixed = bool(leading) and all(size >= 0 for size in leading)
        self._traits = Traits(
            bounded=True,
            max_batch=min(leading) if fixed else None,
            stateful=keeps_state(graph) or (options.keep_state and self._variables),
            notes=notes_on(self._entries, graph),
        )

    @property
    def signatures(self) -> tuple[Signature, ...]:
        return tuple(entry.signature for entry in self._entries)

    @property
    def traits(self) -> Traits:
        return self._traits

    def instance(self, placement: Placement) -> Instance:
        if placement.device != "cpu":
            raise LoadError(f"device {placement.device!r} was asked for, but LiteRT models run on the CPU only")
        if self._data is None:
            raise LoadError("the model is closed")
        clears = self._variables and not self._options.keep_state
        return litert_instance.LiteRtInstance(
            self._data, self._entries, placement.threads, xnnpack=self._options.xnnpack, clears=clears
        )

    def independence(self, signature: Signature) -> Independence:
        """See Analysable."""
        entry = next((entry for entry in self._entries if entry.signature.name == signature.name), None)
        data = self._data
        if entry is None or data is None:
            return Independence(False, reason="the model is closed", understood=False)
        return analyse_model(self._graph, MemoryBytes(data), entry.subgraph, entry.inputs, entry.outputs, signature)

    def close(self) -> None:
        self._data = None


def _with_declared(found: Sequence[Entry], declared: Sequence[Signature]) -> tuple[Entry, ...]:
    """The file's signatures, narrowed by those that model.yaml or config.pbtxt declare. Raises LoadError."""
    entries = {entry.signature.name: entry for entry in found}
    for wanted in declared:
        entry = entries.get(wanted.name)
        if entry is None:
            raise LoadError(f"declared signature {wanted.name!r} is not in the model; it has {', '.join(entries)}")
        entries[wanted.name] = entry.narrowed(
            narrowed("input", entry.signature.inputs, wanted.inputs),
            narrowed("output", entry.signature.outputs, wanted.outputs),
        )
    return tuple(entries.values())
