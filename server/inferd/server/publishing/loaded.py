"""One version, loaded as a server loads it, for programs that run in a subprocess of `tasks`.

Do not use it in the command's own process: what is loaded may hang, take all memory, or end the process.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from inferd.backends.api import Array, LoadError, Signature
from inferd.backends.registry import Registry
from inferd.server.config.schema import ModelConfig, ServerConfig
from inferd.server.errors import ServingError
from inferd.server.lifecycle.assemble import build_loader, resolver
from inferd.server.lifecycle.loading.cancellation import Cancellation
from inferd.server.lifecycle.loading.declared import declared_samples
from inferd.server.lifecycle.loading.load_request import LoadRequest
from inferd.server.lifecycle.request_check import check_request
from inferd.server.lifecycle.servable import Servable
from inferd.server.lifecycle.state import ServableId
from inferd.server.protocols.tfs.warmup_records import recorded
from inferd.server.repository.code_trust import CodeTrust
from inferd.server.repository.disk import VersionOnDisk
from inferd.server.repository.source import RepositoryScanner
from inferd.server.scheduling.bucket import batched_inputs
from inferd.server.scheduling.padding import Padding
from inferd.server.scheduling.qualification.samples import NoSample, Samples
from inferd.server.scheduling.request import callback_request

MOST_ROWS: Final = 32  # of one run, unless the model says otherwise


@dataclass(frozen=True, slots=True)
class LoadedVersion:
    """A version that is warmed up and proven, with the settings by which it is served.

    `run` is called from one thread at a time.
    """

    servable: Servable
    config: ModelConfig
    version: VersionOnDisk

    @property
    def signature(self) -> Signature:
        """The default signature."""
        return self.servable.signatures[self.servable.default_signature]

    def run(self, inputs: Mapping[str, Array], most: int = MOST_ROWS) -> dict[str, Array]:
        """The outputs for sample rows, in the order of the rows. Runs at most `most` rows at a time. A model of a fixed
        number of rows leaves the rest out. Raises LoadError with the model's own reason."""
        total, step = self.rows_of(inputs), self._step(most)
        if total <= step:
            return self.run_once(inputs)
        if self._fixed():
            total -= total % step
        parts = [self.run_once(self._part(inputs, start, step)) for start in range(0, total, step)]
        return {name: np.concatenate(arrays) if arrays[0].ndim else arrays[0] for name, arrays in _by_name(parts)}

    def first_rows(self, inputs: Mapping[str, Array], most: int) -> dict[str, Array]:
        """The first rows of a sample, as many as one run takes, at most `most`."""
        return self._part(inputs, 0, self._step(most))

    def rows_of(self, inputs: Mapping[str, Array]) -> int:
        """The number of rows that all inputs have, 1 if they hold no rows."""
        return min((len(inputs[name]) for name in self._row_names() if name in inputs), default=1)

    def made_up_rows(self) -> tuple[dict[str, Array] | None, str]:
        """Three seeded rows that the model answers; None and the reason if it refuses all that are tried."""
        reason = ""
        try:
            samples = Samples(
                self.signature,
                Padding(self.signature, self.config.batching.padding),
                declared_samples(self.config, self.version).get(self.signature.name),
            )
            for group in samples.groups():
                inputs = next(group).stack((0, 1, 2))
                try:
                    self.run_once(inputs)
                except (LoadError, ServingError) as error:
                    reason = reason or str(error)
                else:
                    return inputs, ""
        except NoSample as missing:
            reason = str(missing)
        return None, reason

    def run_once(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """The outputs of one run. Raises LoadError with the model's own reason."""
        signature = self.signature
        arrays = {name: np.ascontiguousarray(array) for name, array in inputs.items()}
        check_request(self.servable.id, signature, arrays, ())
        done: Future[Any] = Future()
        request = callback_request(signature.name, arrays, done.set_result)
        rejected = self.servable.scheduler.submit((request,))
        if rejected:
            raise LoadError(f"the rows were refused: {rejected[0].reason.name.lower()}")
        answered = done.result()
        if answered.error is not None:
            raise LoadError(str(answered.error))
        return {name: np.array(array) for name, array in answered.outputs.items()}

    def _part(self, inputs: Mapping[str, Array], start: int, rows: int) -> dict[str, Array]:
        names = self._row_names()
        return {name: a[start : start + rows] if name in names else a for name, a in inputs.items()}

    def _row_names(self) -> tuple[str, ...]:
        """The inputs of which a sample holds rows."""
        return batched_inputs(self.signature) or tuple(spec.name for spec in self.signature.inputs if self._fixed())

    def _step(self, most: int) -> int:
        limit = self.servable.max_batch_size
        return self._fixed() or max(1, min(most, limit) if limit else most)

    def _fixed(self) -> int:
        """The number of rows that the model takes in every run, 0 if it is not fixed."""
        if batched_inputs(self.signature):
            return 0
        sizes = {spec.shape[0] if spec.shape else 0 for spec in self.signature.inputs}
        return sizes.pop() if len(sizes) == 1 else 0


@contextmanager
def loaded_version(
    config: ServerConfig,
    root: Path,
    model: str,
    version: int,
    *,
    settings: Path | None,
    allow: frozenset[str],
    real: Path,
) -> Iterator[LoadedVersion]:
    """Loads a version of the repository `root` as a server with this configuration does: settings, warm-up requests,
    batch proof. Closes it in the end.

    settings  the model's directory in the real repository, to which links in `root` may lead
    allow     kinds of code that the version may bring along (`repository.allow`)
    real      the version's place in the real repository

    Raises LoadError.
    """
    links = [*config.repository.allowed_link_targets, *([str(settings)] if settings is not None else [])]
    repository = config.repository.model_copy(
        update={
            "roots": [str(root)],
            "settle": 0.0,
            "allowed_link_targets": links,
            "model_name": None,
            "ready_file": None,
        }
    )
    listing = RepositoryScanner(repository, resolver(config)).scan()
    found = listing.models.get(model)
    on_disk = found.version(version) if found is not None else None
    if found is None or on_disk is None:
        raise LoadError("; ".join(listing.errors) or f"{root / model / str(version)} holds no version")
    if found.problem or found.config is None:
        raise LoadError(found.problem or found.held or "its settings cannot be read")
    if not on_disk.ready:
        raise LoadError(on_disk.error or on_disk.held)
    if found.config.ensemble:
        raise LoadError(f"{model} is an ensemble, whose versions hold no model")
    trust = CodeTrust({"*": sorted(allow)}, place=str(real.parent.parent))
    loader = build_loader(config, Registry(), recorded=recorded, trust=trust)
    servable = loader.load(
        LoadRequest(ServableId(model, version), 0, on_disk, found.config, notes=found.notes), Cancellation()
    )
    try:
        yield LoadedVersion(servable, found.config, on_disk)
    finally:
        loader.unload(servable)


def _by_name(parts: Sequence[Mapping[str, Array]]) -> Iterator[tuple[str, list[Array]]]:
    for name in parts[0]:
        yield name, [part[name] for part in parts]
