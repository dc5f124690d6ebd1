"""The targets of fuzzing: every reader of bytes that come from callers or from files.

A target is a function of bytes. It returns for any input, also if the reader raises one of its documented errors. It
raises if the reader raises another error, or if a decoder's result differs from that of the generated class.
"""

from __future__ import annotations

import ast
import builtins
import contextlib
import io
import math
import os
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import httptools
import numpy as np

from inferd.backends.api import LoadError, Signature, TensorSpec
from inferd.backends.files import FileRule
from inferd.backends.litert.flatbuffer import Malformed as NoFlatbuffer
from inferd.backends.litert.flatbuffer import MemoryBytes
from inferd.backends.litert.flatbuffer import Truncated as CutShort
from inferd.backends.litert.graph import read_graph
from inferd.backends.litert.independence.proof import analyse_model
from inferd.backends.litert.signatures import entries_of
from inferd.backends.onnx.files import external_path, read_header
from inferd.backends.onnx.messages import Malformed, MemorySource, Truncated
from inferd.backends.tensorflow.files import missing
from inferd.backends.torch.archive import classify
from inferd.backends.torch.exported_archive import check_program, parsed
from inferd.backends.torch.exported_content import ContentRules
from inferd.backends.torch.script_content import check_code, tokens_of
from inferd.backends.torch.script_loading import LoadingCode
from inferd.backends.torch.symbolic_expressions import check_guard, check_size
from inferd.server.compat.batching_parameters import parse_batching_parameters
from inferd.server.compat.model_server_config import parse_models
from inferd.server.compat.pbtxt import parse_triton_config
from inferd.server.compat.text_format import TextFormatError
from inferd.server.compat.triton_json import read_triton_json
from inferd.server.config.document import decode_document, parse_document
from inferd.server.config.errors import ConfigError
from inferd.server.config.load import load_config, model_config
from inferd.server.config.schema import ServerConfig
from inferd.server.errors import LayoutError, ServingError
from inferd.server.http.admission import joined
from inferd.server.http.infer_routes import InferRoutes
from inferd.server.http.json.text import dumps, loads
from inferd.server.http.known_heads import KnownHeads
from inferd.server.http.message import BadRequest, read_head
from inferd.server.lifecycle.loading.declared import declared_samples
from inferd.server.protocols.oip.rest.request import read_request
from inferd.server.protocols.tfs.rest.request import read_document, read_inputs
from inferd.server.protocols.tfs.warmup_records import requests_in
from inferd.server.repository.tree import read_tree
from inferd.wire import fallback, native, oip, tfs
from inferd.wire.dtypes import DType
from inferd.wire.oip import fallback as oip_fallback
from inferd.wire.tensors import WireError
from inferd.wire.tfs import fallback as tfs_fallback

Target = Callable[[bytes], None]
_ARITHMETIC = (
    ast.Expression, ast.Constant, ast.Name, ast.UnaryOp, ast.BinOp, ast.BoolOp, ast.Compare, ast.Tuple, ast.Call,
    ast.keyword, ast.Subscript, ast.Attribute, ast.operator, ast.unaryop, ast.boolop, ast.cmpop, ast.expr_context,
)  # fmt: skip
_HARMLESS = {"min", "max", "abs", "int", "float", "bool", "True", "False"}  # of Python's own functions
_MEMORY = "/dev/shm" if os.path.isdir("/dev/shm") else None  # files of inputs: thousands a second

_SIGNATURE = Signature(
    "serving_default",
    (TensorSpec("x", DType.FP32, (-1, 2)), TensorSpec("text", DType.STRING, (-1,))),
    (TensorSpec("y", DType.FP32, (-1, 1)),),
)


def native_request(data: bytes) -> None:
    """A native PredictRequest: read by hand, then by comparison, both with the result of the generated class."""
    _as_the_class(native.decode_request, fallback.decode_request, data)


def native_response(data: bytes) -> None:
    """A native PredictResponse, which the Python client reads."""
    _as_the_class(native.decode_response, fallback.decode_response, data)


def oip_request(data: bytes) -> None:
    """Triton's ModelInferRequest."""
    _as_the_class(oip.decode_request, oip_fallback.decode_request, data)


