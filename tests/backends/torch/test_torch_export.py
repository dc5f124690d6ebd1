"""Features of exported programs only: complete signatures, state in buffers, AOTInductor packages."""

from __future__ import annotations

import io
import shutil
import threading
import warnings
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.torch_models import F, X, open_model, outputs_of, served, signature, spec

from inferd.backends.api import (
    InvalidInput,
    LoadError,
    OpenRequest,
    Placement,
)
from inferd.backends.torch.backend import TorchBackend
from inferd.wire.dtypes import DType

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.heavy
LONG = DType.INT64


class Net(torch.nn.Module):  # type: ignore[misc,name-defined]
    def __init__(self) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(2, 3)

    def forward(self, x: torch.Tensor, extra: dict[str, torch.Tensor], scale: int = 2) -> dict[str, torch.Tensor]:
        return {"y": self.linear(x) * scale, "z": extra["a"] + extra["b"]}


def export(version: Path, module: Any, args: tuple[Any, ...], shapes: Any, **kwargs: Any) -> None:
    program = torch.export.export(module.eval(), args, dynamic_shapes=shapes, **kwargs)
    torch.export.save(program, version / "model.pt2")


def test_an_exported_program_describes_its_signature(version: Path) -> None:
    batch = torch.export.Dim("batch", min=1, max=7)
    net = Net()
    extra = {"a": torch.zeros(2, 2), "b": torch.zeros(2, 2)}
    export(
        version,
        net,
        (torch.zeros(2, 2), extra, 5),
        {"x": {0: batch}, "extra": {"a": {0: batch}, "b": {0: batch}}, "scale": None},
    )
    with served(version) as (model, instance):
        (found,) = model.signatures
        assert [(s.name, s.dtype, s.shape) for s in found.inputs] == [
            ("x", F, (-1, 2)),
            ("extra_a", F, (-1, 2)),
            ("extra_b", F, (-1, 2)),
        ]
        assert [(s.name, s.dtype, s.shape) for s in found.outputs] == [("y", F, (-1, 3)), ("z", F, (-1, 2))]
        assert model.traits.max_batch == 7
        assert not model.traits.stateful
        assert not model.traits.may_write_inputs
        got = outputs_of(instance, x=X, extra_a=X, extra_b=X)
        with torch.no_grad():
            want = (net.linear(torch.from_numpy(X)) * 5).numpy()
        np.testing.assert_allclose(got["y"], want, rtol=1e-5)
        np.testing.assert_array_equal(got["z"], 2 * X)
        too_many = np.zeros((8, 2), np.float32)
        with pytest.raises(InvalidInput, match="refused"):
            outputs_of(instance, x=too_many, extra_a=too_many, extra_b=too_many)
        with pytest.raises(InvalidInput):
            outputs_of(instance, x=X, extra_a=X[:1], extra_b=X)


def test_failing_calls_of_a_program_print_nothing(version: Path, capfd: pytest.CaptureFixture[str]) -> None:
    export(version, torch.nn.Linear(2, 3), (torch.zeros(2, 2),), ({0: torch.export.Dim("n", min=1, max=4)},))
    with served(version) as (_, instance):
        capfd.readouterr()
        with pytest.raises(InvalidInput):
            outputs_of(instance, input=np.zeros((5, 2), np.float32))
        assert capfd.readouterr() == ("", "")


def test_a_declaration_that_differs_from_the_program_is_refused(version: Path) -> None:
    export(version, torch.nn.Linear(2, 3), (torch.zeros(2, 2),), ({0: torch.export.Dim("n", min=1)},))
    good = signature([spec("input")], [spec("y", (-1, 3))])
    with served(version, good) as (model, instance):
        assert model.traits.max_batch is None
        assert outputs_of(instance, input=X)["y"].shape == (2, 3)
    with pytest.raises(LoadError, match=r"'input' is declared as \[-1, 4\].*\[-1, 2\]"):
        open_model(version, signature([spec("input", (-1, 4))], [spec("y", (-1, 3))]))
    with pytest.raises(LoadError, match=r"'y' is declared as INT64.*FP32"):
        open_model(version, signature([spec("input")], [spec("y", (-1, 3), LONG)]))
    with pytest.raises(LoadError, match="'input' of the program is not declared"):
        open_model(version, signature([spec("other")], [spec("y", (-1, 3))]))


