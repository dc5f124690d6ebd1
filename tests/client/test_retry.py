"""When a request is sent again, and when it is not."""

from __future__ import annotations

import math
import threading

import grpc
import pytest
from support.client import LONG, Failure, FakeServer, Script, rows

from inferd.client import (
    NO_RETRIES,
    DeadlineExceeded,
    InvalidInput,
    NotFound,
    Overloaded,
    RetryPolicy,
    ServerFailure,
    Unavailable,
)
from inferd.client._shared.core import Attempts, Deadline
from inferd.client._shared.errors import RequestError, error_class

GONE = Failure(grpc.StatusCode.UNAVAILABLE, "not now")
FAST = RetryPolicy(backoff=0.001)


def refused(ms: str) -> Failure:
    return Failure(grpc.StatusCode.UNAVAILABLE, "loading", (("inferd-accepted", "0"), ("grpc-retry-pushback-ms", ms)))


def test_unavailable_twice_then_an_answer(connect, server: FakeServer):
    server.script.failures.extend([GONE, GONE])
    client = connect(server.address, retry=FAST)
    assert client.predict("m", {"x": rows()}).version == 3
    assert server.script.calls.count("Predict") == 3


def test_the_third_failure_is_final_and_has_the_number_of_attempts(connect, server: FakeServer):
    server.script.failures.extend([GONE] * 5)
    with pytest.raises(Unavailable, match="not now") as caught:
        connect(server.address, retry=FAST).predict("m", {"x": rows()}, request_id="r")
    error = caught.value
    assert (error.attempts, error.model, error.request_id) == (3, "m", "r")
    assert isinstance(error.__cause__, Unavailable)
    assert server.script.calls.count("Predict") == 3


def test_a_request_is_repeated_when_the_connection_is_lost(connect, server: FakeServer):
    server.script.failures.append(Failure(grpc.StatusCode.UNAVAILABLE, drop=True))
    assert connect(server.address).predict("m", {"x": rows()}).version == 3
    assert server.script.calls.count("Predict") == 2


def test_a_call_that_the_server_ended_is_sent_again(connect, server: FakeServer):
    """A server that shuts down ends late calls with CANCELLED, although the client has not cancelled them."""
    server.script.failures.append(Failure(grpc.StatusCode.CANCELLED, "CANCELLED"))
    assert connect(server.address, retry=FAST).predict("m", {"x": rows()}).version == 3
    server.script.failures.append(Failure(grpc.StatusCode.CANCELLED, "CANCELLED"))
    with pytest.raises(Unavailable, match="the server ended the call"):
        connect(server.address, retry=NO_RETRIES).predict("m", {"x": rows()})


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (grpc.StatusCode.INTERNAL, ServerFailure),
        (grpc.StatusCode.NOT_FOUND, NotFound),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, Overloaded),
        (grpc.StatusCode.DEADLINE_EXCEEDED, DeadlineExceeded),
    ],
)
def test_other_failures_are_not_repeated(client, script: Script, code, kind):
    script.failures.extend([Failure(code)] * 3)
    with pytest.raises(kind):
        client.predict("m", {"x": rows()})
    assert script.calls == ["Predict"]


def test_the_retried_status_codes_can_be_chosen(connect, server: FakeServer):
    server.script.failures.append(Failure(grpc.StatusCode.RESOURCE_EXHAUSTED))
    policy = RetryPolicy(backoff=0.001, codes={grpc.StatusCode.RESOURCE_EXHAUSTED})
    assert connect(server.address, retry=policy).predict("m", {"x": rows()}).version == 3


def test_no_retries_means_one_attempt(connect, server: FakeServer):
    server.script.failures.append(GONE)
    with pytest.raises(Unavailable):
        connect(server.address, retry=NO_RETRIES).predict("m", {"x": rows()})
    assert server.script.calls == ["Predict"]


# -- models that keep state between requests


def test_a_stateful_model_gets_no_retry_if_it_may_have_received_the_request(client, script: Script):
    script.stateful = True
    script.failures.append(GONE)
    with pytest.raises(Unavailable):
        client.predict("m", {"x": rows()})
    assert script.calls == ["Predict", "GetModelMetadataRequest"]


