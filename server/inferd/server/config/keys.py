"""The keys of a schema, by path: to suggest the nearest known key, to read raw text, and to write documentation."""

from __future__ import annotations

import types
import typing
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal

from pydantic import TypeAdapter
from pydantic.fields import FieldInfo

from inferd.server.config.errors import dotted
from inferd.server.config.fields import Section
from inferd.server.config.schema import ModelConfig, ServerConfig

RENAMED: Final = {"http.calls": "inflight.calls", "http.bytes": "inflight.bytes"}
"""Old keys of the server's settings and what they are called now. An old key is refused with the new name."""

KeyPath = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Key:
    """One key of a schema.

    default    its default, `...` if it is required
    written    the default as a file has it, with its unit
    holder     the section that contains the key
    section    if the key is a section of its own: that section
    optional   the key is a section that may be null
    """

    path: KeyPath
    annotation: Any
    default: Any
    written: Any
    holder: type[Section]
    section: type[Section] | None = None
    optional: bool = False


def all_keys(model: type[Section], above: KeyPath = ()) -> Iterator[Key]:
    """Every key of a schema, a section before its own keys. Items of lists and of mappings by free names are not
    included (see item_keys)."""
    for name, field in model.model_fields.items():
        path = (*above, name)
        section = next((kind for kind in _choices(field.annotation) if _is_section(kind)), None)
        optional = section is not None and type(None) in _choices(field.annotation)
        default = ... if field.is_required() else field.get_default(call_default_factory=True)
        written = None if default is ... else _written(field, default)
        yield Key(path, field.annotation, default, written, model, section, optional)
        if section is not None:
            yield from all_keys(section, path)


def item_keys(key: Key, at: str) -> Iterator[tuple[str, Key]]:
    """The keys of sections in a list or in a mapping by free names, with their names: `at[].key` and `at.<name>.key`,
    at all depths. `at` is the name of the key itself."""
    for kind in _choices(key.annotation):
        held = typing.get_args(kind)[-1:] if typing.get_origin(kind) is dict else typing.get_args(kind)[:1]
        if not held or not _is_section(held[0]):
            continue
        item = f"{at}.<name>" if typing.get_origin(kind) is dict else f"{at}[]"
        for inner in all_keys(held[0]):
            name = f"{item}.{dotted(inner.path)}"
            yield name, inner
            yield from item_keys(inner, name)


def annotations_at(path: Sequence[str | int], root: type[Section] = ServerConfig) -> tuple[Any, ...]:
    """The types allowed at a path, with unions split; empty if there is no such key."""
    found: tuple[Any, ...] = (root,)
    for depth, part in enumerate(path):
        if root is ServerConfig and depth == 2 and path[0] == "models":
            found = (ModelConfig,)
        found = tuple(inner for kind in found for inner in _below(kind, part))
    if root is ServerConfig and len(path) == 2 and path[0] == "models":
        return (ModelConfig,)
    return found


def section_at(path: Sequence[str | int], root: type[Section] = ServerConfig) -> type[Section] | None:
    """The section at a path, None if there is none."""
    return next((kind for kind in annotations_at(path, root) if _is_section(kind)), None)


def takes_text(path: Sequence[str | int], root: type[Section] = ServerConfig) -> bool:
    """Whether text, or a list of texts, is allowed at a path."""
    return any(_is_text(kind) for kind in annotations_at(path, root))


def nearest_key(path: Sequence[str | int], root: type[Section] = ServerConfig) -> str:
    """The known key (dotted) that was probably meant by an unknown one; "" if none is similar."""
    if root is ServerConfig and (now := RENAMED.get(dotted(path))):
        return now
    wrong = str(path[-1])
    section = section_at(path[:-1], root)
    siblings = list(section.model_fields) if section is not None else []
    found = nearest(wrong, siblings)
    if found:
        return dotted((*path[:-1], found))
    # A right key in the wrong place, such as `max_batch_size` at the top level, or below a misspelt section.
    inside = ("models", str(path[1])) if root is ServerConfig and len(path) > 2 and path[0] == "models" else ()
    keys = [key.path for key in all_keys(ModelConfig if inside else root)]
    same = [inside + key for key in keys if key[-1] == wrong]
    return dotted(same[0]) if len(same) == 1 else ""


def nearest(wrong: str, known: Sequence[str]) -> str:
    """The known word nearest to a wrong one, "" if none is similar."""
    import difflib  # needed for errors only

    found = difflib.get_close_matches(wrong.lower(), [word.lower() for word in known], n=1, cutoff=0.6)
    return next((word for word in known if found and word.lower() == found[0]), "")


def is_mapping(annotation: Any) -> bool:
    """Whether an annotation allows a mapping."""
    return _is_section(annotation) or typing.get_origin(annotation) is dict


def is_list(annotation: Any) -> bool:
    """Whether an annotation allows a list."""
    return typing.get_origin(annotation) is tuple


def _choices(annotation: Any) -> tuple[Any, ...]:
    if typing.get_origin(annotation) is Annotated:
        return _choices(typing.get_args(annotation)[0])
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return tuple(inner for each in typing.get_args(annotation) for inner in _choices(each))
    return (annotation,)


def _below(annotation: Any, part: str | int) -> tuple[Any, ...]:
    if _is_section(annotation):
        field = annotation.model_fields.get(part)
        return () if field is None else _choices(field.annotation)
    if annotation is Any:
        return (Any,)
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is dict and isinstance(part, str):
        return _choices(args[1])
    if origin is tuple and isinstance(part, int):
        return _choices(args[0])
    return ()


def _is_section(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, Section)


def _is_text(annotation: Any) -> bool:
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is tuple:
        return any(inner is str for inner in _choices(args[0]))
    return annotation is str or (origin is Literal and any(isinstance(each, str) for each in args))


def _written(field: FieldInfo, default: Any) -> Any:
    kind: Any = field.annotation
    for extra in field.metadata:
        kind = Annotated[kind, extra]
    return TypeAdapter(kind).dump_python(default, mode="json")
