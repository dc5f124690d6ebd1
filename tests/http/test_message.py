import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferd.server.http.content_coding import response_coding
from inferd.server.http.message import BadRequest, read_head


def head(*lines):
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n"


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (("GET /metrics HTTP/1.1", "Host: x"), ("GET", "/metrics", False)),
        (("GET /metrics?x=1 HTTP/1.1", "Host: x"), ("GET", "/metrics", False)),
        (("GET http://h:1/readyz HTTP/1.1", "host: h"), ("GET", "/readyz", False)),
        (("HEAD / HTTP/1.1", "Host: x", "Connection: close"), ("HEAD", "/", True)),
        (("GET / HTTP/1.0",), ("GET", "/", True)),
        (("GET / HTTP/1.0", "connection: Keep-Alive"), ("GET", "/", False)),
        (("POST / HTTP/1.1", "Host: x", "Content-Length: 5"), ("POST", "/", True)),
        (("POST / HTTP/1.1", "Host: x", "Content-Length: 0"), ("POST", "/", False)),
        (("POST / HTTP/1.1", "Host: x", "Transfer-Encoding: chunked"), ("POST", "/", True)),
    ],
)
def test_request_heads_are_parsed(lines, expected):
    request = read_head(head(*lines))
    assert (request.method, request.path, request.close) == expected


@pytest.mark.parametrize(
    "lines",
    [
        ("",), ("GET /",), ("GET / HTTP/2.0",), ("GET  / HTTP/1.1",), ("\x16\x03\x01",),
        ("GET / HTTP/1.1", "Host: x", "no colon"), ("GET / HTTP/1.1", "Host: x", " folded: x"),
        ("GET / HTTP/1.1", "Host: x", "a b: x"), ("GET / HTTP/1.1",), ("GET / HTTP/1.1", "Host: x", "host: x"),
        ("GET / HTTP/1.0", "Host: x", "Host: y"), ("GET / HTTP/0.9",),
    ],
)  # fmt: skip
def test_a_malformed_head_is_refused(lines):
    with pytest.raises(BadRequest):
        read_head(head(*lines))


def test_long_runs_of_blanks_take_linear_time():
    """Blanks in a head, in one header, and in Accept-Encoding: with quadratic time, the port would hang for hours."""
    blanks = " " * 100_000
    assert read_head(head("GET / HTTP/1.1", "Host: x", f"a:{blanks}b{blanks}c{blanks}")).headers["a"] == f"b{blanks}c"
    with pytest.raises(BadRequest):
        read_head(head("GET / HTTP/1.1", "Host: x", f"a: {blanks}\0"))
    assert response_coding(f"gzip{blanks}!, deflate{blanks};{blanks}q={blanks}0.5{blanks}") == "deflate"
    assert response_coding(f"gzip;q={blanks}x") == ""


@given(st.binary(max_size=100))
def test_any_bytes_are_parsed_or_raise_bad_request(data):
    try:
        read_head(data + b"\r\n\r\n")
    except BadRequest:
        pass
