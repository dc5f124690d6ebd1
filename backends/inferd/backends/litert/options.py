"""The settings of the LiteRT backend: `options:` of a model.

xnnpack      floating-point and quantised operators run in XNNPACK's kernels, which is faster; default true
keep_state   what operators keep (the states of recurrent layers) is kept from one request to the next, and the model
             counts as stateful; default false: it is cleared before each run
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from inferd.backends.checks import check_options


@dataclass(frozen=True, slots=True)
class LiteRtOptions:
    """Checked settings, described at the top of this module."""

    xnnpack: bool = True
    keep_state: bool = False

    @classmethod
    def read(cls, options: Mapping[str, Any]) -> LiteRtOptions:
        """Checks a model's `options:`. Raises LoadError."""
        check_options("litert", options, {"xnnpack": bool, "keep_state": bool})
        return cls(**options)
