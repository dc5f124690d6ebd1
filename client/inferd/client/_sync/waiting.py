"""Asks for the health of a server or a model, and waits for it, blocking."""

from __future__ import annotations

from typing import Any

import grpc

from inferd.client._shared.core import Deadline, request_error
from inferd.client._shared.errors import ClientClosed, RequestError
from inferd.client._shared.health import NO_ANSWER, PAUSE, health_request, is_serving, not_ready
from inferd.client._sync.connection import Connection


def ask_ready(connection: Connection, check: Any, service: str, deadline: Deadline) -> bool:
    """Whether the service is ready; retried like a prediction. Raises RequestError."""
    answer = connection.invoke(
        check, health_request(service), deadline=deadline, model=service, may_repeat=lambda error, deadline: True
    )
    return is_serving(answer)


def await_ready(connection: Connection, check: Any, watch: Any, service: str, deadline: Deadline) -> None:
    """Waits until the server's health watch says SERVING. Raises DeadlineExceeded, and RequestError for errors that
    waiting cannot mend."""
    last = NO_ANSWER
    while True:
        connection.check()
        call = connection.stream_call(watch, health_request(service), deadline.remaining(), wait_for_ready=True)
        try:
            for message in call:
                if is_serving(message):
                    return
                last = "the server says that it is not ready"
            last = "the server ended the watch"
        except grpc.RpcError as failure:
            if connection.closing:
                raise ClientClosed("the client was closed while it waited") from None
            error = request_error(failure, service)
            if error.code is grpc.StatusCode.UNIMPLEMENTED:
                _poll(connection, check, service, deadline)
                return
            if error.code not in (
                grpc.StatusCode.UNAVAILABLE,
                grpc.StatusCode.CANCELLED,
                grpc.StatusCode.DEADLINE_EXCEEDED,
            ):
                raise error from None
            if error.code is not grpc.StatusCode.DEADLINE_EXCEEDED:
                last = error.message
        finally:
            call.cancel()
        _pause(connection, service, deadline, last)


def _poll(connection: Connection, check: Any, service: str, deadline: Deadline) -> None:
    """Asks again and again: for servers that offer Check but not Watch (Triton)."""
    while True:
        last = "the server says that it is not ready"
        try:
            if ask_ready(connection, check, service, deadline):
                return
        except RequestError as error:
            if error.code not in (
                grpc.StatusCode.UNAVAILABLE,
                grpc.StatusCode.NOT_FOUND,
                grpc.StatusCode.DEADLINE_EXCEEDED,
            ):
                raise
            last = error.message
        _pause(connection, service, deadline, last)


def _pause(connection: Connection, service: str, deadline: Deadline, last: str) -> None:
    remaining = deadline.remaining()
    if remaining is not None and remaining <= PAUSE:
        raise not_ready(service, connection.diagnosis.unreached() or last if last == NO_ANSWER else last)
    connection.pause(PAUSE)
