"""`steps.py` around a model: what is passed on, what is refused, and what a version's code can see."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.backends import ONE_ROW, expected_linear, load_module

from inferd.backends.api import (
    BackendError,
    BrokenContract,
    Instance,
    InvalidInput,
    LoadError,
    Model,
    OpenRequest,
    Placement,
    Signature,
    TensorSpec,
)
from inferd.backends.functions.steps import open_with_steps
from inferd.wire.dtypes import DType

pytest.importorskip("onnxruntime")
ONNX = load_module("case_onnx").CASES[0]
TEXT = TensorSpec("text", DType.STRING, (-1,))
NAME = TensorSpec("name", DType.STRING, (-1,))
BEFORE = "import numpy as np\ndef before(text):\n    return {'x': np.array([t.split() for t in text], np.float32)}\n"
AFTER = "def after(y):\n    return {'name': ['row of %d' % len(row) for row in y]}\n"
WHOLE = Signature("serving_default", (TEXT,), (NAME,))


def texts(*words: str) -> dict[str, Any]:
    return {"text": np.array([word.encode() for word in words], object)}


@contextmanager
def stepped(directory: Path, code: str, *signatures: Signature, **request: Any) -> Iterator[tuple[Model, Instance]]:
    """The linear model (x FP32 [-1, 4], y FP32 [-1, 3]) in ONNX, with these steps around it."""
    directory.mkdir(parents=True, exist_ok=True)
    ONNX.write("linear", directory)
    (directory / "steps.py").write_text(code)
    backend = ONNX.backend()
    opening = OpenRequest("m", 1, directory, directory / "model.onnx", signatures, allow=frozenset({"python"}))
    model = open_with_steps(backend, replace(opening, steps=directory / "steps.py", **request))
    with closing(model), closing(model.instance(Placement())) as instance:
        yield model, instance


def refusal(directory: Path, code: str, *signatures: Signature, **request: Any) -> str:
    before = set(sys.modules), sorted(os.listdir(os.environ.get("TMPDIR", "/tmp")))
    with pytest.raises(LoadError) as refused, stepped(directory, code, *signatures, **request):
        pass
    assert not {name for name in set(sys.modules) - before[0] if name.startswith("inferd_steps")}
    assert "Traceback" not in str(refused.value)
    return str(refused.value)


def test_both_steps_change_what_clients_see(version: Path) -> None:
    with stepped(version, BEFORE + AFTER, WHOLE) as (model, instance):
        assert model.signatures == (WHOLE,)
        assert instance.run("serving_default", texts("1 2 3 4", "5 6 7 8"))["name"].tolist() == [b"row of 3"] * 2
        assert not model.traits.repeatable
        assert not model.traits.bounded
        assert model.traits.notes == ("runs Python code: steps.py",)
        assert str(model.independence(WHOLE)) == "Python code (steps.py) is not analysed"


def test_a_step_that_is_not_there_passes_the_arrays_on(version: Path) -> None:
    with stepped(version, AFTER, Signature("serving_default", (), (NAME,))) as (model, instance):
        assert [spec.name for spec in model.signatures[0].inputs] == ["x"]
        assert instance.run("serving_default", {"x": ONE_ROW})["name"].tolist() == [b"row of 3"]
    with stepped(version, BEFORE, Signature("serving_default", (TEXT,), ())) as (model, instance):
        assert model.signatures[0].outputs == ONNX_Y
        y = instance.run("serving_default", texts("1 -2 0.5 3"))["y"]
        np.testing.assert_allclose(y, expected_linear(ONE_ROW), rtol=1e-6)


ONNX_Y = (TensorSpec("y", DType.FP32, (-1, 3)),)


def test_after_may_take_what_before_returned_and_the_request(version: Path) -> None:
    code = BEFORE.replace("np.float32)}", "np.float32), 'count': len(text)}") + (
        "def after(y, count, text, x, unknown='-'):\n"
        "    return {'name': [f'{count} {t.decode()} {len(row)} {unknown}' for t, row in zip(text, x)]}\n"
    )
    with stepped(version, code, WHOLE) as (_, instance):
        assert instance.run("serving_default", texts("1 2 3 4"))["name"].tolist() == [b"1 1 2 3 4 4 -"]


def test_a_value_error_is_the_callers_all_else_is_the_models(version: Path) -> None:
    with stepped(version, BEFORE + AFTER, WHOLE) as (_, instance):
        with pytest.raises(InvalidInput, match="could not convert string to float"):
            instance.run("serving_default", texts("1 2 three 4"))
        with pytest.raises(BackendError, match=r"steps.py: before: 'x': expected shape \[-1, 4\], got \[1, 3\]") as bad:
            instance.run("serving_default", texts("1 2 3"))
        assert not isinstance(bad.value, InvalidInput), "the caller does not know of x"
        with pytest.raises(InvalidInput, match="missing input 'text'"):
            instance.run("serving_default", {})


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (BEFORE.replace("np.float32", "np.float64") + AFTER, r"before: 'x': expected FP32, got FP64; convert it"),
        (BEFORE.replace("'x'", "'xx'") + AFTER, r"before returned no 'x', only xx"),
        (BEFORE.replace("np.float32)}", "np.float32), 'typo': 1}") + AFTER, r"returned 'typo'; the model takes x"),
        (BEFORE + "def after(y): return {'nmae': []}", r"after returned no 'name', only nmae"),
        (BEFORE + "def after(y): return {'name': [1]}", r"after: 'name': expected texts .bytes or str., got int"),
        (BEFORE + "def after(y, count): return {'name': []}", r"after takes 'count', but steps.py: before gave none"),
    ],
)
def test_what_steps_return_is_checked(version: Path, code: str, reason: str) -> None:
    with stepped(version, code, WHOLE) as (_, instance), pytest.raises(BrokenContract, match=reason):
        instance.run("serving_default", texts("1 2 3 4"))


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("x = 1\n", "steps.py has neither a function before nor a function after"),
        ("def before(image): return {}\n", "before takes 'image', but the declared inputs are text"),
        ("def before(): return {}\n", "before takes nothing, but the declared inputs are text: add 'text'"),
        ("def before(text, /): return {}\n", "expected arguments by name, got the positional 'text'"),
        ("async def before(text): return {}\n", "expected a plain function, got one with async or yield"),
        ("before = 3\n", "expected a function before, got int"),
        ("def after(z): return {}\n", "after takes 'z', but the model's outputs are y"),
        ("def after(x): return {}\n", "after takes none of the model's outputs, which are y"),
        (BEFORE + "IDEMPOTENT = 'yes'\n", "expected IDEMPOTENT = True or False, got 'yes'"),
        ("def before(text) return 1\n", "steps.py, line 1: expected ':'"),
        ("1 / 0\n", r"steps.py: ZeroDivisionError: division by zero (line 1)"),
        ("import sys\nsys.exit(3)\n", "steps.py: SystemExit: 3 (line 2)"),
        ("import absent_package\n", f"there is no module 'absent_package' in {sys.executable}: install it there"),
        (BEFORE + "def load(directory): open(directory / 'no')\n", "steps.py: load failed: FileNotFoundError"),
        ("", "steps.py is empty"),
        ("\0", "steps.py: source code string cannot contain null bytes"),
    ],
)
def test_code_that_cannot_serve_is_refused(version: Path, code: str, reason: str) -> None:
    inputs = WHOLE.inputs if "before" in code else ()
    whole = replace(WHOLE, inputs=inputs, outputs=WHOLE.outputs if "after" in code else ())
    assert reason in refusal(version, code, whole)


def test_what_a_step_takes_or_gives_must_be_declared(version: Path) -> None:
    assert "steps.py has before, so model.yaml must declare the inputs of the whole" in refusal(version, BEFORE)
    only_inputs = Signature("serving_default", (TEXT,), ())
    assert "has after, so model.yaml must declare the outputs" in refusal(version, BEFORE + AFTER, only_inputs)
    assert "expected one declared signature, got 2" in refusal(
        version, BEFORE, replace(WHOLE, outputs=()), replace(WHOLE, name="other")
    )
    wrong = Signature("serving_default", (), (TensorSpec("z", DType.FP32, None),))
    assert "declared output 'z' is not in the model; it has y" in refusal(
        version, BEFORE, replace(wrong, inputs=(TEXT,))
    )


def test_code_that_is_not_allowed_is_not_executed(version: Path, tmp_path: Path) -> None:
    trace = tmp_path / "it-ran"
    text = refusal(version, f"open({str(trace)!r}, 'w')\n" + BEFORE, WHOLE, allow=frozenset({"aoti"}))
    assert text.startswith("steps.py is Python code, which is run only where repository.allow")
    assert not trace.exists()


def test_code_sees_a_copy_of_its_version_that_outlives_the_files(version: Path) -> None:
    version.mkdir(parents=True, exist_ok=True)
    (version / "names").mkdir()
    (version / "names" / "one.txt").write_text("one")
    (version / ".inferd").mkdir()
    code = (
        "from pathlib import Path\n"
        "def load(directory):\n"
        "    global SEEN\n"
        "    SEEN = sorted(str(p.relative_to(directory)) for p in directory.rglob('*'))\n"
        "def after(y):\n"
        "    return {'name': [(Path(__file__).parent / 'names' / 'one.txt').read_text(), *SEEN]}\n"
    )
    with stepped(version, code, Signature("serving_default", (), (NAME,))) as (_, instance):
        (version / "names" / "one.txt").write_text("another")
        found = instance.run("serving_default", {"x": ONE_ROW})["name"].tolist()
    assert found == [b"one", b"names", b"names/one.txt", b"steps.py"], "the artefact itself is not copied"


def test_each_instance_has_variables_of_its_own_and_the_file_runs_once_for_each(version: Path, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    code = (
        f"with open({str(trace)!r}, 'a') as file: file.write('x')\n"
        "count = 0\n"
        "def after(y):\n"
        "    global count\n"
        "    count += 1\n"
        "    return {'name': [str(count)]}\n"
    )
    with stepped(version, code, Signature("serving_default", (), (NAME,))) as (model, one):
        with closing(model.instance(Placement())) as other:
            counts = [i.run("serving_default", {"x": ONE_ROW})["name"][0] for i in (one, one, other, one)]
        assert counts == [b"1", b"2", b"1", b"3"]
        assert trace.read_text() == "xx"
        directory = Path(one._source.directory)
        assert directory.exists()
    assert not directory.exists()
    assert not [name for name in sys.modules if name.startswith("inferd_steps")]


def test_ordinary_code_works(version: Path) -> None:
    """Dataclasses and pickles look their module up by its name."""
    code = (
        "from __future__ import annotations\n"
        "import pickle\n"
        "from dataclasses import dataclass\n"
        "@dataclass\n"
        "class Row:\n"
        "    values: list[float]\n"
        "def after(y):\n"
        "    rows = pickle.loads(pickle.dumps([Row(r.tolist()) for r in y]))\n"
        "    return {'name': [str(len(row.values)) for row in rows]}\n"
        "IDEMPOTENT = True\n"
    )
    with stepped(version, code, Signature("serving_default", (), (NAME,))) as (model, instance):
        assert model.traits.repeatable
        assert instance.run("serving_default", {"x": ONE_ROW})["name"].tolist() == [b"3"]


def test_modules_beside_the_code_need_a_process_of_its_own(version: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    version.mkdir(parents=True, exist_ok=True)
    (version / "helper_beside.py").write_text("NAME = 'helped'\n")
    code = "from helper_beside import NAME\ndef after(y):\n    return {'name': [NAME]}\n"
    whole = Signature("serving_default", (), (NAME,))
    assert "imports 'helper_beside', which lies beside it" in refusal(version, code, whole)
    monkeypatch.setattr(sys, "path", list(sys.path))
    with stepped(version, code, whole, isolated=True) as (_, instance):
        assert instance.run("serving_default", {"x": ONE_ROW})["name"].tolist() == [b"helped"]
    sys.modules.pop("helper_beside")


def test_arrays_that_code_keeps_are_not_what_callers_get(version: Path) -> None:
    code = (
        "import numpy as np\n"
        "kept = np.zeros((1, 3), np.float32)\n"
        "def before(x):\n    x[:] = 1\n    return {'x': x}\n"
        "def after(y):\n    return {'y': kept}\n"
    )
    whole = Signature("serving_default", (TensorSpec("x", DType.FP32, (-1, 4)),), ONNX_Y)
    with stepped(version, code, whole) as (model, instance):
        assert model.traits.may_write_inputs
        first = instance.run("serving_default", {"x": ONE_ROW.copy()})["y"]
        first[:] = 7
        assert instance.run("serving_default", {"x": ONE_ROW.copy()})["y"].tolist() == [[0, 0, 0]]


def test_a_link_that_leads_out_of_the_version_is_refused(version: Path, tmp_path: Path) -> None:
    version.mkdir(parents=True, exist_ok=True)
    (tmp_path / "secret.txt").write_text("secret")
    (version / "linked.txt").symlink_to(tmp_path / "secret.txt")
    assert "outside the repository" in refusal(version, AFTER, Signature("serving_default", (), (NAME,)))


@pytest.mark.heavy
def test_a_model_that_does_not_describe_itself_is_declared_apart(version: Path) -> None:
    pytest.importorskip("torch")
    case = load_module("case_torch").CASES[0]
    inner = case.write("linear", version)
    (version / "steps.py").write_text(BEFORE + AFTER)
    backend = case.backend()
    artefact = backend.find(version)
    opening = OpenRequest("m", 1, version, artefact, (WHOLE,), allow=frozenset({"python"}), steps=version / "steps.py")
    model = open_with_steps(backend, replace(opening, inner=inner))
    with closing(model), closing(model.instance(Placement())) as instance:
        assert instance.run("serving_default", texts("1 2 3 4"))["name"].tolist() == [b"row of 3"]
