"""Features of TorchScript only: types of arguments, names of outputs, state, in-place writes, and refused files."""

from __future__ import annotations

import pickle
import shutil
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.torch_models import F, X, open_model, outputs_of, script, served, signature, spec, trace

from inferd.backends.api import (
    BackendError,
    BrokenContract,
    IncompleteArtefact,
    InvalidInput,
    LoadError,
    OpenRequest,
    Placement,
    TensorSpec,
)
from inferd.backends.torch.backend import TorchBackend
from inferd.wire.dtypes import DType

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.heavy
LONG = DType.INT64


# ---- arguments


class Kinds(torch.nn.Module):  # type: ignore[misc,name-defined]
    def forward(self, x: torch.Tensor, n: int, f: float = 0.5, twice: bool = False, how: str = "add") -> torch.Tensor:
        y = x + n if how == "add" else x * n
        y = y + f
        return y * 2 if twice else y


def test_python_arguments_come_from_scalars_and_have_their_defaults(version: Path) -> None:
    script(version, Kinds())
    with served(version) as (model, instance):
        specs = {s.name: (s.dtype, s.shape, s.optional) for s in model.signatures[0].inputs}
        assert specs == {
            "x": (F, None, False),
            "n": (LONG, (), False),
            "f": (DType.FP64, (), True),
            "twice": (DType.BOOL, (), True),
            "how": (DType.STRING, (), True),
        }
        np.testing.assert_array_equal(outputs_of(instance, x=X, n=np.array(2))["output__0"], X + 2.5)
        word = np.array(b"mul", object)
        got = outputs_of(instance, x=X, n=np.array(2), f=np.array(1.0), twice=np.array(True), how=word)
        np.testing.assert_array_equal(got["output__0"], (X * 2 + 1) * 2)
        with pytest.raises(InvalidInput, match="UTF-8"):
            outputs_of(instance, x=X, n=np.array(2), how=np.array(b"\xff", object))


def test_declared_scalars_may_have_one_element_and_another_number_type(version: Path) -> None:
    script(version, Kinds())
    declared = signature([spec("x"), spec("n", (1,), DType.INT32), spec("twice", (), DType.BOOL)], [spec("y")])
    with served(version, declared) as (_, instance):
        got = outputs_of(instance, x=X, n=np.array([3], np.int32), twice=np.array(True))
        np.testing.assert_array_equal(got["y"], (X + 3.5) * 2)
    with pytest.raises(LoadError, match=r"'n'.*STRING.*int"):
        open_model(version, signature([spec("x"), spec("n", (), DType.STRING)], [spec("y")]))
    with pytest.raises(LoadError, match=r"'n'.*not declared"):
        open_model(version, signature([spec("x")], [spec("y")]))
    with pytest.raises(LoadError, match=r"'z' is declared.*x, n, f, twice, how"):
        open_model(version, signature([spec("x"), spec("n", ()), spec("z")], [spec("y")]))


class Pair(torch.nn.Module):  # type: ignore[misc,name-defined]
    def forward(self, a: torch.Tensor, b: torch.Tensor) -> tuple[torch.Tensor, tuple[torch.Tensor, torch.Tensor]]:
        return a - b, (a, b)


def test_numbered_names_of_triton_refer_to_arguments_and_outputs(version: Path) -> None:
    script(version, Pair())
    declared = signature([spec("IN__1"), spec("IN__0")], [spec("OUT__2"), spec("OUT__0")])
    with served(version, declared) as (_, instance):
        got = outputs_of(instance, IN__0=X, IN__1=2 * X)
        np.testing.assert_array_equal(got["OUT__0"], -X)
        np.testing.assert_array_equal(got["OUT__2"], 2 * X)
    with pytest.raises(LoadError, match=r"number 7.*gives 3"):
        open_model(version, signature([spec("a"), spec("b")], [spec("OUT__7")]))


def test_unknown_names_are_assigned_in_order(version: Path) -> None:
    """As in Triton, whose configurations may use any names for tensors."""
    script(version, Pair())
    with served(version, signature([spec("left"), spec("right")], [spec("diff")])) as (model, instance):
        np.testing.assert_array_equal(outputs_of(instance, right=X, left=3 * X)["diff"], 2 * X)
        assert any("'left' is 'a', 'right' is 'b'" in note for note in model.traits.notes)
    for names in (["left", "a"], ["b", "right"], ["one", "two", "three"]):
        with pytest.raises(LoadError, match="is declared, but the arguments are a, b"):
            open_model(version, signature([spec(name) for name in names], [spec("diff")]))


def test_a_declaration_cannot_make_an_argument_optional(version: Path) -> None:
    script(version, Pair())
    may_lack = TensorSpec("b", F, None, optional=True)
    with served(version, signature([spec("a"), may_lack], [spec("diff")])) as (model, instance):
        assert not any(s.optional for s in model.signatures[0].inputs)
        with pytest.raises(InvalidInput, match="missing input 'b'"):
            outputs_of(instance, a=X)


