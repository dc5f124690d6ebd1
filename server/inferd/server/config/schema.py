"""Every setting of the server with its default and, under the key, its documentation. Values are frozen.

`load.py` reads the settings; docs/reference/ has all of them. `ServerConfig` holds the settings of the process;
`ModelConfig` (model_schema.py) those of one model, from its `model.yaml` or from `models.<name>` of config.yaml.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, Strict, model_validator

from inferd.server.config.access_schema import Auth, Clients, Granted, Jwt, Limits
from inferd.server.config.fields import (
    AbsolutePaths,
    Allowances,
    Count,
    Flag,
    GrpcCount,
    GrpcInterval,
    GrpcRoom,
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
    """TLS. Its files are read again when they change."""

    certificate: Text
    """PEM file of the certificate chain."""
    key: Text
    """PEM file of the private key."""
    client_ca: Text | None = None
    """PEM file: clients must show a certificate that it signed."""


class Server(Section):
    """Where the process listens, and what it may use."""

    listen: ListenAddresses = ("0.0.0.0:8001", "0.0.0.0:8500")
    """gRPC addresses, HOST:PORT or unix:PATH. Of the two defaults 8001 is required; 8500 is left out, with a warning,
    when it is taken."""
    http: HttpAddresses = ("0.0.0.0:8000",)
    """Addresses of REST, /metrics, /healthz and /readyz, HOST:PORT. []: no HTTP."""
    workers: Annotated[Count, Field(le=1024)] = 1
    """How many processes serve on the same ports. Above 1 a supervisor starts them, replaces one that dies and makes
    them switch versions together; they share cpu_threads."""
    worker_hang: Interval = 30.0
    """With several workers: a worker that does not answer its supervisor for this time is killed and replaced; one that
    starts or computes gets ten times as long."""
    transport: Literal["auto", "cq", "public"] = "auto"
    """auto: the fastest gRPC front end that passes its self-check; cq: the completion queue, without which the server
    does not start; public: grpcio's public API."""
    metrics: HttpAddresses = ()
    """Addresses of /metrics, /healthz and /readyz alone, HOST:PORT, in plain text and without credentials."""
    tls: Tls | None = None
    """This one is for the gRPC port; null means plain text."""
    state_dir: Text | None = None
    """Directory that keeps operators' overrides (unload, pin, label) over a restart. null: they are kept in memory
    only."""
    work_dir: Text | None = None
    """Directory below which each process has a private one for temporary copies of models, uploads and unpacked
    libraries. It is removed when the process ends; what a killed process has left is removed by the next start. null:
    below TMPDIR."""
    cpu_threads: Annotated[Count, Field(le=4096)] | None = None
    """CPU threads that the instances share. null: as many as the machine or the container allows."""
    interpreters: AbsolutePaths = ()
    """Python interpreters that worker processes may run in (worker.python), such as [/opt/venvs/fraud/bin/python]."""
    shared_memory: Text | None = None
    """Prefix of the names of POSIX shared memory that clients on this machine may register for tensors ("/": any name).
    null: shared memory is off."""
    preload: Texts = ()
    """Backends whose frameworks are imported at start, such as [tensorflow]. Without effect if `isolation` is process
    for all models."""
    # Not `Texts`, which would read a misspelt "strict" as a list of one model.
    readiness: Literal["settled", "nonempty", "strict"] | tuple[Text, ...] = "settled"
    """settled: ready when every version that was on disk at the first scan is served or has failed once; nonempty: the
    same, and at least one version is served; strict: when all are served; or a list of models that must be served."""
    open: Literal["at_start", "when_ready"] = "at_start"
    """When the ports open. when_ready is for proxies that do not check health, such as nginx: until the server is
    ready, no port answers, not even /healthz, and a port that is taken is noticed only then. It has no effect with
    server.workers above 1."""


