"""The static proof that a signature may be batched: when the server asks for it, and what it says about it.

The rule for each signature, in this order:

    off         batching.mode: off, a stateful model, at most one row: unbatched
    declared    batching.mode: trusted: batched; what the proof finds is logged
    proven      the model's graph shows that rows are independent, and the probe finds no difference: batched
    otherwise   unbatched, with the operator that stands in the way

A model that cannot be analysed (`Analysable`) is batched as the probe alone decides.
"""

from __future__ import annotations

import logging

from inferd.backends.api import BackendError, Independence, Model, Signature
from inferd.server.config.schema import Batching
from inferd.server.scheduling.bucket import batched_inputs

_log = logging.getLogger("inferd.scheduling")


def analysed(model: Model, signature: Signature, batching: Batching, *, stateful: bool) -> Independence | None:
    """What the analysis of the model's graph says about the signature. None if it does not matter (batching is off), or
    if the model cannot be analysed."""
    analyse = getattr(model, "independence", None)
    most = model.traits.max_batch
    limit = batching.max_batch_size if most is None else min(batching.max_batch_size, most)
    if analyse is None or stateful or model.traits.stateful or batching.mode == "off" or limit < 2:
        return None
    if not batched_inputs(signature):
        return None
    try:
        finding: Independence | None = analyse(signature)
    except BackendError:
        raise  # the model is gone
    except Exception as error:
        _log.exception("the analysis of signature %s failed", signature.name)
        return Independence(False, reason=f"the analysis failed ({type(error).__name__})", understood=False)
    return finding


def unproven(finding: Independence) -> str:
    """Why a signature that is not proven is unbatched, and what the owner can do."""
    return f"not proven: {finding}; declare batching.mode: trusted if rows are independent"
