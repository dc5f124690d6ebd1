"""deploy/kubernetes and deploy/kserve: valid by the schemas of Kubernetes, restricted, and as the server expects."""

from __future__ import annotations

import re
import tomllib
from functools import cache
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from inferd.server.cli.main import build_parser
from inferd.server.cli.serve import configuration
from inferd.server.config.load import load_config
from inferd.server.config.schema import ServerConfig
from inferd.server.observability import series

ROOT = Path(__file__).resolve().parent.parent
KUBERNETES = ROOT / "deploy" / "kubernetes"
KSERVE = ROOT / "deploy" / "kserve"
CONTAINERS = ("base", "kserve")
VERSION = "1.37"
# Where a manifest of KServe may have keys, by its types in pkg/apis/serving.
RUNTIME_KEYS = {
    "annotations", "supportedModelFormats", "protocolVersions", "containers", "volumes", "labels", "nodeSelector",
    "affinity", "tolerations", "imagePullSecrets", "multiModel", "disabled", "hostIPC", "workerSpec", "replicas",
}  # fmt: skip


def documents(*paths: Path) -> list[dict[str, Any]]:
    return [each for path in paths for each in yaml.safe_load_all(path.read_text())]


def resources(name: str) -> list[dict[str, Any]]:
    """The objects of a kustomization, those of the base that it builds on left out."""
    place = KUBERNETES / name
    (kustomization,) = documents(place / "kustomization.yaml")
    return documents(*(place / each for each in kustomization["resources"] if each != "../base"))


def base(kind: str, name: str = "inferd") -> dict[str, Any]:
    (found,) = [each for each in resources("base") if (each["kind"], each["metadata"]["name"]) == (kind, name)]
    return found


@cache
def runtime() -> dict[str, Any]:
    (found,) = documents(KSERVE / "clusterservingruntime.yaml")
    return dict(found)


def pod(which: str) -> dict[str, Any]:
    return dict(base("Deployment")["spec"]["template"]["spec"] if which == "base" else runtime()["spec"])


def container(which: str) -> dict[str, Any]:
    (found,) = pod(which)["containers"]
    return dict(found)


def settings(which: str, monkeypatch: pytest.MonkeyPatch) -> ServerConfig:
    """What the server in the container is started with."""
    if which == "base":
        return load_config(KUBERNETES / "base" / "config.yaml")
    monkeypatch.delenv("INFERD_CONFIG", raising=False)
    baked = str(ROOT / "deploy" / "image" / "config.yaml")
    arguments = [each.replace("/etc/inferd/config.yaml", baked) for each in container("kserve")["args"]]
    return configuration(build_parser("serve").parse_args(arguments))


def as_deployment(which: str) -> dict[str, Any]:
    """A deployment with the containers and volumes of the runtime, for the schema of Kubernetes."""
    spec = {key: pod(which)[key] for key in ("containers", "volumes")}
    return {**base("Deployment"), "spec": {**base("Deployment")["spec"], "template": {
        **base("Deployment")["spec"]["template"], "spec": spec}}}  # fmt: skip


@pytest.mark.parametrize("name", ["base", "hpa"])
def test_every_object_is_valid_strictly(name: str) -> None:
    found = resources(name)
    assert found
    for each in found:
        kubernetes_validate.validate(each, VERSION, strict=True)


def test_the_runtimes_container_is_valid_strictly_and_a_typo_is_not() -> None:
    kubernetes_validate.validate(as_deployment("kserve"), VERSION, strict=True)
    wrong = as_deployment("kserve")
    wrong["spec"]["template"]["spec"]["containers"][0] = {**container("kserve"), "readinesProbe": {}}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, VERSION, strict=True)


