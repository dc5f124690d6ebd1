"""Convolution, pooling, resampling: operators on windows of the last axes."""

from __future__ import annotations

from collections.abc import Sequence

from inferd.backends.independence import operators as rules
from inferd.backends.independence.sizes import NotUnderstood, Size, computed, product, size_of
from inferd.backends.independence.values import Value, apart, by_row, data, fixed, like, shaped
from inferd.backends.torch.independence.call import AtenTable, Call

TABLE = AtenTable()


def _spread(call: Call, name: str, rank: int, default: int) -> list[int]:
    """A setting for each axis of the window; one number stands for all."""
    given = call.integers(name)
    if not given:
        return [default] * rank
    result = list(given) * rank if len(given) == 1 else list(given)
    if len(result) != rank:
        raise NotUnderstood(f"has {name!r} for other axes than its window")
    return result


def _window(size: Size, kernel: Size, stride: int, padding: int, dilation: int, ceil: bool) -> Size:
    """The number of windows along an axis."""
    span = size + 2 * padding - (kernel - 1) * dilation - 1
    exact = span.over(size_of(stride))
    if exact is not None and (not ceil or stride == 1):
        return exact + 1
    if span.number is not None and not ceil and stride > 0:
        return size_of(span.number // stride + 1)
    return computed("windows", size, kernel, stride, padding, dilation, str(ceil))


def _convolved(call: Call, transposed: bool) -> Value:
    weight = call.tensor("weight")
    for value in call.others:
        fixed(value, "a weight")
    shape, kernel = shaped(data(call.x)), shaped(weight)
    rank = len(kernel) - 2
    if rank < 1 or len(shape) != len(kernel):
        raise NotUnderstood("has an input of another rank than its weight")
    groups = call.integer("groups")
    padding = call.arguments.get("padding")
    if isinstance(padding, str):
        if padding not in ("same", "valid") or transposed:
            raise NotUnderstood("has a padding that is not known")
        paddings = [0] * rank
    else:
        paddings = _spread(call, "padding", rank, 0)
    strides, dilations = _spread(call, "stride", rank, 1), _spread(call, "dilation", rank, 1)
    extra = _spread(call, "output_padding", rank, 0)
    sizes = []
    for i, size in enumerate(shape[2:]):
        if transposed:
            stretched = (size - 1) * strides[i] - 2 * paddings[i] + (kernel[i + 2] - 1) * dilations[i]
            sizes.append(stretched + extra[i] + 1)
        elif padding == "same":
            sizes.append(size)
        else:
            sizes.append(_window(size, kernel[i + 2], strides[i], paddings[i], dilations[i], ceil=False))
    return rules.windowed(call.x, [], sizes, kernel[1] * groups if transposed else kernel[0])


@TABLE.add("conv1d conv2d conv3d _convolution_mode")
def conv(call: Call) -> Value:
    return _convolved(call, transposed=False)


@TABLE.add("conv_transpose1d conv_transpose2d conv_transpose3d")
def conv_transpose(call: Call) -> Value:
    return _convolved(call, transposed=True)


@TABLE.add("convolution _convolution")
def convolution(call: Call) -> Value:
    return _convolved(call, call.flag("transposed"))


_QUANTIZED = " ".join(f"quantized::conv{rank}d quantized::conv{rank}d_relu" for rank in (1, 2, 3))


@TABLE.add(_QUANTIZED)
def quantized_conv(call: Call) -> Value:
    rank = int(call.operator.removeprefix("quantized::conv")[0])
    if len(shaped(data(call.x))) != rank + 2:
        raise NotUnderstood("has an input of another rank than its window")
    return rules.windowed(call.x, [], [call.fresh() for _ in range(rank)], call.fresh())


@TABLE.add(
    "max_pool1d max_pool2d max_pool3d max_pool1d_with_indices max_pool2d_with_indices max_pool3d_with_indices"
    " avg_pool1d avg_pool2d avg_pool3d quantized_max_pool2d"
)
def pool(call: Call) -> list[Value]:
    rank = _rank(call)
    kernels = _spread(call, "kernel_size", rank, 1)
    strides = _spread(call, "stride", rank, 0) if call.integers("stride") else kernels
    paddings, dilations = _spread(call, "padding", rank, 0), _spread(call, "dilation", rank, 1)
    space = _space(call, rank)
    sizes = {
        i - rank: _window(size, size_of(kernels[i]), strides[i], paddings[i], dilations[i], call.flag("ceil_mode"))
        for i, size in enumerate(space)
    }
    # The numbers of the largest elements count within one plane.
    return [rules.resized(call.x, sizes, "has a window")] * call.results


def _rank(call: Call) -> int:
    return int(next(letter for letter in call.operator if letter.isdigit()))


def _space(call: Call, rank: int) -> Sequence[Size]:
    shape = shaped(data(call.x))
    if len(shape) <= rank:
        raise NotUnderstood("has an input of lower rank than its window")
    return shape[-rank:]


_ADAPTIVE = " ".join(f"adaptive_{kind}_pool{rank}d" for kind in ("avg", "max") for rank in (1, 2, 3))


@TABLE.add(f"{_ADAPTIVE} _adaptive_avg_pool2d _adaptive_avg_pool3d")
def adaptive_pool(call: Call) -> list[Value]:
    rank = _rank(call)
    _space(call, rank)
    sizes = list(call.sizes("output_size") or [])
    if len(sizes) != rank:
        raise NotUnderstood("has an output size for other axes than its window")
    return [rules.resized(call.x, {i - rank: size for i, size in enumerate(sizes)}, "has a window")] * call.results


_UPSAMPLE = """
    upsample_nearest1d upsample_nearest2d upsample_nearest3d _upsample_nearest_exact1d _upsample_nearest_exact2d
    _upsample_nearest_exact3d upsample_linear1d upsample_bilinear2d upsample_bicubic2d upsample_trilinear3d
    _upsample_bilinear2d_aa _upsample_bicubic2d_aa
"""


@TABLE.add(_UPSAMPLE)
def upsample(call: Call) -> Value:
    rank = _rank(call)
    space = _space(call, rank)
    if len(shaped(call.x)) != rank + 2:
        raise NotUnderstood("has an input of another rank than its window")
    target = call.sizes("output_size")
    factors = call.arguments.get("scale_factors")
    sizes = {}
    if target is not None:
        if len(target) != rank:
            raise NotUnderstood("has an output size for other axes than its window")
        sizes = {i - rank: size for i, size in enumerate(target)}
    elif isinstance(factors, list | tuple) and len(factors) == rank:
        for i, factor in enumerate(factors):
            if not isinstance(factor, float | int):
                raise NotUnderstood("resizes by factors that are not known")
            whole = float(factor).is_integer() and factor >= 1
            sizes[i - rank] = space[i] * int(factor) if whole else call.width(space[i], repr(factor))
    else:
        raise NotUnderstood("resizes by factors that are not known")
    return rules.resized(call.x, sizes, "resizes")


@TABLE.add(
    "constant_pad_nd pad reflection_pad1d reflection_pad2d reflection_pad3d"
    " replication_pad1d replication_pad2d replication_pad3d"
)
def pad(call: Call) -> Value:
    for value in call.others:
        fixed(value, "the padding")
    shape = shaped(data(call.x))
    pads = call.sizes("padding" if "padding" in call.arguments else "pad")
    if pads is None or len(pads) % 2 or len(pads) // 2 > len(shape):
        raise NotUnderstood("has padding for other axes than its input")
    sizes = {}
    for i in range(len(pads) // 2):
        if pads[2 * i] != 0 or pads[2 * i + 1] != 0:
            sizes[-1 - i] = shape[-1 - i] + pads[2 * i] + pads[2 * i + 1]
    return rules.resized(call.x, sizes, "pads")


@TABLE.add("pixel_shuffle pixel_unshuffle")
def pixel_shuffle(call: Call) -> Value:
    shuffle = call.operator == "pixel_shuffle"
    factor = call.integer("upscale_factor" if shuffle else "downscale_factor")
    shape = shaped(data(call.x))
    if len(shape) < 3 or factor < 1:
        raise NotUnderstood("moves elements of a tensor that has fewer than three axes")
    one, many = size_of(factor), size_of(factor * factor)
    deep, high, wide = shape[-3:]
    parts = [deep.over(many), high * one, wide * one] if shuffle else [deep * many, high.over(one), wide.over(one)]
    sizes = {i - 3: call.width(shape[i - 3], factor) if part is None else part for i, part in enumerate(parts)}
    return rules.resized(call.x, sizes, "moves elements")


@TABLE.add("im2col")
def im2col(call: Call) -> Value:
    shape = shaped(data(call.x))
    if len(shape) != 4:
        raise NotUnderstood("reads what is no batch of images")
    kernels, strides = _spread(call, "kernel_size", 2, 1), _spread(call, "stride", 2, 1)
    paddings, dilations = _spread(call, "padding", 2, 0), _spread(call, "dilation", 2, 1)
    blocks = [
        _window(shape[i + 2], size_of(kernels[i]), strides[i], paddings[i], dilations[i], ceil=False) for i in range(2)
    ]
    apart(call.x, [1, 2, 3], "has a window")
    return like(call.x, [shape[0], shape[1] * kernels[0] * kernels[1], product(blocks)])


@TABLE.add("grid_sampler grid_sampler_2d grid_sampler_3d")
def grid_sample(call: Call) -> Value:
    image, grid = by_row(call.tensor("input"), "the input"), by_row(call.tensor("grid"), "the grid")
    shape, places = shaped(image), shaped(grid)
    if len(shape) not in (4, 5) or len(places) != len(shape):
        raise NotUnderstood("samples a tensor of another rank than its grid")
    return like(image, [shape[0], shape[1], *places[1:-1]])


@TABLE.add("affine_grid_generator", sizes="size")
def affine_grid(call: Call) -> Value:
    theta, size = by_row(call.tensor("theta"), "the input"), call.sizes("size") or []
    if len(size) not in (4, 5) or size[0] != shaped(theta)[0]:
        raise NotUnderstood("makes a grid of another size than its input")
    return like(theta, [size[0], *size[2:], size_of(len(size) - 2)])