def test_a_program_that_mutates_a_buffer_is_stateful(version: Path) -> None:
    class Sums(torch.nn.Module):  # type: ignore[misc,name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("total", torch.zeros(2))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.total.add_(x)
            return self.total + 0

    export(version, Sums(), (torch.zeros(2),), None)
    with served(version) as (model, first):
        assert model.traits.stateful
        one = np.ones(2, np.float32)
        assert [outputs_of(first, x=one)["output__0"].tolist() for _ in range(2)] == [[1, 1], [2, 2]]
        other = model.instance(Placement())
        assert outputs_of(other, x=one)["output__0"].tolist() == [1, 1]
        other.close()


def test_pickles_inside_an_exported_program_are_refused(version: Path, tmp_path: Path) -> None:
    ran = tmp_path / "ran"

    class Bomb:
        def __reduce__(self) -> Any:
            return (Path.touch, (ran,))

    export(version, torch.nn.Linear(2, 3), (torch.zeros(2, 2),), None)
    with zipfile.ZipFile(version / "model.pt2") as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    samples = next(name for name in entries if "sample_inputs" in name)
    bomb = io.BytesIO()
    torch.save(((Bomb(),), {}), bomb)
    with zipfile.ZipFile(version / "model.pt2", "w") as archive:
        for name, data in entries.items():
            archive.writestr(name, bomb.getvalue() if name == samples else data)
    with pytest.raises(LoadError, match="unpickling"):
        open_model(version)
    config = next(name for name in entries if name.endswith("weights_config.json"))
    with zipfile.ZipFile(version / "model.pt2", "w") as archive:
        for name, data in entries.items():
            archive.writestr(
                name, data.replace(b'"use_pickle": false', b'"use_pickle": true') if name == config else data
            )
    with pytest.raises(LoadError, match="pickled tensors"):
        open_model(version)
    assert not ran.exists()


# ---- AOTInductor


@pytest.mark.skipif(shutil.which("g++") is None, reason="compiling an AOTInductor package needs a C++ compiler")
@pytest.mark.timeout(600)  # g++ reads all headers of torch: 20 s of processor time
def test_an_aotinductor_package_is_recognised_and_runs(version: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(version.parent / "inductor"))
    module = torch.nn.Linear(2, 3).eval()
    program = torch.export.export(
        module, (torch.zeros(2, 2),), dynamic_shapes=({0: torch.export.Dim("n", min=1, max=64)},)
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch._inductor.aoti_compile_and_package(program, package_path=str(version / "model.pt2"))
    for allow in ((), ("custom_ops", "python")):
        with pytest.raises(LoadError, match=r"AOTInductor.*would run in the server.*repository\.allow.*names aoti"):
            open_model(version, allow=allow)
    with pytest.raises(LoadError, match=r"(?s)AOTInductor.*model\.yaml.*input__0"):
        open_model(version, allow=("aoti",))
    declared = signature([spec("x")], [spec("y", (-1, 3))])
    with served(version, declared, allow=("aoti",)) as (model, instance):
        (version / "model.pt2").write_bytes(b"gone")
        assert any("cpu" in note for note in model.traits.notes)
        with torch.no_grad():
            want = module(torch.from_numpy(X)).numpy()
        np.testing.assert_allclose(outputs_of(instance, x=X)["y"], want, rtol=1e-5)
        with pytest.raises(LoadError, match="cuda"):
            model.instance(Placement("cuda:0"))


def test_several_programs_are_opened_at_the_same_time(version: Path) -> None:
    """torch.export.load fails when two threads are in it."""
    export(version, torch.nn.Linear(2, 3), (torch.zeros(2, 2),), ({0: torch.export.Dim("n", min=1)},))
    backend, at_once = TorchBackend(), threading.Barrier(8)

    def load(_: int) -> Any:
        at_once.wait(30)
        return backend.open(OpenRequest("m", 1, version, version / "model.pt2"))

    with ThreadPoolExecutor(8) as threads:
        for model in threads.map(load, range(8)):
            model.close()
