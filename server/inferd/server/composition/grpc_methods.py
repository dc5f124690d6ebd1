"""The method table: every RPC, its way in, its handler."""

from __future__ import annotations

import time

from inferd.server.access.audit import Audit
from inferd.server.access.caller import Caller
from inferd.server.access.method_rules import SERVICES
from inferd.server.access.rules import AccessRules, make_access_rules
from inferd.server.composition.call_access import AdmittedStream, AdmittedUnary, CallAccess
from inferd.server.config.schema import ServerConfig
from inferd.server.errors import Code
from inferd.server.inference.failure_log import FailureLog
from inferd.server.inference.failures import failure_of
from inferd.server.inference.finish import Finish
from inferd.server.inference.inflight import InflightBounds
from inferd.server.inference.interfaces import Check, Codec
from inferd.server.inference.request_ids import RequestIds
from inferd.server.inference.service import InferenceService
from inferd.server.inference.shared_memory import Regions
from inferd.server.lifecycle.interfaces import ManagerLike, MetricsLike
from inferd.server.lifecycle.request_check import check_request
from inferd.server.protocols.common.error_boundary import ErrorBoundary
from inferd.server.protocols.common.health import CHECK, Health
from inferd.server.protocols.common.reflection import Reflection
from inferd.server.protocols.native.codec import PREDICT, PREDICT_STREAM, NativeCodec, NativeStreamCodec
from inferd.server.protocols.native.models import ModelMethods
from inferd.server.protocols.native.predict_stream import PredictStream
from inferd.server.protocols.oip import service as oip
from inferd.server.protocols.oip.codec import INFER, STREAM_INFER, OipCodec, OipStreamCodec
from inferd.server.protocols.oip.errors import failure as oip_failure
from inferd.server.protocols.oip.stream import StreamInfer
from inferd.server.protocols.tfs import codec as tfs_codec
from inferd.server.protocols.tfs import service as tfs
from inferd.server.protocols.tfs.errors import failure as tfs_failure
from inferd.server.protocols.tfs.examples import ClassifyCodec, MultiInferenceCodec, RegressCodec
from inferd.server.repository.configured_models import BasePaths
from inferd.server.transport.calls import MethodTable, UnaryCall, for_each_call

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
    rules: AccessRules | None = None,
    ids: RequestIds | None = None,
    audit: Audit | None = None,
) -> MethodTable:
    """Every method of every protocol, health and reflection, for any transport. `inflight` is the transport's own;
    `regions`, `rules`, `ids` and `audit` are shared with REST; `health` is made here unless the caller needs it, to
    announce the drain. Raises ConfigError."""
    rules, ids, failures = rules or make_access_rules(config), ids or RequestIds(), FailureLog()
    native, triton, serving = (
        ErrorBoundary(rules, ids, failures, status) for status in (failure_of, oip_failure, tfs_failure)
    )
    health = health or Health(manager, SERVICES)
    regions = regions or Regions(config.server.shared_memory, config.inflight.bytes)

    def refused(method: str, code: Code) -> None:
        protocol = next((name for start, name in _PROTOCOLS.items() if method.startswith(start)), "grpc")
        metrics.unknown(protocol, code.name, 0.0)

    access = CallAccess(rules, audit or Audit(), refused)
    models = ModelMethods(manager, native)
    control = {
        **models.unary(),
        **health.unary(native),
        **oip.OipControlPlane(manager, metrics, triton, health.ready, config, regions).unary(),
        **tfs.TfsControlPlane(manager, serving, BasePaths(config)).unary(),
    }
    codecs = _codecs(manager, check, rules, ids, regions)
    inference = InferenceService(manager, metrics, rules, Finish(metrics, ids, failures, inflight), codecs)
    streams: dict[str, tuple[AdmittedStream, ErrorBoundary]] = {
        PREDICT_STREAM: (PredictStream(inference, native, inflight), native),
        STREAM_INFER: (StreamInfer(inference, triton, inflight), triton),
    }
    infers = [path for path in codecs if path not in streams]

    def infer(call: UnaryCall, caller: Caller) -> None:
        inference.handle((call,), time.monotonic(), caller)

    admitted: dict[str, AdmittedUnary] = {path: access.admitted(path, method) for path, method in control.items()}
    return MethodTable(
        unary={
            **{path: for_each_call(access.unary(path, fn, control[path].boundary)) for path, fn in admitted.items()},
            **dict.fromkeys(infers, inference.handle),
        },
        stream={
            **{
                path: access.watch(path, method)
                for path, method in (*models.watch().items(), *health.watch(native).items())
            },
            **{
                path: access.stream(path, fn, native, watch=True)
                for path, fn in Reflection(SERVICES, native).stream().items()
            },
            **{path: access.stream(path, handler, boundary) for path, (handler, boundary) in streams.items()},
        },
        exempt=frozenset({CHECK, *oip.PROBES}),
        gathered=frozenset(infers),
        refused=refused,
        admitted={**admitted, **dict.fromkeys(infers, infer)},
    )


def _codecs(
    manager: ManagerLike, check: Check, rules: AccessRules, ids: RequestIds, regions: Regions
) -> dict[str, Codec]:
    """The codec of every method that infers, by full path."""
    examples = {"Classify": ClassifyCodec, "Regress": RegressCodec, "MultiInference": MultiInferenceCodec}
    paths = {f"/{tfs.SERVICES[0]}/{name}": kind for name, kind in examples.items()}
    return {
        PREDICT: NativeCodec(check, ids),
        PREDICT_STREAM: NativeStreamCodec(check, ids),
        INFER: OipCodec(check, rules, manager, regions),
        STREAM_INFER: OipStreamCodec(check, rules, manager, regions),
        tfs_codec.PREDICT: tfs_codec.TfsCodec(check, manager),
        **{path: kind(check, manager, path) for path, kind in paths.items()},
    }
