"""Whether a server tells anybody anything: `make test-quiet`, or `python -m quiet` in tests/.

It runs in a network namespace of its own, for which it needs root or a kernel that gives unprivileged namespaces. In it
every address of the world is this machine. A sniffer sees each packet that is not for 127.0.0.1, a DNS server answers
each question with such an address, and a TLS server waits at port 443. `inferd check` opens every model. Two servers,
one with models in worker processes and one with several serving processes, serve every framework for SECONDS and are
asked all the time. Any packet, any question and any file below HOME is a failure.

What the sniffer sees is proven first, by a process that does ask a name server. What cannot be set up is a failure,
never a skip.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

from quiet.network import Network, NetworkError

ROOT = Path(__file__).resolve().parents[2]
_CLONE_NEWNET, _CLONE_NEWUSER = 0x40000000, 0x10000000
_START = 180.0
_ASK = (
    "import socket\n"
    "try: found = socket.getaddrinfo('telemetry.example.com', 443, socket.AF_INET)[0][4]\n"
    "except OSError: found = ('192.0.2.7', 443)\n"
    "try: socket.create_connection(found, 2).close()\n"
    "except OSError: pass\n"
)
_REPORTS = "import onnxruntime, sys, time\nsession = onnxruntime.InferenceSession(sys.argv[1])\ntime.sleep(1)\n"


def main() -> int:
    """Returns the exit code: 0 if nothing was seen."""
    parser = argparse.ArgumentParser(prog="python -m quiet", description="Serves without a sound.")
    parser.add_argument("--seconds", type=float, default=60.0, help="how long to serve (60)")
    seconds = parser.parse_args().seconds
    try:
        enter_namespace()
        with Network() as network, tempfile.TemporaryDirectory(prefix="inferd-quiet-") as folder:
            return observe(network, Path(folder), seconds)
    except (OSError, NetworkError) as error:
        print(f"quiet: it cannot run here: {error}", file=sys.stderr)
        return 1


def enter_namespace() -> None:
    """Moves this process into a network namespace of its own. Raises OSError."""
    libc = ctypes.CDLL(None, use_errno=True)
    user, group = os.getuid(), os.getgid()
    if libc.unshare(_CLONE_NEWNET) == 0:
        return
    if libc.unshare(_CLONE_NEWUSER | _CLONE_NEWNET) != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"no network namespace: {os.strerror(code)}")
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"0 {user} 1")
    Path("/proc/self/gid_map").write_text(f"0 {group} 1")


def observe(network: Network, folder: Path, seconds: float) -> int:
    """Proves that the sniffer sees, then serves and reports."""
    subprocess.run([sys.executable, "-c", _ASK], check=True, timeout=60)
    seen = network.taken()
    if not any("DNS" in what for what in seen) or not any(":443" in what for what in seen):
        raise NetworkError(f"the sniffer did not see a process that asks: {seen or 'nothing'}")
    print(f"quiet: the sniffer sees: {', '.join(seen)}")

    loud = folder / "loud"
    loud.mkdir()
    model = ROOT / "model_repository" / "digits_onnx" / "1" / "model.onnx"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("ORT_")}
    environment |= {"HOME": str(loud)}
    subprocess.run([sys.executable, "-c", _REPORTS, str(model)], env=environment, check=True, timeout=60)
    print(f"quiet: ONNX Runtime alone writes below HOME: {files_below(loud) or 'nothing'}")
    network.taken()

    home = folder / "home"
    home.mkdir()
    failed = serve(folder, home, seconds)
    seen, written = network.taken(), files_below(home)
    print(f"quiet: sent: {', '.join(seen) or 'nothing'}; written below HOME: {', '.join(written) or 'nothing'}")
    return 1 if seen or written or failed else 0


def serve(folder: Path, home: Path, seconds: float) -> bool:
    """Runs `check` and two servers, and asks them. Returns whether one of them failed."""
    repository = folder / "models"
    shutil.copytree(ROOT / "model_repository", repository)
    environment = {"HOME": str(home), "PATH": os.environ["PATH"], "TMPDIR": str(folder), "LANG": "C.UTF-8"}
    for name in ("PYTHONPATH", "VIRTUAL_ENV"):
        if name in os.environ:
            environment[name] = os.environ[name]
    inferd = [str(Path(sys.executable).with_name("inferd"))]
    where = ["--model-repository", str(repository)]
    checked = subprocess.run([*inferd, "check", *where], check=False, env=environment, timeout=_START)
    failed = checked.returncode != 0
    servers = []
    for number, setting in enumerate(("isolation=process", "server.workers=2")):
        command = [
            *inferd, "serve", *where, "--listen", f"127.0.0.1:{7001 + number}", "--http", f"127.0.0.1:{7101 + number}",
            "--set", setting, "--set", "server.preload=[]",
        ]  # fmt: skip
        with (folder / f"server-{number}.log").open("wb") as log:
            servers.append(subprocess.Popen(command, env=environment, stdout=log, stderr=log))
    try:
        for number in range(len(servers)):
            wait_ready(f"http://127.0.0.1:{7101 + number}", _START)
        failed = ask(seconds, [f"http://127.0.0.1:{7101 + number}" for number in range(len(servers))]) or failed
    finally:
        for server in servers:
            server.terminate()
        for server in servers:
            failed = server.wait(60) != 0 or failed
        if failed:
            print((folder / "server-0.log").read_text()[-3000:], (folder / "server-1.log").read_text()[-3000:])
    return failed


def wait_ready(url: str, seconds: float) -> None:
    """Waits until a server is ready. Raises OSError after `seconds`."""
    until = time.monotonic() + seconds
    while True:
        try:
            with urllib.request.urlopen(f"{url}/readyz", timeout=10):
                return
        except OSError:
            if time.monotonic() > until:
                raise
            time.sleep(0.2)


def ask(seconds: float, servers: list[str]) -> bool:
    """Asks every model of every server again and again. Returns whether an answer was wrong."""
    digit = json.loads((ROOT / "examples" / "digit.json").read_text())
    until = time.monotonic() + seconds
    failed = False
    answers = 0
    while time.monotonic() < until:
        for url in servers:
            with urllib.request.urlopen(urllib.request.Request(f"{url}/v2/repository/index", b"{}"), timeout=30) as got:
                models = {entry["name"] for entry in json.load(got) if entry.get("state") == "READY"}
            if len(models) < 4:
                print(f"quiet: {url} serves {sorted(models)} only", file=sys.stderr)
                failed = True
            for model in sorted(models):
                with urllib.request.urlopen(f"{url}/v2/models/{model}", timeout=30) as got:
                    tensor = json.load(got)["inputs"][0]
                question = {
                    "inputs": [
                        {"name": tensor["name"], "datatype": tensor["datatype"], "shape": [1, *tensor["shape"][1:]],
                         "data": digit}
                    ]
                }  # fmt: skip
                request = urllib.request.Request(f"{url}/v2/models/{model}/infer", json.dumps(question).encode())
                with urllib.request.urlopen(request, timeout=30) as got:
                    answers += bool(json.load(got)["outputs"])
        time.sleep(0.05)
    print(f"quiet: {answers} answers in {seconds:g} s")
    return failed or not answers


def files_below(home: Path) -> list[str]:
    """The files and directories that were made below `home`."""
    return sorted(str(path.relative_to(home)) for path in home.rglob("*"))


if __name__ == "__main__":
    sys.exit(main())
