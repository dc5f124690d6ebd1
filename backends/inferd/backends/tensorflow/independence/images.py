"""Operators on images, boxes and signals."""

from __future__ import annotations

from inferd.backends.independence import operators as rules
from inferd.backends.independence.sizes import MixesRows, NotUnderstood, Size, size_of
from inferd.backends.independence.values import CONST, Value, apart, by_row, data, fixed, like, shaped
from inferd.backends.tensorflow.independence.node import Node, new_table

TABLE = new_table()
_RESIZERS = ("ResizeArea", "ResizeBicubic", "ResizeBilinear", "ResizeNearestNeighbor")


@TABLE.add(*_RESIZERS)
def resize(node: Node) -> Value:
    return rules.resized_images(data(node.x), node.sizes(1))


@TABLE.add("ExtractImagePatches")
def patches(node: Node) -> Value:
    """Each place's window, laid out along the last axis."""
    shape = shaped(data(node.x))
    window, strides, rates = (node.integers(name) for name in ("ksizes", "strides", "rates"))
    if len(shape) != 4 or any(len(given) != 4 or given[0] != 1 or given[3] != 1 for given in (window, strides, rates)):
        raise NotUnderstood("takes windows of a tensor that has not four axes")
    apart(node.x, [1, 2, 3], "has a window")
    space = [
        node.width(shape[axis], window[axis], strides[axis], rates[axis], node.string("padding")) for axis in (1, 2)
    ]
    return like(node.x, [shape[0], *space, shape[3] * window[1] * window[2]])


@TABLE.add("RGBToHSV", "HSVToRGB")
def colours(node: Node) -> Value:
    return rules.along(node.x, [-1], "converts colours")


@TABLE.add("AdjustSaturation", "AdjustHue")
def adjusted_colours(node: Node) -> Value:
    fixed(node.input(1), "a factor")
    return rules.along(node.x, [-1], "converts colours")


@TABLE.add("AdjustContrastv2")
def adjusted_contrast(node: Node) -> Value:
    """By the mean of each image and channel."""
    fixed(node.input(1), "a factor")
    if len(shaped(node.x)) < 3:
        raise NotUnderstood("adjusts what is no image")
    return rules.along(node.x, [-1, -2, -3], "takes the mean")


@TABLE.add("CombinedNonMaxSuppression")
def best_boxes(node: Node) -> list[Value]:
    """For each image a fixed number of boxes; places that are left are filled up with zeros."""
    boxes, scores = by_row(node.input(0), "the boxes"), by_row(node.input(1), "the scores")
    if len(shaped(boxes)) != 4 or len(shaped(scores)) != 3:
        raise NotUnderstood("reads boxes of another form")
    for value in node.given[2:]:
        fixed(value, "a bound")
    each, total = node.size(2), node.size(3)
    if each.batched or total.batched:
        raise MixesRows("takes as many boxes as there are rows")
    kept: Size = node.width(each, total, shaped(scores)[2], str(node.boolean("pad_per_class")))
    rows = shaped(boxes)[0]
    return [like(boxes, shape) for shape in ([rows, kept, size_of(4)], [rows, kept], [rows, kept], [rows])]


@TABLE.add("FFT", "IFFT")
def fourier(node: Node) -> Value:
    return rules.along(node.x, [-1], "transforms")


@TABLE.add("RFFT", "IRFFT")
def real_fourier(node: Node) -> Value:
    length = node.size(1)
    if length.batched:
        raise MixesRows("transforms as many elements as there are rows")
    if data(node.input(1)).kind is not CONST:
        raise MixesRows("takes its length from the rows")
    if node.operator == "IRFFT":
        return rules.resized(node.x, {-1: length}, "transforms")
    width = size_of(length.number // 2 + 1) if length.number is not None else node.width(length)
    return rules.resized(node.x, {-1: width}, "transforms")
