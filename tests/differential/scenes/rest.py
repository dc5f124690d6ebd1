"""HTTP: /v2 and /v1 with JSON and raw tensors, valid and invalid, the pages, and malformed HTTP."""

from __future__ import annotations

import gzip
import json
import socket
import zlib
from typing import Any

import numpy as np
from differential.models import DTYPES
from differential.requests import Array, oip_binary, oip_json, rows
from differential.scene import Notes
from differential.scenes.native import MARKS, typed

X = {"x": rows(1, 2)}
JSON = {"Content-Type": "application/json"}
_TWO = [[1.0, 2.0, 3.0, 4.0], [5.0, 6.0, 7.0, 8.0]]


def _infer(**tensor: Any) -> str:
    given = {"name": "x", "shape": [2, 4], "datatype": "FP32", "data": _TWO, **tensor}
    return json.dumps({"inputs": [{key: value for key, value in given.items() if value is not None}]})


def _body(**more: Any) -> str:
    return oip_json(X, **more)


def _said(dtype: str) -> Array:
    """Values of an element type that JSON can express."""
    return np.array([[b"a", b""]], object) if dtype == "STRING" else typed(dtype)[:1]


OIP_BODIES: dict[str, tuple[str, Any]] = {
    "newest": ("rows", _body()),
    "version": ("rows/versions/1", _body()),
    "label": ("rows/versions/stable", _body()),
    "flat data": ("rows", _infer(data=[1, 2, 3, 4, 5, 6, 7, 8])),
    "id": ("rows", _body(id="request-17")),
    "one output": ("rows", _body(outputs=[{"name": "y"}])),
    "outputs in another order": ("rows", _body(outputs=[{"name": "y"}, {"name": "z"}])),
    "binary outputs": ("rows", _body(parameters={"binary_data_output": True})),
    "one binary output": ("rows", _body(outputs=[{"name": "y", "parameters": {"binary_data": True}}, {"name": "z"}])),
    "classification": ("rows", _body(outputs=[{"name": "y", "parameters": {"classification": 2}}])),
    "priority": ("rows", _body(parameters={"priority": 2})),
    "own parameter": ("rows", _body(parameters={"mine": "yes"})),
    "scalar": ("scalar", oip_json({"x": rows(5), "factor": np.array(3, np.int32)})),
    "free": ("free", oip_json({"in": np.ones((2, 1, 3), np.float32)})),
    "no rows": ("rows", _infer(shape=[0, 4], data=[])),
    "count": ("counting", _body()),
    "split": ("proven", oip_json({"x": rows(*range(70))})),
    "optional left out": ("optional", _body(outputs=[{"name": "y"}])),
    "strings": ("several", oip_json({"inputs": np.array([b"one", b"three"], object)})),
    "ensemble": ("chain", _body()),
    "onnx": ("onnx", _body()),
    "digits": ("digits_onnx", oip_json({"image": np.full((3, 64), 0.5, np.float32)})),
    "unknown model": ("row", _body()),
    "unknown version": ("rows/versions/9", _body()),
    "failed model": ("failing", _body()),
    "no json": ("rows", "{"),
    "nothing": ("rows", ""),
    "array": ("rows", "[]"),
    "no inputs": ("rows", "{}"),
    "empty inputs": ("rows", '{"inputs": []}'),
    "inputs no list": ("rows", '{"inputs": 3}'),
    "input no object": ("rows", '{"inputs": [3]}'),
    "nan in json": ("rows", _infer(data=[1, 2, 3, 4, 5, 6, 7, "x"]).replace('"x"', "NaN")),
    "not utf-8": ("rows", b'{"inputs": "\xff"}'),
    "key twice": ("rows", _infer()[:-1] + ', "inputs": []}'),
    "deep": ("rows", '{"inputs": ' + "[" * 2000 + "]" * 2000 + "}"),
    "unknown input": ("rows", oip_json({**X, "w": rows(1)})),
    "unknown output": ("rows", _body(outputs=[{"name": "yy"}])),
    "output twice": ("rows", _body(outputs=[{"name": "y"}, {"name": "y"}])),
    "outputs no list": ("rows", _body(outputs={})),
    "id no text": ("rows", _body(id=17)),
    "parameters no object": ("rows", _body(parameters=[])),
    "bad priority": ("rows", _body(parameters={"priority": "high"})),
    "bad classification": ("rows", _body(outputs=[{"name": "y", "parameters": {"classification": "two"}}])),
    "sequence": ("rows", _body(parameters={"sequence_id": 7})),
    "no name": ("rows", _infer(name=None)),
    "no shape": ("rows", _infer(shape=None)),
    "no datatype": ("rows", _infer(datatype=None)),
    "no data": ("rows", _infer(data=None)),
    "unknown datatype": ("rows", _infer(datatype="FP33")),
    "other datatype": ("rows", _infer(datatype="FP64")),
    "negative size": ("rows", _infer(shape=[-2, 4])),
    "huge size": ("rows", _infer(shape=[2**62, 4])),
    "size no number": ("rows", _infer(shape=[2, "4"])),
    "width": ("rows", _infer(shape=[2, 5], data=[1] * 10)),
    "too few": ("rows", _infer(data=[1] * 7)),
    "too many": ("rows", _infer(data=[1] * 9)),
    "ragged": ("rows", _infer(data=[[1, 2, 3, 4], [5, 6, 7]])),
    "text for numbers": ("rows", _infer(data=["a"] * 8)),
    "null for numbers": ("rows", _infer(data=[None] * 8)),
    "bool for numbers": ("rows", _infer(data=[True] * 8)),
    "number too large": ("rows", _infer(data=[1e300] * 8)),
    "fraction for whole": ("kind_int64", _infer(name="in", shape=[1, 2], datatype="INT64", data=[1, 2.5])),
    "whole out of range": ("kind_int8", _infer(name="in", shape=[1, 2], datatype="INT8", data=[1, 200])),
    "negative for unsigned": ("kind_uint8", _infer(name="in", shape=[1, 2], datatype="UINT8", data=[1, -1])),
    "half in json": ("kind_fp16", _infer(name="in", shape=[1, 2], datatype="FP16", data=[1, 2])),
    "more rows than a batch may hold": ("rows", oip_json({"x": rows(*range(20))})),
    "shared memory unknown": (
        "rows",
        _infer(data=None, parameters={"shared_memory_region": "no", "shared_memory_byte_size": 32}),
    ),
    **{
        f"type {dtype}": (f"kind_{dtype.lower()}", oip_json({"in": _said(dtype)}))
        for dtype in DTYPES
        if dtype not in ("BF16", "FP16")
    },
    **{f"marked: {name}": ("rows", oip_json({"x": rows(1, mark)})) for name, mark in MARKS.items()},
}  # fmt: skip

