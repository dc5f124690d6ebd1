"""The small real model that is part of the package, and digits to try it with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
SAMPLE = Path(__file__).with_name("sample")
NAME = "digits"
SMALL, BETTER = (SAMPLE / NAME / version / "model.onnx" for version in ("1", "2"))


def held_out() -> tuple[Array, Array]:
    """Images of digits that were not used in training, FP32 [450, 64], and the digits that they show, INT64 [450]."""
    with np.load(SAMPLE / "held_out.npz") as arrays:
        return arrays["images"].astype(np.float32), arrays["digits"].astype(np.int64)


def picture(image: Array) -> list[str]:
    """An image of 8x8 grey values, 0 to 16, as eight lines of text."""
    shades = " .:-=+*#%@"
    return ["".join(shades[min(9, int(v * 10 / 17))] * 2 for v in row) for row in image.reshape(8, 8)]
