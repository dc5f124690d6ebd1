"""Error messages for refused models, signatures and inputs, worded as TensorFlow Serving words them: clients and their
tests match on them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from inferd.backends.api import Array, Signature
from inferd.server.errors import Conflict, InvalidRequest, NotFound, ServingError, Unavailable
from inferd.server.inference.interfaces import Check
from inferd.server.inference.service import UnknownSignature
from inferd.server.lifecycle.interfaces import HandleLike, ManagerLike
from inferd.server.lifecycle.state import ServableId
from inferd.server.protocols.common.availability import in_service


def checked(check: Check) -> Check:
    """A check that raises as `check` does, with TensorFlow Serving's text where it has one for the case."""

    def worded(
        servable_id: ServableId, signature: Signature, inputs: Mapping[str, Array], wanted: Sequence[str]
    ) -> None:
        try:
            check(servable_id, signature, inputs, wanted)
        except InvalidRequest as error:
            raise InvalidRequest(_refusal(signature, inputs, wanted) or error.message) from None

    return worded


def acquire(manager: ManagerLike, name: str, version: int | None, label: str | None) -> HandleLike:
    """A handle of the model. Raises ServingError, worded as TensorFlow Serving words it."""
    named(name)
    try:
        return manager.acquire(name, version, label)
    except ServingError as error:
        raise unknown(error, manager, name, version, label) from None


def named(name: str) -> str:
    """Returns the name. Raises InvalidRequest for an empty one."""
    if not name:
        raise InvalidRequest("ModelSpec has no name specified.")
    return name


def unknown(
    error: Exception, manager: ManagerLike, name: str, version: int | None, label: str | None, signature: str = ""
) -> Exception:
    """The error to raise when a model could not be acquired or has no such signature: TensorFlow Serving's text, then
    inferd's reason. TensorFlow Serving has no "not yet": a model that is loading or has failed is NOT_FOUND, too."""
    if isinstance(error, UnknownSignature):
        return Conflict(f'Serving signature key "{signature}" not found. {error.message}')
    if not isinstance(error, NotFound | Conflict | Unavailable):
        return error
    if isinstance(error, NotFound) and label is not None:
        return InvalidRequest(f"Unrecognized servable version label: {label}: {error.message}")
    if isinstance(error, Unavailable) and in_service(manager, name, version, label):
        return error
    servable = f"Latest({name})" if version is None else f"Specific({name}, {version})"
    return NotFound(f"Servable not found for request: {servable}: {error.message}")


def _refusal(signature: Signature, inputs: Mapping[str, Array], wanted: Sequence[str]) -> str | None:
    known = {spec.name for spec in signature.inputs}
    required = {spec.name for spec in signature.inputs if not spec.optional}
    if not required <= inputs.keys() or len(inputs) > len(known):
        return (
            f"input size does not match signature: {len(inputs)}!={len(known)} len({_names(inputs)}) != "
            f"len({_names(known)}). Sent extra: {_names(inputs.keys() - known)}. "
            f"Missing but required: {_names(required - inputs.keys())}."
        )
    for name in inputs:
        if name not in known:
            return (
                f"input tensor alias not found in signature: {name[:200]}. Inputs expected to be in the set "
                f"{_names(known)}."
            )
    outputs = [spec.name for spec in signature.outputs]
    for name in wanted:
        if name not in outputs and name not in signature.aliases:
            return (
                f"output tensor alias not found in signature: {name[:200]} Outputs expected to be in the set "
                f"{_names(outputs)}."
            )
        if list(wanted).count(name) > 1:
            return f"duplicate output tensor alias: {name}"
    return None


def _names(names: Iterable[str]) -> str:
    return f"{{{','.join(sorted(name[:100] for name in list(names)[:50]))}}}"
