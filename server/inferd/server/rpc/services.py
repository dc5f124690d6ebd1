"""Which method is answered by whom."""

from __future__ import annotations

from inferd.server.config.schema import ServerConfig
from inferd.server.core.failures import FailureLog
from inferd.server.core.gate import Gate
from inferd.server.core.inference import Check, Inference
from inferd.server.core.inflight import Inflight
from inferd.server.core.needs import ManagerLike, MetricsLike
from inferd.server.core.oip.shared_memory import Regions
from inferd.server.errors import Code
from inferd.server.lifecycle.check import check_request
from inferd.server.rpc.edge import Edge
from inferd.server.rpc.foreign_names import real_names
from inferd.server.rpc.health import CHECK, WATCH, Health
from inferd.server.rpc.models import Models
from inferd.server.rpc.oip import service as oip
from inferd.server.rpc.predict import PROTOCOL, Predict
from inferd.server.rpc.predict_stream import PredictStream
from inferd.server.rpc.reflection import Reflection
from inferd.server.rpc.tfs import service as tfs
from inferd.server.rpc.transport import MethodTable, StreamHandler, UnaryHandler

PREDICT = "/inferd.v1.PredictService/Predict"
PREDICT_STREAM = "/inferd.v1.PredictService/PredictStream"
MODEL_SERVICE = "inferd.v1.ModelService"
SERVICES = ("inferd.v1.PredictService", MODEL_SERVICE, "grpc.health.v1.Health", oip.SERVICE, *tfs.SERVICES)
_PROTOCOLS = {"/inference.": "oip", "/tensorflow.": "tfs"}


def build_method_table(
    manager: ManagerLike,
    metrics: MetricsLike,
    config: ServerConfig,
    *,
    inflight: Inflight,
    health: Health | None = None,
    check: Check = check_request,
    regions: Regions | None = None,
) -> MethodTable:
    """Every method of every protocol, health and reflection, for any transport. `inflight` is the transport's own;
    `regions` are REST's too; `health` is made here unless the caller wants to stop it (the drain begins with that)."""
    gate, failures = Gate(config.admin), FailureLog()
    edge = Edge(gate, failures)
    inference = Inference(manager, metrics, check)
    health = health or Health(manager, SERVICES)
    regions = regions or Regions(config.server.shared_memory, config.inflight.bytes)
    triton = oip.Oip(manager, metrics, check, inflight, gate, failures, health.ready, config, regions)
    serving = tfs.Tfs(manager, metrics, check, gate, failures)
    models = Models(manager, edge)
    reflection = Reflection(SERVICES, edge, real_names())
    unary: dict[str, UnaryHandler] = {PREDICT: Predict(inference, edge), CHECK: health.check, **models.unary()}
    stream: dict[str, StreamHandler] = {
        PREDICT_STREAM: PredictStream(inference, edge, inflight),
        WATCH: health.watch,
        **models.stream(),
        **reflection.stream(),
    }

    def refused(method: str, code: Code) -> None:
        protocol = next((name for start, name in _PROTOCOLS.items() if method.startswith(start)), PROTOCOL)
        metrics.unknown(protocol, code.name, 0.0)

    return MethodTable(
        unary={path: edge.unary(handler) for path, handler in unary.items()} | {**triton.unary(), **serving.unary()},
        stream={path: edge.stream(handler) for path, handler in stream.items()} | {**triton.stream()},
        hot=frozenset({PREDICT, oip.INFER, tfs.PREDICT}),
        exempt=frozenset({CHECK, *oip.PROBES}),
        refused=refused,
    )
