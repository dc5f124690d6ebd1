"""Whole models that mix rows in ways that models do, or that somebody might try. None may be accepted.

TWINS are models that look alike and do not mix. Functions are captured by torch.export and by torch.jit.trace; those
that read values of the batch, or that need Python's control flow, by torch.jit.script.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

BOTH = ("export", "trace")
EXPORT = ("export",)
TRACE = ("trace",)
SCRIPT = ("script",)


@dataclass(frozen=True, eq=False)
class Whole:
    """A model with example inputs. `shared`: those that are the same for all rows, behind the batched ones."""

    model: Callable[..., Any]
    inputs: tuple[Any, ...]
    shared: tuple[Any, ...] = ()
    languages: tuple[str, ...] = BOTH


ADVERSARIES: dict[str, Whole] = {}
TWINS: dict[str, Whole] = {}
torch.manual_seed(0)
TABLE, CUBE, IMAGE = torch.randn(4, 5), torch.randn(4, 3, 5), torch.randn(4, 3, 8, 8)
VECTOR, INTS = torch.randn(4), torch.randint(0, 3, (4, 5))
SQUARE, W5, W52, T9 = torch.rand(5, 5), torch.rand(5), torch.rand(5, 2), torch.rand(99, 5)


def adversary(name: str, model: Callable[..., Any], *inputs: Any, **settings: Any) -> None:
    ADVERSARIES[name] = Whole(model, inputs or (TABLE,), **settings)


def twin(name: str, model: Callable[..., Any], *inputs: Any, **settings: Any) -> None:
    TWINS[name] = Whole(model, inputs or (TABLE,), **settings)


# --- reductions -------------------------------------------------------------------------------------------------------
adversary("scale by the largest pixel", lambda x: torch.where(x.max() > 1, x / 255, x) @ W52)
twin("scale by the row's largest pixel", lambda x: torch.where(x.amax(1, keepdim=True) > 1, x / 255, x) @ W52)
adversary("subtract the batch's mean", lambda x: x - x.mean(0))
adversary("subtract the mean of all", lambda x: x - x.mean())
adversary("NaN anywhere clears all", lambda x: torch.where(x.isnan().any(), torch.zeros(5), x))
twin("NaN in a row clears the row", lambda x: torch.where(x.isnan().any(1, keepdim=True), torch.zeros(5), x))
adversary("all finite or nothing", lambda x: x + (x - x).sum())
adversary("norm of the flattened batch", lambda x: x / x.flatten().norm())
adversary("normalise the columns", lambda x: F.normalize(x, dim=0))
twin("normalise the rows", lambda x: F.normalize(x, dim=1))
adversary("mean over transposed rows", lambda x: (x.t() - x.t().mean(1, keepdim=True)).t())
adversary("mean over a negative axis", lambda x: x - x.mean(-2, keepdim=True))
adversary("argmax over the batch picks a row", lambda x: x[x[:, 0].argmax()].expand(x.shape[0], 5), languages=TRACE)
adversary("largest row wins", lambda x: x.index_select(0, x.sum(1).topk(1)[1]).expand(x.shape[0], 5))
adversary("mean by a matrix of ones", lambda x: x - torch.ones(x.shape[0], x.shape[0]) @ x)
adversary("attention over the batch", lambda x: (x @ x.t()).softmax(-1) @ x)
twin("attention within the row", lambda x: (x @ x.transpose(1, 2)).softmax(-1) @ x, CUBE)
adversary("attention over the batch, fused", lambda x: F.scaled_dot_product_attention(x[None], x[None], x[None])[0])
adversary(
    "attention with the batch as sequence",
    nn.MultiheadAttention(6, 2).eval(),
    *[torch.randn(4, 3, 6)] * 3,
    languages=BOTH,
)
adversary("covariance", lambda x: x @ (x.t() @ x))
adversary("einsum over the batch", lambda x: torch.einsum("ik,kj->ij", torch.einsum("ij,kj->ik", x, x).softmax(-1), x))
adversary("convolution over time on axis 0", lambda x: F.conv1d(x.t()[None], torch.ones(5, 5, 3), padding=1)[0].t())
adversary("pooling over neighbours", lambda x: F.max_pool1d(x.t()[None], 3, 1, 1)[0].t(), languages=TRACE)
adversary("pooling with the batch as height", lambda x: F.avg_pool2d(x.transpose(0, 1), 3, 1, 1).transpose(0, 1), CUBE)
adversary("variance of the batch", lambda x: (x - x.mean(0)) / x.std(0, unbiased=False))
adversary("several axes at once", lambda x: x / x.abs().sum((0, 2), keepdim=True), CUBE)

# --- sorts, softmax, cumulative sums ----------------------------------------------------------------------------------
adversary("sort the batch", lambda x: x.sort(0)[0])
adversary("rank within the batch", lambda x: x.argsort(0).float())
adversary("softmax over the batch", lambda x: x.softmax(0))
adversary("softmax of a vector of rows", lambda x: x.softmax(-1), VECTOR)
adversary("log-softmax, transposed", lambda x: x.t().log_softmax(1).t())
adversary("running sum", lambda x: x.cumsum(0))
adversary("running largest", lambda x: x.cummax(-2)[0])
adversary("running product by log", lambda x: x.abs().log().cumsum(0).exp())
adversary("lower triangle times rows", lambda x: (x @ x.t()).tril() @ x)
adversary("reverse the batch", lambda x: x.flip(0))
adversary("roll by one row", lambda x: x.roll(1, 0))
adversary("roll of all elements", lambda x: x.roll(1))
adversary("difference to the row before", lambda x: x - F.pad(x, [0, 0, 1, 0])[:-1])
adversary("median of the batch", lambda x: x - x.median(0)[0])

# --- normalisation ----------------------------------------------------------------------------------------------------


class Training(nn.Module):
    """A layer that stays in training mode."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        self.layer.train()
        return self.layer(x)


