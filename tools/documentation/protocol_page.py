"""docs/reference/protocol.md: inferd's own gRPC API, from the comments in proto/inferd/v1."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
    FileDescriptorSet,
    ServiceDescriptorProto,
)
from tools.documentation.docstrings import escaped

ROOT = Path(__file__).resolve().parents[2]
PROTOS = ("predict_service", "model_service", "tensor")
HEAD = """\
# gRPC API

**Task: call inferd from a language without a client.** The three `.proto` files in `proto/inferd/v1` are the whole API:

```console
$ protoc -I proto --go_out=. --go-grpc_out=. proto/inferd/v1/*.proto
```

[Clients](../clients.md#other-languages) has examples in Go, Java and Node.js. The server also speaks the Open Inference
Protocol and TensorFlow Serving's API: see [Protocols](../protocols.md). This page is generated from the `.proto` files:
do not edit it.
"""
# Numbers of fields in descriptor.proto, which make up the paths of comments.
_MESSAGES, _ENUMS, _SERVICES, _FIELDS, _VALUES, _METHODS = 4, 5, 6, 2, 2, 2


def page(python: Path) -> str:
    """The text of the page. `python`: an interpreter with grpcio-tools, which reads the files with their comments."""
    with tempfile.TemporaryDirectory(prefix="inferd-protos-") as folder:
        out = Path(folder) / "set"
        names = [f"inferd/v1/{name}.proto" for name in PROTOS]
        subprocess.run(
            [python, "-m", "grpc_tools.protoc", f"-I{ROOT / 'proto'}", "--include_source_info", f"-o{out}", *names],
            check=True,
        )
        files = {file.name: file for file in FileDescriptorSet.FromString(out.read_bytes()).file}
    parts = [HEAD.rstrip()]
    for name in names:
        parts.extend(_file(files[name]))
    return "\n\n".join(parts) + "\n"


class _Comments:
    """The comments of a file by the path of what they describe."""

    def __init__(self, file: FileDescriptorProto) -> None:
        self._found = {
            tuple(place.path): " ".join((place.leading_comments or place.trailing_comments).split())
            for place in file.source_code_info.location
        }
        first = next((place for place in file.source_code_info.location if list(place.path) == [12]), None)
        detached = [*first.leading_detached_comments, first.leading_comments] if first is not None else []
        self.head = " ".join(" ".join(detached).split())

    def of(self, *path: int) -> str:
        return self._found.get(path, "")


def _file(file: FileDescriptorProto) -> Iterator[str]:
    comments = _Comments(file)
    yield f"## {Path(file.name).name}"
    if comments.head:
        yield comments.head
    for number, service in enumerate(file.service):
        yield from _service(service, comments, number)
    for number, enum in enumerate(file.enum_type):
        yield from _enum(enum, comments, (_ENUMS, number))
    for number, message in enumerate(file.message_type):
        yield from _message(message, comments, (_MESSAGES, number))


def _service(service: ServiceDescriptorProto, comments: _Comments, number: int) -> Iterator[str]:
    yield f"### {service.name}"
    if comments.of(_SERVICES, number):
        yield comments.of(_SERVICES, number)
    rows = []
    for index, method in enumerate(service.method):
        asked = f"{'stream ' if method.client_streaming else ''}{_short(method.input_type)}"
        given = f"{'stream ' if method.server_streaming else ''}{_short(method.output_type)}"
        meaning = escaped(comments.of(_SERVICES, number, _METHODS, index))
        rows.append(f"| `{method.name}` | {asked} | {given} | {meaning} |")
    yield "| method | request | answer | meaning |\n| --- | --- | --- | --- |\n" + "\n".join(rows)


def _enum(enum: EnumDescriptorProto, comments: _Comments, path: tuple[int, ...]) -> Iterator[str]:
    yield f"### {enum.name}"
    if comments.of(*path):
        yield comments.of(*path)
    rows = [
        f"| {value.number} | `{value.name}` | {escaped(comments.of(*path, _VALUES, index))} |"
        for index, value in enumerate(enum.value)
    ]
    yield "| number | name | meaning |\n| --- | --- | --- |\n" + "\n".join(rows)


def _message(message: DescriptorProto, comments: _Comments, path: tuple[int, ...]) -> Iterator[str]:
    yield f"### {message.name}"
    if comments.of(*path):
        yield comments.of(*path)
    maps = {nested.name: nested for nested in message.nested_type if nested.options.map_entry}
    rows = []
    for index, field in enumerate(message.field):
        meaning = comments.of(*path, _FIELDS, index)
        if field.HasField("oneof_index") and not field.proto3_optional:
            choice = message.oneof_decl[field.oneof_index].name
            meaning = f"(one of `{choice}`) {meaning}"
        rows.append(f"| {field.number} | `{field.name}` | {_type(field, maps)} | {escaped(meaning)} |")
    if rows:
        yield "| number | field | type | meaning |\n| --- | --- | --- | --- |\n" + "\n".join(rows)


def _type(field: FieldDescriptorProto, maps: dict[str, DescriptorProto]) -> str:
    entry = maps.get(field.type_name.rpartition(".")[2])
    if entry is not None:
        return f"map of {_type(entry.field[0], {})} to {_type(entry.field[1], {})}"
    name = _short(field.type_name) if field.type_name else FieldDescriptorProto.Type.Name(field.type)[5:].lower()
    return f"list of {name}" if field.label == FieldDescriptorProto.LABEL_REPEATED else name


def _short(name: str) -> str:
    """The name without its package; with a link if this page has it."""
    short = name.rpartition(".")[2]
    return f"[{short}](#{short.lower()})" if name.startswith(".inferd.v1.") else short
