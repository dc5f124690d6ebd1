"""The error class of each status code, and the documented tree of errors."""

from __future__ import annotations

import copy
import pickle
import re

import grpc
import pytest
from support.client import Failure, rows

import inferd.client
from inferd.client import (
    Cancelled,
    ClientClosed,
    DeadlineExceeded,
    FailedPrecondition,
    InferdError,
    InvalidArgument,
    InvalidInput,
    InvalidResponse,
    MessageTooLarge,
    NotFound,
    Overloaded,
    PermissionDenied,
    RequestError,
    ServerFailure,
    Unauthenticated,
    Unavailable,
    Unsupported,
)
from inferd.client._shared import errors as _errors

CODES = {
    grpc.StatusCode.INVALID_ARGUMENT: InvalidArgument,
    grpc.StatusCode.OUT_OF_RANGE: InvalidArgument,
    grpc.StatusCode.NOT_FOUND: NotFound,
    grpc.StatusCode.FAILED_PRECONDITION: FailedPrecondition,
    grpc.StatusCode.ABORTED: FailedPrecondition,
    grpc.StatusCode.ALREADY_EXISTS: FailedPrecondition,
    grpc.StatusCode.UNAVAILABLE: Unavailable,
    grpc.StatusCode.RESOURCE_EXHAUSTED: Overloaded,
    grpc.StatusCode.DEADLINE_EXCEEDED: DeadlineExceeded,
    grpc.StatusCode.UNAUTHENTICATED: Unauthenticated,
    grpc.StatusCode.PERMISSION_DENIED: PermissionDenied,
    grpc.StatusCode.UNIMPLEMENTED: Unsupported,
    grpc.StatusCode.INTERNAL: ServerFailure,
    grpc.StatusCode.UNKNOWN: ServerFailure,
    grpc.StatusCode.DATA_LOSS: ServerFailure,
}


@pytest.mark.parametrize("code", CODES, ids=lambda code: code.name)
def test_every_status_code_has_an_error_class_and_a_message(client, script, code):
    script.refuse = lambda request: Failure(code, "what happened", (("grpc-retry-pushback-ms", "-1"),))
    with pytest.raises(CODES[code]) as caught:
        client.predict("m", {"x": rows()}, request_id="r-9")
    error = caught.value
    assert type(error) is CODES[code]
    assert (error.code, error.message, error.model, error.request_id) == (code, "what happened", "m", "r-9")
    assert str(error) == f"{code.name}: model 'm': what happened"


@pytest.mark.parametrize("remade", [lambda error: pickle.loads(pickle.dumps(error)), copy.copy], ids=["pickle", "copy"])
@pytest.mark.parametrize("kind", [NotFound, DeadlineExceeded, InvalidInput], ids=lambda kind: kind.__name__)
def test_errors_can_be_pickled(kind, remade):
    if kind is InvalidInput:
        assert str(remade(InvalidInput("wrong"))) == "wrong"
        return
    error = kind(grpc.StatusCode.NOT_FOUND, "gone", model="m", request_id="r", accepted=False, attempts=3)
    found = remade(error)
    assert type(found) is kind
    assert (str(found), vars(found)) == (str(error), vars(error))


def test_the_classes_form_the_documented_tree():
    drawn = set(re.findall(r"[├└]── (\w+)", _errors.__doc__ or ""))
    real = {name for name, value in vars(_errors).items() if isinstance(value, type) and issubclass(value, InferdError)}
    assert drawn == real - {"InferdError"}
    assert set(CODES.values()) == {getattr(_errors, name) for name in drawn} - {
        Cancelled,  # raised only if the caller cancels: see test_retry
        ClientClosed,
        InvalidInput,
        InvalidResponse,
        MessageTooLarge,  # the same code as Overloaded
        RequestError,
    }
    assert all(name in inferd.client.__all__ for name in real)


def test_an_unreadable_answer_is_an_invalid_response(server, connect):
    import concurrent.futures

    foreign = grpc.server(concurrent.futures.ThreadPoolExecutor(2))
    handler = grpc.unary_unary_rpc_method_handler(lambda request, context: b"\xff\xff\xff")
    foreign.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler("inferd.v1.PredictService", {"Predict": handler}),)
    )
    port = foreign.add_insecure_port("127.0.0.1:0")
    foreign.start()
    try:
        with pytest.raises(InvalidResponse):
            connect(f"127.0.0.1:{port}").predict("m", {"x": rows()})
    finally:
        foreign.stop(0).wait()


def test_without_a_server_the_call_is_unavailable_and_not_accepted(connect):
    import socket

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        with pytest.raises(Unavailable) as caught:
            connect(f"127.0.0.1:{free.getsockname()[1]}").predict("m", {"x": rows()}, timeout=20.0)
    assert caught.value.accepted is False
    assert caught.value.attempts == 3


@pytest.mark.parametrize(
    ("details", "words"),
    [
        (
            "SERVER: Received message larger than max (4000026 vs. 1048576)",
            "the request has 4000026 bytes, and the server allows 1048576 in one message "
            "(its setting grpc.max_message)",
        ),
        (
            "SERVER: Sent message larger than max (4000057 vs. 1048576)",
            "the answer has 4000057 bytes, and the server allows 1048576 in one message (its setting grpc.max_message)",
        ),
        (
            "Stream removed (CLIENT: Received message larger than max (4050 vs. 1000))",
            "the answer has 4050 bytes, and this client allows 1000 in one message (options: "
            "grpc.max_receive_message_length)",
        ),
        (
            "CLIENT: Sent message larger than max (9 vs. 8)",
            "the request has 9 bytes, and this client allows 8 in one message (options: grpc.max_send_message_length)",
        ),
    ],
)
def test_a_message_that_is_too_large_is_no_overload_and_names_the_setting(client, script, details, words):
    script.refuse = lambda request: Failure(grpc.StatusCode.RESOURCE_EXHAUSTED, details, ())
    with pytest.raises(MessageTooLarge) as caught:
        client.predict("m", {"x": rows()}, request_id="r-9")
    error = caught.value
    assert (error.message, error.model, error.request_id) == (words, "m", "r-9")
    assert not isinstance(error, Overloaded)


def test_what_grpc_says_of_a_message_that_is_too_large(server, connect):
    """The real words, which the table above repeats."""
    with pytest.raises(MessageTooLarge, match="this client allows 10 in one message"):
        connect(server.address, options={"grpc.max_receive_message_length": 10}).predict("m", {"x": rows(100)})
