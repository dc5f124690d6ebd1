import http.client
import json
import logging
import re
import select
import socket
import threading

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from inferd.server.http.pages import ReadinessLike
from inferd.server.http.rest_server import RestServer
from inferd.server.http.server import HttpLimits, HttpServer
from inferd.server.observability.metrics import Metrics

WAIT = 20


class Site:
    """A running server, and a client for it."""

    def __init__(self, kind, metrics=lambda: b"m 1\n", limits=None, addresses=("127.0.0.1:0",)):
        self.readiness = ReadinessLike(True)
        self.server = kind(addresses, metrics, lambda: self.readiness, limits=limits)
        self.addresses = self.server.start()
        self.host, port = self.addresses[0].rsplit(":", 1)
        self.port = int(port)

    def ask(self, path, method="GET", body=None):
        connection = http.client.HTTPConnection(self.host, self.port, timeout=WAIT)
        try:
            connection.request(method, path, body=body)
            answer = connection.getresponse()
            return answer.status, answer.read(), answer.headers
        finally:
            connection.close()

    def raw(self):
        sock = socket.create_connection((self.host, self.port), timeout=WAIT)
        self.opened.append(sock)
        return sock

    opened: list


@pytest.fixture(params=[HttpServer, RestServer])
def kind(request):
    """The server without REST and the one with REST: both have the same pages."""
    return request.param


@pytest.fixture
def serve(kind):
    sites = []

    def make(*args, **kwargs):
        site = Site(kind, *args, **kwargs)
        site.opened = []
        sites.append(site)
        return site

    yield make
    for site in sites:
        for sock in site.opened:
            sock.close()
        site.server.stop()
    assert not [thread for thread in threading.enumerate() if thread.name == "inferd-http"]


def read_all(sock):
    data = b""
    while piece := sock.recv(65536):
        data += piece
    return data


def test_the_metrics_page_is_in_prometheus_format(serve):
    metrics = Metrics(CollectorRegistry(), version="1")
    metrics.model("digits", 1).request("native", "OK", 0.001)
    status, body, headers = serve(metrics.render).ask("/metrics")
    assert (status, headers["Content-Type"]) == (200, "text/plain; version=0.0.4; charset=utf-8")
    names = {family.name for family in text_string_to_metric_families(body.decode())}
    assert {"inferd_requests", "process_resident_memory_bytes"} <= names


def test_healthz_is_200_while_the_server_is_not_ready(serve):
    site = serve()
    site.readiness = ReadinessLike(False, "models are loading")
    assert site.ask("/healthz")[:2] == (200, b'{"status": "ok"}\n')


def test_readyz_follows_readiness_and_gives_the_reason(serve):
    site = serve()
    assert site.ask("/readyz")[0] == 200
    site.readiness = ReadinessLike(False, "draining", {"models": {"digits": "loading"}})
    status, body, headers = site.ask("/readyz")
    assert (status, headers["Content-Type"], headers["Cache-Control"]) == (503, "application/json", "no-store")
    assert json.loads(body) == {"ready": False, "reason": "draining", "models": {"digits": "loading"}}


@pytest.mark.parametrize("path", ["/metrics", "/healthz", "/readyz"])
def test_a_head_request_gets_the_length_and_no_body(serve, path):
    site = serve()
    status, body, headers = site.ask(path, "HEAD")
    assert (status, body) == (200, b"")
    assert int(headers["Content-Length"]) == len(site.ask(path)[1]) > 0


def test_unknown_paths_and_methods_get_404_and_405(serve):
    site = serve()
    status, body, _ = site.ask("/")
    assert (status, json.loads(body)["error"]) == (404, "no such page: expected one of /metrics, /healthz, /readyz")
    assert site.ask("/metrics/")[0] == 404
    for method in ("POST", "DELETE", "OPTIONS"):
        status, body, headers = site.ask("/healthz", method, body=b"x" * 10)
        assert (status, headers["Allow"]) == (405, "GET, HEAD")
        assert json.loads(body)["error"] == f"expected GET or HEAD, got {method}"


def test_one_connection_serves_many_requests(serve):
    site = serve()
    connection = http.client.HTTPConnection(site.host, site.port, timeout=WAIT)
    connection.connect()
    local = connection.sock.getsockname()
    for path in ["/healthz", "/nothing", "/metrics", "/readyz"] * 5:
        connection.request("GET", path)
        connection.getresponse().read()
    assert connection.sock.getsockname() == local
    connection.close()


