"""The worker process: opens and runs one version of one model, with the same backend code as the server.

python -P -m inferd.server.isolation.worker DESCRIPTOR PARENT

The main thread answers orders on the control channel; each instance has a channel and a thread of its own, as in the
server. The process ends when the server closes the control channel, and when the server ends. It reads no
configuration, writes only to standard error, and imports as little of the server as it can.
"""

from __future__ import annotations

import faulthandler
import gc
import importlib
import io
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from inferd.backends.api import NOT_ANALYSED, Backend, BackendError, Instance, LoadError, Model
from inferd.backends.functions.steps import open_with_steps
from inferd.backends.quiet import be_quiet
from inferd.server.allocator import trim
from inferd.server.isolation.arena import ArenaError, Inbox, Outbox
from inferd.server.isolation.channel import Channel, ChannelError, ChannelMessage, Garbled, Kind
from inferd.server.isolation.description import (
    error_to_plain,
    independence_to_plain,
    placement_from_plain,
    request_from_plain,
    signature_from_plain,
    signature_to_plain,
    traits_to_plain,
)
from inferd.server.isolation.tensors import put, take
from inferd.server.parent_death import end_with
from inferd.server.stray_signals import ignore_stray_signals
from inferd.wire.tensors import TensorError

_OOM_SCORE = "500"  # when memory runs out, the kernel kills a worker rather than the server


class WorkerSession(threading.Thread):
    """The thread of one instance, which is made, run and closed on it."""

    def __init__(self, channel: Channel, model: Model, placement: dict[str, Any], most: int | None) -> None:
        """`most`: bytes of the outputs of one run; None: no bound."""
        super().__init__(name=f"instance-{placement.get('device')}", daemon=True)
        self._channel = channel
        self._model = model
        self._placement = placement
        self._most = most
        self._inputs = [[spec.name for spec in signature.inputs] for signature in model.signatures]
        self._outputs = [
            [*(spec.name for spec in signature.outputs), *signature.aliases] for signature in model.signatures
        ]
        self._numbers = [{name: number for number, name in enumerate(names)} for names in self._outputs]
        self._names = [signature.name for signature in model.signatures]
        self._inbox = Inbox()
        self._outbox = Outbox()
        self.runs = 0

    def forked(self) -> None:
        """Separates a process that the model has forked from this session: the server could take its answer for the
        answer to the next request, and what it writes into its inputs or outputs would reach other callers."""
        self._channel.close()
        self._inbox.make_private()
        self._outbox.make_private()

    def run(self) -> None:
        try:
            nice = self._placement.get("nice", 0)
            if nice:  # lower priority than the server's front end, as for instances in the server
                os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), min(19, os.nice(0) + nice))
            self._serve()
        except ChannelError:
            pass  # the server has closed the channel of this instance
        finally:
            self._channel.close()

    def _serve(self) -> None:
        instance: Instance | None = None
        try:
            instance = self._model.instance(placement_from_plain(self._placement))
        except BaseException as error:
            self._channel.send_json(Kind.FAILED, error_to_plain(error))
            return
        try:
            self._channel.send_json(Kind.DONE, {})
            while True:
                message = self._channel.receive()
                if message.kind is Kind.RUN:
                    self._run(instance, message)
                elif message.kind is Kind.STAGE and message.descriptor is not None:
                    self._inbox.adopt(message.descriptor, *message.integers())
                    self._channel.send_json(Kind.DONE, {})
                else:
                    break
                del message
        finally:
            try:
                instance.close()
            finally:
                del instance
        self._channel.send_json(Kind.DONE, {})

    def _run(self, instance: Instance, message: ChannelMessage) -> None:
        self.runs += 1
        try:
            if message.descriptor is not None:
                self._inbox.adopt(message.descriptor)
            signature, count, *rest = message.integers()
            wanted = None if count < 0 else [self._outputs[signature][number] for number in rest[:count]]
            layout = rest[max(0, count) :]
            inputs = take(self._inbox, self._inputs[signature], layout, copy=False)
            outputs = instance.run(self._names[signature], inputs, wanted)
            numbers = self._numbers[signature]
            known = outputs if outputs.keys() <= numbers.keys() else {n: a for n, a in outputs.items() if n in numbers}
            try:
                answer, descriptor = put(self._outbox, numbers, known, most=self._most)
            except TensorError as error:
                raise BackendError(str(error)) from None
            del inputs, outputs, known
        except ArenaError:
            raise  # both sides disagree about the shared memory; this cannot be repaired
        except BaseException as error:  # SystemExit, too: a model must not end its worker
            self._channel.send_json(Kind.FAILED, error_to_plain(error))
            return
        try:
            self._channel.send_integers(Kind.RAN, answer, descriptor)
        finally:
            if descriptor is not None:
                os.close(descriptor)
        self._outbox.end()
        self._inbox.end()


