"""The loader with the real scheduler: what comes of a version, what of a failure, and what is left afterwards."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.loading import CancelledAt
from support.scheduling import submit

from inferd.backends.api import (
    Array,
    BackendError,
    IncompleteArtefact,
    Independence,
    InvalidInput,
    LoadError,
    OpenRequest,
    Placement,
    Signature,
    TensorSpec,
    Traits,
)  # fmt: skip
from inferd.backends.registry import Registry
from inferd.server.config.schema import ModelConfig
from inferd.server.lifecycle.inspection import inspect_repository
from inferd.server.lifecycle.loading.cancellation import Cancellation, LoadCancelled
from inferd.server.lifecycle.loading.load_request import LoadRequest
from inferd.server.lifecycle.loading.loader import Loader
from inferd.server.lifecycle.servable import Servable
from inferd.server.lifecycle.state import ServableId
from inferd.server.repository.disk import VersionOnDisk
from inferd.server.repository.tree import read_tree
from inferd.server.scheduling.inline import LATELY, InlineLoop
from inferd.server.scheduling.request import callback_request
from inferd.wire.dtypes import DType

TIMEOUT = 30.0


class Doubling:
    """A backend for files called `model.twice`: y = 2 x. The file's words make it misbehave."""

    name = "twice"
    platforms = ("twice_platform",)
    artefacts = ("model.twice",)

    def __init__(self) -> None:
        self.open_models = 0
        self.instances: list[Placement] = []
        self.closed: list[str] = []  # threads on which instances were closed
        self.requests: list[OpenRequest] = []
        self.asked_devices = 0

    def find(self, directory: Path) -> Path | None:
        return directory / "model.twice" if (directory / "model.twice").exists() else None

    def complete(self, artefact: Path) -> str | None:
        return "the weights are missing" if artefact.read_text() == "incomplete" else None

    def files(self, artefact: Path) -> Sequence[Path]:
        return ()

    def devices(self) -> Sequence[str]:
        self.asked_devices += 1
        return ("cpu",)

    def open(self, request: OpenRequest) -> TwiceModel:
        self.requests.append(request)
        text = request.artefact.read_text()
        match text:
            case "no good":
                raise LoadError("not a good file")
            case "backend error":
                raise BackendError("the framework is unwell")
            case "unforeseen":
                raise KeyError("what?\nTraceback (most recent call last)")
            case "os":
                raise PermissionError(13, "Permission denied", "weights.bin")
            case "memory":
                raise MemoryError
        self.open_models += 1
        return TwiceModel(self, text)


class TwiceModel:
    traits = Traits(notes=("a note of the backend",))

    def __init__(self, backend: Doubling, text: str) -> None:
        self.backend = backend
        self.text = text
        self.signatures: tuple[Signature, ...] = (
            Signature(
                "serving_default", (TensorSpec("x", DType.FP32, (-1, 2)),), (TensorSpec("y", DType.FP32, (-1, 2)),)
            ),
        )
        if text == "no signature":
            self.signatures = ()

    def independence(self, signature: Signature) -> Independence:
        return Independence(True)

    def instance(self, placement: Placement) -> TwiceInstance:
        if self.text == "no instance":
            raise LoadError("no such device")
        self.backend.instances.append(placement)
        return TwiceInstance(self)

    def close(self) -> None:
        self.backend.open_models -= 1


class TwiceInstance:
    def __init__(self, model: TwiceModel) -> None:
        self.model = model

    def run(
        self, signature: str, inputs: Mapping[str, Array], outputs: Sequence[str] | None = None
    ) -> dict[str, Array]:
        if self.model.text == "refuses":
            raise InvalidInput("never satisfied")
        return {"y": np.ascontiguousarray(inputs["x"] * 2)}

    def close(self) -> None:
        self.model.backend.closed.append(threading.current_thread().name)


@pytest.fixture
def backend() -> Doubling:
    return Doubling()


@pytest.fixture
def registry(backend: Doubling) -> Registry:
    registry = Registry(plugins=())
    registry.add(backend)
    return registry


@pytest.fixture
def loader(registry: Registry) -> Loader:
    return Loader(registry, cpu_threads=4)


def version(tmp_path: Path, text: str) -> VersionOnDisk:
    directory = tmp_path / "m" / "1"
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "model.twice").write_text(text)
    return VersionOnDisk(1, directory, read_tree(directory))


def request(tmp_path: Path, text: str = "fine", **config: Any) -> LoadRequest:
    settings = ModelConfig.model_validate(config)
    return LoadRequest(ServableId("m", 1), 7, version(tmp_path, text), settings, ("a note of the settings",))


