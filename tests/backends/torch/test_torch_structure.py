"""Nested results: every output is the tensor that its name says, for torch.export and TorchScript."""

from __future__ import annotations

import io
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.torch_models import F, X, open_model, outputs_of, script, served, signature, spec, trace

from inferd.backends.api import BackendError, BrokenContract, InvalidInput, LoadError, TensorSpec
from inferd.wire.dtypes import DType

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.heavy
LONG, TEXT = DType.INT64, DType.STRING


# ---- torch.export


def export(version: Path, module: Any, *args: Any) -> None:
    program = torch.export.export(module.eval(), args or (torch.zeros(2, 2),))
    buffer = io.BytesIO()
    torch.export.save(program, buffer)
    (version / "model.pt2").write_bytes(buffer.getvalue())


class Result(torch.nn.Module):  # type: ignore[misc,name-defined]
    """Gives what a function makes of its input."""

    def __init__(self, make: Any) -> None:
        super().__init__()
        self.make = make
        self.register_buffer("kept", torch.full((3,), 7.0))

    def forward(self, x: torch.Tensor) -> Any:
        return self.make(self, x)


# What each function gives, and the outputs: name and value, in order.
RESULTS: dict[str, tuple[Any, dict[str, Any]]] = {
    "tensor": (lambda s, x: x + 1, {"output__0": X + 1}),
    "tuple": (lambda s, x: (x + 1, x + 2), {"output__0": X + 1, "output__1": X + 2}),
    "list": (lambda s, x: [x + 1, (x + 2, x + 3)], {"output__0": X + 1, "output__1": X + 2, "output__2": X + 3}),
    "dictionary": (lambda s, x: {"z": x + 1, "a": x + 2}, {"z": X + 1, "a": X + 2}),
    "ordered": (lambda s, x: OrderedDict(logits=x * 2, hidden=x + 1), {"logits": X * 2, "hidden": X + 1}),
    "dictionary of tuples": (
        lambda s, x: {"logits": x * 2, "hidden": (x + 1, x + 2)},
        {"output__0": X * 2, "output__1": X + 1, "output__2": X + 2},
    ),
    "tuple of dictionaries": (
        lambda s, x: (x * 2, {"a": x + 1, "b": x + 2}, x * 100),
        {"output__0": X * 2, "output__1": X + 1, "output__2": X + 2, "output__3": X * 100},
    ),
    "deep": (
        lambda s, x: {"k": [{"m": (x + 1,)}, OrderedDict(z=x + 2, a=[x + 3])]},
        {"output__0": X + 1, "output__1": X + 2, "output__2": X + 3},
    ),
    "numbers as keys": (lambda s, x: {5: x + 1, 3: x + 2}, {"output__0": X + 1, "output__1": X + 2}),
    "none": (lambda s, x: (None, x + 1, None, {"a": None, "b": x + 2}), {"output__1": X + 1, "output__4": X + 2}),
    "none under a key": (lambda s, x: {"loss": None, "logits": x + 1}, {"logits": X + 1}),
    "constants": (
        lambda s, x: (x + 1, 3, True, 0.5, x.shape[0]),
        {"output__0": X + 1, "output__1": 3, "output__2": True, "output__3": 0.5, "output__4": 2},
    ),
    "the same twice": (
        lambda s, x: [x, y := x + 1, y, x],
        {"output__0": X, "output__1": X + 1, "output__2": X + 1, "output__3": X},
    ),
    "a buffer": (lambda s, x: {"kept": s.kept, "x": x}, {"kept": np.full(3, 7, np.float32), "x": X}),
    "cannot be sent": (lambda s, x: {"c": torch.complex(x, x), "r": x + 1}, {"r": X + 1}),
}


