"""For each operator of the tables, functions in which rows stay apart and functions in which they meet.

A case is a Case: a function of tensors whose first axis is the batch (those in `shared` have none).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F

aten = torch.ops.aten
EXPORT = ("export",)
torch.manual_seed(0)


@dataclass(frozen=True, eq=False)
class Case:
    """`shared`: inputs that are the same for all rows, behind the batched ones. `axes`: their open axes, if the first
    is not the only one. `languages`: in which the function can be captured."""

    label: str
    function: Callable[..., Any]
    inputs: tuple[Any, ...]
    shared: tuple[Any, ...] = ()
    axes: tuple[tuple[int, ...], ...] | None = None
    languages: tuple[str, ...] = ("trace",)


HONEST: list[Case] = []
MIXING: list[Case] = []

X = torch.randn(4, 3, 6)
TABLE = torch.randn(4, 5)
SQUARE = torch.randn(4, 6, 6)
IMAGE = torch.randn(4, 4, 8, 8)
INTS = torch.randint(0, 3, (4, 5))
BOOLS = torch.rand(4, 5) > 0.5


# Names that torch.jit.trace does not record: it writes the name of the operator that they stand for.
OTHER_NAMES = frozenset(
    """absolute arccos arccosh arcsin arcsinh arctan arctan2 arctanh clip concat concatenate divide fix ger greater
    greater_equal less less_equal moveaxis multiply negative not_equal special_erf special_expit special_log1p subtract
    swapaxes swapdims true_divide""".split()
)


def _languages(label: str, settings: dict[str, Any]) -> dict[str, Any]:
    if "languages" not in settings and label in OTHER_NAMES:
        settings["languages"] = ("export",)
    return settings


def honest(label: str, function: Callable[..., Any], *inputs: Any, **settings: Any) -> None:
    HONEST.append(Case(label, function, inputs or (X,), **_languages(label, settings)))


def mixing(label: str, function: Callable[..., Any], *inputs: Any, **settings: Any) -> None:
    MIXING.append(Case(label, function, inputs or (X,), **_languages(label, settings)))


def top(x: Any) -> Any:
    """The largest element over the batch, which all rows share."""
    return x.amax(0, keepdim=True)


# Weights by their shape: positive, and no two alike.
W = {shape: torch.rand(shape) + 1 for shape in [(1, 3, 1), (3,), (4,), (4, 1), (4, 6), (4, 8, 8, 2), (9, 5)]}

# --- element by element: honest on the rows; mixing on what was reduced over the batch --------------------------------
UNARY = """
    abs absolute acos acosh angle arccos arccosh arcsin arcsinh arctan arctanh asin asinh atan atanh ceil celu cos cosh
    deg2rad digamma elu erf erfc erfinv exp exp2 expm1 fix floor frac gelu hardshrink hardsigmoid hardswish hardtanh
    i0 leaky_relu lgamma log log10 log1p log2 log_sigmoid logit mish nan_to_num neg negative rad2deg reciprocal relu relu6
    round rsqrt selu sgn sigmoid sign silu sin sinc sinh softplus softshrink special_expit special_erf special_log1p sqrt
    square tan tanh trunc alias clone contiguous detach lift_fresh_copy positive resolve_conj resolve_neg
"""
for name in UNARY.split():
    operator = getattr(aten, name)
    honest(name, lambda x, f=operator: f(x) * 1)
    mixing(name, lambda x, f=operator: x + f(top(x)))
honest("lift_fresh", lambda x: x + aten.lift_fresh(torch.ones(6)))
mixing("lift_fresh", lambda x: x + aten.lift_fresh(top(x)))
BINARY = """
    add atan2 arctan2 copysign div divide fmax fmin fmod heaviside hypot logaddexp logaddexp2 maximum minimum mul multiply
    pow remainder sub subtract true_divide floor_divide xlogy float_power ldexp copy
