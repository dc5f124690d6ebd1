"""One side: a server of one version of the code, and the clients with which scenes talk to it."""

from __future__ import annotations

import http.client
import json
import os
import queue
import re
import signal
import subprocess
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
from differential import normalise, observe
from differential.code import Code, environment
from differential.gates import Gates, install_plugin
from differential.normalise import Normaliser
from google.protobuf.message import Message
from support.waiting import eventually

READY = re.compile(r"ready: grpc (?P<grpc>[^;]+); http (?P<http>[^;]*);")
LIMIT = 60.0
FAST = (
    "repository.poll=100ms",
    "repository.settle=200ms",
    # One load at a time, so that the order of loads, and with it each version's generation, is always the same.
    "load.threads=1",
    # No second attempt at a failed load: the number of attempts would depend on time.
    "load.retry_min=1h",
    "load.retry_max=1h",
)
Pairs = Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Setup:
    """How a server is started.

    write     writes the repository
    prepare   writes further files into the side's directory, which is {place} in `sets` and `flags`
    counted   the number of runs of models does not depend on the speed of the machine, so it is compared
    token     bearer token for the metrics page
    """

    name: str
    write: Callable[[Path], None]
    sets: tuple[str, ...] = ()
    flags: tuple[str, ...] = ()
    prepare: Callable[[Path], None] | None = None
    counted: bool = True
    token: str = ""


