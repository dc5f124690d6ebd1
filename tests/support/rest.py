"""A REST server in this process with fake models: "digits" (y = 2x, z = x) and "echo", with every element type."""

from __future__ import annotations

import asyncio
import http.client
import json
import socket
from collections.abc import Mapping
from typing import Any

import numpy as np
from support.foreign_models import CountingMetrics, add, echo, specs
from support.rpc import FakeManager, FakeScheduler
from support.waiting import eventually

from inferd.backends.api import Signature, TensorSpec
from inferd.server.access.audit import Audit
from inferd.server.access.rules import make_access_rules
from inferd.server.access.tls import tls_files
from inferd.server.composition.grpc_methods import build_method_table
from inferd.server.composition.http_routes import Core, RestApi
from inferd.server.config.schema import ServerConfig
from inferd.server.http.pages import ReadinessLike
from inferd.server.http.rest_server import RestServer
from inferd.server.http.server import HttpLimits
from inferd.server.inference.inflight import InflightBounds
from inferd.server.inference.request_ids import RequestIds
from inferd.server.inference.shared_memory import Regions
from inferd.server.lifecycle.request_check import check_request
from inferd.server.lifecycle.state import ServableId
from inferd.wire.dtypes import DType

WAIT = 20


class Answer:
    """The answer to a request."""

    def __init__(self, status: int, body: bytes, headers: http.client.HTTPMessage) -> None:
        self.status = status
        self.body = body
        self.headers = headers

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> str:
        """The error's text. Fails the test if the body has anything else."""
        found = self.json
        assert list(found) == ["error"], found
        assert "Traceback" not in found["error"]
        return str(found["error"])


class Rest:
    """A REST server on a free port; a context manager.

    loaded   the handlers that infer are loaded, as after a first request: short requests are then passed on whole
    """

    loaded = True

    def __init__(
        self,
        limits: HttpLimits | None = None,
        *,
        manager: FakeManager | None = None,
        clients: dict[str, Any] | None = None,
        **settings: Any,
    ) -> None:
        """`limits`: the limits of connections; `clients`: the settings `limits.clients`."""
        bounds = {} if clients is None else {"limits": {"clients": clients}}
        self.config = ServerConfig.model_validate({**settings, **bounds})
        self.manager = manager or FakeManager()
        self.metrics = CountingMetrics()
        self.inflight = InflightBounds(self.config.inflight)
        self.readiness = ReadinessLike(True)
        add(self.manager, "echo", (Signature("serving_default", specs("in"), specs("out")),), echo)
        regions = Regions(self.config.server.shared_memory, self.config.inflight.bytes)
        rules, ids, audit = make_access_rules(self.config), RequestIds(), Audit()
        table = build_method_table(
            self.manager,
            self.metrics,
            self.config,
            inflight=self.inflight,
            regions=regions,
            check=check_request,
            rules=rules,
            ids=ids,
            audit=audit,
        )
        core = Core(
            self.manager, self.metrics, check_request, rules, ids, regions, self.inflight, table.admitted, audit
        )
        self.tls = tls_files(self.config.http.tls, "http.tls")
        self.rest = RestApi(core, self.config.http, lambda: self.readiness)
        self.server = RestServer(
            ("127.0.0.1:0",),
            lambda: b"m 1\n",
            lambda: self.readiness,
            limits=limits,
            rest=self.rest,
            rules=rules,
            tls=self.tls,
        )
        self._opened: list[Any] = []

    def __enter__(self) -> Rest:
        self.address = self.server.start()[0]
        if self.loaded:
            eventually(lambda: self.server._loop is not None, "the event loop runs", limit=WAIT)
            assert self.server._loop is not None
            asyncio.run_coroutine_threadsafe(self.server._inferring(self.rest), self.server._loop).result(WAIT)
        self.host, port = self.address.rsplit(":", 1)
        self.port = int(port)
        return self

    def __exit__(self, *_: object) -> None:
        for each in self._opened:
            each.close()
        self.server.stop()

    def model(self, name: str, inputs: Mapping[str, DType], run: Any, **kwargs: Any) -> FakeScheduler:
        """Adds a model with inputs of any shape, whose outputs are computed by `run`. Outputs are not checked."""
        taken = tuple(TensorSpec(key, dtype, None) for key, dtype in inputs.items())
        outputs = tuple(
            TensorSpec(key, DType.FP32, None)
            for key in run({key: np.empty((1, 1), dtype.numpy) for key, dtype in inputs.items()})
        )
        signature = Signature("serving_default", taken, outputs, kwargs.pop("method_name", ""))
        return add(self.manager, name, (signature,), run, **kwargs).scheduler

    def scheduler(self, name: str, version: int = 1) -> FakeScheduler:
        return self.manager.servables[ServableId(name, version)].scheduler

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> Answer:
        """Sends one request on a new connection. A body that is neither bytes nor str is sent as JSON."""
        connection = http.client.HTTPConnection(self.host, self.port, timeout=WAIT)
        try:
            return self.on(connection, method, path, body, **headers)
        finally:
            connection.close()

    def on(
        self, connection: http.client.HTTPConnection, method: str, path: str, body: Any = None, **headers: str
    ) -> Answer:
        """Sends one request on an open connection."""
        if body is not None and not isinstance(body, bytes | str):
            body = json.dumps(body)
        connection.request(method, path, body, {key.replace("_", "-"): value for key, value in headers.items()})
        answer = connection.getresponse()
        return Answer(answer.status, answer.read(), answer.headers)

    def post(self, path: str, body: Any = None, **headers: str) -> Answer:
        return self.ask("POST", path, body, **headers)

    def get(self, path: str, **headers: str) -> Answer:
        return self.ask("GET", path, **headers)

    def raw(self) -> socket.socket:
        """A TCP connection to the server."""
        sock = socket.create_connection((self.host, self.port), timeout=WAIT)
        self._opened.append(sock)
        return sock


def tensor(name: str, values: Any, datatype: str = "FP32", **more: Any) -> dict[str, Any]:
    """An input of an OIP request as JSON."""
    array = np.array(values, object if datatype == "BYTES" else None)
    return {"name": name, "datatype": datatype, "shape": list(array.shape), "data": array.tolist(), **more}
