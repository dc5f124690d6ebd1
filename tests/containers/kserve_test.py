"""KServe's runtime without KServe: the real storage initializer fetches models from a double of S3, and the image
serves them in a pod that is made from deploy/kserve, over all four protocols. Then three servers behind haproxy and
nginx are rolled and killed under load."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from containers import hosts, images, replicas
from containers.calls import call_everything
from containers.hosts import Host, Network, Watch
from containers.images import Image
from containers.pod import Mount, Pod
from containers.tools import ROOT, VAR, Failure, expect, need_programs, need_root, run, say, wait_for

MODELS = ROOT / "model_repository"
IMAGE = "inferd:all"
SERVICE = "digits"
USER = 1000680000
_PORT = 9999  # of the store
_TOOLS = VAR / "kserve-tools"


def main(built: bool) -> None:
    """`built`: the image of an earlier run is used. Raises Failure, or an error of a client, at the first fault."""
    need_root()
    need_programs(images.PROGRAMS | replicas.PROGRAMS)
    python = _tools()
    if not built:
        images.make_base()
        images.build("Dockerfile.cpu", IMAGE, ["EXTRAS=all"])
    hosts.enter()
    network = Network()
    with (
        tempfile.TemporaryDirectory(prefix="inferd-kserve-") as folder,
        images.mounted(IMAGE) as image,
        images.mounted(images.BASE) as base,
    ):
        place = Path(folder)
        place.chmod(0o755)
        with _store(network.host("store"), python, place) as store:
            host = network.host(SERVICE)
            _Layouts(image, host, store, place).run()
            _modelcar(image, base, host, place)
        replicas.main(image, network, place)


class _Store:
    """The double of S3. `fetch` runs KServe's storage initializer."""

    def __init__(self, python: Path, host: Host) -> None:
        self._python = python
        self._environment = {
            "AWS_ENDPOINT_URL": f"http://{host.address}:{_PORT}", "AWS_ACCESS_KEY_ID": "key",
            "AWS_SECRET_ACCESS_KEY": "secret", "AWS_DEFAULT_REGION": "eu-central-1", "S3_USE_HTTPS": "0",
            "HOME": "/tmp", "PATH": "/usr/bin:/bin",
        }  # fmt: skip

    def make_bucket(self) -> None:
        self._run(None, "import boto3; boto3.client('s3').create_bucket(Bucket='models',"
                  "CreateBucketConfiguration={'LocationConstraint': 'eu-central-1'})")  # fmt: skip

    def put(self, files: Path, prefix: str) -> None:
        """Stores a directory."""
        self._run(
            None,
            "import boto3, pathlib, sys\n"
            "top, prefix = pathlib.Path(sys.argv[1]), sys.argv[2]\n"
            "for file in top.rglob('*'):\n"
            "    if file.is_file():\n"
            "        boto3.client('s3').upload_file(str(file), 'models', f'{prefix}/{file.relative_to(top)}')\n",
            files, prefix,
        )  # fmt: skip

    def fetch(self, host: Host, prefix: str, target: Path) -> None:
        """What KServe's init container does, on the pod's host and as the pod's user."""
        code = "import sys; from kserve_storage import Storage; Storage.download(*sys.argv[1:])"
        self._run(host, code, f"s3://models/{prefix}", target)

    def _run(self, host: Host | None, code: str, *arguments: str | Path) -> None:
        words = [str(self._python), "-c", code, *map(str, arguments)]
        if host is not None:
            rights = ("setpriv", f"--reuid={USER}", "--regid=0", "--clear-groups", "--no-new-privs")
            words = host.inside(*rights, *words)
        run(*words, env=self._environment, limit=180)


class _Layouts:
    """Every way in which models lie in /mnt/models."""

    def __init__(self, image: Image, host: Host, store: _Store, place: Path) -> None:
        self.image = image
        self.host = host
        self.store = store
        self.place = place

    def run(self) -> None:
        tf = MODELS / "digits_tf"
        every = ("digits_onnx", "digits_torch", "digits_pt2", "digits_tf")
        cases: dict[str, tuple[dict[str, Path], tuple[str, ...]]] = {
            "a repository of four formats": ({name: MODELS / name for name in every}, every),
            "the versions of one model": ({"1": tf / "1"}, (SERVICE,)),
            "a bare model.onnx": ({"model.onnx": MODELS / "digits_onnx" / "1" / "model.onnx"}, (SERVICE,)),
            "a bare SavedModel": ({each.name: each for each in (tf / "1").iterdir()}, (SERVICE,)),
            "a bare model.pt with model.yaml": (
                {
                    "model.pt": MODELS / "digits_torch" / "1" / "model.pt",
                    "model.yaml": MODELS / "digits_torch" / "model.yaml",
                },
                (SERVICE,),
            ),
        }
        for number, (name, (files, models)) in enumerate(cases.items()):
            source, target = self.place / f"source-{number}", self.place / f"target-{number}"
            for path, origin in files.items():
                (source / path).parent.mkdir(parents=True, exist_ok=True)
                (shutil.copytree if origin.is_dir() else shutil.copy)(origin, source / path)
            self.store.put(source, f"case-{number}")
            target.mkdir()
            target.chmod(0o777)
            began = time.monotonic()
            self.store.fetch(self.host, f"case-{number}", target)
            fetched = time.monotonic() - began
            ready, protocols = serve(self.image, self.host, [Mount(target, "/mnt/models")], models, self.place)
            say(f"{name}: fetched in {fetched:.1f} s, ready after {ready:.1f} s, {', '.join(protocols)}")


