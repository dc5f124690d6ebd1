"""The connection of the blocking client: it makes every call, retries it if that is safe, and translates its errors.

Connection          owns the channels; makes blocking calls and starts others
PendingPrediction   the Future of one request in flight, which is retried by itself
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import InvalidStateError
from functools import partial
from typing import Any

import grpc

from inferd.client._shared.channel import ChannelPlan
from inferd.client._shared.config import RetryPolicy
from inferd.client._shared.core import Attempts, Deadline, Metadata, authorization, decode, request_error
from inferd.client._shared.diagnosis import Diagnosis
from inferd.client._shared.errors import ClientClosed, InferdError, RequestError
from inferd.client._shared.rotation import rotation
from inferd.client._sync.future import PredictionFuture

# Decides whether a request that failed with this error may be sent again; None: it never may.
MayRepeat = Callable[[RequestError, Deadline], bool] | None


class Connection:
    """The channels of one client. Thread-safe. Unusable in a forked child process: gRPC's threads and sockets belong to
    the parent.

    diagnosis   says why there is no connection
    """

    def __init__(
        self, plan: ChannelPlan, retry: RetryPolicy, token: str | Callable[[], str] | None, metadata: Metadata
    ) -> None:
        self._channels = [
            grpc.insecure_channel(plan.target, plan.options, plan.compression)
            if plan.credentials is None
            else grpc.secure_channel(plan.target, plan.credentials, plan.options, plan.compression)
            for _ in range(plan.channels)
        ]
        self.channel = rotation(self._channels)
        self._retry = retry
        self._token = token
        self._metadata = metadata
        self.diagnosis = Diagnosis(plan.target, plan.tls)
        self._closing = threading.Event()
        self._pid = os.getpid()

    def check(self) -> None:
        """Raises ClientClosed if a call could only hang or crash: after `close`, and in a forked child process."""
        if self._closing.is_set():
            raise ClientClosed("the client is closed")
        if self._pid != os.getpid():
            raise ClientClosed(
                f"the client was made in process {self._pid} and does not survive a fork; make one after the fork"
            )

    @property
    def closing(self) -> bool:
        return self._closing.is_set()

    def metadata(self, extra: Metadata) -> Metadata | None:
        """The metadata of a call: the client's, the token and `extra`."""
        if self._token is None and not extra:
            return self._metadata or None
        return (*self._metadata, *authorization(self._token), *extra)

    def invoke(
        self,
        method: Callable[..., Any],
        request: Any,
        *,
        deadline: Deadline,
        metadata: Metadata = (),
        model: str = "",
        request_id: str = "",
        may_repeat: MayRepeat = None,
        wait_for_ready: bool | None = None,
    ) -> Any:
        """One blocking call with its retries. Returns the answer; raises RequestError or ClientClosed."""
        self.check()
        try:
            return method(
                request, timeout=deadline.remaining(), metadata=self.metadata(metadata), wait_for_ready=wait_for_ready
            )
        except (grpc.RpcError, ValueError) as failure:
            error = self.failed(failure, model, request_id)
        return self.again(error, method, request, deadline=deadline, metadata=metadata, may_repeat=may_repeat)

    def failed(self, failure: grpc.RpcError | ValueError, model: str, request_id: str) -> RequestError:
        """The error for an exception of a first attempt. Raises ClientClosed for a closed channel, and the ValueError
        itself if it has another reason."""
        if isinstance(failure, grpc.RpcError):
            return request_error(failure, model, request_id)
        raise self._unusable(failure) from None

    def again(
        self,
        error: RequestError,
        method: Callable[..., Any],
        request: Any,
        *,
        deadline: Deadline,
        metadata: Metadata,
        may_repeat: MayRepeat,
    ) -> Any:
        """Continues after the first failure: pauses and tries again, or raises the error. Returns the answer."""
        attempts = Attempts(self._retry, deadline)
        while True:
            if self.closing:
                raise ClientClosed("the client was closed while the call was in flight") from error
            pause = attempts.pause_after(error) if may_repeat is not None else None
            if pause is None or (may_repeat is not None and not may_repeat(error, deadline)):
                raise self.diagnosis.explained(error)
            self.pause(pause)
            try:
                return method(request, timeout=deadline.remaining(), metadata=self.metadata(metadata))
            except grpc.RpcError as failure:
                last = error
                error = request_error(failure, last.model, last.request_id, attempts.count)
                error.__cause__ = last
            except ValueError as failure:
                raise self._unusable(failure) from None

    def start(self, pending: PendingPrediction, method: Any, request: bytes, metadata: Metadata) -> None:
        """Sends a request and returns at once; `pending` gets the answer or the error. Raises ClientClosed."""
        self.check()
        try:
            call = method.future(request, timeout=pending.deadline.timeout, metadata=self.metadata(metadata))
        except ValueError as failure:
            raise self._unusable(failure) from None
        pending.call = call

        def finished(done: Any) -> None:
            try:
                message = done.result()
            except (grpc.RpcError, grpc.FutureCancelledError):
                pass
            else:
                pending.answer(message)
                return
            error = request_error(done, pending.model, pending.request_id)
            if self.closing:
                pending.fail(ClientClosed("the client was closed while the call was in flight"))
            elif pending.cancelled() or (error.code not in self._retry.codes and not pending.may_rebuild(error)):
                pending.fail(error)
            else:
                # This runs on gRPC's only event thread, which must not pause. Failures are rare enough to take a thread
                # for each.
                threading.Thread(
                    target=self._recover,
                    args=(pending, error, method, request, metadata),
                    name="inferd-client-retry",
                    daemon=True,
                ).start()

        call.add_done_callback(finished)

    def _recover(
        self, pending: PendingPrediction, error: RequestError, method: Any, request: bytes, metadata: Metadata
    ) -> None:
        attempt = partial(pending.attempt, method)
        try:
            rebuilt = pending.rebuild(error)
            if rebuilt is not None:
                answer = self.invoke(
                    attempt,
                    rebuilt,
                    deadline=pending.deadline,
                    metadata=metadata,
                    model=pending.model,
                    request_id=pending.request_id,
                    may_repeat=pending.may_repeat,
                )
            else:
                answer = self.again(
                    error, attempt, request, deadline=pending.deadline, metadata=metadata, may_repeat=pending.may_repeat
                )
        except Exception as failure:
            # Any exception, for example one of a token function: without a result, the future's waiter would hang.
            pending.fail(failure)
        else:
            pending.answer(answer)

    def stream_call(
        self,
        method: Any,
        request: Any,
        timeout: float | None,
        wait_for_ready: bool | None = None,
        metadata: Metadata = (),
    ) -> Any:
        """Starts a streaming call. Raises ClientClosed; iterating the call raises grpc.RpcError."""
        self.check()
        try:
            return method(request, timeout=timeout, metadata=self.metadata(metadata), wait_for_ready=wait_for_ready)
        except ValueError as failure:
            raise self._unusable(failure) from None

    def pause(self, seconds: float) -> None:
        """Waits for some seconds. Raises ClientClosed as soon as the client is closed."""
        if self._closing.wait(seconds):
            raise ClientClosed("the client was closed while it waited")

    def _unusable(self, failure: ValueError) -> Exception:
        """The exception to raise for a ValueError of gRPC: gRPC raises a plain ValueError for a closed channel."""
        return ClientClosed("the client is closed") if self.closing or "closed" in str(failure) else failure

    def close(self) -> None:
        """Closes the channels; calls in flight raise ClientClosed. May be called again."""
        if not self._closing.is_set():
            self._closing.set()
            if self._pid == os.getpid():
                for channel in self._channels:
                    channel.close()