class Grpc(Section):
    """Limits of the gRPC port."""

    max_message: GrpcRoom = 64 * 2**20
    """Largest message, in either direction."""
    max_streams_per_connection: GrpcCount = 1024
    """Largest number of calls at the same time on one connection."""
    max_connections: GrpcCount = 4096
    """Largest number of connections."""
    max_connection_age: GrpcInterval | None = None
    """A connection is asked to end at about this age: its calls are finished, and the client connects again. null:
    never, or 30s with server.workers above 1, so that connections spread over the workers and a worker can be replaced
    without a failed call."""
    keepalive_time: GrpcInterval = 60.0
    """A connection that has been silent for this time is pinged."""
    keepalive_timeout: GrpcInterval = 20.0
    """A connection that does not answer a ping within this time is closed."""
    max_metadata: GrpcRoom = 16 * 2**10
    """Largest metadata (headers) of a call."""
    receive_timeout: Interval = 60.0
    """A call whose message has not arrived after this time fails. Streams may be silent."""
    write_timeout: Interval = 60.0
    """A call whose client has not read the answer after this time is cut off, and a stream that has not read a message.
    While more than half of `inflight.bytes` is held, after a second."""
    compression: Literal["accept", "refuse"] = "accept"
    """accept: messages may be compressed (gzip, deflate), and count by what comes out of them, within `max_message` and
    `inflight.bytes`; refuse: a compressed message fails its call with UNIMPLEMENTED."""


class Http(Section):
    """Limits of the HTTP port."""

    max_body: Room = 64 * 2**20
    """Largest body of a REST request, as it is sent and decompressed."""
    timeout: Interval = 60.0
    """A REST request that is not answered within this time fails."""
    connections: Count = 1024
    """Largest number of connections. Beyond it, the connection that has been silent longest is closed."""
    hosts: Texts = ()
    """Names by which browsers reach this port, besides addresses, localhost and the machine's own name; "*": any. A
    request that says another name in its Host header gets no page for browsers (/docs), and its caller does not count
    as local (admin.allow: local_peer)."""
    tls: Tls | None = None
    """This one is for the HTTP port; null means plain text."""


class Inflight(Section):
    """Bounds on the calls that are received and whose answers are not yet written, over all models. Beyond them a call
    is refused."""

    calls: Count = 8192
    """Largest number of calls."""
    bytes: Room = 1024 * 2**20
    """Largest total size of their messages, received and inflated, and of their answers until these are written."""


class Memory(Section):
    """Bounds on the memory of the process. Requests are bounded by `inflight.bytes` and `queue.bytes`."""

    models: Room | None = None
    """Host memory that all loaded models may take together, estimated from their files and from earlier loads. A
    version that does not fit is not loaded, and the one before it stays. null: no bound."""


class Repository(Section):
    """Where models come from."""

    roots: Texts = ("model_repository",)
    """Directories that hold models. Relative paths start at the working directory. A directory that holds versions or a
    model's file instead is itself one model."""
    model_name: Text | None = None
    """The name of the model if a root is itself one. null: the name of its directory."""
    models: dict[Text, Text] = Field(default_factory=dict)
    """Models by name, each with the directory of its versions, wherever that is: TensorFlow Serving's base path."""
    base_paths: Texts = ()
    """Directories into which a request (TensorFlow Serving's HandleReloadConfigRequest) may put a model's base path,
    besides the roots and the directories in which configured models lie."""
    models_file: Text | None = None
    """A file in the format of TensorFlow Serving's model_config_file, with more such models, their policies and
    labels."""
    models_file_poll: Seconds = 0.0
    """Time between two reads of models_file. 0s: it is read at start only."""
    mode: Literal["watch", "explicit"] = "watch"
    """watch: what is on disk is served; explicit: only what `load` names or an operator loads."""
    load: Texts = ()
    """explicit mode: models loaded at start; "*" means all."""
    poll: Interval = 1.0
    """Time between two scans of the disk. File events start a scan earlier."""
    settle: Seconds = 2.0
    """A version is loaded when its files have not changed for this time. On NFS: 65s."""
    ready_file: Text | None = None
    """A version is loaded only when its directory holds a file of this name. null: no such file is needed."""
    allowed_link_targets: Texts = ()
    """Directories outside the roots into which symbolic links may point."""
    allow: Allowances = Field(default_factory=dict)
    """Code that models may bring along: aoti (compiled libraries of AOTInductor), custom_ops (operators and objects of
    installed libraries, operators that open files), python (steps.py, model.py, pickles). A list, such as [aoti], is
    for all roots and configured models; a mapping is for directories: {models/own: [aoti]}. Files that come with a load
    are allowed only what the mapping's entry `uploads` says. Only this configuration counts, never a model's own
    settings."""