def tfs_request(data: bytes) -> None:
    """TensorFlow Serving's PredictRequest."""
    _as_the_class(tfs.decode_request, tfs_fallback.decode_request, data)


def config_yaml(data: bytes) -> None:
    """config.yaml: the YAML document, and its settings."""
    text = _text(data)
    with contextlib.suppress(ConfigError):
        parse_document(text, "config.yaml")
    if "\0" not in text:
        with contextlib.suppress(ConfigError):
            load_config(None, {}, [text])


def pbtxt(data: bytes) -> None:
    """Triton's config.pbtxt, to the settings that follow from it."""
    with contextlib.suppress(LayoutError, ConfigError):
        model_config(ServerConfig(), "m", None, parse_triton_config(data, "config.pbtxt", "m").values)


def model_yaml(data: bytes) -> None:
    """A model's settings, to the arrays of its declared samples."""
    with contextlib.suppress(ConfigError, LoadError):
        config, _ = model_config(ServerConfig(), "m", decode_document(data, "model.yaml"))
        declared_samples(config)


def triton_json(data: bytes) -> None:
    """The parameter `config` of a model load in Triton's protocol."""
    with contextlib.suppress(ServingError, TextFormatError):
        read_triton_json(_text(data))


def models_file(data: bytes) -> None:
    """TensorFlow Serving's models.config and batching parameters."""
    for parse in (parse_models, parse_batching_parameters):
        with contextlib.suppress(ConfigError):
            parse(_text(data), "models.config")


def onnx_header(data: bytes) -> None:
    """The header of an ONNX file, and where its external data lies."""
    with contextlib.suppress(Truncated, Malformed):
        header = read_header(MemorySource(data))
        for location in header.locations():
            path = external_path(Path("/models/m/1/model.onnx"), location)
            assert Path(os.path.normpath(path)).is_relative_to("/models/m/1"), path


def litert_model(data: bytes) -> None:
    """The tables of a LiteRT model, and the analysis of its graph."""
    content = MemoryBytes(data)
    with contextlib.suppress(NoFlatbuffer, CutShort):
        graph = read_graph(content)
        with contextlib.suppress(LoadError):
            for entry in entries_of(graph):
                analyse_model(graph, content, entry.subgraph, entry.inputs, entry.outputs, entry.signature)


def torch_archive(data: bytes) -> None:
    """A torch archive: what it is, by its names."""
    with _file(data) as path, contextlib.suppress(LoadError):
        classify(path)


def exported_archive(data: bytes) -> None:
    """A torch.export archive, as far as it is read before torch loads it: what passes has one content under a name,
    whoever reads it."""
    import torch

    with _file(data) as path:
        try:
            classify(path)
            check_program(torch, data, path.name, ())
        except LoadError:
            return
    reader = torch._C.PyTorchFileReader(io.BytesIO(data))
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        names = {name.partition("/")[2] or name: name for name in archive.namelist() if not name.endswith("/")}
        # Names beyond ASCII have no common encoding in zip archives; check_program compares what torch's reader gives.
        records = [record for record in reader.get_all_records() if record.isascii()]
        assert set(records) <= set(names), (records, names)
        for record in records:
            with contextlib.suppress(
                zipfile.BadZipFile, zlib.error, EOFError, RuntimeError
            ):  # one of them cannot read it
                assert archive.read(names[record]) == reader.get_record(record), record


def exported_program(data: bytes) -> None:
    """The description of a torch.export program: what passes is arithmetic wherever torch evaluates it."""
    with contextlib.suppress(LoadError):
        program = parsed(data, "models/model.json", "model.pt2")
        ContentRules(custom=False).check(program)
        for key, text in _texts(program, ""):
            if key in ("expr_str", "guards_code"):
                _assert_arithmetic(text)


def symbolic_expression(data: bytes) -> None:
    """The texts of an exported program that torch evaluates as Python: what passes is arithmetic."""
    text = _text(data)
    for check in (check_size, check_guard):
        with contextlib.suppress(ValueError):
            check(text)
            _assert_arithmetic(text)


def script_code(data: bytes) -> None:
    """The code in a TorchScript archive."""
    tokens = tokens_of(_text(data))
    loading = LoadingCode()
    loading.add(tokens)
    loading.loop()
    with contextlib.suppress(LoadError):
        check_code(_text(data), "code")


