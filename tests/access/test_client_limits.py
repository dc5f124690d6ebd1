"""The limits of one client, without a server."""

from __future__ import annotations

import random
import threading

import pytest

from inferd.server.access.client_limits import Limiter, address_of
from inferd.server.config.schema import Clients
from inferd.server.errors import RateLimited


def refused(call: object) -> RateLimited:
    with pytest.raises(RateLimited, match=r"^expected at most") as caught:
        call()  # type: ignore[operator]
    return caught.value


def test_a_client_has_a_rate_and_a_burst():
    now = [0.0]
    limiter = Limiter(Clients(rate=10.0, burst=3), clock=lambda: now[0])
    for _ in range(3):
        limiter.enter("a")
    error = refused(lambda: limiter.enter("a"))
    assert error.retry_after == pytest.approx(0.1)
    assert "limits.clients.rate" in error.message
    limiter.enter("b")  # another client has a limit of its own
    now[0] = 0.1
    limiter.take("a")
    refused(lambda: limiter.take("a"))
    now[0] = 100.0
    for _ in range(3):
        limiter.take("a")
    refused(lambda: limiter.take("a"))
    assert limiter.refused == {"rate": 3, "concurrency": 0}


def test_the_default_burst_is_one_second_of_the_rate():
    limiter = Limiter(Clients(rate=5.0), clock=lambda: 0.0)
    for _ in range(5):
        limiter.take("a")
    refused(lambda: limiter.take("a"))
    slow = Limiter(Clients(rate=0.1), clock=lambda: 0.0)
    slow.take("a")
    assert refused(lambda: slow.take("a")).retry_after == pytest.approx(10.0)


def test_concurrency():
    limiter = Limiter(Clients(concurrency=2))
    first, _ = limiter.enter("a"), limiter.enter("a")
    assert "limits.clients.concurrency" in refused(lambda: limiter.enter("a")).message
    limiter.enter("b")
    first.release()
    first.release()  # has no effect
    limiter.enter("a")
    refused(lambda: limiter.enter("a"))
    assert limiter.refused == {"rate": 0, "concurrency": 2}


def test_threads_release_every_lease_exactly_once():
    limiter = Limiter(Clients(concurrency=4))

    def work(seed: int) -> None:
        rng = random.Random(seed)
        for _ in range(500):
            try:
                lease = limiter.enter("a")
            except RateLimited:
                continue
            if rng.random() < 0.5:
                lease.release()
            lease.release()

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    leases = [limiter.enter("a") for _ in range(4)]
    refused(lambda: limiter.enter("a"))
    assert len(leases) == 4


def test_memory_of_clients_is_bounded():
    limiter = Limiter(Clients(rate=1.0))
    for number in range(20_000):
        limiter.take(f"address {number}")
    assert len(limiter._known) <= 8192


@pytest.mark.parametrize(
    ("peer", "address"),
    [
        ("ipv4:10.0.0.1:5000", "10.0.0.1"),
        ("ipv6:[2001:db8:1:2:3:4:5:6]:5000", "2001:db8:1:2::/64"),
        ("ipv6:%5B2001:db8:1:2::9%5D:1", "2001:db8:1:2::/64"),
        ("ipv6:[::ffff:10.0.0.1]:5000", "10.0.0.1"),
        ("ipv6:[fe80::1%25eth0]:5000", "fe80::/64"),
        ("unix:", "unix"),
        ("unix:/tmp/x.sock", "unix"),
        ("ipv6:[junk]:1", "junk"),
        ("", ""),
    ],
)
def test_a_client_is_an_address_without_its_port(peer: str, address: str):
    assert address_of(peer) == address
