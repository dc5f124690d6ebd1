"""The interface between the server and a framework. A plug-in implements it and needs nothing else of the server.

    Backend.open(OpenRequest) -> Model          a version directory becomes a Model: signatures and traits
    Model.instance(Placement) -> Instance       an executable copy of the model on one device
    Instance.run(signature, inputs) -> outputs  named arrays in, named arrays out

The server finds a Backend through the entry-point group `inferd.backends`. For each version it calls `find`,
`complete` and `open`; then `Model.instance` for each placement and `Instance.run` for each batch; at the end
`Instance.close` for each instance and `Model.close`.

Errors. Clients and operators read the messages: the reason in one sentence, never a traceback. An exception of any
other type is logged with its traceback; clients then see its type only.

    BackendError                     a run failed; the caller gets INTERNAL
    ├── LoadError                    the artefact cannot be served; says what was expected and what was found
    │   ├── MissingFramework         the framework is not installed; names the extra to install
    │   └── IncompleteArtefact       files are missing or cut short; a copy that is under way may complete them
    ├── InvalidInput                 the inputs do not fit the model; the caller gets INVALID_ARGUMENT
    ├── BrokenContract               the model can answer no request as promised; the caller gets INTERNAL
    └── InstanceLost                 what the instance ran in is gone; the caller gets UNAVAILABLE
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np

from inferd.backends.files import FileRule
from inferd.wire.dtypes import DType

Array = np.ndarray[Any, Any]
DEFAULT_SIGNATURE = "serving_default"
CODE_KINDS = ("aoti", "custom_ops", "python")
"""Kinds of code that a model's files may hold: compiled libraries of AOTInductor; operators and objects of libraries
other than the framework's own; Python code, pickles included."""

LEFT_OUT = "is left out: "
"""In a note of `Traits`: an output of the artefact that cannot be served is missing in the signature."""


class BackendError(Exception):
    """The framework failed. The message is shown to clients."""


class LoadError(BackendError):
    """This version cannot be served as it is. The message says what was expected and what was found."""


class MissingFramework(LoadError):
    """The framework is not installed."""

    def __init__(self, framework: str, extra: str) -> None:
        """`extra`: the extra of the package `inferd` that installs the framework."""
        super().__init__(f"{framework} is not installed: pip install 'inferd[{extra}]'")


class IncompleteArtefact(LoadError):
    """Files are missing or cut short. The usual cause is a copy that is still under way."""


class InvalidInput(BackendError):
    """The inputs are the reason that a run failed: they do not fit the signature, or the framework refused them before
    the model ran. What fails inside the model, on inputs that fit, is a BackendError: the caller cannot be blamed."""


class BrokenContract(BackendError):
    """The model cannot keep what its signature promises, whatever the inputs are: it lacks an output, gives it with
    another element type or rank, or needs an operator, kernel, device or function that is not there. A version that
    raises this during warm-up is not served."""


