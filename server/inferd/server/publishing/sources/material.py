"""What a source gives: files in the staging directory, where they come from, and the original's answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from inferd.backends.api import Array
from inferd.server.publishing.record import Provenance
from inferd.server.publishing.tasks import TaskLimits


@dataclass(frozen=True, slots=True)
class SourceOptions:
    """How a source is read and converted. All is optional.

    python     the interpreter that trained the model
    to         the wanted format: "onnx", "pt2", "savedmodel", "litert"
    sample     a file of sample rows
    module     code of the model: "net.py:Net"
    arguments  a JSON object: keyword arguments of the class or function in `module`
    key        key of the weights in a checkpoint
    inputs     "name:FP32[-1,64]", for models that do not tell their inputs
    names      names of the outputs
    dtype      of the numbers that a model of tables takes: "FP32" or "FP64"
    file       the file to take out of a directory that holds several
    revision   of DVC and Hugging Face
    model_only  a TorchServe archive's own handler is left out
    trust      the source may run code with all rights of the user: pickles, Lambda layers, code in archives
    limits     of each subprocess
    output     gets what subprocesses print, line by line
    """

    python: str = ""
    to: str = ""
    sample: Path | None = None
    module: str = ""
    arguments: str = ""
    key: str = ""
    inputs: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    dtype: str = "FP32"
    file: str = ""
    revision: str = ""
    model_only: bool = False
    trust: bool = False
    limits: TaskLimits = field(default_factory=TaskLimits)
    output: Any = None


@dataclass(slots=True)
class SourceMaterial:
    """What is known after the files are in place.

    provenance     where they come from
    sample         rows that the version must answer
    expected       a .npz file with the original's answers to them, None if there is no original
    pairs          output of the version → output in `expected`; empty: in the order of `order`
    order          the original's outputs, in the order in which the version gives them
    labels         the right answers to the sample rows
    classes        the label of each score
    sample_source  where the rows come from, for the provenance
    rounds         the original computes in FP64 and the version in FP32
    notes          what the person should know
    """

    provenance: Provenance
    sample: Path | None = None
    expected: Path | None = None
    pairs: Mapping[str, str] = field(default_factory=dict)
    order: tuple[str, ...] = ()
    labels: Array | None = None
    classes: Array | None = None
    sample_source: dict[str, Any] = field(default_factory=dict)
    rounds: bool = False
    notes: tuple[str, ...] = ()
