"""The kinds of variants, and what each is made from. Pure but for a look at a version's files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Final

from inferd.server.publishing.errors import PublishError

AUTO: Final = "auto"


@dataclass(frozen=True, slots=True)
class VariantKind:
    """A kind of variant.

    source      "onnx" or "savedmodel": the artefact that it is made from
    target      name of the artefact that it is
    program     module of the program that makes it
    calibrated  it is made with rows
    what        in a few words
    """

    name: str
    source: str
    target: str
    program: str
    calibrated: bool
    what: str


_ONNX: Final = "inferd.server.publishing.optimise.onnx_program"
_LITERT: Final = "inferd.server.publishing.optimise.litert_program"
KINDS: Final[Mapping[str, VariantKind]] = MappingProxyType(
    {
        kind.name: kind
        for kind in (
            VariantKind("int8", "onnx", "model.onnx", _ONNX, True, "8 bits throughout, scales from sample rows"),
            VariantKind("int8-dynamic", "onnx", "model.onnx", _ONNX, False, "matrix products with weights in 8 bits"),
            VariantKind("fp16", "onnx", "model.onnx", _ONNX, False, "weights and arithmetic in 16 bits"),
            VariantKind("litert-int8", "savedmodel", "model.tflite", _LITERT, True, "LiteRT, 8 bits throughout"),
            VariantKind("litert-dynamic", "savedmodel", "model.tflite", _LITERT, False, "LiteRT, weights in 8 bits"),
        )
    }
)


@dataclass(frozen=True, slots=True)
class SourceArtefact:
    """The artefact of a version that variants are made from. `others`: names beside it that go along."""

    kind: str
    path: Path


def source_of(version: Path) -> SourceArtefact:
    """The artefact in a version's directory. Raises PublishError for one that no variant is made from, and says what
    can be done."""
    onnx = version / "model.onnx"
    if onnx.is_dir():
        return SourceArtefact("onnx", onnx / "model.onnx")
    if onnx.is_file():
        return SourceArtefact("onnx", onnx)
    inner = version / "model.savedmodel"
    for directory in (inner, version):
        if (directory / "saved_model.pb").is_file():
            return SourceArtefact("savedmodel", directory)
    for name, way in (
        ("model.tflite", "it is made smaller when it is converted: optimise the SavedModel that it was made from"),
        ("model.pt2", "export the model to ONNX (torch.onnx.export) and publish that first"),
        ("model.pt", "export the model to ONNX (torch.onnx.export) and publish that first"),
        ("model.py", "a model in Python has no weights that inferd knows"),
    ):
        if (version / name).exists():
            raise PublishError(f"no variant can be made from {name}: {way}")
    raise PublishError(f"{version} holds no model.onnx and no SavedModel")


def wanted_kinds(asked: str, source: SourceArtefact, *, half: bool) -> tuple[VariantKind, ...]:
    """The kinds to try. `asked`: one kind, or AUTO for all that are made from this artefact; `half`: 16 bits are of use
    (a GPU, or a bound on the size). Raises PublishError."""
    if asked != AUTO:
        kind = KINDS[asked]
        if kind.source != source.kind:
            made = ", ".join(name for name, each in KINDS.items() if each.source == source.kind)
            raise PublishError(
                f"--as {asked} is made from {_shown(kind.source)}, the version holds {_shown(source.kind)}: {made}"
            )
        return (kind,)
    return tuple(kind for kind in KINDS.values() if kind.source == source.kind and (kind.name != "fp16" or half))


def _shown(kind: str) -> str:
    return "an ONNX model" if kind == "onnx" else "a SavedModel"
