"""Max-min fair shares of a full queue among its clients. Not thread-safe: the caller holds the queue's lock.

A FairShare is made when a request arrives at a full queue, and dropped when half of its requests have left: while a
queue has room, clients are not counted and their names are not looked up.

Shares are fair in the resource that is short, requests or bytes. A new request may evict the newest request of the
client with the largest share, where that share is larger than the new client's share would become. A request is never
evicted for one of lower priority, and the only request of a client is never evicted. So a client with few requests is
served, however many requests others send.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from inferd.server.scheduling.request import InferenceRequest

Who = Callable[[Any], str]
"""Returns the name of the client behind an `InferenceRequest.call`. Must be quick and thread-safe and must not
raise."""


class _QueueClient:
    """The waiting requests of one client and their bytes. `by_priority`: its requests by priority, oldest first."""

    __slots__ = ("by_priority", "count", "name", "nbytes")

    def __init__(self, name: str) -> None:
        self.name = name
        self.count = 0
        self.nbytes = 0
        self.by_priority: dict[int, dict[InferenceRequest, None]] = {}

    def least(self, priority: int) -> int:
        """The lowest priority (largest number) among the client's requests, `priority` or lower; 0: there is none."""
        by_priority = self.by_priority
        return max((found for found in by_priority if found >= priority and by_priority[found]), default=0)


class FairShare:
    """The shares of one queue. Requests without a caller are not counted and cannot evict others."""

    __slots__ = ("_clients", "_most", "_of", "_size", "_who")

    def __init__(self, who: Who, waiting: Iterable[InferenceRequest]) -> None:
        self._who = who
        self._clients: dict[str, _QueueClient] = {}
        self._of: dict[InferenceRequest, _QueueClient] = {}
        self._most = 0  # upper bound on the requests of any client
        self._size = 0  # the largest number of requests so far
        for request in sorted(waiting, key=_enqueued_at):
            self.join(request)

    @property
    def dispersed(self) -> bool:
        """Whether at least half of the requests have left, so that fair shares are no longer needed."""
        return 2 * len(self._of) <= self._size

    def join(self, request: InferenceRequest) -> None:
        """Counts a waiting request. Idempotent."""
        caller = request.call
        if caller is None or request in self._of:
            return
        name = self._who(caller)
        client = self._clients.get(name)
        if client is None:
            client = self._clients[name] = _QueueClient(name)
        self._add(client, request)

    def leave(self, requests: Iterable[InferenceRequest]) -> None:
        """Takes requests off the count. Requests that are not counted are ignored."""
        for request in requests:
            client = self._of.pop(request, None)
            if client is None:
                continue
            del client.by_priority[request.priority][request]
            client.count -= 1
            client.nbytes -= request.nbytes
            if not client.count:
                del self._clients[client.name]

    def give_way(self, newcomer: InferenceRequest, places: int, nbytes: int) -> Sequence[InferenceRequest]:
        """Chooses the requests to evict, so that at least `places` requests and `nbytes` bytes become free, and takes
        them off the count. Returns nothing, and changes nothing, where the newcomer may not evict enough.
        """
        if newcomer.call is None:
            return ()
        newcomers_client = self._clients.get(self._who(newcomer.call))
        count = 1 if newcomers_client is None else newcomers_client.count + 1
        held = newcomer.nbytes if newcomers_client is None else newcomers_client.nbytes + newcomer.nbytes
        evicted: list[tuple[_QueueClient, InferenceRequest]] = []
        while places > 0 or nbytes > 0:
            client = self._greediest(newcomer.priority, count, held, in_places=places > 0)
            if client is None:
                for owner, request in reversed(evicted):
                    self._clients[owner.name] = owner
                    self._add(owner, request)
                return ()
            request = next(reversed(client.by_priority[client.least(newcomer.priority)]))
            evicted.append((client, request))
            self.leave((request,))
            places -= 1
            nbytes -= request.nbytes
        return [request for _, request in evicted]

    def has_claim(self, caller: Any) -> bool:
        """Whether a request of this caller might evict another; false for the client with the largest share. May be
        called without the lock: the answer may then be outdated."""
        client = self._clients.get(self._who(caller))
        return (0 if client is None else client.count) + 1 < self._most

    def come_back(self, requests: Sequence[InferenceRequest]) -> None:
        """Undoes `give_way`: counts the requests that it returned again."""
        for request in reversed(requests):
            self.join(request)

    def _add(self, client: _QueueClient, request: InferenceRequest) -> None:
        self._of[request] = client
        client.by_priority.setdefault(request.priority, {})[request] = None
        client.count += 1
        client.nbytes += request.nbytes
        self._most = max(self._most, client.count)
        self._size = max(self._size, len(self._of))

    def _greediest(self, priority: int, count: int, held: int, *, in_places: bool) -> _QueueClient | None:
        """The client with the largest share, larger than the newcomer's client would have (`count` requests, `held`
        bytes); None where there is none."""
        found = None
        if in_places and count >= self._most:
            return None  # no client can have more, so none is looked at
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


def _enqueued_at(request: InferenceRequest) -> float:
    return request.enqueued_at
