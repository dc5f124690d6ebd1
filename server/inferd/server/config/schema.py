"""Every setting of the server with its default and, under the key, its meaning. Values are frozen.

`load.py` reads them, `config.yaml` shows them all. `ServerConfig` is the process; `ModelConfig` (model_schema.py) is
one model, written in its `model.yaml` or under `models.<name>` of config.yaml.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, Strict, model_validator

from inferd.server.config.access_schema import Auth, Clients, Granted, Jwt, Limits
from inferd.server.config.fields import (
    Count,
    Flag,
    HttpAddresses,
    Interval,
    ListenAddresses,
    Room,
    Section,
    Text,
    Texts,
)
from inferd.server.config.model_schema import (
    Batching,
    DeclaredSignature,
    Instances,
    ModelConfig,
    Policy,
    Queue,
    Tensor,
    Warmup,
    Worker,
)
from inferd.server.config.units import Seconds

__all__ = [
    "Admin",
    "Auth",
    "Batching",
    "Clients",
    "DeclaredSignature",
    "Drain",
    "Granted",
    "Grpc",
    "Http",
    "Inflight",
    "Instances",
    "Jwt",
    "Limits",
    "Load",
    "Log",
    "Memory",
    "ModelConfig",
    "Policy",
    "Queue",
    "Repository",
    "Section",
    "Server",
    "ServerConfig",
    "Tensor",
    "Tls",
    "Warmup",
    "Worker",
]


class Tls(Section):
    """TLS; its files are read again when they change."""

    certificate: Text
    """PEM file of the certificate chain."""
    key: Text
    """PEM file of the private key."""
    client_ca: Text | None = None
    """PEM file: clients must show a certificate that it signed."""


class Server(Section):
    """Where the process listens, and what it may use."""

    listen: ListenAddresses = ("0.0.0.0:8001", "0.0.0.0:8500")
    """gRPC addresses, HOST:PORT or unix:PATH. Of these two defaults 8001 is required and 8500 only warns when taken."""
    http: HttpAddresses = ("0.0.0.0:8000",)
    """Addresses of REST, /metrics, /healthz and /readyz, HOST:PORT. []: none."""
    workers: Count = 1
    """Serving processes on the same ports. Above 1 a supervisor starts them, restarts one that dies and keeps them in
    step; they share cpu_threads."""
    transport: Literal["auto", "cq", "public"] = "auto"
    """auto: the fastest gRPC front end that passes its self-check; public: grpcio's public API."""
    metrics: HttpAddresses = ()
    """Addresses of /metrics, /healthz and /readyz alone, HOST:PORT, in plain text and without credentials."""
    tls: Tls | None = None
    """Of the gRPC port. null: plain text."""
    state_dir: Text | None = None
    """Directory that keeps operators' wishes (unload, pin, label) over a restart. null: they are kept in memory."""
    cpu_threads: Count | None = None
    """CPU threads that the instances share. null: what the machine or the container allows."""
    shared_memory: Text | None = None
    """How names of POSIX shared memory must begin that clients on this machine may register for tensors ("/" for any).
    null: none may."""
    preload: Texts = ()
    """Backends whose frameworks are imported at start, such as [tensorflow]. None where `isolation` is process for
    all models."""
    # No `Texts`: a misspelt "strict" must not become a list of one model.
    readiness: Literal["settled", "strict"] | tuple[Text, ...] = "settled"
    """settled: ready when every version of the first scan is served or has failed once; strict: when all are served;
    or a list of models that must be served."""
    open: Literal["at_start", "when_ready"] = "at_start"
    """When the ports open. when_ready: for proxies that ask nobody's health, such as nginx; until then nothing answers,
    /healthz neither, and a port that is taken is noticed only then. Workers of a group start together in any case."""


class Grpc(Section):
    """Limits of the gRPC port."""

    max_message: Room = 64 * 2**20
    """Largest message, both ways."""
    max_streams_per_connection: Count = 1024
    """Most calls at once on one connection."""
    max_connections: Count = 4096
    """Most connections."""
    max_connection_age: Interval | None = None
    """A connection is asked to end after about this time: its calls are finished, and the client connects anew. null:
    never; 30s with server.workers above 1, so that connections spread and a worker can be replaced without a failed
    call."""
    keepalive_time: Interval = 60.0
    """A silent connection is pinged after this time."""
    keepalive_timeout: Interval = 20.0
    """A connection that does not answer a ping for this time is closed."""
    max_metadata: Room = 16 * 2**10
    """Most metadata (headers) of a call."""
    receive_timeout: Interval = 60.0
    """A call whose message has not come after this time fails (streams may be silent)."""


class Http(Section):
    """Limits of the HTTP port."""

    max_body: Room = 64 * 2**20
    """Largest body of a request over REST, compressed and decompressed."""
    timeout: Interval = 60.0
    """A request over REST that is not answered after this time fails."""
    connections: Count = 1024
    """Most connections. Past these the one that has been silent longest is cut off."""
    tls: Tls | None = None
    """Of the HTTP port. null: plain text."""


