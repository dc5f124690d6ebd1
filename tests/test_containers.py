"""The Dockerfiles: `make image-test` builds and runs the CPU images; here every line of both is one that it has run."""

from __future__ import annotations

import json
import re
import shlex
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from inferd.server.config.load import load_config

ROOT = Path(__file__).resolve().parent.parent
FILES = ("Dockerfile.cpu", "Dockerfile.gpu")
PIP = "/opt/inferd/bin/python -m pip"
INSTALL = {
    "Dockerfile.cpu": '--extra-index-url "${TORCH_INDEX}" -c constraints/cpu.txt -c constraints/image-cpu.txt',
    "Dockerfile.gpu": "-c constraints/cpu.txt -c constraints/gpu.txt",
}


def instructions(name: str) -> list[tuple[str, str]]:
    text = re.sub(r"\\\n\s*", "", (ROOT / name).read_text())
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return [(line.split(None, 1)[0], line.split(None, 1)[1]) for line in lines]


def final_stage(name: str) -> list[tuple[str, str]]:
    words = instructions(name)
    return words[max(i for i, (word, _) in enumerate(words) if word == "FROM") :]


def one(name: str, wanted: str) -> str:
    """The operand of the only such instruction of the final stage."""
    (found,) = [rest for word, rest in final_stage(name) if word == wanted]
    return found


def environment(name: str) -> dict[str, str]:
    return {
        key: value
        for word, rest in final_stage(name)
        if word == "ENV"
        for key, _, value in (pair.partition("=") for pair in shlex.split(rest))
    }


def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def pins(name: str) -> dict[str, str]:
    lines = (ROOT / "constraints" / name).read_text().splitlines()
    return dict(line.split("==") for line in lines if line and not line.startswith("#"))


@pytest.mark.parametrize("name", FILES)
def test_only_run_lines_that_the_image_test_runs(name: str) -> None:
    assert [rest for word, rest in instructions(name) if word == "RUN"] == [
        "python -m venv /opt/inferd",
        f'{PIP} install -q --no-cache-dir {INSTALL[name]} ".[http,jwt,cli,${{EXTRAS}}]"',
        f"{PIP} inspect -q --local > /opt/inferd/packages.json",
        "useradd --uid 10001 --gid 0 --no-create-home --home-dir /tmp inferd",
        "install -d -m 0775 /models",
    ]
    for file in re.findall(r"-c (\S+)", INSTALL[name]):
        assert (ROOT / file).exists()


def test_both_images_are_one_but_for_what_is_installed() -> None:
    assert final_stage("Dockerfile.cpu") == final_stage("Dockerfile.gpu")


@pytest.mark.parametrize("name", FILES)
def test_the_final_stage_is_small_and_not_root(name: str) -> None:
    final = final_stage(name)
    assert int(one(name, "USER")) > 0, (
        "a number: Kubernetes refuses to start a name where the manifest says runAsNonRoot"
    )
    assert f"--uid {one(name, 'USER')} --gid 0 " in " ".join(rest for word, rest in final if word == "RUN")
    assert ("COPY", "--from=build /opt/inferd /opt/inferd") in final
    assert not any("pip" in rest or "apt" in rest for word, rest in final if word == "RUN")
    assert not any(word == "VOLUME" for word, _ in final), "an image that is built on this one may hold its models"
    copied = {
        part
        for word, rest in instructions(name)
        if word == "COPY" and "--from" not in rest
        for part in rest.split()[:-1]
    }
    allowed = set(re.findall(r"^!(\S+)", (ROOT / ".dockerignore").read_text(), re.MULTILINE))
    assert copied <= allowed, "the build would not find what .dockerignore keeps out"
    assert f'image.version="{project()["version"]}"' in one(name, "LABEL")


