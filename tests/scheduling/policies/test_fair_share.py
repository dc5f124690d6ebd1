"""Fair shares of a full queue: which requests are evicted, their errors, and the cost of a queue with room."""

from __future__ import annotations

from collections import Counter
from time import monotonic

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.scheduling import PATIENCE, FakeModel, Recorder, learn, submit, vector

from inferd.server.errors import Code, Overloaded, TooLate
from inferd.server.scheduling.policies.fair_share import FairShare
from inferd.server.scheduling.request import InferenceRequest, callback_request


class Clients:
    """A scheduler that stands at the gate of its model, and requests of clients by name."""

    def __init__(self, serve, **options) -> None:
        self.asked: list[str] = []
        self.model, self.observer = FakeModel(), Recorder()
        self.scheduler = serve(self.model, observer=self.observer, who=self.who, **options)
        self.model.gate.close()
        submit(self.scheduler, first := vector(0))
        self.first = first
        self.model.gate.wait_for_arrivals()

    def who(self, caller: str) -> str:
        self.asked.append(caller)
        return caller

    def ask(self, caller: str | None, count: int = 1, **options):
        calls = [vector(i + 1, call=caller, **options) for i in range(count)]
        for call in calls:
            submit(self.scheduler, call)
        return calls

    def refuse(self, caller: str | None, **options) -> Overloaded:
        with pytest.raises(Overloaded) as refused:
            self.ask(caller, **options)
        return refused.value

    @property
    def queue(self):
        return self.scheduler._queues["f"]

    def finish(self) -> None:
        self.model.gate.open()
        assert self.scheduler.drain(PATIENCE)
        assert self.scheduler.queue_depth == (0, 0)


def waiting(calls) -> int:
    return sum(not call.finished for call in calls)


def test_the_newest_request_of_the_largest_share_is_evicted(serve):
    clients = Clients(serve, queue={"requests": 4})
    greedy = clients.ask("greedy", 4)
    (modest,) = clients.ask("modest")
    assert [call.finished for call in greedy] == [False, False, False, True]
    error = greedy[-1].error
    assert error.code is Code.RESOURCE_EXHAUSTED
    assert "gave way to another client's (queue.fair)" in str(error)
    assert error.retry_after > 0
    assert not error.accepted
    assert clients.scheduler.queue_depth[0] == 4
    assert clients.observer.drops == ["full"]
    assert "4 of 4 requests" in str(clients.refuse("greedy"))
    clients.finish()
    assert modest.result()["y"][0, 0] == 2
    for call in greedy[:3]:
        call.result()
    assert [call.outcomes for call in (modest, *greedy)] == [1] * 5


def test_shares_become_equal_and_no_further(serve):
    clients = Clients(serve, queue={"requests": 12})
    calls = {"a": clients.ask("a", 12), "b": clients.ask("b", 6)}
    clients.refuse("b")
    calls["c"] = clients.ask("c", 4)
    for name in calls:
        clients.refuse(name)
    assert {name: waiting(asked) for name, asked in calls.items()} == {"a": 4, "b": 4, "c": 4}
    calls["d"] = clients.ask("d", 2)
    assert sorted(waiting(asked) for asked in calls.values()) == [2, 3, 3, 4]
    clients.finish()


def test_a_clients_only_request_is_not_evicted(serve):
    clients = Clients(serve, queue={"requests": 3})
    calls = [call for name in "abc" for call in clients.ask(name)]
    clients.refuse("d")
    assert waiting(calls) == 3
    clients.finish()


def test_a_request_of_higher_priority_is_never_evicted(serve):
    clients = Clients(serve, queue={"requests": 4})
    important = clients.ask("greedy", 2, priority=1)
    others = clients.ask("greedy", 1, priority=3) + clients.ask("greedy", 1, priority=2)
    clients.refuse("modest", priority=4)
    clients.ask("modest", priority=2)
    assert others[0].finished, "the least important goes first, not the newest of all"
    clients.refuse("modest", priority=3)
    assert waiting(important) == 2
    assert waiting(others) == 1
    clients.finish()


