"""docs/reference/client.md: every public name of `inferd.client`, from its docstrings and signatures."""

from __future__ import annotations

import ast
import enum
import inspect
import re
from pathlib import Path
from typing import Any

from tools.documentation.docstrings import markdown

import inferd.client

HEAD = """\
# Python client API

**Task: look up a class, a method or an argument of `inferd.client`.** In a terminal, Python shows the same text:

```console
$ python -c "import inferd.client; help(inferd.client.Client.predict)"
```

[Clients](../clients.md) explains them by task, and the [recipes](../recipes.md) show whole programs. This page is
generated from the source: do not edit it.
"""
GROUPS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("Clients", ("Client", "AsyncClient", "PredictStream", "AsyncPredictStream")),
    ("Inputs and answers", ("Inputs", "InputValue", "Prediction")),
    ("Settings of a client", ("RetryPolicy", "NO_RETRIES", "Tls", "KeepAlive")),
    (
        "What the server says about models",
        (
            "ModelMetadata",
            "Signature",
            "TensorSpec",
            "DType",
            "ModelStatus",
            "VersionStatus",
            "VersionState",
            "VersionChange",
            "Override",
            "AdminReply",
        ),
    ),
)

MADE_BY_CLIENTS = ("AsyncPredictStream", "PredictStream", "Prediction")
"""Nobody else makes these, so their arguments are not shown."""


def page() -> str:
    """The text of the page. Names that no group lists follow under "Types and errors"."""
    grouped = {name for _, names in GROUPS for name in names}
    public = list(inferd.client.__all__)
    unknown = grouped - set(public)
    if unknown:
        raise ValueError(f"expected public names of inferd.client, got {sorted(unknown)}")
    errors = [name for name in public if name not in grouped and _is_error(name)]
    types = [name for name in public if name not in grouped and not _is_error(name)]
    parts = [HEAD.rstrip()]
    for title, names in (*GROUPS, ("Types", tuple(types)), ("Errors", tuple(errors))):
        if names:
            parts.append(f"## {title}")
            parts.extend(_entry(name) for name in names)
    return "\n\n".join(parts) + "\n"


def _is_error(name: str) -> bool:
    thing = getattr(inferd.client, name)
    return isinstance(thing, type) and issubclass(thing, BaseException)


def _entry(name: str) -> str:
    thing = getattr(inferd.client, name)
    parts = [f"### {name}"]
    if isinstance(thing, type):
        if name not in MADE_BY_CLIENTS and not issubclass(thing, enum.Enum | BaseException):
            parts.append(_block(name, thing))
        if issubclass(thing, BaseException):
            bases = ", ".join(f"`{base.__name__}`" for base in thing.__bases__)
            parts.append(f"A subclass of {bases}.")
        parts.append(markdown(thing.__doc__))
        if issubclass(thing, enum.Enum):
            parts.append("Members: " + ", ".join(f"`{member.name}`" for member in thing) + ".")
        else:
            parts.extend(_methods(thing))
    else:
        parts.extend(_value(name))
    return "\n\n".join(part for part in parts if part)


def _value(name: str) -> list[str]:
    """A name that is no class, such as a type alias: its definition and the text below it, from the source."""
    for module in sorted((Path(inferd.client.__file__).parent / "_shared").glob("*.py")):
        source = module.read_text()
        body = ast.parse(source).body
        for statement, text in zip(body, [*body[1:], None], strict=True):
            targets = statement.targets if isinstance(statement, ast.Assign) else [getattr(statement, "target", None)]
            if any(isinstance(target, ast.Name) and target.id == name for target in targets):
                doc = text.value if isinstance(text, ast.Expr) else None
                words = doc.value if isinstance(doc, ast.Constant) else ""
                return [f"```python\n{ast.get_source_segment(source, statement)}\n```", markdown(words)]
    raise ValueError(f"expected {name} to be defined in inferd.client._shared, got no such name")


def _methods(cls: type[Any]) -> list[str]:
    found = []
    for name, member in inspect.getmembers(cls):
        if name.startswith("_") or not (inspect.isfunction(member) or isinstance(member, property | classmethod)):
            continue
        if not inspect.getdoc(member) or _foreign(cls, name):
            continue
        if isinstance(member, property):
            found.append(f"#### {cls.__name__}.{name}\n\n{markdown(member.__doc__)}")
        else:
            found.append(f"#### {cls.__name__}.{name}\n\n{_block(name, member)}\n\n{markdown(inspect.getdoc(member))}")
    return found


def _foreign(cls: type[Any], name: str) -> bool:
    """Whether the member comes from the standard library, such as Mapping.get."""
    owner = next(base for base in cls.__mro__ if name in vars(base))
    return not owner.__module__.startswith("inferd.")


def _block(name: str, thing: Any) -> str:
    text = f"{name}{_signature(thing)}"
    return f"```python\n{text}\n```"


def _signature(thing: Any) -> str:
    """The signature, one argument a line where it is long."""
    try:
        signature = inspect.signature(thing)
    except ValueError:
        return "(...)"
    words, star = [], False
    for parameter in signature.parameters.values():
        if parameter.name == "self":
            continue
        if parameter.kind is parameter.KEYWORD_ONLY and not star:
            words.append("*")
            star = True
        star = star or parameter.kind is parameter.VAR_POSITIONAL
        words.append(_shown(parameter))
    returned = signature.return_annotation
    arrow = "" if returned in (signature.empty, None, "None") else f" -> {_shown(returned)}"
    line = f"({', '.join(words)}){arrow}"
    return line if len(line) < 90 else "(\n" + "".join(f"    {word},\n" for word in words) + f"){arrow}"


def _shown(thing: Any) -> str:
    """An argument with its type and default, or a type. Annotations are text, which `inspect` shows in quotes."""
    if not isinstance(thing, inspect.Parameter):
        return str(thing)
    star = {thing.VAR_POSITIONAL: "*", thing.VAR_KEYWORD: "**"}.get(thing.kind, "")
    annotation = "" if thing.annotation is thing.empty else f": {thing.annotation}"
    default = "" if thing.default is thing.empty else f" = {_default(thing.default)}"
    return f"{star}{thing.name}{annotation}{default}"


def _default(value: Any) -> str:
    text = re.sub(r"<object object at [^>]*>|<factory>", "...", repr(value))
    return re.sub(r"<(\w+\.\w+): [^>]*>", r"\1", text)