"""
for name in BINARY.split():
    operator = getattr(aten, name)
    honest(name, lambda x, f=operator: f(x, W[1, 3, 1]))
    mixing(name, lambda x, f=operator: f(x, top(x)))
    mixing(f"{name}, transposed", lambda x, f=operator: f(x, x.transpose(0, 1)), torch.randn(4, 4, 6))
    mixing(f"{name}, as many as rows", lambda x, f=operator: f(x, W[4, 1]), TABLE)
for name in (
    "eq",
    "ge",
    "gt",
    "le",
    "lt",
    "ne",
    "greater",
    "greater_equal",
    "less",
    "less_equal",
    "not_equal",
    "isclose",
):
    operator = getattr(aten, name)
    honest(name, lambda x, f=operator: f(x, torch.ones(6)))
    mixing(name, lambda x, f=operator: f(x, top(x)))
for name in ("isfinite", "isinf", "isnan", "isneginf", "isposinf", "signbit", "logical_not"):
    operator = getattr(aten, name)
    honest(name, lambda x, f=operator: f(x))
    mixing(name, lambda x, f=operator: x + f(top(x)))
for name in ("logical_and", "logical_or", "logical_xor"):
    operator = getattr(aten, name)
    honest(name, lambda x, f=operator: f(x > 0, torch.ones(6) > 0))
    mixing(name, lambda x, f=operator: f(x > 0, top(x) > 0))
for name in ("bitwise_and", "bitwise_or", "bitwise_xor", "__and__", "__or__", "__xor__"):
    operator = getattr(aten, name)
    honest(name, lambda x, f=operator: f(x, torch.tensor([1, 2, 3, 4, 5])), INTS)
    mixing(name, lambda x, f=operator: f(x, top(x)), INTS)
for name in ("bitwise_left_shift", "bitwise_right_shift", "__lshift__", "__rshift__"):
    operator = getattr(aten, name)
    honest(name, lambda x, f=operator: f(x, torch.tensor([1, 2, 1, 0, 1])), INTS)
    mixing(name, lambda x, f=operator: f(x, top(x)), INTS)
honest("bitwise_not", lambda x: aten.bitwise_not(x), INTS)
mixing("bitwise_not", lambda x: x + aten.bitwise_not(top(x)), INTS)
for name in ("addcdiv", "addcmul"):
    operator = getattr(aten, name)
    honest(name, lambda x, f=operator: f(x, torch.ones(6), torch.ones(3, 1)))
    mixing(name, lambda x, f=operator: f(x, top(x), torch.ones(6)))
honest("clamp", lambda x: aten.clamp(x, -1, 1))
honest("clamp with tensors", lambda x: aten.clamp(x, torch.zeros(6), torch.ones(6)))
mixing("clamp", lambda x: aten.clamp(x, None, x.mean(0)))
for name in ("clamp_max", "clamp_min"):
    operator = getattr(aten, name)
    honest(name, lambda x, f=operator: f(x, 0.5))
    mixing(name, lambda x, f=operator: f(x, x.mean()))
honest("clip", lambda x: aten.clip(x, 0.0, 0.5))
mixing("clip", lambda x: aten.clip(x, None, x.mean()))
honest("fill", lambda x: x + aten.fill(x, 2.0), languages=("export",))
mixing("fill", lambda x: x + aten.fill(x, x.mean()), languages=("export",))
honest("zero", lambda x: x + aten.zero(x), languages=("export",))
mixing("zero", lambda x: x + aten.zero(top(x)), languages=("export",))
honest("fill in place", lambda x: x + x.clone().fill_(2.0) + x.clone().zero_())
mixing("fill in place", lambda x: x + x.clone().fill_(x.mean()))
mixing("zero in place", lambda x: x + top(x).zero_())
honest("lerp", lambda x: aten.lerp(x, torch.ones(6), 0.5))
mixing("lerp", lambda x: aten.lerp(x, top(x), 0.5))
honest("masked_fill", lambda x: aten.masked_fill(x, x > 0.5, 0.0))
mixing("masked_fill", lambda x: aten.masked_fill(x, (x > 1).any(), 0.0))
honest("rsub", lambda x: aten.rsub(x, 1.0))
mixing("rsub", lambda x: aten.rsub(x, top(x)), languages=("export",))
honest("threshold", lambda x: aten.threshold(x, 0.1, 20.0))
mixing("threshold", lambda x: x + aten.threshold(top(x), 0.1, 20.0))
honest("where", lambda x: torch.where(x > 0, x, torch.zeros(6)))
mixing("where", lambda x: torch.where(x.max() > 1, x / 255, x))
mixing("where lists", lambda x: torch.where(x > 0)[0])
honest("_prelu_kernel", lambda x: aten._prelu_kernel(x, W[1, 3, 1]))
mixing("_prelu_kernel", lambda x: aten._prelu_kernel(x, top(x)))
honest("prelu", lambda x: aten.prelu(x, W[3,]))
mixing("prelu", lambda x: aten.prelu(x.transpose(0, 1), W[4,]).transpose(0, 1))
mixing("prelu, weights of rows", lambda x: aten.prelu(x, x.mean((0, 2))))
honest("rrelu", lambda x: F.rrelu(x))
mixing("rrelu", lambda x: F.rrelu(x, training=True))
for name in ("dropout", "alpha_dropout", "feature_dropout", "feature_alpha_dropout"):
    operator = getattr(aten, name)
    honest(name, lambda x, f=operator: f(x, 0.5, False) * 1)
    mixing(name, lambda x, f=operator: f(x, 0.5, True))
honest("native_dropout", lambda x: aten.native_dropout(x, 0.5, False)[0] * 1)
mixing("native_dropout", lambda x: aten.native_dropout(x, 0.5, True)[0])
honest("to", lambda x: x.to(torch.int64))
honest("to other", lambda x: x.to(torch.ones(1, dtype=torch.float64)))
mixing("to", lambda x: x + top(x).to(torch.int64))
mixing("to, the number of rows", lambda x: x + torch.arange(x.shape[0]).to(torch.float32)[:, None], TABLE)
mixing("to, a narrow number of a row", lambda x: x[torch.arange(x.shape[0]).to(torch.int8).long()], TABLE)
honest("_to_copy", lambda x: aten._to_copy(x, dtype=torch.float64))
mixing("_to_copy", lambda x: x[aten._to_copy(torch.arange(x.shape[0]), dtype=torch.int8).long()], TABLE)
honest("type_as", lambda x: x.type_as(torch.ones(1, dtype=torch.float64)))
mixing("type_as", lambda x: x[torch.arange(x.shape[0]).type_as(torch.ones(1, dtype=torch.int8)).long()], TABLE)
for name in ("Float", "Double", "Half", "Long", "Int"):
    operator = getattr(aten, f"_cast_{name}")
    honest(f"_cast_{name}", lambda x, f=operator: f(x), languages=("trace",))
    mixing(f"_cast_{name}", lambda x, f=operator: x + f(top(x)), languages=("trace",))
honest("glu", lambda x: F.glu(x, -1))
mixing("glu", lambda x: F.glu(x, 0))
honest(
    "quantize_per_tensor",
    lambda x: torch.quantize_per_tensor(x, 0.1, 3, torch.qint8).dequantize(),
    languages=("trace",),
)
mixing("quantize_per_tensor", lambda x: torch.quantize_per_tensor(x, x.abs().max() / 127, torch.tensor(0), torch.qint8).dequantize(),
       languages=("trace",))  # fmt: skip
honest("int_repr", lambda x: torch.quantize_per_tensor(x, 0.1, 3, torch.qint8).int_repr(), languages=("trace",))
mixing(
    "int_repr", lambda x: torch.quantize_per_tensor(top(x), 0.1, 3, torch.qint8).int_repr() + x, languages=("trace",)
)
mixing(
    "dequantize",
    lambda x: torch.quantize_per_tensor(top(x), 0.1, 3, torch.qint8).dequantize() + x,
    languages=("trace",),
)
honest("quantize_per_channel", lambda x: torch.quantize_per_channel(x, torch.ones(6), torch.zeros(6), 2, torch.qint8).dequantize(),
       languages=("trace",))  # fmt: skip
mixing("quantize_per_channel", lambda x: torch.quantize_per_channel(x, torch.ones(4), torch.zeros(4), 0, torch.qint8).dequantize(),
       languages=("trace",))  # fmt: skip
honest("fake_quantize_per_tensor_affine", lambda x: torch.fake_quantize_per_tensor_affine(x, 0.1, 0, -128, 127))
mixing("fake_quantize_per_tensor_affine",
       lambda x: torch.fake_quantize_per_tensor_affine(x, x.max(), torch.zeros(1, dtype=torch.int32), -128, 127))  # fmt: skip
ZEROS = torch.zeros(6, dtype=torch.int32)
honest(
    "fake_quantize_per_channel_affine",
    lambda x: torch.fake_quantize_per_channel_affine(x, torch.ones(6), ZEROS, 2, -128, 127),
)
mixing("fake_quantize_per_channel_affine",
       lambda x: torch.fake_quantize_per_channel_affine(x, torch.ones(4), torch.zeros(4, dtype=torch.int32), 0, -128, 127))  # fmt: skip
try:
    import torch.ao.quantization.fx._decomposed

    qd = torch.ops.quantized_decomposed
    honest("quantized_decomposed", lambda x: qd.dequantize_per_tensor(
        qd.quantize_per_tensor(x, 0.1, 0, -128, 127, torch.int8), 0.1, 0, -128, 127, torch.int8))  # fmt: skip
    mixing("quantized_decomposed", lambda x: qd.dequantize_per_tensor(qd.quantize_per_tensor(
        x, x.max(), torch.tensor(0), -128, 127, torch.int8), x.max(), torch.tensor(0), -128, 127, torch.int8),
        languages=("export",))  # fmt: skip
    honest("quantized_decomposed by channel", lambda x: qd.dequantize_per_channel(
        qd.quantize_per_channel(x, torch.ones(6), torch.zeros(6), 2, -128, 127, torch.int8),
        torch.ones(6), torch.zeros(6), 2, -128, 127, torch.int8))  # fmt: skip
    mixing("quantized_decomposed by channel", lambda x: qd.dequantize_per_channel(
        qd.quantize_per_channel(x, torch.ones(4), torch.zeros(4), 0, -128, 127, torch.int8),
        torch.ones(4), torch.zeros(4), 0, -128, 127, torch.int8))  # fmt: skip
    mixing("quantized_decomposed, range of the batch", lambda x: qd.quantize_per_tensor(
        x, *qd.choose_qparams(x, -128, 127, 1e-5, torch.int8), -128, 127, torch.int8), languages=("export",))  # fmt: skip
except ImportError:
    pass

# --- along axes -------------------------------------------------------------------------------------------------------
for name in (
    "sum",
    "mean",
    "amax",
    "amin",
    "prod",
    "logsumexp",
    "argmax",
    "argmin",
    "nansum",
    "nanmean",
    "var",
    "std",
    "norm",
):
    if name == "norm":
        honest(name, lambda x: aten.norm(x, 2, [1]))
        mixing(name, lambda x: x / aten.norm(x, 2, [0], True))
        mixing(f"{name} of all", lambda x: x / aten.norm(x))
        continue
    operator = getattr(torch, name)
    honest(name, lambda x, f=operator: f(x, 1))
    honest(f"{name}, kept", lambda x, f=operator: f(x, dim=-1, keepdim=True))
    mixing(name, lambda x, f=operator: x + f(x, dim=0, keepdim=True))
    mixing(f"{name}, negative axis", lambda x, f=operator: x + f(x, dim=-3, keepdim=True))
    if name not in ("logsumexp",):
        mixing(f"{name} of all", lambda x, f=operator: x + (f(x) if f not in (torch.amax, torch.amin) else f(x, ())))
    if name not in ("prod", "argmax", "argmin"):
        honest(f"{name} of two axes", lambda x, f=operator: f(x, dim=(1, 2)))
        mixing(f"{name} of two axes", lambda x, f=operator: x + f(x, dim=(-1, 0), keepdim=True))
    # Without keepdim the rows move to an earlier axis.
    mixing(f"{name} that moves the rows", lambda x, f=operator: f(x.transpose(0, 1), dim=0) + f(x, dim=0)[:1])
for name in ("all", "any", "count_nonzero"):
    operator = getattr(torch, name)
    honest(name, lambda x, f=operator: f(x > 0, 1))
    mixing(name, lambda x, f=operator: f(x > 0, 0) | (x > 0) if f is not torch.count_nonzero else f(x, 0) + x)
    mixing(f"{name} of all", lambda x, f=operator: x * f(x > 0))
honest("linalg_vector_norm", lambda x: torch.linalg.vector_norm(x, dim=(1, 2)))
mixing("linalg_vector_norm", lambda x: x / torch.linalg.vector_norm(x, dim=0))
mixing("linalg_vector_norm of all", lambda x: x / torch.linalg.vector_norm(x))
honest("frobenius_norm", lambda x: aten.frobenius_norm(x, [1, 2]))
mixing("frobenius_norm", lambda x: x / aten.frobenius_norm(x, [0, 1], True))
for name in ("var_mean", "std_mean"):
    operator = getattr(torch, name)
    honest(name, lambda x, f=operator: f(x, dim=1)[0])
    mixing(name, lambda x, f=operator: x - f(x, dim=0)[1])
    mixing(f"{name} of all", lambda x, f=operator: x - f(x)[1])
for name in ("max", "min", "median", "nanmedian", "mode"):
    operator = getattr(torch, name)
    honest(name, lambda x, f=operator: f(x, dim=1)[0])
    honest(f"{name}, its place", lambda x, f=operator: f(x, dim=1)[1])
    mixing(name, lambda x, f=operator: x + f(x, dim=0)[0])
    mixing(f"{name}, its place", lambda x, f=operator: x + f(x, dim=-3)[1])
    if name != "mode":
        mixing(f"{name} of all", lambda x, f=operator: x + f(x))
honest("max of two", lambda x: torch.max(x, torch.ones(6)))
mixing("max of two", lambda x: torch.max(x, top(x)))
honest("aminmax", lambda x: torch.aminmax(x, dim=1)[0])
mixing("aminmax", lambda x: x - torch.aminmax(x, dim=0)[0])
mixing("aminmax of all", lambda x: x - torch.aminmax(x)[0])
honest("kthvalue", lambda x: torch.kthvalue(x, 2, dim=1)[0])
mixing("kthvalue", lambda x: x + torch.kthvalue(x, 1, dim=0)[0])
for name in ("softmax", "log_softmax", "cumsum", "cumprod", "logcumsumexp"):
    operator = getattr(torch, name)
    honest(name, lambda x, f=operator: f(x, -1))
    mixing(name, lambda x, f=operator: f(x, 0))
    mixing(f"{name}, negative axis", lambda x, f=operator: f(x, -3))
    mixing(f"{name}, transposed", lambda x, f=operator: f(x.transpose(0, 2), -1).transpose(0, 2))
for name in ("_softmax", "_log_softmax"):
    operator = getattr(aten, name)
    honest(name, lambda x, f=operator: f(x, -1, False))
    mixing(name, lambda x, f=operator: f(x, 0, False))
for name in ("cummax", "cummin"):
    operator = getattr(torch, name)
    honest(name, lambda x, f=operator: f(x, 1)[0])
    mixing(name, lambda x, f=operator: f(x, 0)[0])
honest("sort", lambda x: torch.sort(x, -1)[0])
honest("sort, stable", lambda x: torch.sort(x, dim=1, stable=True)[1])
mixing("sort", lambda x: torch.sort(x, 0)[0])
mixing("sort of a vector", lambda x: torch.sort(x)[0], torch.randn(4))
honest("argsort", lambda x: torch.argsort(x, -1))
mixing("argsort", lambda x: torch.argsort(x, 0))
honest("topk", lambda x: torch.topk(x, 2, -1)[0])
mixing("topk", lambda x: x + torch.topk(x, 1, 0)[0])
mixing("topk, as many as rows", lambda x: torch.topk(x, x.shape[0], 1)[0], SQUARE)
honest("flip", lambda x: torch.flip(x, [1]))
mixing("flip", lambda x: torch.flip(x, [0]))
mixing("flip, negative axis", lambda x: torch.flip(x, [1, -3]))
honest("roll", lambda x: torch.roll(x, 1, -1))
mixing("roll", lambda x: torch.roll(x, 1, 0))
mixing("roll of all", lambda x: torch.roll(x, 1))
for name in ("tril", "triu"):
    operator = getattr(torch, name)
    honest(name, lambda x, f=operator: f(x))
    mixing(name, lambda x, f=operator: f(x), TABLE)
    mixing(f"{name}, transposed", lambda x, f=operator: f(x.transpose(0, 1)).transpose(0, 1))
honest("layer_norm", lambda x: F.layer_norm(x, (6,), torch.ones(6), torch.zeros(6)))
honest("layer_norm of two axes", lambda x: F.layer_norm(x, (3, 6)))
mixing("layer_norm", lambda x: F.layer_norm(x.transpose(0, 2), (3, 4)).transpose(0, 2), languages=("trace",))
mixing("layer_norm, weights of rows", lambda x: F.layer_norm(x, (6,), x.mean((0, 1))))
honest("native_layer_norm", lambda x: aten.native_layer_norm(x, [6], None, None, 1e-5)[0])
mixing("native_layer_norm", lambda x: aten.native_layer_norm(x, [6], x.mean((0, 1)), None, 1e-5)[0])
honest("rms_norm", lambda x: F.rms_norm(x, (6,), torch.ones(6)))
mixing("rms_norm", lambda x: F.rms_norm(x, (6,), x.mean((0, 1))))
honest("_fused_rms_norm", lambda x: aten._fused_rms_norm(x, [6], torch.ones(6), 1e-5)[0])
mixing("_fused_rms_norm", lambda x: aten._fused_rms_norm(x, [6], x.mean((0, 1)), 1e-5)[0])
STATISTICS = torch.zeros(4), torch.ones(4)
honest("batch_norm", lambda x: F.batch_norm(x, *STATISTICS), IMAGE)
mixing("batch_norm in training", lambda x: F.batch_norm(x, None, None, training=True), IMAGE)
mixing("batch_norm by statistics of the batch", lambda x: F.batch_norm(x, x.mean((0, 2, 3)), torch.ones(4)), IMAGE)
mixing("batch_norm, transposed", lambda x: F.batch_norm(x.transpose(0, 1), *STATISTICS).transpose(0, 1), IMAGE)
honest("_native_batch_norm_legit_no_training",
       lambda x: aten._native_batch_norm_legit_no_training(x, None, None, *STATISTICS, 0.1, 1e-5)[0], IMAGE)  # fmt: skip
mixing("_native_batch_norm_legit_no_training",
       lambda x: aten._native_batch_norm_legit_no_training(x, None, None, x.mean((0, 2, 3)), torch.ones(4), 0.1, 1e-5)[0],
       IMAGE)  # fmt: skip
honest("instance_norm", lambda x: F.instance_norm(x), IMAGE)
mixing(
    "instance_norm",
    lambda x: F.instance_norm(x.transpose(0, 1)).transpose(0, 1).flip(0) * 0 + F.instance_norm(x[None, :, 0])[0],
    IMAGE,
)
mixing("instance_norm, weights of rows", lambda x: F.instance_norm(x, weight=x.mean((0, 2, 3))), IMAGE)
honest("group_norm", lambda x: F.group_norm(x, 2), IMAGE)
mixing("group_norm", lambda x: F.group_norm(x.transpose(0, 1), 2).transpose(0, 1), IMAGE)
honest("native_group_norm", lambda x: aten.native_group_norm(x, None, None, x.shape[0], 4, 64, 2, 1e-5)[0], IMAGE,
       languages=("export",))  # fmt: skip
mixing("native_group_norm", lambda x: aten.native_group_norm(x, None, None, 1, 4, x.shape[0] * 64, 2, 1e-5)[0], IMAGE)
for name in ("channel_shuffle", "native_channel_shuffle"):
    operator = getattr(aten, name)
    honest(name, lambda x, f=operator: f(x, 2), IMAGE)
    mixing(name, lambda x, f=operator: f(x.transpose(0, 1), 2).transpose(0, 1), IMAGE)

# --- products ---------------------------------------------------------------------------------------------------------
honest("matmul", lambda x: x @ torch.ones(6, 2))
honest("matmul of rows", lambda x: x @ x.transpose(1, 2))
honest("matmul, the other way", lambda x: torch.ones(2, 3) @ x)
mixing("matmul", lambda x: torch.ones(4, 4) @ x, TABLE)
mixing("matmul, attention over rows", lambda x: (x @ x.t()).softmax(-1) @ x, TABLE)
mixing("matmul, stack by all rows", lambda x: x[:, None] @ x.transpose(1, 2)[None])
honest("mm", lambda x: torch.mm(x, torch.ones(5, 2)), TABLE)
mixing("mm", lambda x: torch.mm(x, torch.mm(x.t(), x)), TABLE)
honest("bmm", lambda x: torch.bmm(x, x.transpose(1, 2)))
mixing("bmm", lambda x: x + torch.bmm(x.permute(1, 0, 2), x.permute(1, 2, 0)).sum())
honest("mv", lambda x: torch.mv(x, torch.ones(5)), TABLE)
mixing("mv", lambda x: x + torch.mv(x.t(), x[:, 0]), TABLE)
honest("dot", lambda x: x * torch.dot(torch.ones(5), torch.ones(5)), TABLE)
mixing("dot", lambda x: x * torch.dot(x, x), torch.randn(4))
honest("addmm", lambda x: torch.addmm(torch.ones(2), x, torch.ones(5, 2)), TABLE)
mixing("addmm", lambda x: torch.addmm(x.mean(0)[:2], x, torch.ones(5, 2)), TABLE)
honest("addmv", lambda x: torch.addmv(torch.ones(1), x, torch.ones(5)), TABLE)
mixing("addmv", lambda x: torch.addmv(x.mean(), x, torch.ones(5)), TABLE)
honest("baddbmm", lambda x: torch.baddbmm(torch.ones(1), x, x.transpose(1, 2)))
mixing("baddbmm", lambda x: torch.baddbmm(x.mean(), x, x.transpose(1, 2)))
honest("linear", lambda x: F.linear(x, torch.ones(2, 6), torch.ones(2)))
mixing("linear", lambda x: F.linear(x, x), TABLE)
mixing("linear over rows", lambda x: F.linear(x.t(), torch.ones(4, 4)).t(), TABLE, languages=("trace",))
honest("einsum", lambda x: torch.einsum("bij,bkj->bik", x, x))
mixing("einsum", lambda x: torch.einsum("bij,ckj->bik", x, x))
mixing("einsum over rows", lambda x: x + torch.einsum("bij->ij", x))
mixing("einsum, crossed", lambda x: torch.einsum("ij,ji->ij", x, x), torch.randn(4, 4), languages=("trace",))
for name in ("outer", "ger"):
    operator = getattr(aten, name)
    honest(name, lambda x, f=operator: f(x, torch.ones(5)), torch.randn(4))
    mixing(name, lambda x, f=operator: f(x, x), torch.randn(4))
HEADS = torch.randn(4, 2, 6, 8)
honest("scaled_dot_product_attention", lambda x: F.scaled_dot_product_attention(x, x, x), HEADS)
honest("scaled_dot_product_attention, causal", lambda x: F.scaled_dot_product_attention(x, x, x, is_causal=True), HEADS)
honest("scaled_dot_product_attention, masked",
       lambda x, m: F.scaled_dot_product_attention(x, x, x, attn_mask=m[:, None, None]), HEADS, W[4, 6] > 0.3)  # fmt: skip
honest("scaled_dot_product_attention, groups",
       lambda x: F.scaled_dot_product_attention(x, x[:, :1], x[:, :1], enable_gqa=True), HEADS)  # fmt: skip
mixing("scaled_dot_product_attention over rows", lambda x: F.scaled_dot_product_attention(x, x, x), TABLE)
mixing(
    "scaled_dot_product_attention, rows as keys",
    lambda x: F.scaled_dot_product_attention(x, x[None, :, 0], x[None, :, 0]),
)
mixing("scaled_dot_product_attention, causal over rows",
       lambda x: F.scaled_dot_product_attention(x, torch.ones(6, 5), torch.ones(6, 5), is_causal=True), TABLE)  # fmt: skip
mixing("scaled_dot_product_attention, mask of all rows",
       lambda x: F.scaled_dot_product_attention(x, x, x, attn_mask=x.mean(0)[:, :, :6]), HEADS)  # fmt: skip
mixing("scaled_dot_product_attention, dropout", lambda x: F.scaled_dot_product_attention(x, x, x, dropout_p=0.5), HEADS)
honest(
    "_scaled_dot_product_flash_attention_for_cpu",
    lambda x: aten._scaled_dot_product_flash_attention_for_cpu(x, x, x)[0],
    HEADS,
)
mixing("_scaled_dot_product_flash_attention_for_cpu", lambda x: aten._scaled_dot_product_flash_attention_for_cpu(
    x.transpose(0, 2), x.transpose(0, 2), x.transpose(0, 2))[0].transpose(0, 2), HEADS)  # fmt: skip
WIDE = torch.randn(4, 5, 8)
MHA = torch.randn(24, 8), torch.randn(24), torch.randn(8, 8), torch.randn(8)
honest("_native_multi_head_attention", lambda x: aten._native_multi_head_attention(x, x, x, 8, 2, *MHA, None, False)[0], WIDE,
       languages=("trace",))  # fmt: skip
mixing("_native_multi_head_attention", lambda x: aten._native_multi_head_attention(
    x.transpose(0, 1), x.transpose(0, 1), x.transpose(0, 1), 8, 2, *MHA, None, False)[0].transpose(0, 1), WIDE,
    languages=("trace",))  # fmt: skip
ENCODER = (8, 2, *MHA, False, False, 1e-5, torch.ones(8), torch.zeros(8), torch.ones(8), torch.zeros(8),
           torch.randn(16, 8), torch.randn(16), torch.randn(8, 16), torch.randn(8))  # fmt: skip
honest(
    "_transformer_encoder_layer_fwd",
    lambda x: aten._transformer_encoder_layer_fwd(x, *ENCODER),
    WIDE,
    languages=("trace",),
)
mixing("_transformer_encoder_layer_fwd", lambda x: aten._transformer_encoder_layer_fwd(x.transpose(0, 1), *ENCODER).transpose(0, 1),
       WIDE, languages=("trace",))  # fmt: skip


def recurrent(kind: str, gates: int, batch_first: bool, transposed: bool) -> Callable[..., Any]:
    weights = [torch.randn(gates * 7, 6), torch.randn(gates * 7, 7), torch.randn(gates * 7), torch.randn(gates * 7)]

    def run(x: Any) -> Any:
        x = x.transpose(0, 1) if transposed else x
        rows = x.shape[0] if batch_first else x.shape[1]
        state = torch.zeros(1, rows, 7)
        states = [state, state] if kind == "lstm" else state
        y = getattr(torch, kind)(x, states, weights, True, 1, 0.0, False, False, batch_first)[0]
        return y.transpose(0, 1) if transposed else y

    return run


for kind, gates in (("lstm", 4), ("gru", 3), ("rnn_tanh", 1), ("rnn_relu", 1)):
    honest(f"{kind}, batch first", recurrent(kind, gates, batch_first=True, transposed=False))
    honest(f"{kind}, time first", recurrent(kind, gates, batch_first=False, transposed=True))
    mixing(f"{kind} over rows", recurrent(kind, gates, batch_first=False, transposed=False))
    mixing(f"{kind} over rows, batch first", recurrent(kind, gates, batch_first=True, transposed=True))
for kind, gates in (("lstm_cell", 4), ("gru_cell", 3), ("rnn_tanh_cell", 1), ("rnn_relu_cell", 1)):
    weights = [torch.randn(gates * 7, 5), torch.randn(gates * 7, 7), torch.randn(gates * 7), torch.randn(gates * 7)]
    operator = getattr(torch, kind)

    def cell(x: Any, h: Any, f: Any = operator, w: Any = weights, two: bool = kind == "lstm_cell") -> Any:
        found = f(x, [h, h] if two else h, *w)
        return found[0] if two else found

    honest(kind, lambda x, c=cell: c(x, x.new_zeros(x.shape[0], 7)), TABLE, languages=("export",))
    mixing(kind, lambda x, c=cell: c(x, x.amax(0)[:1].expand(x.shape[0], 7)), TABLE, languages=("export",))
honest("cosine_similarity", lambda x: F.cosine_similarity(x, torch.ones(6), -1))
mixing("cosine_similarity", lambda x: F.cosine_similarity(x, x.mean(0), -1))
mixing("cosine_similarity over rows", lambda x: x + F.cosine_similarity(x, torch.ones(6), 0))

torch.backends.quantized.engine = next(
    (engine for engine in torch.backends.quantized.supported_engines if engine != "none"), "none"
)


class Quantised(torch.nn.Module):  # type: ignore[misc]
    """A layer of weights of eight bits, on the rows or on what they share."""

    def __init__(self, layer: Any, shared: bool) -> None:
        super().__init__()
        self.layer, self.shared = layer, shared

    def forward(self, x: Any) -> Any:
        read = top(x) + x * 0 if self.shared else x
        return self.layer(torch.quantize_per_tensor(read, 0.1, 3, torch.quint8)).dequantize()


def _quantised() -> None:
    import torch.ao.nn.intrinsic.quantized as fused
    import torch.ao.nn.quantized as plain

    shapes = {1: (4, 4, 8), 2: (4, 4, 8, 8), 3: (4, 4, 8, 8, 8)}
    layers = {"linear": (plain.Linear(5, 2), TABLE), "linear_relu": (fused.LinearReLU(5, 2), TABLE)}
    for rank, shape in shapes.items():
        layers[f"conv{rank}d"] = getattr(plain, f"Conv{rank}d")(4, 2, 3), torch.randn(shape)
        layers[f"conv{rank}d_relu"] = getattr(fused, f"ConvReLU{rank}d")(4, 2, 3), torch.randn(shape)
    for name, (layer, x) in layers.items():
        honest(f"quantized::{name}", Quantised(layer, shared=False), x, languages=("trace",))
        mixing(f"quantized::{name}", Quantised(layer, shared=True), x, languages=("trace",))


with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # torch is going to drop its own operators on eight bits; files may hold them
    _quantised()


def quantised(x: Any) -> Any:
    return torch.quantize_per_tensor(x, 0.1, 3, torch.quint8)


for name in ("add", "add_relu", "mul", "mul_relu"):
    operator = getattr(torch.ops.quantized, name)
    honest(
        f"quantized::{name}",
        lambda x, f=operator: f(quantised(x), quantised(-x), 0.1, 3).dequantize(),
        languages=("trace",),
    )
    mixing(
        f"quantized::{name}",
        lambda x, f=operator: f(quantised(x), quantised(x.flip(0)), 0.1, 3).dequantize(),
        languages=("trace",),
    )
honest("quantized_max_pool2d", lambda x: F.max_pool2d(quantised(x), 2).dequantize(), IMAGE, languages=("trace",))
mixing("quantized_max_pool2d", lambda x: torch.quantized_max_pool2d(quantised(x.permute(1, 2, 3, 0)), [3, 3], [1, 1], [1, 1])
       .dequantize().permute(3, 0, 1, 2), IMAGE, languages=("trace",))  # fmt: skip
honest("quantized_max_pool2d, called", lambda x: torch.quantized_max_pool2d(quantised(x), [2, 2], [2, 2]).dequantize(), IMAGE,
       languages=("trace",))  # fmt: skip

# --- windows ----------------------------------------------------------------------------------------------------------
K1, K2, K3 = torch.randn(2, 4, 3), torch.randn(2, 4, 3, 3), torch.randn(2, 4, 3, 3, 3)
SOUND, VOLUME = torch.randn(4, 4, 8), torch.randn(4, 4, 8, 8, 8)
for rank, x, k in ((1, SOUND, K1), (2, IMAGE, K2), (3, VOLUME, K3)):
    conv, turned = getattr(F, f"conv{rank}d"), getattr(F, f"conv_transpose{rank}d")
    one = torch.ones(4, 4, *[1] * rank)
    honest(
        f"conv{rank}d",
        lambda x, f=conv, k=k: f(x, k, torch.ones(2), stride=2, padding=1),
        x,
        languages=("export", "trace"),
    )
    mixing(f"conv{rank}d of one image", lambda x, f=conv, k=one: f(x, k), x[:, 0])
    mixing(
        f"conv{rank}d, weights of rows", lambda x, f=conv, k=one: f(x, k + x.mean()), x, languages=("export", "trace")
    )
    honest(f"conv_transpose{rank}d", lambda x, f=turned, k=k: f(x, k.transpose(0, 1), stride=2, output_padding=1), x,
           languages=("export", "trace"))  # fmt: skip
    mixing(f"conv_transpose{rank}d", lambda x, f=turned, k=one: f(x, k + x.mean()), x, languages=("export", "trace"))
honest("conv2d, same padding", lambda x: F.conv2d(x, K2, padding="same"), IMAGE, languages=("export", "trace"))
mixing("conv2d, same padding", lambda x: F.conv2d(x, K2 + x.mean(), padding="same"), IMAGE)
honest("conv2d, groups", lambda x: F.conv2d(x, K2[:, :1].repeat(4, 1, 1, 1), groups=4), IMAGE)
PLAIN = [1, 1], [0, 0], [1, 1], False, [0, 0], 1
honest("convolution", lambda x: aten.convolution(x, K2, None, *PLAIN), IMAGE, languages=EXPORT)
mixing("convolution", lambda x: aten.convolution(x, K2 + x.mean(), None, *PLAIN), IMAGE, languages=EXPORT)
honest("_convolution", lambda x: aten._convolution(x, K2, None, *PLAIN, False, False, True, True), IMAGE)
mixing("_convolution", lambda x: aten._convolution(x, K2 + x.mean(), None, *PLAIN, False, False, True, True), IMAGE)


def turn(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function with the rows on the last axis."""
    return lambda x: function(x.transpose(0, -1)).transpose(0, -1)


