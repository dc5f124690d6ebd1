"""PNG or JPEG bytes in, the name of the digit out; model.onnx between them is a convolutional network on 8x8 pixels."""

import io

import numpy as np
from PIL import Image, UnidentifiedImageError

IDEMPOTENT = True  # a failed batch may be run again, request by request: the functions only compute

MOST_PIXELS = 4_000_000


def load(directory):
    global NAMES
    NAMES = (directory / "labels.txt").read_text().split()


def before(png):
    return {"image": np.stack([decoded(data) for data in png])}


def after(probabilities):
    best = probabilities.argmax(axis=1)
    return {"label": [NAMES[i] for i in best], "confidence": probabilities.max(axis=1)}


def decoded(data):
    """One picture as FP32 [1, 8, 8], 0 for black to 1 for white."""
    try:
        with Image.open(io.BytesIO(data)) as image:
            if image.width * image.height > MOST_PIXELS:
                raise ValueError(f"expected at most {MOST_PIXELS} pixels, got {image.width} x {image.height}")
            small = image.convert("L").resize((8, 8), Image.Resampling.BOX)
    except (UnidentifiedImageError, Image.DecompressionBombError, OSError):  # all but ValueError would be our fault
        raise ValueError(f"expected a whole PNG or JPEG image, got {len(data)} bytes of something else") from None
    return np.asarray(small, np.float32)[np.newaxis] / 255