adversary("batch normalisation in training mode", lambda x: F.batch_norm(x, None, None, training=True))
twin("batch normalisation in evaluation", nn.BatchNorm1d(5))
adversary("batch normalisation without statistics", nn.BatchNorm1d(5, track_running_stats=False))
adversary("instance normalisation of one image of rows", lambda x: F.instance_norm(x[None])[0], CUBE)
adversary("group normalisation of transposed rows", lambda x: F.group_norm(x.transpose(0, 1), 1).transpose(0, 1), CUBE)
adversary("layer normalisation of transposed rows", lambda x: F.layer_norm(x.t(), (4,)).t(), languages=TRACE)
adversary("dropout in training mode", lambda x: F.dropout(x, 0.5, training=True))
twin("dropout in evaluation", nn.Sequential(nn.Dropout(0.5), nn.Linear(5, 2)))

# --- reshapes, transposes, writes -------------------------------------------------------------------------------------
FOUR = torch.randn(4, 4)
adversary("reshape shifts rows", lambda x: x.t().reshape(x.shape))
adversary("two rows become one", lambda x: x.reshape(-1, 8).softmax(-1).reshape(x.shape), FOUR)
adversary("interleave by reshape", lambda x: x.reshape(2, -1, 4).transpose(0, 1).reshape(x.shape), FOUR)
adversary(
    "windows over the flattened batch",
    lambda x: F.max_pool1d(x.reshape(1, 1, -1), 3, 1, 1).reshape(x.shape),
    languages=TRACE,
)
adversary("windows by unfold", lambda x: F.pad(x, [0, 0, 1, 1]).unfold(0, 3, 1).sum(-1))
adversary("overlapping memory", lambda x: x + torch.as_strided(x, (1, 5), (5, 1)))
adversary("squeeze without axes", lambda x: x.squeeze().softmax(0), torch.randn(4, 1))
adversary("squeeze the batch axis", lambda x: x.squeeze(0).sum(0, keepdim=True) + x)
adversary("first row for all", lambda x: x[0].expand(x.shape[0], 5))
adversary("compare with the first row", lambda x: x - x[:1])
adversary("the last row", lambda x: x - x[-1])
adversary("every second row", lambda x: x + x[::2].sum(0))
adversary("split and swap halves", lambda x: torch.cat(x.chunk(2, 0)[::-1], 0))
adversary("a fixed number of rows", lambda x: x + torch.rand(4, 1).mul(0).add(W5[:4, None]), languages=TRACE)
adversary(
    "a traced number of rows",
    lambda x: x.reshape(int(x.shape[0]) * 1, 5).reshape(4, -1).softmax(1).reshape(-1, 5),
    languages=TRACE,
)