TFS_BODIES: dict[str, tuple[str, Any]] = {
    "instances": ("rows", {"instances": [{"x": row} for row in _TWO]}),
    "bare instances": ("rows", {"instances": _TWO}),
    "inputs": ("rows", {"inputs": {"x": _TWO}}),
    "bare inputs": ("rows", {"inputs": _TWO}),
    "version": ("rows/versions/1", {"instances": _TWO}),
    "label": ("rows/labels/stable", {"instances": _TWO}),
    "signature": ("several", {"instances": _TWO, "signature_name": "other"}),
    "strings": ("several", {"signature_name": "classes", "instances": ["one", "three"]}),
    "base64": ("several", {"signature_name": "classes", "instances": [{"b64": "b25l"}, "three"]}),
    "bad base64": ("several", {"signature_name": "classes", "instances": [{"b64": "!"}]}),
    "ensemble": ("chain", {"instances": _TWO}),
    "scalar": ("scalar", {"inputs": {"x": _TWO, "factor": 3}}),
    "scalar in rows": ("scalar", {"instances": [{"x": row, "factor": 3} for row in _TWO]}),
    "digits": ("digits_onnx", {"instances": [[0.5] * 64]}),
    "split": ("proven", {"instances": rows(*range(70)).tolist()}),
    "not finite": ("rows", '{"instances": [[1, 2, NaN, Infinity]]}'),
    "both": ("rows", {"instances": _TWO, "inputs": {"x": _TWO}}),
    "neither": ("rows", {}),
    "null": ("rows", {"instances": None}),
    "empty": ("rows", {"instances": []}),
    "no list": ("rows", {"instances": 3}),
    "ragged": ("rows", {"instances": [[1, 2, 3, 4], [1, 2, 3]]}),
    "width": ("rows", {"instances": [[1, 2, 3]]}),
    "mixed": ("rows", {"instances": [[1, 2, 3, 4], {"x": [1, 2, 3, 4]}]}),
    "text for numbers": ("rows", {"instances": [["a", "b", "c", "d"]]}),
    "unknown key": ("rows", {"instances": _TWO, "more": 1}),
    "unknown input": ("rows", {"instances": [{"w": [1, 2, 3, 4]}]}),
    "unknown signature": ("several", {"instances": _TWO, "signature_name": "clases"}),
    "signature no text": ("several", {"instances": _TWO, "signature_name": 3}),
    "unknown model": ("nobody", {"instances": _TWO}),
    "unknown version": ("rows/versions/9", {"instances": _TWO}),
    "version no number": ("rows/versions/one", {"instances": _TWO}),
    "version too large": ("rows/versions/99999999999999999999", {"instances": _TWO}),
    "unknown label": ("rows/labels/stabel", {"instances": _TWO}),
    "failed model": ("failing", {"instances": _TWO}),
    "no json": ("rows", "{"),
    "nothing": ("rows", ""),
    "not finite answer": ("rows", {"instances": rows(1, -9008).tolist()}),
    **{f"marked: {name}": ("rows", {"instances": rows(1, mark).tolist()}) for name, mark in MARKS.items()},
}

