"""Backend, Model and Instance of models that run in worker processes.

IsolatedBackend    reads and opens versions in worker processes, one for each version
IsolatedModel      a version in its worker process
IsolatedInstance   an instance in the worker process, with a channel and shared memory of its own
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from inferd.backends.api import (
    Array,
    Backend,
    BackendError,
    Independence,
    Instance,
    InstanceLost,
    InvalidInput,
    LoadError,
    Model,
    OpenRequest,
    Placement,
    Signature,
    Traits,
)
from inferd.backends.checks import SignatureTable
from inferd.server.isolation.arena import ArenaError, Inbox, Outbox, Stages
from inferd.server.isolation.channel import Channel, ChannelError, Garbled, Kind
from inferd.server.isolation.description import (
    error_from_plain,
    independence_from_plain,
    placement_to_plain,
    request_to_plain,
    signature_from_plain,
    signature_to_plain,
    traits_from_plain,
)
from inferd.server.isolation.interpreter import check_interpreter
from inferd.server.isolation.process import WorkerLimits, WorkerProcess, answer_of
from inferd.server.isolation.tensors import put, size_of, take
from inferd.wire.tensors import TensorError


class IsolatedBackend:
    """The backend for one load of one version. If `open` does not return a model, call `close`.

    `value` is where the worker imports the backend from, in the notation of entry points: "package.module:Class".
    `python`, `threads`: see WorkerProcess.
    """

    def __init__(
        self,
        backend: Backend,
        value: str,
        subject: str,
        limits: WorkerLimits,
        fields: Mapping[str, Any],
        python: str | None = None,
        threads: int | None = None,
    ) -> None:
        self._python = python
        self._threads = threads
        self._backend = backend
        self._value = value
        self._subject = subject
        self._limits = limits
        self._fields = dict(fields)
        self.worker: WorkerProcess | None = None
        self._lock = threading.Lock()
        self._cut_short = ""

    @property
    def name(self) -> str:
        return self._backend.name

    @property
    def platforms(self) -> tuple[str, ...]:
        return self._backend.platforms

    def find(self, directory: Path) -> Path | None:
        return self._backend.find(directory)

    def complete(self, artefact: Path) -> str | None:
        """See Backend. The artefact is read in the worker, which can be killed while it does so."""
        missing: str | None = self._ask("complete", artefact=str(artefact))["missing"]
        return missing

    def files(self, artefact: Path) -> Sequence[Path]:
        return self._backend.files(artefact)

    def devices(self) -> Sequence[str]:
        """The devices that the worker sees. The framework is never imported in this process."""
        return tuple(self._ask("devices")["devices"])

    def open(self, request: OpenRequest) -> Model:
        """Opens the version in the worker. Raises what the backend raises there."""
        answer = self._ask("open", request=request_to_plain(request))
        assert self.worker is not None
        return IsolatedModel(self.worker, answer)

    def close(self) -> None:
        """Ends the worker process."""
        if self.worker is not None:
            self.worker.end()

    def cut(self, reason: str) -> None:
        """Cancels the load: kills the worker process, or prevents its start. Any thread; does not block."""
        with self._lock:
            self._cut_short = reason
            worker = self.worker
        if worker is not None:
            worker.cut(reason)

    def _ask(self, op: str, **fields: Any) -> dict[str, Any]:
        worker = self.worker or self._start()
        try:
            return worker.ask(op, backend=self._value, **fields)
        except InstanceLost:
            worker.check()
            raise

    def _start(self) -> WorkerProcess:
        if self._python is not None:
            check_interpreter(self._python)
        with self._lock:
            if self._cut_short:
                raise LoadError(f"no worker process was started: {self._cut_short}")
            worker = self.worker = WorkerProcess(self._subject, self._limits, self._fields, self._python, self._threads)
        worker.start()
        return worker


class IsolatedModel:
    """A version in its worker process. Thread-safe."""

    def __init__(self, worker: WorkerProcess, opened: dict[str, Any]) -> None:
        """`opened`: the worker's answer to the order to open the version."""
        self.worker = worker
        self._signatures = tuple(map(signature_from_plain, opened["signatures"]))
        self._table = SignatureTable(self._signatures)
        self._instances: list[IsolatedInstance] = []
        inner = traits_from_plain(opened["traits"])
        # The other traits keep their defaults. In the worker the model gets aligned memory that nothing else reads, so
        # it may write into its inputs.
        self._traits = Traits(
            max_batch=inner.max_batch,
            stateful=inner.stateful,
            repeatable=inner.repeatable,
            notes=(*inner.notes, f"isolation: in process {worker.pid}"),
        )

    @property
    def signatures(self) -> tuple[Signature, ...]:
        return self._signatures

    @property
    def traits(self) -> Traits:
        return self._traits

    def instance(self, placement: Placement) -> Instance:
        """See Model. Raises what the backend raises in the worker, LoadError if the process has ended."""
        channel, worker_end = Channel.pair()
        channel.set_timeout(self.worker.limits.start)
        try:
            try:
                most = self.worker.limits.answer
                self.worker.ask("instance", worker_end.fileno(), placement=placement_to_plain(placement), most=most)
            finally:
                worker_end.close()
            answer_of(channel.receive())
        except (ChannelError, InstanceLost) as error:
            channel.close()
            if isinstance(error, ChannelError):
                self.worker.failure(error, accepted=False)
            self.worker.check()
            raise LoadError(f"the worker process made no instance: {error}") from None
        except BaseException:
            channel.close()
            raise
        made = IsolatedInstance(self.worker, channel, self._signatures, self._table, self._instances.remove)
        self._instances.append(made)
        return made

    def independence(self, signature: Signature) -> Independence | None:
        """See Analysable. The analysis runs in the worker. Raises InstanceLost if the process has ended."""
        answer = self.worker.ask("independence", signature=signature_to_plain(signature))
        return independence_from_plain(answer["finding"])

    def serving(self, load_seconds: float) -> None:
        """Call it when the load is over: from now on runs must end within `hang`. Raises LoadError if the process has
        ended."""
        self.worker.check()
        for instance in tuple(self._instances):
            instance.set_timeout(self.worker.limits.hang)
        self.worker.serving(load_seconds)

    def close(self) -> None:
        """Closes the model and ends the process, which frees all its memory."""
        try:
            if not self.worker.lost:
                self.worker.ask("close")
        except BackendError:
            pass  # the process is ended in any case
        finally:
            self.worker.end()


