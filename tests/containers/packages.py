"""What pip would install, without installing it: the CUDA libraries of the GPU image, and everything on 64-bit ARM."""

from __future__ import annotations

import json
import os
import re
import sys
import tempfile
import tomllib
from collections.abc import Sequence
from pathlib import Path

from containers.tools import ROOT, expect, run, say
from packaging.markers import default_environment
from packaging.requirements import Requirement

_GPU = ("onnx-gpu", "torch", "onnx-gpu,torch", "onnx-gpu,torch,tensorflow")
_CUDA = re.compile("nvidia|cuda|triton")
_COMMON = "http,jwt,cli"
_ARM = [
    f"--platform={name}_aarch64" for name in ("manylinux2014", *(f"manylinux_2_{number}" for number in range(17, 29)))
]


def one_cuda_set() -> None:
    """Every choice of frameworks of Dockerfile.gpu takes its CUDA libraries from one set, all of which are pinned.
    Raises Failure."""
    pinned = _pins("gpu.txt")
    constraints = ("-c", "constraints/cpu.txt", "-c", "constraints/gpu.txt")
    for extras in _GPU:
        found = _resolve(*constraints, f".[{_COMMON},{extras}]")
        cuda = {name: version for name, version in found.items() if _CUDA.match(name)}
        wrong = {name: version for name, version in cuda.items() if pinned.get(name) != version}
        expect(cuda and not wrong, f"EXTRAS={extras}: not pinned in constraints/gpu.txt: {wrong or 'no CUDA at all'}")
        say(f"GPU, EXTRAS={extras}: {len(found)} packages, {len(cuda)} of CUDA {pinned['cuda-toolkit']}, all pinned")


def arm64_installs() -> None:
    """Every requirement of `inferd[all]` has a wheel for Linux on 64-bit ARM. Raises Failure.

    torch is asked for without what it needs: PyPI has the build with CUDA, the image takes the other one.
    """
    machine = {**default_environment(), "platform_machine": "aarch64"}
    wanted = [str(each) for each in _requirements("all", machine)]
    with tempfile.TemporaryDirectory() as place:
        python = ("--python-version", "3.11", "--implementation", "cp", "--only-binary=:all:", "--target", place)
        constrained = (*_ARM, *python, "-c", "constraints/cpu.txt")
        found = _resolve(*constrained, *(each for each in wanted if not each.startswith("torch")))
        found |= _resolve(*constrained, "--no-deps", *(each for each in wanted if each.startswith("torch")))
    for name in ("tensorflow", "torch", "onnxruntime", "grpcio"):
        expect(name in found, f"arm64: {name} is not installed: {sorted(found)}")
    say(f"arm64: {len(found)} packages, every one with a wheel; TensorFlow {found['tensorflow']}")


def _requirements(extra: str, machine: dict[str, str]) -> list[Requirement]:
    """What an extra asks for on a machine, extras that it names included, without markers."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    found = {str(line): Requirement(line) for line in project["dependencies"]}
    todo = [extra]
    done = set()
    while todo:
        name = todo.pop()
        if name in done:
            continue
        done.add(name)
        for line in project["optional-dependencies"][name]:
            requirement = Requirement(line)
            if requirement.name == "inferd":
                todo += requirement.extras
            elif requirement.marker is None or requirement.marker.evaluate(machine):
                requirement.marker = None
                found[line] = requirement
    return list(found.values())


def _resolve(*arguments: str) -> dict[str, str]:
    """Name → version of what pip would install into an empty environment: from the package index alone, not from what
    lies on this machine."""
    with tempfile.TemporaryDirectory() as place:
        report = Path(place) / "report.json"
        command = (sys.executable, "-m", "pip", "install", "-q", "--dry-run", "--ignore-installed", "--report", report)
        alone = {name: value for name, value in os.environ.items() if name not in ("PIP_FIND_LINKS",)}
        alone["PIP_CONFIG_FILE"] = os.devnull
        run(*command, *arguments, cwd=ROOT, env=alone, limit=1800)
        items = json.loads(report.read_text())["install"]
    return {_name(item["metadata"]["name"]): item["metadata"]["version"] for item in items}


def _pins(file: str) -> dict[str, str]:
    lines: Sequence[str] = (ROOT / "constraints" / file).read_text().splitlines()
    return dict(line.split("==") for line in lines if line and not line.startswith("#"))


def _name(name: str) -> str:
    return re.sub("[-_.]+", "-", name).lower()