_EXAMPLES = {
    "two": {"examples": [{"inputs": "one"}, {"inputs": "seventeen"}]},
    "classes": {"signature_name": "classes", "examples": [{"inputs": "one"}, {"inputs": "seventeen"}]},
    "values": {"signature_name": "values", "examples": [{"inputs": "one"}, {"inputs": "seventeen"}]},
    "context": {"signature_name": "classes", "context": {"inputs": "all"}, "examples": [{}, {"inputs": "own"}]},
    "none": {"signature_name": "classes", "examples": []},
    "no list": {"signature_name": "classes", "examples": 3},
    "nothing": {},
    "other feature": {"signature_name": "classes", "examples": [{"other": "one"}]},
}


def play_v2(notes: Notes) -> None:
    """Inference at /v2."""
    side = notes.side
    for turn in ("first", "again"):
        for name, (model, body) in OIP_BODIES.items():
            notes.see(f"{name} ({turn})", side.rest("POST", f"/v2/models/{model}/infer", body, JSON))
        for name, (data, headers) in _binaries().items():
            notes.see(f"binary: {name} ({turn})", side.rest("POST", "/v2/models/rows/infer", data, headers))
    for dtype in DTYPES:
        data, headers = oip_binary({"in": typed(dtype)}, parameters={"binary_data_output": True})
        if dtype == "BF16":
            data = data.replace(b"UINT16", b"BF16")
            headers = {"Inference-Header-Content-Length": str(int(headers["Inference-Header-Content-Length"]) - 2)}
        notes.see(f"raw {dtype}", side.rest("POST", f"/v2/models/kind_{dtype.lower()}/infer", data, headers))
    for path in ("generate", "generate_stream", "explain", "infer/more"):
        notes.see(path, side.rest("POST", f"/v2/models/rows/{path}", _body(), JSON))


def _binaries() -> dict[str, tuple[bytes, dict[str, str]]]:
    data, headers = oip_binary(X)
    length = int(headers["Inference-Header-Content-Length"])
    key = "Inference-Header-Content-Length"
    return {
        "right": (data, headers),
        "binary out": oip_binary(X, parameters={"binary_data_output": True}),
        "with json data beside": (data.replace(b'"parameters"', b'"data": [], "parameters"'), {key: str(length + 12)}),
        "length too small": (data, {key: str(length - 1)}),
        "length too large": (data, {key: str(length + 1)}),
        "length past the end": (data, {key: str(len(data) + 1)}),
        "length negative": (data, {key: "-1"}),
        "length no number": (data, {key: "many"}),
        "no length": (data, {}),
        "cut": (data[:-1], headers),
        "more than said": (data + b"\0", headers),
        "size wrong": (data.replace(b'"binary_data_size": 32', b'"binary_data_size": 31'), headers),
    }  # fmt: skip


def play_v1(notes: Notes) -> None:
    """TensorFlow Serving's REST."""
    side = notes.side
    for turn in ("first", "again"):
        for name, (model, body) in TFS_BODIES.items():
            text = body if isinstance(body, str) else json.dumps(body)
            notes.see(f"predict {name} ({turn})", side.rest("POST", f"/v1/models/{model}:predict", text, JSON))
    for verb in ("classify", "regress"):
        for name, given in _EXAMPLES.items():
            answer = side.rest("POST", f"/v1/models/several:{verb}", json.dumps(given), JSON)
            notes.see(f"{verb} {name}", answer)
    for path in (
        "rows", "rows/versions/1", "rows/versions/9", "rows/labels/stable", "rows/labels/none", "several", "failing",
        "nobody", "rows/metadata", "rows/versions/1/metadata", "several/metadata", "chain/metadata", "free/metadata",
        "nobody/metadata", "failing/metadata", "rows:predict", "rows/versions/one", "", "rows/versions/1/labels/stable",
    ):  # fmt: skip
        notes.see(f"GET {path}", side.rest("GET", f"/v1/models/{path}"))
    for verb in ("predikt", "", "predict:predict"):
        notes.see(f"verb {verb!r}", side.rest("POST", f"/v1/models/rows:{verb}", "{}", JSON))


