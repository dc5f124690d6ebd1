"""The seeds of fuzzing: for each target, inputs as usual programs write them."""

from __future__ import annotations

import io
import json
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from support.litert_graphs import written
from support.litert_models import float_digits

from inferd.oip.v1 import infer_pb2 as oip_pb
from inferd.tfs.v1 import prediction_service_pb2 as tfs_pb
from inferd.v1 import predict_service_pb2 as pb
from inferd.wire import native

_X = np.arange(4, dtype=np.float32).reshape(2, 2)
_TEXT = np.array([b"a", b"", "ü".encode()], object)


def _native_requests() -> list[bytes]:
    return [
        native.encode_request("m", {"x": _X}),
        native.encode_request("m", {"x": _X, "text": _TEXT}, version=3, signature="s", outputs=("y",), request_id="r"),
        native.encode_request("m", {"x": np.ones((0, 3), bool)}, label="stable", priority=2, queue_timeout_us=10),
        pb.PredictRequest(inputs=[pb.PredictRequest().inputs.add(name="x", dtype=11, shape=[2**62, 2**62])])
        .SerializeToString(),
    ]  # fmt: skip


def _native_responses() -> list[bytes]:
    return [
        native.encode_response("m", 3, "serving_default", {"y": _X, "text": _TEXT}, "r"),
        native.encode_response("m", 1, "", {}, ""),
    ]


def _oip() -> list[bytes]:
    raw = oip_pb.ModelInferRequest(model_name="m", model_version="1", id="r")
    raw.inputs.add(name="x", datatype="FP32", shape=[2, 2])
    raw.raw_input_contents.append(_X.tobytes())
    raw.inputs.add(name="text", datatype="BYTES", shape=[1])
    raw.raw_input_contents.append(struct.pack("<I", 2) + b"ab")
    raw.outputs.add(name="y").parameters["classification"].int64_param = 2
    typed = oip_pb.ModelInferRequest(model_name="m")
    typed.inputs.add(name="x", datatype="FP32", shape=[2]).contents.fp32_contents.extend([1, 2])
    typed.inputs.add(name="b", datatype="BOOL", shape=[1]).contents.bool_contents.append(True)
    typed.parameters["priority"].uint64_param = 1
    shared = oip_pb.ModelInferRequest(model_name="m")
    tensor = shared.inputs.add(name="x", datatype="FP32", shape=[2])
    tensor.parameters["shared_memory_region"].string_param = "r"
    tensor.parameters["shared_memory_byte_size"].int64_param = 8
    return [message.SerializeToString() for message in (raw, typed, shared)]


def _tfs() -> list[bytes]:
    content, listed = tfs_pb.PredictRequest(), tfs_pb.PredictRequest(output_filter=["y"])
    for request in (content, listed):
        request.model_spec.name = "m"
        request.model_spec.signature_name = "serving_default"
    content.model_spec.version.value = 1
    tensor = content.inputs["x"]
    tensor.dtype = 1
    for size in (2, 2):
        tensor.tensor_shape.dim.add(size=size)
    tensor.tensor_content = _X.tobytes()
    tensor = listed.inputs["x"]
    tensor.dtype = 1
    tensor.tensor_shape.dim.add(size=5)
    tensor.float_val.extend([1, 2])
    text = listed.inputs["text"]
    text.dtype = 7
    text.tensor_shape.dim.add(size=1)
    text.string_val.append(b"a")
    return [message.SerializeToString() for message in (content, listed)]


def _field(number: int, content: bytes) -> bytes:
    return bytes([number << 3 | 2, len(content)]) + content


def _onnx() -> list[bytes]:
    entries = {"location": "w.bin", "offset": "16"}
    external = b"".join(_field(13, _field(1, k.encode()) + _field(2, v.encode())) for k, v in entries.items())
    tensor = b"\x08\x02\x10\x01" + _field(8, b"w") + external + b"\x70\x01"
    shape = _field(1, b"\x08\x02") + _field(1, _field(2, b"N"))
    value = _field(1, b"x") + _field(2, _field(1, b"\x08\x01" + _field(2, shape)))
    node = _field(1, b"x") + _field(2, b"y") + _field(4, b"Add")
    graph = _field(1, node) + _field(5, tensor) + _field(11, value) + _field(12, value)
    return [b"\x08\x08" + _field(7, graph) + _field(8, b"\x10\x11")]


