"""Parses an inference request of the Open Inference Protocol over REST: JSON, followed by tensors as raw bytes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from inferd.backends.api import Array, Signature
from inferd.server.errors import InvalidRequest
from inferd.server.http.json.arrays import array_of
from inferd.server.http.json.numbers import Numbers
from inferd.server.http.json.text import loads
from inferd.wire.dtypes import DType
from inferd.wire.oip import OipRequest, Parameter, Parameters, SharedInput, WantedOutput
from inferd.wire.tensors import count_of, decode

_DTYPES: Final = {d.oip_name: d for d in DType}
_INT: Final = {int}
_SIZE: Final = "binary_data_size"
_BINARY: Final = "binary_data"
_REGION: Final = "shared_memory_region"


@dataclass(frozen=True, slots=True)
class OutputFormats:
    """How the response has the outputs. Those in `binary` are sent as raw bytes and those in `as_json` as JSON;
    `all_binary` decides for the others."""

    binary: frozenset[str] = frozenset()
    as_json: frozenset[str] = frozenset()
    all_binary: bool = False

    def is_binary(self, output: str) -> bool:
        """Whether this output is sent as raw bytes."""
        return output in self.binary or (self.all_binary and output not in self.as_json)

    @property
    def text(self) -> bool:
        """Whether all outputs are sent as JSON."""
        return not self.binary and not self.all_binary


@dataclass(frozen=True, slots=True)
class RestRequest:
    """A request, and the formats of its outputs in the response."""

    request: OipRequest
    formats: OutputFormats


TEXT: Final = OutputFormats()


def read_request(body: bytes, header_length: str | None, model: str, version: str) -> RestRequest:
    """Parses a body. `header_length` is the value of Inference-Header-Content-Length, None without that header. Raises
    InvalidRequest, TensorError."""
    text, raw = _split(body, header_length)
    given = loads(text)
    if not isinstance(given, dict):
        raise InvalidRequest(f"expected a JSON object, got {_kind(given)}")
    request_id = _member(given, "id", str, "") if "id" in given else ""
    parameters = _object(given, "parameters", "the request") if "parameters" in given else {}
    all_binary = bool(parameters) and _flag(parameters.pop("binary_data_output", False), "binary_data_output")
    inputs: dict[str, Array] = {}
    shared: dict[str, SharedInput] = {}
    used = 0  # bytes behind the JSON that belong to the inputs so far
    for entry in _member(given, "inputs", list, None):
        name, dtype, shape, own = _input(entry, model)
        if name in inputs or name in shared:
            raise InvalidRequest(f"input '{name}' already exists in request for model '{model}'")
        where = f"input '{name}' for model '{model}'"
        if not own:
            inputs[name] = _listed(entry, dtype, shape, where)
        elif _REGION in own:
            if "data" in entry:
                raise InvalidRequest(f"unexpected 'data' provided when using shared memory for {where}")
            shared[name] = SharedInput(dtype, shape, _parameters(own))
        elif _SIZE in own:
            size = own.pop(_SIZE)
            if "data" in entry:
                raise InvalidRequest(f"unexpected 'data' provided when using {_SIZE} for {where}")
            inputs[name] = _raw(name, dtype, shape, body, len(text) + used, size, where)
            used += size
        else:
            inputs[name] = _listed(entry, dtype, shape, where)
    if used != raw:
        raise InvalidRequest(
            f"unexpected additional input data for model '{model}': expected {used} bytes of tensors behind the JSON, "
            f"got {raw}"
        )
    outputs, binary, as_json = _outputs(given)
    request = OipRequest(
        model, version, request_id, _parameters(parameters) if parameters else {}, inputs, outputs, shared
    )
    return RestRequest(request, OutputFormats(binary, as_json, all_binary) if binary or as_json or all_binary else TEXT)


def read_raw_request(body: bytes, model: str, version: str, signature: Signature, *, batched: bool) -> RestRequest:
    """Parses a body without JSON: it is one row of the model's only input, as raw bytes. The response has all outputs
    as raw bytes. Raises InvalidRequest, TensorError."""
    if len(signature.inputs) != 1:
        raise InvalidRequest(
            f"raw binary requests are for models with 1 input: model '{model}' has {len(signature.inputs)}"
        )
    spec = signature.inputs[0]
    where = f"input '{spec.name}' for model '{model}'"
    shape = list(spec.shape or (-1,))
    if batched and shape and shape[0] == -1:
        shape[0] = 1
    if spec.dtype is DType.STRING:
        array = np.empty(1, object)
        array[0] = body
        array = array.reshape([1 if size == -1 else size for size in shape])
    else:
        known = count_of([size for size in shape if size != -1], spec.dtype.itemsize, spec.name) * spec.dtype.itemsize
        if shape.count(-1) > 1 or (-1 in shape and (not known or len(body) % known)):
            raise InvalidRequest(f"the shape of {where} cannot be told from {len(body)} bytes: it is {shape}")
        shape = [len(body) // known if size == -1 else size for size in shape]
        array = decode(spec.name, spec.dtype, tuple(shape), body)
    return RestRequest(OipRequest(model, version, "", {}, {spec.name: array}, (), {}), OutputFormats(all_binary=True))


def _split(body: bytes, header_length: str | None) -> tuple[bytes, int]:
    """The JSON text, and the number of bytes after it."""
    if header_length is None:
        return body, 0
    if not (header_length.isascii() and header_length.isdigit() and len(header_length) < 12):
        raise InvalidRequest(f"Inference-Header-Content-Length: expected a number of bytes, got {header_length!r:.40}")
    length = int(header_length)
    if length > len(body):
        raise InvalidRequest(
            f"Inference-Header-Content-Length: expected at most the {len(body)} bytes of the body, got {length}"
        )
    return body[:length], len(body) - length


def _input(entry: Any, model: str) -> tuple[str, DType, tuple[int, ...], dict[str, Any]]:
    if not isinstance(entry, dict):
        raise InvalidRequest(f"'inputs' must be a list of objects, got {_kind(entry)}")
    name, datatype, shape = entry.get("name"), entry.get("datatype"), entry.get("shape")
    if type(name) is str and type(datatype) is str and type(shape) is list and entry.get("parameters") is None:
        dtype = _DTYPES.get(datatype)
        if dtype is not None and set(map(type, shape)) <= _INT:  # as below, for the usual case
            return name, dtype, tuple(shape), {}
    name = _member(entry, "name", str, None)
    where = f"input '{name[:200]}' for model '{model}'"
    datatype = _member(entry, "datatype", str, None, where)
    if datatype not in _DTYPES:
        raise InvalidRequest(f"unknown datatype '{datatype[:40]}' of {where}; expected one of {', '.join(_DTYPES)}")
    shape = _member(entry, "shape", list, None, where)
    if not all(type(size) is int for size in shape):
        raise InvalidRequest(f"'shape' of {where} must be a list of whole numbers, got {shape!r:.100}")
    return name, _DTYPES[datatype], tuple(shape), _object(entry, "parameters", where)


def _raw(name: str, dtype: DType, shape: tuple[int, ...], body: bytes, start: int, size: Any, where: str) -> Array:
    if type(size) is not int or size < 0:
        raise InvalidRequest(f"'{_SIZE}' of {where} must be a number of bytes, got {size!r:.40}")
    if start + size > len(body):
        raise InvalidRequest(
            f"'{_SIZE}' of {where}: expected at most the {len(body) - start} bytes that are left, got {size}"
        )
    count = count_of(shape, dtype.itemsize, name)
    if dtype is not DType.STRING and size != count * dtype.itemsize:
        raise InvalidRequest(f"input byte size mismatch for {where}. Expected {count * dtype.itemsize}, got {size}")
    try:
        return decode(name, dtype, shape, body, start=start, end=start + size)
    except ImportError as error:
        raise InvalidRequest(f"{where}: {error}") from None


def _listed(entry: Mapping[str, Any], dtype: DType, shape: tuple[int, ...], where: str) -> Array:
    if "data" not in entry:
        raise InvalidRequest(f"{where} has no data: expected 'data', or the parameter '{_SIZE}'")
    if dtype in (DType.FP16, DType.BF16):
        raise InvalidRequest(
            f"sending {dtype.name} data via JSON is not supported. Please use the binary data format for {where}"
        )
    if not isinstance(entry["data"], list | Numbers):
        raise InvalidRequest(f"'data' of {where} must be a list, got {_kind(entry['data'])}")
    count = count_of(shape, dtype.itemsize, where)
    array = array_of(entry["data"], dtype, where)
    if array.size != count:
        raise InvalidRequest(
            f"unexpected number of elements in 'data' of {where}: expected {count} for shape {list(shape)}, got "
            f"{array.size}"
        )
    return array.reshape(shape)


def _outputs(given: Mapping[str, Any]) -> tuple[tuple[WantedOutput, ...], frozenset[str], frozenset[str]]:
    if given.get("outputs") is None:
        return (), _NONE, _NONE
    outputs: list[WantedOutput] = []
    forms: dict[bool, set[str]] = {True: set(), False: set()}
    for entry in _member(given, "outputs", list, []):
        if not isinstance(entry, dict):
            raise InvalidRequest(f"'outputs' must be a list of objects, got {_kind(entry)}")
        name = _member(entry, "name", str, None)
        own = _object(entry, "parameters", f"output '{name[:200]}'")
        if _BINARY in own:
            forms[_flag(own.pop(_BINARY), f"'{_BINARY}' of output '{name[:200]}'")].add(name)
        outputs.append(WantedOutput(name, _parameters(own)))
    return tuple(outputs), frozenset(forms[True]), frozenset(forms[False])


def _parameters(given: Mapping[str, Any]) -> Parameters:
    """Parameters with the kinds that a client would use over gRPC: JSON itself has one kind of number."""
    parameters: Parameters = {}
    for key, value in given.items():
        if isinstance(value, bool):
            parameters[key] = Parameter("bool_param", value)
        elif isinstance(value, int):
            parameters[key] = Parameter("int64_param" if value < 2**63 else "uint64_param", value)
        elif isinstance(value, float):
            parameters[key] = Parameter("double_param", value)
        elif isinstance(value, str):
            parameters[key] = Parameter("string_param", value)
        else:
            raise InvalidRequest(
                f"parameter '{key[:100]}': expected a string, a number, true or false, got {_kind(value)}"
            )
    return parameters


def _member(given: Mapping[str, Any], key: str, kind: type, default: Any, where: str = "the request") -> Any:
    value = given.get(key)
    if type(value) is kind:
        return value
    if value is None:  # null means absent: generated clients write null for members that are not set
        if default is None:
            raise InvalidRequest(f"'{key}' of {where} is missing")
        return default
    if not isinstance(value, kind):
        raise InvalidRequest(f"'{key}' of {where} must be {_NAMED[kind]}, got {_kind(value)}")
    return value


def _object(given: Mapping[str, Any], key: str, where: str) -> dict[str, Any]:
    value: dict[str, Any] = _member(given, key, dict, {}, where)
    return value


def _flag(value: Any, where: str) -> bool:
    if not isinstance(value, bool):
        raise InvalidRequest(f"{where} must be true or false, got {_kind(value)}")
    return value


_NONE: Final[frozenset[str]] = frozenset()
_NAMED: Final[dict[type, str]] = {str: "a string", list: "a list", dict: "an object"}


def _kind(value: Any) -> str:
    return _NAMED.get(type(value)) or ("null" if value is None else f"{value!r:.40}")