for rank, x in ((1, SOUND), (2, IMAGE), (3, VOLUME)):
    for kind in ("max", "avg"):
        pool = getattr(F, f"{kind}_pool{rank}d")
        honest(f"{kind}_pool{rank}d", lambda x, f=pool: f(x, 2), x)
        honest(f"{kind}_pool{rank}d, rounded up", lambda x, f=pool: f(x, 3, 2, 1, ceil_mode=True), x)
        mixing(f"{kind}_pool{rank}d", turn(lambda x, f=pool: f(x, 3, 1, 1)), x)
        adaptive = getattr(F, f"adaptive_{kind}_pool{rank}d")
        honest(f"adaptive_{kind}_pool{rank}d", lambda x, f=adaptive: f(x, 2), x)
        mixing(f"adaptive_{kind}_pool{rank}d", lambda x, f=adaptive: x + f(x.transpose(0, -1), 1).transpose(0, -1), x)
    indices = getattr(F, f"max_pool{rank}d_with_indices")
    honest(f"max_pool{rank}d, places", lambda x, f=indices: f(x, 2)[1], x)
    mixing(f"max_pool{rank}d, places", lambda x, f=indices: x + f(x.transpose(0, -1), 3, 1, 1)[1].transpose(0, -1), x)
for name in ("_adaptive_avg_pool2d", "_adaptive_avg_pool3d"):
    operator, x = getattr(aten, name), IMAGE if "2" in name else VOLUME
    size = [1] * int(name[-2])
    honest(name, lambda x, f=operator, n=size: f(x, n), x)
    mixing(name, lambda x, f=operator, n=size: x + f(x.transpose(0, -1), n).transpose(0, -1), x)
