"""A backend whose models live in worker processes: for everything above, a Backend, a Model and Instances like others.

IsolatedBackend    looks at files here, opens versions there; one process for each version opened
IsolatedModel      a version in its process
IsolatedInstance   an instance there, with a channel and shared memory of its own
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
    placement_to_plain,
    request_to_plain,
    signature_from_plain,
    traits_from_plain,
)
from inferd.server.isolation.process import WorkerLimits, WorkerProcess, answer_of
from inferd.server.isolation.tensors import put, take
from inferd.wire.tensors import TensorError


class IsolatedBackend:
    """One load of one version. `close` is due when `open` did not come to give a model.

    `value` is where the worker finds the backend, as an entry point says it: "package.module:Class".
    """

    def __init__(
        self, backend: Backend, value: str, subject: str, limits: WorkerLimits, fields: Mapping[str, Any]
    ) -> None:
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
        return self._backend.complete(artefact)

    def files(self, artefact: Path) -> Sequence[Path]:
        return self._backend.files(artefact)

    def devices(self) -> Sequence[str]:
        """Asks the worker: the framework is never imported here."""
        return tuple(self._asked("devices")["devices"])

    def open(self, request: OpenRequest) -> Model:
        """Opens the version in the worker. Raises what the backend raises there."""
        answer = self._asked("open", request=request_to_plain(request))
        assert self.worker is not None
        return IsolatedModel(self.worker, answer)

    def close(self) -> None:
        """Ends the process."""
        if self.worker is not None:
            self.worker.end()

    def cut(self, reason: str) -> None:
        """Ends the load, wherever it is: the process goes at once, or is never started. Any thread; does not block."""
        with self._lock:
            self._cut_short = reason
            worker = self.worker
        if worker is not None:
            worker.cut(reason)

    def _asked(self, op: str, **fields: Any) -> dict[str, Any]:
        worker = self.worker or self._start()
        try:
            return worker.ask(op, backend=self._value, **fields)
        except InstanceLost:
            worker.check()
            raise

    def _start(self) -> WorkerProcess:
        with self._lock:
            if self._cut_short:
                raise LoadError(f"no worker process was started: {self._cut_short}")
            worker = self.worker = WorkerProcess(self._subject, self._limits, self._fields)
        worker.start()
        return worker


class IsolatedModel:
    """A version in its process. Thread-safe."""

    def __init__(self, worker: WorkerProcess, told: dict[str, Any]) -> None:
        self.worker = worker
        self._signatures = tuple(map(signature_from_plain, told["signatures"]))
        self._table = SignatureTable(self._signatures)
        self._instances: list[IsolatedInstance] = []
        inner = traits_from_plain(told["traits"])
        # What the model itself needs of its inputs, the shared memory gives: it is aligned, and the model's own.
        self._traits = Traits(
            max_batch=inner.max_batch,
            stateful=inner.stateful,
            notes=(*inner.notes, f"isolation: in process {worker.pid}"),
        )

    @property
    def signatures(self) -> tuple[Signature, ...]:
        return self._signatures

    @property
    def traits(self) -> Traits:
        return self._traits

    def instance(self, placement: Placement) -> Instance:
        """See Model. Raises what the backend raises there, LoadError when the process has gone."""
        channel, theirs = Channel.pair()
        limit = self.worker.limits.start
        channel.patience(limit)
        try:
            try:
                self.worker.ask("instance", theirs.fileno(), placement=placement_to_plain(placement))
            finally:
                theirs.close()
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

    def serving(self, load_seconds: float) -> None:
        """The load is over: runs are expected to end within `hang` from now on. Raises LoadError when the process is
        gone."""
        self.worker.check()
        for instance in tuple(self._instances):
            instance.patience(self.worker.limits.hang)
        self.worker.serving(load_seconds)

    def close(self) -> None:
        """Closes the model and ends the process, with all memory that it took."""
        try:
            if not self.worker.lost:
                self.worker.ask("close")
        except BackendError:
            pass  # it is about to end anyway
        finally:
            self.worker.end()


class _ProxyPlan:
    """Names and numbers of one signature."""

    __slots__ = ("inputs", "number", "outputs", "wanted")

    def __init__(self, number: int, signature: Signature) -> None:
        self.number = number
        self.inputs = {spec.name: i for i, spec in enumerate(signature.inputs)}
        self.outputs = [spec.name for spec in signature.outputs]
        self.wanted = {name: i for i, name in enumerate(self.outputs)}


class IsolatedInstance:
    """An instance in the worker. Not thread-safe, as its traits say."""

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
        self._silence = worker.limits.start

    def patience(self, seconds: float) -> None:
        """How long a run may take from now on."""
        self._silence = seconds
        self._channel.patience(seconds)

    def run(
        self, signature: str, inputs: Mapping[str, Array], outputs: Sequence[str] | None = None
    ) -> dict[str, Array]:
        """See Instance. The outputs are copies: the caller's for ever."""
        if self._worker.lost:
            raise self._worker.loss(accepted=False)
        plan = self._plans.get(signature)
        if plan is None:
            self._table[signature]  # raises, and knows the words
            raise InvalidInput(f"unknown signature {signature!r}")
        if outputs is None:
            head = [plan.number, -1]
        else:
            wanted = [plan.wanted[name] for name in outputs if name in plan.wanted]
            if len(wanted) < len(outputs):
                self._table[signature].wanted(outputs)  # raises
            head = [plan.number, len(wanted), *wanted]
        told, descriptor = self._put(signature, plan, inputs)
        sent = False
        try:
            if self._stages is not None:
                self._send_stages(self._stages, told)
            self._channel.tell_integers(Kind.RUN, head + told, descriptor)
            sent = True
            return self._ran(plan)
        except ArenaError as error:
            raise self._worker.failure(Garbled(str(error)), accepted=True) from None
        except ChannelError as error:
            raise self._worker.failure(error, accepted=sent, silence=self._silence) from None
        finally:
            if descriptor is not None:
                os.close(descriptor)

    def staging(self, nbytes: int) -> Array:
        """`nbytes` bytes or more (uint8) of shared memory: inputs put together in it are not copied once more. It is
        freed here with its last reference."""
        if self._stages is None:
            self._stages = Stages()
        return self._stages.lend(nbytes)

    def close(self) -> None:
        """Closes the instance in the worker."""
        try:
            if not self._worker.lost:
                self._channel.tell(Kind.ASK, {"op": "close"})
                self._channel.receive()
        except ChannelError:
            pass  # then it is closed with the process
        finally:
            self._channel.close()
            self._outbox.forget()
            if self._stages is not None:
                self._stages.close()
            self._on_closed(self)

    def _send_stages(self, stages: Stages, told: Sequence[int]) -> None:
        """Shows the worker the stages among these tensors that it has not seen."""
        at = 0
        while at < len(told):
            descriptor = stages.unsent(told[at + 2])
            if descriptor is not None:
                try:
                    self._channel.tell_integers(Kind.STAGE, [told[at + 2]], descriptor)
                    answer_of(self._channel.receive())
                finally:
                    os.close(descriptor)
            at += 6 + told[at + 5]

    def _put(self, signature: str, plan: _ProxyPlan, inputs: Mapping[str, Array]) -> tuple[list[int], int | None]:
        try:
            return put(self._outbox, plan.inputs, inputs, self._stages)
        except (KeyError, TypeError, TensorError) as error:
            self._table[signature].inputs(inputs)  # raises what the backend would, as a rule
            raise InvalidInput(str(error)) from None

    def _ran(self, plan: _ProxyPlan) -> dict[str, Array]:
        message = self._channel.receive()
        if message.descriptor is not None:
            self._inbox.adopt(message.descriptor)
        if message.kind is Kind.FAILED:
            raise error_from_plain(message.json())
        if message.kind is not Kind.RAN:
            raise Garbled(f"a message of kind {message.kind.name} in place of outputs")
        told = message.integers()
        found = take(self._inbox, plan.outputs, told, copy=True)
        self._outbox.end()
        self._inbox.end()
        return found