class Side:
    """A context manager. `name` is "base" or "head"."""

    def __init__(self, name: str, code: Code, setup: Setup, place: Path) -> None:
        self.name, self.code, self.setup, self.place = name, code, setup, place
        place.mkdir(parents=True)
        self.repository = place / "models"
        setup.write(self.repository)
        if setup.prepare is not None:
            setup.prepare(place)
        self.shared = f"/inferd-differential-{os.getpid()}-{name}"
        names = {str(place): "<place>", self.shared: "<shared>", str(code.python.parent): "<bin>"}
        self.normaliser = Normaliser(names, runs=setup.counted)
        self.gates = Gates(place / "gate")
        self.log = place / "server.log"
        self._plugin = install_plugin(place / "plugin")
        self.process: subprocess.Popen[str] | None = None
        self.grpc = self.http = ""
        self._channels: list[grpc.Channel] = []

    # -- life

    def __enter__(self) -> Side:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        try:
            for channel in self._channels:
                channel.close()
            self.gates.open()
            if self.process is not None and self.process.poll() is None:
                self.end()
        finally:
            if self.process is not None:
                if self.process.poll() is None:
                    self.process.kill()
                    self.process.wait()
                if self.process.stdout is not None:
                    self.process.stdout.close()
            self.gates.shut()

    def start(self) -> None:
        """Starts the server. Returns when it is ready."""
        sets = [item.replace("{place}", str(self.place)) for item in (*FAST, *self.setup.sets)]
        flags = [flag.replace("{place}", str(self.place)) for flag in self.setup.flags]
        command = [str(self.code.inferd), "serve", "--model-repository", str(self.repository)]
        command += ["--listen", "127.0.0.1:0", "--http", "127.0.0.1:0", *flags]
        command += [part for item in sets for part in ("--set", item)]
        with self.log.open("a") as log:
            self.process = subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=log, text=True, env=self.environment(), cwd=self.place
            )
        assert self.process.stdout is not None
        watchdog = threading.Timer(LIMIT, self.process.kill)
        watchdog.start()
        try:
            for line in self.process.stdout:
                found = READY.search(line)
                if found:
                    self.grpc = found["grpc"].split(",")[0].strip()
                    self.http = found["http"].split(",")[0].strip()
                    self.channel = self.connect()
                    return
        finally:
            watchdog.cancel()
        raise AssertionError(f"{self.name} ({self.code.name}) ended before it was ready:\n{self.tail()}")

    def environment(self) -> dict[str, str]:
        """The environment of the server, and of commands that read its files."""
        return environment(
            {
                "PYTHONPATH": self._plugin,
                "PYTHONDONTWRITEBYTECODE": "1",
                "DIFFERENTIAL_GATE": str(self.gates.path),
                "TF_CPP_MIN_LOG_LEVEL": "3",
            }
        )

    def end(self) -> int:
        """Sends SIGTERM and waits. Gives the exit code."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(LIMIT)

    def tail(self) -> str:
        """The end of the log."""
        return self.log.read_text(errors="replace")[-3000:] if self.log.exists() else ""

    # -- gRPC

    def connect(self, **options: Any) -> grpc.Channel:
        """A new connection, not shared with others and without retries."""
        given = {
            "grpc.use_local_subchannel_pool": 1,
            "grpc.enable_retries": 0,
            "grpc.max_receive_message_length": -1,
            "grpc.max_send_message_length": -1,
            **{f"grpc.{key}": value for key, value in options.items()},
        }
        channel = grpc.insecure_channel(self.grpc, options=list(given.items()))
        self._channels.append(channel)
        return channel

    def begin(
        self,
        method: str,
        request: Message | bytes,
        metadata: Pairs = (),
        *,
        timeout: float | None = LIMIT,
        compression: grpc.Compression | None = None,
        channel: grpc.Channel | None = None,
    ) -> Any:
        """Starts a unary call and does not wait. Gives a grpc.Future."""
        data = request if isinstance(request, bytes) else request.SerializeToString(deterministic=True)
        asked = (channel or self.channel).unary_unary(method)
        return asked.future(data, timeout, metadata=metadata, compression=compression)

    def outcome(self, call: Any, kind: type[Message]) -> dict[str, Any]:
        """Waits for the end of a call. Gives response, status and metadata."""
        try:
            answer = observe.decoded(call.result(), kind)
        except (grpc.RpcError, grpc.FutureCancelledError):
            answer = None
        return self._normal({"answer": answer, **_status(call)})

    def ask(self, method: str, request: Message | bytes, kind: type[Message], *rest: Any, **how: Any) -> dict[str, Any]:
        """One unary call. Gives response, status and metadata."""
        return self.outcome(self.begin(method, request, *rest, **how), kind)

    def stream(
        self,
        method: str,
        requests: Iterable[Message | bytes],
        kind: type[Message],
        metadata: Pairs = (),
        *,
        timeout: float | None = LIMIT,
        server_only: bool = False,
        channel: grpc.Channel | None = None,
        take: int | None = None,
    ) -> dict[str, Any]:
        """One stream. Gives all responses in order, status and metadata. `take`: cancel it after so many responses."""
        data = [r if isinstance(r, bytes) else r.SerializeToString(deterministic=True) for r in requests]
        where = channel or self.channel
        if server_only:
            call = where.unary_stream(method)(data[0], timeout, metadata=metadata)
        else:
            call = where.stream_stream(method)(iter(data), timeout, metadata=metadata)
        answers = []
        try:
            for answer in call:
                answers.append(observe.decoded(answer, kind))
                if len(answers) == take:
                    call.cancel()
                    return self._normal({"answers": answers})
        except grpc.RpcError:
            pass
        return self._normal({"answers": answers, **_status(call)})

    def talk(
        self, method: str, kind: type[Message], metadata: Pairs = (), *, channel: grpc.Channel | None = None
    ) -> Talk:
        """A stream on which the scene sends and reads message by message."""
        return Talk(self, method, kind, metadata, channel or self.channel)

    def watch(self, method: str, request: Message, kind: type[Message]) -> Talk:
        """A server-streaming call, read message by message."""
        return Talk(self, method, kind, (), self.channel, request)

    # -- HTTP

    def rest(
        self, method: str, path: str, body: bytes | str | None = None, headers: Mapping[str, str] | None = None
    ) -> dict[str, Any]:
        """One HTTP request on a new connection. Gives status, headers and body."""
        host, port = self.http.rsplit(":", 1)
        connection = http.client.HTTPConnection(host, int(port), timeout=LIMIT)
        try:
            connection.request(method, path, body, dict(headers or {}))
            answer = connection.getresponse()
            data = answer.read()
            return self._normal(
                {"status": answer.status, "headers": normalise.headers(answer.getheaders()), "body": _body(data)}
            )
        finally:
            connection.close()

    def page(self, path: str) -> str:
        """The text of a page, for which the status must be 200."""
        host, port = self.http.rsplit(":", 1)
        connection = http.client.HTTPConnection(host, int(port), timeout=LIMIT)
        try:
            headers = {"Authorization": f"Bearer {self.setup.token}"} if self.setup.token else {}
            connection.request("GET", path, headers=headers)
            answer = connection.getresponse()
            text = answer.read().decode()
            assert answer.status == 200, f"{path}: {answer.status} {text}"
            return text
        finally:
            connection.close()

    def metrics(self) -> dict[str, str]:
        """The lines of the metrics page that are compared."""
        return normalise.series(self.page("/metrics"), runs=self.setup.counted)

    def waiting(self, model: str, count: int) -> None:
        """Waits until this many requests are in the model's queue."""
        self.until(lambda: self._sum("inferd_queue_requests", f'model="{model}"') == count, f"{count} wait for {model}")

    def answered(self, model: str, code: str) -> float:
        """The number of requests for the model that have ended with this code."""
        return self._sum("inferd_requests_total", f'code="{code}"', f'model="{model}"')

    def requests(self, model: str) -> float:
        """The number of requests for the model that have ended."""
        return self._sum("inferd_requests_total", f'model="{model}"')

    def inflight(self) -> float:
        """The number of calls between receipt and reply."""
        return self._sum("inferd_inflight_calls")

    def until(self, ask: Callable[[], bool], what: str) -> None:
        """Waits until `ask` gives True. Raises AssertionError after LIMIT seconds."""
        eventually(ask, f"{self.name} ({self.code.name}): {what}", lambda: self._sum("inferd_queue_requests"), LIMIT)

    def _sum(self, series: str, *labels: str) -> float:
        return sum(
            float(line.rpartition(" ")[2])
            for line in self.page("/metrics").splitlines()
            if line.startswith((series + "{", series + " ")) and all(label in line for label in labels)
        )

    def _normal(self, value: dict[str, Any]) -> dict[str, Any]:
        found: dict[str, Any] = self.normaliser.value(value)
        return found