class Load(Section):
    """How versions are loaded."""

    threads: Annotated[Count, Field(le=1024)] = 2
    """How many versions may load at the same time. One that takes longer than 10 s may hang and does not count any
    more; at most 8 give up their place in this way."""
    timeout: Interval = 1800.0
    """Longest time that a load may take; then it has failed. A worker process is ended. In the server's own process
    the thread goes on until the framework returns, and the version is not loaded again before that."""
    retry_min: Interval = 1.0
    """Pause before a failed load is tried again; it doubles with each failure."""
    retry_max: Interval = 60.0
    """Longest pause between two attempts."""

    @model_validator(mode="after")
    def _grows(self) -> Self:
        if self.retry_max < self.retry_min:
            raise ValueError(f"expected retry_max of at least retry_min ({self.retry_min:g}s), got {self.retry_max:g}s")
        return self


class Drain(Section):
    """How the server stops."""

    pre_stop: Seconds = 0.0
    """Time between reporting NOT_SERVING and refusing new calls: as long as a load balancer takes to notice."""
    grace: Seconds = 30.0
    """Calls that are still running after this time are cut off."""


class Admin(Section):
    """Who may load, unload, label and roll back."""

    allow: Literal["none", "local_peer", "authenticated", "anyone"] = "local_peer"
    """none: nobody; local_peer: callers on this machine, not through a proxy; authenticated: callers from anywhere, but
    only with credentials; anyone: everybody. Where `auth` is set, the scope admin is needed as well."""
    allow_upload: Flag = False
    """Whether these callers may also send a model's files with a load (Triton's `file:` parameters)."""
    max_upload: Room = 1024 * 2**20
    """Largest total size of uploaded models."""


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
    """How many rotated files are kept."""


class ServerConfig(Section):
    """All settings of config.yaml."""

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
    """Default for every model; a model's own settings override it."""
    batching: Batching = Batching()
    """Default for every model; a model's own settings override it."""
    instances: Instances = Instances()
    """Default for every model; a model's own settings override it."""
    isolation: Literal["auto", "none", "process"] = "auto"
    """Default for every model. none: it runs in the server's process; process: in a worker process of its own; auto: in
    one of its own if it has Python code."""
    worker: Worker = Worker()
    """Default for every model; a model's own settings override it."""
    models: dict[Text, dict[str, Any]] = Field(default_factory=dict)
    """Model name: any keys of model.yaml. They override the model's own model.yaml and config.pbtxt."""

    @model_validator(mode="after")
    def _credentials(self) -> Self:
        if self.admin.allow == "authenticated" and not self.auth.enabled:
            raise ValueError(
                "expected auth.tokens_file, auth.jwt or auth.certificates with admin.allow: authenticated, got none"
            )
        return self

    @model_validator(mode="after")
    def _interpreters(self) -> Self:
        known = self.server.interpreters
        named = {"worker.python": self.worker.python}
        for model, settings in self.models.items():
            worker = settings.get("worker")
            if isinstance(worker, dict):
                named[f"models.{model}.worker.python"] = worker.get("python")
        for key, python in named.items():
            if python is not None and python not in known:
                listed = ", ".join(known) or "which is empty"
                raise ValueError(f"expected {key} to be one of server.interpreters ({listed}), got {python!r}")
        return self