def play_http(notes: Notes) -> None:
    """Methods, paths, content codings, headers, pages, and malformed HTTP."""
    side = notes.side
    path = "/v2/models/rows/infer"
    body = _body()
    for method in ("GET", "HEAD", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "NONSENSE"):
        for where in (path, "/v2", "/metrics", "/healthz", "/nowhere", "/v1/models/rows:predict"):
            answer = side.rest(method, where)
            if where == "/metrics":
                answer.pop("body")  # compared with the metrics
            notes.see(f"{method} {where}", answer)
    for where in (
        "/", "/readyz", "/readyz?x=1", "/healthz/", "//healthz", "/%68ealthz", "/v2/", "/v2/models/rows/",
        "/v2/models/r%6Fws", "/v2/models/rows%2Fversions", "/v2/../v2", "/docs", "/openapi.json", "/ui", "/v3",
        "/v2/models/" + "r" * 3000, "/v2/models/%ff",
    ):  # fmt: skip
        notes.see(f"GET {where[:60]}", side.rest("GET", where))
    for name, headers in {
        "no type": {},
        "other type": {"Content-Type": "text/plain"},
        "type with charset": {"Content-Type": "application/json; charset=utf-8"},
        "other charset": {"Content-Type": "application/json; charset=latin-1"},
        "id": {"X-Request-Id": "mine"},
        "gzip wanted": {"Accept-Encoding": "gzip"},
        "deflate wanted": {"Accept-Encoding": "deflate"},
        "none wanted": {"Accept-Encoding": "identity;q=0"},
        "accept": {"Accept": "text/html"},
        "unknown coding": {"Content-Encoding": "br"},
        "origin": {"Origin": "http://elsewhere.example"},
        "forwarded": {"X-Forwarded-For": "10.0.0.1"},
        "priority": {"inferd-priority": "2"},
        "timeout": {"inferd-timeout": "5s"},
        "grpc timeout": {"grpc-timeout": "5S"},
        "host": {"Host": "elsewhere.example"},
        "close": {"Connection": "close"},
        "upgrade": {"Connection": "Upgrade", "Upgrade": "h2c"},
        "expect": {"Expect": "100-continue"},
        "other expect": {"Expect": "something"},
        "token nobody asked for": {"Authorization": "Bearer something"},
        "many": {f"X-Header-{i}": "v" * 50 for i in range(60)},
    }.items():
        given = headers if name in ("no type", "other type") else {**JSON, **headers}
        notes.see(f"headers: {name}", side.rest("POST", path, body, given))
    for name, data, coding in (
        ("gzip", gzip.compress(body.encode()), "gzip"),
        ("deflate", zlib.compress(body.encode()), "deflate"),
        ("gzip cut", gzip.compress(body.encode())[:-6], "gzip"),
        ("gzip of nothing", b"", "gzip"),
        ("gzip that is none", body.encode(), "gzip"),
        ("gzip bomb", gzip.compress(b" " * 2**23), "gzip"),
        ("gzip twice", gzip.compress(gzip.compress(body.encode())), "gzip, gzip"),
    ):
        notes.see(f"coded: {name}", side.rest("POST", path, data, {**JSON, "Content-Encoding": coding}))
    notes.see("too large", side.rest("POST", path, b" " * (2**22 + 1), JSON))
    for name, lines in _RAW.items():
        notes.see(f"raw: {name}", _raw(notes, lines))