@pytest.mark.parametrize("which", CONTAINERS)
def test_pods_are_restricted(which: str) -> None:
    """Kubernetes' Pod Security Standard `restricted`, with a read-only root."""
    found = container(which)
    security = {**pod(which).get("securityContext", {}), **found["securityContext"]}
    assert security["runAsNonRoot"] is True
    assert security["allowPrivilegeEscalation"] is False
    assert security["readOnlyRootFilesystem"] is True
    assert security["capabilities"] == {"drop": ["ALL"]}
    assert security["seccompProfile"] == {"type": "RuntimeDefault"}
    assert not {"hostNetwork", "hostPID", "hostIPC", "hostPath"} & set(pod(which))
    kinds = {key for volume in pod(which)["volumes"] for key in volume if key != "name"}
    assert kinds <= {"configMap", "emptyDir", "persistentVolumeClaim"}
    (temporary,) = [volume["name"] for volume in pod(which)["volumes"] if "emptyDir" in volume]
    assert {"name": temporary, "mountPath": "/tmp"} in found["volumeMounts"]
    assert all(mount.get("readOnly") for mount in found["volumeMounts"] if mount["name"] != temporary)


def test_pods_get_no_credentials_of_the_cluster() -> None:
    assert base("ServiceAccount")["automountServiceAccountToken"] is False
    assert pod("base")["automountServiceAccountToken"] is False
    assert pod("base")["serviceAccountName"] == base("ServiceAccount")["metadata"]["name"]


@pytest.mark.parametrize("which", CONTAINERS)
def test_probes_and_ports_are_those_of_the_server(which: str, monkeypatch: pytest.MonkeyPatch) -> None:
    config, found = settings(which, monkeypatch), container(which)
    ports = {each["name"]: each["containerPort"] for each in found["ports"]}
    assert f"0.0.0.0:{ports['grpc']}" in config.server.listen
    assert config.server.http == (f"0.0.0.0:{ports['http']}",)
    assert config.server.metrics == (f"0.0.0.0:{ports['metrics']}",), "in plain text, whatever the others speak"
    for probe, page in {"startupProbe": "/healthz", "livenessProbe": "/healthz", "readinessProbe": "/readyz"}.items():
        assert found[probe]["httpGet"] == {"path": page, "port": "metrics"}
    notes = runtime()["spec"]["annotations"] if which == "kserve" else (
        base("Deployment")["spec"]["template"]["metadata"]["annotations"]
    )  # fmt: skip
    (scraped,) = [value for key, value in notes.items() if key.endswith("/port")]
    assert scraped == str(ports["metrics"])


@pytest.mark.parametrize("which", CONTAINERS)
def test_what_the_server_does_in_a_cluster(which: str, monkeypatch: pytest.MonkeyPatch) -> None:
    config = settings(which, monkeypatch)
    assert config.admin.allow == "none"
    assert config.server.readiness == "nonempty"
    assert config.drain.pre_stop >= 5
    grace = pod(which).get("terminationGracePeriodSeconds", 30)
    assert config.drain.pre_stop + config.drain.grace < grace, "the kubelet must not kill what still drains"
    assert config.server.work_dir is None, "below /tmp"
    mounts = {mount["mountPath"] for mount in container(which)["volumeMounts"]} | {"/mnt/models"}
    assert set(config.repository.roots) <= mounts
    assert config.repository.settle == (65.0 if which == "base" else 0.0)


def test_the_models_fit_into_the_pod(monkeypatch: pytest.MonkeyPatch) -> None:
    config = settings("base", monkeypatch)
    assert container("base")["resources"]["limits"]["memory"] == "4Gi"
    assert config.memory.models is not None
    assert config.memory.models + 2 * config.inflight.bytes <= 3 * 2**30, "the frameworks need the rest"


def test_rollouts_and_disruptions_leave_a_pod() -> None:
    deployment = base("Deployment")["spec"]
    labels = deployment["template"]["metadata"]["labels"]
    assert deployment["replicas"] >= 2
    assert deployment["strategy"]["rollingUpdate"]["maxUnavailable"] == 0
    assert deployment["selector"]["matchLabels"] == labels
    budget = base("PodDisruptionBudget")["spec"]
    assert budget == {"maxUnavailable": 1, "selector": {"matchLabels": labels}}
    spread = pod("base")["topologySpreadConstraints"]
    assert {each["topologyKey"] for each in spread} == {"kubernetes.io/hostname", "topology.kubernetes.io/zone"}
    assert all(each["labelSelector"] == {"matchLabels": labels} for each in spread)


