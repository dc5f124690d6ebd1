"""`python -m converters` (make test-converters): every source of `inferd publish`, against the newest releases.

Makes training environments below var/converters, trains small models on scikit-learn's data in them, publishes every
model with this interpreter's inferd, serves the repository, and asks the server for the labels of held-out rows. Prints
a row for each source with the accuracy of the original and of what is served. Fails when they are not equal, and when
anything is missing: nothing is skipped.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from support.server import INFERD, Served

from inferd.client import Client
from inferd.server.publishing.parity import accuracy
from inferd.server.publishing.rows import fit_rows, read_rows

HERE = Path(__file__).resolve().parent
VAR = HERE.parents[1] / "var" / "converters"
SECONDS = 3600.0
# Packages of each environment: newest releases. Those after "--" are installed without what they ask for: XGBoost's
# wheel asks for CUDA libraries, tf-keras for another TensorFlow.
TABLES = (
    "scikit-learn", "skl2onnx", "onnxmltools", "lightgbm", "skops", "mlflow", "pandas", "onnxruntime", "protobuf>=7",
)  # fmt: skip
ENVIRONMENTS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "tables": ((*TABLES, "--", "xgboost"), ("train_tables.py", "train_mlflow.py")),
    "keras": (("tensorflow-cpu", "keras", "scikit-learn", "tf2onnx", "onnx", "--", "tf-keras"), ("train_keras.py",)),
    "torch": (("torch", "onnx", "onnxscript", "safetensors", "scikit-learn"), ("train_torch.py",)),
    "dvc": (("dvc",), ()),
}


@dataclass(frozen=True)
class Source:
    """One model to publish. `accuracy`: of the original on the held-out rows."""

    environment: str
    name: str
    source: str
    sample: Path
    accuracy: float
    flags: tuple[str, ...]
    variables: dict[str, str]

    @property
    def model(self) -> str:
        return "".join(letter if letter.isalnum() else "_" for letter in self.name.lower())


def main() -> int:
    parser = argparse.ArgumentParser(prog="make test-converters")
    parser.add_argument("environments", nargs="*", metavar="ENVIRONMENT", help=f"of {', '.join(ENVIRONMENTS)}; all")
    parser.add_argument("--keep", action="store_true", help="use the environments that are there already")
    args = parser.parse_args()
    wanted = args.environments or list(ENVIRONMENTS)
    if unknown := set(wanted) - set(ENVIRONMENTS):
        parser.error(f"unknown environment {', '.join(unknown)}")
    sources: list[Source] = []
    for name in wanted:
        packages, scripts = ENVIRONMENTS[name]
        python = environment(name, packages, keep=args.keep)
        for script in scripts:
            sources += trained(name, python, script)
    if "dvc" in wanted:
        sources += tracked(VAR / "dvc", next((s for s in sources if s.source.endswith("logistic.skops")), None))
    versions = ", ".join(f"{name} {version(name)}" for name in ("protobuf", "onnxruntime", "numpy"))
    print(f"\nserver: Python {sys.version.split()[0]}, {versions}")
    repository = VAR / "repository"
    shutil.rmtree(repository, ignore_errors=True)
    faults = [fault for source in sources if (fault := published(source, repository))]
    faults += list(compared(sources, repository))
    for fault in faults:
        print(f"FAULT: {fault}", file=sys.stderr)
    return 1 if faults or not sources else 0


def environment(name: str, packages: tuple[str, ...], *, keep: bool) -> Path:
    """The interpreter of a new training environment."""
    home = VAR / name / "venv"
    python = home / "bin" / "python"
    if keep and python.exists():
        return python
    print(f"makes the environment {name}: {' '.join(packages)}", flush=True)
    shutil.rmtree(VAR / name, ignore_errors=True)
    run(sys.executable, "-m", "venv", home)
    run(python, "-m", "pip", "install", "-q", "--upgrade", "pip")
    split = packages.index("--") if "--" in packages else len(packages)
    run(python, "-m", "pip", "install", "-q", *packages[:split])
    if packages[split + 1 :]:
        run(python, "-m", "pip", "install", "-q", "--no-deps", *packages[split + 1 :])
    return python


def trained(name: str, python: Path, script: str) -> Iterator[Source]:
    out = VAR / name / script.removesuffix(".py")
    shutil.rmtree(out, ignore_errors=True)
    print(f"trains with {script} in {name}", flush=True)
    run(python, HERE / script, out)
    for entry in json.loads((out / "models.json").read_text()):
        source = entry["source"] if ":/" in entry["source"] else str(out / entry["source"])
        flags = ("--python", str(python), *entry["flags"])
        yield Source(
            name, entry["name"], source, out / entry["sample"], entry["accuracy"], flags, entry.get("environment", {})
        )


def tracked(home: Path, model: Source | None) -> Iterator[Source]:
    """The model in a DVC project: at a tag, and by its .dvc file, when only the remote has it."""
    if model is None:
        raise SystemExit("dvc needs the environment tables too")
    project = home / "project"
    shutil.rmtree(project, ignore_errors=True)
    shutil.rmtree(home / "remote", ignore_errors=True)
    project.mkdir(parents=True)
    dvc = home / "venv" / "bin" / "dvc"
    variables = {"PATH": f"{dvc.parent}:{os.environ['PATH']}"}
    shutil.copy(model.source, project / "model.skops")
    git = ("git", "-c", "user.name=a", "-c", "user.email=a@b.c", "-C", project)
    run("git", "init", "-q", project)
    run(dvc, "init", "-q", cwd=project)
    run(dvc, "remote", "add", "-q", "-d", "store", home / "remote", cwd=project)
    run(dvc, "add", "-q", "model.skops", cwd=project)
    run(*git, "add", "-A")
    run(*git, "commit", "-qm", "model")
    run(*git, "tag", "v1")
    run(dvc, "push", "-q", cwd=project)
    shutil.rmtree(project / ".dvc" / "cache")
    (project / "model.skops").unlink()
    path = str(project / "model.skops")
    for name, flags in (("DVC file", ()), ("DVC tag", ("--rev", "v1"))):
        yield Source("dvc", name, path, model.sample, model.accuracy, (*model.flags, *flags), variables)


def published(source: Source, repository: Path) -> str:
    """Publishes a source. Returns the fault, "" for none."""
    began = time.monotonic()
    command = [INFERD, "publish", source.model, source.source, "-r", repository, "--sample", source.sample, "--json"]
    done = subprocess.run(
        [*map(str, command), *source.flags],
        capture_output=True, text=True, check=False, timeout=SECONDS, env={**os.environ, **source.variables},
    )  # fmt: skip
    print(f"  {time.monotonic() - began:5.1f} s  {source.name}", flush=True)
    return "" if done.returncode == 0 else f"{source.name}: {done.stderr[-800:]}"


def compared(sources: list[Source], repository: Path) -> Iterator[str]:
    """Asks a server for the labels of all held-out rows. Prints the matrix, yields the faults."""
    print(f"\n{'source':42} {'original':>9} {'served':>9} {'rows':>5}")
    with Served(repository, limit=600) as served, Client(served.address, timeout=120) as client:
        for source in sources:
            if not (repository / source.model).is_dir():
                continue
            right, rows, wrong = asked(client, source, repository)
            equal = abs(right - source.accuracy) < 1e-9
            print(f"{source.name:42} {source.accuracy:9.4f} {right:9.4f} {rows:5}{'' if equal else '  DIFFERS'}{wrong}")
            if not equal:
                yield f"{source.name}: the original's accuracy is {source.accuracy:.4f}, that of the server {right:.4f}"


def asked(client: Client, source: Source, repository: Path) -> tuple[float, int, str]:
    sample = read_rows(source.sample)
    metadata = client.metadata(source.model)
    signature = metadata.signatures[0]
    inputs = fit_rows(signature, sample)  # type: ignore[arg-type]  # the client's specs have the same fields
    rows = len(next(iter(inputs.values())))
    parts: dict[str, list[Any]] = {}
    for start in range(0, rows, 32):
        answer = client.predict(source.model, {name: array[start : start + 32] for name, array in inputs.items()})
        for name, array in answer.items():
            parts.setdefault(name, []).append(np.asarray(array))
    assert sample.expected is not None
    found = accuracy(sample.expected, {name: np.concatenate(arrays) for name, arrays in parts.items()})
    return (found[0], rows, "") if found is not None else (0.0, rows, "  no output tells a label")


def run(*command: object, cwd: Path | None = None) -> None:
    done = subprocess.run(
        [str(part) for part in command], capture_output=True, text=True, check=False, timeout=SECONDS, cwd=cwd
    )
    if done.returncode:
        raise SystemExit(f"{' '.join(map(str, command))}: {(done.stderr or done.stdout)[-2000:]}")


if __name__ == "__main__":
    sys.exit(main())
