"""Settings of one model: its `model.yaml`, or `models.<name>` of config.yaml. The text under a key documents it."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Final, Literal, Self

from pydantic import Field, Strict, ValidationInfo, model_validator

from inferd.server.config.ensemble_schema import Step
from inferd.server.config.fields import (
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
)
from inferd.server.config.units import Seconds

PARTIAL: Final = "partial"
"""Key of the validation context that says: other layers may still change this value, so keys are not compared."""


class Queue(Section):
    """One bounded queue per loaded version and signature. When it is full, requests are refused at once."""

    requests: Count = 1024
    """Largest number of requests that wait."""
    bytes: Room = 256 * 2**20
    """Largest total size of their inputs."""
    timeout: Seconds | None = None
    """Longest time that a request waits if it names none itself. null: until its deadline."""
    admission: Literal["deadline", "bounds"] = "deadline"
    """deadline: a request is also refused at once when, by what batches have been taking, it could not be answered
    before its deadline; bounds: only the bounds above refuse."""
    fair: Flag = True
    """When the queue is full, the newest request of the client that has most in it is refused to make room for another
    client's, as long as that client has less in it. Clients are told apart as for limits.clients: by identity, else by
    address. false: first come, first served."""


class Batching(Section):
    """How requests share batches."""

    mode: Literal["auto", "trusted", "off"] = "auto"
    """auto: requests share batches if that is proven safe when the model is loaded; trusted: they do without proof;
    off: never."""
    max_batch_size: Count = 32
    """Most rows in one run. A larger request is split where batching was proven safe."""
    size: Literal["auto", "largest"] = "auto"
    """auto: the cost of batches of each size is learned. Part of what waits is left for the next batch where that costs
    next to nothing; and, without max_queue_delay, a batch waits for callers who have just been answered where they
    usually are back in less time than one larger batch saves. largest: a batch takes all that waits, up to
    max_batch_size."""
    max_queue_delay: Seconds = 0.0
    """Longest time that a request waits for others to share its batch while an instance is idle."""
    preferred_batch_size: Count | None = None
    """An idle instance waits, up to max_queue_delay, only while fewer rows than this are queued. null:
    max_batch_size."""
    padding: dict[str, tuple[Count, ...]] = Field(default_factory=dict)
    """By input: the sizes to which its variable dimension is padded with zeros. Outputs keep the padded size."""

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

    count: Count = 1
    """Copies on each device."""
    device: Device | Annotated[tuple[Device, ...], Field(min_length=1)] = "auto"
    """cpu, cuda:N, auto (the best there is), or a list of these with one group of copies on each."""
    threads: Count | None = None
    """CPU threads of each copy. null: an equal share of server.cpu_threads."""
    nice: Annotated[int, Strict(), Field(ge=0, le=19)] = 5
    """By how much copies on the CPU give way to the front end (Linux's nice), so that a slow model delays neither a
    fast one nor a health check. 0: not at all."""
    on_loop: Literal["auto", "short", "never"] = "auto"
    """What of a model on the CPU may run on the front end's own loop, where no thread has to be changed. short: runs of
    at most 0.5 ms, 1 ms at a time; auto: also, while no other model is called, up to 2.5 ms at a time, where they cost
    little more than the change (the first request to another model then waits for as long); never: nothing."""


def _given(value: Any) -> bool:
    return value is not None and value is not False  # 0 is given, and wrong


class Policy(Section):
    """Which versions are served: exactly one of these keys. Without any: the newest version."""

    KINDS: ClassVar = ("latest", "all", "specific")

    latest: Count | None = None
    """The newest n versions."""
    all: Flag = False
    """Every version."""
    specific: Annotated[tuple[Version, ...], Field(min_length=1)] | None = None
    """Exactly these versions."""

    @model_validator(mode="before")
    @classmethod
    def _newest_by_default(cls, value: Any) -> Any:
        # A refused `all: 1` or `latest: ""` must reach its own check, so only absence counts as not given.
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
    shape: tuple[Dimension, ...] | None = None
    """Sizes, the batch axis included; -1: any size. null: even the rank is open."""
    reshape: tuple[Dimension, ...] | None = None
    """The shape that the model itself uses, the batch axis included, where requests use another. null: the same."""
    optional: Flag = False
    """Of an input: requests may leave it out."""
    labels: Text | None = None
    """Of an output with classes: a file in the model's directory with one class name per line."""
    sample: Any = None
    """Of an input: one row of real data (nested lists), used in warm-up and batch proof."""


class DeclaredSignature(Section):
    """Inputs and outputs that the artefact itself does not tell (TorchScript)."""

    name: Text = "serving_default"
    """Name of the signature."""
    inputs: tuple[Tensor, ...]
    """Inputs, in the order of the model's arguments."""
    outputs: tuple[Tensor, ...] = ()
    """Outputs, in the order in which the model returns them."""

    @model_validator(mode="after")
    def _names_differ(self) -> Self:
        for kind in ("inputs", "outputs"):
            names = [tensor.name for tensor in getattr(self, kind)]
            twice = sorted({name for name in names if names.count(name) > 1})
            if twice:
                raise ValueError(f"expected {kind} with different names, got {', '.join(twice)} more than once")
        return self


class SampleInput(Section):
    """One input of a warm-up request."""

    dtype: DTypeName
    """As in the Open Inference Protocol."""
    shape: tuple[Annotated[int, Strict(), Field(ge=0)], ...] = ()
    """The whole shape, the batch axis included."""
    fill: Literal["zero", "random"] = "zero"
    """The values, where no file is given."""
    file: Text | None = None
    """A file in the model's directory `warmup` with the values as raw bytes (STRING: four bytes of length before
    each)."""


class WarmupSample(Section):
    """A request that every instance answers before the version takes traffic. One that fails is a failed load."""

    name: str = ""
    """What error messages call it."""
    inputs: Annotated[dict[Text, SampleInput], Field(min_length=1)]
    """By input: what is sent."""
    runs: Count = 1
    """How often it is sent."""


class Warmup(Section):
    """What runs before a version takes traffic."""

    mode: Literal["auto", "off"] = "auto"
    """auto: every signature is run, with its samples or with seeded data; off: none is."""
    runs: Count = 1
    """Runs per signature."""
    samples: tuple[WarmupSample, ...] = ()
    """Further requests to the default signature."""


class Worker(Section):
    """The worker process of a model with `isolation: process`."""

    hang: Interval = 60.0
    """A run that takes longer, or a silence of this length, ends the process."""
    start: Interval = 600.0
    """Longest time that each step of a load may take: opening the version, making an instance, a run of the warm-up."""
    memory: Room | None = None
    """The process is ended when it takes more resident memory than this. null: no bound."""


class ModelConfig(Section):
    """One model. Everything is optional and otherwise inferred."""

    backend: Text | None = None
    """onnx, torch, tensorflow or a plug-in's name. null: found out from the files of the version."""
    artefact: Text | None = None
    """The file or directory to serve in each version, where it does not have its usual name. null: found by its
    name."""
    version_policy: Policy = Policy(latest=1)
    transition: Literal["availability", "resource"] = "availability"
    """availability: the new version is loaded before the old one goes; resource: the old one goes first."""
    labels: dict[Label, Version] = Field(default_factory=dict)
    """Names for versions, such as stable: 3."""
    signatures: tuple[DeclaredSignature, ...] = ()
    """For artefacts that do not tell their signatures (TorchScript), or to add samples. The first one is the
    default."""
    batching: Batching = Batching()
    queue: Queue = Queue()
    instances: Instances = Instances()
    isolation: Literal["none", "process"] = "none"
    """none: the model runs in the server's process; process: each loaded version runs in a worker process of its own,
    whose crash or hang fails nothing else."""
    worker: Worker = Worker()
    warmup: Warmup = Warmup()
    stateful: Flag = False
    """Answers depend on earlier calls: unbatched, one instance, one request at a time."""
    default_priority: Annotated[int, Strict(), Field(ge=1, le=1000)] = 1
    """Priority of requests that name none; 1 is served before 2."""
    options: dict[str, Any] = Field(default_factory=dict)
    """The backend's own settings."""
    ensemble: tuple[Step, ...] = ()
    """Instead of an artefact: steps, which are other models of this server wired to each other. Their order does not
    matter: a step runs when its inputs are there. `signatures` says what the whole takes and gives."""

    @model_validator(mode="after")
    def _signatures_differ(self) -> Self:
        names = [signature.name for signature in self.signatures]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"expected signatures with different names, got {', '.join(twice)} more than once")
        return self