def saved_model(data: bytes) -> None:
    """The file saved_model.pb, as far as it is read without TensorFlow."""
    with tempfile.TemporaryDirectory(dir=_MEMORY) as directory:
        (Path(directory) / "saved_model.pb").write_bytes(data)
        (Path(directory) / "variables").mkdir()
        (Path(directory) / "variables/variables.index").write_bytes(data)
        missing(Path(directory))


def warmup_records(data: bytes) -> None:
    """TensorFlow Serving's recorded warm-up requests."""
    with contextlib.suppress(LoadError):
        list(requests_in(data))


def links(data: bytes) -> None:
    """Files below a root, which links lead in and out: what is read lies inside, as the operating system sees it."""
    with tempfile.TemporaryDirectory(dir=_MEMORY) as directory:
        top = Path(directory)
        (top / "root/a").mkdir(parents=True)
        (top / "out").mkdir()
        (top / "root/a/f").write_text("inside")
        (top / "out/f").write_text("outside")
        parts = (".", "..", "a", "b", "f", "out", "root", str(top), str(top / "root"), "/proc/self/root")
        for name, *target in (data[at : at + 5] for at in range(0, min(len(data), 40), 5)):
            path = top / ("root" if name % 2 else "root/a") / "bcdef"[name // 2 % 5]
            with contextlib.suppress(OSError):
                path.symlink_to(os.path.join(".", *(parts[part % len(parts)] for part in target)))
        rule = FileRule(str(top / "root"))
        for path in (top / "root").rglob("*"):
            with contextlib.suppress(OSError):
                assert rule.read(path) == path.read_bytes()
                assert path.resolve().is_relative_to(top / "root")
        with contextlib.suppress(LayoutError, OSError):
            for file in read_tree(top / "root", rule).files:
                assert (top / "root" / file.path).resolve().is_relative_to(top / "root")


def http_head(data: bytes) -> None:
    """The head of an HTTP request."""
    with contextlib.suppress(BadRequest):
        read_head(data)


def known_head(data: bytes) -> None:
    """A request that may be passed on whole: the parser of HTTP finds the same head, the same body and the same end."""
    end = data.find(b"\r\n\r\n")
    heads = KnownHeads(InferRoutes([("/v2/models/{model}/infer", "/v2/models/(?P<model>[^/]+)/infer", None)]), 1000)  # type: ignore[list-item]
    found = None if end < 0 else heads.of(data[:end])
    if found is None:
        return
    size = end + 4 + found.length
    whole = data[:size].ljust(size, b" ")
    requests = _Requests()
    parser = httptools.HttpRequestParser(requests)
    requests.parser = parser
    for byte in whole[:-1]:  # byte by byte: what is found does not depend on how it comes
        parser.feed_data(bytes((byte,)))
        assert not requests.found, "the request ends earlier"
    parser.feed_data(whole[-1:])
    ((method, version, keep, url, headers, body),) = requests.found
    assert (method, version, keep, body) == (b"POST", "1.1", True, whole[end + 4 :])
    path = httptools.parse_url(url).path
    assert unquote(path.decode("ascii")) == f"/v2/models/{found.target.model}/infer"
    assert joined((name.decode("latin-1").lower(), value.decode("latin-1")) for name, value in headers) == found.headers


class _Requests:
    """The requests that a parser finds."""

    parser: Any

    def __init__(self) -> None:
        self.found: list[tuple[Any, ...]] = []
        self.on_message_begin()

    def on_message_begin(self) -> None:
        self.url = self.body = b""
        self.headers: list[tuple[bytes, bytes]] = []

    def on_url(self, url: bytes) -> None:
        self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name, value))

    def on_body(self, body: bytes) -> None:
        self.body += body

    def on_message_complete(self) -> None:
        version, keep = self.parser.get_http_version(), self.parser.should_keep_alive()
        self.found.append((self.parser.get_method(), version, keep, self.url, self.headers, self.body))


def rest_oip(data: bytes) -> None:
    """The body of /v2/.../infer; depending on the first byte, with the binary extension."""
    header_length = str(data[0]) if data[:1] else None
    for length in (None, header_length):
        with contextlib.suppress(ServingError, WireError):
            read_request(data[1:], length, "m", "")