def ask(servable: Servable, x: Array) -> Array:
    done = threading.Event()
    infer = callback_request("serving_default", {"x": x}, lambda _: done.set(), rows=len(x), nbytes=x.nbytes)
    submit(servable.scheduler, infer)
    assert done.wait(TIMEOUT)
    assert infer.error is None
    assert infer.outputs is not None
    return infer.outputs["y"]


def test_a_load_gives_a_complete_servable(tmp_path: Path, loader: Loader, backend: Doubling) -> None:
    servable = loader.load(
        request(tmp_path, instances={"count": 2}, options={"a": 1}, default_priority=3), Cancellation()
    )
    assert (servable.id, servable.generation, servable.backend) == (ServableId("m", 1), 7, "twice")
    assert servable.default_signature == "serving_default"
    assert servable.notes == ("a note of the settings", "a note of the backend")
    assert servable.default_priority == 3
    assert servable.devices == ("cpu", "cpu")
    assert servable.max_batch_size == 32
    assert servable.nbytes == int(1.2 * len("fine"))
    assert servable.load_seconds > 0
    assert backend.instances == [Placement("cpu", 2, 5)] * 2
    assert backend.requests[0].options == {"a": 1}
    x = np.array([[1, 2]], np.float32)
    assert ask(servable, x).tolist() == [[2, 4]]
    loader.unload(servable)
    assert len(backend.closed) == 2
    assert threading.current_thread().name not in backend.closed
    assert backend.open_models == 0


@pytest.mark.parametrize(
    ("on_loop", "there", "alone"), [("auto", True, True), ("short", True, False), ("never", False, None)]
)
def test_which_models_may_run_on_the_front_ends_loop(
    tmp_path: Path, registry: Registry, monkeypatch: pytest.MonkeyPatch, on_loop: str, there: bool, alone: bool | None
) -> None:
    monkeypatch.setattr(TwiceModel, "traits", Traits(bounded=True, concurrent=True))
    now = [5.0]
    loop = InlineLoop(lambda: now[0])
    loader = Loader(registry, cpu_threads=4, loop=loop)
    servable = loader.load(request(tmp_path, instances={"on_loop": on_loop}), Cancellation())
    ask(servable, np.ones((1, 2), np.float32))
    now[0] += LATELY  # whatever may run there: who is called is seen, so that no other model counts as alone
    inline = servable.scheduler._inline  # type: ignore[union-attr]
    assert (inline is not None) is there
    assert (inline and servable.scheduler._budget.alone) is alone  # type: ignore[union-attr]
    assert loop.alone(servable.scheduler._budget)  # type: ignore[union-attr]
    servable.scheduler.close()


@pytest.mark.parametrize(
    ("text", "message", "kind"),
    [
        ("no good", "not a good file", LoadError),
        ("backend error", "the framework is unwell", LoadError),
        ("unforeseen", "KeyError: 'what?", LoadError),
        ("os", "weights.bin: Permission denied", LoadError),
        ("memory", "not enough memory", LoadError),
        ("incomplete", "the weights are missing", IncompleteArtefact),
        ("no signature", "the model has no signature", LoadError),
        ("no instance", "no such device", LoadError),
    ],
)
def test_failures_are_load_errors_and_leave_nothing_open(
    tmp_path: Path, loader: Loader, backend: Doubling, text: str, message: str, kind: type[LoadError]
) -> None:
    with pytest.raises(kind) as caught:
        loader.load(request(tmp_path, text), Cancellation())
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert backend.open_models == 0


def test_files_that_change_during_the_load_are_not_served(tmp_path: Path, loader: Loader, backend: Doubling) -> None:
    wanted = request(tmp_path)
    version(tmp_path, "fine too")
    with pytest.raises(IncompleteArtefact, match="changed while it was being loaded"):
        loader.load(wanted, Cancellation())
    assert backend.open_models == 0


@pytest.mark.parametrize("checks", [0, 1, 2, 3])
def test_a_load_that_is_no_longer_wanted_ends_at_its_next_step(
    tmp_path: Path, loader: Loader, backend: Doubling, checks: int
) -> None:
    with pytest.raises(LoadCancelled):
        loader.load(request(tmp_path), CancelledAt(checks))
    assert backend.open_models == 0