@pytest.mark.parametrize("name", RESULTS)
def test_outputs_of_an_exported_program(version: Path, name: str) -> None:
    make, expected = RESULTS[name]
    export(version, Result(make))
    with served(version) as (model, instance):
        (found,) = model.signatures
        assert [s.name for s in found.outputs] == list(expected)
        got = outputs_of(instance, x=X)
        assert list(got) == list(expected)
        for spec_ in found.outputs:
            np.testing.assert_array_equal(got[spec_.name], expected[spec_.name])
            assert got[spec_.name].dtype == spec_.dtype.numpy
            assert got[spec_.name].ndim == len(spec_.shape or ())
            only = instance.run("serving_default", {"x": X}, [spec_.name])
            assert list(only) == [spec_.name]
            np.testing.assert_array_equal(only[spec_.name], expected[spec_.name])


def test_an_output_that_cannot_be_sent_is_left_out_with_a_note(version: Path) -> None:
    export(version, Result(RESULTS["cannot be sent"][0]))
    with served(version) as (model, _):
        assert any("left out: output 'c'" in note and "complex64" in note for note in model.traits.notes)
    with pytest.raises(LoadError, match=r"output 'c' is declared, but .*complex64"):
        open_model(version, signature([spec("x", (2, 2))], [spec("c", (2, 2))]))
    export(version, Result(lambda s, x: torch.complex(x, x)))
    with pytest.raises(LoadError, match="complex64"):
        open_model(version)


def test_numbers_are_further_names_of_keyed_outputs(version: Path) -> None:
    export(version, Result(lambda s, x: {"logits": x * 2, "output__0": x + 1, "hidden": x + 2}))
    with served(version) as (model, instance):
        (found,) = model.signatures
        assert [s.name for s in found.outputs] == ["logits", "output__0", "hidden"]
        assert found.aliases == ("output__1", "output__2")  # output__0 is the name of another output
        assert list(outputs_of(instance, x=X)) == ["logits", "output__0", "hidden"]
        got = instance.run("serving_default", {"x": X}, ["output__2", "logits", "output__0"])
        np.testing.assert_array_equal(got["output__2"], X + 2)
        np.testing.assert_array_equal(got["output__0"], X + 1)
        np.testing.assert_array_equal(got["logits"], X * 2)
        with pytest.raises(InvalidInput, match="unknown output 'output__3'"):
            instance.run("serving_default", {"x": X}, ["output__3"])
    with served(version, signature([spec("x", (2, 2))], [spec("logits", (2, 2))])) as (model, _):
        assert model.signatures[0].aliases == (), "whoever declares outputs has chosen the names"


DECLARED: list[tuple[str, list[str], dict[str, Any]]] = [
    ("tuple of dictionaries", ["1.b", "2"], {"1.b": X + 2, "2": X * 100}),
    ("tuple of dictionaries", ["OUT__3", "OUT__1"], {"OUT__3": X * 100, "OUT__1": X + 1}),
    ("tuple of dictionaries", ["1.b", "OUT__0"], {"1.b": X + 2, "OUT__0": X * 2}),
    ("dictionary of tuples", ["hidden.1", "logits"], {"hidden.1": X + 2, "logits": X * 2}),
    ("ordered", ["hidden"], {"hidden": X + 1}),
    ("ordered", ["output__1", "output__0"], {"output__1": X + 1, "output__0": X * 2}),
    ("list", ["a", "b", "c"], {"a": X + 1, "b": X + 2, "c": X + 3}),
    ("none", ["y__1"], {"y__1": X + 1}),
]


@pytest.mark.parametrize(("name", "declared", "expected"), DECLARED)
def test_declared_outputs_are_found_by_path_or_number(
    version: Path, name: str, declared: list[str], expected: dict[str, Any]
) -> None:
    export(version, Result(RESULTS[name][0]))
    outputs = [spec(output, (2, 2)) for output in declared]
    with served(version, signature([spec("x", (2, 2))], outputs)) as (_, instance):
        got = outputs_of(instance, x=X)
        assert list(got) == declared
        for output in declared:
            np.testing.assert_array_equal(got[output], expected[output])


