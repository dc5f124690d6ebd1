"""Options of the torch backend, on the CPU; and copying ahead to a device, with a fake torch.cuda."""

from __future__ import annotations

import contextlib
import functools
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from inferd.backends.api import Ahead, Instance, InvalidInput, LoadError, Model, OpenRequest, Placement
from inferd.backends.torch import options as torch_options
from inferd.backends.torch.backend import TorchBackend
from inferd.backends.torch.device import DeviceTorchInstance, UploadedArguments, instance_type
from inferd.backends.torch.instance import TorchInstance

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.heavy
X = np.random.default_rng(0).normal(size=(2, 3, 8, 8)).astype(np.float32)
FORMATS = ("script", "export")


class Picture(torch.nn.Module):  # type: ignore[misc,name-defined]
    """A module whose outputs say in which memory layout its input was and in which type it computed."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 4, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.conv(x))


@pytest.fixture(scope="module")
def net() -> Any:
    torch.manual_seed(0)
    return Picture().eval()


def write(version: Path, net: Any, kind: str) -> None:
    example = torch.zeros(2, 3, 8, 8)
    if kind == "script":
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            torch.jit.save(torch.jit.trace(net, (example,)), str(version / "model.pt"))
    else:
        rows = torch.export.Dim("rows", min=1, max=64)
        torch.export.save(torch.export.export(net, (example,), dynamic_shapes=({0: rows},)), version / "model.pt2")


def open_model(version: Path, **options: Any) -> Model:
    backend = TorchBackend()
    artefact = backend.find(version)
    assert artefact is not None
    return backend.open(OpenRequest("m", 1, version, artefact, (), options))


@contextlib.contextmanager
def served(version: Path, **options: Any) -> Iterator[Instance]:
    model = open_model(version, **options)
    instance = model.instance(Placement())
    yield instance
    instance.close()
    model.close()


def answer(instance: Instance, x: np.ndarray[Any, Any] = X) -> np.ndarray[Any, Any]:
    (output,) = instance.run("serving_default", {"x": x}).values()
    return output


def expected(net: Any, x: np.ndarray[Any, Any] = X) -> np.ndarray[Any, Any]:
    with torch.inference_mode():
        result: np.ndarray[Any, Any] = net(torch.from_numpy(x)).numpy()
    return result


@pytest.mark.parametrize("kind", FORMATS)
def test_channels_last_changes_the_layout_and_not_the_outputs(
    version: Path, net: Any, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(version, net, kind)
    seen: list[bool] = []
    call = torch_options.TorchOptions.call

    def watched(self: Any, torch_: Any, function: Any, device: str) -> Any:
        def watch(x: Any) -> Any:
            seen.append(x.is_contiguous(memory_format=torch_.channels_last))
            return function(x)

        return call(self, torch_, watch, device)

    monkeypatch.setattr(torch_options.TorchOptions, "call", watched)
    with served(version, channels_last=True) as instance:
        got = answer(instance)
    assert seen == [True]
    assert got.flags.c_contiguous
    np.testing.assert_allclose(got, expected(net), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", FORMATS)
def test_autocast_computes_in_the_narrow_type_and_returns_the_declared_type(version: Path, net: Any, kind: str) -> None:
    write(version, net, kind)
    with served(version, autocast="bf16") as instance:
        got = answer(instance)
    exact = expected(net)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, exact, rtol=5e-2, atol=5e-2)
    assert not np.array_equal(got, exact)
    narrow = torch.from_numpy(got)
    assert torch.equal(narrow, narrow.to(torch.bfloat16).float()), "it was not computed in bfloat16"


def test_compile_goes_through_torch_compile(version: Path, net: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    write(version, net, "export")
    compiled: list[Any] = []
    # The tracer is real. Code generation, which would take a minute, is replaced.
    trace = functools.partial(torch.compile, backend="eager")

    def watched(function: Any, **how: Any) -> Any:
        compiled.append(how)
        return trace(function, **how)

    monkeypatch.setattr(torch, "compile", watched)
    with served(version, compile=True) as instance:
        np.testing.assert_allclose(answer(instance), expected(net), rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(answer(instance, X[:1]), expected(net, X[:1]), rtol=1e-4, atol=1e-5)
    assert compiled == [{"dynamic": True}]


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        ("script", {"channels_last": "yes"}, "'channels_last'.*expected true or false, got 'yes'"),
        ("script", {"autocast": "int4"}, "'autocast'.*expected one of bf16, fp16, got 'int4'"),
        ("script", {"autocast": True}, "'autocast'.*expected one of bf16, fp16, got True"),
        ("script", {"compile": True}, "'compile' is for torch.export program; model.pt is a TorchScript"),
        ("export", {"freeze": True}, "'freeze' is for TorchScript; model.pt2 is a torch.export program"),
        ("export", {"chanels_last": True}, "unknown option 'chanels_last'.*freeze, channels_last, autocast, compile"),
    ],
)
def test_wrong_options_are_refused_with_what_was_expected(
    version: Path, net: Any, kind: str, options: dict[str, Any], message: str
) -> None:
    write(version, net, kind)
    with pytest.raises(LoadError, match=message):
        open_model(version, **options)


def test_an_option_that_this_machine_does_not_support_fails_the_load(
    version: Path, net: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(version, net, "export")
    monkeypatch.setattr(torch_options.shutil, "which", lambda name: None)
    with pytest.raises(LoadError, match=r"'compile' needs a C\+\+ compiler.*no g\+\+ or clang\+\+"):
        open_model(version, compile=True).instance(Placement())
    monkeypatch.setitem(
        torch_options.AUTOCAST, "bf16", "float64"
    )  # in place of a type that the device does not support
    with pytest.raises(LoadError, match=r"'autocast: bf16'.*cannot do it on cpu"):
        open_model(version, autocast="bf16").instance(Placement())


# ---- copying ahead


class FakeStream:
    def __init__(self, log: list[str], name: str) -> None:
        self.log, self.name = log, name

    def wait_event(self, event: Any) -> None:
        self.log.append(f"{self.name} waits")

    def synchronize(self) -> None:
        self.log.append(f"{self.name} done")


class FakeEvent:
    def __init__(self, log: list[str]) -> None:
        self.log = log

    def record(self, stream: FakeStream) -> None:
        self.log.append(f"recorded on {stream.name}")

    def synchronize(self) -> None:
        self.log.append("arrived")


class TorchWithCuda:
    """torch with a fake CUDA device that records the calls and computes on the CPU."""

    def __init__(self) -> None:
        self.log: list[str] = []
        self.cuda = self
        self.pinned: list[int] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(torch, name)

    def Stream(self, device: str) -> FakeStream:
        return FakeStream(self.log, "copies")

    def Event(self) -> FakeEvent:
        return FakeEvent(self.log)

    def current_stream(self, device: str) -> FakeStream:
        return FakeStream(self.log, "compute")

    @contextlib.contextmanager
    def stream(self, stream: FakeStream) -> Iterator[None]:
        self.log.append(f"on {stream.name}")
        yield

    def empty(self, nbytes: int, *, pin_memory: bool, **how: Any) -> Any:
        assert pin_memory
        self.pinned.append(nbytes)
        return torch.empty(nbytes, **how)


def test_on_a_device_inputs_are_copied_ahead_on_a_stream_of_their_own(version: Path, net: Any) -> None:
    write(version, net, "export")
    model = open_model(version)
    assert model.traits.overlaps == 2
    assert instance_type(Placement("cuda:0")) is DeviceTorchInstance
    assert instance_type(Placement()) is TorchInstance
    fake = TorchWithCuda()
    plain = model.instance(Placement())
    instance = DeviceTorchInstance(fake, Placement(), plain._checks, plain._plans, plain._functions)
    assert isinstance(instance, Ahead)
    assert not isinstance(plain, Ahead)
    staged = instance.staging(X.nbytes)
    assert fake.pinned == [X.nbytes]
    x = staged.view(np.float32).reshape(X.shape)
    x[...] = X
    uploaded = instance.upload("serving_default", {"x": x})
    assert isinstance(uploaded, UploadedArguments)
    assert fake.log == ["on copies", "recorded on copies"]
    (got,) = instance.run("serving_default", uploaded).values()
    np.testing.assert_allclose(got, expected(net), rtol=1e-5)
    assert fake.log[2:] == ["compute waits", "arrived"], "the memory is free again only when the copy has ended"
    np.testing.assert_allclose(answer(instance), expected(net), rtol=1e-5)
    with pytest.raises(InvalidInput):
        instance.upload("serving_default", {"x": x.astype(np.float64)})
    instance.close()
    plain.close()
    model.close()