def write_first(x: Tensor) -> Tensor:
    y = x.clone()
    y[0] = x[-1]
    return y


def write_view(x: Tensor) -> Tensor:
    y = x * 1
    z = y.t()
    z[:, 0] = 7.0
    return y


def write_through_part(x: Tensor) -> Tensor:
    y = x * 1
    a, _ = y.chunk(2, 0)
    a.add_(x.mean(0))
    return y


def write_alias(x: Tensor) -> Tensor:
    y = x * 1
    y.view(-1)[::2].mul_(2.0)
    return y


def write_mean(x: Tensor) -> Tensor:
    y = x * 1
    y.sub_(y.mean(0))
    return y


def write_to_constant(x: Tensor) -> Tensor:
    total = torch.zeros(5)
    total += x.sum(0)
    return x + total


def write_before_read(x: Tensor) -> Tensor:
    y = x * 1
    view = y[:, 1:]
    y.copy_(y.flip(0))
    return view * 2


def write_expanded(x: Tensor) -> Tensor:
    total = torch.zeros(1, 5)
    wide = total.expand(x.shape[0], 5)
    total.add_(x[:1])
    return wide + x


def write_index(x: Tensor) -> Tensor:
    y = x.clone()
    y[torch.tensor([0])] = 0.0
    return y


def write_diagonal(x: Tensor) -> Tensor:
    y = x.clone()
    y.fill_diagonal_(0.0)
    return y


def write_diagonal_view(x: Tensor) -> Tensor:
    y = x.clone()
    y.diagonal().zero_()
    return y


def write_out(x: Tensor) -> Tensor:
    y = torch.zeros_like(x)
    torch.cumsum(x, 0, out=y)
    return y


def write_scatter(x: Tensor, i: Tensor) -> Tensor:
    return torch.zeros_like(x).scatter_add_(0, i, x)


def write_input(x: Tensor) -> Tensor:
    y = x[:1].clone()
    x.add_(y)
    return x * 2


def write_list(x: Tensor) -> Tensor:
    parts = [x, x * 2]
    torch._foreach_add_(parts, [x.mean(0).expand_as(x), x])
    return parts[0] + parts[1]


def write_sorted(x: Tensor) -> Tensor:
    y = x.clone()
    y[:] = y.sort(0)[0]
    return y


for function in (write_first, write_view, write_through_part, write_alias, write_mean, write_to_constant, write_before_read,
                 write_expanded, write_index, write_diagonal, write_diagonal_view, write_sorted):  # fmt: skip
    adversary(f"in place: {function.__name__}", function, TABLE)
adversary("in place: write_out", write_out, TABLE, languages=TRACE)
adversary("in place: write_scatter", write_scatter, TABLE, INTS)
adversary("in place: write_input", write_input, TABLE)
adversary("in place: write_list", write_list, TABLE, languages=EXPORT)


def write_columns(x: Tensor) -> Tensor:
    y = torch.zeros(x.shape[0], 5)
    y[:, 0] = x[:, 1]
    y[:, 1:3] = x[:, 1:3] * 2
    y[:, 3:].add_(1.0)
    return y.relu_()


