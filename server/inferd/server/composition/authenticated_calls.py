"""Every method behind the question who calls: one table of handlers for each kind of caller.

The handlers of a caller see the models through that caller's eyes (`core.view`); methods for which the caller has no
scope at all are refused before their message is judged. A call costs a look-up of its token and one of its model.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from inferd.server.access.grants import Grants, Scope
from inferd.server.access.method_rules import RULES, Need
from inferd.server.access.recent import Recent
from inferd.server.composition.call_proxies import StreamProxy
from inferd.server.errors import Code, Unauthenticated
from inferd.server.protocols.common.error_boundary import ErrorBoundary
from inferd.server.transport.calls import StreamCall, StreamHandler, UnaryCall, UnaryHandler

if TYPE_CHECKING:
    from inferd.server.access.authority import Authority

_KINDS: Final = 256  # kinds of callers whose tables are kept


@dataclass(frozen=True, slots=True)
class Handlers:
    """Handlers by full path, behind their walls."""

    unary: Mapping[str, UnaryHandler]
    stream: Mapping[str, StreamHandler]


class AuthenticatedCalls:
    """Asks who calls, for every call. `make` gives the handlers for grants; `refused` hears of every refusal.
    Thread-safe."""

    def __init__(
        self,
        authority: Authority,
        make: Callable[[Grants], Handlers],
        edge: ErrorBoundary,
        refused: Callable[[str, Code], None],
    ) -> None:
        self._authority = authority
        self._make = make
        self._edge = edge
        self._refused = refused
        self._tables: Recent[Grants, Handlers] = Recent(_KINDS)

    def handlers(self) -> Handlers:
        """For all callers. Raises KeyError for a method of which nothing says what it needs."""
        paths = self._of(self._authority.anonymous.grants)
        return Handlers(
            {path: self._unary(path) for path in paths.unary}, {path: self._stream(path) for path in paths.stream}
        )

    def _unary(self, path: str) -> UnaryHandler:
        identify, tables, of = self._authority.identify, self._tables, self._of

        def guarded(call: UnaryCall) -> None:
            try:
                grants = identify(call).grants
            except Unauthenticated as error:
                self._fail(call, error)
                return
            (tables.get(grants) or of(grants)).unary[path](call)

        return guarded

    def _stream(self, path: str) -> StreamHandler:
        # What else is sent than answers to requests that were taken is news, and for callers who still count.
        kind = _Checked if RULES[path].need is Scope.PREDICT else _Watching

        def guarded(call: StreamCall) -> None:
            try:
                grants = self._authority.identify(call).grants
            except Unauthenticated as error:
                self._fail(call, error)
                return
            handlers = self._tables.get(grants) or self._of(grants)
            handlers.stream[path](kind(call, _Caller(self._authority, grants, self._fail)))

        return guarded

    def _of(self, grants: Grants) -> Handlers:
        made = self._make(grants)
        unary, stream = dict(made.unary), dict(made.stream)
        for path in (*unary, *stream):
            need = RULES[path].need
            if lacking(grants, need, self._authority.open):
                handler = self._refusing(grants, path)
                if path in unary:
                    unary[path] = handler
                else:
                    stream[path] = handler
        handlers = Handlers(unary, stream)
        self._tables.put(grants, handlers)
        return handlers

    def _refusing(self, grants: Grants, path: str) -> Callable[[UnaryCall | StreamCall], None]:
        scope = scope_of(RULES[path].need)

        def refuse(call: UnaryCall | StreamCall) -> None:
            self._fail(call, grants.refusal(scope))

        return refuse

    def _fail(self, call: UnaryCall | StreamCall, error: Exception) -> None:
        self._refused(call.method, self._edge.status(error, "").code)
        self._edge.fail(call, error)


@dataclass(frozen=True, slots=True)
class _Caller:
    """Who began a stream, to be asked for again while it lasts."""

    authority: Authority
    grants: Grants
    refuse: Callable[[StreamCall, Exception], None]

    def counts(self, stream: StreamCall) -> bool:
        """Whether the caller is who it was; else the stream is ended."""
        try:
            if self.authority.identify(stream).grants is not self.grants:
                raise Unauthenticated("the credentials have changed since the stream began: open another one")
        except Unauthenticated as error:
            self.refuse(stream, error)
            return False
        return True


class _Checked(StreamProxy):
    """A stream whose caller is asked for with every message: a token that has expired or was taken back ends it."""

    def __init__(self, call: StreamCall, caller: _Caller) -> None:
        super().__init__(call)
        self._caller = caller

    def read(self, fn: Callable[[bytes | None], None]) -> None:
        def checked(message: bytes | None) -> None:
            if message is None or self._caller.counts(self._stream):
                fn(message)

        self._stream.read(checked)


class _Watching(_Checked):
    """A stream that tells news, to which its caller says nothing more: the caller is asked for with what is sent."""

    def __init__(self, call: StreamCall, caller: _Caller) -> None:
        super().__init__(call, caller)
        self._over = False
        self._ends: list[Callable[[], None]] = []

    def on_cancel(self, fn: Callable[[], None]) -> None:
        self._ends.append(fn)
        super().on_cancel(fn)

    def send(self, message: bytes, sent: Callable[[], None] | None = None) -> None:
        if self._over:
            return
        if self._caller.counts(self._stream):
            self._stream.send(message, sent)
            return
        self._over = True
        for fn in self._ends:  # who tells the news need not go on
            fn()


def lacking(grants: Grants, need: Need, opened: frozenset[str]) -> bool:
    """Whether a caller with these grants has no model at all with which it could do this."""
    if isinstance(need, Scope):
        return need not in grants.scopes
    if need in opened:
        return False
    return Scope.METADATA not in grants.scopes if need == "reflection" else grants.anonymous


def scope_of(need: Need) -> Scope | None:
    """The scope to be named in a refusal."""
    if isinstance(need, Scope):
        return need
    return Scope.METADATA if need == "reflection" else None