def test_services_reach_the_pods() -> None:
    labels = base("Deployment")["spec"]["template"]["metadata"]["labels"]
    named = {each["name"] for each in container("base")["ports"]}
    grpc, http = base("Service")["spec"], base("Service", "inferd-http")["spec"]
    assert grpc["clusterIP"] == "None", "each connection would go to one pod"
    assert "clusterIP" not in http
    for service in (grpc, http):
        assert service["selector"] == labels
        assert {port["targetPort"] for port in service["ports"]} <= named
    assert [port["appProtocol"] for port in grpc["ports"]] == ["kubernetes.io/h2c"]


def test_images_and_settings_are_named_once() -> None:
    (kustomization,) = documents(KUBERNETES / "base" / "kustomization.yaml")
    (image,) = kustomization["images"]
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert (image["name"], image["newTag"]) == (container("base")["image"], version)
    assert container("kserve")["image"] == f"inferd:{version}", "a tag: `latest` is pulled at every start"
    (generated,) = kustomization["configMapGenerator"]
    assert {"name": "config", "configMap": {"name": generated["name"]}} in pod("base")["volumes"]
    assert generated["files"] == ["config.yaml"]
    listed = {*kustomization["resources"], "kustomization.yaml", "config.yaml"}
    assert listed == {path.name for path in (KUBERNETES / "base").iterdir()}


@pytest.mark.parametrize("name", ["hpa", "keda"])
def test_autoscalers_follow_the_queues(name: str) -> None:
    (kustomization,) = documents(KUBERNETES / name / "kustomization.yaml")
    assert kustomization["resources"][0] == "../base"
    (patch,) = kustomization["patches"]
    assert yaml.safe_load(patch["patch"]) == [{"op": "remove", "path": "/spec/replicas"}], "the autoscaler sets them"
    (scaler,) = resources(name)
    text = yaml.safe_dump(scaler)
    queue = re.search(r"inferd_\w+", text)
    assert queue is not None
    assert queue[0] in Path(series.__file__).read_text()
    spec = scaler["spec"]
    target = spec["scaleTargetRef"]["name"]
    assert base("Deployment")["metadata"]["name"] == target
    assert spec.get("minReplicas", spec.get("minReplicaCount")) == base("Deployment")["spec"]["replicas"]
    if name == "keda":
        assert (scaler["apiVersion"], scaler["kind"]) == ("keda.sh/v1alpha1", "ScaledObject")
        (trigger,) = spec["triggers"]
        assert trigger["type"] == "prometheus"
        assert set(trigger["metadata"]) == {"serverAddress", "query", "threshold"}
        assert all(isinstance(value, str) for value in trigger["metadata"].values()), "KEDA takes strings"


def test_the_runtime_is_one_of_kserves() -> None:
    found = runtime()
    assert (found["apiVersion"], found["kind"]) == ("serving.kserve.io/v1alpha1", "ClusterServingRuntime")
    assert set(found["spec"]) <= RUNTIME_KEYS
    assert found["spec"]["protocolVersions"] == ["v1", "v2", "grpc-v1", "grpc-v2"]
    assert container("kserve")["name"] == "kserve-container"
    formats = found["spec"]["supportedModelFormats"]
    assert {each["name"] for each in formats} == {"onnx", "pytorch", "tensorflow", "triton"}
    assert not any(each.get("autoSelect") for each in formats), "nobody's models move to it by themselves"
    first, *others = container("kserve")["ports"]
    assert first["containerPort"] == 8080, "the first one becomes port 80 of the service"
    assert [each["name"] for each in others] == ["grpc", "metrics"], "a port named grpc is spoken to in HTTP/2"
    assert "--model-name={{.Name}}" in container("kserve")["args"], "v1 and v2 name the model like the service"


def test_the_example_names_the_runtime() -> None:
    (service,) = documents(KSERVE / "inferenceservice.yaml")
    predictor = service["spec"]["predictor"]
    model = predictor["model"]
    assert model["runtime"] == runtime()["metadata"]["name"]
    assert model["modelFormat"]["name"] in {each["name"] for each in runtime()["spec"]["supportedModelFormats"]}
    assert model["protocolVersion"] in runtime()["spec"]["protocolVersions"]
    assert predictor["terminationGracePeriodSeconds"] >= 30
