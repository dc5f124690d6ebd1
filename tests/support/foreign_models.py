"""A server in this process whose fake models accept every element type, for unmodified foreign clients."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from support.rpc import FakeManager, FakeMetrics, FakeScheduler, FakeServable, Served

from inferd.backends.api import Signature, TensorSpec
from inferd.server.access.method_rules import SERVICES
from inferd.server.composition.grpc_methods import build_method_table
from inferd.server.config.schema import ServerConfig
from inferd.server.inference.inflight import InflightBounds
from inferd.server.lifecycle.state import ServableId
from inferd.server.observability.model_metrics import ModelMetrics
from inferd.server.protocols.common.health import Health
from inferd.wire.dtypes import DType

Run = Callable[[Mapping[str, np.ndarray]], dict[str, np.ndarray]]


class CountingMetrics(FakeMetrics):
    """Metrics with real counters for each version, which ModelStatistics needs."""

    def __init__(self) -> None:
        super().__init__()
        self.real: dict[tuple[str, int], ModelMetrics] = {}

    def model(self, name: str, version: int) -> Any:
        return self.real.setdefault((name, version), ModelMetrics(name, str(version)))


def specs(prefix: str, shape: tuple[int, ...] | None = (-1, -1)) -> tuple[TensorSpec, ...]:
    """One optional tensor of every element type: in_FP32, in_BYTES, ..."""
    return tuple(TensorSpec(f"{prefix}_{dtype.oip_name}", dtype, shape, optional=True) for dtype in DType)


def echo(inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """out_X = in_X for each input that was sent, and an empty tensor for each that was not."""
    return {
        f"out_{dtype.oip_name}": np.ascontiguousarray(inputs.get(f"in_{dtype.oip_name}", np.empty((0, 0), dtype.numpy)))
        for dtype in DType
    }


def add(
    manager: FakeManager, name: str, signatures: tuple[Signature, ...], run: Run, version: int = 1, **kwargs: Any
) -> FakeServable:
    """Adds a model whose outputs are computed by `run`."""
    servable = manager.available(name, version)
    servable.signatures = {signature.name: signature for signature in signatures}
    servable.default_signature = signatures[0].name
    servable.scheduler = FakeScheduler(run)
    for key, value in kwargs.items():
        setattr(servable, key, value)
    return servable


def serve(config: ServerConfig | None = None, kind: str = "public") -> Served:
    """A server with the fake models "digits" and "echo", which has tensors of every element type. Requests pass the
    real check."""
    manager = FakeManager()
    add(manager, "echo", (Signature("serving_default", specs("in"), specs("out")),), echo)
    config = config or ServerConfig()
    metrics = CountingMetrics()
    health = Health(manager, SERVICES)
    table = build_method_table(manager, metrics, config, inflight=InflightBounds(config.inflight), health=health)
    served = Served(kind, manager=manager, config=config, table=table)
    served.metrics, served.health = metrics, health
    return served


def scheduler_of(served: Served, name: str, version: int = 1) -> FakeScheduler:
    """The scheduler of one version."""
    return served.manager.servables[ServableId(name, version)].scheduler
