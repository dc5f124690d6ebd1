"""Reads image files as arrays in the layout that a model takes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from inferd.client import DType, TensorSpec
from inferd.server.cli.errors import CommandError, usage

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp"})


@dataclass(frozen=True, slots=True)
class ImageOptions:
    """How pixels (0..255) become values.

    resize   (width, height); None: as the signature says
    layout   such as "NCHW"; None: guessed from the signature
    scale    factor for each pixel; then `mean` is subtracted and the result divided by `std`, for each channel
    """

    resize: tuple[int, int] | None = None
    layout: str | None = None
    scale: float = 1.0
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None


def read_image(path: Path, spec: TensorSpec | None, options: ImageOptions) -> np.ndarray[Any, Any]:
    """Reads an image as an array with the layout, size and element type of `spec`, unless the options override them.

    Raises CommandError if pillow is missing, the file is no image or the signature fits no image; OSError if the file
    cannot be read.
    """
    try:
        from PIL import Image, UnidentifiedImageError
    except ImportError:
        raise CommandError("images need pillow: pip install 'inferd[cli]'") from None
    shape = spec.shape if spec is not None else None
    layout = options.layout or _guess_layout(shape, spec)
    sizes = dict(zip(layout, shape, strict=True)) if shape is not None and len(shape) == len(layout) else {}
    channels = sizes.get("C", 3) if "C" in layout else 1
    try:
        with Image.open(path) as image:
            image = image.convert({1: "L", 4: "RGBA"}.get(channels, "RGB"))  # noqa: PLW2901
            size = options.resize or _size_of(sizes, image.size)
            if size != image.size:
                image = image.resize(size, Image.Resampling.BILINEAR)  # noqa: PLW2901
            pixels = np.asarray(image)
    except UnidentifiedImageError:
        raise CommandError(f"{path} is no image that pillow can read") from None
    except Image.DecompressionBombError as error:
        raise CommandError(f"{path}: {error}") from None
    if pixels.ndim == 2:
        pixels = pixels[:, :, None]
    dtype = spec.dtype if spec is not None and spec.dtype is not None else DType.FP32
    return _fitted(_arranged(_scaled(pixels, options, dtype), layout), shape)


def _scaled(pixels: np.ndarray[Any, Any], options: ImageOptions, dtype: DType) -> np.ndarray[Any, Any]:
    if options.scale == 1.0 and options.mean is None and options.std is None:
        return pixels.astype(dtype.numpy)
    values: np.ndarray[Any, Any] = pixels.astype(np.float32) * np.float32(options.scale)
    for flag, given in (("--mean", options.mean), ("--std", options.std)):
        if given is not None and len(given) not in (1, values.shape[2]):
            raise usage(f"{flag}: expected 1 or {values.shape[2]} numbers, got {len(given)}")
    if options.mean is not None:
        values = values - np.asarray(options.mean, np.float32)
    if options.std is not None:
        values = values / np.asarray(options.std, np.float32)
    return values.astype(dtype.numpy)


def _arranged(pixels: np.ndarray[Any, Any], layout: str) -> np.ndarray[Any, Any]:
    if "C" not in layout:
        pixels = pixels[:, :, 0]
    elif layout.endswith("CHW"):
        pixels = pixels.transpose(2, 0, 1)
    return np.ascontiguousarray(pixels[None] if layout.startswith("N") else pixels)


def _fitted(image: np.ndarray[Any, Any], shape: tuple[int, ...] | None) -> np.ndarray[Any, Any]:
    """Reshapes the image to the model's rank if the number of values is the same: an 8x8 image fits a row of 64."""
    if shape is None or len(shape) == image.ndim:
        return image
    wanted = [1 if size < 0 else size for size in shape]
    return image.reshape(wanted) if math.prod(wanted) == image.size else image


def _guess_layout(shape: tuple[int, ...] | None, spec: TensorSpec | None) -> str:
    """Guesses the layout from the position of the channels. Raises CommandError if two layouts fit."""
    if shape is not None and len(shape) in (3, 4):
        rest = shape[-3:]
        batch = "N" if len(shape) == 4 else ""
        # 4 is taken for the number of channels only if 1 and 3 do not fit: it may also be the size of a tiny image.
        for counts in ((1, 3), (1, 3, 4)):
            first, last = rest[0] in counts, rest[2] in counts
            if first != last:
                return batch + ("CHW" if first else "HWC")
            if first:
                break
        if len(shape) == 3 and not first and shape[0] < 0 < min(shape[1:]):
            return "NHW"
    if spec is None:
        raise usage("an image for an input that the signature does not know: give its name and --layout")
    shown = "any rank" if shape is None else str(list(shape))
    raise usage(f"input {spec.name!r} of shape {shown}: which layout an image has is not clear; give --layout")


def _size_of(sizes: dict[str, int], own: tuple[int, int]) -> tuple[int, int]:
    width, height = sizes.get("W", -1), sizes.get("H", -1)
    return (width if width > 0 else own[0], height if height > 0 else own[1])
