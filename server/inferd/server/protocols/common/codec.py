"""The base of the codecs of all protocols, and the caches of templates and forms."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from inferd.backends.api import Array, Signature
from inferd.server.inference.failures import Failure, failure_of
from inferd.server.inference.interfaces import Call, Check, DecodedCall
from inferd.server.inference.plan import RequestForm, RequestTemplate
from inferd.server.inference.request_groups import RequestGroup
from inferd.server.lifecycle.state import ServableId
from inferd.server.scheduling.request import InferenceRequest
from inferd.wire.message_forms import MessageForm, MessageLayout

_KEPT: Final = 256  # entries of each cache


class Templates(dict[MessageForm[Any], RequestTemplate | None]):
    """A cache of templates by message form, made by `find` on the first look-up. None: messages of this form need the
    full decoder. Thread-safe: two threads may call `find` for the same form."""

    def __init__(self, find: Callable[[MessageForm[Any]], RequestTemplate | None]) -> None:
        super().__init__()
        self._find = find

    def __missing__(self, form: MessageForm[Any]) -> RequestTemplate | None:
        if len(self) >= _KEPT:
            self.clear()
        found = self[form] = self._find(form)
        return found


class KnownTemplates(dict[tuple[Any, ...], RequestTemplate]):
    """A cache of templates by what their requests have in common. Thread-safe."""

    def keep(self, key: tuple[Any, ...], template: RequestTemplate) -> RequestTemplate:
        """The template of this key: this one, unless another thread has kept one."""
        if len(self) >= _KEPT:
            self.clear()
        return self.setdefault(key, template)


class RequestForms:
    """A cache of the forms of one method: equal forms are one object. Thread-safe."""

    def __init__(self, method: str) -> None:
        self._method = method
        self._known: dict[tuple[Any, ...], RequestForm] = {}

    def of(
        self,
        model: str,
        version: int | None,
        label: str | None,
        signature: str = "",
        wanted: tuple[str, ...] | None = None,
        tensors: tuple[Any, ...] = (),
    ) -> RequestForm:
        """The form with these fields; see RequestForm."""
        key = (model, version, label, signature, wanted, tensors)
        found = self._known.get(key)
        if found is None:
            if len(self._known) >= _KEPT:
                self._known.clear()
            found = self._known.setdefault(key, RequestForm(self._method, *key))
        return found

    def once(
        self,
        model: str,
        version: int | None,
        label: str | None,
        signature: str = "",
        wanted: tuple[str, ...] | None = None,
        options: Any = None,
    ) -> RequestForm:
        """A new form that is not cached, for a single request. See RequestForm."""
        return RequestForm(self._method, model, version, label, signature, wanted, (), options)


class WholeCodec:
    """The base of codecs: every message goes through the full decoder, and failures use the native table. Subclasses
    implement `decode` and `encode`. Thread-safe."""

    protocol = ""
    named = False
    bounded = False
    plain = True
    priority_of: Callable[[Call], int] | None = None

    def __init__(self, method: str, check: Check) -> None:
        """`method`: full method path. `check` raises with the protocol's text."""
        self.forms = RequestForms(method)
        self.templates = Templates(self._template)
        self._check = check

    def match(self, message: bytes) -> MessageLayout[Any] | None:
        """See Codec."""
        return None

    def _template(self, form: MessageForm[Any]) -> RequestTemplate | None:
        return None

    def admit(self, call: Call) -> None:
        """See Codec."""

    def decode(self, call: Call) -> Sequence[DecodedCall]:
        """See Codec."""
        raise NotImplementedError

    def check(self, servable_id: ServableId, signature: Signature, inputs: Any, wanted: Sequence[str]) -> None:
        """See Codec."""
        self._check(servable_id, signature, inputs, wanted)

    def encode(
        self, group: RequestGroup, outputs: dict[str, Array], requests: Sequence[InferenceRequest]
    ) -> Sequence[Any]:
        """See Codec."""
        raise NotImplementedError

    def refused(self, error: Exception, form: RequestForm) -> Exception:
        """See Codec."""
        return error

    def failure(self, error: Exception, request_id: str, shown: str, form: RequestForm | None) -> Failure:
        """See Codec."""
        return failure_of(error, shown)

    def fail(self, call: Call, failure: Failure, request_id: str, form: RequestForm | None) -> None:
        """See Codec."""
        call.fail(failure.code, failure.text, failure.trailing)
