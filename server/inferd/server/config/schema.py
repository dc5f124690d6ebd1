"""Every setting with its default and its meaning. Values are frozen; `load.py` reads them, `config.yaml` shows them all.

`ServerConfig` is the process; `ModelConfig` is one model, written in its `model.yaml` or under `models.<name>` of config.yaml.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from inferd.server.config.units import Seconds, Size


class Section(BaseModel):
    """Frozen; an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Tls(Section):
    """TLS of the gRPC port: PEM files. With `client_ca`, clients must show a certificate that it signed."""

    certificate: str
    key: str
    client_ca: str | None = None


class Server(Section):
    """Where the process listens."""

    listen: tuple[str, ...] = ("0.0.0.0:8001", "0.0.0.0:8500")
    http: tuple[str, ...] = ("0.0.0.0:8000",)
    transport: Literal["auto", "public"] = "auto"
    tls: Tls | None = None
    state_dir: str | None = None
    cpu_threads: int | None = Field(default=None, ge=1)
    preload: tuple[str, ...] = ()
    readiness: Literal["settled", "strict"] | tuple[str, ...] = "settled"


class Grpc(Section):
    """Limits of the gRPC port."""

    max_message: Size = 64 * 2**20
    max_streams_per_connection: int = Field(default=1024, ge=1)
    max_connections: int = Field(default=4096, ge=1)
    keepalive_time: Seconds = 60.0
    keepalive_timeout: Seconds = 20.0
    max_metadata: Size = 16 * 2**10


class Inflight(Section):
    """Requests and their bytes between receipt and reply, over all models. Past these a call is refused."""

    calls: int = Field(default=8192, ge=1)
    bytes: Size = 1024 * 2**20


class Repository(Section):
    """Where models come from. `roots` may be given on the command line too."""

    roots: tuple[str, ...] = ("model_repository",)
    mode: Literal["watch", "explicit"] = "watch"
    load: tuple[str, ...] = ()
    poll: Seconds = 1.0
    settle: Seconds = 2.0
    ready_file: str | None = None
    allowed_link_targets: tuple[str, ...] = ()


class Load(Section):
    """How versions are loaded."""

    threads: int = Field(default=2, ge=1)
    retry_min: Seconds = 1.0
    retry_max: Seconds = 60.0


class Drain(Section):
    """How the server stops: NOT_SERVING, `pre_stop` later it takes no more calls, `grace` later it cuts off what still runs."""

    pre_stop: Seconds = 0.0
    grace: Seconds = 30.0


class Admin(Section):
    """Who may load, unload, label and roll back."""

    allow: Literal["local_peer", "anyone"] = "local_peer"


class Log(Section):
    """Structured logs. With `file`, the file rotates at `max_size` and `backups` old ones are kept."""

    format: Literal["text", "json"] = "text"
    level: Literal["debug", "info", "warning", "error"] = "info"
    file: str | None = None
    max_size: Size = 50 * 2**20
    backups: int = Field(default=5, ge=0)


class Queue(Section):
    """One bounded queue per servable and signature. Full means refused at once."""

    requests: int = Field(default=1024, ge=1)
    bytes: Size = 256 * 2**20


class Batching(Section):
    """How requests share batches.

    `mode`: auto = batched when proven safe at load; trusted = batched without proof; off. `padding` maps an input to
    the sizes to which its variable dimension is padded up (zeros); its outputs keep the padded size.
    """

    mode: Literal["auto", "trusted", "off"] = "auto"
    max_batch_size: int = Field(default=32, ge=1)
    max_queue_delay: Seconds = 0.0
    preferred_batch_size: int | None = Field(default=None, ge=1)
    padding: dict[str, tuple[int, ...]] = Field(default_factory=dict)


class Instances(Section):
    """Executable copies. `device`: "cpu", "cuda:0", "auto" (best there is) or a list, one group of `count` on each."""

    count: int = Field(default=1, ge=1)
    device: str | tuple[str, ...] = "auto"
    threads: int | None = Field(default=None, ge=1)


class Policy(Section):
    """Which versions are served: the newest n, all, or exactly these."""

    latest: int | None = Field(default=None, ge=1)
    all: bool = False
    specific: tuple[int, ...] | None = None


class Tensor(Section):
    """A declared input or output. `dtype` as in the Open Inference Protocol ("FP32", "STRING"); -1 = any size. `sample`,
    for inputs, is one row of real data used in warm-up and batch proof."""

    name: str
    dtype: str
    shape: tuple[int, ...] | None = None
    optional: bool = False
    sample: Any = None


class DeclaredSignature(Section):
    """Inputs and outputs that the artefact itself does not tell (TorchScript)."""

    name: str = "serving_default"
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...] = ()


class Warmup(Section):
    """`mode`: auto = every signature with samples or seeded data; off. `runs` per signature."""

    mode: Literal["auto", "off"] = "auto"
    runs: int = Field(default=1, ge=1)


class ModelConfig(Section):
    """One model. Everything is optional and otherwise inferred."""

    backend: str | None = None
    version_policy: Policy = Policy()
    transition: Literal["availability", "resource"] = "availability"
    labels: dict[str, int] = Field(default_factory=dict)
    signatures: tuple[DeclaredSignature, ...] = ()
    batching: Batching = Batching()
    queue: Queue = Queue()
    instances: Instances = Instances()
    warmup: Warmup = Warmup()
    stateful: bool = False
    default_priority: int = Field(default=1, ge=1)
    options: dict[str, Any] = Field(default_factory=dict)


class ServerConfig(Section):
    """The whole of config.yaml."""

    server: Server = Server()
    grpc: Grpc = Grpc()
    inflight: Inflight = Inflight()
    repository: Repository = Repository()
    load: Load = Load()
    drain: Drain = Drain()
    admin: Admin = Admin()
    log: Log = Log()
    # Defaults for every model; a model's own settings are laid over them.
    queue: Queue = Queue()
    batching: Batching = Batching()
    instances: Instances = Instances()
    models: dict[str, dict[str, Any]] = Field(default_factory=dict)