@pytest.mark.parametrize(
    ("name", "declared", "words"),
    [
        ("ordered", ["scores"], r"'scores' is declared, but the program gives 2: logits, hidden"),
        ("ordered", ["hidden", "scores"], r"'scores' is declared, but the program gives 2: logits, hidden"),
        ("tuple of dictionaries", ["a", "b", "c", "d"], r"'a' is declared, but the program gives 4: 0, 1.a, 1.b, 2"),
        ("tuple", ["OUT__2"], r"'OUT__2' is declared as number 2, but the program gives 2"),
        ("tuple", ["a", "b", "c"], r"'c' is declared as number 2, but the program gives 2"),
        ("none", ["y__0"], r"'y__0' is declared, but output 'output__0' of the program is no tensor"),
    ],
)
def test_a_declared_output_that_is_not_there_is_refused(
    version: Path, name: str, declared: list[str], words: str
) -> None:
    export(version, Result(RESULTS[name][0]))
    with pytest.raises(LoadError, match=words):
        open_model(version, signature([spec("x", (2, 2))], [spec(output, (2, 2)) for output in declared]))


class NestedInputs(torch.nn.Module):  # type: ignore[misc,name-defined]
    def forward(self, batch: dict[str, Any], *, pair: Any, scale: int = 1) -> Any:
        first, (second, nothing) = pair
        assert nothing is None
        return {"out": batch["a"] - batch["b"][0] * 10, "rest": (first - second) * scale}


def test_nested_inputs_reach_the_right_place(version: Path) -> None:
    # Four tensors: where the same one is given twice, torch exports a program that uses one of the two inputs only.
    a, b, first, second = (torch.zeros(2, 2) for _ in range(4))
    program = torch.export.export(NestedInputs(), ({"b": [b], "a": a},), {"scale": 3, "pair": (first, (second, None))})
    torch.export.save(program, version / "model.pt2")
    with served(version) as (model, instance):
        names = [s.name for s in model.signatures[0].inputs]
        assert set(names) == {"batch_a", "batch_b_0", "pair_0", "pair_1_0"}
        given = {"batch_a": X, "batch_b_0": X + 1, "pair_0": X + 5, "pair_1_0": X}
        got = outputs_of(instance, **given)
        np.testing.assert_array_equal(got["out"], X - (X + 1) * 10)
        np.testing.assert_array_equal(got["rest"], np.full((2, 2), 15, np.float32))


# ---- TorchScript


class Deep(torch.nn.Module):  # type: ignore[misc,name-defined]
    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, tuple[int, list[torch.Tensor]]]:
        return x, (5, [x + 1, x + 2])


class ListFirst(torch.nn.Module):  # type: ignore[misc,name-defined]
    def forward(self, x: torch.Tensor) -> tuple[list[torch.Tensor], torch.Tensor]:
        return [x + 1, x + 2], x


class MixedKeys(torch.nn.Module):  # type: ignore[misc,name-defined]
    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, dict[str, torch.Tensor], torch.Tensor]:
        return x, {"a.b": x + 1, "c": x + 2}, x * 100


class DictOfTuples(torch.nn.Module):  # type: ignore[misc,name-defined]
    def forward(self, x: torch.Tensor) -> dict[str, tuple[torch.Tensor, list[torch.Tensor]]]:
        return {"k": (x + 1, [x + 2, x + 3])}


class WholeKeys(torch.nn.Module):  # type: ignore[misc,name-defined]
    def forward(self, x: torch.Tensor) -> dict[int, torch.Tensor]:
        return {7: x + 1}


class Values(torch.nn.Module):  # type: ignore[misc,name-defined]
    def forward(self, x: torch.Tensor) -> tuple[list[int], list[float], list[bool], list[str], str]:
        return [1, 2], [0.5], [True, False, True], ["a", "ü"], "w"