def test_a_stateful_model_gets_a_retry_if_it_has_not_accepted_the_request(client, script: Script):
    script.stateful = True
    script.failures.append(refused("1"))
    assert client.predict("m", {"x": rows()}).version == 3
    assert script.calls == ["Predict", "Predict"]


def test_the_argument_stateful_overrides_the_metadata(client, script: Script):
    script.stateful = True
    script.failures.append(GONE)
    client.predict("m", {"x": rows()}, stateful=False)
    script.failures.append(GONE)
    with pytest.raises(Unavailable):
        client.predict("m", {"x": rows()}, stateful=True)
    assert script.calls == ["Predict", "Predict", "Predict"]


def test_without_metadata_nothing_is_repeated(client, script: Script):
    script.metadata_code = grpc.StatusCode.INTERNAL
    script.failures.append(GONE)
    with pytest.raises(Unavailable):
        client.predict("m", {"x": rows()})
    assert script.calls.count("Predict") == 1


# -- the server's pushback


def test_negative_pushback_forbids_another_attempt(client, script: Script):
    script.failures.append(refused("-1"))
    with pytest.raises(Unavailable) as caught:
        client.predict("m", {"x": rows()})
    assert caught.value.retry_after == math.inf
    assert caught.value.accepted is False
    assert script.calls == ["Predict"]


def test_pushback_longer_than_the_deadline_fails_the_call_at_once(client, script: Script):
    script.failures.append(refused("60000"))
    with pytest.raises(Unavailable) as caught:
        client.predict("m", {"x": rows()}, timeout=20.0)
    assert caught.value.retry_after == 60.0
    assert script.calls == ["Predict"]


def test_refusals_carry_their_pushback(client, script: Script):
    script.failures.append(
        Failure(
            grpc.StatusCode.RESOURCE_EXHAUSTED, "full", (("grpc-retry-pushback-ms", "250"), ("inferd-accepted", "1"))
        )
    )
    with pytest.raises(Overloaded) as caught:
        client.predict("m", {"x": rows()})
    assert caught.value.retry_after == 0.25
    assert caught.value.accepted is True


# -- deadlines


def test_the_timeout_ends_a_call_in_flight_and_the_server_sees_it(client, script: Script):
    script.hold = lambda request: script.cancelled.wait(LONG) and None
    with pytest.raises(DeadlineExceeded) as caught:
        client.predict("m", {"x": rows()}, timeout=0.5)
    assert isinstance(caught.value, TimeoutError)
    assert script.cancelled.wait(LONG)


def test_a_client_has_a_finite_default_timeout(connect, server: FakeServer):
    server.script.hold = lambda request: server.script.cancelled.wait(LONG) and None
    with pytest.raises(DeadlineExceeded):
        connect(server.address, timeout=0.2).predict("m", {"x": rows()})


# -- admin calls


def test_changes_are_never_repeated(client, script: Script):
    for change in (
        lambda: client.load("m"),
        lambda: client.unload("m"),
        lambda: client.set_label("m", "a", 1),
        lambda: client.rollback("m"),
    ):
        script.admin_failures.append(refused("0"))
        with pytest.raises(Unavailable):
            change()
    assert len(script.calls) == 4


def test_queries_are_repeated(client, script: Script):
    for question in (client.list_models, lambda: client.status("m"), lambda: client.metadata("m")):
        script.admin_failures.append(refused("0"))
        question()
    assert len(script.calls) == 6


# -- futures


def test_a_submitted_request_is_repeated(server: FakeServer):
    from inferd.client import Client

    server.script.failures.extend([GONE, GONE])
    with Client(server.address, retry=FAST) as client:
        assert client.submit("m", {"x": rows()}).result(LONG).version == 3
        server.script.failures.extend([GONE] * 3)
        with pytest.raises(Unavailable) as caught:
            client.submit("m", {"x": rows()}).result(LONG)
    assert caught.value.attempts == 3