def test_warm_up_fails_the_load_on_declared_samples_only(tmp_path: Path, loader: Loader, backend: Doubling) -> None:
    declared = {
        "inputs": [{"name": "x", "dtype": "FP32", "shape": [-1, 2], "sample": [1, 2]}],
        "outputs": [{"name": "y", "dtype": "FP32", "shape": [-1, 2]}],
    }
    servable = loader.load(request(tmp_path, "refuses"), Cancellation())
    loader.unload(servable)
    with pytest.raises(LoadError, match="never satisfied"):
        loader.load(request(tmp_path, "refuses", signatures=[declared]), Cancellation())
    servable = loader.load(request(tmp_path, "refuses", warmup={"mode": "off"}, signatures=[declared]), Cancellation())
    loader.unload(servable)
    assert backend.open_models == 0


@pytest.mark.parametrize(
    ("dtype", "sample", "words"),
    [
        ("FP32", [[1, 2], [3]], "expected FP32 values"),
        ("FP32", [1, 1e39], r"1e\+39 is out of the range of FP32"),
        ("UINT8", [1, 300], "300 is out of the range of UINT8"),
        ("INT32", [1, 1.5], "expected whole numbers for INT32"),
        ("FP32", [True, False], "got True"),
        ("INT64", ["a"], "expected INT64 values"),
    ],
)
def test_a_declared_sample_of_other_values_fails_the_load(
    tmp_path: Path, loader: Loader, dtype: str, sample: Any, words: str
) -> None:
    declared = {"inputs": [{"name": "x", "dtype": dtype, "sample": sample}]}
    with pytest.raises(LoadError, match=f"sample of input 'x' of signature 'serving_default': .*{words}"):
        loader.load(request(tmp_path, signatures=[declared]), Cancellation())


def test_the_named_backend_is_used(tmp_path: Path, loader: Loader) -> None:
    loader.unload(loader.load(request(tmp_path, backend="twice_platform"), Cancellation()))
    with pytest.raises(LoadError, match="unknown backend 'onnyx'"):
        loader.load(request(tmp_path, backend="onnyx"), Cancellation())


def test_an_unloaded_servable_leaves_no_memory(tmp_path: Path, loader: Loader) -> None:
    servable = loader.load(request(tmp_path), Cancellation())
    ask(servable, np.zeros((1, 2), np.float32))
    gone = weakref.ref(servable.scheduler._model)
    assert gone() is not None
    loader.unload(servable)
    del servable
    gc.collect()
    assert gone() is None


def test_preload_asks_each_framework_and_survives_unknown_ones(loader: Loader, backend: Doubling) -> None:
    loader.preload(("nothing", "twice"))
    assert backend.asked_devices == 1


def test_inspection_opens_everything_and_leaves_nothing_open(
    tmp_path: Path, registry: Registry, backend: Doubling
) -> None:
    from inferd.server.config.schema import ServerConfig

    for path, text in {
        "good/1/model.twice": "fine",
        "good/2/model.twice": "fine",
        "broken/1/model.twice": "unforeseen",
        "empty/1/nothing": "",
        "typo/model.yaml": "instnces: 3",
        "typo/1/model.twice": "fine",
        "copying/1/model.twice.part": "",
        "label/1/model.twice": "fine",
        "label/model.yaml": "labels: {next: 4}",
        "device/1/model.twice": "no instance",
        "flat/model.twice": "fine",
        "named/v1/model.twice": "fine",
        "notes/text/readme": "",
        "many/1/model.twice": "fine",
        "many/model.yaml": "instances: {count: 3}",
        "sample/1/model.twice": "fine",
        "sample/model.yaml": "signatures: [{inputs: [{name: x, dtype: FP32, shape: [-1, 2], sample: [1, 2, 3]}]}]",
    }.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    config = ServerConfig(repository={"roots": (str(tmp_path), str(tmp_path / "absent"))})
    findings = {(f.model, f.version): f for f in inspect_repository(config, registry)}
    assert findings["good", 2].ok
    assert findings["good", 2].backend == "twice"
    assert findings["good", 2].signatures[0].name == "serving_default"
    assert ("good", 1) not in findings, "the policy does not want it"
    assert "KeyError" in findings["broken", 1].error
    assert "no model found" in findings["empty", 1].error
    assert "instances" in findings["typo", None].error
    assert "still being written" in findings["copying", 1].error
    assert "label next points to version 4" in findings["label", 4].error
    assert "absent cannot be read" in findings["", None].error
    assert "flat/1/model.twice" in findings["flat", None].error
    assert "named/v1 (with model.twice) is no version: expected a" in findings["named", None].error
    assert "notes" not in {model for model, _ in findings}
    assert findings["device", 1].error == "no such device"
    assert "sample for input 'x'" in findings["sample", 1].error
    assert backend.open_models == 0
    assert len(backend.closed) == len(backend.instances) == 3, "one on each device of good, label and many"
