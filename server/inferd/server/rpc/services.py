"""Which method is answered by whom."""

from __future__ import annotations

from inferd.server.config.schema import ServerConfig
from inferd.server.errors import Code
from inferd.server.rpc.edge import Edge
from inferd.server.rpc.failures import FailureLog
from inferd.server.rpc.gate import Gate
from inferd.server.rpc.health import CHECK, WATCH, Health
from inferd.server.rpc.inference import Check, Inference
from inferd.server.rpc.inflight import Inflight
from inferd.server.rpc.models import Models
from inferd.server.rpc.needs import ManagerLike, MetricsLike
from inferd.server.rpc.predict import PROTOCOL, Predict
from inferd.server.rpc.predict_stream import PredictStream
from inferd.server.rpc.reflection import Reflection
from inferd.server.rpc.transport import MethodTable, StreamHandler, UnaryHandler

PREDICT = "/inferd.v1.PredictService/Predict"
PREDICT_STREAM = "/inferd.v1.PredictService/PredictStream"
MODEL_SERVICE = "inferd.v1.ModelService"
SERVICES = ("inferd.v1.PredictService", MODEL_SERVICE, "grpc.health.v1.Health")


def build_method_table(
    manager: ManagerLike,
    metrics: MetricsLike,
    config: ServerConfig,
    *,
    inflight: Inflight,
    health: Health | None = None,
    check: Check | None = None,
) -> MethodTable:
    """Every method of the native API, health and reflection, for any transport. `inflight` is the transport's own;
    `health` is made here unless the caller wants to stop it (the drain begins with that)."""
    edge = Edge(Gate(config.admin), FailureLog())
    inference = Inference(manager, metrics, check or _check_request())
    models = Models(manager, edge)
    health = health or Health(manager, SERVICES)
    reflection = Reflection(SERVICES, edge)
    unary: dict[str, UnaryHandler] = {PREDICT: Predict(inference, edge), CHECK: health.check, **models.unary()}
    stream: dict[str, StreamHandler] = {
        PREDICT_STREAM: PredictStream(inference, edge, inflight),
        WATCH: health.watch,
        **models.stream(),
        **reflection.stream(),
    }

    def refused(_method: str, code: Code) -> None:
        metrics.unknown(PROTOCOL, code.name, 0.0)

    return MethodTable(
        unary={method: edge.unary(handler) for method, handler in unary.items()},
        stream={method: edge.stream(handler) for method, handler in stream.items()},
        hot=frozenset({PREDICT}),
        exempt=frozenset({CHECK}),
        refused=refused,
    )


def _check_request() -> Check:
    from inferd.server.lifecycle.check import check_request

    return check_request