for name, x in (("nearest1d", SOUND), ("nearest2d", IMAGE), ("nearest3d", VOLUME), ("linear1d", SOUND), ("bilinear2d", IMAGE),
                ("bicubic2d", IMAGE), ("trilinear3d", VOLUME)):  # fmt: skip
    operator = getattr(aten, f"upsample_{name}")
    settings = () if name.startswith("nearest") else (False,)
    size = [16] * (x.ndim - 2)
    honest(f"upsample_{name}", lambda x, f=operator, n=size, a=settings: f(x, n, *a), x)
    same = [8] * (x.ndim - 3) + [4]
    mixing(
        f"upsample_{name}", lambda x, f=operator, n=same, a=settings: f(x.transpose(0, -1), n, *a).transpose(0, -1), x
    )
honest("upsample by a factor", lambda x: F.interpolate(x, scale_factor=1.5, mode="bilinear"), IMAGE)
honest(
    "upsample by a whole factor", lambda x: F.interpolate(x, scale_factor=2) + F.interpolate(x, scale_factor=2), IMAGE
)
for name, x in (("exact1d", SOUND), ("exact2d", IMAGE), ("exact3d", VOLUME)):
    operator = getattr(aten, f"_upsample_nearest_{name}")
    honest(name, lambda x, f=operator, n=[16] * (x.ndim - 2): f(x, n), x)
    mixing(name, lambda x, f=operator, n=[8] * (x.ndim - 3) + [4]: f(x.transpose(0, -1), n).transpose(0, -1), x)
