"""The Transport on grpcio's public API: one asyncio server with its own loop and thread.

No call holds a thread while it waits, so idle streams do not starve others. The message of a unary call is received
after the bounds were checked: the message of a refused call is never read.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any

import grpc
import grpc.aio

from inferd.server.access.tls import TlsFiles, tls_files
from inferd.server.config.schema import ServerConfig
from inferd.server.errors import Code
from inferd.server.inference.failures import (
    ANSWERS_HELD,
    CUT_OFF,
    NO_MESSAGE,
    SHUTTING_DOWN,
    Failure,
    not_received,
    refusal,
    unknown_method,
)
from inferd.server.inference.inflight import InflightBounds
from inferd.server.transport import listen
from inferd.server.transport.callbacks import fail_raised
from inferd.server.transport.calls import FLUSH, REFUSING, CallsHandler, MethodTable, StreamHandler
from inferd.server.transport.compression import COMPRESSED, Inflater
from inferd.server.transport.grpc_aio.calls import STATUS, InboundMessages, PublicStreamCall, PublicUnaryCall, inflated
from inferd.server.transport.partial_messages import PartialMessages
from inferd.server.transport.write_timeout import COPIES, COUNTED, WriteTimeout

_log = logging.getLogger("inferd.rpc")


class PublicTransport:
    """A gRPC server. Started once and stopped once. Thread-safe.

    addresses   the default: those of `config`
    tls         the files of `server.tls`, reloaded when they change; None: they are read once
    """

    def __init__(
        self,
        table: MethodTable,
        config: ServerConfig,
        inflight: InflightBounds,
        addresses: Sequence[listen.Address] | None = None,
        tls: TlsFiles | None = None,
    ) -> None:
        self._table = table
        self._config = config
        self._tls = tls
        self._inflight = inflight
        self._addresses = listen.addresses(config.server) if addresses is None else tuple(addresses)
        self._calls: set[PublicUnaryCall | PublicStreamCall] = set()
        self._inflater = Inflater(config.grpc, inflight)
        self._ended = threading.Event()
        self._partial = PartialMessages(self._calls, config.grpc.max_message, inflight, self._ended)
        self._draining = False
        self._started: concurrent.futures.Future[Sequence[str]] = concurrent.futures.Future()
        self._stopped: concurrent.futures.Future[bool] = concurrent.futures.Future()
        self._stop_asked = False
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop

    @property
    def open_calls(self) -> int:
        """Calls accepted and not yet answered, streams included."""
        return len(self._calls)

    def start(self) -> Sequence[str]:
        """See Transport."""
        if self._thread is not None:
            raise RuntimeError("a transport is started once")
        self._thread = threading.Thread(target=self._run, name="inferd-grpc", daemon=True)
        self._thread.start()
        try:
            return self._started.result()
        except BaseException:
            self._thread.join()
            raise

    def stop(self, grace: float) -> bool:
        """See Transport."""
        with self._lock:
            first = not self._stop_asked
            self._stop_asked = True
        thread = self._thread
        if thread is None or not self._started.done() or self._started.exception() is not None:
            return True
        if first:
            self._loop.call_soon_threadsafe(self._grace.set_result, grace)
        drained = self._stopped.result()
        thread.join()
        return drained

    # ---- on the loop's thread ----

    def _run(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._loop.set_exception_handler(_unhandled)
        try:
            self._loop.run_until_complete(self._serve())
        except BaseException as error:
            if not self._started.done():
                self._started.set_exception(error)
            else:
                _log.critical("the gRPC transport ended by an error", exc_info=error)
        finally:
            if not self._stopped.done():
                self._stopped.set_result(False)
            self._ended.set()
            self._inflater.stop()
            self._loop.close()

    async def _serve(self) -> None:
        self._mailbox = InboundMessages(self._loop)
        self._grace: asyncio.Future[float] = self._loop.create_future()
        self._idle = asyncio.Event()
        shared = self._config.server.workers > 1
        server = grpc.aio.server(
            handlers=(_Lookup(self._handlers(), self._refuse),),
            options=listen.options(self._config.grpc, shared=shared),
        )
        try:
            tls = self._tls or tls_files(self._config.server.tls, listen.TLS)
            bound = listen.bind(self._addresses, tls, partial(_add, server), shared=shared)
            await server.start()
        except BaseException:
            await server.stop(None)
            raise
        self._partial.start()
        WriteTimeout(self._calls, self._config.grpc.write_timeout, self._inflight, self._ended).start()
        self._started.set_result(bound)
        grace = await self._grace
        self._stopped.set_result(await self._drain(server, grace))

    async def _drain(self, server: grpc.aio.Server, grace: float) -> bool:
        self._draining = True
        until = time.monotonic() + grace
        for call in list(self._calls):
            if isinstance(call, PublicStreamCall):
                call.drain()
        await asyncio.sleep(REFUSING)
        # gRPC sends GOAWAY and waits for the calls FLUSH seconds longer than `grace`: the calls that remain after
        # `grace` are cut off with a status below.
        stopped = asyncio.ensure_future(server.stop(max(0.0, until - time.monotonic()) + FLUSH))
        if self._calls:
            self._idle.clear()
            try:
                await asyncio.wait_for(self._idle.wait(), max(0.0, until - time.monotonic()))
            except TimeoutError:
                pass
        unfinished = list(self._calls)
        if unfinished:
            _log.warning("%d calls had not finished after %g s and are cut off", len(unfinished), grace)
            for call in unfinished:
                call.cut(CUT_OFF)
        await stopped
        return not unfinished

    def _handlers(self) -> dict[str, grpc.RpcMethodHandler]:
        handlers: dict[str, grpc.RpcMethodHandler] = {}
        for method, unary in self._table.unary.items():
            # Registered as stream-unary, because such a handler reads the message itself, after it has checked the
            # bounds.
            handlers[method] = grpc.stream_unary_rpc_method_handler(self._unary(method, unary))
        for method, stream in self._table.stream.items():
            handlers[method] = grpc.stream_stream_rpc_method_handler(self._stream(method, stream))
        return handlers

    def _unary(self, method: str, handler: CallsHandler) -> Callable[[Any, Any], Awaitable[bytes]]:
        exempt = method in self._table.exempt
        patience = self._config.grpc.receive_timeout

        async def serve(_requests: Any, context: Any) -> bytes:
            if not exempt:
                if self._draining:
                    return await self._refuse(method, context, SHUTTING_DOWN)
                if not self._inflight.enter():
                    return await self._refuse(method, context, self._full())
            call = PublicUnaryCall(method, context, self._mailbox, self._loop)
            self._calls.add(call)
            # Called when the answer is written, or the client is gone: the call is in flight until then.
            context.add_done_callback(partial(self._over, call, exempt))
            try:
                try:
                    async with asyncio.timeout(patience):
                        message = await context.read()
                except TimeoutError:
                    return await self._refuse(method, context, not_received(patience))
                if message is grpc.aio.EOF:
                    return await self._refuse(method, context, NO_MESSAGE)
                call.received = True
                if self._partial.watching:
                    self._partial.delivered(call.peer, len(message))
                if not exempt and not self._hold(call, len(message)):
                    return await self._refuse(method, context, self._full())
                if message.startswith(COMPRESSED):
                    message, counted = await inflated(self._inflater, message, call.held, self._mailbox)
                    call.held += counted
                    if isinstance(message, Failure):
                        return await self._refuse(method, context, message)
                call.request = message
                del message
                try:
                    handler((call,), time.monotonic())
                except Exception as error:
                    fail_raised(call, error)
                outcome = await call.outcome
                if not isinstance(outcome, bytes):
                    return await _abort(context, outcome)
                if len(outcome) > COUNTED:
                    counted = COPIES * len(outcome)
                    if not self._inflight.hold_answer(counted, call.held):
                        return await _abort(context, ANSWERS_HELD)
                    call.held += counted
                return outcome
            except asyncio.CancelledError:
                call.cancel()
                raise

        return serve

    def _hold(self, call: PublicUnaryCall, nbytes: int) -> bool:
        """Counts bytes of a call until it is over. False: they do not fit, and nothing is counted."""
        if not self._inflight.hold(nbytes, call.held):
            return False
        call.held += nbytes
        return True

    def _over(self, call: PublicUnaryCall, exempt: bool, _context: Any) -> None:
        """A unary call has ended."""
        call.forget()
        held, call.held = call.held, 0
        if exempt:
            self._inflight.release(held)
        else:
            self._inflight.leave(held)
        self._gone(call)

    def _stream(self, method: str, handler: StreamHandler) -> Callable[[Any, Any], Awaitable[None]]:
        async def serve(_requests: Any, context: Any) -> None:
            if self._draining:
                await self._refuse(method, context, SHUTTING_DOWN)
            if not self._inflight.open_stream():
                await self._refuse(method, context, self._full())
            call = PublicStreamCall(method, context, self._mailbox, self._inflight, self._inflater, self._partial)
            self._calls.add(call)
            try:
                _run_handler(handler, call)
                failure = await call.pump()
            except BaseException:  # the call was cancelled, or a write failed because the client is gone
                call.cancel()
                raise
            finally:
                call.release()
                self._inflight.close_stream()
                self._gone(call)
            if failure is not None:
                await _abort(context, failure)

        return serve

    def _gone(self, call: PublicUnaryCall | PublicStreamCall) -> None:
        self._calls.discard(call)
        if self._draining and not self._calls:
            self._idle.set()

    def _full(self) -> Failure:
        return refusal(Code.RESOURCE_EXHAUSTED, self._inflight.full)

    async def _refuse(self, method: str, context: Any, failure: Failure) -> bytes:
        self._table.refused(method, failure.code)
        return await _abort(context, failure)


class _Lookup(grpc.GenericRpcHandler):  # type: ignore[misc]
    """Finds the handler of a method. Calls of an unknown method are refused with UNIMPLEMENTED."""

    def __init__(
        self, handlers: dict[str, grpc.RpcMethodHandler], refuse: Callable[[str, Any, Failure], Awaitable[bytes]]
    ) -> None:
        self._handlers = handlers
        self._refuse = refuse

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
        method = handler_call_details.method
        return self._handlers.get(method) or self._unknown(method)

    def _unknown(self, method: str) -> grpc.RpcMethodHandler:
        async def serve(_requests: Any, context: Any) -> bytes:
            return await self._refuse(method, context, unknown_method(method))

        return grpc.stream_unary_rpc_method_handler(serve)


def _run_handler(handler: Callable[[Any], None], call: PublicUnaryCall | PublicStreamCall) -> None:
    try:
        handler(call)
    except Exception as error:
        fail_raised(call, error)


async def _abort(context: Any, failure: Failure) -> bytes:
    await context.abort(STATUS[failure.code], failure.text, tuple(failure.trailing))
    raise AssertionError("abort raises")


def _add(server: grpc.aio.Server, target: str, credentials: grpc.ServerCredentials | None) -> int:
    return int(server.add_secure_port(target, credentials) if credentials else server.add_insecure_port(target))


def _unhandled(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    # grpcio's poller wakes every loop of the process for each event. The loops that find nothing to read report
    # BlockingIOError, which is harmless.
    if not isinstance(context.get("exception"), BlockingIOError):
        loop.default_exception_handler(context)
