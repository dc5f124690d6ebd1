"""The interface between the server and a framework.

    Backend.open(OpenRequest) -> Model          a version directory becomes a Model: signatures and facts
    Model.instance(Placement) -> Instance       an executable copy on one device
    Instance.run(signature, inputs) -> outputs  named arrays to named arrays

Errors, all of them with a message fit for a client (never a traceback):

    BackendError                     INTERNAL: the framework failed while it ran
    ├── LoadError                    the artefact cannot be served: what was expected, what was found
    │   ├── MissingFramework         the framework is not installed: names the extra
    │   └── IncompleteArtefact       files are missing or cut short; may heal when the copy completes
    ├── InvalidInput                 the framework refused the inputs: the caller's fault
    └── InstanceLost                 UNAVAILABLE: what the instance ran in is gone, whoever is to blame
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np

from inferd.wire.dtypes import DType

Array = np.ndarray[Any, Any]
DEFAULT_SIGNATURE = "serving_default"


class BackendError(Exception):
    """A framework failed. The message is shown to clients."""


class LoadError(BackendError):
    """A version cannot be served as it is."""


class MissingFramework(LoadError):
    """The framework is not installed."""

    def __init__(self, framework: str, extra: str) -> None:
        super().__init__(f"{framework} is not installed: pip install 'inferd[{extra}]'")


class IncompleteArtefact(LoadError):
    """Files are missing or cut short: typically a copy under way."""


class InvalidInput(BackendError):
    """The framework refused the inputs, for example a torch.export guard."""


class InstanceLost(BackendError):
    """The instance runs no more and comes back only as another one. `accepted`: the inputs may have reached the model;
    `retry_after`: seconds after which another instance may be there, None where nobody knows."""

    def __init__(self, message: str, *, accepted: bool, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.accepted = accepted
        self.retry_after = retry_after


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One input or output: name, element type, shape.

    `shape` has -1 where a dimension varies and is None where even the rank is open. The batch axis, where there is one,
    is part of the shape.
    """

    name: str
    dtype: DType
    shape: tuple[int, ...] | None
    optional: bool = False


@dataclass(frozen=True, slots=True)
class Signature:
    """A way to call a model."""

    name: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    method_name: str = ""


@dataclass(frozen=True, slots=True)
class Placement:
    """Where an instance runs.

    `device` is "cpu" or "cuda:N"; `threads` is the number of CPU threads that the instance may use (at least 1).
    `nice` is by how much its thread, on which the instance is made and runs, stands behind the front end: the server
    has seen to it, and threads that the framework starts there inherit it.
    """

    device: str = "cpu"
    threads: int = 1
    nice: int = 0


@dataclass(frozen=True, slots=True)
class OpenRequest:
    """What a backend gets to open a version.

    `directory` is the version directory; `artefact` the file or directory in it that `Backend.find` returned.
    `signatures` are declared ones (model.yaml, config.pbtxt): they fill in what the artefact does not tell (TorchScript
    has no shapes) and must otherwise agree with it. `options` are the backend's own settings, already checked to be a
    mapping; an unknown key is a LoadError that names the known ones.
    """

    model: str
    version: int
    directory: Path
    artefact: Path
    signatures: tuple[Signature, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Traits:
    """What the scheduler must know of a model's instances.

    may_write_inputs   `run` may write into the arrays it gets; the scheduler then never passes a view of a request
    alignment          `run` needs input arrays aligned to this many bytes (1: any)
    bounded            a run cannot block on anything but the processor: short ones may run on the front end's loop
    concurrent         `run` may be called from several threads at once on one instance
    overlaps           batches that an instance on a device other than the CPU may have in hand: while one computes, the
                       next is put together and copied (see Ahead). `run` then comes from that many threads, one at a
                       time
    max_batch          most rows the artefact itself allows, None: any
    stateful           answers depend on earlier calls (known from the artefact; the batch proof finds others)
    notes              what an operator should know: fallbacks taken, settings not honoured
    """

    may_write_inputs: bool = False
    alignment: int = 1
    bounded: bool = False
    concurrent: bool = False
    overlaps: int = 1
    max_batch: int | None = None
    stateful: bool = False
    notes: tuple[str, ...] = ()


@runtime_checkable
class Instance(Protocol):
    """One executable copy of a model on one device. Not thread-safe unless `Traits.concurrent`."""

    def run(
        self, signature: str, inputs: Mapping[str, Array], outputs: Sequence[str] | None = None
    ) -> dict[str, Array]:
        """Executes the model once.

        `inputs`: C-contiguous arrays by input name, dtypes as in the signature (STRING: object arrays of `bytes`),
        maybe read-only and maybe unaligned as the traits allow. `outputs`: names wanted, None for all. Gives
        C-contiguous host arrays by output name, which the caller owns: no later run changes them. Raises InvalidInput,
        InstanceLost or BackendError.
        """
        ...

    def close(self) -> None:
        """Frees the instance's memory. Called once, on the thread that ran it."""
        ...


@runtime_checkable
class Ahead(Protocol):
    """What an instance may have besides `run`: the copy to its device can be made ahead, while `run` works on the batch
    before. Looked for when serving starts."""

    def staging(self, nbytes: int) -> Array:
        """`nbytes` bytes of host memory (uint8) that the device copies from fastest. Batches are put together in it; it
        is used again once the `run` that got it has returned. Freed with the last reference."""
        ...

    def upload(self, signature: str, inputs: Mapping[str, Array]) -> Mapping[str, Any]:
        """Begins to copy the inputs of one `run` to the device. What it gives is passed to that `run` in their place.
        May be called while another thread is in `run`. Raises what `run` raises."""
        ...


@runtime_checkable
class Model(Protocol):
    """An opened version. All that it needs from disk has been read: the files may change or vanish from now on."""

    @property
    def signatures(self) -> tuple[Signature, ...]:
        """The signatures, the default one first."""
        ...

    @property
    def traits(self) -> Traits: ...

    def instance(self, placement: Placement) -> Instance:
        """Makes an executable copy. Raises LoadError when the device is not there or the framework does not really use
        it."""
        ...

    def close(self) -> None:
        """Frees what the model itself holds. Called once, after every instance is closed."""
        ...


@runtime_checkable
class Backend(Protocol):
    """Knows one framework. Made once per server; its methods may be called from several threads. Making one imports
    nothing."""

    @property
    def name(self) -> str:
        """The name used in configuration, status and metrics."""
        ...

    @property
    def platforms(self) -> tuple[str, ...]:
        """Names under which Triton's config.pbtxt knows this framework ("onnxruntime", "onnxruntime_onnx")."""
        ...

    def find(self, directory: Path) -> Path | None:
        """The artefact in a version directory that this backend serves, None if there is none. Looks at names and
        headers only, imports no framework. Raises LoadError for an artefact that is recognised and refused (pickled
        .pt, .h5, .keras), saying how to convert it, and IncompleteArtefact where parts are missing."""
        ...

    def complete(self, artefact: Path) -> str | None:
        """None when the artefact's files are all there and whole as far as names, headers and sizes tell; else what is
        missing. Cheap (no framework import, no full read)."""
        ...

    def files(self, artefact: Path) -> Sequence[Path]:
        """The files outside `artefact` that it needs (external data), for the memory estimate and fingerprint."""
        ...

    def open(self, request: OpenRequest) -> Model:
        """Reads a version. Raises LoadError."""
        ...

    def devices(self) -> Sequence[str]:
        """The devices this framework can use here, best first, for `device: auto`. May import the framework."""
        ...
