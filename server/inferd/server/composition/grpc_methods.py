"""Which method is answered by whom."""

from __future__ import annotations

from dataclasses import replace

from inferd.server.access.audit import Audit
from inferd.server.access.call_checks import CallChecks, make_call_checks
from inferd.server.access.grants import Grants, Scope
from inferd.server.access.method_rules import RULES
from inferd.server.access.visible_models import VisibleModels
from inferd.server.composition.audited_calls import with_audit
from inferd.server.composition.authenticated_calls import AuthenticatedCalls, Handlers
from inferd.server.composition.known_callers import KnownCallers
from inferd.server.composition.limited_calls import LimitedCalls
from inferd.server.config.schema import ServerConfig
from inferd.server.errors import Code
from inferd.server.inference.failure_log import FailureLog
from inferd.server.inference.failures import failure_of
from inferd.server.inference.inflight import InflightBounds
from inferd.server.inference.request_groups import GroupRunner
from inferd.server.inference.service import Check, InferenceService
from inferd.server.inference.shared_memory import Regions
from inferd.server.lifecycle.interfaces import ManagerLike, MetricsLike
from inferd.server.lifecycle.request_check import check_request
from inferd.server.protocols.common import call_batch as burst
from inferd.server.protocols.common.codec import Codec
from inferd.server.protocols.common.error_boundary import ErrorBoundary
from inferd.server.protocols.common.health import CHECK, WATCH, Health
from inferd.server.protocols.common.reflection import Reflection
from inferd.server.protocols.common.single_call import SingleCall
from inferd.server.protocols.native import predict
from inferd.server.protocols.native.models import ModelMethods
from inferd.server.protocols.native.predict import PROTOCOL, NativePredict
from inferd.server.protocols.native.predict_stream import PredictStream
from inferd.server.protocols.oip import infer
from inferd.server.protocols.oip import service as oip
from inferd.server.protocols.oip.errors import failure_in_hand
from inferd.server.protocols.tfs import predict as tfs_predict
from inferd.server.protocols.tfs import service as tfs
from inferd.server.protocols.tfs.errors import failure as tfs_failure
from inferd.server.transport.calls import MethodTable, StreamHandler, UnaryHandler

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
    inflight: InflightBounds,
    health: Health | None = None,
    check: Check = check_request,
    regions: Regions | None = None,
    gate: CallChecks | None = None,
) -> MethodTable:
    """Every method of every protocol, health and reflection, for any transport. `inflight` is the transport's own;
    `regions` and `gate` are REST's too; `health` is made here unless the caller wants to stop it (the drain begins with
    that). Raises ConfigError."""
    gate, failures = gate or make_call_checks(config), FailureLog()
    edge = ErrorBoundary(gate, failures)
    shared = health or Health(manager, SERVICES)
    regions = regions or Regions(config.server.shared_memory, config.inflight.bytes)
    reflection = Reflection(SERVICES, edge)

    def refused(method: str, code: Code) -> None:
        protocol = next((name for start, name in _PROTOCOLS.items() if method.startswith(start)), PROTOCOL)
        metrics.unknown(protocol, code.name, 0.0)

    def handlers(
        manager: ManagerLike, predicting: ManagerLike, checking: UnaryHandler, watching: StreamHandler
    ) -> Handlers:
        """For callers who see the models so."""
        inference = InferenceService(predicting, metrics, check)
        triton = oip.Oip(manager, predicting, metrics, check, inflight, gate, failures, shared.ready, config, regions)
        serving = tfs.Tfs(manager, predicting, metrics, check, gate, failures)
        models = ModelMethods(manager, edge)
        unary: dict[str, UnaryHandler] = {PREDICT: NativePredict(inference, edge), CHECK: checking, **models.unary()}
        stream: dict[str, StreamHandler] = {
            PREDICT_STREAM: PredictStream(inference, edge, inflight),
            WATCH: watching,
            **models.stream(),
            **reflection.stream(),
        }
        return Handlers(
            {path: edge.unary(handler) for path, handler in unary.items()} | {**triton.unary(), **serving.unary()},
            {path: edge.stream(handler) for path, handler in stream.items()} | {**triton.stream()},
        )

    def seen_by(grants: Grants) -> Handlers:
        seen = VisibleModels(manager, grants, Scope.METADATA)
        return handlers(seen, VisibleModels(manager, grants, Scope.PREDICT), *shared.through(seen.allow))

    if gate.authority is None:
        whole = handlers(manager, manager, shared.check, shared.watch)
    else:
        whole = AuthenticatedCalls(gate.authority, seen_by, edge, refused).handlers()
    audit = Audit(gate)
    speeches: dict[str, Codec] = {
        PREDICT: predict.NativeCodec(edge),
        oip.INFER: infer.OipCodec(),
        tfs.PREDICT: tfs_predict.TfsCodec(),
    }
    statuses = {PREDICT: failure_of, oip.INFER: failure_in_hand, tfs.PREDICT: tfs_failure}
    if gate.authority is not None:
        speeches = {path: KnownCallers(speech, gate.authority) for path, speech in speeches.items()}
    if gate.limiter is not None:
        speeches = {}  # for how much a client asks is looked at call by call: then nothing takes a short cut
    bursts = GroupRunner(manager)
    table = MethodTable(
        unary={
            path: with_audit(path, handler, audit, gate.new_id) if RULES[path].audited else handler
            for path, handler in whole.unary.items()
        },
        stream=whole.stream,
        exempt=frozenset({CHECK, *oip.PROBES}),
        bursts={
            path: burst.CallBatch(
                speech, bursts, whole.unary[path], ErrorBoundary(gate, failures, statuses[path]).fail_together
            )
            for path, speech in speeches.items()
        },
        lone={path: SingleCall(speech, manager.serving) for path, speech in speeches.items()},
        refused=refused,
    )
    return table if gate.limiter is None else _limited(table, LimitedCalls(gate.limiter, edge, refused))


def _limited(table: MethodTable, bounded: LimitedCalls) -> MethodTable:
    """The table within the bounds of clients. Health is never counted."""
    free = {path for path, rule in RULES.items() if not rule.charged}
    return replace(
        table,
        unary={path: fn if path in free else bounded.unary(fn) for path, fn in table.unary.items()},
        stream={path: fn if path in free else bounded.stream(fn) for path, fn in table.stream.items()},
        unbounded=table.unary,
    )
