"""The static proof that a signature may be batched: when the server asks for it, and what it says about it.

The rule for each signature, in this order:

    off         batching.mode: off, a stateful model, at most one row: unbatched
    declared    batching.mode: trusted: batched; what proof and probe find against it is logged and shown
    proven      the model's graph shows that rows are independent, and the probe finds no difference: batched
    otherwise   unbatched, with the operator that stands in the way

A model that is not `Analysable` is not proven.
"""

from __future__ import annotations

import logging

from inferd.backends.api import NOT_ANALYSED, BackendError, Independence, Model, Signature
from inferd.server.config.schema import Batching
from inferd.server.scheduling.bucket import batched_inputs

_log = logging.getLogger("inferd.scheduling")


def analysed(model: Model, signature: Signature, batching: Batching, *, stateful: bool) -> Independence | None:
    """What the analysis of the model's graph says about the signature. None if it does not matter, because batching is
    off."""
    analyse = getattr(model, "independence", None)
    most = model.traits.max_batch
    limit = batching.max_batch_size if most is None else min(batching.max_batch_size, most)
    if stateful or batching.mode == "off" or limit < 2 or not batched_inputs(signature):
        return None
    if model.traits.stateful:  # the owner declares that it is stateless: that alone does not make rows independent
        return Independence(False, reason="its graph keeps state between runs")
    if analyse is None:
        return NOT_ANALYSED
    try:
        finding: Independence | None = analyse(signature)
    except BackendError:
        raise  # the model is gone
    except Exception as error:
        _log.exception("the analysis of signature %s failed", signature.name)
        return Independence(False, reason=f"the analysis failed ({type(error).__name__})", understood=False)
    return NOT_ANALYSED if finding is None else finding


def unproven(finding: Independence) -> str:
    """Why a signature that is not proven is unbatched, and what the owner can do."""
    return f"not proven: {finding}; declare batching.mode: trusted if rows are independent"


def objections(finding: Independence | None, probed: str) -> str:
    """What analysis and probe say against a declaration, for operators; "" if nothing. `probed`: the difference that
    the probe has found, "" for none."""
    said = []
    # An analysis that was not made, as of Python code, says nothing against it.
    if finding is not None and not finding.proven and (finding.operator or finding.output or finding.understood):
        said.append(f"the analysis of its graph says: {finding}")
    if probed:
        said.append(f"the probe says: {probed}")
    return "; ".join(said)
