"""The method table: every RPC, its way in, its handler."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from inferd.server.access.audit import Audit
from inferd.server.access.call_checks import CallChecks, make_call_checks
from inferd.server.access.caller import Caller
from inferd.server.access.grants import EVERYTHING, Grants, Scope
from inferd.server.access.method_rules import SERVICES
from inferd.server.access.recent import Recent
from inferd.server.access.visible_models import VisibleModels
from inferd.server.composition.call_access import AdmittedUnary, CallAccess
from inferd.server.composition.known_callers import KnownCallers
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
from inferd.server.protocols.common.health import CHECK, Health
from inferd.server.protocols.common.reflection import Reflection
from inferd.server.protocols.common.single_call import SingleCall
from inferd.server.protocols.native import predict
from inferd.server.protocols.native.models import ModelMethods
from inferd.server.protocols.native.predict import PROTOCOL, NativePredict
from inferd.server.protocols.native.predict_stream import PredictStream
from inferd.server.protocols.oip import infer
from inferd.server.protocols.oip import service as oip
from inferd.server.protocols.oip.errors import failure as oip_failure
from inferd.server.protocols.oip.errors import failure_in_hand
from inferd.server.protocols.tfs import predict as tfs_predict
from inferd.server.protocols.tfs import service as tfs
from inferd.server.protocols.tfs.errors import failure as tfs_failure
from inferd.server.transport.calls import MethodTable, StreamCall, StreamHandler, UnaryCall, UnaryHandler

PREDICT = "/inferd.v1.PredictService/Predict"
PREDICT_STREAM = "/inferd.v1.PredictService/PredictStream"
_PROTOCOLS = {"/inference.": "oip", "/tensorflow.": "tfs"}
_KINDS = 256  # sets of grants whose inference handlers are kept


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
    audit: Audit | None = None,
) -> MethodTable:
    """Every method of every protocol, health and reflection, for any transport. `inflight` is the transport's own;
    `regions`, `gate` and `audit` are shared with REST; `health` is made here unless the caller wants to stop it (the
    drain begins with that). Raises ConfigError."""
    gate, failures = gate or make_call_checks(config), FailureLog()
    native, triton, serving = (
        ErrorBoundary(gate, failures, status) for status in (failure_of, oip_failure, tfs_failure)
    )
    health = health or Health(manager, SERVICES)
    regions = regions or Regions(config.server.shared_memory, config.inflight.bytes)

    def refused(method: str, code: Code) -> None:
        protocol = next((name for start, name in _PROTOCOLS.items() if method.startswith(start)), PROTOCOL)
        metrics.unknown(protocol, code.name, 0.0)

    access = CallAccess(gate, audit or Audit(), refused)
    models = ModelMethods(manager, native)
    control = {
        **models.unary(),
        **health.unary(native),
        **oip.OipControlPlane(manager, metrics, triton, health.ready, config, regions).unary(),
        **tfs.TfsControlPlane(manager, serving).unary(),
    }
    inference = _InferenceHandlers(
        lambda seen: _inference(seen, metrics, check, inflight, regions, native, triton, serving), manager
    )
    errors = dict.fromkeys(inference.unary, native) | {path: method.boundary for path, method in control.items()}
    admitted: dict[str, AdmittedUnary] = {
        **{path: access.admitted(path, method) for path, method in control.items()},
        **{path: partial(inference.handle_unary, path) for path in inference.unary},
    }
    unary = {path: access.unary(path, handler, errors[path]) for path, handler in admitted.items()}
    if gate.open:
        unary |= inference.unary  # nothing is asked before a prediction
    return MethodTable(
        unary=unary,
        stream={
            **{
                path: access.watch(path, method)
                for path, method in (*models.watch().items(), *health.watch(native).items())
            },
            **{
                path: access.stream(path, fn, native, watch=True)
                for path, fn in Reflection(SERVICES, native).stream().items()
            },
            **{path: access.stream(path, partial(inference.handle_stream, path), native) for path in inference.stream},
        },
        exempt=frozenset({CHECK, *oip.PROBES}),
        refused=refused,
        admitted=admitted,
        **_short_cuts(manager, gate, failures, unary),
    )


# Inference until it is one pipeline that asks `AccessRules` for each call: handlers see the models of one caller only.


@dataclass(frozen=True, slots=True)
class _Handlers:
    """Handlers of the methods that infer, by path, behind their error boundaries."""

    unary: Mapping[str, UnaryHandler]
    stream: Mapping[str, StreamHandler]


class _InferenceHandlers:
    """Handlers for each set of grants. Thread-safe."""

    def __init__(self, make: Callable[[ManagerLike], _Handlers], manager: ManagerLike) -> None:
        self._make = make
        self._manager = manager
        everything = make(manager)
        self.unary, self.stream = everything.unary, everything.stream
        self._tables: Recent[Grants, _Handlers] = Recent(_KINDS)
        self._tables.put(EVERYTHING, everything)

    def handle_unary(self, path: str, call: UnaryCall, caller: Caller) -> None:
        self._of(caller.grants).unary[path](call)

    def handle_stream(self, path: str, call: StreamCall, caller: Caller) -> None:
        self._of(caller.grants).stream[path](call)

    def _of(self, grants: Grants) -> _Handlers:
        found = self._tables.get(grants)
        if found is None:
            found = self._make(VisibleModels(self._manager, grants, Scope.PREDICT))
            self._tables.put(grants, found)
        return found


def _inference(
    manager: ManagerLike,
    metrics: MetricsLike,
    check: Check,
    inflight: InflightBounds,
    regions: Regions,
    native: ErrorBoundary,
    triton: ErrorBoundary,
    serving: ErrorBoundary,
) -> _Handlers:
    inference = InferenceService(manager, metrics, check)
    oip_inference = oip.OipInference(manager, metrics, check, inflight, triton, regions)
    tfs_inference = tfs.TfsInference(manager, metrics, check, serving)
    return _Handlers(
        {PREDICT: native.unary(NativePredict(inference, native)), **oip_inference.unary(), **tfs_inference.unary()},
        {PREDICT_STREAM: native.stream(PredictStream(inference, native, inflight)), **oip_inference.stream()},
    )


def _short_cuts(
    manager: ManagerLike, gate: CallChecks, failures: FailureLog, unary: Mapping[str, UnaryHandler]
) -> dict[str, Any]:
    codecs: dict[str, Codec] = {
        PREDICT: predict.NativeCodec(ErrorBoundary(gate, failures)),
        oip.INFER: infer.OipCodec(),
        tfs.PREDICT: tfs_predict.TfsCodec(),
    }
    statuses = {PREDICT: failure_of, oip.INFER: failure_in_hand, tfs.PREDICT: tfs_failure}
    if gate.authority is not None:
        codecs = {path: KnownCallers(codec, gate.authority) for path, codec in codecs.items()}
    if gate.limiter is not None:
        codecs = {}  # clients are charged call by call
    runner = GroupRunner(manager)
    return {
        "bursts": {
            path: burst.CallBatch(
                codec, runner, unary[path], ErrorBoundary(gate, failures, statuses[path]).fail_together
            )
            for path, codec in codecs.items()
        },
        "lone": {path: SingleCall(codec, manager.serving) for path, codec in codecs.items()},
    }