def test_pipelined_requests_are_answered_in_order(serve):
    sock = serve().raw()
    sock.sendall(
        b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\nGET /nothing HTTP/1.1\r\nHost: a\r\n\r\n"
        b"GET /readyz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
    )
    answers = read_all(sock)
    assert re.findall(rb"HTTP/1.1 (\d+)", answers) == [b"200", b"404", b"200"]


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"nonsense\r\n\r\n", b"400"),
        (b"\x16\x03\x01\x00\x00\r\n\r\n", b"400"),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"400"),
        (b"GET /healthz HTTP/1.1\r\nX: " + b"x" * 20_000 + b"\r\n\r\n", b"431"),
        (b"GET /" + b"x" * 20_000, b"431"),
    ],
)
def test_malformed_bytes_get_an_error_response_and_a_closed_connection(serve, sent, status):
    site = serve()
    sock = site.raw()
    sock.sendall(sent)
    assert read_all(sock).split(b" ")[1] == status
    assert site.ask("/healthz")[0] == 200


def test_a_client_that_sends_no_request_is_cut_off(serve):
    site = serve(limits=HttpLimits(head=0.5, idle=0.1))
    silent, slow, idle = site.raw(), site.raw(), site.raw()
    slow.sendall(b"GET /healthz HT")
    idle.sendall(b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n")
    assert read_all(silent) == read_all(slow) == b""
    assert read_all(idle).startswith(b"HTTP/1.1 200")


def test_a_client_that_does_not_read_is_cut_off(serve):
    site = serve(lambda: b"x" * 20_000_000, limits=HttpLimits(write=0.2))
    sock = site.raw()
    sock.sendall(b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n")
    reset = select.poll()
    reset.register(sock, select.POLLERR | select.POLLHUP)
    assert site.ask("/healthz")[0] == 200
    assert reset.poll(WAIT * 1000)


def test_silent_connections_are_closed_for_new_clients(serve):
    site = serve(limits=HttpLimits(connections=10, head=600, idle=600))
    silent = [site.raw() for _ in range(30)]
    for _ in range(5):
        assert site.ask("/healthz")[0] == 200
    silent[0].settimeout(WAIT)
    try:
        assert silent[0].recv(1) == b""
    except ConnectionResetError:
        pass


def test_a_scrape_that_hangs_gets_503_and_blocks_neither_health_nor_stop(serve):
    entered, free = threading.Event(), threading.Event()
    calls = []

    def metrics():
        calls.append(1)
        entered.set()
        free.wait(WAIT)
        return b"late 1\n"

    site = serve(metrics, limits=HttpLimits(page=0.2))
    for _ in range(3):
        status, body, _ = site.ask("/metrics")
        assert (status, json.loads(body)["error"]) == (503, "/metrics was not made within 0.2 seconds")
        assert entered.is_set()
        assert site.ask("/healthz")[0] == 200
    assert len(calls) == 1  # at most one thread renders, however many scrapes arrive
    site.server.stop()
    free.set()


def test_a_page_that_fails_is_logged_and_sends_no_traceback(serve, caplog):
    def metrics():
        raise ValueError("inner secret")

    site = serve(metrics)
    with caplog.at_level(logging.ERROR, "inferd.http"):
        status, body, _ = site.ask("/metrics")
    assert status == 500
    assert b"inner" not in body
    assert "a page failed" in caplog.text
    assert site.ask("/healthz")[0] == 200


def test_several_addresses_are_served(serve):
    site = serve(addresses=("127.0.0.1:0", "127.0.0.1:0"))
    assert len(set(site.addresses)) == 2
    for address in site.addresses:
        connection = http.client.HTTPConnection(address, timeout=WAIT)
        connection.request("GET", "/healthz")
        assert connection.getresponse().status == 200
        connection.close()


def test_an_address_in_use_is_an_error_and_nothing_stays_bound(serve, kind):
    taken = serve().addresses[0]
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        free = f"127.0.0.1:{probe.getsockname()[1]}"
    with pytest.raises(OSError, match=f"cannot listen on {taken}"):
        kind((free, taken), bytes, lambda: ReadinessLike(True)).start()
    again = kind((free,), bytes, lambda: ReadinessLike(True))
    assert again.start() == (free,)
    again.stop()


def test_stop_closes_idle_connections_and_frees_the_port_and_can_be_repeated(serve, kind):
    site = serve()
    idle = site.raw()
    idle.sendall(b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n")
    got = b""
    while not got.endswith(b"}\n"):
        got += idle.recv(65536)
    site.server.stop()
    site.server.stop()
    try:
        assert idle.recv(1) == b""
    except ConnectionResetError:
        pass
    again = kind(site.addresses, bytes, lambda: ReadinessLike(True))
    assert again.start() == site.addresses
    again.stop()


def test_a_server_that_never_started_can_be_stopped(kind):
    kind(("127.0.0.1:0",), bytes, lambda: ReadinessLike(True)).stop()


def test_without_addresses_no_port_is_opened(kind):
    server = kind((), bytes, lambda: ReadinessLike(True))
    assert server.start() == ()
    server.stop()


def test_many_clients_are_served_at_once(serve):
    metrics = Metrics(CollectorRegistry())
    site = serve(metrics.render)
    wrong = []

    def work(number):
        for _ in range(20):
            path = ("/metrics", "/healthz", "/readyz")[number % 3]
            status, body, _ = site.ask(path)
            if status != 200 or not body:
                wrong.append((path, status))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
