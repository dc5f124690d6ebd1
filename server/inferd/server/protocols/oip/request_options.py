"""The options in the parameters of a request, with Triton's rules for their types."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from inferd.server.errors import InvalidRequest, Unsupported
from inferd.server.inference.shared_memory import RegionPlace, Regions
from inferd.wire.oip import OipRequest, Parameter, Parameters

_EMPTY_FINAL = "triton_enable_empty_final_response"
_NO_REGIONS = Regions(None, 0)


@dataclass(frozen=True, slots=True)
class RequestOptions:
    """The options of one request.

    priority        0 for the model's default
    queue_timeout   in seconds, None for none
    classes         by output: how many top classes to return instead of its values
    sources         by input: the place in shared memory to read it from
    targets         by output: the place in shared memory to write it to
    """

    priority: int
    queue_timeout: float | None
    classes: Mapping[str, int]
    sources: Mapping[str, RegionPlace] = field(default_factory=dict)
    targets: Mapping[str, RegionPlace] = field(default_factory=dict)

    @property
    def shared(self) -> bool:
        """Whether the request uses shared memory."""
        return bool(self.sources or self.targets)


DEFAULTS = RequestOptions(0, None, {})


def request_options(request: OipRequest, regions: Regions = _NO_REGIONS) -> RequestOptions:
    """The options of a request. Raises InvalidRequest for a parameter of a wrong type or value, NotFound for an unknown
    region of shared memory, Unsupported for an option that the server does not offer."""
    plain = not request.parameters and not request.shared
    if plain and not any(output.parameters for output in request.outputs):
        return DEFAULTS
    sources = {}
    for name, given in request.shared.items():
        place = regions.place(f"input '{name}'", given.parameters)
        if place is not None:
            sources[name] = place
    regions.admit(sum(place.size for place in sources.values()))
    classes = {}
    targets = {}
    for output in request.outputs:
        target = regions.place(f"output '{output.name}'", output.parameters)
        count = _classes(output.parameters)
        if count and target is not None:
            raise InvalidRequest(f"output '{output.name}': classification and shared memory exclude each other")
        if count:
            classes[output.name] = count
        if target is not None:
            targets[output.name] = target
    priority, timeout = _queueing(request.parameters)
    return RequestOptions(priority, timeout, classes, sources, targets)


def _queueing(parameters: Parameters) -> tuple[int, float | None]:
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
    return priority, timeout


def _classes(parameters: Parameters) -> int:
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
