"""The rule book: who may do what. Every edge asks here, and nowhere else.

    admit       authenticate → limits → authorize, before anything of a call is decoded
    authorize   once the name of a model is known

Remembered: a token until it expires or the files of credentials change; a model's name for each set of grants.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from inferd.server.access.caller import Caller, Credentials
from inferd.server.access.client_limits import Lease, Limiter, address_of
from inferd.server.access.grants import EVERYTHING, Scope
from inferd.server.access.locality import HostNames, is_local, readable
from inferd.server.access.method_rules import Need, Rule
from inferd.server.access.recent import Recent
from inferd.server.config.schema import Admin, ServerConfig
from inferd.server.errors import Forbidden, ServingError, Unauthenticated

if TYPE_CHECKING:
    from inferd.server.access.authority import Authority

_PEERS: Final = 4096  # whose addresses are remembered
ANYBODY: Final = Caller("", EVERYTHING)
"""Every caller of a server that needs no credentials."""


class AccessRules:
    """The rules of one server. Thread-safe; no method blocks, but verifying a signature that was not seen before takes
    about a millisecond.

    `authority` tells callers apart, None where nobody needs credentials; `limiter` bounds what one client may ask for,
    None where nothing is bounded.

    Costs, by what is set: nothing: `admit` and `authorize` are a few comparisons. `auth`: one look-up of the token and
    one of the model's name. `limits.clients`: one look-up of the client and its lock.
    """

    def __init__(
        self,
        admin: Admin,
        authority: Authority | None = None,
        limiter: Limiter | None = None,
        hosts: HostNames | None = None,
    ) -> None:
        """`hosts`: the names under which browsers reach the HTTP port; None: the usual ones."""
        self._hosts: Final = hosts or HostNames()
        self._operators: Final = admin.allow
        self._uploads: Final = admin.allow_upload
        self.authority: Final = authority
        self.limiter: Final = limiter
        self.open: Final = authority is None and limiter is None
        """Every call is admitted as ANYBODY, and `authorize` refuses nothing but remote operators."""
        self._opened: Final = frozenset() if authority is None else authority.open
        self._addresses: Final = Recent[str, str](_PEERS)
        self._authenticate: Final[Callable[[Credentials], Caller]] = (
            _anybody if authority is None else authority.identify
        )

    def admit(self, call: Credentials, rule: Rule, model: str | None = None) -> tuple[Caller, Lease | None]:
        """The first step of every call: who calls, within the limits of one client, and may the caller do what `rule`
        needs: with `model` where the model is known before the message is decoded (a route), else with any model at
        all. The lease, if there is one, must be released when the call ends.

        Raises RateLimited (bad credentials count for their address), Unauthenticated, Forbidden. Nothing is held then.
        """
        need, limiter = rule.need, self.limiter
        try:
            caller = self.authenticate(call, locate=True) if need is Scope.ADMIN else self._authenticate(call)
        except Unauthenticated:
            if limiter is not None and rule.charged:
                lease = limiter.enter(self._address(call.peer))
                if lease is not None:
                    lease.release()
            raise
        lease = None
        if limiter is not None and rule.charged:
            lease = limiter.enter(caller.name or self._address(call.peer))
        if model is None and need is not Scope.ADMIN and need in caller.grants.scopes:
            return caller, lease  # what `authorize` decides, without a call: this is asked for every request
        try:
            if rule.browser and not self._hosts.known(call.metadata("host")):
                raise Forbidden(
                    "this page is for browsers that reach the server by its address or by a name of http.hosts, got "
                    f"Host: {str(call.metadata('host'))[:100]!r}"
                )
            self.authorize(caller, need, "*" if rule.every else None)
            if model is not None:
                self.authorize(caller, rule.scope, model)
        except ServingError:
            if lease is not None:
                lease.release()
            raise
        return caller, lease

    def authenticate(self, call: Credentials, *, locate: bool = False) -> Caller:
        """Who calls: `ANYBODY` where nobody needs credentials, the anonymous caller where a call shows none. `locate`:
        finds out, too, where the caller is, without which nobody may operate. Raises Unauthenticated for credentials
        that are not valid."""
        caller = self._authenticate(call)
        return replace(caller, peer=readable(call.peer), local=self._local(call)) if locate else caller

    def authorize(self, caller: Caller, need: Need, model: str | None = None) -> None:
        """Raises unless the caller may do this with the model of this name; without a name, with any model at all.

        Raises Unauthenticated for a caller without credentials, else Forbidden. The text is the same whether or not
        there is such a model, so it can be asked before anything is looked up.
        """
        grants = caller.grants
        if need in grants.scopes and need is not Scope.ADMIN and (model is None or grants.covers(model)):
            return
        if type(need) is not Scope:
            self._authorize_open(caller, need)
        elif need not in grants.scopes:
            raise grants.refusal(need, model)
        else:
            if need is Scope.ADMIN:
                self._authorize_operator(caller)
            if model is not None and not grants.covers(model):
                raise grants.refusal(need, model)

    def authorize_named(self, caller: Caller, rule: Rule, request: Any) -> None:
        """`authorize` for every model that a request message names. Raises as `authorize`."""
        for model in rule.models(request):
            self.authorize(caller, rule.scope, model)

    def allows(self, caller: Caller, scope: Scope, model: str) -> bool:
        """Whether `authorize` passes: for lists, which leave out the other models."""
        if scope is Scope.ADMIN:
            try:
                self._authorize_operator(caller)
            except ServingError:
                return False
        return caller.grants.allows(scope, model)

    def allows_all(self, caller: Caller, scope: Scope) -> bool:
        """Whether the caller may do this with every model, whatever its name: for texts that may name any model."""
        return caller.grants.allows_all(scope)

    def check_again(self, caller: Caller, call: Credentials) -> None:
        """For a stream, with every message: raises Unauthenticated once the credentials with which it began have
        expired, were taken back or mean something else."""
        if self.authority is not None and self.authority.identify(call).grants is not caller.grants:
            raise Unauthenticated("the credentials have changed since the stream began: open another one")

    def charge_message(self, caller: Caller, call: Credentials) -> None:
        """A message of a stream counts for the rate of its client. Raises RateLimited."""
        if self.limiter is not None:
            self.limiter.take(caller.name or self._address(call.peer))

    def authorize_upload(self) -> None:
        """For a caller who may operate. Raises Forbidden, which names the key that would allow it."""
        if not self._uploads:
            raise Forbidden("files of a model are not taken with a load (admin.allow_upload: false)")

    def authorize_shared_memory(self, call: Credentials) -> None:
        """Raises Forbidden for a caller on another machine: the memory is not the caller's."""
        if not self._local(call):
            raise Forbidden(
                f"shared memory is open to callers on the server's own machine, without a proxy; got {call.peer}"
            )

    def client(self, call: Credentials) -> str:
        """By what clients are told apart, for their limits and their shares of a full queue: the name of the caller,
        else its address. Never raises."""
        return self.name(call) or self._address(call.peer)

    def name(self, call: Credentials) -> str | None:
        """The caller's name; None for a caller without one, or whose credentials are not valid."""
        try:
            return None if self.authority is None else self.authority.identify(call).name or None
        except Unauthenticated:
            return None

    def _local(self, call: Credentials) -> bool:
        return is_local(call) and self._hosts.known(call.metadata("host"))

    def _authorize_operator(self, caller: Caller) -> None:
        """`admin.allow`. A caller that was not located is refused."""
        if self._operators == "none":
            raise Forbidden("this call is open to nobody (admin.allow: none)")
        if self._operators == "local_peer" and not caller.local:
            raise Forbidden(
                f"this call is open to callers on the server's own machine, without a proxy; got {caller.peer}"
                " (admin.allow: local_peer)"
            )
        if self._operators == "authenticated" and not caller.name and self.authority is not None:
            raise caller.grants.refusal(Scope.ADMIN)

    def _authorize_open(self, caller: Caller, need: Need) -> None:
        """What `auth.open` may open to everybody."""
        grants = caller.grants
        if need in self._opened or need == "nothing":
            return
        if need == "health":
            if grants.anonymous:
                raise grants.refusal(None)
        elif need == "reflection":
            if Scope.METADATA not in grants.scopes:
                raise grants.refusal(Scope.METADATA)
        elif not grants.allows_all(Scope.METADATA):
            raise grants.refusal(Scope.METADATA, "*")  # metrics name every model

    def _address(self, peer: str) -> str:
        address = self._addresses.get(peer)
        if address is None:
            address = f"address {address_of(peer)}"
            self._addresses.put(peer, address)
        return address


def _anybody(_call: Credentials) -> Caller:
    return ANYBODY


def make_access_rules(config: ServerConfig) -> AccessRules:
    """With all that the settings ask for. Raises ConfigError."""
    clients, authority = config.limits.clients, None
    if config.auth.enabled:
        # A server that needs no credentials does not keep what verifies them.
        from inferd.server.access.authority import make_authority

        authority = make_authority(config.auth)
    limiter = Limiter(clients) if clients.enabled else None
    return AccessRules(config.admin, authority, limiter, HostNames(config.http.hosts))