class InstanceLost(BackendError):
    """The instance cannot run any more, and only a new instance can take its place.

    accepted      whether the inputs may have reached the model: then a client repeats the request only for a model
                  that keeps no state
    retry_after   seconds after which a new instance may be ready; None if that is not known
    """

    def __init__(self, message: str, *, accepted: bool, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.accepted = accepted
        self.retry_after = retry_after


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One input or output of a signature.

    name       as in requests and answers
    dtype      element type
    shape      size of each dimension, -1 for a dimension of any size; None if the rank is not fixed either. The batch
               axis, if there is one, is dimension 0 and part of the shape
    optional   inputs only: a request may leave this input out
    """

    name: str
    dtype: DType
    shape: tuple[int, ...] | None
    optional: bool = False


@dataclass(frozen=True, slots=True)
class Signature:
    """One way to call a model.

    name          unique within the model; usually DEFAULT_SIGNATURE for the default one
    inputs        in the order in which they are described to clients
    outputs       in the order in which they are answered
    method_name   TensorFlow Serving's method name, "" where there is none
    aliases       further names under which outputs may be asked for; they are answered under the name that was asked
                  for. A request for all outputs does not get them
    """

    name: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    method_name: str = ""
    aliases: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Placement:
    """Where an instance runs.

    device    "cpu" or "cuda:N"
    threads   number of CPU threads that the instance may use, at least 1
    nice      by how much the priority of the instance's thread is lowered (Linux nice value). For information: the
              server has already lowered it, and threads that the framework starts on that thread inherit the priority
    """

    device: str = "cpu"
    threads: int = 1
    nice: int = 0


@dataclass(frozen=True, slots=True)
class OpenRequest:
    """The version that `Backend.open` is to open.

    model, version   for messages
    directory        the version directory
    artefact         the file or directory to open: what `Backend.find` returned, or what the model's configuration
                     names inside `directory`
    signatures       declared in model.yaml or config.pbtxt. They fill in what the artefact does not say (TorchScript
                     files have no shapes). Where the artefact does say something, the declaration must agree with it:
                     raise LoadError otherwise
    options          the backend's own settings, `options:` in model.yaml; keys and values are not checked. Raise
                     LoadError for an unknown key, with the known ones in the message
    allow            which kinds of code the server's configuration lets this version bring along (CODE_KINDS). What is
                     not allowed must be refused with a LoadError that names the kind, before any of it runs
    files            where files may be read; None: below the model's directory
    isolated         the version is opened in a process of its own, which may hang or end without harm to others
    steps            a Python file whose functions run around the model. For the server: a backend never sees one, and
                     need not know of it
    inner            with `steps`: the declared signatures of the model itself, between the steps
    """

    model: str
    version: int
    directory: Path
    artefact: Path
    signatures: tuple[Signature, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    allow: frozenset[str] = frozenset()
    files: FileRule | None = None
    isolated: bool = False
    steps: Path | None = None
    inner: tuple[Signature, ...] = ()

    @property
    def rule(self) -> FileRule:
        """The rule by which every file of the version is to be read."""
        return self.files or FileRule(os.path.abspath(self.directory.parent))

    def read(self, path: Path) -> bytes:
        """The content of a file of the version. Raises OSError: FileRefused if it is no regular file, or a link that
        leads out."""
        return self.rule.read(path)


@dataclass(frozen=True, slots=True)
class Traits:
    """What a model promises about its instances. The scheduler relies on it.

    may_write_inputs   `run` may write into its input arrays. The scheduler then passes private copies, never views of a
                       request
    alignment          bytes to which `run` needs its input arrays aligned; 1 for none
    bounded            a run waits for nothing but the processor: no lock, file, network or queue. Short runs on the CPU
                       may then be executed on the front end's event loop, if the model is `concurrent` too
    concurrent         several threads may call `run` of one instance at the same time
    overlaps           how many batches one instance may have in hand on a device other than the CPU: one computes, the
                       next is formed and copied to the device (see Ahead). `run` is then called from that many threads,
                       but never from two at the same time
    max_batch          largest number of rows (size of dimension 0) that the artefact allows; None for no limit
    stateful           answers depend on earlier calls. Such a model has one instance and is not batched
    repeatable         a run may be repeated with the same inputs, because it changes nothing outside of the model. The
                       requests of a failed batch are run again, one by one, only then
    notes              facts for the operator, each a short sentence: a fallback taken, a setting not honoured
    """

    may_write_inputs: bool = False
    alignment: int = 1
    bounded: bool = False
    concurrent: bool = False
    overlaps: int = 1
    max_batch: int | None = None
    stateful: bool = False
    repeatable: bool = True
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Independence:
    """What a static analysis of a model's graph says about one signature: is row i of every output a function of row i
    of the batched inputs alone, whatever the other rows are and however many there are?

    proven       yes. What follows, except for `equal`, is empty then
    output       name of the first output for which it is not proven
    operator     the first operator that stands in the way, "" if there is none
    node         name of its node, or of the node's first output
    reason       what the operator does, for people: "reduces over the batch axis"
    understood   False if the analysis cannot follow the operator: the rows may be independent nevertheless
    equal        groups of dimensions, as (input, axis), that the proof takes as equal. It does not hold for a request
                 in which they differ
    """

    proven: bool
    output: str = ""
    operator: str = ""
    node: str = ""
    reason: str = ""
    understood: bool = True
    equal: tuple[tuple[tuple[str, int], ...], ...] = ()

    def __str__(self) -> str:
        """The finding in one line, at most about 300 characters."""
        if self.proven:
            return "proven"
        reason = _cut(self.reason, 160)
        if not self.operator:
            return f"output {_cut(self.output, 60)!r} {reason}" if self.output else reason
        manner = "" if self.understood else "not understood: "
        at = f"output {_cut(self.output, 60)!r}: " if self.output else ""
        return f"{at}{manner}{_cut(self.operator, 60)} {reason}, at node {_cut(self.node, 60)!r}"


NOT_ANALYSED = Independence(False, reason="its backend has no analysis of such models", understood=False)
"""The finding for a model that is not Analysable."""


def _cut(text: str, most: int) -> str:
    line = " ".join(text.split())
    return line if len(line) <= most else f"{line[: most - 3]}..."


@runtime_checkable
class Instance(Protocol):
    """One executable copy of a model on one device.

    Thread-safe only if `Traits.concurrent` is set. It is made and closed on one thread, which also calls `run`; with
    `Traits.concurrent` or `Traits.overlaps` other threads call `run` as well.
    """

    def run(
        self, signature: str, inputs: Mapping[str, Array], outputs: Sequence[str] | None = None
    ) -> dict[str, Array]:
        """Executes the model once and returns its outputs.

        `signature` is the name of one of the model's signatures. `inputs` holds C-contiguous arrays by input name, with
        the signature's element types in little-endian byte order (`DType.numpy`; STRING: object arrays of `bytes`). The
        arrays may be read-only if `may_write_inputs` is not set, and unaligned if `alignment` is 1. Optional inputs may
        be missing. If the instance has `upload` (see Ahead), `inputs` may be the value that `upload` returned.
        `outputs` names the wanted outputs; None means all.

        Returns C-contiguous arrays in host memory by output name. The caller owns them: no later run may change them,
        and they may not share memory with the inputs or the model. In a batched run, dimension 0 of each batched output
        is as large as that of the batched inputs, and row i of an output belongs to row i of the inputs.

        Raises InvalidInput for inputs that do not fit, BrokenContract for a model that can answer no request,
        InstanceLost when the instance cannot run any more, and BackendError for any other failure.
        """
        ...

    def close(self) -> None:
        """Frees the instance's memory. Called once, on the thread that made the instance, when no `run` is under
        way."""
        ...


@runtime_checkable
class Ahead(Protocol):
    """Optional methods of an Instance: inputs are copied to the device ahead, while `run` computes the batch before.

    The server checks once, before it serves, whether an instance has both methods. They are of use on devices other
    than the CPU, with `Traits.overlaps` of 2 or more.
    """

    def staging(self, nbytes: int) -> Array:
        """A writable uint8 array of `nbytes` bytes in host memory, of the kind from which the device copies fastest
        (page-locked memory on CUDA). The scheduler joins batches in it and uses it again when the `run` of that batch
        has returned. The memory is freed with the last reference to the array."""
        ...

    def upload(self, signature: str, inputs: Mapping[str, Array]) -> Mapping[str, Any]:
        """Starts to copy the inputs of one `run` to the device. The returned value is passed to that `run` in place of
        the inputs. May be called while another thread is in `run`. Raises the same errors as `run`."""
        ...


@runtime_checkable
class Model(Protocol):
    """An opened version. It has read everything that it needs from the version directory: from now on the files may
    change or vanish. Thread-safe, except for `close`."""

    @property
    def signatures(self) -> tuple[Signature, ...]:
        """The signatures, at least one, the default one first. Constant."""
        ...

    @property
    def traits(self) -> Traits:
        """The promises about the instances. Only `notes` may change: making an instance may add some."""
        ...

    def instance(self, placement: Placement) -> Instance:
        """Makes an executable copy, on the calling thread. Several threads may call this at the same time. Raises
        LoadError if the device does not exist, or if the framework would silently use another one."""
        ...

    def close(self) -> None:
        """Frees what the model itself holds. Called once, after all its instances are closed."""
        ...


@runtime_checkable
class Analysable(Protocol):
    """An optional method of a Model: a static proof that the rows of a batch are independent.

    A model without it counts as not proven: it is batched only where its owner declares that its rows are independent.
    """

    def independence(self, signature: Signature) -> Independence | None:
        """The result of the analysis for a signature of the model; None counts as not proven. The batched inputs are
        those whose first dimension is -1 in `signature`; all others are equal for all rows of a batch. Takes
        milliseconds to seconds. Thread-safe; never raises for what the graph holds."""
        ...


@runtime_checkable
class Backend(Protocol):
    """One framework. The server makes one object of each backend, without arguments. Making it must not import the
    framework. Thread-safe: several versions are found and opened at the same time."""

    @property
    def name(self) -> str:
        """The name in configuration, status and metrics. It equals the name of the entry point."""
        ...

    @property
    def platforms(self) -> tuple[str, ...]:
        """The framework's names in Triton's config.pbtxt, for example "onnxruntime" and "onnxruntime_onnx"."""
        ...

    def find(self, directory: Path) -> Path | None:
        """The artefact in a version directory that this backend can serve, None if there is none.

        Reads names and headers only and imports no framework: it is called for every backend and version. Raises
        LoadError for an artefact that it recognises but never serves (a pickled .pt, .h5, .keras), with the way to
        convert it, and IncompleteArtefact if parts of the artefact are missing.
        """
        ...

    def complete(self, artefact: Path) -> str | None:
        """None if the artefact's files exist and are whole, as far as names, headers and sizes show; else a text that
        says what is missing. Cheap: imports no framework and does not read whole files."""
        ...

    def files(self, artefact: Path) -> Sequence[Path]:
        """The files outside `artefact` that the artefact needs (external data of ONNX models). Empty for most."""
        ...

    def open(self, request: OpenRequest) -> Model:
        """Reads a version into memory, or into a private copy. May import the framework and take minutes. Raises
        LoadError."""
        ...

    def devices(self) -> Sequence[str]:
        """The devices that the framework can use on this machine, best first ("cuda:0", "cpu"): `device: auto` takes
        the first. May import the framework. Raises LoadError if that fails."""
        ...
