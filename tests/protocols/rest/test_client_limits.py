"""`limits.clients` over REST: a client over its limits gets 429 with Retry-After."""

from __future__ import annotations

import threading

import pytest
from support.rest import Rest, tensor

INFER = "/v2/models/digits/infer"
BODY = {"inputs": [tensor("x", [[1.0]])]}


def limited(**clients: object) -> Rest:
    return Rest(clients=dict(clients))


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", INFER, BODY),
        ("POST", "/v1/models/digits:predict", {"instances": [[1.0]]}),
        ("GET", "/v2/models/digits", None),
        ("GET", "/v1/models/digits", None),
    ],
)
def test_a_client_over_its_rate_gets_429_and_retry_after(method: str, path: str, body: object):
    with limited(rate=0.01, burst=1) as rest:
        assert rest.ask(method, path, body).status == 200  # counted once, even if it calls a gRPC method
        answer = rest.ask(method, path, body)
        assert answer.status == 429
        assert "limits.clients.rate" in answer.error
        assert 90 <= int(answer.headers["Retry-After"]) <= 100
        assert rest.get("/v2/health/live").status == 200
        assert rest.get("/healthz").status == 200


def test_a_client_over_its_concurrency_gets_429():
    with limited(concurrency=1) as rest:
        rest.scheduler("digits").holding = True
        held: list[int] = []
        thread = threading.Thread(target=lambda: held.append(rest.post(INFER, BODY).status))
        thread.start()
        rest.scheduler("digits").wait_for(1)
        answer = rest.post(INFER, BODY)
        assert (answer.status, answer.headers["Retry-After"]) == (429, "1")
        rest.scheduler("digits").release()
        thread.join()
        assert held == [200]
        assert rest.post(INFER, BODY).status == 200
        assert rest.post(INFER, {}).status == 400
        assert rest.post(INFER, BODY).status == 200