def _litert() -> list[bytes]:
    def words(g: Any, x: Any) -> Any:
        return g("RESHAPE", x, g("CONCATENATION", g("STRIDED_SLICE", g("SHAPE", x, kind="INT32"), [0], [1], [1]), [4]))

    return [
        written(words, ("STRING", (-1, 4))),
        written(
            lambda g, x: g("SOFTMAX", g("FULLY_CONNECTED", x, np.ones((3, 4), np.float32), None)), ("FLOAT32", (-1, 4))
        ),
        float_digits()[:4096],
    ]


def _archives() -> list[bytes]:
    found = []
    for names in (("m/code/__torch__.py", "m/data.pkl", "m/version"), ("m/models/model.json", "m/archive_format")):
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w") as archive:
            for name in names:
                archive.writestr(zipfile.ZipInfo(name), b"x")
        found.append(file.getvalue())
    return found


def _exported() -> dict[str, bytes]:
    """The entries of a real torch.export program. Its weights are left out: they would be most of what is mutated."""
    with zipfile.ZipFile(_PROGRAM) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    return {name: data if len(data) < 10_000 else data[:64] for name, data in entries.items()}


def _exported_archives() -> list[bytes]:
    found = []
    for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w", method) as archive:
            for name, data in _exported().items():
                archive.writestr(zipfile.ZipInfo(name), data, method)
        found.append(file.getvalue())
    return found


def _exported_programs() -> list[bytes]:
    program = json.loads(_exported()["model/models/model.json"])
    graph = program["graph_module"]["graph"]
    graph["nodes"], graph["tensor_values"] = graph["nodes"][:1], dict(list(graph["tensor_values"].items())[-1:])
    guarded = {**program, "guards_code": ["L['x'].size()[0] <= 8", "2 <= L['x'].size()[0]"]}
    return [json.dumps(each).encode() for each in (program, guarded)]


def _records() -> list[bytes]:
    found = []
    for request in _tfs():
        log = bytes([6 << 3 | 2]) + _varint(len(request) + 3) + b"\x0a" + _varint(len(request)) + request
        found.append(struct.pack("<QI", len(log), 0) + log + bytes(4))
    return found


def _varint(value: int) -> bytes:
    return bytes([value & 127 | 128, value >> 7])


_PROGRAM = Path(__file__).resolve().parents[2] / "model_repository" / "digits_pt2" / "1" / "model.pt2"
_PBTXT = b"""
name: "m" platform: "onnxruntime_onnx" max_batch_size: 8
input [{ name: "x" data_type: TYPE_FP32 dims: [ -1, 2 ] reshape: { shape: [ 2 ] } }]
output { name: "y", data_type: TYPE_FP32; dims: 1 } # a comment
instance_group [{ count: 2 kind: KIND_CPU }]
dynamic_batching { preferred_batch_size: [4, 8] max_queue_delay_microseconds: 100 }
version_policy: { specific { versions: 1 versions: 2 } }
parameters { key: "k" value: { string_value: 'v\\n\\x41\\101' } }
"""
_MODELS = b"""
model_config_list { config { name: "m" base_path: "/models/m" model_platform: "tensorflow"
  model_version_policy { specific { versions: 1 } } version_labels { key: "stable" value: 1 } } }
"""
_BINARY = b'{"inputs":[{"name":"x","datatype":"FP32","shape":[2],"parameters":{"binary_data_size":8}}]}'

