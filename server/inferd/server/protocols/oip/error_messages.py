"""Error messages for refused models and inputs, worded as Triton words them: clients and their tests match on them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from inferd.backends.api import Array, Signature, TensorSpec
from inferd.server.errors import InvalidRequest, NotFound, Unavailable
from inferd.server.inference.interfaces import Check
from inferd.server.lifecycle.interfaces import ManagerLike
from inferd.server.lifecycle.state import ServableId
from inferd.server.protocols.common.availability import in_service
from inferd.wire.dtypes import dtype_of

_MAX_NAMES = 20  # in a message


def checked(check: Check) -> Check:
    """A check that raises as `check` does, with Triton's text where Triton has one for the case."""

    def worded(
        servable_id: ServableId, signature: Signature, inputs: Mapping[str, Array], wanted: Sequence[str]
    ) -> None:
        try:
            check(servable_id, signature, inputs, wanted)
        except InvalidRequest as error:
            text = _refusal(servable_id.name, signature, inputs, wanted)
            raise InvalidRequest(text or error.message) from None

    return worded


def version_of(text: str) -> tuple[int | None, str | None]:
    """The version and label that a `model_version` names: digits are a version, other text is a label, "" is neither.
    Raises InvalidRequest."""
    if not text:
        return None, None
    if text.isascii() and text.isdigit():
        if len(text) > 18:
            raise InvalidRequest(f"failed to get model version from specified version string '{text[:50]}'")
        return int(text), None
    return None, text


def unknown(error: Exception, manager: ManagerLike, name: str, version: str) -> Exception:
    """The error to raise when a model could not be acquired: Triton's text, then inferd's reason."""
    which = f" version {version}" if version else ""
    if isinstance(error, NotFound):
        return NotFound(f"Request for unknown model: '{name}'{which} is not found: {error.message}")
    if isinstance(error, Unavailable) and not in_service(manager, name, *version_of(version)):
        text = f"Request for unknown model: '{name}'{which} is not at ready state: {error.message}"
        return Unavailable(text, retry_after=error.retry_after)
    return error


def _refusal(model: str, signature: Signature, inputs: Mapping[str, Array], wanted: Sequence[str]) -> str | None:
    specs = {spec.name: spec for spec in signature.inputs}
    required = [spec.name for spec in signature.inputs if not spec.optional]
    missing = [name for name in required if name not in inputs]
    if missing or len(inputs) > len(specs):
        lacking = f", but missing required input(s) {_names(missing)}" if missing else ""
        return (
            f"expected {len(required)} inputs but got {len(inputs)} inputs for model '{model}'. "
            f"Got input(s) {_names(inputs)}{lacking}. Please provide all required input(s): {_names(required)}."
        )
    for name, array in inputs.items():
        spec = specs.get(name)
        if spec is None:
            return f"unexpected inference input '{name[:200]}' for model '{model}'; expected {_names(specs)}"
        dtype = dtype_of(array)
        if dtype is not spec.dtype:
            return (
                f"inference input '{name}' data-type is '{dtype.oip_name}', but model '{model}' expects "
                f"'{spec.dtype.oip_name}'"
            )
        if not _fits(spec, array.shape):
            return (
                f"unexpected shape for input '{name}' for model '{model}'. Expected {_dims(spec.shape or ())}, "
                f"got {_dims(array.shape)}."
            )
    outputs = [spec.name for spec in signature.outputs]
    for name in wanted:
        if name not in outputs and name not in signature.aliases:
            return f"unexpected inference output '{name[:200]}' for model '{model}'; expected {_names(outputs)}"
    return None


def _fits(spec: TensorSpec, shape: tuple[int, ...]) -> bool:
    if spec.shape is None:
        return True
    return len(shape) == len(spec.shape) and all(want in (-1, got) for want, got in zip(spec.shape, shape, strict=True))


def _names(names: Iterable[str]) -> str:
    quoted = [f"'{name[:100]}'" for name in names]
    more = f",... {len(quoted) - _MAX_NAMES} more" if len(quoted) > _MAX_NAMES else ""
    return f"[{','.join(quoted[:_MAX_NAMES])}{more}]"


def _dims(shape: Sequence[int]) -> str:
    return f"[{','.join(map(str, shape))}]"
