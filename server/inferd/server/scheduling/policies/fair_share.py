"""The clients of a queue that has no room left, and who gives way to whom. Not thread-safe: who bounds the queue locks.

A crowd is gathered when a request finds no room, and dispersed when half of it has gone: a queue that is not full knows
nothing of clients, and asks for nobody's name.

Shares are max-min fair in what is short, places or bytes. A newcomer takes the place of the newest request of the
client with most, where that client has more than the newcomer's would have then. Nobody gives way to what is less
important than itself, and no client's only request does: so whoever asks for little is served, whatever others ask for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from inferd.server.scheduling.request import InferenceRequest

Who = Callable[[Any], str]
"""The name of the client behind an `InferenceRequest.call`. Quick, thread-safe, must not raise."""


class _QueueClient:
    """What one client has here. `lines`: its requests by priority, oldest first."""

    __slots__ = ("count", "lines", "name", "nbytes")

    def __init__(self, name: str) -> None:
        self.name = name
        self.count = 0
        self.nbytes = 0
        self.lines: dict[int, dict[InferenceRequest, None]] = {}

    def least(self, priority: int) -> int:
        """The least important priority, `priority` or less important, of which it has requests; 0: none."""
        lines = self.lines
        return max((found for found in lines if found >= priority and lines[found]), default=0)


class FairShare:
    """Of one queue. Requests without a caller are nobody's: they are not in it, and have no claim."""

    __slots__ = ("_clients", "_most", "_of", "_size", "_who")

    def __init__(self, who: Who, waiting: Iterable[InferenceRequest]) -> None:
        self._who = who
        self._clients: dict[str, _QueueClient] = {}
        self._of: dict[InferenceRequest, _QueueClient] = {}
        self._most = 0  # no client has more requests than this
        self._size = 0  # the most that it has been
        for request in sorted(waiting, key=_came):
            self.join(request)

    @property
    def dispersed(self) -> bool:
        """Whether so few are left that there is nothing to be shared."""
        return 2 * len(self._of) <= self._size

    def join(self, request: InferenceRequest) -> None:
        """A request waits from now on. Idempotent."""
        caller = request.call
        if caller is None or request in self._of:
            return
        name = self._who(caller)
        client = self._clients.get(name)
        if client is None:
            client = self._clients[name] = _QueueClient(name)
        self._add(client, request)

    def leave(self, requests: Iterable[InferenceRequest]) -> None:
        """These wait no longer. Does nothing for those who are not here."""
        for request in requests:
            client = self._of.pop(request, None)
            if client is None:
                continue
            del client.lines[request.priority][request]
            client.count -= 1
            client.nbytes -= request.nbytes
            if not client.count:
                del self._clients[client.name]

    def give_way(self, newcomer: InferenceRequest, places: int, nbytes: int) -> Sequence[InferenceRequest]:
        """Who gives way, so that at least so many places and bytes become free: they have left the crowd. Empty where
        the newcomer has no claim to that.
        """
        if newcomer.call is None:
            return ()
        own = self._clients.get(self._who(newcomer.call))
        count = 1 if own is None else own.count + 1
        held = newcomer.nbytes if own is None else own.nbytes + newcomer.nbytes
        gone: list[tuple[_QueueClient, InferenceRequest]] = []
        while places > 0 or nbytes > 0:
            client = self._greediest(newcomer.priority, count, held, in_places=places > 0)
            if client is None:
                for whose, request in reversed(gone):
                    self._clients[whose.name] = whose
                    self._add(whose, request)
                return ()
            request = next(reversed(client.lines[client.least(newcomer.priority)]))
            gone.append((client, request))
            self.leave((request,))
            places -= 1
            nbytes -= request.nbytes
        return [request for _, request in gone]

    def has_claim(self, caller: Any) -> bool:
        """Whether a request of this caller might take somebody's place; false for a flood's own. May be asked without
        the lock: others come and go meanwhile."""
        own = self._clients.get(self._who(caller))
        return (0 if own is None else own.count) + 1 < self._most

    def come_back(self, requests: Sequence[InferenceRequest]) -> None:
        """Those who gave way, in that order, need not."""
        for request in reversed(requests):
            self.join(request)

    def _add(self, client: _QueueClient, request: InferenceRequest) -> None:
        self._of[request] = client
        client.lines.setdefault(request.priority, {})[request] = None
        client.count += 1
        client.nbytes += request.nbytes
        self._most = max(self._most, client.count)
        self._size = max(self._size, len(self._of))

    def _greediest(self, priority: int, count: int, held: int, *, in_places: bool) -> _QueueClient | None:
        """The client with most, of those with more than the newcomer's would have: `count` requests, `held` bytes."""
        found = None
        if in_places and count >= self._most:
            return None  # a flood's own: nobody is looked at for it
        most = 0
        for client in self._clients.values():
            most = max(most, client.count)
            if in_places:
                more = client.count > (count if found is None else found.count)
            else:
                more = client.nbytes > (held if found is None else found.nbytes) and client.count > 1
            if more and client.least(priority):
                found = client
        self._most = most
        return found


def _came(request: InferenceRequest) -> float:
    return request.enqueued_at
