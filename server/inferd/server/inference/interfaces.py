"""What the journey of a request needs of the rooms above it: calls to answer, and codecs that read and write them."""

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
"""Whether inputs and wanted outputs fit a signature. Raises InvalidRequest, in a protocol's words."""


class Call(Protocol):
    """One call of a client: of a unary method, a message of a stream, or an HTTP request. `reply`, `fail` and
    `on_cancel` are thread-safe; the first answer counts."""

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
    """A call that was decoded as a whole.

    nbytes       bytes that the request keeps in memory
    priority     0: the model's default
    remembered   later messages with this form will be recognised
    owned        the arrays belong to this request alone and may be written to
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
    """How the messages of one method are read and written. Thread-safe.

    protocol    its name in the metrics
    templates   what messages of a form ask; None for a form whose messages are each decoded as a whole
    named       whether the text of a failure names the request
    bounded     whether `admit` is to be asked
    """

    @property
    def protocol(self) -> str: ...
    @property
    def named(self) -> bool: ...
    @property
    def bounded(self) -> bool: ...
    @property
    def templates(self) -> Mapping[MessageForm[Any], RequestTemplate | None]: ...

    def match(self, message: bytes) -> MessageLayout[Any] | None:
        """The layout of a message that repeats an earlier one in all but its data and id; None: it is not known."""
        ...

    def describe(self, call: Call, layout: MessageLayout[Any], priority: int) -> tuple[str, int] | None:
        """Id and priority of a call whose message has a known layout; `priority` is its template's. None: the call must
        be decoded as a whole."""
        ...

    def admit(self, call: Call) -> None:
        """What a decoded call has to pass here. Raises ServingError."""
        ...

    def decode(self, call: Call) -> Sequence[DecodedCall]:
        """Decodes a call as a whole: one request, or several that one servable answers. Raises WireError and
        ServingError, with the `request_id` where it is known."""
        ...

    def check(
        self, servable_id: ServableId, signature: Signature, inputs: Mapping[str, Array], wanted: Sequence[str]
    ) -> None:
        """See Check."""
        ...

    def encode(
        self, group: RequestGroup, outputs: dict[str, Array], requests: Sequence[InferenceRequest]
    ) -> Sequence[Any]:
        """The answers to requests that ran together; `outputs` hold their rows one after the other. Raises WireError
        for outputs that cannot travel, ServingError."""
        ...

    def refused(self, error: Exception, form: RequestForm) -> Exception:
        """The error of a request that could not be started, in the protocol's words."""
        ...

    def failure(self, error: Exception, request_id: str, shown: str, form: RequestForm | None) -> Failure:
        """The protocol's table from errors to status and text. `request_id` is the request's own, "" for none; `shown`
        the one that the log has; `form`: None for a call that could not be decoded."""
        ...

    def fail(self, call: Call, failure: Failure, request_id: str, form: RequestForm | None) -> None:
        """Tells a call its failure; `form`: None where it could not be decoded."""
        ...