for name in ("_upsample_bilinear2d_aa", "_upsample_bicubic2d_aa"):
    operator = getattr(aten, name)
    honest(name, lambda x, f=operator: f(x, [16, 16], False), IMAGE)
    mixing(name, lambda x, f=operator: f(x.transpose(0, -1), [8, 4], False).transpose(0, -1), IMAGE)
mixing("upsample to the number of rows", lambda x: aten.upsample_nearest2d(x, [x.shape[0], 8]), IMAGE, languages=EXPORT)
honest("pad", lambda x: aten.pad(x, [1, 2]))
honest("pad, reflected", lambda x: aten.pad(x, [1, 2], "reflect"))
mixing("pad", lambda x: aten.pad(x, [0, 0, 0, 0, 1, 0])[:-1])
mixing("pad by the rows", lambda x: F.pad(x, [1, 1], value=2.0) + aten.pad(x, [0, 0, 0, 0, 1, -1])[:, :, :1])
honest("constant_pad_nd", lambda x: aten.constant_pad_nd(x, [1, 1, 0, 1], 3.0))
mixing("constant_pad_nd", lambda x: aten.constant_pad_nd(x, [0, 0, 0, 0, 1, -1], 3.0))
for kind in ("reflection", "replication"):
    for rank, x in ((1, SOUND), (2, IMAGE), (3, VOLUME)):
        operator = getattr(aten, f"{kind}_pad{rank}d")
        honest(f"{kind}_pad{rank}d", lambda x, f=operator, n=[1, 1] * rank: f(x, n), x)
        mixing(
            f"{kind}_pad{rank}d",
            lambda x, f=operator, n=[1, -1] + [0, 0] * (rank - 1): f(x.transpose(0, -1), n).transpose(0, -1),
            x,
        )
