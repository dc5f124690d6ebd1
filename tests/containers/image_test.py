"""The images: built, run as hardened containers, called over every protocol, stopped under load."""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

from containers import hosts, images
from containers.calls import DIGIT, call_everything, native
from containers.hosts import Host, Network, Watch
from containers.images import Image
from containers.load import Callers
from containers.packages import arm64_installs, one_cuda_set
from containers.pod import Mount, Pod
from containers.tools import ROOT, expect, need_programs, need_root, say, wait_for
from support.client import make_chain
from support.security import AUDIENCE, ISSUER, Keys

from inferd.client import NO_RETRIES, Client, Unavailable

ALL = Mount(ROOT / "model_repository", "/models")
FORMATS = {
    "digits_onnx": "ONNX",
    "digits_torch": "TorchScript",
    "digits_pt2": "torch.export",
    "digits_tf": "SavedModel",
}
TAGS = {"inferd:all": ["EXTRAS=all"], "inferd:onnx": ["EXTRAS=onnx"]}
_QUIET = 20.0  # seconds in which a server must say nothing


def main(built: bool) -> None:
    """`built`: the images of an earlier run are tested. Raises Failure, or an error of a client, at the first fault."""
    need_root()
    need_programs(images.PROGRAMS)
    if not built:
        one_cuda_set()
        arm64_installs()
        images.make_base()
        for tag, arguments in TAGS.items():
            began = time.monotonic()
            images.build("Dockerfile.cpu", tag, arguments)
            say(f"{tag}: built in {time.monotonic() - began:.0f} s")
    hosts.enter()
    network = Network()
    with tempfile.TemporaryDirectory(prefix="inferd-images-") as place:
        Path(place).chmod(0o755)
        for number, tag in enumerate(TAGS):
            with images.mounted(tag) as image, images.mounted(images.BASE) as base:
                host = network.host(f"pod{number}")
                images.need_version(image)
                share = (image.bytes() - base.bytes()) / 1e6
                say(f"{tag}: {share:.0f} MB on top of a base of {base.bytes() / 1e6:.0f} MB")
                _Checks(image, host, Path(place) / str(number)).run("all" in tag)