def write_where(x: Tensor) -> Tensor:
    y = x.clone()
    y[y.isnan()] = 0.0
    return y.clamp_(-1, 1).masked_fill_(x > 3, 9.0)


def write_residual(x: Tensor) -> Tensor:
    y = torch.relu_(x @ SQUARE)
    y += x
    return y


for function in (write_columns, write_where, write_residual):
    twin(f"in place: {function.__name__}", function, TABLE)

# --- gather, scatter, row numbers -------------------------------------------------------------------------------------
adversary("sort rows by their score", lambda x: x.index_select(0, x.sum(1).argsort()))
adversary("a row points to another", lambda x, p: x[p], TABLE, torch.randint(0, 2, (4,)))
adversary("gather elements over rows", lambda x, i: x.gather(0, i), TABLE, INTS)
adversary(
    "histogram of the batch", lambda x: torch.bincount(x, minlength=4)[x], torch.randint(0, 3, (4,)), languages=TRACE
)
adversary(
    "embedding bag with offsets", lambda x: F.embedding_bag(x, T9, torch.arange(x.shape[0])), torch.randint(0, 3, (4,))
)
adversary(
    "half steps up to the number of rows",
    lambda x: x + torch.arange(0.5, x.shape[0] + 0.5, 1.0)[:, None],
    languages=EXPORT,
)
adversary("steps to the number of rows", lambda x: x + torch.arange(0, x.shape[0], 0.5).sum(), languages=EXPORT)
adversary("add the row's number", lambda x: x + torch.arange(x.shape[0])[:, None])
adversary("position embedding on the batch axis", lambda x: x + T9[torch.arange(x.shape[0])])
twin("position embedding on the axis of time", lambda x: x + T9[torch.arange(x.shape[1])], CUBE)
adversary("position embedding, sliced by the number of rows", lambda x: x + T9[: x.shape[0]])
adversary("the row's number by a running sum of ones", lambda x: x * torch.ones(x.shape[0]).cumsum(0)[:, None])
adversary("the row's number in one byte picks a row", lambda x: x[torch.arange(x.shape[0]).to(torch.int8).long()])
adversary("the next row", lambda x: x[(torch.arange(x.shape[0]) + 1) % x.shape[0]])
adversary(
    "one hot of the row's number",
    lambda x: torch.cat([x, (torch.arange(x.shape[0])[:, None] == torch.arange(9)).float()], 1),
)
adversary("identity matrix of rows", lambda x: torch.eye(x.shape[0]) @ x + 0)
adversary("rows above zero", lambda x: x[x[:, 0] > 0], languages=TRACE)
adversary("positions of what is set", lambda x: (x > 0).nonzero(), languages=TRACE)
adversary("values that are set", lambda x: x.masked_select(x > 0), languages=TRACE)
adversary("unique values", lambda x: torch.unique(x, return_inverse=True)[1], VECTOR, languages=TRACE)
twin("each row picks of itself", lambda x, i: x[torch.arange(x.shape[0]), i], TABLE, torch.randint(0, 5, (4,)))

# --- the batch's size as data -----------------------------------------------------------------------------------------
adversary("divide by the number of rows", lambda x: x / x.shape[0])
adversary("divide by the number of elements", lambda x: x / x.numel())
adversary("the number of rows as a sum of ones", lambda x: x * torch.ones(x.shape[0]).sum())
adversary("as wide as there are rows", lambda x: torch.cat([x, torch.zeros(x.shape[0], x.shape[0])], 1))
adversary("a slice as long as there are rows", lambda x: x[:, : x.shape[0]].sum(1), torch.randn(4, 9))
adversary("a bound from the number of rows", lambda x: x.clamp(max=x.shape[0]))
adversary("filled with the number of rows", lambda x: x + torch.full_like(x, x.shape[0]))
adversary("the number of rows modulo two", lambda x: x * (x.shape[0] % 2))
adversary("a power of the number of rows", lambda x: x * 2 ** x.shape[0], languages=TRACE)
adversary("rows minus one as a step", lambda x: x.roll(x.shape[0] - 1, 1), languages=EXPORT)
adversary("dimensions crossed", lambda x: x.reshape(x.shape[1], x.shape[0]).t(), torch.randn(4, 5))
twin("the number of columns as data", lambda x: x / x.shape[1] + torch.full((1,), 2.0))

