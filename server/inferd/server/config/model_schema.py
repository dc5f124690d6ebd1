"""Settings of one model: its `model.yaml`, or `models.<name>` of config.yaml. The text under a key documents it."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Final, Literal, Self

from pydantic import Field, PrivateAttr, Strict, ValidationInfo, model_validator

from inferd.server.config.ensemble_schema import Step
from inferd.server.config.fields import (
    AbsolutePath,
    Count,
    Device,
    Dimension,
    DTypeName,
    Flag,
    Interval,
    Label,
    Room,
    Section,
    Text,
    Version,
    duplicates,
)
from inferd.server.config.gate_schema import Gate
from inferd.server.config.units import Seconds, Share
from inferd.wire.tensors import MAX_RANK

# Bounds of what a model's files may ask for. They are far above what a model needs, and far below what hurts others.
MOST_QUEUED: Final = 1_000_000
_ROWS: Final = 65_536
_COPIES: Final = 256
_THREADS: Final = 1024
_ALL_THREADS: Final = 4096  # of all copies of a model
_DEVICES: Final = 64
_RUNS: Final = 100_000
_VERSIONS: Final = 10_000
_TENSORS: Final = 4096  # as in a request
_SIGNATURES: Final = 256
_SAMPLES: Final = 1000
_SIZES: Final = 1000
_LABELS: Final = 1000
_STEPS: Final = 100

Paddings = Annotated[tuple[Annotated[Count, Field(le=_ROWS)], ...], Field(max_length=_SIZES)]
Shape = Annotated[tuple[Dimension, ...], Field(max_length=MAX_RANK)]

PARTIAL: Final = "partial"
"""Key of the validation context: the values are incomplete, because other layers may override them. Checks that compare
several keys are skipped."""


class Queue(Section):
    """One bounded queue per loaded version and signature. When it is full, requests are refused at once."""

    requests: Annotated[Count, Field(le=MOST_QUEUED)] = 1024
    """Largest number of requests that wait; at most 1,000,000."""
    bytes: Room = 256 * 2**20
    """Largest total size of their inputs."""
    timeout: Seconds | None = None
    """Longest time that a request waits if it names none itself. null: until its deadline."""
    admission: Literal["deadline", "bounds"] = "deadline"
    """deadline: a request is also refused at once when, judging by how long batches have taken, it could not be
    answered before its deadline; bounds: requests are refused only by the bounds above."""
    fair: Flag = True
    """When the queue is full and a client with less in it sends a request, the newest request of the client that has
    most in the queue is refused to make room. Clients are identified as for limits.clients: by identity, else by
    address. false: first come, first served."""


class Batching(Section):
    """How requests share batches."""

    mode: Literal["auto", "trusted", "off"] = "auto"
    """auto: requests share batches where the model's graph proves that this is safe; trusted: you declare that rows are
    independent, and requests share batches without proof; off: they never do. See docs/batching.md."""
    max_batch_size: Annotated[Count, Field(le=_ROWS)] = 32
    """Largest number of rows in one run; at most 65,536. A larger request is split where batching is proven."""
    size: Literal["auto", "largest"] = "auto"
    """auto: the server learns the cost of batches of each size. It leaves part of the queue for the next batch if that
    costs almost nothing. Without max_queue_delay, a batch also waits for callers who have just been answered, if they
    usually send their next request in less time than one larger batch saves. largest: a batch takes all queued
    requests, up to max_batch_size."""
    max_queue_delay: Seconds = 0.0
    """Longest time that a request waits for others to share its batch while an instance is idle."""
    preferred_batch_size: Annotated[Count, Field(le=_ROWS)] | None = None
    """An idle instance waits, up to max_queue_delay, only while fewer rows than this are queued. null:
    max_batch_size."""
    padding: dict[str, Paddings] = Field(default_factory=dict, max_length=_TENSORS)
    """Input name: the sizes to which its variable dimension is padded with zeros. Outputs keep the padded size."""
    verify: Share = 0.0
    """Share of the rows of batches, such as 0.1%, that run again alone after their requests are answered, and must give
    the same. A difference turns batching off for that version; where batching is declared it is only told. 0: none."""

    @model_validator(mode="after")
    def _agree(self, info: ValidationInfo) -> Self:
        if (info.context or {}).get(PARTIAL):
            return self
        if self.preferred_batch_size is not None and self.preferred_batch_size > self.max_batch_size:
            raise ValueError(
                f"expected preferred_batch_size of at most max_batch_size ({self.max_batch_size}), "
                f"got {self.preferred_batch_size}"
            )
        return self


class Instances(Section):
    """Executable copies of a model."""

    count: Annotated[Count, Field(le=_COPIES)] = 1
    """Copies on each device; at most 256 on all devices together."""
    device: Device | Annotated[tuple[Device, ...], Field(min_length=1, max_length=_DEVICES)] = "auto"
    """cpu, cuda:N, auto (the best there is), or a list of these with one group of copies on each."""
    threads: Annotated[Count, Field(le=_THREADS)] | None = None
    """CPU threads of each copy; at most 1,024, and 4,096 of all copies together. null: an equal share of
    server.cpu_threads."""
    nice: Annotated[int, Strict(), Field(ge=0, le=19)] = 5
    """By how much copies on the CPU give way to the front end (Linux's nice), so that a slow model delays neither a
    fast one nor a health check. 0: not at all."""
    on_loop: Literal["auto", "short", "never"] = "auto"
    """Which runs of a model on the CPU may take place on the loop of a front end (gRPC's or HTTP's), which saves the
    switch to another thread. short: runs of at most 0.5 ms, 1 ms at a time; auto: while no other model is called, also
    up to 2.5 ms at a time, if a run costs little more than the switch (the first request to another model then waits
    that long); never: none."""

    @model_validator(mode="after")
    def _bounded(self) -> Self:
        copies = self.count * (1 if isinstance(self.device, str) else len(self.device))
        if copies > _COPIES:
            raise ValueError(f"expected at most {_COPIES} copies on all devices together, got {copies}")
        if copies * (self.threads or 1) > _ALL_THREADS:
            raise ValueError(
                f"expected at most {_ALL_THREADS} threads of all copies together, got {copies * (self.threads or 1)}"
            )
        return self


def _given(value: Any) -> bool:
    return value is not None and value is not False  # 0 is given, and wrong


class Policy(Section):
    """Which versions are served: exactly one of these keys. Without any: the newest version."""

    KINDS: ClassVar = ("latest", "all", "specific")

    latest: Annotated[Count, Field(le=_VERSIONS)] | None = None
    """The newest n versions; at most 10,000."""
    all: Flag = False
    """Every version."""
    specific: Annotated[tuple[Version, ...], Field(min_length=1, max_length=_VERSIONS)] | None = None
    """Exactly these versions."""

    @model_validator(mode="before")
    @classmethod
    def _newest_by_default(cls, value: Any) -> Any:
        # A wrong value such as `all: 1` or `latest: ""` must reach its own check, so it counts as given.
        if isinstance(value, dict) and not any(_given(value.get(kind)) for kind in cls.KINDS):
            return {**value, "latest": 1}
        return value

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        given = [kind for kind in self.KINDS if _given(getattr(self, kind))]
        if len(given) > 1:
            raise ValueError(f"expected exactly one of latest, all, specific, got {' and '.join(given)}")
        return self


class Tensor(Section):
    """A declared input or output."""

    name: Text
    """As the model calls it."""
    dtype: DTypeName
    """As in the Open Inference Protocol: BOOL, INT8 to INT64, UINT8 to UINT64, FP16, BF16, FP32, FP64, STRING."""
    shape: Shape | None = None
    """Sizes, the batch axis included; -1: any size. null: any rank."""
    reshape: Shape | None = None
    """The shape that the model itself uses, the batch axis included, if requests use another one. null: the same."""
    optional: Flag = False
    """Of an input: requests may leave it out."""
    labels: Text | None = None
    """Of an output with classes: a file in the model's directory with one class name per line."""
    sample: Any = None
    """Of an input: one row of real data (nested lists), used in warm-up and in the test for batching. STRING: texts, or
    {file: NAME} for the bytes of a file in the model's directory."""


class DeclaredSignature(Section):
    """Inputs and outputs that the artefact itself does not describe (TorchScript)."""

    name: Text = "serving_default"
    """Name of the signature."""
    inputs: Annotated[tuple[Tensor, ...], Field(max_length=_TENSORS)]
    """Inputs, in the order of the model's arguments."""
    outputs: Annotated[tuple[Tensor, ...], Field(max_length=_TENSORS)] = ()
    """Outputs, in the order in which the model returns them."""

    @model_validator(mode="after")
    def _names_differ(self) -> Self:
        for kind in ("inputs", "outputs"):
            repeated = duplicates(tensor.name for tensor in getattr(self, kind))
            if repeated:
                raise ValueError(f"expected {kind} with different names, got {repeated} more than once")
        return self


class SampleInput(Section):
    """One input of a warm-up request."""

    dtype: DTypeName
    """As in the Open Inference Protocol."""
    shape: Annotated[tuple[Annotated[int, Strict(), Field(ge=0, lt=2**63)], ...], Field(max_length=MAX_RANK)] = ()
    """The whole shape, the batch axis included."""
    fill: Literal["zero", "random"] = "zero"
    """The values, if no file is given."""
    file: Text | None = None
    """A file in the model's directory `warmup` with the values as raw bytes (STRING: four bytes of length before
    each)."""


class WarmupSample(Section):
    """A request that every instance answers before the version takes traffic. One that fails is a failed load."""

    name: str = ""
    """What error messages call it."""
    inputs: Annotated[dict[Text, SampleInput], Field(min_length=1, max_length=_TENSORS)]
    """Input name: the data that is sent."""
    runs: Annotated[Count, Field(le=_RUNS)] = 1
    """How often it is sent; at most 100,000 times."""


class Warmup(Section):
    """What runs before a version takes traffic."""

    mode: Literal["auto", "off"] = "auto"
    """auto: every signature is run, with its samples or with seeded data; off: none is."""
    runs: Annotated[Count, Field(le=_RUNS)] = 1
    """Runs per signature; at most 100,000."""
    samples: Annotated[tuple[WarmupSample, ...], Field(max_length=_SAMPLES)] = ()
    """Further requests to the default signature."""


class Worker(Section):
    """The worker process of a model that has one (see `isolation`)."""

    hang: Interval = 60.0
    """A run that takes longer, or a silence of this length, ends the process."""
    start: Interval = 600.0
    """Longest time that each step of a load may take: opening the version, making an instance, a run of the warm-up."""
    memory: Room | None = None
    """The process is ended when it takes more resident memory than this. null: no bound."""
    python: AbsolutePath | None = None
    """The Python interpreter in which it runs, with packages of its own (numpy is needed); one of server.interpreters.
    Only the server's own configuration may set it. null: the server's."""


class ModelConfig(Section):
    """One model. Everything is optional and otherwise inferred."""

    backend: Text | None = None
    """onnx, torch, tensorflow, python or a plug-in's name. null: inferred from the files of the version."""
    artefact: Text | None = None
    """The file or directory to serve in each version, if it does not have its usual name. null: found by its
    name."""
    version_policy: Policy = Policy(latest=1)
    transition: Literal["availability", "resource"] = "availability"
    """availability: the new version is loaded before the old one goes; resource: the old one goes first."""
    labels: dict[Label, Version] = Field(default_factory=dict, max_length=_LABELS)
    """Names for versions, such as stable: 3."""
    signatures: Annotated[tuple[DeclaredSignature, ...], Field(max_length=_SIGNATURES)] = ()
    """For artefacts that do not describe their signatures (TorchScript, Python code), or to add samples. The first one
    is the default."""
    inner_signatures: Annotated[tuple[DeclaredSignature, ...], Field(max_length=1)] = ()
    """With steps.py: inputs and outputs of the model itself, between the steps, if its artefact does not describe them
    (TorchScript). `signatures` then says what requests and answers hold. At most one."""
    batching: Batching = Batching()
    queue: Queue = Queue()
    instances: Instances = Instances()
    isolation: Literal["auto", "none", "process"] = "auto"
    """none: the model runs in the server's process; process: each loaded version runs in a worker process of its own,
    whose crash or hang fails nothing else; auto: process for versions with Python code (model.py, steps.py), none for
    all others."""
    worker: Worker = Worker()
    warmup: Warmup = Warmup()
    stateful: Flag | None = None
    """true: answers depend on earlier calls: unbatched, one instance, one request at a time; false: they do not,
    whatever the model's graph and the warm-up show. null: as they show."""
    default_priority: Annotated[int, Strict(), Field(ge=1, le=1000)] = 1
    """Priority of requests that name none; 1 is served before 2."""
    options: dict[str, Any] = Field(default_factory=dict)
    """The backend's own settings."""
    gate: Gate | None = None
    """What a new version must reach before it is published. null: nothing. See docs/optimising.md."""
    trusted_steps: Flag = False
    """Of an ensemble: who may call it may use the models of its steps through it, whatever else their credentials say.
    Only the server's own configuration may set it (models.<name>.trusted_steps in config.yaml)."""
    ensemble: Annotated[tuple[Step, ...], Field(max_length=_STEPS)] = ()
    """Instead of an artefact: steps, which are other models of this server connected to each other. Their order does
    not matter: a step runs when its inputs are there. `signatures` declares the inputs and outputs of the ensemble."""

    _batch_first: bool = PrivateAttr(default=False)

    @property
    def batch_first(self) -> bool:
        """Whether config.pbtxt says, by max_batch_size above 0, that the first dimension of all tensors is the batch.
        No setting of its own."""
        return self._batch_first

    def with_batch_first(self) -> Self:
        """These settings, of a model whose config.pbtxt says so."""
        copy = self.model_copy()
        copy._batch_first = True
        return copy

    @model_validator(mode="after")
    def _signatures_differ(self) -> Self:
        repeated = duplicates(signature.name for signature in self.signatures)
        if repeated:
            raise ValueError(f"expected signatures with different names, got {repeated} more than once")
        return self