SCRIPTED: list[tuple[Any, list[TensorSpec], dict[str, Any]]] = [
    (Deep, [spec("0"), spec("1.0", (), LONG), spec("1.1.1")], {"0": X, "1.0": 5, "1.1.1": X + 2}),
    (Deep, [spec("y__0"), spec("y__1", (), LONG), spec("y__3")], {"y__0": X, "y__1": 5, "y__3": X + 2}),
    (Deep, [spec("a"), spec("b", (), LONG), spec("c"), spec("d")], {"a": X, "b": 5, "c": X + 1, "d": X + 2}),
    (ListFirst, [spec("1"), spec("0.1")], {"1": X, "0.1": X + 2}),
    (MixedKeys, [spec("2"), spec("1.a.b"), spec("1.c")], {"2": X * 100, "1.a.b": X + 1, "1.c": X + 2}),
    (DictOfTuples, [spec("k.1.1"), spec("k.0")], {"k.1.1": X + 3, "k.0": X + 1}),
    (WholeKeys, [spec("7")], {"7": X + 1}),
    (
        Values,
        [
            spec("i", (-1,), LONG),
            spec("f", (-1,), DType.FP64),
            spec("b", (-1,), DType.BOOL),
            spec("s", (-1,), TEXT),
            spec("w", (), TEXT),
        ],
        {"i": [1, 2], "f": [0.5], "b": [True, False, True], "s": [b"a", "ü".encode()], "w": b"w"},
    ),
]


@pytest.mark.parametrize(("module", "outputs", "expected"), SCRIPTED, ids=lambda v: getattr(v, "__name__", ""))
def test_declared_outputs_of_torchscript(
    version: Path, module: Any, outputs: list[TensorSpec], expected: dict[str, Any]
) -> None:
    script(version, module())
    with served(version, signature([spec("x")], outputs)) as (_, instance):
        got = outputs_of(instance, x=X)
        assert list(got) == [output.name for output in outputs]
        for output in outputs:
            np.testing.assert_array_equal(got[output.name], expected[output.name])
            assert got[output.name].dtype == output.dtype.numpy


@pytest.mark.parametrize(
    ("module", "outputs", "words"),
    [
        (ListFirst, [spec("a"), spec("b")], r"'a' is declared, but the method returns .*List.*path, such as '0.0'"),
        (ListFirst, [spec("y__0"), spec("y__2")], r"'y__0' is declared, but the method returns .*which does not tell"),
        (MixedKeys, [spec("a"), spec("b"), spec("c")], r"'a' is declared, but .*path, such as '1.KEY'"),
        (DictOfTuples, [spec("k")], r"'k' is declared, but .*path, such as 'KEY.1.0'|'KEY.0'"),
        (WholeKeys, [spec("seven")], r"'seven' is declared, but .*path, such as 'KEY'"),
        (
            Deep,
            [spec("0"), spec("1.0", (), DType.INT32)],
            r"'1.0' is declared as INT32, but the method gives int: INT64",
        ),
        (Deep, [spec("1.0", (-1,), LONG)], r"'1.0' is declared as \[-1\], but the method gives int: \[\]"),
    ],
    ids=lambda v: getattr(v, "__name__", ""),
)
def test_outputs_that_a_type_does_not_place_are_refused(
    version: Path, module: Any, outputs: list[TensorSpec], words: str
) -> None:
    script(version, module())
    with pytest.raises(LoadError, match=words):
        open_model(version, signature([spec("x")], outputs))


@pytest.mark.parametrize("module", [Deep, ListFirst, MixedKeys, DictOfTuples, WholeKeys])
def test_lists_and_dictionaries_have_to_be_declared(version: Path, module: Any) -> None:
    script(version, module())
    with pytest.raises(LoadError, match=r"the method returns .*: its outputs have to be named.*\n.*signatures"):
        open_model(version)


def test_values_of_python_need_no_declaration(version: Path) -> None:
    script(version, Values())
    with served(version) as (model, instance):
        assert [(s.name, s.dtype, s.shape) for s in model.signatures[0].outputs] == [
            ("output__0", LONG, (-1,)),
            ("output__1", DType.FP64, (-1,)),
            ("output__2", DType.BOOL, (-1,)),
            ("output__3", TEXT, (-1,)),
            ("output__4", TEXT, ()),
        ]
        assert outputs_of(instance, x=X)["output__3"].tolist() == [b"a", "ü".encode()]


