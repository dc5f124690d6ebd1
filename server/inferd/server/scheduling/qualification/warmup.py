"""Warm-up of a model before it takes requests: runs of samples, which also show how it may be batched."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial

from inferd.backends.api import (
    Array,
    BackendError,
    BrokenContract,
    Independence,
    Instance,
    LoadError,
    Model,
    Signature,
)
from inferd.server.config.schema import Batching
from inferd.server.scheduling.bucket import batched_inputs
from inferd.server.scheduling.buffers import Buffers
from inferd.server.scheduling.instances import InstanceWorker
from inferd.server.scheduling.qualification.contract import SeededRefusal, check_contract
from inferd.server.scheduling.qualification.probe import Run, Verdict, detect_state, probe_batching, try_runs
from inferd.server.scheduling.qualification.proof import analysed, objections, unproven
from inferd.server.scheduling.qualification.samples import NoSample, Samples

_log = logging.getLogger("inferd.scheduling")
_DECLARED = 8  # rows of the largest batch in which a declared model is probed


def without_proof(signature: Signature, batching: Batching, limit: int, *, stateful: bool) -> Verdict | None:
    """How a signature is batched if settings and shapes decide it; None: the proof or the probe decides. `limit`: the
    most rows of a batch that settings and model allow."""
    if stateful:
        refused = "" if batching.mode != "trusted" else "; batching.mode: trusted is not heeded"
        return Verdict(0, f"stateful{refused}", "off", stateful=True)
    if batching.mode == "off":
        return Verdict(0, "batching.mode is off", "off")
    if not batched_inputs(signature):
        return Verdict(0, "no input has a variable first dimension", "off")
    if limit < 2:
        of = "batching.max_batch_size" if batching.max_batch_size < 2 else "the model's largest batch"
        return Verdict(0, f"{of} is {limit}", "off")
    return Verdict(limit, "declared", "declared") if batching.mode == "trusted" else None


class ModelWarmup:
    """The warm-up of one servable. `samples`: by signature. `stateless`: the owner declares that no state is kept, and
    none is looked for. All runs take place on the workers' threads; every method returns when its runs have ended."""

    def __init__(
        self,
        name: str,
        model: Model,
        batching: Batching,
        samples: Mapping[str, Samples],
        *,
        stateful: bool,
        stateless: bool = False,
    ) -> None:
        self._name = name
        self._model = model
        self._batching = batching
        self._samples = samples
        self._signatures = {signature.name: signature for signature in model.signatures}
        self._stateful = stateful
        self._stateless = stateless
        if stateful and batching.mode == "trusted":
            _log.warning(
                "%s: batching.mode: trusted is not heeded, because the model is stateful; declare stateful: false if "
                "answers do not depend on earlier calls",
                name,
            )
        configured, most = batching.max_batch_size, model.traits.max_batch
        self._limit = configured if most is None else min(configured, most)

    def warm(self, workers: Sequence[InstanceWorker], runs: int) -> list[SeededRefusal]:
        """Runs every signature `runs` times on each worker. Raises LoadError if a declared sample fails, and if the
        model breaks its contract. Returns what else fails on seeded data."""
        futures = [worker.call(partial(self._warm, runs)) for worker in workers]
        found = [future.result() for future in futures]
        return next((refusals for refusals in found if refusals), [])

    def replay(
        self, workers: Sequence[InstanceWorker], name: str, signature: str, inputs: Mapping[str, Array], runs: int
    ) -> None:
        """Runs the request called `name` `runs` times on each worker. Raises LoadError if it fails."""
        run = partial(self._replay, signature, dict(inputs), runs)
        for future in [worker.call(run) for worker in workers]:
            error = future.result()
            if error is not None:
                raise LoadError(f"{self._name}: warm-up request {name!r} failed: {error}") from error

    def examine(self, worker: InstanceWorker, signature: Signature) -> Verdict:
        """Finds out how the signature may be batched, and whether the model is stateful."""
        verdict = worker.call(partial(self._examine, signature)).result()
        if verdict.stateful and self._stateless:
            _log.warning(
                "%s: signature %s: %s, but stateful: false is declared", self._name, signature.name, verdict.reason
            )
            return replace(verdict, stateful=False)
        return verdict

    def without_proof(self, signature: Signature) -> Verdict | None:
        """How a signature is batched if settings and shapes decide it; None: the proof or the probe decides."""
        return without_proof(signature, self._batching, self._limit, stateful=self._stateful)

    def _warm(self, runs: int, instance: Instance) -> list[SeededRefusal]:
        refusals: list[SeededRefusal] = []
        for name, samples in self._samples.items():
            reason = ""
            try:
                for inputs in _firsts(samples):
                    error = try_runs(partial(self._run_sample, instance, name), inputs, runs)
                    if error is None:
                        break
                    if isinstance(error, BrokenContract):
                        raise LoadError(f"{self._name}: signature {name!r} can answer no request: {error}") from error
                    if samples.declared:
                        raise LoadError(
                            f"{self._name}: the declared sample of signature {name!r} failed: {error}"
                        ) from error
                    reason = reason or f"{error}"
                else:
                    _log.info("%s: no warm-up of signature %s: it refuses seeded data: %s", self._name, name, reason)
                    refusals.append(SeededRefusal(name, reason, partial(_firsts, samples)))
            except NoSample as missing:
                _log.info("%s: no warm-up of signature %s: %s", self._name, name, missing)
        return refusals

    def _replay(self, signature: str, inputs: dict[str, Array], runs: int, instance: Instance) -> Exception | None:
        return try_runs(partial(self._run_sample, instance, signature), inputs, runs)

    def _examine(self, signature: Signature, instance: Instance) -> Verdict:
        verdict = self.without_proof(signature)
        samples = self._samples[signature.name]
        run = partial(self._run_sample, instance, signature.name)
        finding = analysed(self._model, signature, self._batching, stateful=self._stateful)
        if verdict is None:
            assert finding is not None
            if finding.proven:
                return self._agreed(signature, finding, probe_batching(signature, run, samples, self._limit))
            verdict = Verdict(0, unproven(finding))
        elif verdict.limit:
            return self._declared(signature, verdict, finding, run)
        if detect_state(signature, run, samples):
            return Verdict(0, "stateful: the same row gets a different output", "off", stateful=True)
        return verdict

    def _declared(self, signature: Signature, verdict: Verdict, finding: Independence | None, run: Run) -> Verdict:
        """The verdict on a declared signature, with what analysis and probe find: they never overrule the owner."""
        if finding is not None and finding.proven:
            return replace(verdict, splits=True, equal=finding.equal)
        # The declared limit stands, so it is not tried out: TensorFlow Serving's are 1,000 rows.
        limit = min(self._limit, _DECLARED)
        probed = probe_batching(signature, run, self._samples[signature.name], limit, non_finite=False)
        said = objections(finding, "" if probed.limit or probed.silent else probed.reason)
        if not said:
            return verdict
        _log.warning("%s: signature %s is batched because that is declared, but %s", self._name, signature.name, said)
        return replace(verdict, reason=f"{verdict.reason}, but {said}", basis="contested")

    def _agreed(self, signature: Signature, finding: Independence, probed: Verdict) -> Verdict:
        """The verdict on a proven signature that was probed: the probe can only veto."""
        if probed.silent:
            return Verdict(self._limit, "", "proven", splits=True, equal=finding.equal)
        if probed.limit:
            return replace(probed, equal=finding.equal)
        _log.error(
            "%s: signature %s is proven to be batchable, but the probe finds: %s. This is a bug in inferd, please "
            "report it; the signature is served unbatched",
            self._name,
            signature.name,
            probed.reason,
        )
        return probed

    def _run_sample(self, instance: Instance, signature: str, inputs: dict[str, Array]) -> dict[str, Array]:
        # Inputs and outputs are copied: the model may write into its inputs, outputs may be views of them, and outputs
        # are compared later.
        buffers = Buffers(self._model.traits.alignment)
        try:
            outputs = instance.run(signature, {name: buffers.copy(name, array) for name, array in inputs.items()})
        except SystemExit as error:
            raise BackendError("the model tried to end the process") from error
        check_contract(self._signatures[signature], outputs)
        return {name: array.copy() for name, array in outputs.items()}


def _firsts(samples: Samples) -> Iterator[dict[str, Array]]:
    """One row of each group of seeded data, or the declared sample. Raises NoSample."""
    for group in samples.groups():
        yield next(group).stack([0])
