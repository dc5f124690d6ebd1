"""Operators that compute each element from the elements at the same place."""

from __future__ import annotations

from dataclasses import replace

from inferd.backends.independence import operators as rules
from inferd.backends.independence.sizes import MixesRows, NotUnderstood, product, size_of
from inferd.backends.independence.values import CONST, Value, data, fixed, shaped
from inferd.backends.torch.independence.call import AtenTable, Call

TABLE = AtenTable()

ARITHMETIC = """
    abs add clamp clamp_max clamp_min clip floor_divide fmod masked_fill maximum minimum mul multiply neg negative
    remainder rsub sub subtract where
"""
CONDITIONS = """
    eq ge greater greater_equal gt isclose isfinite isinf isnan isneginf isposinf le less less_equal logical_and
    logical_not logical_or logical_xor lt ne not_equal signbit
"""
_PLAIN = """
    absolute acos acosh addcdiv addcmul angle arccos arccosh arcsin arcsinh arctan arctan2 arctanh asin asinh atan
    atan2 atanh bitwise_and bitwise_left_shift bitwise_not bitwise_or bitwise_right_shift bitwise_xor __and__
    __lshift__ __or__ __rshift__ __xor__ ceil celu copy copysign cos cosh deg2rad digamma div divide elu erf erfc
    erfinv exp exp2 expm1 fill fix float_power floor fmax fmin frac gelu hardshrink hardsigmoid hardswish hardtanh
    heaviside hypot i0 ldexp leaky_relu lerp lgamma log log10 log1p log2 log_sigmoid logaddexp logaddexp2 logit mish
    nan_to_num pow rad2deg reciprocal relu relu6 round rsqrt selu sgn sigmoid sign silu sin sinc sinh softplus
    softshrink special_expit special_erf special_log1p sqrt square tan tanh threshold true_divide trunc xlogy zero
    _prelu_kernel
"""
ELEMENTWISE = frozenset(f"{ARITHMETIC} {CONDITIONS} {_PLAIN}".split())
IDENTITY = "alias clone contiguous detach lift_fresh lift_fresh_copy positive resolve_conj resolve_neg"
CASTS = "to _to_copy type_as _cast_Float _cast_Double _cast_Half _cast_Long _cast_Int"


@TABLE.add(" ".join(ELEMENTWISE))
def elementwise(call: Call) -> Value:
    if call.operator == "where" and not call.has("other"):
        raise MixesRows("lists positions in the whole batch")
    return rules.elementwise(call.operands)


@TABLE.add("quantized::add quantized::add_relu quantized::mul quantized::mul_relu")
def quantized_arithmetic(call: Call) -> Value:
    return rules.elementwise(call.operands)


@TABLE.add(IDENTITY)
def identity(call: Call) -> Value:
    return call.x


@TABLE.add(CASTS, shape_of="other")
def cast(call: Call) -> Value:
    # A row number or a size that is cast to a narrower type is another number.
    named = call.operator in ("to", "_to_copy") and not call.has("other")
    if named and str(call.arguments.get("dtype")) in ("None", "4", "torch.int64"):
        return call.x
    return rules.elementwise([replace(call.x, known=None) if call.x.kind is CONST else call.x])


@TABLE.add("dropout alpha_dropout feature_dropout feature_alpha_dropout native_dropout")
def dropout(call: Call) -> list[Value]:
    if not call.has("train") or call.flag("train"):
        raise MixesRows("is random in training mode")
    return [rules.elementwise([call.x])] * call.results


@TABLE.add("rrelu")
def rrelu(call: Call) -> Value:
    if call.flag("training"):
        raise MixesRows("is random in training mode")
    return rules.elementwise([call.x])


@TABLE.add("prelu")
def prelu(call: Call) -> Value:
    weight = call.tensor("weight")
    fixed(weight, "a weight")
    if product(shaped(weight)) == 1:
        return rules.elementwise([call.x])
    return rules.along(call.x, [1], "has a weight for each element")  # of axis 1, the channels


@TABLE.add("glu")
def glu(call: Call) -> Value:
    axis = call.integer("dim")
    size = shaped(data(call.x))[axis]
    half = size.over(size_of(2))
    return rules.resized(call.x, {axis: call.width(size) if half is None else half}, "gates")


def _one_scale(call: Call, names: str) -> None:
    for name in names.split():
        value = call.arguments.get(name)
        if not isinstance(value, int | float):
            given = call.optional(name)
            fixed(given, "a scale or zero point")
            if given is None or product(shaped(given)) != 1:
                raise NotUnderstood("has a scale or zero point for each element")


@TABLE.add(
    "fake_quantize_per_tensor_affine quantize_per_tensor"
    " quantized_decomposed::quantize_per_tensor quantized_decomposed::dequantize_per_tensor"
)
def quantize(call: Call) -> Value:
    _one_scale(call, "scale zero_point")
    return rules.elementwise([call.x])


@TABLE.add(
    "fake_quantize_per_channel_affine quantize_per_channel"
    " quantized_decomposed::quantize_per_channel quantized_decomposed::dequantize_per_channel"
)
def quantize_channels(call: Call) -> Value:
    for value in call.others:
        fixed(value, "a scale or zero point")
    return rules.along(call.x, [call.integer("axis")], "has a scale for each element")


@TABLE.add("dequantize int_repr")
def dequantize(call: Call) -> Value:
    if not call.has(next(iter(call.arguments))) or call.overload == "tensors":
        raise NotUnderstood("converts a list of tensors")
    return rules.elementwise([call.x])