def rest_tfs(data: bytes) -> None:
    """The body of /v1/...:predict, in row and in column format."""
    with contextlib.suppress(ServingError, WireError):
        document, _ = read_document(data)
        read_inputs(document, _SIGNATURE)


def json(data: bytes) -> None:
    """JSON that is read and written again has the same value."""
    try:
        value = loads(data)
    except ServingError:
        return
    try:
        text = dumps(value)
    except ServingError:
        return
    # JSON cannot express values that are not finite; tensors with such values are written by other code.
    assert _plain(loads(text)) == _plain(value, unfinite=None), (data, text)


TARGETS: dict[str, Target] = {
    target.__name__: target
    for target in (
        native_request, native_response, oip_request, tfs_request, config_yaml, model_yaml, pbtxt, triton_json,
        models_file, onnx_header, litert_model, torch_archive, exported_archive, exported_program, symbolic_expression,
        script_code, saved_model, warmup_records, links, http_head, known_head, rest_oip, rest_tfs, json,
    )
}  # fmt: skip


def _texts(value: Any, key: str) -> Iterator[tuple[str, str]]:
    """The texts in a JSON value, each with the key that it stands under."""
    if isinstance(value, str):
        yield key, value
    elif isinstance(value, dict):
        for name, inner in value.items():
            yield from _texts(inner, name)
    elif isinstance(value, list):
        for inner in value:
            yield from _texts(inner, key)


def _assert_arithmetic(text: str) -> None:
    """Fails for an expression that could do more than compute with numbers and sizes, when it is evaluated."""
    for node in ast.walk(ast.parse(text.strip(), mode="eval")):
        assert isinstance(node, _ARITHMETIC), ast.dump(node)
        if isinstance(node, ast.Attribute):
            assert node.attr in {"size", "stride", "storage_offset", "dim", "numel"}, text
        elif isinstance(node, ast.Name):
            assert ("__" not in node.id and not hasattr(builtins, node.id)) or node.id in _HARMLESS, text
        elif isinstance(node, ast.Constant):
            assert isinstance(node.value, (int, float, str)), text


def _as_the_class(decode: Callable[[bytes], Any], oracle: Callable[[bytes], Any], data: bytes) -> None:
    expected = _outcome(oracle, data)
    for turn in ("at first", "by comparison"):
        found = _outcome(decode, data)
        assert found == expected, f"{turn}: {found!r}; the class says {expected!r}"


def _outcome(decode: Callable[[bytes], Any], data: bytes) -> Any:
    try:
        return _plain(decode(data))
    except WireError as error:
        return type(error).__name__


def _plain(value: Any, **changed: Any) -> Any:
    """A value in a form that can be compared: arrays by type, shape and bytes, messages by their fields, floats by
    their text (floats that are not finite: `unfinite`, if it is given)."""
    if isinstance(value, np.ndarray):
        assert not value.flags.writeable, "a request must not be written to"
        if (
            value.dtype.kind == "f"
        ):  # the generated class converts to Python floats, which turns signalling NaN into quiet NaN
            value = np.where(np.isnan(value), value.dtype.type(np.nan), value)
        # Flattened, because an empty array can have very many rows, and each would become a list.
        return str(value.dtype), value.shape, value.ravel().tolist() if value.dtype == object else value.tobytes()
    if isinstance(value, dict):
        # Sorted by name, because TensorFlow Serving's messages have tensors in maps, which have no order.
        return sorted((key, _plain(item, **changed)) for key, item in value.items())
    if isinstance(value, list | tuple):
        return [_plain(item, **changed) for item in value]
    if isinstance(value, float):
        return repr(value) if math.isfinite(value) else changed.get("unfinite", repr(value))
    slots = getattr(type(value), "__slots__", None)
    if slots is not None and type(value).__module__.startswith("inferd."):
        # `form` says how the message was read, not what it says.
        return [(slot, _plain(getattr(value, slot))) for slot in slots if slot != "form"]
    return value


@contextlib.contextmanager
def _file(data: bytes) -> Iterator[Path]:
    with tempfile.NamedTemporaryFile(dir=_MEMORY, suffix=".pt") as file:
        file.write(data)
        file.flush()
        yield Path(file.name)


def _text(data: bytes) -> str:
    return data.decode("utf-8", "replace")
