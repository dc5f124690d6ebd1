"""The types that the request pipeline needs from the layers above it: calls, and codecs that read and write them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from inferd.backends.api import Array, Signature
from inferd.server.errors import Code
from inferd.server.inference.failures import Failure
from inferd.server.inference.plan import RequestForm, RequestTemplate
from inferd.server.lifecycle.state import ServableId
from inferd.wire.message_forms import MessageForm, MessageLayout

if TYPE_CHECKING:
    from inferd.server.inference.request_groups import RequestGroup
    from inferd.server.scheduling.request import InferenceRequest

Check = Callable[[ServableId, Signature, Mapping[str, Array], Sequence[str]], None]
"""Checks inputs and the names of requested outputs against a signature. Raises InvalidRequest with the protocol's
text."""


class Call(Protocol):
    """One inference call: a unary gRPC call, one message of a stream, or an HTTP request.

    `reply`, `fail` and `on_cancel` are thread-safe. The first answer (`reply` or `fail`) counts, later ones do nothing.
    `transport.calls.UnaryCall` describes the attributes.
    """

    @property
    def method(self) -> str: ...
    @property
    def request(self) -> bytes: ...
    @property
    def deadline(self) -> float | None: ...
    @property
    def peer(self) -> str: ...
    def metadata(self, key: str) -> str | None: ...
    def certificate(self) -> Sequence[str]: ...
    def on_cancel(self, fn: Callable[[], None]) -> None: ...
    def reply(self, message: Any) -> None: ...
    def fail(self, code: Code, text: str, trailing: Sequence[tuple[str, str]] = ()) -> None: ...


@dataclass(slots=True)
class DecodedCall:
    """A request that the full decoder has read.

    inputs       arrays by input name
    nbytes       bytes that the request keeps in memory
    priority     0: the model's default
    remembered   the codec keeps the form and will recognise later messages of it
    owned        no other object refers to the arrays, so they may be written to
    """

    call: Call
    template: RequestTemplate
    inputs: dict[str, Array]
    request_id: str
    nbytes: int
    priority: int = 0
    remembered: bool = False
    owned: bool = False


class Codec(Protocol):
    """Reads and writes the messages of one method. Thread-safe.

    protocol    name of the protocol in the metrics
    templates   the template of each message form; None: messages of this form need the full decoder
    named       the text of a failure contains the request id
    bounded     the service must call `admit` for each decoded call
    plain       requests of one form have one priority, and `bounded` is False
    priority_of reads the priority of a request from its call; None: the message has a field for it. Raises
                InvalidRequest
    """

    @property
    def protocol(self) -> str: ...
    @property
    def named(self) -> bool: ...
    @property
    def bounded(self) -> bool: ...
    @property
    def plain(self) -> bool: ...
    @property
    def priority_of(self) -> Callable[[Call], int] | None: ...
    @property
    def templates(self) -> Mapping[MessageForm[Any], RequestTemplate | None]: ...

    def match(self, message: bytes) -> MessageLayout[Any] | None:
        """The layout of a message that equals an earlier one in all but its data and id; None: no earlier one is
        known."""
        ...

    def admit(self, call: Call) -> None:
        """The protocol's own checks of a decoded call, such as the bounds of a stream. Raises ServingError."""
        ...

    def decode(self, call: Call) -> Sequence[DecodedCall]:
        """The full decoder: returns one request, or several for one servable. Raises WireError and ServingError; the
        error's attribute `request_id` is set where the id is known."""
        ...

    def check(
        self, servable_id: ServableId, signature: Signature, inputs: Mapping[str, Array], wanted: Sequence[str]
    ) -> None:
        """See Check."""
        ...

    def encode(
        self, group: RequestGroup, outputs: dict[str, Array], requests: Sequence[InferenceRequest]
    ) -> Sequence[Any]:
        """The answers to requests that ran in one batch, in the order of `requests`. `outputs` hold the rows of the
        requests one after the other. Raises WireError for outputs that cannot be encoded, ServingError."""
        ...

    def refused(self, error: Exception, form: RequestForm) -> Exception:
        """The error of a request that could not be started, with the protocol's text."""
        ...

    def failure(self, error: Exception, request_id: str, shown: str, form: RequestForm | None) -> Failure:
        """The protocol's table from errors to status and text. `request_id` is the id in the request, "" for none;
        `shown` is the id in the log line; `form` is None for a call that could not be decoded."""
        ...

    def fail(self, call: Call, failure: Failure, request_id: str, form: RequestForm | None) -> None:
        """Answers a call with a failure. `form` is None for a call that could not be decoded."""
        ...