class Words(torch.nn.Module):  # type: ignore[misc,name-defined]
    def forward(self, words: list[str], numbers: list[int], weights: list[float] | None = None) -> list[str]:
        out = [w.upper() for w in words]
        for n in numbers:
            out.append(str(n))
        if weights is not None:
            out.append(str(len(weights)))
        return out


def test_lists_of_python_values_as_inputs(version: Path) -> None:
    script(version, Words())
    words, numbers = np.array([b"ab", "ü".encode()], object), np.array([1, 2])
    given, out = spec("numbers", (-1,), LONG), spec("o", (-1,), TEXT)
    for declared in ((), (signature([spec("words", (-1,), TEXT), given], [out]),)):
        with served(version, *declared) as (model, instance):
            found = {s.name: (s.dtype, s.shape, s.optional) for s in model.signatures[0].inputs}
            assert found["words"] == (TEXT, (-1,), False)
            (got,) = outputs_of(instance, words=words, numbers=numbers).values()
            assert got.tolist() == [b"AB", "ü".encode(), b"1", b"2"]
            with pytest.raises(InvalidInput, match="UTF-8"):
                outputs_of(instance, words=np.array([b"\xff"], object), numbers=numbers)
    with pytest.raises(LoadError, match=r"'words' is declared as FP32, but the argument is List\[str\]: STRING"):
        open_model(version, signature([spec("words", (-1,)), given], [out]))
    with pytest.raises(LoadError, match=r"'words' is declared as \[-1, 2\], but the argument is List\[str\]: \[-1\]"):
        open_model(version, signature([spec("words", (-1, 2), TEXT), given], [out]))


def test_a_traced_dictionary_has_its_keys_as_names(version: Path) -> None:
    class Traced(torch.nn.Module):  # type: ignore[misc,name-defined]
        def forward(self, x: torch.Tensor) -> Any:
            return {"b": x + 1, "a": x + 2}

    module = torch.jit.trace(Traced().eval(), (torch.zeros(2, 2),), strict=False)
    torch.jit.save(module, str(version / "model.pt"))
    with served(version) as (model, instance):
        assert {s.name for s in model.signatures[0].outputs} == {"a", "b"}
        np.testing.assert_array_equal(outputs_of(instance, x=X)["a"], X + 2)


def test_a_traced_nested_tuple_is_numbered(version: Path) -> None:
    class Traced(torch.nn.Module):  # type: ignore[misc,name-defined]
        def forward(self, x: torch.Tensor) -> Any:
            return x, (x + 1, x + 2)

    trace(version, Traced(), torch.zeros(2, 2))
    with served(version) as (model, instance):
        assert [(s.name, s.dtype, s.shape) for s in model.signatures[0].outputs] == [
            (f"output__{i}", F, (-1, 2)) for i in range(3)
        ]
        np.testing.assert_array_equal(outputs_of(instance, x=X)["output__2"], X + 2)


class Strange(torch.nn.Module):  # type: ignore[misc,name-defined]
    def forward(self, x: torch.Tensor, how: int) -> tuple[torch.Tensor, torch.Tensor | None]:
        return (torch.complex(x, x) if how == 0 else x), (x if how == 2 else None)


def test_an_output_that_cannot_be_sent_breaks_the_contract_one_that_is_none_does_not(version: Path) -> None:
    script(version, Strange())
    declared = signature([spec("x"), spec("how", (), LONG)], [spec("y"), spec("z")])
    with served(version, declared) as (_, instance):
        with pytest.raises(BrokenContract, match=r"output 'y' is a .*complex64 tensor, which cannot be sent"):
            outputs_of(instance, x=X, how=np.array(0))
        with pytest.raises(BackendError, match=r"output 'z' is missing \(None\)") as failed:
            outputs_of(instance, x=X, how=np.array(1))
        assert not isinstance(failed.value, BrokenContract)
        np.testing.assert_array_equal(outputs_of(instance, x=X, how=np.array(2))["z"], X)