def test_outputs_that_return_an_input_are_copies(version: Path) -> None:
    script(version, Pair())
    with served(version) as (_, instance):
        a, b = X.copy(), X.copy()
        got = outputs_of(instance, a=a, b=b)
        a[:] = 9
        np.testing.assert_array_equal(got["output__1"], X)


class Keyed(torch.nn.Module):  # type: ignore[misc,name-defined]
    def forward(self, parts: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return {"sum": parts["a"] + parts["b"], "a": parts["a"]}


def test_dictionaries_of_tensors_use_the_declared_names(version: Path) -> None:
    script(version, Keyed())
    with pytest.raises(LoadError, match=r"model\.yaml.*\nsignatures:\n"):
        open_model(version)
    with served(version, signature([spec("a"), spec("b")], [spec("sum")])) as (_, instance):
        np.testing.assert_array_equal(outputs_of(instance, a=X, b=X)["sum"], 2 * X)
    misnamed = signature([spec("a"), spec("b")], [spec("total")])
    with served(version, misnamed) as (_, other), pytest.raises(BrokenContract, match=r"no output 'total'.*sum, a"):
        outputs_of(other, a=X, b=X)


class Listed(torch.nn.Module):  # type: ignore[misc,name-defined]
    def forward(self, parts: list[torch.Tensor]) -> list[torch.Tensor]:
        return [parts[0] + parts[1], parts[0]]


def test_lists_of_tensors_are_filled_in_the_declared_order(version: Path) -> None:
    script(version, Listed())
    with served(version, signature([spec("b"), spec("a")], [spec("sum"), spec("first")])) as (_, instance):
        got = outputs_of(instance, a=X, b=3 * X)
        np.testing.assert_array_equal(got["sum"], 4 * X)
        np.testing.assert_array_equal(got["first"], 3 * X)


def test_an_output_of_another_type_than_declared_is_an_error(version: Path) -> None:
    script(version, Pair())
    wrong = signature([spec("a"), spec("b")], [spec("y", dtype=LONG)])
    message = r"'y' is declared as INT64.*float32"
    with served(version, wrong) as (_, instance), pytest.raises(BackendError, match=message):
        outputs_of(instance, a=X, b=X)


# ---- traced modules


class Embedding(torch.nn.Module):  # type: ignore[misc,name-defined]
    def __init__(self) -> None:
        super().__init__()
        self.table = torch.nn.Embedding(10, 4)

    def forward(self, tokens: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return (self.table(tokens) * mask.unsqueeze(-1)).mean(1), tokens.sum(1)


def test_a_traced_module_needs_no_declaration(version: Path) -> None:
    trace(version, Embedding(), torch.zeros(1, 5, dtype=torch.int64), torch.ones(1, 5))
    with served(version) as (model, instance):
        (found,) = model.signatures
        assert [(s.name, s.dtype, s.shape) for s in found.inputs] == [("tokens", LONG, (-1, 5)), ("mask", F, (-1, 5))]
        assert [(s.name, s.dtype, s.shape) for s in found.outputs] == [
            ("output__0", F, (-1, 4)),
            ("output__1", LONG, (-1,)),
        ]
        tokens = np.arange(10).reshape(2, 5)
        got = outputs_of(instance, tokens=tokens, mask=np.ones((2, 5), np.float32))
        np.testing.assert_array_equal(got["output__1"], tokens.sum(1))


# ---- state and writes


class Counter(torch.nn.Module):  # type: ignore[misc,name-defined]
    def __init__(self) -> None:
        super().__init__()
        self.count = 0
        self.register_buffer("total", torch.zeros(1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.count += 1
        return x + self.count

    @torch.jit.export
    def add(self, x: torch.Tensor) -> torch.Tensor:
        self.total.add_(x.sum())
        return self.total

    @torch.jit.export
    def pure(self, x: torch.Tensor) -> torch.Tensor:
        y = x * 2
        y += 1
        return y

    @torch.jit.export
    def clobber(self, x: torch.Tensor) -> torch.Tensor:
        return x.view(-1).mul_(2)


@pytest.mark.parametrize(
    ("method", "stateful", "writes"),
    [("serving_default", True, False), ("add", True, False), ("pure", False, False), ("clobber", False, True)],
)
def test_state_and_writes_are_found_in_the_graph(version: Path, method: str, stateful: bool, writes: bool) -> None:
    script(version, Counter())
    model = open_model(version, signature([spec("x")], [spec("y", None)], method))
    assert (model.traits.stateful, model.traits.may_write_inputs) == (stateful, writes)
    assert model.traits.concurrent is not stateful
    model.close()


class Normalised(torch.nn.Module):  # type: ignore[misc,name-defined]
    def __init__(self) -> None:
        super().__init__()
        self.norm = torch.nn.BatchNorm1d(2)
        self.seen = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.training:
            self.seen += 1
            x.add_(1)
        return self.norm(x)

    @torch.jit.export
    def other(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(x) * 2

    @torch.jit.export
    def counts(self, x: torch.Tensor) -> torch.Tensor:
        self.seen += 1
        return self.norm(x) + self.seen


def test_what_happens_in_training_only_is_no_state(version: Path) -> None:
    script(version, Normalised())
    with served(version) as (model, instance):
        assert (model.traits.stateful, model.traits.may_write_inputs, model.traits.concurrent) == (False, False, True)
        np.testing.assert_allclose(outputs_of(instance, x=X)["output__0"], X, rtol=1e-4)
    both = [signature([spec("x")], [spec("y")], name) for name in ("serving_default", "other")]
    with served(version, *both) as (model, instance):
        assert not model.traits.stateful
        np.testing.assert_allclose(instance.run("other", {"x": X})["y"], 2 * X, rtol=1e-4)
    with served(version, signature([spec("x")], [spec("y")], "counts")) as (model, _):
        assert model.traits.stateful


def test_each_instance_has_its_own_state_and_outputs_belong_to_the_caller(version: Path) -> None:
    script(version, Counter())
    with served(version, signature([spec("x")], [spec("y", None)], "add")) as (model, first):
        one = first.run("add", {"x": np.ones((1, 2), np.float32)})["y"]
        two = first.run("add", {"x": np.ones((1, 2), np.float32)})["y"]
        other = model.instance(Placement())
        assert (one.item(), two.item()) == (2, 4)
        assert other.run("add", {"x": np.ones((1, 2), np.float32)})["y"].item() == 2
        other.close()


def test_an_unknown_method_is_refused_with_the_known_ones(version: Path) -> None:
    script(version, Counter())
    with pytest.raises(LoadError, match=r"'nope'.*add, clobber, pure, serving_default"):
        open_model(version, signature([spec("x")], [spec("y")], "nope"))


def test_a_module_in_training_mode_is_evaluated_with_a_note(version: Path) -> None:
    class Noisy(torch.nn.Module):  # type: ignore[misc,name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.drop = torch.nn.Dropout(0.9)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.drop(x)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.save(torch.jit.script(Noisy()), str(version / "model.pt"))
    with served(version) as (model, instance):
        assert any("training mode" in note for note in model.traits.notes)
        np.testing.assert_array_equal(outputs_of(instance, x=X)["output__0"], X)


# ---- errors


class Failing(torch.nn.Module):  # type: ignore[misc,name-defined]
    def forward(self, x: torch.Tensor, how: int) -> torch.Tensor:
        if how == 0:
            raise RuntimeError("the shapes must match")
        if how == 1:
            raise IndexError("expected 3, got 4")
        if how == 2:
            assert x.size(0) > 5, "size mismatch"
        if how == 3:
            return x @ torch.zeros(7, 3)
        if how == 4:
            return x.reshape(7)
        if how == 5:
            return torch.zeros(2)[int(x.sum().item()) + 50]
        if how == 6:
            return torch.zeros(1 << 50)
        if how == 7:
            return x * (1 // int(x.sum().item() * 0))
        if how == 8:
            return torch.nn.functional.embedding(x.long() + 100, torch.zeros(10, 2))
        return x + torch.zeros(2, dtype=torch.long).to("meta").cpu()


@pytest.mark.parametrize("how", range(10))
def test_what_fails_inside_a_model_is_not_the_callers_fault(version: Path, how: int) -> None:
    """Whatever the words: the inputs fit the signature."""
    script(version, Failing())
    declared = signature([spec("x"), spec("how", (), LONG)], [spec("y", None)])
    with served(version, declared) as (_, instance), pytest.raises(BackendError) as failed:
        outputs_of(instance, x=X, how=np.array(how))
    assert not isinstance(failed.value, InvalidInput)
    assert "failing" not in str(failed.value).lower()


def test_what_the_model_raises_itself_is_not_the_callers_fault(version: Path) -> None:
    """Also where the signature leaves sizes open, and the words are those of a wrong size."""
    script(version, Failing())
    declared = signature([spec("x", None), spec("how", (), LONG)], [spec("y", None)])
    with served(version, declared) as (_, instance):
        for how, words in ((0, "the shapes must match"), (1, "expected 3, got 4")):
            with pytest.raises(BackendError, match=f"failed: {words}$") as failed:
                outputs_of(instance, x=X, how=np.array(how))
            assert not isinstance(failed.value, InvalidInput)
        with pytest.raises(BackendError, match="out of memory on cpu"):
            outputs_of(instance, x=X, how=np.array(6))
        with pytest.raises(InvalidInput, match=r"refused its inputs: .*cannot be multiplied"):
            outputs_of(instance, x=X, how=np.array(3))


class Refusing(torch.nn.Module):  # type: ignore[misc,name-defined]
    def forward(self, x: torch.Tensor, rate: int) -> torch.Tensor:
        if rate not in [8000, 16000]:
            raise ValueError("supported rates: 8000, 16000")
        return x


def test_a_model_refuses_its_inputs_by_raising_value_error(version: Path) -> None:
    script(version, Refusing())
    declared = signature([spec("x"), spec("rate", (), LONG)], [spec("y")])
    with served(version, declared) as (_, instance):
        with pytest.raises(InvalidInput, match=r"refused its inputs: supported rates: 8000, 16000$"):
            outputs_of(instance, x=X, rate=np.array(1))
        assert outputs_of(instance, x=X, rate=np.array(8000))["y"].tolist() == X.tolist()


class Unservable(torch.nn.Module):  # type: ignore[misc,name-defined]
    def forward(self, x: torch.Tensor, how: int) -> torch.Tensor:
        if how == 0:
            return x + torch.zeros(2, device="cuda:0").cpu()
        if how == 1:
            return torch.mm(x > 0, x > 0).float()
        return x.double()


@pytest.mark.parametrize(("how", "words"), [(0, "CUDA"), (1, "not implemented for 'Bool'"), (2, "gives float64")])
def test_a_model_that_can_answer_no_request_says_so(version: Path, how: int, words: str) -> None:
    script(version, Unservable())
    declared = signature([spec("x", (2, 2)), spec("how", (), LONG)], [spec("y", (2, 2))])
    with served(version, declared) as (_, instance), pytest.raises(BrokenContract, match=words):
        outputs_of(instance, x=X, how=np.array(how))


def test_a_wrong_size_without_declared_shapes_is_invalid_input(version: Path) -> None:
    script(version, torch.nn.Linear(2, 3))
    with served(version) as (model, instance):
        (name,) = [s.name for s in model.signatures[0].inputs]
        with pytest.raises(InvalidInput, match="cannot be multiplied") as refused:
            instance.run("serving_default", {name: np.zeros((1, 5), np.float32)})
        assert "linear.py" not in str(refused.value)


def test_a_closed_instance_says_so(version: Path) -> None:
    script(version, torch.nn.Identity())
    model = open_model(version)
    instance = model.instance(Placement())
    instance.close()
    with pytest.raises(BackendError, match="closed"):
        instance.run("serving_default", {model.signatures[0].inputs[0].name: X})


# ---- files


def test_pickles_are_refused_and_never_loaded(version: Path, tmp_path: Path) -> None:
    ran = tmp_path / "ran"

    class Bomb:
        def __reduce__(self) -> Any:
            return (Path.touch, (ran,))

    backend = TorchBackend()
    for name in ("model.pt", "model.pth", "model.pt2"):
        for write in (
            lambda path: path.write_bytes(pickle.dumps(Bomb())),
            lambda path: torch.save({"w": torch.zeros(1), "bomb": Bomb()}, path),
        ):
            write(version / name)
            with pytest.raises(LoadError, match=r"never loaded.*torch\.jit\.save"):
                backend.find(version)
            (version / name).unlink()
    assert not ran.exists()


def test_torchscript_under_another_name_is_refused_with_the_right_name(version: Path) -> None:
    script(version, torch.nn.Identity())
    (version / "model.pt").rename(version / "model.pth")
    with pytest.raises(LoadError, match=r"model\.pth is a TorchScript: name it model\.pt"):
        TorchBackend().find(version)


def test_two_artefacts_and_truncated_files_are_reported(version: Path) -> None:
    backend = TorchBackend()
    script(version, torch.nn.Linear(2, 2))
    shutil.copyfile(version / "model.pt", version / "model.pt2")
    with pytest.raises(LoadError, match="two torch models"):
        backend.find(version)
    (version / "model.pt2").unlink()
    whole = (version / "model.pt").read_bytes()
    for keep in (0, 3, 100, len(whole) - 1):
        (version / "model.pt").write_bytes(whole[:keep])
        artefact = backend.find(version)
        assert artefact is not None
        assert backend.complete(artefact)
        with pytest.raises(IncompleteArtefact):
            backend.open(OpenRequest("m", 1, version, artefact))
    assert backend.complete(version / "gone.pt") == "gone.pt is missing"


def test_freezing_does_not_change_the_outputs(version: Path) -> None:
    script(version, torch.nn.Linear(2, 3))
    with served(version) as (_, plain), served(version, freeze=True) as (_, frozen):
        np.testing.assert_allclose(
            outputs_of(plain, input=X)["output__0"], outputs_of(frozen, input=X)["output__0"], rtol=1e-6
        )