class ModelWorker:
    """Carries out the orders of the control channel."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._sessions: list[WorkerSession] = []
        self._backend: Backend | None = None
        self._model: Model | None = None
        self._runs = 0  # until the last ping
        self._grown = True  # something ran, or was loaded, since memory was given back
        self._ops: dict[str, Callable[[dict[str, Any], int | None], dict[str, Any]]] = {
            "ping": self._ping,
            "complete": self._complete,
            "devices": self._devices,
            "open": self._open,
            "instance": self._instance,
            "independence": self._independence,
            "close": self._close,
        }

    def forked(self) -> None:
        """Separates a process that the model has forked from the server and from this process's requests."""
        self._channel.close()
        for session in self._sessions:
            session.forked()

    def serve(self) -> None:
        """Answers until the server closes the channel."""
        while True:
            message = self._channel.receive()
            order = message.json()
            op = self._ops.get(str(order.get("op")))
            if message.kind is not Kind.ASK or op is None:
                raise Garbled(f"an unknown order {order.get('op')!r}")
            try:
                answer = op(order, message.descriptor)
            except BaseException as error:
                self._channel.send_json(Kind.FAILED, error_to_plain(error))
            else:
                self._channel.send_json(Kind.DONE, answer)

    def _load_backend(self, value: str) -> Backend:
        if self._backend is None:
            module, _, names = value.partition(":")
            try:
                found: Any = importlib.import_module(module)
            except ModuleNotFoundError as error:
                raise LoadError(f"the backend {module} cannot be imported in {sys.executable}: {error}") from error
            for name in names.split("."):
                found = getattr(found, name)
            self._backend = found() if callable(found) else found
        return self._backend

    def _ping(self, _order: dict[str, Any], _descriptor: int | None) -> dict[str, Any]:
        """Tells that the process lives. Gives unused memory back if nothing has run since the last ping."""
        runs = sum(session.runs for session in self._sessions)
        if runs != self._runs:
            self._runs, self._grown = runs, True
        elif self._grown:
            self._grown = False
            trim()
        return {}

    def _complete(self, order: dict[str, Any], _descriptor: int | None) -> dict[str, Any]:
        return {"missing": self._load_backend(order["backend"]).complete(Path(order["artefact"]))}

    def _devices(self, order: dict[str, Any], _descriptor: int | None) -> dict[str, Any]:
        return {"devices": list(self._load_backend(order["backend"]).devices())}

    def _open(self, order: dict[str, Any], _descriptor: int | None) -> dict[str, Any]:
        model = open_with_steps(self._load_backend(order["backend"]), request_from_plain(order["request"]))
        self._model = model
        gc.collect()
        gc.freeze()  # the framework's objects live as long as the process, so collections can skip them
        return {
            "signatures": [signature_to_plain(signature) for signature in model.signatures],
            "traits": traits_to_plain(model.traits),
        }

    def _instance(self, order: dict[str, Any], descriptor: int | None) -> dict[str, Any]:
        if self._model is None or descriptor is None:
            raise Garbled("an instance of nothing")
        channel = Channel(socket.socket(fileno=descriptor))
        session = WorkerSession(channel, self._model, order["placement"], order["most"])
        self._sessions.append(session)
        session.start()
        return {}

    def _independence(self, order: dict[str, Any], _descriptor: int | None) -> dict[str, Any]:
        analyse = getattr(self._model, "independence", None)
        finding = NOT_ANALYSED if analyse is None else analyse(signature_from_plain(order["signature"]))
        return {"finding": independence_to_plain(finding)}

    def _close(self, _order: dict[str, Any], _descriptor: int | None) -> dict[str, Any]:
        model, self._model = self._model, None
        if model is not None:
            model.close()
        return {}


def main(arguments: list[str]) -> None:
    """Serves, then ends the process without the interpreter's own shutdown, in which some frameworks crash. Never
    returns."""
    descriptor, parent = map(int, arguments)
    code = 1
    be_quiet()  # before any backend, a plug-in's too, imports its framework
    try:
        os.set_inheritable(descriptor, False)  # processes that the model starts must not keep it open
        _bind_to(parent)
        faulthandler.enable()
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(line_buffering=True)  # what a model prints is in the log at once
        logging.basicConfig(format="%(levelname)s %(name)s: %(message)s")
        worker = ModelWorker(Channel(socket.socket(fileno=descriptor)))
        os.register_at_fork(after_in_child=worker.forked)
        worker.serve()
    except ChannelError as error:
        code = 1 if isinstance(error, Garbled) else 0
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _bind_to(parent: int) -> None:
    """Makes this process end with the server and ignore signals that are meant for the server: SIGTERM to the whole
    process group, and interrupts from the terminal."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, signal.SIG_IGN)
    ignore_stray_signals()
    if not end_with(parent):  # the server has ended already
        os._exit(0)
    try:
        with open("/proc/self/oom_score_adj", "w", encoding="ascii") as file:
            file.write(_OOM_SCORE)
    except OSError:
        pass  # not allowed in a hardened container


if __name__ == "__main__":
    main(sys.argv[1:])