SEEDS: dict[str, list[bytes]] = {
    "native_request": _native_requests(),
    "native_response": _native_responses(),
    "oip_request": _oip(),
    "tfs_request": _tfs(),
    "config_yaml": [
        b"server: {listen: ['0.0.0.0:8001'], workers: 2}\nmodels:\n  m: {batching: {max_batch_size: 8}}\n",
        b"queue.requests=10",
        b"a: &a [1, 2]\nb: [*a, *a]\n",
        b"grpc.max_message=64MiB",
    ],
    "pbtxt": [_PBTXT],
    "model_yaml": [
        b"backend: onnx\nbatching: {mode: trusted, max_batch_size: 8, padding: {x: [8, 16]}}\n"
        b"instances: {count: 2, device: [cpu, auto], threads: 2}\nversion_policy: {latest: 2}\nlabels: {stable: 1}\n",
        b"signatures:\n  - inputs: [{name: x, dtype: FP32, shape: [-1, 2], sample: [1, 2.5]}, {name: t, dtype: STRING, "
        b"sample: ['a', 'b']}]\n    outputs: [{name: y, dtype: BF16, labels: l.txt}]\n",
        b"a: &a {b: [1]}\nwarmup: {runs: 2, samples: [{inputs: {x: {dtype: INT8, shape: [2]}}}]}\n<<: *a\n",
        b"ensemble: [{model: m, version: 1, inputs: {a: b}, outputs: {c: d}}]\nworker: {hang: 5s, memory: 1GiB}\n",
    ],
    "onnx_header": _onnx(),
    "litert_model": _litert(),
    "torch_archive": _archives(),
    "exported_archive": _exported_archives(),
    "exported_program": _exported_programs(),
    "symbolic_expression": [
        b"Symbol('s40', positive=True, integer=True)",
        b"Mul(Integer(2), Pow(Symbol('s0', integer=True), Integer(2)))",
        b"Max(1, FloorDiv(Symbol('u0') + 3, Integer(2))) % 8",
        b"L['x'].size()[0] <= 8 and 2 <= L['x']['a'][0].stride(1)",
    ],
    "script_code": [
        b"class A(Module):\n  def __setstate__(self, s: int) -> NoneType:\n    _0 = (self).turn(s, )\n"
        b"    for i in range(3):\n      pass\n    return None\n",
        b"def forward(self: __torch__.A, x: Tensor) -> Tensor:\n  _0 = torch.add(x, CONSTANTS.c0)\n"
        b"  return ops.prim.f(_0)\n",
    ],
    "saved_model": [b"\x08\x01\x12\x04VarHandleOp", b"x" * 40 + b"\x57\xfb\x80\x8b\x24\x75\x47\xdb"],
    "warmup_records": _records(),
    "links": [bytes(range(40)), b"\x00\x01\x01\x05\x04" * 4, b"\x01\x09\x02\x03\x04\x02\x07\x05\x04\x00"],
    "triton_json": [b'{"name": "m", "maxBatchSize": "4", "input": [{"name": "x", "dims": ["-1"], "data_type": 11}]}'],
    "models_file": [_MODELS, b"max_batch_size { value: 32 } batch_timeout_micros { value: 100 } thread_pool_name: 'p'"],
    "http_head": [b"GET /metrics?x=1 HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\n", b"POST / HTTP/1.0\r\n\r\n"],
    "known_head": [
        b"POST /v2/models/m/infer?a=b HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\n{}\n",
        b"POST /v2/models/a%20b/infer HTTP/1.1\r\nhost: h:1\r\nX-A: 1\r\nx-a:  2\r\nConnection: keep-alive\r\n"
        b"Content-Length: 12\r\n\r\nGET / HTTP/1",
        b"POST /v2/models/m/infer HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ],
    "rest_oip": [
        b'\x00{"id": "r", "inputs": [{"name": "x", "datatype": "FP32", "shape": [2, 2], "data": [[1, 2], [3, 4]]}],'
        b' "outputs": [{"name": "y", "parameters": {"binary_data": true}}]}',
        bytes([len(_BINARY)]) + _BINARY + _X.tobytes()[:8],
    ],
    "rest_tfs": [
        b'{"signature_name": "s", "instances": [{"x": [1, 2], "text": {"b64": "YQ=="}}]}',
        b'{"inputs": {"x": [[1, 2.5]], "text": ["a"]}}',
    ],
    "json": [
        b'{"a": [1, -2.5e3, true, null, "\\u00fc\\ud83d\\ude00"], "b": {"c": []}}',
        b"[1e400]",
        b"[NaN, Infinity]",
    ],
}
"""The seeds by target."""
