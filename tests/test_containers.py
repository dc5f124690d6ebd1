"""The Dockerfiles cannot be built here, so that their RUN lines are: each is one that this test runs."""

from __future__ import annotations

import json
import os
import re
import subprocess
import venv
from pathlib import Path

import pytest
import yaml

from inferd.server.config.load import load_config

ROOT = Path(__file__).resolve().parent.parent
FILES = ("Dockerfile.cpu", "Dockerfile.gpu")


def instructions(name: str) -> list[tuple[str, str]]:
    text = re.sub(r"\\\n\s*", "", (ROOT / name).read_text())
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return [(line.split(None, 1)[0], line.split(None, 1)[1]) for line in lines]


def runs(name: str) -> list[str]:
    return [rest for word, rest in instructions(name) if word == "RUN"]


@pytest.mark.parametrize("name", FILES)
def test_only_run_lines_that_are_tested(name: str) -> None:
    constraints = "constraints/cpu.txt" if name.endswith("cpu") else "constraints/gpu.txt"
    assert runs(name) == [
        "python -m venv /opt/inferd",
        f'/opt/inferd/bin/python -m pip install -q --no-cache-dir -c {constraints} ".[${{EXTRAS}}]"',
        "useradd --system --uid 10001 --create-home inferd",
    ]
    assert (ROOT / constraints).exists()


@pytest.mark.parametrize("name", FILES)
def test_the_final_stage_is_small_and_not_root(name: str) -> None:
    words = instructions(name)
    last = max(i for i, (word, _) in enumerate(words) if word == "FROM")
    final = words[last:]
    user = next(rest for word, rest in final if word == "USER")
    assert int(user) > 0, "a number: Kubernetes refuses to start a name where the manifest says runAsNonRoot"
    assert f"useradd --system --uid {user} --create-home inferd" in runs(name)
    assert any(word == "HEALTHCHECK" for word, _ in final)
    assert ("COPY", "--from=build /opt/inferd /opt/inferd") in final
    assert not any("pip" in rest or "apt" in rest for word, rest in final if word == "RUN")
    copied = {part for word, rest in words if word == "COPY" and "--from" not in rest for part in rest.split()[:-1]}
    allowed = set(re.findall(r"^!(\S+)", (ROOT / ".dockerignore").read_text(), re.MULTILINE))
    assert copied <= allowed, "the build would not find what .dockerignore keeps out"
    entry = next(json.loads(rest) for word, rest in final if word == "ENTRYPOINT")
    assert entry[:2] == ["inferd", "serve"]


@pytest.mark.parametrize("name", FILES)
def test_nobody_operates_a_server_in_an_image_unless_it_is_configured(name: str) -> None:
    final = instructions(name)[max(i for i, (word, _) in enumerate(instructions(name)) if word == "FROM") :]
    entry = next(json.loads(rest) for word, rest in final if word == "ENTRYPOINT")
    file = entry[entry.index("--config") + 1]
    assert ("COPY", f"deploy/image/config.yaml {file}") in final
    assert load_config(ROOT / "deploy" / "image" / "config.yaml").admin.allow == "none"
    manifest = next(iter(yaml.safe_load_all((ROOT / "deploy" / "kubernetes" / "inferd.yaml").read_text())))
    pod = manifest["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert container["securityContext"]["readOnlyRootFilesystem"]
    assert {"name": "temporary", "mountPath": "/tmp"} in container["volumeMounts"]
    assert not any("admin" in argument for argument in container["args"])


@pytest.mark.parametrize("name", FILES)
def test_the_extras_exist(name: str) -> None:
    import tomllib

    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    wanted = next(rest for word, rest in instructions(name) if word == "ARG" and rest.startswith("EXTRAS="))
    chosen = wanted.removeprefix("EXTRAS=").split(",")
    assert set(chosen) <= set(extras)
    both = {"onnx", "onnx-gpu"}
    assert not both <= set(chosen), "both onnxruntimes share one import name"


@pytest.mark.heavy
@pytest.mark.timeout(400)
def test_the_install_lines_make_a_server(tmp_path: Path) -> None:
    """The lines of Dockerfile.cpu with EXTRAS=onnx, in a directory of the test's."""
    home = tmp_path / "opt"
    venv.create(home, with_pip=True)
    line = runs("Dockerfile.cpu")[1].replace("/opt/inferd", str(home)).replace("${EXTRAS}", "onnx")
    done = subprocess.run(["bash", "-c", line], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    # Not the checkout but the wheel is what answers: nothing of the source tree is on the path.
    check = [home / "bin" / "inferd", "check", "--model-repository", ROOT / "model_repository"]
    found = subprocess.run(
        [*map(str, check), "--json"], cwd=tmp_path, capture_output=True, text=True, check=False, env={**os.environ}
    )
    findings = {f["model"]: f for f in json.loads(found.stdout)["findings"] if f["version"] is not None}
    assert not findings["digits_onnx"]["error"]
    assert "inferd[torch]" in findings["digits_torch"]["error"]
    assert "inferd[tensorflow]" in findings["digits_tf"]["error"]
    assert found.returncode == 1
