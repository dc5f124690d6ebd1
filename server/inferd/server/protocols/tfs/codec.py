"""Codec of tensorflow.serving.PredictionService/Predict, and the base of the codecs of the service's other methods.

A request that names no signature means "serving_default", as in TensorFlow Serving: a model without a signature of that
name refuses it. The other protocols mean the model's first signature, whatever its name is.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from inferd.backends.api import DEFAULT_SIGNATURE, Array
from inferd.server.errors import InvalidRequest
from inferd.server.inference.failures import Failure
from inferd.server.inference.interfaces import Call, Check, DecodedCall
from inferd.server.inference.plan import RequestForm, RequestTemplate
from inferd.server.inference.request_groups import RequestGroup
from inferd.server.lifecycle.interfaces import ManagerLike
from inferd.server.protocols.common.codec import WholeCodec
from inferd.server.protocols.tfs.error_messages import checked, named, unknown
from inferd.server.protocols.tfs.errors import failure
from inferd.server.scheduling.request import InferenceRequest
from inferd.wire.message_forms import MessageForm
from inferd.wire.tfs import LAYOUTS, decode_request, encode_response, encode_responses

PREDICT = "/tensorflow.serving.PredictionService/Predict"
PRIORITY = "inferd-priority"
_MAXPRIORITY = 2**32 - 1


class TfsMethodCodec(WholeCodec):
    """The base of the codecs of TensorFlow Serving's methods: refusals have TensorFlow Serving's texts. Thread-safe."""

    protocol = "tfs"

    def __init__(self, check: Check, manager: ManagerLike, method: str) -> None:
        super().__init__(method, checked(check))
        self._manager = manager

    def refused(self, error: Exception, form: RequestForm) -> Exception:
        """See Codec."""
        return unknown(error, self._manager, form.model, form.version, form.label, form.signature)

    def failure(self, error: Exception, request_id: str, shown: str, form: RequestForm | None) -> Failure:
        """See Codec."""
        return failure(error, shown)


class TfsCodec(TfsMethodCodec):
    """Reads and writes the messages of Predict. Thread-safe."""

    def __init__(self, check: Check, manager: ManagerLike) -> None:
        super().__init__(check, manager, PREDICT)
        self.plain, self.priority_of = False, priority_of
        self.match = LAYOUTS.match  # type: ignore[method-assign]  # saves a method call for every message

    def _template(self, form: MessageForm[Any]) -> RequestTemplate | None:
        name, version, label, signature, outputs = form.facts
        if not name:
            return None
        signature = signature or DEFAULT_SIGNATURE
        return RequestTemplate(self.forms.of(name, version, label, signature, outputs or None, form.tensors))

    def decode(self, call: Call) -> Sequence[DecodedCall]:
        """See Codec."""
        message = call.request
        request = decode_request(message)
        name, priority = named(request.model_name), priority_of(call)
        nbytes = len(message)
        known: Any = request.form
        template = None if known is None else self.templates[known]
        if template is None:
            # TensorProto lets a last value stand for all that follow: the decoded arrays may exceed the message.
            nbytes = max(nbytes, sum(array.nbytes for array in request.inputs.values()))
            outputs = request.outputs or None
            signature = request.signature or DEFAULT_SIGNATURE
            form = self.forms.once(name, request.version, request.label, signature, outputs)
            template, known = RequestTemplate(form), None
        return (
            DecodedCall(call, template, request.inputs, "", nbytes, priority=priority, remembered=known is not None),
        )

    def encode(
        self, group: RequestGroup, outputs: dict[str, Array], requests: Sequence[InferenceRequest]
    ) -> list[bytes]:
        """See Codec."""
        assert group.handle is not None
        id_, signature = group.handle.servable.id, group.plan.signature.name
        if len(requests) == 1:
            return [encode_response(id_.name, id_.version, signature, outputs)]
        return encode_responses(id_.name, id_.version, signature, outputs, group.route.rows, len(requests))


def priority_of(call: Call) -> int:
    """The request's priority from the metadata `inferd-priority`, because TensorFlow Serving's messages have no field
    for it; 0 without it. Raises InvalidRequest."""
    text = call.metadata(PRIORITY)
    if text is None:
        return 0
    if not (text.isascii() and text.isdigit() and len(text) <= 10 and int(text) <= _MAXPRIORITY):
        raise InvalidRequest(f"metadata {PRIORITY}: expected a whole number from 0 to {_MAXPRIORITY}, got {text!r:.50}")
    return int(text)