def serve(
    image: Image, host: Host, mounts: list[Mount], models: tuple[str, ...], place: Path, beside: Pod | None = None
) -> tuple[float, list[str]]:
    """Runs the pod of deploy/kserve, calls every model over every protocol of the runtime, and stops it. Returns the
    seconds until it was ready, and the protocols."""
    spec = runtime()
    (container,) = spec["containers"]
    arguments = [argument.replace("{{.Name}}", SERVICE) for argument in container["args"]]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    pod = Pod(image, host, arguments, mounts=mounts, user=USER, log=place / "kserve.log", beside=beside)
    with Watch(host) as watch, pod:
        seconds = pod.wait_ready(ports["metrics"])
        pod.check_rights()
        for model in models:
            answered = call_everything(host.address, model, grpc_port=ports["grpc"], http_port=ports["http"])
        expect(set(spec["protocolVersions"]) <= set(answered), f"{spec['protocolVersions']} are promised: {answered}")
        for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
            page = container[probe]["httpGet"]
            expect(pod.get(page["path"], ports[page["port"]])[0] == 200, f"{probe}")
        expect(pod.execute("inferd", "health") == "ready\n", "inferd health")
        pod.terminate()
        expect(pod.wait() == 0, f"SIGTERM: {pod.tail()}")
        expect(not watch.taken(), f"it said of its own accord: {watch.taken()}")
    return seconds, spec["protocolVersions"]


def runtime() -> dict[str, Any]:
    """The spec of the ClusterServingRuntime."""
    return dict(yaml.safe_load((ROOT / "deploy" / "kserve" / "clusterservingruntime.yaml").read_text())["spec"])


def _modelcar(image: Image, base: Image, host: Host, place: Path) -> None:
    """KServe's oci://: another container of the pod holds the models, and links /mnt/models to its own root."""
    shared = place / "shared"
    shared.mkdir()
    shared.chmod(0o777)
    command = ("sh", "-c", "ln -sf /proc/$$/root/models /mnt/models && sleep 3600")
    car = Pod(
        base, host, [], command=command, user=USER, log=place / "modelcar.log", environment={"HOME": "/tmp"},
        mounts=[Mount(shared, "/mnt", writable=True), Mount(MODELS, "/models")],
    )  # fmt: skip
    with car:
        wait_for((shared / "models").is_symlink, f"the modelcar has linked its models: {car.tail()}", 60)
        link = (shared / "models").readlink()
        ready, protocols = serve(image, host, [Mount(shared, "/mnt")], ("digits_onnx", "digits_tf"), place, beside=car)
    say(f"a modelcar, /mnt/models -> {link}: ready after {ready:.1f} s, {', '.join(protocols)}")


@contextmanager
def _store(host: Host, python: Path, place: Path) -> Iterator[_Store]:
    log = place / "moto.log"
    with log.open("wb") as output:
        command = host.inside(str(python.with_name("moto_server")), "-H", "0.0.0.0", "-p", str(_PORT))
        process = subprocess.Popen(command, stdout=output, stderr=output)
    try:
        wait_for(lambda: b"Running on" in log.read_bytes(), f"the double of S3: {log.read_text()[-500:]}", 120)
        store = _Store(python, host)
        store.make_bucket()
        yield store
    finally:
        process.terminate()
        process.wait(60)


def _tools() -> Path:
    """The Python of an environment with the storage initializer and the double of S3."""
    pins = ROOT / "constraints" / "kserve-test.txt"
    python, stamp = _TOOLS / "bin" / "python", _TOOLS / "installed.txt"
    if stamp.exists() and stamp.read_text() == pins.read_text():
        return python
    say("installing KServe's storage initializer and a double of S3")
    shutil.rmtree(_TOOLS, ignore_errors=True)
    run(sys.executable, "-m", "venv", _TOOLS)
    try:
        run(python, "-m", "pip", "install", "-q", "-c", pins, "kserve-storage", "moto[server]", limit=1800)
    except Failure:
        shutil.rmtree(_TOOLS, ignore_errors=True)
        raise
    stamp.write_text(pins.read_text())
    return python