def test_the_largest_share_among_evictable_requests_is_evicted(serve):
    clients = Clients(serve, queue={"requests": 6})
    clients.ask("most", 4, priority=1)
    less = clients.ask("less", 2, priority=5)
    clients.ask("modest", priority=3)
    assert waiting(less) == 1
    clients.refuse("modest", priority=3)
    clients.finish()


def test_bytes_are_shared_like_requests(serve):
    clients = Clients(serve, queue={"bytes": 100})
    greedy = clients.ask("greedy", 5, nbytes=20)
    (modest,) = clients.ask("modest", nbytes=30)
    assert [call.finished for call in greedy] == [False] * 3 + [True] * 2
    assert clients.scheduler.queue_depth == (4, 90)
    assert "this request needs 40" in str(clients.refuse("modest", nbytes=40))
    assert waiting(greedy) == 3, "whoever cannot fit displaces nobody"
    clients.finish()
    modest.result()


def test_an_only_request_does_not_give_way_for_its_size(serve):
    clients = Clients(serve, queue={"bytes": 100})
    (large,) = clients.ask("large", nbytes=90)
    clients.refuse("small", nbytes=20)
    assert not large.finished
    clients.finish()


def test_requests_without_a_client_neither_evict_nor_are_evicted(serve):
    clients = Clients(serve, queue={"requests": 3})
    calls = clients.ask(None, 3)
    clients.refuse("a")
    clients.refuse(None)
    assert waiting(calls) == 3
    clients.finish()


def test_off_it_is_first_come_first_served(serve):
    clients = Clients(serve, queue={"requests": 3, "fair": False})
    clients.ask("greedy", 3)
    clients.refuse("modest")
    assert clients.asked == []
    clients.finish()


def test_a_queue_with_room_does_not_look_up_clients(serve):
    clients = Clients(serve, queue={"requests": 4})
    calls = clients.ask("a", 4)
    assert clients.asked == []
    calls += clients.ask("b", 2)
    assert clients.queue.fair_share is not None
    for call in calls[:2]:
        call.cancel()
    assert clients.queue.fair_share is None, "half of it has gone"
    del clients.asked[:]
    clients.ask("c", 2)
    assert clients.asked == []
    clients.finish()


@pytest.mark.parametrize("end", ["answered", "cancelled", "expired"])
def test_clients_without_requests_are_forgotten(serve, end: str):
    clients = Clients(serve, queue={"requests": 8}, batching={"mode": "off"})
    options = {"deadline": monotonic() + 0.2} if end == "expired" else {}
    greedy = clients.ask("greedy", 8, **options)
    clients.ask("modest", 2)
    crowd = clients.queue.fair_share
    if end == "answered":
        clients.model.gate.step(2)
        greedy[0].wait()
    elif end == "cancelled":
        greedy[0].cancel()
    else:
        greedy[0].wait()
    gone = sum(call.finished for call in greedy)
    assert gone >= 3
    if clients.queue.fair_share is crowd:
        assert crowd._clients["greedy"].count <= 8 - gone
    clients.finish()
    assert clients.queue.fair_share is None


def test_a_split_request_is_evicted_as_a_whole(serve):
    clients = Clients(serve, batching={"max_batch_size": 2}, queue={"bytes": 100})
    big = [vector(*range(1, 8), call="greedy", nbytes=45) for _ in range(2)]
    for call in big:
        submit(clients.scheduler, call)
    (modest,) = clients.ask("modest", nbytes=20)
    assert [call.finished for call in big] == [False, True]
    assert clients.scheduler.queue_depth == (2, 65)
    clients.finish()
    assert modest.result()["y"][0, 0] == 2
    assert big[0].result()["y"][:, 0].tolist() == [2.0 * i for i in range(1, 8)]
    assert [call.outcomes for call in (*big, modest)] == [1, 1, 1]


