"""How an ensemble is loaded: nothing is opened, its steps are connected to models that are served already."""

from __future__ import annotations

import time
from contextlib import ExitStack

from inferd.backends.api import LoadError
from inferd.server.errors import ServingError
from inferd.server.lifecycle.ensemble.definition import BACKEND, misfit, step_graph_of
from inferd.server.lifecycle.loading.class_labels import class_labels
from inferd.server.lifecycle.loading.load_request import LoadRequest
from inferd.server.lifecycle.loading.version_code import refuse_steps_of_ensemble
from inferd.server.lifecycle.request_check import check_request
from inferd.server.lifecycle.servable import Servable
from inferd.server.scheduling.ensemble.scheduler import Acquire, EnsembleScheduler, StepAccess
from inferd.server.scheduling.observer import BatchObserver
from inferd.server.scheduling.policies.fair_share import Who


def compose(
    request: LoadRequest,
    acquire: Acquire,
    observer: BatchObserver,
    who: Who | None = None,
    access: StepAccess | None = None,
) -> Servable:
    """The servable of an ensemble, checked against the models that `acquire` finds now; each request acquires them
    anew. `who` tells the callers of a queue apart; `access` decides who may use the steps, and with it no text names
    their models. Raises LoadError."""
    began = time.monotonic()
    config = request.config
    refuse_steps_of_ensemble(request.version.path)
    signature, wiring = step_graph_of(config)
    with ExitStack() as held:
        found = {}
        for stage in wiring.stages:
            try:
                handle = acquire(stage.model, stage.version)
            except ServingError as error:
                if access is not None:
                    raise LoadError(f"{stage.place} is not available") from None
                raise LoadError(f"{stage.subject}: {error}") from None
            held.callback(handle.release)
            found[stage.model, stage.version] = handle.servable
        problem = misfit(
            signature,
            wiring,
            {key: servable.signatures[servable.default_signature] for key, servable in found.items()},
            named=access is None,
        )
        if problem:
            raise LoadError(problem)
        stateful = config.stateful
        if stateful is None:
            stateful = any(servable.stateful for servable in found.values())
        devices = tuple(dict.fromkeys(device for servable in found.values() for device in servable.devices))
    pipeline = EnsembleScheduler(
        f"ensemble {request.id.name!r}",
        signature,
        wiring,
        acquire=acquire,
        check=check_request,
        queue=config.queue,
        max_batch_size=config.batching.max_batch_size if config.batching.mode == "trusted" else 0,
        stateful=stateful,
        devices=devices,
        observer=observer,
        who=who,
        access=access,
        trusted=config.trusted_steps,
    )
    notes = [f"steps: {', '.join(f'{stage.model}' for stage in wiring.stages)}"] if access is None else []
    if wiring.unused:
        notes.append(f"nobody uses {', '.join(map(repr, wiring.unused))}")
    if config.warmup.samples:
        notes.append("model_warmup of an ensemble is not honoured: the models in it have their own")
    return Servable(
        request.id,
        request.generation,
        backend=BACKEND,
        signatures={signature.name: signature},
        scheduler=pipeline,
        default_priority=config.default_priority,
        load_seconds=time.monotonic() - began,
        notes=(*request.notes, *notes),
        ensemble=config.ensemble,
        class_labels=class_labels(config, request.version.model_directory, request.version.rule),
    )
