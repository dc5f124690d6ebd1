"""What keys there are: the schema walked by path. For the nearest known key, for raw text, for the documentation."""

from __future__ import annotations

import types
import typing
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import TypeAdapter
from pydantic.fields import FieldInfo

from inferd.server.config.errors import dotted
from inferd.server.config.fields import Section
from inferd.server.config.schema import ModelConfig, ServerConfig

KeyPath = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Key:
    """One key of a schema.

    default    `...` for a key that must be given; `written` is it as a file has it, with its unit
    holder     the section that the key is in
    section    set when the key holds keys of its own, which follow it; `optional`: it may be null
    """

    path: KeyPath
    annotation: Any
    default: Any
    written: Any
    holder: type[Section]
    section: type[Section] | None = None
    optional: bool = False


def all_keys(model: type[Section], above: KeyPath = ()) -> Iterator[Key]:
    """Every key of a schema, a section before what is in it. Items of lists and of free mappings are not keys."""
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
    """The keys of the sections that a list or a mapping by free names holds, as `at[].key` and `at.<name>.key`, those
    further down included. `at`: what the key itself is called."""
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
    """What may stand at a path, unions taken apart; empty where there is no such key."""
    found: tuple[Any, ...] = (root,)
    for depth, part in enumerate(path):
        if root is ServerConfig and depth == 2 and path[0] == "models":
            found = (ModelConfig,)
        found = tuple(inner for kind in found for inner in _below(kind, part))
    if root is ServerConfig and len(path) == 2 and path[0] == "models":
        return (ModelConfig,)
    return found


def section_at(path: Sequence[str | int], root: type[Section] = ServerConfig) -> type[Section] | None:
    """The section whose keys stand below a path."""
    return next((kind for kind in annotations_at(path, root) if _is_section(kind)), None)


def takes_text(path: Sequence[str | int], root: type[Section] = ServerConfig) -> bool:
    """Whether text, or a list of texts, is right at a path."""
    return any(_is_text(kind) for kind in annotations_at(path, root))


def nearest_key(path: Sequence[str | int], root: type[Section] = ServerConfig) -> str:
    """The known key that an unknown one was probably meant to be, dotted; "" when none is near."""
    wrong = str(path[-1])
    section = section_at(path[:-1], root)
    siblings = list(section.model_fields) if section is not None else []
    found = nearest(wrong, siblings)
    if found:
        return dotted((*path[:-1], found))
    # Right key, wrong place: `max_batch_size` at the top. Or two levels misspelt in one.
    inside = ("models", str(path[1])) if root is ServerConfig and len(path) > 2 and path[0] == "models" else ()
    keys = [key.path for key in all_keys(ModelConfig if inside else root)]
    same = [inside + key for key in keys if key[-1] == wrong]
    return dotted(same[0]) if len(same) == 1 else ""


def nearest(wrong: str, known: Sequence[str]) -> str:
    """The known word nearest to a wrong one, "" when none is near."""
    import difflib  # for who has made a mistake only

    found = difflib.get_close_matches(wrong.lower(), [word.lower() for word in known], n=1, cutoff=0.6)
    return next((word for word in known if found and word.lower() == found[0]), "")


def is_mapping(annotation: Any) -> bool:
    """Whether `key: value` pairs are right for an annotation."""
    return _is_section(annotation) or typing.get_origin(annotation) is dict


def is_list(annotation: Any) -> bool:
    """Whether a list is right for an annotation."""
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
