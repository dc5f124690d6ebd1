"""`gate:` of a model: what a new version must not do worse than the version before it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from inferd.server.config.fields import Count, Room, Section, Text
from inferd.server.config.units import Ratio, Share


class Gate(Section):
    """What a new version must reach on sample rows before it is published. `inferd publish`, `inferd compare` and
    `inferd optimise` ask it; a server does not."""

    sample: Text | None = None
    """A file of sample rows in the model's directory: .npz with arrays by input name, and `expected` for labels or
    outputs. null: the gate holds where --sample is given."""
    metric: Literal["auto", "accuracy", "agreement", "cosine", "max_abs_diff"] = "auto"
    """accuracy: share of rows with the label that `expected` has; agreement: share of rows with the decision of the
    version before; cosine: mean similarity of a row's numbers to those of the version before, for embeddings;
    max_abs_diff: largest difference of a number. auto: accuracy where there are labels, else agreement."""
    output: Text | None = None
    """The output that the metric reads. null: for labels and decisions the one that tells them, else all."""
    max_drop: Share = 0.005
    """By how much the metric may be lower than that of the version before; for agreement and cosine: than 1."""
    max_difference: Annotated[float, Field(ge=0)] = 1e-3
    """Of max_abs_diff: the largest difference that is let through."""
    min_agreement: Share | None = 0.99
    """Lowest share of rows with the decision of the version before, whatever the metric is; not asked of embeddings.
    null: any."""
    max_latency: Ratio | None = None
    """Longest time of a run, in relation to that of the version before, of one row and of a batch. null: any."""
    max_size: Room | None = None
    """Largest size of the version's files. null: any."""
    min_rows: Annotated[Count, Field(le=1_000_000_000)] = 200
    """Fewest sample rows that can decide."""