honest("pixel_shuffle", lambda x: F.pixel_shuffle(x, 2), IMAGE)
mixing("pixel_shuffle", turn(lambda x: F.pixel_shuffle(x, 1)), IMAGE)
honest("pixel_unshuffle", lambda x: F.pixel_unshuffle(x, 2), IMAGE)
mixing("pixel_unshuffle", turn(lambda x: F.pixel_unshuffle(x, 1)), IMAGE)
honest("im2col", lambda x: F.unfold(x, 3), IMAGE)
mixing("im2col", lambda x: x + F.unfold(x.transpose(0, 1), 8).sum(), IMAGE)
GRID = torch.rand(4, 5, 5, 2) - 0.5
honest("grid_sampler", lambda x, g: F.grid_sample(x, g, align_corners=False), IMAGE, GRID)
mixing(
    "grid_sampler",
    lambda x: F.grid_sample(x.transpose(0, 1), W[4, 8, 8, 2] - 1.5, align_corners=False).transpose(0, 1),
    IMAGE,
)
honest("grid_sampler_2d", lambda x, g: aten.grid_sampler_2d(x, g, 0, 0, False), IMAGE, GRID)
mixing("grid_sampler_2d", lambda x, g: aten.grid_sampler_2d(x, g.flip(0), 0, 0, False), IMAGE, GRID)
honest("grid_sampler_3d", lambda x, g: aten.grid_sampler_3d(x, g, 0, 0, False), VOLUME, torch.rand(4, 2, 2, 2, 3))
mixing(
    "grid_sampler_3d", lambda x, g: aten.grid_sampler_3d(x, g.flip(0), 0, 0, False), VOLUME, torch.rand(4, 2, 2, 2, 3)
)
honest(
    "affine_grid_generator",
    lambda t: aten.affine_grid_generator(t, [t.shape[0], 1, 3, 3], False),
    torch.randn(4, 2, 3),
    languages=EXPORT,
)
mixing(
    "affine_grid_generator",
    lambda t: aten.affine_grid_generator(t.flip(0), [t.shape[0], 1, 3, 3], False),
    torch.randn(4, 2, 3),
    languages=EXPORT,
)

# --- layout -----------------------------------------------------------------------------------------------------------
honest("view", lambda x: x.view(x.shape[0], -1))
honest("view, the rest first", lambda x: x.view(-1, 18))
honest("view and back", lambda x: x.view(-1, 6).relu().view(x.shape))
mixing("view", lambda x: x.view(2, -1).softmax(-1).view(x.shape))
mixing("view, interleaved", lambda x: x.view(2, -1, 5).transpose(0, 1).reshape(x.shape), TABLE)
honest("reshape", lambda x: x.transpose(1, 2).reshape(x.shape[0], 2, 9))
mixing("reshape", lambda x: x.t().reshape(x.shape), TABLE)
for name in ("_unsafe_view", "view_copy"):
    operator = getattr(aten, name)
    honest(name, lambda x, f=operator: f(x, [x.shape[0], 18]), languages=EXPORT)
    mixing(name, lambda x, f=operator: f(f(x, [2, -1]).softmax(-1), x.shape), languages=EXPORT)
mixing("_reshape_alias", lambda x: aten._reshape_alias(x, [x.shape[0], 5], [1, x.shape[0]]), TABLE, languages=EXPORT)
honest("view_as", lambda x: x.view(-1, 18).relu().view_as(x))
mixing("view_as", lambda x: x.t().contiguous().view_as(x), TABLE)
honest("reshape_as", lambda x: x.view(-1, 18).relu().reshape_as(x))
mixing("reshape_as", lambda x: x.t().reshape_as(x), TABLE)
honest("flatten", lambda x: torch.flatten(x, 1))
honest("flatten of rows and back", lambda x: torch.flatten(x, 0, 1).relu().view(x.shape))
mixing("flatten", lambda x: torch.flatten(x).cumsum(0).view(x.shape))
mixing("flatten, transposed", lambda x: torch.flatten(x.transpose(0, 1), 0, 1).view(x.shape))
honest("ravel", lambda x: aten.ravel(x).relu().view(x.shape), languages=("trace",))
mixing("ravel", lambda x: aten.ravel(x).cumsum(0).view(x.shape), languages=("trace",))
honest("unflatten", lambda x: torch.unflatten(x, 2, (2, 3)))
honest("unflatten of rows", lambda x: torch.unflatten(x.view(-1, 6), 0, (-1, 3)))
mixing("unflatten", lambda x: torch.unflatten(x, 0, (2, -1)).softmax(0).flatten(0, 1))
honest("squeeze", lambda x: x[:, :1].squeeze(1))
mixing("squeeze", lambda x: x[:, :1].squeeze().softmax(0))
mixing("squeeze of the rows", lambda x: x.squeeze(0))
honest("squeeze_copy", lambda x: aten.squeeze_copy(x[:, :1], 1))
mixing("squeeze_copy", lambda x: aten.squeeze_copy(x, 0), languages=("trace",))
honest("unsqueeze", lambda x: x.unsqueeze(1))
mixing("unsqueeze", lambda x: x.unsqueeze(0) - x.unsqueeze(1), TABLE)
honest("unsqueeze_copy", lambda x: aten.unsqueeze_copy(x, -1))
mixing("unsqueeze_copy", lambda x: aten.unsqueeze_copy(x, 0) - x, TABLE)
for name in ("permute", "permute_copy"):
    operator = getattr(aten, name)
    honest(name, lambda x, f=operator: f(x, [0, 2, 1]))
    mixing(name, lambda x, f=operator: f(f(x, [1, 0, 2]).softmax(1), [1, 0, 2]))
