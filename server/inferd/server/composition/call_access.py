"""One way into every method: admit → decode → authorize the models that are named → handle → audit.

`admit` is `AccessRules.admit`: who calls, within the limits of one client, with the scope that the method's rule needs.
Nothing of a message is decoded before it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from inferd.server.access.audit import Audit
from inferd.server.access.caller import Caller
from inferd.server.access.client_limits import Lease
from inferd.server.access.method_rules import RULES, Rule
from inferd.server.access.rules import AccessRules
from inferd.server.composition.admitted_calls import (
    AdmittedStreamCall,
    AdmittedUnaryCall,
    CheckedStreamCall,
    CheckedWatchCall,
    Ended,
)
from inferd.server.composition.audit_fields import audit_fields
from inferd.server.errors import Code, RateLimited, ServingError, Unauthenticated
from inferd.server.inference.failures import SHUTTING_DOWN
from inferd.server.protocols.common.error_boundary import ErrorBoundary, parse
from inferd.server.protocols.common.method import UnaryMethod, WatchMethod
from inferd.server.transport.calls import StreamCall, StreamHandler, UnaryCall, UnaryHandler

AdmittedUnary = Callable[[UnaryCall, Caller], None]
AdmittedStream = Callable[[StreamCall, Caller], None]


class CallAccess:
    """Puts the rules before handlers. Thread-safe; raises KeyError for a path that has no rule.

    `audit` writes the lines of operators' actions; `refused` is told the method and code of every call that was not
    admitted.
    """

    def __init__(self, rules: AccessRules, audit: Audit, refused: Callable[[str, Code], None]) -> None:
        self._rules = rules
        self._audit = audit
        self._refused = refused

    def unary(self, path: str, handler: AdmittedUnary, boundary: ErrorBoundary) -> UnaryHandler:
        """The handler of a unary method for calls that were not admitted yet. It never raises."""
        rules, rule = self._rules, RULES[path]

        def handle(call: UnaryCall) -> None:
            try:
                caller, lease = rules.admit(call, rule)
            except ServingError as error:
                self._refuse(call, rule, boundary, error)
                return
            if lease is not None:
                call.on_cancel(lease.release)
                call = AdmittedUnaryCall(call, _releasing(lease))
            handler(call, caller)

        return handle

    def stream(
        self, path: str, handler: AdmittedStream, boundary: ErrorBoundary, *, watch: bool = False
    ) -> StreamHandler:
        """The same for a stream, whose caller is checked again with every message; `watch`: with every one that is
        sent."""
        rules, rule = self._rules, RULES[path]
        kind = CheckedWatchCall if watch else CheckedStreamCall

        def handle(call: StreamCall) -> None:
            try:
                caller, lease = rules.admit(call, rule)
            except ServingError as error:
                self._refuse(call, rule, boundary, error)
                return
            ended: Ended = _nothing
            if lease is not None:
                call.on_cancel(lease.release)
                ended = _releasing(lease)
            if rules.authority is not None:
                call = kind(call, ended, self._still_valid(caller, boundary))
            elif lease is not None:
                call = AdmittedStreamCall(call, ended)
            try:
                handler(call, caller)
            except Exception as error:
                boundary.fail(call, error)

        return handle

    def admitted(self, path: str, method: UnaryMethod) -> AdmittedUnary:
        """A method of the control plane for calls whose caller was admitted. It never raises."""
        rules, rule, boundary = self._rules, RULES[path], method.boundary

        def handle(call: UnaryCall, caller: Caller) -> None:
            if rule.audited:
                call = self._audited(call, rule, caller, boundary)
            try:
                request = parse(method.request, call.request)
                rules.authorize_named(caller, rule, request)
                method.handle(call, request, caller)
            except Exception as error:
                boundary.fail(call, error)

        return handle

    def watch(self, path: str, method: WatchMethod) -> StreamHandler:
        """A method with one request and many answers."""
        rules, rule, boundary = self._rules, RULES[path], method.boundary

        def handle(call: StreamCall, caller: Caller) -> None:
            def start(message: bytes | None) -> None:
                if message is None:
                    call.end()
                    return
                request = parse(method.request, message)
                rules.authorize_named(caller, rule, request)
                method.handle(call, request, caller)

            call.on_drain(lambda: call.fail(SHUTTING_DOWN.code, SHUTTING_DOWN.text, SHUTTING_DOWN.trailing))
            call.read(boundary.guarded(call, start))

        return self.stream(path, handle, boundary, watch=True)

    def _refuse(self, call: Any, rule: Rule, boundary: ErrorBoundary, error: ServingError) -> None:
        self._refused(call.method, boundary.status(error, "").code)
        if rule.audited and not isinstance(error, RateLimited):
            call = self._audited(call, rule, None, boundary)
        boundary.fail(call, error)

    def _audited(
        self, call: UnaryCall, rule: Rule, caller: Caller | None, boundary: ErrorBoundary
    ) -> AdmittedUnaryCall:
        """The call, whose outcome is written to the audit log. A client that disconnects does not undo the action, so
        that its outcome is written, too."""
        request_id = boundary.ids.request_id(call)
        who = self._rules.name(call) if caller is None else caller.name or None

        def ended(code: Code | None, text: str) -> None:
            self._audit.write(call, rule.rpc, who, code, text, request_id, audit_fields(rule.rpc, call.request))

        return AdmittedUnaryCall(call, ended)

    def _still_valid(self, caller: Caller, boundary: ErrorBoundary) -> Callable[[StreamCall], bool]:
        def still_valid(call: StreamCall) -> bool:
            try:
                self._rules.check_again(caller, call)
            except Unauthenticated as error:
                self._refused(call.method, boundary.status(error, "").code)
                boundary.fail(call, error)
                return False
            return True

        return still_valid


def _releasing(lease: Lease) -> Callable[[Code | None, str], None]:
    return lambda _code, _text: lease.release()


def _nothing(_code: Code | None, _text: str) -> None:
    """For a stream that holds no lease."""