# --- randomness, quantisation -----------------------------------------------------------------------------------------
adversary("noise", lambda x: x + torch.randn_like(x))
adversary("noise of a constant", lambda x: x + torch.rand(1, 5))
adversary("noise in place", lambda x: x + torch.zeros(5).normal_())
adversary("sampling", lambda x: torch.multinomial(x.abs() + 1, 1))
adversary("a random order", lambda x: x[torch.randperm(x.shape[0])], languages=TRACE)
adversary("memory as it is", lambda x: x + torch.empty(5))


def quantise(x: Tensor) -> Tensor:
    scale = x.abs().max() / 127
    return ((x / scale).round().clamp(-128, 127) @ W52.mul(99).round()) * scale


def quantise_rows(x: Tensor) -> Tensor:
    scale = x.abs().amax(1, keepdim=True) / 127
    return ((x / scale).round().clamp(-128, 127) @ W52.mul(99).round()) * scale


adversary("dynamic quantisation by hand", quantise, TABLE)
twin("dynamic quantisation of each row by hand", quantise_rows, TABLE)
adversary("dynamic quantisation, fake", lambda x: torch.fake_quantize_per_tensor_affine(
    x, x.abs().max() / 127, torch.zeros(1, dtype=torch.int32), -128, 127), languages=TRACE)  # fmt: skip
adversary(
    "dynamic quantisation of a tensor",
    lambda x: torch.quantize_per_tensor_dynamic(x, torch.qint8, False).dequantize(),
    languages=TRACE,
)

# --- recurrence -------------------------------------------------------------------------------------------------------


class Recurrent(nn.Module):
    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)[0]


adversary("batch-first data in a time-first LSTM", Recurrent(nn.LSTM(5, 3)), CUBE, languages=TRACE)
adversary("batch-first data in a time-first GRU", Recurrent(nn.GRU(5, 3)), CUBE, languages=TRACE)
adversary("a recurrence over rows", Recurrent(nn.RNN(5, 3)), TABLE, languages=TRACE)
twin("an LSTM, batch first", Recurrent(nn.LSTM(5, 3, batch_first=True)), CUBE)


class Carried(nn.Module):
    """The last state of one row is the first of the next."""

    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.GRUCell(5, 5)

    def forward(self, x: Tensor) -> Tensor:
        state, rows = torch.zeros(1, 5), []
        for part in x.split(1, 0):
            state = self.cell(part, state)
            rows.append(state)
        return torch.cat(rows)


adversary("a state that goes from row to row", Carried(), TABLE, languages=TRACE)
adversary("padding to the longest", lambda x, n: torch.where(torch.arange(5) < n.max(), x, 0.0).cumsum(1)
          / n.max(), TABLE, torch.randint(1, 5, (4,)))  # fmt: skip
twin(
    "padding by each row's length",
    lambda x, n: torch.where(torch.arange(5) < n[:, None], x, 0.0),
    TABLE,
    torch.randint(1, 5, (4,)),
)
adversary("a constant of three rows", lambda x: x + W5[:4, None], TABLE, languages=TRACE)
adversary("two inputs on different axes", lambda x, z: x + z, FOUR, VECTOR, languages=TRACE)
adversary("an output that is a constant", lambda x: (W52 * 2, x)[0])
adversary("an output with rows on axis 1", lambda x: x.t())
adversary("an output of two rows for each", lambda x: x.reshape(-1, 2), FOUR)
adversary("an output without rows", lambda x: x.sum(0))
adversary("one of two outputs", lambda x: (x * 2, x - x.mean(0)))