class Talk:
    """A stream on which messages are sent and read one by one."""

    def __init__(
        self,
        side: Side,
        method: str,
        kind: type[Message],
        metadata: Pairs,
        channel: grpc.Channel,
        only: Message | None = None,
    ) -> None:
        """`only`: the request of a server-streaming call."""
        self._side, self._kind = side, kind
        self._outgoing: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        if only is not None:
            self._call = channel.unary_stream(method)(only.SerializeToString(), LIMIT, metadata=metadata)
            return
        sent = iter(self._outgoing.get, None)
        self._call = channel.stream_stream(method)(sent, LIMIT, metadata=metadata)

    def send(self, request: Message | bytes) -> None:
        """Sends a message. Does not wait."""
        data = request if isinstance(request, bytes) else request.SerializeToString(deterministic=True)
        self._outgoing.put(data)

    def read(self) -> Any:
        """Waits for the next response. None: the stream has ended."""
        try:
            answer = next(self._call)
        except (StopIteration, grpc.RpcError):
            return None
        return self._side.normaliser.value(observe.decoded(answer, self._kind))

    def end(self) -> dict[str, Any]:
        """Closes the sending direction. Gives the remaining responses, status and metadata."""
        self._outgoing.put(None)
        rest = []
        while (answer := self.read()) is not None:
            rest.append(answer)
        return {"rest": rest, **self._side.normaliser.value(_status(self._call))}

    def cancel(self) -> None:
        """Cancels the stream."""
        self._call.cancel()
        self._outgoing.put(None)


def _status(call: Any) -> dict[str, Any]:
    return {
        "code": call.code().name,
        "details": call.details(),
        "initial": normalise.metadata(call.initial_metadata() or ()),
        "trailing": normalise.metadata(call.trailing_metadata() or ()),
    }


def _body(data: bytes) -> Any:
    """Parsed JSON, since the order of keys does not matter; numbers keep their digits. Other bodies stay unchanged."""
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return observe.blob(data)
    try:
        return json.loads(text, parse_float=_digits, parse_constant=_digits)
    except ValueError:
        return text


def _digits(text: str) -> str:
    return f"number {text}"