class PendingPrediction(PredictionFuture):
    """The Future of one request in flight. `cancel` cancels the request on the server too. Thread-safe."""

    def __init__(
        self,
        model: str,
        request_id: str,
        deadline: Deadline,
        may_repeat: MayRepeat,
        rebuild: Callable[[RequestError], bytes | None] | None = None,
    ) -> None:
        super().__init__()
        self.model = model
        self.request_id = request_id
        self.deadline = deadline
        self.may_repeat = may_repeat
        self.call: Any = None
        self._rebuild = rebuild

    def may_rebuild(self, error: RequestError) -> bool:
        """Whether outdated metadata may be the reason of the error."""
        return self._rebuild is not None and error.code is grpc.StatusCode.INVALID_ARGUMENT

    def rebuild(self, error: RequestError) -> bytes | None:
        """The request, made again from the model's current metadata; None if that changes nothing."""
        return self._rebuild(error) if self._rebuild is not None and self.may_rebuild(error) else None

    def attempt(self, method: Any, request: bytes, **options: Any) -> Any:
        """Another attempt, blocking; `cancel` ends it too. Raises grpc.RpcError."""
        call = self.call = method.future(request, **options)
        if self.cancelled():  # during the pause, or just before the line above
            call.cancel()
        try:
            return call.result()
        except grpc.FutureCancelledError:
            raise call from None

    def cancel(self) -> bool:
        if not super().cancel():
            return False
        if self.call is not None:
            self.call.cancel()
        return True

    def answer(self, message: bytes) -> None:
        """Sets the result from an encoded answer. A cancelled future stays cancelled."""
        try:
            prediction = decode(message)
        except InferdError as error:
            self.fail(error)
            return
        try:
            self.set_result(prediction)
        except InvalidStateError:
            pass

    def fail(self, error: Exception) -> None:
        """Sets the error. A cancelled future stays cancelled."""
        try:
            self.set_exception(error)
        except InvalidStateError:
            pass