class _ProxyPlan:
    """The numbers of the inputs and outputs of one signature, for messages."""

    __slots__ = ("inputs", "number", "outputs", "wanted")

    def __init__(self, number: int, signature: Signature) -> None:
        self.number = number
        self.inputs = {spec.name: i for i, spec in enumerate(signature.inputs)}
        self.outputs = [*(spec.name for spec in signature.outputs), *signature.aliases]
        self.wanted = {name: i for i, name in enumerate(self.outputs)}


class IsolatedInstance:
    """An instance in the worker. Not thread-safe."""

    def __init__(
        self,
        worker: WorkerProcess,
        channel: Channel,
        signatures: Sequence[Signature],
        table: SignatureTable,
        on_closed: Callable[[IsolatedInstance], None],
    ) -> None:
        self._worker = worker
        self._on_closed = on_closed
        self._channel = channel
        self._table = table
        self._plans = {signature.name: _ProxyPlan(number, signature) for number, signature in enumerate(signatures)}
        self._outbox = Outbox()
        self._inbox = Inbox()
        self._stages: Stages | None = None
        self._timeout = worker.limits.start

    def set_timeout(self, seconds: float) -> None:
        """Sets how long a run may take."""
        self._timeout = seconds
        self._channel.set_timeout(seconds)

    def run(
        self, signature: str, inputs: Mapping[str, Array], outputs: Sequence[str] | None = None
    ) -> dict[str, Array]:
        """See Instance. The outputs are copies, which the caller may keep."""
        if self._worker.lost:
            raise self._worker.loss(accepted=False)
        plan = self._plans.get(signature)
        if plan is None:
            self._table[signature]  # raises the usual error
            raise InvalidInput(f"unknown signature {signature!r}")
        if outputs is None:
            head = [plan.number, -1]
        else:
            wanted = [plan.wanted[name] for name in outputs if name in plan.wanted]
            if len(wanted) < len(outputs):
                self._table[signature].wanted(outputs)  # raises
            head = [plan.number, len(wanted), *wanted]
        layout, descriptor = self._put(signature, plan, inputs)
        sent = False
        try:
            if self._stages is not None:
                self._send_stages(self._stages, layout)
            self._channel.send_integers(Kind.RUN, head + layout, descriptor)
            sent = True
            return self._receive_outputs(plan)
        except ArenaError as error:
            raise self._worker.failure(Garbled(str(error)), accepted=True) from None
        except ChannelError as error:
            raise self._worker.failure(error, accepted=sent, silence=self._timeout) from None
        finally:
            if descriptor is not None:
                os.close(descriptor)

    def staging(self, nbytes: int) -> Array:
        """At least `nbytes` bytes of shared memory (uint8). `run` does not copy inputs that lie in it. It is freed with
        the caller's last reference."""
        if self._stages is None:
            self._stages = Stages()
        return self._stages.lend(nbytes)

    def close(self) -> None:
        """Closes the instance in the worker."""
        try:
            if not self._worker.lost:
                self._channel.send_json(Kind.ASK, {"op": "close"})
                self._channel.receive()
        except ChannelError:
            pass  # the instance is closed when the process ends
        finally:
            self._channel.close()
            self._outbox.forget()
            if self._stages is not None:
                self._stages.close()
            self._on_closed(self)

    def _send_stages(self, stages: Stages, layout: Sequence[int]) -> None:
        """Sends the worker the descriptors of stages that `layout` uses and the worker has not mapped."""
        at = 0
        while at < len(layout):
            number, rank = layout[at + 2], layout[at + 5]
            descriptor = stages.unsent(number)
            if descriptor is not None:
                try:
                    self._channel.send_integers(Kind.STAGE, [number], descriptor)
                    answer_of(self._channel.receive())
                finally:
                    os.close(descriptor)
            at += 6 + rank

    def _put(self, signature: str, plan: _ProxyPlan, inputs: Mapping[str, Array]) -> tuple[list[int], int | None]:
        try:
            return put(self._outbox, plan.inputs, inputs, self._stages)
        except (KeyError, TypeError, TensorError) as error:
            self._table[signature].inputs(inputs)  # usually raises the error that the backend would raise
            raise InvalidInput(str(error)) from None

    def _receive_outputs(self, plan: _ProxyPlan) -> dict[str, Array]:
        message = self._channel.receive()
        if message.descriptor is not None:
            self._inbox.adopt(message.descriptor)
        if message.kind is Kind.FAILED:
            raise error_from_plain(message.json())
        if message.kind is not Kind.RAN:
            raise Garbled(f"a message of kind {message.kind.name} in place of outputs")
        layout, most = message.integers(), self._worker.limits.answer
        if most is not None and size_of(layout) > most:
            raise Garbled("larger outputs than are allowed")
        outputs = take(self._inbox, plan.outputs, layout, copy=True)
        self._outbox.end()
        self._inbox.end()
        return outputs
