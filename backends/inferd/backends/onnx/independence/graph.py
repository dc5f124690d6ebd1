"""What the analysis needs of an ONNX graph: nodes, attributes, initialisers. Large tensors have no elements here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np


@dataclass(frozen=True, slots=True, eq=False)
class GraphTensor:
    """A constant. `elements`: only of small tensors of whole numbers, booleans and floats; else None."""

    name: str
    dims: tuple[int, ...]
    elements: np.ndarray[Any, Any] | None


@dataclass(frozen=True, slots=True)
class AttributeReference:
    """In the body of a function: the attribute `name` of the node that calls the function."""

    name: str


@dataclass(frozen=True, slots=True, eq=False)
class GraphNode:
    """A node. `attributes`: int, float, str, lists of these, GraphTensor, OnnxGraph, AttributeReference, or None for a
    kind that the analysis does not read. `truncated`: it has attributes too long to read, which are left out."""

    operator: str
    domain: str
    overload: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any]
    truncated: bool = False

    @property
    def shown(self) -> str:
        """A name for people: that of the node, else that of its first output."""
        return self.name or next(filter(None, self.outputs), "")


@dataclass(frozen=True, slots=True)
class GraphInput:
    """An input. `dims`: numbers, names of open dimensions, or None for a dimension without either. None: no tensor, or
    a tensor of unknown rank."""

    name: str
    dims: tuple[int | str | None, ...] | None


@dataclass(slots=True, eq=False)
class OnnxGraph:
    """A graph. `tensors`: its initialisers; inputs of these names are constants, too."""

    nodes: list[GraphNode] = field(default_factory=list)
    tensors: list[GraphTensor] = field(default_factory=list)
    inputs: list[GraphInput] = field(default_factory=list)
    outputs: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True, eq=False)
class OnnxFunction:
    """A function of the model: an operator whose body is a list of nodes. `defaults`: of attributes."""

    inputs: Sequence[str]
    outputs: Sequence[str]
    nodes: Sequence[GraphNode]
    opsets: Mapping[str, int]
    defaults: Mapping[str, Any]


@dataclass(slots=True, eq=False)
class OnnxProgram:
    """A model: its main graph, the version of each operator set by domain ("" for ONNX's own), and its functions by
    (domain, operator, overload)."""

    graph: OnnxGraph = field(default_factory=OnnxGraph)
    opsets: dict[str, int] = field(default_factory=dict)
    functions: dict[tuple[str, str, str], OnnxFunction] = field(default_factory=dict)


def domain_of(name: str) -> str:
    """The domain; ONNX's own has two names."""
    return "" if name == "ai.onnx" else name
