"""Three servers on hosts of their own behind a proxy: rolled and killed under load, and no caller sees a failure."""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import tritonclient.grpc
import tritonclient.http
from containers.calls import DIGIT, native
from containers.hosts import Host, Network
from containers.images import Image
from containers.load import Callers
from containers.pod import Mount, Pod
from containers.tools import ROOT, expect, found, say, wait_for

from inferd.client import NO_RETRIES, Client, RetryPolicy

PROGRAMS = {"haproxy": "haproxy", "nginx": "nginx"}
PROXIES = tuple(PROGRAMS)
SERVERS = 3
MODEL = "digits_onnx"
ENOUGH = 200  # answers of each kind of caller after every step
# haproxy's health check tells it beforehand that a server will refuse calls. nginx passes such a refusal over gRPC on
# like any other answer, so that a client must repeat the call.
_ASKS_HEALTH = ("haproxy",)
_SETTINGS = {
    "INFERD_DRAIN__PRE_STOP": "2s",
    "INFERD_SERVER__OPEN": "when_ready",  # nginx asks nobody's health
}


def main(image: Image, network: Network, place: Path) -> None:
    """Raises Failure when a request fails."""
    models = place / "replicas"
    shutil.copytree(ROOT / "model_repository" / MODEL, models / MODEL)
    machines = [network.host(f"inferd-{number}") for number in range(SERVERS)]
    proxies = {name: network.host(name) for name in PROXIES}
    with ExitStack() as stack:
        pods = [
            stack.enter_context(
                Pod(
                    image, machine, environment=_SETTINGS, mounts=[Mount(models, "/models")],
                    log=place / f"{machine.name}.log",
                )
            )
            for machine in machines
        ]  # fmt: skip
        for pod in pods:
            pod.wait_ready()
        for name, host in proxies.items():
            with _proxy(name, host, network, place):
                _operations_are_kept_out(host)
                _under_load(name, host, pods)


def _under_load(name: str, proxy: Host, pods: list[Pod]) -> None:
    expected = native(f"{pods[0].host.address}:8001", MODEL)
    grpc, http = f"{proxy.address}:8001", f"{proxy.address}:8000"
    wait_for(lambda: _answers(grpc), f"{name} reaches a server", 60)
    kinds = [Callers("tritonclient HTTP", _triton_http(http), expected, threads=2)]
    if name in _ASKS_HEALTH:
        kinds.append(Callers("tritonclient gRPC", _triton_grpc(grpc), expected, threads=3))
        kinds.append(Callers("inferd's client, no retries", _native(grpc, NO_RETRIES), expected, threads=3))
    else:
        kinds.append(Callers("inferd's client, its default retries", _native(grpc, RetryPolicy()), expected, threads=3))
    with ExitStack() as stack:
        every = tuple(stack.enter_context(callers) for callers in kinds)
        for what in ("rolled", "killed"):
            for pod in pods:
                _more(every)
                if what == "rolled":
                    pod.terminate()
                    expect(pod.wait() == 0, f"{pod.host.name} was cut off: {pod.tail()}")
                else:
                    pod.kill()
                _more(every)
                pod.start()
                pod.wait_ready()
            _more(every)
    for callers in every:
        callers.check()
    said = ", ".join(f"{callers.answers} by {callers.name}" for callers in every)
    say(f"{name}: {len(pods)} servers rolled, then killed, one after the other: {said}; 0 failed")


def _more(every: tuple[Callers, ...]) -> None:
    for callers in every:
        callers.more(ENOUGH)
        callers.check()


def _native(address: str, retry: RetryPolicy) -> Callable[[], Callable[[], Any]]:
    def make() -> Callable[[], Any]:
        client = Client(address, retry=retry, timeout=30)
        return lambda: client.predict(MODEL, {"image": DIGIT})["probabilities"]

    return make


def _triton_grpc(address: str) -> Callable[[], Callable[[], Any]]:
    def make() -> Callable[[], Any]:
        client = tritonclient.grpc.InferenceServerClient(address)
        tensor = tritonclient.grpc.InferInput("image", list(DIGIT.shape), "FP32")
        tensor.set_data_from_numpy(DIGIT)
        return lambda: client.infer(MODEL, [tensor], client_timeout=30).as_numpy("probabilities")

    return make


def _triton_http(address: str) -> Callable[[], Callable[[], Any]]:
    def make() -> Callable[[], Any]:
        client = tritonclient.http.InferenceServerClient(address, network_timeout=30)
        tensor = tritonclient.http.InferInput("image", list(DIGIT.shape), "FP32")
        tensor.set_data_from_numpy(DIGIT)
        return lambda: client.infer(MODEL, [tensor]).as_numpy("probabilities")

    return make


def _answers(address: str) -> bool:
    try:
        return bool(native(address, MODEL).argmax() == 0)
    except Exception:
        return False


def _operations_are_kept_out(proxy: Host) -> None:
    from inferd.client import InferdError, PermissionDenied

    wait_for(lambda: _answers(f"{proxy.address}:8001"), f"{proxy.name} reaches a server", 60)
    with Client(f"{proxy.address}:8001", retry=NO_RETRIES, timeout=30) as client:
        try:
            client.unload(MODEL)
        except PermissionDenied as error:
            expect("each server itself" in str(error), f"{proxy.name} did not keep it out itself: {error}")
        except InferdError as error:
            expect(False, f"{proxy.name}: an unload through the proxy: {error}")
    try:
        with urllib.request.urlopen(f"http://{proxy.address}:8000/metrics", timeout=30):
            expect(False, f"{proxy.name} gives one server's metrics out")
    except urllib.error.HTTPError as error:
        expect(error.code == 404, f"{proxy.name}: /metrics answers {error.code}")


@contextmanager
def _proxy(name: str, host: Host, network: Network, place: Path) -> Iterator[None]:
    """Runs a proxy with its file from deploy/, in which only the list of servers is changed."""
    with tempfile.TemporaryDirectory(dir=place) as folder:
        names, log = Path(folder) / "hosts", Path(folder) / "log"
        names.write_text(network.names())
        if name == "haproxy":
            text = (ROOT / "deploy" / "haproxy" / "inferd.cfg").read_text()
            file = Path(folder) / "inferd.cfg"
            command = [str(found("haproxy")), "-db", "-f", str(file)]
        else:
            text = (ROOT / "deploy" / "nginx" / "inferd.conf").read_text()
            file = Path(folder) / "inferd.conf"
            command = [str(found("nginx")), "-p", folder, "-c", str(file), "-g", "daemon off;"]
        file.write_text(re.sub(r"^( +server )inferd-1(.*)$", _third_server, text, flags=re.MULTILINE))
        script = 'mount --bind "$0" /etc/hosts && exec "$@"'
        with log.open("wb") as output:
            process = subprocess.Popen(
                host.inside("unshare", "--mount", "sh", "-c", script, str(names), *command),
                stdout=output,
                stderr=output,
            )
        try:
            yield
        except BaseException:
            say(log.read_text()[-2000:])
            raise
        finally:
            process.terminate()
            process.wait(60)


def _third_server(line: re.Match[str]) -> str:
    return f"{line[0]}\n{line[0].replace('inferd-1', 'inferd-2')}"
