"""Operators along axes: reductions, softmax, sorts, cumulative sums, normalisation."""

from __future__ import annotations

from collections.abc import Sequence

from inferd.backends.independence import operators as rules
from inferd.backends.independence.sizes import MixesRows, NotUnderstood, product
from inferd.backends.independence.values import Cause, Value, data, fixed, mixed, shaped
from inferd.backends.torch.independence.call import AtenTable, Call

TABLE = AtenTable()
_EMPTY_IS_ALL = ("sum", "mean", "amax", "amin", "var", "std", "var_mean", "std_mean")  # an empty list means all axes


def _axis(call: Call) -> int:
    if not call.has("dim"):
        raise MixesRows("works on all elements of the batch")
    return call.integer("dim")


def _axes(call: Call) -> Sequence[int]:
    """The axes of a reduction: all, if none is given."""
    given = call.integers("dim")
    if given is not None and not given and call.operator not in _EMPTY_IS_ALL:
        raise NotUnderstood("reduces an empty list of axes")
    return given or range(len(shaped(call.x)))


def _all_or_elementwise(call: Call) -> Value | None:
    """The result of `max(a, b)`, which has the name of a reduction."""
    return rules.elementwise(call.operands) if call.has("other") else None


@TABLE.add("sum mean amax amin prod all any logsumexp argmax argmin count_nonzero nansum nanmean")
def reduction(call: Call) -> Value:
    return rules.reduced(call.x, _axes(call), call.flag("keepdim"), "reduces")


@TABLE.add("var std norm linalg_vector_norm frobenius_norm")
def deviation(call: Call) -> Value:
    return rules.reduced(call.x, _axes(call), call.flag("keepdim"), "reduces")


@TABLE.add("var_mean std_mean")
def deviation_and_mean(call: Call) -> list[Value]:
    return [rules.reduced(call.x, _axes(call), call.flag("keepdim"), "reduces")] * 2


@TABLE.add("max min median nanmedian mode aminmax")
def extreme(call: Call) -> Value | list[Value]:
    both = _all_or_elementwise(call)
    if both is not None:
        return both
    if not call.has("dim") and "dim" in call.arguments:
        raise MixesRows("reduces over the batch axis")
    return [rules.reduced(call.x, _axes(call), call.flag("keepdim"), "reduces")] * call.results


@TABLE.add("kthvalue")
def kth_value(call: Call) -> list[Value]:
    return [rules.reduced(call.x, [_axis(call)], call.flag("keepdim"), "sorts")] * 2


@TABLE.add("softmax _softmax log_softmax _log_softmax")
def softmax(call: Call) -> Value:
    return rules.along(call.x, [_axis(call)], "normalises")


@TABLE.add("cumsum cumprod logcumsumexp cummax cummin")
def cumulative(call: Call) -> list[Value]:
    return [rules.along(call.x, [_axis(call)], "accumulates")] * call.results


@TABLE.add("sort argsort")
def sort(call: Call) -> list[Value]:
    return [rules.along(call.x, [_axis(call)], "sorts")] * call.results


@TABLE.add("topk")
def top_k(call: Call) -> list[Value]:
    return [rules.resized(call.x, {_axis(call): call.size("k")}, "sorts")] * 2


@TABLE.add("flip")
def flip(call: Call) -> Value:
    return rules.along(call.x, call.integers("dims") or [], "reverses")


@TABLE.add("roll")
def roll(call: Call) -> Value:
    axes = call.integers("dims")
    if not axes:
        raise MixesRows("moves the elements of the whole batch")
    return rules.along(call.x, axes, "rotates")


@TABLE.add("tril triu")
def triangle(call: Call) -> Value:
    return rules.along(call.x, [-1, -2], "cuts out a triangle")


@TABLE.add("layer_norm rms_norm native_layer_norm _fused_rms_norm")
def layer_norm(call: Call) -> list[Value]:
    count = len(call.sizes("normalized_shape") or [])
    if not count:
        raise NotUnderstood("has no axes")
    axes = range(-count, 0)
    for name in ("weight", "bias"):
        value = call.optional(name)
        fixed(value, "a weight")
        if value is not None and len(shaped(value)) != count:
            raise NotUnderstood("has a weight of another rank than its axes")
    result = rules.along(call.x, axes, "normalises")
    return [result, *[rules.reduced(call.x, axes, keep=True)] * (call.results - 1)]


@TABLE.add("batch_norm _native_batch_norm_legit_no_training")
def batch_norm(call: Call) -> list[Value]:
    if call.operator == "batch_norm" and (call.flag("training") or not call.has("running_mean")):
        raise MixesRows("normalises by the statistics of the batch (training mode)")
    for value in call.others:
        fixed(value, "a weight")
    result = rules.along(call.x, [1], "has a weight for each element")
    return [result, *_statistics(call)]


@TABLE.add("instance_norm")
def instance_norm(call: Call) -> Value:
    if call.has("running_mean") and call.flag("use_input_stats"):
        raise MixesRows("keeps statistics of the batch")
    for value in call.others:
        fixed(value, "a weight")
    return rules.along(call.x, range(1, len(shaped(data(call.x)))), "normalises")


@TABLE.add("group_norm native_group_norm", sizes="N")
def group_norm(call: Call) -> list[Value]:
    for value in call.others:
        fixed(value, "a weight")
    shape = shaped(data(call.x))
    given = [call.size(name) for name in ("N", "C", "HxW")] if call.operator == "native_group_norm" else []
    if len(shape) < 2 or (given and given != [*shape[:2], product(shape[2:])]):
        raise NotUnderstood("takes other axes than the first two as batch and channels")
    result = rules.along(call.x, range(1, len(shape)), "normalises")
    return [result, *_statistics(call)]


def _statistics(call: Call) -> list[Value]:
    """Results that nobody reads in evaluation."""
    cause = Cause(call.operator, "", "gives statistics of the batch", understood=False)
    return [mixed(cause)] * (call.results - 1)


@TABLE.add("channel_shuffle native_channel_shuffle")
def channels(call: Call) -> Value:
    return rules.along(call.x, range(1, len(shaped(data(call.x)))), "normalises")
