"""Small torch models as graphs, for the analysis of row independence: captured, analysed, and run to compare."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from inferd.backends.api import Independence, Signature, TensorSpec
from inferd.backends.torch.export import _read
from inferd.backends.torch.independence.interpreter import Schema
from inferd.backends.torch.independence.program import analyse_program
from inferd.backends.torch.independence.script import analyse_method
from inferd.backends.torch.io import dtype_from_torch
from inferd.backends.torch.script_plan import plan_method

Tensor = Any
LANGUAGES = ("export", "trace", "script")


class Wrapped(torch.nn.Module):  # type: ignore[misc]
    """A function as a module."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *inputs: Tensor) -> Any:
        return self.function(*inputs)


@dataclass(frozen=True)
class Graph:
    """A captured model.

    inputs     example inputs
    open       for each input, its open axes. An input with axis 0 among them is batched
    """

    language: str
    captured: Any
    inputs: tuple[Tensor, ...]
    open: tuple[tuple[int, ...], ...]
    signature: Signature = field(repr=False, default=Signature("serving_default", (), ()))

    def finding(self) -> Independence:
        """What the analysis says."""
        if self.language == "export":
            signature, plan, *_ = _read(self.captured, None)
            return analyse_program(torch, self.captured, plan, signature)
        schema = self.captured.forward.schema
        names = [argument.name for argument in schema.arguments[1:]][: len(self.inputs)]
        specs = tuple(
            TensorSpec(name, dtype_from_torch(x.dtype), tuple(-1 if i in axes else n for i, n in enumerate(x.shape)))
            for name, x, axes in zip(names, self.inputs, self.open, strict=True)
        )
        returned = self.run(self.inputs)
        count = len(returned)
        declared = Signature("f", specs, tuple(TensorSpec(f"output__{i}", specs[0].dtype, None) for i in range(count)))
        signature, plan, _ = plan_method("f", schema, declared, None)
        return analyse_method(torch, self.captured, "forward", plan, signature)

    def run(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        """The outputs, flat."""
        given = [x.clone() for x in inputs]
        plain = torch.jit.optimized_execution(False)  # type: ignore[no-untyped-call]
        with torch.no_grad(), warnings.catch_warnings(), plain:
            warnings.simplefilter("ignore")
            found = self.callable()(*given)
        return list(_flat(found))

    def callable(self) -> Callable[..., Any]:
        return self.captured.module() if self.language == "export" else self.captured  # type: ignore[no-any-return]

    def operators(self) -> set[str]:
        """The names that the table has for the operators of the graph."""
        if self.language == "export":
            schemas = [n.target._schema for n in self.captured.graph.nodes if hasattr(n.target, "_schema")]
            return {Schema.of(schema).operator for schema in schemas}
        graph = self.captured.inlined_graph
        found = set()
        for node in graph.nodes():
            try:
                found.add(Schema.of(torch._C.parse_schema(node.schema())).operator)
            except RuntimeError:
                continue
        return found


def _flat(value: Any) -> Any:
    if isinstance(value, list | tuple):
        for part in value:
            yield from _flat(part)
    elif isinstance(value, dict):
        for part in value.values():
            yield from _flat(part)
    elif value is not None:
        yield value


def capture(
    model: Any, inputs: Sequence[Tensor], language: str, open_axes: Sequence[Sequence[int]] | None = None
) -> Graph:
    """Captures a module or function. By default, the first axis of every input with one is open."""
    axes = tuple((0,) if x.ndim else () for x in inputs) if open_axes is None else tuple(map(tuple, open_axes))
    module = model if isinstance(model, torch.nn.Module) else Wrapped(model)
    module.eval()
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        if language == "export":
            shapes = tuple(dict.fromkeys(a, torch.export.Dim.DYNAMIC) or None for a in axes)
            given: Any = shapes if isinstance(model, torch.nn.Module) else (shapes,)
            captured = torch.export.export(module, tuple(inputs), dynamic_shapes=given, strict=False)
        elif language == "trace":
            captured = torch.jit.trace(module, tuple(inputs), check_trace=False)
        else:
            captured = torch.jit.script(module)
    return Graph(language, captured, tuple(inputs), axes)


HOSTILE = (1.0, 300.0, -1.0, 0.01, -40.0, 7.0)


def hostile(graph: Graph, count: int = 4, seed: int = 0) -> tuple[Tensor, ...]:
    """Rows that differ in content, sign and magnitude, one with ties only, for the batched inputs."""
    made = torch.Generator().manual_seed(seed)
    found = []
    for x, axes in zip(graph.inputs, graph.open, strict=True):
        if 0 not in axes:
            found.append(x)
            continue
        shape = (count, *x.shape[1:])
        if x.dtype.is_floating_point:
            rows = torch.randn(shape, generator=made)
            rows *= torch.tensor(HOSTILE[:count]).reshape(-1, *[1] * (len(shape) - 1))
            if count > 2:
                rows[-1] = 0.5
            found.append(rows.to(x.dtype))
        elif x.dtype == torch.bool:
            found.append(torch.rand(shape, generator=made) > 0.5)
        else:
            found.append(torch.randint(0, 2, shape, generator=made).to(x.dtype))
    return tuple(found)


def rows_meet(graph: Graph, inputs: Sequence[Tensor] | None = None) -> str | None:
    """How the outputs of rows together differ from those of rows alone; None if they agree. Raises what the model
    raises for a row alone."""
    given = hostile(graph) if inputs is None else tuple(inputs)
    batched = [0 in axes for axes in graph.open]
    count = min(len(x) for x, rows in zip(given, batched, strict=True) if rows)

    def picked(order: Sequence[int]) -> list[Tensor]:
        return [x[list(order)] if rows else x for x, rows in zip(given, batched, strict=True)]

    alone = [graph.run(picked([row])) for row in range(count)]
    for order in (list(range(count)), [count - 1, 0]):
        try:
            together = graph.run(picked(order))
        except Exception as error:
            return f"refuses {len(order)} rows: {error}"
        for at, output in enumerate(together):
            if not isinstance(output, torch.Tensor) or not output.ndim or len(output) != len(order):
                return f"output {at} has not {len(order)} rows"
            for place, row in enumerate(order):
                if not same(output[place : place + 1], alone[row][at]):
                    return f"output {at}, order {order}, row {row}"
    return None


def same(a: Tensor, b: Tensor) -> bool:
    """Whether two outputs agree up to rounding."""
    if a.shape != b.shape:
        return False
    a, b = (x.dequantize() if x.is_quantized else x for x in (a, b))
    if not (a.dtype.is_floating_point or a.dtype.is_complex):
        return bool(torch.equal(a, b))
    return bool(torch.allclose(a, b, rtol=2e-3, atol=2e-3, equal_nan=True))