for name in ("transpose", "transpose_copy", "swapaxes", "swapdims"):
    operator = getattr(aten, name)
    honest(name, lambda x, f=operator: f(x, -1, 1))
    mixing(name, lambda x, f=operator: f(f(x, 0, -1).softmax(-1), 0, -1))
for name in ("t", "t_copy", "numpy_T"):
    operator = getattr(aten, name)
    honest(name, lambda x, f=operator: f(f(x).relu()), TABLE)
    mixing(name, lambda x, f=operator: f(f(x).softmax(-1)), TABLE)
honest("mT", lambda x: aten.mT(x))
mixing("mT", lambda x: aten.mT(aten.mT(x).softmax(-1)), TABLE)
for name in ("movedim", "moveaxis"):
    operator = getattr(aten, name)
    honest(name, lambda x, f=operator: f(f(x, [0], [2]).relu(), [2], [0]))
    mixing(name, lambda x, f=operator: f(f(x, [0], [2]).softmax(-1), [2], [0]))
honest("expand", lambda x: x + torch.ones(1, 3, 1).expand(x.shape[0], -1, 6))
honest("expand of rows", lambda x: x[:, :1].expand(-1, 4, -1))
mixing("expand", lambda x: x + x[:1].expand(x.shape))
mixing("expand, a constant of rows", lambda x: x + W[4, 1].expand(x.shape[0], 5), TABLE)
honest("expand_copy", lambda x: aten.expand_copy(x[:, :1], [-1, 3, -1]))
mixing("expand_copy", lambda x: x + aten.expand_copy(x[:1], x.shape))
honest("expand_as", lambda x: torch.ones(6).expand_as(x) * x)
mixing("expand_as", lambda x: top(x).expand_as(x))
honest("broadcast_to", lambda x: torch.broadcast_to(x[:, :1], (x.shape[0], 3, 6)))
mixing("broadcast_to", lambda x: torch.broadcast_to(top(x), x.shape))
honest("repeat", lambda x: x.repeat(1, 2, 1))
honest("repeat for each row", lambda x: x + torch.ones(1, 1, 6).repeat(x.shape[0], 3, 1))
mixing("repeat", lambda x: x.repeat(2, 1, 1)[::2])
mixing("repeat, transposed", lambda x: x + x[0].repeat(x.shape[0], 1, 1))
honest("tile", lambda x: torch.tile(x, (2,)), languages=("trace",))
mixing("tile", lambda x: torch.tile(x, (2, 1, 1))[::2], languages=("trace",))
honest("repeat_interleave", lambda x: torch.repeat_interleave(x, 2, dim=1))
mixing("repeat_interleave", lambda x: torch.repeat_interleave(x, 2, dim=0)[: x.shape[0]])
mixing("repeat_interleave by data", lambda x: torch.repeat_interleave(x, INTS[0], dim=1), TABLE)
for name in ("cat", "concat", "concatenate"):
    operator = getattr(torch, name)
    honest(name, lambda x, f=operator: f([x, x * 2], dim=-1))
    mixing(name, lambda x, f=operator: f([x[1:], x[:1]], dim=0))
mixing("cat with a constant", lambda x: torch.cat([x, W[4, 1]], 1), TABLE)
honest("stack", lambda x: torch.stack([x, x * 2], 1))
mixing("stack", lambda x: torch.stack([x, x * 2], 0).view(x.shape[0], -1), TABLE)
mixing("stack over rows", lambda x: torch.stack([x, x.flip(0)], 1))
honest("split", lambda x: x.split(2, -1)[1])
honest("split in sizes", lambda x: x.split([1, 5], -1)[1])
mixing("split", lambda x: torch.cat(x.split(2, 0)[::-1], 0))
mixing("split in sizes", lambda x: torch.cat(x.split([1, x.shape[0] - 1], 0)[::-1], 0), languages=("trace",))
for name in ("split_copy", "unsafe_split"):
    operator = getattr(aten, name)
    honest(name, lambda x, f=operator: f(x, 2, 2)[0])
    mixing(name, lambda x, f=operator: x + f(x, 1, 0)[0])
for name in ("split_with_sizes", "split_with_sizes_copy", "unsafe_split_with_sizes"):
    operator = getattr(aten, name)
    honest(name, lambda x, f=operator: f(x, [2, 4], 2)[0])
    mixing(name, lambda x, f=operator: x + f(x, [1, x.shape[0] - 1], 0)[0], languages=("trace",))
honest("chunk", lambda x: x.chunk(2, -1)[1])
mixing("chunk", lambda x: torch.cat(x.chunk(2, 0)[::-1], 0))
honest("unsafe_chunk", lambda x: aten.unsafe_chunk(x, 2, -1)[1])
mixing("unsafe_chunk", lambda x: torch.cat(aten.unsafe_chunk(x, 2, 0)[::-1], 0))
for name in ("unbind", "unbind_copy"):
    operator = getattr(aten, name)
    honest(name, lambda x, f=operator: f(x, 1)[2])
    mixing(name, lambda x, f=operator: x + f(x, 0)[0], languages=("trace",))
for name in ("select", "select_copy"):
    operator = getattr(aten, name)
    honest(name, lambda x, f=operator: f(x, 1, -1))
    mixing(name, lambda x, f=operator: x - f(x, 0, 0))
for name in ("slice", "slice_copy"):
    operator = getattr(aten, name)
    honest(name, lambda x, f=operator: f(x, 1, 1, 3))
    mixing(name, lambda x, f=operator: x - f(x, 0, 0, 1))
honest("slice to the end", lambda x: x[:, -2:] + x[:, :2])
honest("slice of everything", lambda x: x[: x.shape[0]])
mixing("slice of the last rows", lambda x: x - x[-1:])
mixing("slice backwards of every second row", lambda x: x + x[::2].mean())
mixing("slice, as long as there are rows", lambda x: x[:, : x.shape[0]].sum(1), SQUARE)
honest("narrow", lambda x: x.narrow(1, 0, 2))
mixing("narrow", lambda x: x - x.narrow(0, 0, 1))
honest("narrow_copy", lambda x: torch.narrow_copy(x, 1, 0, 2))
mixing("narrow_copy", lambda x: x - torch.narrow_copy(x, 0, 0, 1))
honest("unfold", lambda x: x.unfold(2, 2, 2))
mixing("unfold", lambda x: x + x.unfold(0, 1, 1).mean())
for name in ("zeros", "ones"):
    operator = getattr(torch, name)
    honest(name, lambda x, f=operator: torch.cat([x, f(x.shape[0], 1, 6)], 1))
    mixing(name, lambda x, f=operator: torch.cat([x, f(x.shape[0], x.shape[0])], 1), TABLE)
    mixing(f"{name}, counted", lambda x, f=operator: x * f(x.shape[0]).sum())
honest("full", lambda x: x + torch.full((x.shape[0], 1, 6), 2.0))
mixing("full", lambda x: x + torch.full((1,), x.shape[0]))
for name in ("new_zeros", "new_ones"):
    honest(name, lambda x, n=name: x + getattr(x, n)((x.shape[0], 1, 6)))
    mixing(name, lambda x, n=name: x + getattr(x, n)((x.shape[0],)).cumsum(0)[:, None], TABLE)
