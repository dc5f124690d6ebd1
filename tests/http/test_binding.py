import socket

import pytest

from inferd.server.http.binding import bound_address, listen


def ipv6():
    try:
        with socket.socket(socket.AF_INET6) as sock:
            sock.bind(("::1", 0))
    except OSError:
        return False
    return True


needs_ipv6 = pytest.mark.skipif(not ipv6(), reason="no IPv6 here")


@pytest.fixture
def bound():
    opened = []

    def bind(address):
        sockets = listen(address)
        opened.extend(sockets)
        return sockets

    yield bind
    for sock in opened:
        sock.close()


def reaches(family, address):
    with socket.socket(family) as sock:
        sock.settimeout(5)
        return sock.connect_ex(address) == 0


def test_port_0_binds_a_free_port(bound):
    [sock] = bound("127.0.0.1:0")
    host, port = bound_address(sock).split(":")
    assert (host, int(port) > 0) == ("127.0.0.1", True)
    assert reaches(socket.AF_INET, ("127.0.0.1", int(port)))


@needs_ipv6
def test_an_ipv6_address_takes_ipv6_only(bound):
    [sock] = bound("[::1]:0")
    assert bound_address(sock).startswith("[::1]:")
    assert reaches(socket.AF_INET6, sock.getsockname()[:2])
    assert not reaches(socket.AF_INET, ("127.0.0.1", sock.getsockname()[1]))


@needs_ipv6
def test_the_ipv6_wildcard_takes_ipv4_too(bound):
    [sock] = bound("[::]:0")
    port = sock.getsockname()[1]
    assert reaches(socket.AF_INET, ("127.0.0.1", port))
    assert reaches(socket.AF_INET6, ("::1", port))


def test_without_ipv6_the_wildcard_is_ipv4(bound, monkeypatch):
    real = socket.socket

    def refuse(family=socket.AF_INET, *args, **kwargs):
        if family == socket.AF_INET6:
            raise OSError(97, "Address family not supported by protocol")
        return real(family, *args, **kwargs)

    monkeypatch.setattr(socket, "socket", refuse)
    [sock] = bound("[::]:0")
    assert bound_address(sock).startswith("0.0.0.0:")


def test_all_addresses_of_a_name_get_the_same_port(bound):
    sockets = bound("localhost:0")
    assert len({sock.getsockname()[1] for sock in sockets}) == 1


def test_a_port_in_use_is_refused(bound):
    [first] = bound("127.0.0.1:0")
    with pytest.raises(OSError, match=r"cannot listen on 127\.0\.0\.1:\d+: Address already in use"):
        bound(bound_address(first))


@pytest.mark.parametrize("address", ["no.such.host.invalid:1", "192.0.2.1:0", "x" * 80 + ".invalid:1"])
def test_the_error_names_an_address_that_cannot_be_bound(address):
    with pytest.raises(OSError, match="cannot listen on"):
        listen(address)