@pytest.mark.parametrize("name", FILES)
def test_the_commands_of_the_image(name: str) -> None:
    """Arguments of `docker run` take the place of `serve`, which flags then do not follow by accident."""
    assert json.loads(one(name, "ENTRYPOINT")) == ["inferd"]
    command = json.loads(one(name, "CMD"))
    assert command[:2] == ["serve", "--config"]
    assert command[2] == environment(name)["INFERD_CONFIG"], "serve with other flags, check and health read it, too"
    assert ("COPY", f"deploy/image/config.yaml {command[2]}") in final_stage(name)
    assert one(name, "HEALTHCHECK").endswith('CMD ["inferd", "health"]')
    assert json.loads(one(name, "HEALTHCHECK").partition("CMD ")[2])[0] == "inferd"


@pytest.mark.parametrize("name", FILES)
def test_any_user_without_a_home_can_run_it(name: str) -> None:
    found = environment(name)
    assert (found["HOME"], found["USER"]) == ("/tmp", "inferd")
    assert found["ORT_DISABLE_TELEMETRY"] == found["HF_HUB_DISABLE_TELEMETRY"] == found["DO_NOT_TRACK"] == "1"


def test_what_the_images_start_with() -> None:
    """Only what must differ in a container, so that flags, variables and other files are not surprised."""
    given = yaml.safe_load((ROOT / "deploy" / "image" / "config.yaml").read_text())
    assert given == {
        "server": {"readiness": "nonempty"},
        "repository": {"roots": ["/models"]},
        "admin": {"allow": "none"},
    }


def test_nobody_operates_a_server_in_an_image_unless_it_is_configured() -> None:
    assert load_config(ROOT / "deploy" / "image" / "config.yaml").admin.allow == "none"
    assert load_config(ROOT / "deploy" / "kubernetes" / "base" / "config.yaml").admin.allow == "none"
    for manifest in (ROOT / "deploy").rglob("*.yaml"):
        assert "admin.allow=" not in manifest.read_text()


@pytest.mark.parametrize("name", FILES)
def test_the_extras_exist(name: str) -> None:
    wanted = next(rest for word, rest in instructions(name) if word == "ARG" and rest.startswith("EXTRAS="))
    chosen = [*wanted.removeprefix("EXTRAS=").split(","), "http", "jwt", "cli"]
    assert set(chosen) <= set(project()["optional-dependencies"])
    both = {"onnx", "onnx-gpu"}
    assert not both <= set(chosen), "both onnxruntimes share one import name"


def test_torch_comes_without_cuda_or_not_at_all() -> None:
    assert pins("image-cpu.txt") == {"torch": pins("cpu.txt")["torch"] + "+cpu"}
    default = next(rest for word, rest in instructions("Dockerfile.cpu") if word == "ARG" and rest.startswith("TORCH"))
    assert default == "TORCH_INDEX=", "no package index is named here: whoever builds says where torch comes from"


def test_every_cuda_library_is_pinned_and_of_one_generation() -> None:
    """`make image-test` resolves every choice of frameworks with these pins."""
    cuda = {name: version for name, version in pins("gpu.txt").items() if re.match("nvidia|cuda|triton", name)}
    for name in ("cublas", "cuda-cupti", "cuda-nvrtc", "cuda-runtime", "cudnn-cu13", "cufft", "curand", "nvjitlink"):
        assert f"nvidia-{name}" in cuda
    numbered = ("cuda-bindings", "cuda-toolkit", "nvidia-cuda-nvrtc", "nvidia-cuda-runtime", "nvidia-nvjitlink")
    assert {cuda[name].rsplit(".", len(cuda[name].split(".")) - 2)[0] for name in numbered} == {"13.0"}
    assert not set(pins("gpu.txt")) & set(pins("cpu.txt")), "a version stands in one place"


def test_tensorflow_installs_on_64_bit_arm() -> None:
    markers = pytest.importorskip("packaging.markers")
    requirements = pytest.importorskip("packaging.requirements")
    wanted = [requirements.Requirement(line) for line in project()["optional-dependencies"]["tensorflow"]]
    for machine, name in {"x86_64": "tensorflow-cpu", "aarch64": "tensorflow"}.items():
        place = {**markers.default_environment(), "platform_machine": machine}
        found = [each.name for each in wanted if each.marker is not None and each.marker.evaluate(place)]
        assert found == [name]
        assert name in pins("cpu.txt")