class _Checks:
    """Everything that is checked of one image."""

    def __init__(self, image: Image, host: Host, place: Path) -> None:
        self.image = image
        self.host = host
        self.log = place / "log"
        self.one = place / "models"  # where all are not needed: TensorFlow takes long to load
        shutil.copytree(ROOT / "model_repository" / "digits_onnx", self.one / "digits_onnx")

    def pod(self, *arguments: str, **more: Any) -> Pod:
        more.setdefault("mounts", [Mount(self.one, "/models")])
        return Pod(self.image, self.host, arguments or None, log=self.log, **more)

    def run(self, everything: bool) -> None:
        hosts.prove(self.host)
        self.commands()
        self.serves(everything)
        self.settings()
        self.jwt()
        self.tls()
        self.without_models()
        if everything:
            self.without_temporary()

    def commands(self) -> None:
        """`docker run IMAGE COMMAND` is `inferd COMMAND`."""
        for arguments, code, said in (
            (("--version",), 0, f"inferd {images.version()}"),
            (("check", "--json"), 0 if "all" in self.image.name else 1, '"digits_onnx"'),
            (("config", "show"), 0, '"/models"'),
            (("health",), 1, "not ready"),
            (("models",), 1, "no connection"),
            (("serv",), 2, "did you mean serve?"),
        ):
            begin = self.log.stat().st_size if self.log.exists() else 0
            with self.pod(*arguments, mounts=[ALL]) as pod:
                found = pod.wait(240)
            text = self.log.read_text(errors="replace")[begin:]
            expect(found == code and said in text, f"inferd {' '.join(arguments)} ended with {found}: {text[-800:]}")
        say(f"{self.image.name}: commands run by themselves")

    def serves(self, everything: bool) -> None:
        """The image's own command, as a user that nobody has heard of, and as the image's user."""
        models = list(FORMATS) if everything else ["digits_onnx"]
        for user in (1000680000, self.image.user):
            with Watch(self.host) as watch, self.pod(user=user, mounts=[ALL]) as pod:
                seconds = pod.wait_ready()
                pod.check_rights()
                protocols = [call_everything(self.host.address, model) for model in models][-1]
                expect(pod.execute("inferd", "health") == "ready\n", "inferd health")
                expect("AVAILABLE" in pod.execute("inferd", "models"), "inferd models")
                refused = pod.execute("inferd", "unload", "digits_onnx", fine=(1,))
                expect("admin.allow" in refused, f"unload in the container: {refused}")
                if user == self.image.user:
                    time.sleep(_QUIET)
                    self.stops_under_load(pod)
                else:
                    memory = pod.memory() >> 20
                    say(f"{self.image.name}: user {user}: ready after {seconds:.1f} s, {memory} MiB resident")
                    pod.terminate()
                    expect(pod.wait() == 0, f"SIGTERM: {pod.tail()}")
                seen = [what for what in watch.taken() if not what.startswith(f"tcp {hosts.GATEWAY}:0")]
                expect(not seen, f"it said of its own accord: {seen}")
        formats = ", ".join(FORMATS[model] for model in models)
        say(f"{self.image.name}: {formats} over {', '.join(protocols)}; nothing sent")

    def stops_under_load(self, pod: Pod) -> None:
        address = f"{self.host.address}:8001"

        def make() -> Any:
            client = Client(address, retry=NO_RETRIES, timeout=30)
            return lambda: client.predict("digits_onnx", {"image": DIGIT})["probabilities"]

        def refused(error: BaseException) -> bool:
            return isinstance(error, Unavailable) and error.accepted is not True

        with Callers("load", make, native(address, "digits_onnx"), refused=refused) as callers:
            callers.more(200)
            began = time.monotonic()
            pod.terminate()
            code = pod.wait()
            seconds = time.monotonic() - began
        callers.check()
        expect(code == 0, f"it ended with {code} under load: {pod.tail()}")
        say(f"{self.image.name}: stopped under load in {seconds:.2f} s, {callers.answers} answers, 0 lost")

    def settings(self) -> None:
        """Variables, flags and files change what the image starts with, and health follows."""
        with tempfile.TemporaryDirectory() as place:
            own = Path(place) / "own.yaml"
            own.write_text("server: {http: ['0.0.0.0:8080']}\nrepository: {roots: [/data]}\nadmin: {allow: none}\n")
            own.chmod(0o644)
            Path(place).chmod(0o755)
            data = [Mount(self.one, "/data"), Mount(own, "/etc/inferd/own.yaml")]
            cases: dict[str, tuple[Pod, int]] = {
                "a variable": (self.pod(environment={"INFERD_SERVER__HTTP": "['0.0.0.0:8080']"}), 8080),
                "a flag": (self.pod("serve", "--http", "0.0.0.0:8080"), 8080),
                "a file in the place of the image's": (
                    self.pod(mounts=[*data, Mount(own, "/etc/inferd/config.yaml")]), 8080,
                ),
                "a file by INFERD_CONFIG": (
                    self.pod("serve", mounts=data, environment={"INFERD_CONFIG": "/etc/inferd/own.yaml"}), 8080,
                ),
                "a file by --config": (self.pod("serve", "--config", "/etc/inferd/own.yaml", mounts=data), 8080),
            }  # fmt: skip
            for name, (pod, port) in cases.items():
                with pod:
                    pod.wait_ready(port)
                    expect(native(f"{self.host.address}:8001", "digits_onnx").argmax() == 0, name)
                    expect(pod.execute("inferd", "health") == "ready\n", f"{name}: health")
        with self.pod("serve", "--set", "server.http=[]") as pod:
            self._healthy(pod)
        say(f"{self.image.name}: {', '.join(cases)}, no HTTP at all: served, and healthy")

    def jwt(self) -> None:
        """REST and JWT are in every image."""
        keys = Keys()
        with tempfile.TemporaryDirectory() as place:
            Path(place).chmod(0o755)
            file = keys.write(Path(place) / "keys.json")
            file.chmod(0o644)
            settings = json.dumps({"jwks_file": "/etc/keys.json", "issuer": ISSUER, "audience": AUDIENCE})
            with self.pod(
                environment={"INFERD_AUTH__JWT": settings},
                mounts=[Mount(self.one, "/models"), Mount(file, "/etc/keys.json")],
            ) as pod:
                pod.wait_ready()
                where = "/v2/models/digits_onnx"
                expect(pod.get(where)[0] == 401, f"without a token: {pod.get(where)}")
                token = keys.token(scope="metadata predict")
                answer = pod.get(where, headers={"Authorization": f"Bearer {token}"})
                expect(answer[0] == 200, f"with a token: {answer}")
        say(f"{self.image.name}: JWT over REST")

    def tls(self) -> None:
        """The health check of the image works with certificates."""
        with tempfile.TemporaryDirectory() as place:
            Path(place).chmod(0o755)
            chain = make_chain(Path(place))
            for file in Path(place).iterdir():
                file.chmod(0o644)
            pair = f"certificate: /tls/{chain['server.pem'].name}, key: /tls/{chain['server.key'].name}"
            environment = {"INFERD_SERVER__TLS": f"{{{pair}}}", "INFERD_HTTP__TLS": f"{{{pair}}}"}
            with self.pod(
                environment=environment, mounts=[Mount(self.one, "/models"), Mount(Path(place), "/tls")]
            ) as pod:
                self._healthy(pod)
        say(f"{self.image.name}: healthy with TLS on both ports")

    def without_models(self) -> None:
        """A container without models is alive, and not ready."""
        with self.pod(mounts=[]) as pod:
            self._alive(pod)
            status, said = pod.get("/readyz")
            expect(status == 503, f"ready without models: {said}")
            expect("not ready" in pod.execute("inferd", "health", fine=(1,)), "health without models")
        say(f"{self.image.name}: not ready without models: {said['reason']}")

    def without_temporary(self) -> None:
        """Without a writable /tmp the server says so, instead of serving half of the models."""
        with self.pod(temporary=None) as pod:
            expect(pod.wait() == 1, f"without /tmp: {pod.tail()}")
        said = self.log.read_text(errors="replace").strip().splitlines()[-1]
        expect("server.work_dir" in said, f"without /tmp it says {said}")
        say(f"{self.image.name}: without /tmp: {said}")

    def _healthy(self, pod: Pod) -> None:
        wait_for(lambda: pod.execute("inferd", "health", fine=(0, 1)) == "ready\n", f"healthy: {pod.tail()}", 240)

    def _alive(self, pod: Pod) -> None:
        wait_for(lambda: pod.get("/healthz")[0] == 200, f"alive: {pod.tail()}", 120)