# -- the class Attempts


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def failure(code: grpc.StatusCode = grpc.StatusCode.UNAVAILABLE, retry_after: float | None = None) -> RequestError:
    return error_class(code)(code, "x", retry_after=retry_after)


def test_pauses_are_random_growing_and_bounded():
    policy = RetryPolicy(attempts=6, backoff=0.1, multiplier=3.0, max_backoff=0.5)
    attempts = Attempts(policy, Deadline(math.inf), rand=lambda: 0.5)
    pauses = [attempts.pause_after(failure()) for _ in range(6)]
    assert pauses[:5] == pytest.approx([0.075, 0.225, 0.375, 0.375, 0.375])
    assert pauses[5] is None
    assert attempts.count == 6


def test_no_attempt_starts_just_before_the_deadline():
    """The attempt would end with DEADLINE_EXCEEDED, which hides why the first attempt was refused."""
    attempts = Attempts(RetryPolicy(), Deadline(30.0, lambda: 0.0))
    assert attempts.pause_after(failure(retry_after=29.998)) is None
    assert attempts.pause_after(failure(retry_after=26.0)) is None, "after a long pause a tenth of the timeout is left"
    assert attempts.pause_after(failure(retry_after=25.0)) == 25.0


def test_an_attempt_starts_only_if_it_has_as_much_time_as_the_last_one_took():
    """If the last attempt took two seconds (for example because the model hangs), and only one second is left, no
    attempt is made."""
    clock = Clock()
    attempts = Attempts(RetryPolicy(), Deadline(30.0, clock))
    clock.now = 2.0
    assert attempts.pause_after(failure(retry_after=23.0)) == 23.0
    attempts = Attempts(RetryPolicy(), Deadline(30.0, clock))
    clock.now = 4.0
    assert attempts.pause_after(failure(retry_after=25.2)) is None
    clock.now = 32.0 - 3.0
    late = Attempts(RetryPolicy(), Deadline(30.0, lambda: clock.now))
    clock.now += 26.0
    assert late.pause_after(failure(retry_after=0.5)) == 0.5, "a tenth of the timeout is enough after a long attempt"
    clock.now += 0.5
    assert late.pause_after(failure(retry_after=0.1)) == 0.1, "it was refused at once: the next may be as well"
    clock.now += 0.1
    assert late.pause_after(failure(retry_after=0.1)) is None, "that was the third"


def test_no_pause_starts_that_would_last_beyond_the_deadline():
    clock = Clock()
    attempts = Attempts(RetryPolicy(), Deadline(1.0, clock), rand=lambda: 0.0)
    assert attempts.pause_after(failure(retry_after=0.8)) == 0.8
    clock.now = 0.5
    assert attempts.pause_after(failure(retry_after=0.5)) is None


def test_a_policy_with_values_out_of_range_is_refused():
    for wrong in ({"attempts": 0}, {"backoff": -1.0}, {"multiplier": 0.5}):
        with pytest.raises(InvalidInput):
            RetryPolicy(**wrong)


def test_closing_wakes_a_call_that_waits_for_its_next_attempt(server: FakeServer):
    from inferd.client import Client, ClientClosed

    server.script.failures.append(refused("20000"))
    refused_once = threading.Event()
    server.script.refuse = lambda request: None
    client = Client(server.address)
    caught: list[BaseException] = []

    def call() -> None:
        try:
            client.predict("m", {"x": rows()}, timeout=LONG)
        except BaseException as error:
            caught.append(error)
        refused_once.set()

    thread = threading.Thread(target=call)
    thread.start()
    while not server.script.requests:
        thread.join(0.01)
    client.close()
    thread.join(LONG)
    assert isinstance(caught[0], ClientClosed)


def test_a_token_function_that_fails_in_a_retry_fails_the_future(server: FakeServer):
    from inferd.client import Client

    server.script.failures.append(refused("0"))
    tokens = iter(["first"])

    def token() -> str:
        for found in tokens:
            return found
        raise RuntimeError("no token")

    with Client(server.address, token=token) as client:
        future = client.submit("m", {"x": rows()}, stateful=False)
        with pytest.raises(RuntimeError, match="no token"):
            future.result(LONG)