# --- control flow of torch.export -------------------------------------------------------------------------------------


def chosen(x: Tensor) -> Tensor:
    return torch.cond(x.max() > 1, lambda x: x / 255, lambda x: x * 1, (x,))


def chosen_by_rows(x: Tensor) -> Tensor:
    return torch.cond(x.shape[0] > 2, lambda x: x / 255, lambda x: x * 1, (x,))


adversary("a branch by the largest value", chosen, TABLE, languages=EXPORT)
adversary("a branch by the number of rows", chosen_by_rows, TABLE, languages=EXPORT)


def mapped(x: Tensor) -> Tensor:
    from torch._higher_order_ops.map import map as over

    return over(lambda row, total: row / total, x, x.sum())


adversary("a map over rows with what they share", mapped, TABLE, languages=EXPORT)


class NoGradient(nn.Module):
    """A graph within the graph."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return x.softmax(self.dim)


adversary("a softmax in a graph within the graph", NoGradient(0), TABLE, languages=EXPORT)
twin("a softmax of the row in a graph within the graph", NoGradient(1), TABLE, languages=EXPORT)

# --- control flow of TorchScript --------------------------------------------------------------------------------------


class BranchByLargest(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        if bool(x.max() > 1.0):
            x = x / 255.0
        return x


class BranchByRows(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * 2 if x.shape[0] > 1 else x


class BranchByRowsModulo(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        if x.size(0) % 2 == 0:
            return x
        return x.softmax(1)


class BranchByElements(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        if x.numel() > 10:
            return x * 3
        return x


class LoopOverRows(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        total = torch.zeros(5)
        rows = torch.zeros_like(x)
        for i in range(x.size(0)):
            total = total + x[i]
            rows[i] = total
        return rows


class LoopUntilSmall(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        while bool(x.abs().max() > 1.0):
            x = x / 2
        return x


class LoopByList(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        rows: list[Tensor] = []
        state = torch.zeros(5)
        for row in x:
            state = state + row
            rows.append(state)
        return torch.stack(rows)


class ItemOfBatch(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x / float(x.abs().max())


class SizeAsFloat(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x / float(x.size(0))


class SizeInList(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * torch.tensor([x.size(0), 1, 1, 1, 1])


class SizeInDictionary(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        found = {"rows": x.size(0), "columns": x.size(1)}
        return x + found["rows"]


class SizeInText(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * len(str(x.size(0) * 25))


class MaxOfSizes(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * max(x.size(0), 3)


class ListWritten(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        parts = [x, x.flip(0)]
        parts[0] = parts[1]
        return parts[0]


class ListSorted(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        sizes = [3, x.size(0)]
        sizes.sort()
        return x * sizes[0]


class ListReversed(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        parts = [x, x.flip(0)]
        parts.reverse()
        return parts[0]


class ListOfListsWritten(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        sizes = [[3], [x.size(0)]]
        inner = sizes[0]
        inner.append(x.size(0))
        return x * sizes[0][-1]


class DictionaryPopped(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        found = {"a": x, "b": x.flip(0)}
        found["c"] = found.pop("b")
        return found["c"]


class ListCompared(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        if [x] == [x.abs()]:
            return x * 2
        return x


class ListChosenByShared(nn.Module):
    def forward(self, x: Tensor, k: Tensor) -> Tensor:
        first = [x]
        second = [x]
        chosen = first if bool(k.sum() > 0) else second
        chosen[0] = x.flip(0)
        return first[0] + second[0]


class SharedView(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        y = x.clone()
        views = [y[0], y[1:]]
        for view in views:
            view.add_(1.0)
            break
        return y


class WriteInBranch(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        y = x.clone()
        if bool(x.sum() > 0):
            y.mul_(2.0)
        return y


class AppendInBranch(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        parts: list[Tensor] = [x]
        if bool(x.sum() > 0):
            parts.append(x)
        return parts[-1] * len(parts)


class ExceptionByRows(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        if x.size(0) > 3:
            raise ValueError("too many")
        return x - x.mean(0)


class Tracking(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(5)

    def forward(self, x: Tensor) -> Tensor:
        return torch.batch_norm(x, None, None, None, None, True, 0.1, 1e-5, False)


class Optional(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        shared: Tensor | None = None
        if x.dim() == 2:
            shared = x.mean(0)
        if shared is not None:
            x = x - shared
        return x


class CheckedRows(nn.Module):
    """Values of the batch that only stop the run."""

    def forward(self, x: Tensor) -> Tensor:
        if x.dim() != 2:
            raise ValueError("expected a table")
        if bool(x.isnan().any()):
            raise ValueError("expected numbers")
        rows, columns = x.shape
        parts: list[Tensor] = []
        for i in range(3):
            parts.append(x[:, i : i + 1] * i)
        y = torch.cat(parts, 1).view(rows, 3, 1)
        sizes = {"columns": columns}
        return y.squeeze(-1) * sizes["columns"]


class ChosenByShared(nn.Module):
    """A branch by an input that all rows share, and by a size that no row has."""

    def forward(self, x: Tensor, k: Tensor) -> Tensor:
        if bool(k.sum() > 0):
            x = x * 2
        if x.size(1) > 3:
            return x + 1
        return x


for module in (BranchByLargest, BranchByRows, BranchByRowsModulo, BranchByElements, LoopOverRows, LoopUntilSmall, LoopByList,
               ItemOfBatch, SizeAsFloat, SizeInList, SizeInDictionary, SizeInText, MaxOfSizes, ListWritten, ListSorted, ListReversed, ListOfListsWritten, DictionaryPopped,
               SharedView, WriteInBranch, AppendInBranch, Tracking, Optional):  # fmt: skip
    adversary(f"script: {module.__name__}", module(), TABLE, languages=SCRIPT)
adversary("script: ListChosenByShared", ListChosenByShared(), TABLE, shared=(torch.ones(2),), languages=SCRIPT)
adversary("script: ListCompared", ListCompared(), TABLE[:1, :1], languages=SCRIPT)
adversary("script: ExceptionByRows", ExceptionByRows(), TABLE[:2], languages=SCRIPT)
twin("script: CheckedRows", CheckedRows(), TABLE, languages=SCRIPT)
twin("script: ChosenByShared", ChosenByShared(), TABLE, shared=(torch.ones(2),), languages=SCRIPT)
twin("script: LSTM", Recurrent(nn.LSTM(5, 3, batch_first=True)), CUBE, languages=SCRIPT)
for layer, example in (
    (nn.BatchNorm2d(3), IMAGE),
    (nn.Upsample(scale_factor=2), IMAGE),
    (nn.AdaptiveAvgPool2d(2), IMAGE),
):
    twin(f"script: {type(layer).__name__}", layer, example, languages=SCRIPT)


class WriteToUnknown(nn.Module):
    """What a branch returns may be a view of what was there before."""

    def forward(self, x: Tensor) -> Tensor:
        y = x.clone()
        z = y.abs() if x.size(0) > 1 else y.reshape(x.size(0), -1)
        z[:, 1] = z[:, 0]
        return y


class WriteToUnknownOfList(nn.Module):
    def forward(self, x: Tensor, k: Tensor) -> Tensor:
        y = x.clone()
        z = [y] if bool(k.sum() > 0) else [x.abs()]
        z[0].copy_(x.flip(0))
        return y


adversary("script: WriteToUnknown", WriteToUnknown(), TABLE, languages=SCRIPT)
adversary("script: WriteToUnknownOfList", WriteToUnknownOfList(), TABLE, shared=(torch.ones(2),), languages=SCRIPT)