_INFER = b"POST /v2/models/rows/infer HTTP/1.1\r\nHost: h\r\n"
_REST = b"Content-Length: %d\r\n\r\n" % len(_body()) + _body().encode()
_HEALTH = b"GET /healthz HTTP/1.1\r\nHost: h\r\n\r\n"
_RAW = {
    "no http": b"\x00\x01\x02\r\n\r\n",
    "http/0.9": b"GET /healthz\r\n\r\n",
    "http/1.0": b"GET /healthz HTTP/1.0\r\n\r\n",
    "http/2 preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "http/3": b"GET /healthz HTTP/3.0\r\nHost: h\r\n\r\n",
    "no host": b"GET /healthz HTTP/1.1\r\nConnection: close\r\n\r\n",
    "two hosts": b"GET /healthz HTTP/1.1\r\nHost: a\r\nHost: b\r\nConnection: close\r\n\r\n",
    "absolute": b"GET http://h/healthz HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n",
    "two lengths": _INFER + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\n{}  ",
    "bad length": _INFER + b"Content-Length: x\r\n\r\n{}",
    "length and chunks": _INFER + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunks": _INFER + b"Connection: close\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
    "bad chunk": _INFER + b"Transfer-Encoding: chunked\r\n\r\nxyz\r\n{}\r\n0\r\n\r\n",
    "unknown transfer": _INFER + b"Transfer-Encoding: gzip\r\n\r\n",
    "space in a name": b"GET /healthz HTTP/1.1\r\nHost : h\r\n\r\n",
    "bare line feeds": b"GET /healthz HTTP/1.1\nHost: h\nConnection: close\n\n",
    "long line": b"GET /" + b"h" * 70_000 + b" HTTP/1.1\r\nHost: h\r\n\r\n",
    "long headers": b"GET /healthz HTTP/1.1\r\nHost: h\r\nX: " + b"h" * 70_000 + b"\r\n\r\n",
    "three in a row": _HEALTH * 2 + b"GET /readyz HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n",
    "two inferences": _INFER + _REST + _INFER + b"Connection: close\r\n" + _REST,
}  # fmt: skip


def _raw(notes: Notes, data: bytes) -> Any:
    """Sends bytes and closes the sending direction. Gives all that the server sends until it closes the connection."""
    host, port = notes.side.http.rsplit(":", 1)
    with socket.create_connection((host, int(port)), timeout=30) as connection:
        try:
            connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)
            received = b""
            while piece := connection.recv(65536):
                received += piece
        except ConnectionError as error:
            return {"error": type(error).__name__}
    text = received.decode(errors="replace")
    lines = [line for line in text.split("\r\n") if not line.lower().startswith(("date:", "content-length:"))]
    return notes.side.normaliser.value(lines)


def play_control(notes: Notes) -> None:
    """The control routes at /v2."""
    side = notes.side
    for path in (
        "", "/health/live", "/health/ready", "/models/stats", "/models/rows", "/models/rows/versions/1",
        "/models/rows/versions/stable", "/models/rows/versions/9", "/models/nobody", "/models/failing",
        "/models/several", "/models/chain", "/models/free", "/models/scalar", "/models/digits_onnx",
        "/models/rows/ready", "/models/rows/versions/1/ready", "/models/nobody/ready", "/models/failing/ready",
        "/models/rows/config",
        "/models/rows/versions/1/config", "/models/chain/config", "/models/nobody/config", "/models/several/config",
        "/models/rows/stats", "/models/rows/versions/1/stats", "/models/nobody/stats", "/models/rows/trace/setting",
        "/trace/setting", "/logging", "/systemsharedmemory/status", "/systemsharedmemory/region/none/status",
        "/cudasharedmemory/status", "/othersharedmemory/status", "/repository/index", "/models",
    ):  # fmt: skip
        notes.see(f"GET {path}", side.rest("GET", f"/v2{path}"))
    for path, body in (
        ("/repository/index", ""),
        ("/repository/index", "{}"),
        ("/repository/index", '{"ready": true}'),
        ("/repository/index", '{"ready": 1}'),
        ("/repository/index", "["),
        ("/trace/setting", "{}"),
        ("/trace/setting", '{"trace_level": ["OFF"]}'),
        ("/trace/setting", '{"trace_level": ["TIMESTAMPS"]}'),
        ("/models/rows/trace/setting", '{"trace_rate": "1"}'),
        ("/logging", "{}"),
        ("/logging", '{"log_verbose_level": 1}'),
        ("/logging", '{"log_info": true}'),
        ("/logging", '{"log_nothing": true}'),
        ("/cudasharedmemory/region/r/register", '{"raw_handle": {"b64": ""}, "device_id": 0, "byte_size": 1}'),
        ("/cudasharedmemory/unregister", ""),
        ("/repository/models/nobody/load", ""),
        ("/repository/models/nobody/unload", ""),
        ("/repository/models/failing/load", ""),
        ("/repository/models/counting/unload", '{"parameters": {"unload_dependents": true}}'),
        ("/repository/models/counting/load", ""),
        ("/repository/models/counting/load", '{"parameters": {"config": "{"}}'),
        ("/repository/models/counting/load", '{"parameters": {"config": "{\\"max_batch_size\\": 4}"}}'),
        ("/repository/models/counting/load", '{"parameters": {"file:1/model.steps": "e30="}}'),
        ("/repository/models/counting/load", '{"parameters": 3}'),
    ):
        name = f"POST {path} {body}"
        notes.see(name, side.rest("POST", f"/v2{path}", body, JSON))
    notes.see("counting after all", side.rest("GET", "/v2/models/counting/config"))
