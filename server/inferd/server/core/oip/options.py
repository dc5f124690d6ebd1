"""What the parameters of a request ask for, with Triton's rules for their types."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from inferd.server.errors import InvalidRequest, Unsupported
from inferd.wire.oip import OipRequest, Parameter, Parameters

_EMPTY_FINAL = "triton_enable_empty_final_response"
_SHARED_MEMORY = ("shared_memory_region", "shared_memory_byte_size", "shared_memory_offset")


@dataclass(frozen=True, slots=True)
class Options:
    """priority: 0 for the model's default. queue_timeout: seconds, None for none. classes: by output, how many of its
    classes are wanted instead of its values."""

    priority: int
    queue_timeout: float | None
    classes: Mapping[str, int]


_NOTHING = Options(0, None, {})


def options(request: OipRequest) -> Options:
    """Raises InvalidRequest for a parameter of a wrong type or value, Unsupported for what is not offered here."""
    if request.shared:
        raise _no_shared_memory("input", next(iter(request.shared)))
    classes = {}
    for output in request.outputs:
        if output.parameters:
            count = _classes(output.name, output.parameters)
            if count:
                classes[output.name] = count
    if not request.parameters:
        return Options(0, None, classes) if classes else _NOTHING
    return _options(request.parameters, classes)


def _options(parameters: Parameters, classes: Mapping[str, int]) -> Options:
    priority = 0
    timeout: float | None = None
    for key, given in parameters.items():
        if key == "priority":
            priority = _number(key, given, ("int64_param", "uint64_param"))
        elif key == "timeout":
            microseconds = _number(key, given, ("int64_param",))
            timeout = microseconds * 1e-6 if microseconds else None
        elif key == "sequence_id":
            if given.kind not in ("int64_param", "string_param"):
                raise _wrong(key, given, "int64_param or string_param")
            if given.value:
                raise Unsupported(
                    "sequences are not supported: requests of a sequence_id are not kept together. A model that keeps "
                    "state in its inputs and outputs is called without sequence_id"
                )
        elif key in ("sequence_start", "sequence_end", _EMPTY_FINAL):
            if given.kind != "bool_param":
                raise _wrong(key, given, "bool_param")
        elif key.startswith("triton_"):
            raise InvalidRequest(
                f"parameter keys starting with 'triton_' are reserved for Triton usage; got {key[:100]!r}. Only the "
                f"following keys starting with 'triton_' are allowed: {_EMPTY_FINAL}"
            )
    return Options(priority, timeout, classes)


def _classes(output: str, parameters: Parameters) -> int:
    if any(key in parameters for key in _SHARED_MEMORY):
        raise _no_shared_memory("output", output)
    given = parameters.get("classification")
    if given is None:
        return 0
    count = _number("classification", given, ("int64_param",))
    if count == 0:
        raise _wrong("classification", given, "int64_param above 0")
    return count


def _number(key: str, given: Parameter, kinds: tuple[str, ...]) -> int:
    if given.kind not in kinds:
        raise _wrong(key, given, " or ".join(kinds))
    number = int(given.value)
    if number < 0:
        raise _wrong(key, given, f"{' or '.join(kinds)} of at least 0")
    return number


def _wrong(key: str, given: Parameter, expected: str) -> InvalidRequest:
    return InvalidRequest(
        f"invalid value for parameter '{key}': expected {expected}, got {given.kind or 'nothing'} {given.value!r:.100}"
    )


def _no_shared_memory(kind: str, name: str) -> Unsupported:
    return Unsupported(f"{kind} '{name[:200]}' names a shared memory region: client shared memory is not offered here")