def test_a_split_request_evicts_as_a_whole(serve):
    clients = Clients(serve, batching={"max_batch_size": 2}, queue={"bytes": 100})
    greedy = clients.ask("greedy", 5, nbytes=20)
    big = vector(*range(1, 6), call="modest", nbytes=40)
    submit(clients.scheduler, big)
    assert waiting(greedy) == 3
    clients.finish()
    assert big.result()["y"][:, 0].tolist() == [2, 4, 6, 8, 10]


def test_an_evicted_split_request_says_that_it_may_have_run(serve):
    clients = Clients(serve, batching={"max_batch_size": 2}, queue={"bytes": 100})
    big = [vector(*range(1, 8), call="greedy", nbytes=45) for _ in range(2)]
    for call in big:
        submit(clients.scheduler, call)
    clients.model.gate.step()
    clients.model.gate.wait_for_arrivals()
    clients.ask("modest", nbytes=20)
    assert big[1].wait().error.accepted
    clients.finish()
    big[0].result()


class TestDeadlines:
    """With `queue.admission: deadline` a queue refuses requests that would be late."""

    @pytest.fixture
    def clients(self, serve):
        clients = Clients(serve, batching={"mode": "off"})
        (bucket,) = clients.queue.buckets.values()
        clients.model.gate.step()
        clients.first.result()
        learn(bucket, 10.0)
        clients.ask(None)
        clients.model.gate.wait_for_arrivals()
        return clients

    def test_a_newcomer_takes_the_place_of_who_would_have_been_in_time(self, clients):
        due = monotonic() + 50
        greedy = []
        with pytest.raises(TooLate):  # noqa: PT012
            while len(greedy) < 10:
                greedy += clients.ask("greedy", deadline=due)
        (modest,) = clients.ask("modest", deadline=due + 1)
        assert [call.finished for call in greedy] == [False] * (len(greedy) - 1) + [True]
        assert clients.observer.drops == ["late", "full"]
        clients.finish()
        modest.result()

    def test_who_has_less_time_than_it_would_give_is_late(self, clients):
        greedy = clients.ask("greedy", 6)
        assert isinstance(clients.refuse("modest", deadline=monotonic() + 5), TooLate)
        assert waiting(greedy) == 6
        assert clients.observer.drops == ["late"]
        clients.finish()


@given(
    st.lists(st.tuples(st.sampled_from("abcd"), st.integers(1, 3), st.integers(0, 9)), max_size=60),
    st.integers(1, 12),
    st.integers(1, 40),
)
def test_shares_are_max_min_fair(asked, places: int, room: int) -> None:
    """For any queue and any requests: bounds hold, counts are right, and a refused client has its fair share."""
    inside: list[InferenceRequest] = []
    crowd = FairShare(lambda caller: caller, ())
    for caller, priority, nbytes in asked:
        request = callback_request("f", {}, lambda _: None, call=caller, priority=priority, nbytes=nbytes)
        short = sum(one.nbytes for one in inside) + nbytes - room
        over = len(inside) + 1 - places
        if over > 0 or short > 0:
            counts = Counter(one.call for one in inside)
            gone = crowd.give_way(request, over, short)
            if not gone:
                if short <= 0 and all(one.priority >= priority for one in inside):
                    assert max(counts.values()) <= counts[caller] + 1
                continue
            assert all(one.priority >= priority and one.call != caller for one in gone)
            assert all(counts[one.call] > 1 for one in gone)
            inside = [one for one in inside if one not in gone]
        crowd.join(request)
        inside.append(request)
        assert len(inside) <= places
        assert sum(one.nbytes for one in inside) <= room
        clients = {client.name: (client.count, client.nbytes) for client in crowd._clients.values()}
        assert clients == {
            name: (
                sum(one.call == name for one in inside),
                sum(one.nbytes for one in inside if one.call == name),
            )
            for name in {one.call for one in inside}
        }
    crowd.leave(inside)
    assert not crowd._clients
    assert not crowd._of