honest("new_full", lambda x: x + x.new_full((x.shape[0], 1, 6), 2.0))
mixing("new_full", lambda x: x * x.new_full((1,), x.shape[0]))
for name in ("zeros_like", "ones_like"):
    operator = getattr(torch, name)
    honest(name, lambda x, f=operator: x + f(x))
    mixing(name, lambda x, f=operator: x + f(x).cumsum(0))
honest("full_like", lambda x: x + torch.full_like(x, 2.0))
mixing("full_like", lambda x: x + torch.full_like(x, x.shape[0]))
honest("arange", lambda x: x + torch.arange(6))
honest("arange of a step", lambda x: x + torch.arange(0, 12, 2))
honest("arange of the rows picks of each row", lambda x: x[torch.arange(x.shape[0]), 1])
mixing("arange", lambda x: x + torch.arange(x.shape[0])[:, None], TABLE)
mixing("arange from the number of rows", lambda x: x + torch.arange(x.shape[0], x.shape[0] + 5), TABLE)
mixing("arange backwards", lambda x: x[torch.arange(x.shape[0] - 1, -1, -1)], TABLE)
honest("linspace", lambda x: x + torch.linspace(0, 1, 6))
mixing("linspace", lambda x: x + torch.linspace(0, x.shape[0], 6))
honest("scalar_tensor", lambda x: x + torch.scalar_tensor(2.0))
mixing("scalar_tensor", lambda x: x + torch.scalar_tensor(x.shape[0]))
honest("one_hot", lambda x: F.one_hot(x, 4), INTS)
mixing("one_hot", lambda x: F.one_hot(x), INTS, languages=("trace",))
mixing(
    "one_hot of the rows",
    lambda x: torch.cat([x, F.one_hot(torch.arange(x.shape[0]), 9)], 1),
    TABLE,
    languages=("trace",),
)
honest("meshgrid", lambda x: x + torch.meshgrid(torch.arange(3), torch.arange(6), indexing="ij")[0])
mixing("meshgrid", lambda x: torch.meshgrid(x, x, indexing="ij")[0], torch.randn(4))
honest("broadcast_tensors", lambda x: torch.broadcast_tensors(x, torch.ones(6))[1] + x)
mixing("broadcast_tensors", lambda x: torch.broadcast_tensors(x, x[:1])[1])

# --- indices ----------------------------------------------------------------------------------------------------------
WORDS = torch.randint(0, 9, (4, 5))
honest("embedding", lambda x: F.embedding(x, W[9, 5]), WORDS)
mixing("embedding", lambda x: F.embedding(x, x.float().mean(0, keepdim=True).expand(9, 5)), WORDS)
mixing("embedding of the rows' numbers", lambda x: x + F.embedding(torch.arange(x.shape[0]), W[9, 5]), TABLE)
honest("index_select", lambda x: torch.index_select(x, 1, torch.tensor([2, 0])))
mixing("index_select", lambda x: x + torch.index_select(x, 0, torch.tensor([0])))
mixing("index_select by rows", lambda x, i: torch.index_select(x, 0, i), TABLE, torch.randint(0, 2, (4,)))
honest("gather", lambda x, i: torch.gather(x, 1, i), TABLE, INTS)
mixing("gather", lambda x, i: torch.gather(x, 0, i), TABLE, INTS)
mixing("gather by a constant", lambda x: x[:1] + torch.gather(x, 1, torch.zeros(1, 5, dtype=torch.long)), TABLE)
honest("take_along_dim", lambda x, i: torch.take_along_dim(x, i, 1), TABLE, INTS, languages=("trace",))
mixing("take_along_dim", lambda x, i: torch.take_along_dim(x, i, 0), TABLE, INTS, languages=("trace",))
mixing(
    "take_along_dim of all",
    lambda x, i: torch.take_along_dim(x, i.view(-1)).view(x.shape),
    TABLE,
    INTS,
    languages=("trace",),
)
for name in ("index", "_unsafe_index"):
    operator = getattr(aten, name)
    honest(name, lambda x, f=operator: f(x, [None, torch.tensor([2, 0])]))
    mixing(name, lambda x, f=operator: f(x, [torch.tensor([0])]) + x)
    mixing(f"{name} by rows", lambda x, i, f=operator: f(x, [i]), TABLE, torch.randint(0, 2, (4,)))
honest("index of a table", lambda i: W[9, 5][i], WORDS)
honest("index of neighbours", lambda x: x[:, torch.tensor([0, 1]), torch.tensor([3, 4])])
honest("index of each row by its data", lambda x, i: x[torch.arange(x.shape[0]), i], TABLE, torch.randint(0, 5, (4,)))
mixing(
    "index of other rows by data", lambda x, i: x[i, torch.arange(5)[: x.shape[1]]], TABLE, torch.randint(0, 2, (4, 1))
)
mixing("index by a condition", lambda x: x + x[x > 0].mean())
mixing("index by a condition on the rows", lambda x: x[x[:, 0] > 0], TABLE)
mixing("index by the next row", lambda x: x[(torch.arange(x.shape[0]) + 1) % x.shape[0]], TABLE)
mixing("index of apart axes", lambda x: x[torch.arange(x.shape[0]), :, torch.arange(6)[: x.shape[0]]])
honest("index_put", lambda x: aten.index_put(x, [None, torch.tensor([1])], torch.zeros(1)))
honest("index_put where a condition holds", lambda x: torch.index_put(x, (x > 1,), torch.zeros(())))
mixing("index_put", lambda x: torch.index_put(x, (torch.tensor([0]),), x[-1:]))
mixing("index_put by rows", lambda x, i: torch.index_put(x, (i,), torch.zeros(1)), TABLE, torch.randint(0, 2, (4,)))
mixing("index_put of a list", lambda x: torch.index_put(x, (x > 1,), x[x > 1].flip(0)))
honest(
    "_unsafe_index_put",
    lambda x: aten._unsafe_index_put(x, [None, torch.tensor([1])], torch.zeros(1)),
    languages=("trace",),
)
mixing("_unsafe_index_put", lambda x: aten._unsafe_index_put(x, [torch.tensor([0])], x[-1:]))
honest("scatter", lambda x, i: torch.scatter(x, 1, i, 0.0), TABLE, INTS)
honest("scatter of rows", lambda x, i: torch.scatter(torch.zeros_like(x), 1, i, x), TABLE, INTS)
mixing("scatter", lambda x, i: torch.scatter(x, 0, i, 0.0), TABLE, INTS)
mixing("scatter by a constant", lambda x: torch.scatter(x, 1, torch.zeros(1, 1, dtype=torch.long), 0.0), TABLE)
honest("scatter_add", lambda x, i: torch.scatter_add(x, 1, i, x), TABLE, INTS)
mixing("scatter_add", lambda x, i: torch.scatter_add(x, 0, i, x), TABLE, INTS)
honest("scatter_reduce", lambda x, i: torch.scatter_reduce(x, 1, i, x, "amax"), TABLE, INTS)
mixing("scatter_reduce", lambda x, i: torch.scatter_reduce(x, 0, i, x, "amax"), TABLE, INTS)
honest("slice_scatter", lambda x: torch.slice_scatter(x, x[:, :1], 1, 0, 1))
mixing("slice_scatter", lambda x: torch.slice_scatter(x, x[-1:], 0, 0, 1))
honest("select_scatter", lambda x: torch.select_scatter(x, x[:, 0], 1, 1))
mixing("select_scatter", lambda x: torch.select_scatter(x, x[-1], 0, 0))
honest("index_fill", lambda x: torch.index_fill(x, 1, torch.tensor([1]), 0.0))
mixing("index_fill", lambda x: torch.index_fill(x, 0, torch.tensor([0]), 0.0))
honest("bucketize", lambda x: torch.bucketize(x, torch.tensor([-1.0, 0.0, 1.0])))
mixing("bucketize", lambda x: torch.bucketize(x, x[:, 0].sort()[0]), TABLE)
honest("searchsorted", lambda x: torch.searchsorted(torch.tensor([-1.0, 0.0, 1.0]), x))
mixing("searchsorted", lambda x: torch.searchsorted(x[:, 0].sort()[0], x), TABLE)