class Inflight(Section):
    """Requests between receipt and reply, over all models. Past these a call is refused."""

    calls: Count = 8192
    """Most calls."""
    bytes: Room = 1024 * 2**20
    """Most bytes of their messages."""


class Memory(Section):
    """What the process may keep in memory. For requests there are `inflight.bytes` and `queue.bytes`."""

    models: Room | None = None
    """Most bytes of host memory that the loaded models take together, by their files and what loads have shown. A
    version that does not fit is not loaded, and the one before it stays. null: no such bound."""


class Repository(Section):
    """Where models come from."""

    roots: Texts = ("model_repository",)
    """Directories that hold models; relative ones start at the working directory."""
    models: dict[Text, Text] = Field(default_factory=dict)
    """Models by name, each with its own directory of versions wherever that lies: a TensorFlow Serving base path."""
    models_file: Text | None = None
    """A file in the format of TensorFlow Serving's model_config_file: more such models, their policies and labels."""
    models_file_poll: Seconds = 0.0
    """Time between two looks at models_file. 0s: it is read at start only."""
    mode: Literal["watch", "explicit"] = "watch"
    """watch: what is on disk is served; explicit: only what `load` names or an operator loads."""
    load: Texts = ()
    """explicit mode: models loaded at start; "*" means all."""
    poll: Interval = 1.0
    """Time between two looks at the disk. File events wake it earlier."""
    settle: Seconds = 2.0
    """A version is loaded when its files have not changed for this time. On NFS: 65s."""
    ready_file: Text | None = None
    """A version counts only when its directory holds a file of this name."""
    allowed_link_targets: Texts = ()
    """Directories outside the roots into which symbolic links may point."""


class Load(Section):
    """How versions are loaded."""

    threads: Count = 2
    """Versions that load at the same time."""
    retry_min: Interval = 1.0
    """Pause before a failed load is tried again; it doubles with each failure."""
    retry_max: Interval = 60.0
    """Longest pause between two tries."""

    @model_validator(mode="after")
    def _grows(self) -> Self:
        if self.retry_max < self.retry_min:
            raise ValueError(f"expected retry_max of at least retry_min ({self.retry_min:g}s), got {self.retry_max:g}s")
        return self


class Drain(Section):
    """How the server stops."""

    pre_stop: Seconds = 0.0
    """Time between saying NOT_SERVING and taking no more calls: what a load balancer needs to notice."""
    grace: Seconds = 30.0
    """Calls that still run after this time are cut off."""


class Admin(Section):
    """Who may load, unload, label and roll back."""

    allow: Literal["local_peer", "authenticated", "anyone"] = "local_peer"
    """local_peer: callers on this machine, not through a proxy; authenticated: from anywhere, but only with
    credentials; anyone. Where `auth` is set, the scope admin is needed as well."""
    allow_upload: Flag = False
    """Whether those may send a model's files with a load (Triton's `file:` parameters)."""
    max_upload: Room = 1024 * 2**20
    """Most bytes of uploaded models, all together."""


class Log(Section):
    """Structured logs: one line per event."""

    format: Literal["text", "json"] = "text"
    """text: key=value; json: one object per line."""
    level: Literal["debug", "info", "warning", "error"] = "info"
    """Least important level that is written."""
    file: Text | None = None
    """File to write to, with rotation. null: standard error."""
    max_size: Room = 50 * 2**20
    """The file is rotated at this size."""
    backups: Annotated[int, Strict(), Field(ge=1, le=1000)] = 5
    """Rotated files that are kept."""


class ServerConfig(Section):
    """The whole of config.yaml."""

    server: Server = Server()
    grpc: Grpc = Grpc()
    http: Http = Http()
    inflight: Inflight = Inflight()
    memory: Memory = Memory()
    repository: Repository = Repository()
    load: Load = Load()
    drain: Drain = Drain()
    admin: Admin = Admin()
    auth: Auth = Auth()
    limits: Limits = Limits()
    log: Log = Log()
    queue: Queue = Queue()
    """Default for every model, over which the model's own settings are laid."""
    batching: Batching = Batching()
    """Default for every model, over which the model's own settings are laid."""
    instances: Instances = Instances()
    """Default for every model, over which the model's own settings are laid."""
    isolation: Literal["none", "process"] = "none"
    """Default for every model."""
    worker: Worker = Worker()
    """Default for every model, over which the model's own settings are laid."""
    models: dict[Text, dict[str, Any]] = Field(default_factory=dict)
    """By model name: any key of model.yaml, over what its model.yaml and config.pbtxt say."""

    @model_validator(mode="after")
    def _credentials(self) -> Self:
        if self.admin.allow == "authenticated" and not self.auth.enabled:
            raise ValueError(
                "expected auth.tokens_file, auth.jwt or auth.certificates with admin.allow: authenticated, got none"
            )
        return self
