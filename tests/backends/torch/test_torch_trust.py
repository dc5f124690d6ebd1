"""A torch archive is data: whatever it holds, opening it runs nothing but torch's operators."""

from __future__ import annotations

import io
import json
import pickle
import warnings
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.torch_models import X, open_model, outputs_of, script, served

from inferd.backends.api import LoadError
from inferd.backends.torch.script_content import check_code
from inferd.backends.torch.symbolic_expressions import check_guard, check_size

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.heavy

Entries = dict[str, bytes]
MODEL, WEIGHTS, CONSTANTS, SAMPLES = (
    "models/model.json",
    "data/weights/model_weights_config.json",
    "data/constants/model_constants_config.json",
    "data/sample_inputs/model.pt",
)


class Net(torch.nn.Module):  # type: ignore[misc,name-defined]
    """Uses parameters, a buffer, a constant, arithmetic on sizes, a condition and nested results."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.full((2,), 2.0))
        self.register_buffer("offset", torch.ones(2))
        self.constant = torch.full((2,), 3.0)

    def forward(self, x: Any) -> Any:
        hidden = x * self.weight + self.offset * self.constant
        chosen = torch.cond(x.sum() > 0, lambda a: a + 1, lambda a: a - 1, (hidden,))
        return {"y": chosen, "twice": torch.cat([x, x]).reshape(x.shape[0] * 2, -1)[: x.shape[0]]}


@pytest.fixture(scope="module")
def exported() -> Entries:
    """The entries of a good archive, without the top folder."""
    rows = torch.export.Dim("rows", min=2, max=100)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.export.export(Net().eval(), (torch.zeros(4, 2),), dynamic_shapes=({0: rows},))
    file = io.BytesIO()
    torch.export.save(program, file)
    with zipfile.ZipFile(file) as archive:
        return {name.partition("/")[2]: archive.read(name) for name in archive.namelist()}


def write(version: Path, entries: Mapping[str, bytes], top: str = "archive/") -> Path:
    path = version / "model.pt2"
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in entries.items():
            archive.writestr(top + name, content)
    return path


class Bomb:
    """A pickle that creates a file."""

    def __init__(self, ran: Path) -> None:
        self._ran = ran

    def __reduce__(self) -> Any:
        return (Path.touch, (self._ran,))


def tensors(bomb: Bomb) -> bytes:
    file = io.BytesIO()
    torch.save(bomb, file)
    return file.getvalue()


def edited(content: bytes, edit: Callable[[Any], None]) -> bytes:
    document = json.loads(content)
    edit(document)
    return json.dumps(document).encode()


def with_program(edit: Callable[[dict[str, Any], str], None]) -> Callable[[Entries, Bomb, str], None]:
    """An attack by the program's description. `edit` gets it, and a Python expression that leaves a mark."""

    def attack(entries: Entries, _bomb: Bomb, code: str) -> None:
        entries[MODEL] = edited(entries[MODEL], lambda document: edit(document, code))

    return attack


def constant(path: str, entry: str) -> Callable[[Entries, Bomb, str], None]:
    """An attack by a pickled constant that the configuration calls `path` and the archive `entry`."""

    def attack(entries: Entries, bomb: Bomb, _code: str) -> None:
        content = pickle.dumps(bomb)
        content += b"\0" * (-len(content) % 4)

        def add(document: Any) -> None:
            meta = dict(next(iter(document["config"].values()))["tensor_meta"])
            meta |= {"sizes": [{"as_int": len(content) // 4}], "requires_grad": False}
            document["config"]["evil"] = {
                "path_name": path, "is_param": False, "use_pickle": False, "tensor_meta": meta,
            }  # fmt: skip

        entries[CONSTANTS] = edited(entries[CONSTANTS], add)
        entries[f"data/constants/{entry}"] = content

    return attack


def pickled_weight(name: str) -> Callable[[Entries, Bomb, str], None]:
    """An attack by a weight that is pickled, in a configuration of this name."""

    def attack(entries: Entries, bomb: Bomb, _code: str) -> None:
        def change(document: Any) -> None:
            payload = next(iter(document["config"].values()))
            payload["use_pickle"] = True
            entries[f"data/weights/{payload['path_name']}"] = tensors(bomb)

        content = edited(entries.pop(WEIGHTS), change)
        entries[name] = content

    return attack


def entry(name: str) -> Callable[[Entries, Bomb, str], None]:
    """An attack by an entry that torch unpickles."""

    def attack(entries: Entries, bomb: Bomb, _code: str) -> None:
        entries[name] = tensors(bomb)

    return attack


def first_node(document: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = document["graph_module"]["graph"]["nodes"][0]
    return found


def sizes(document: dict[str, Any], code: str) -> None:
    values = document["graph_module"]["graph"]["tensor_values"]["x"]["sizes"]
    values[0]["as_expr"]["expr_str"] = code


def guard(document: dict[str, Any], code: str) -> None:
    document["guards_code"] = [code]


def call(document: dict[str, Any], code: str) -> None:
    argument = {"name": "", "arg": {"as_string": code}, "kind": 1}
    node = {
        "target": "torch.serialization.os.system", "inputs": [argument], "outputs": [], "metadata": {}, "name": "evil",
    }  # fmt: skip
    document["graph_module"]["graph"]["nodes"].insert(0, node)


def node_name(document: dict[str, Any], code: str) -> None:
    text = json.dumps(document)
    name = document["graph_module"]["graph"]["nodes"][-1]["name"] or "sym"
    document.clear()
    document.update(json.loads(text.replace(f'"{name}"', json.dumps(f"{name} = {code}; {name}"))))


def parameter_path(document: dict[str, Any], code: str) -> None:
    for spec in document["graph_module"]["signature"]["input_specs"]:
        if "parameter" in spec:
            spec["parameter"]["parameter_name"] = f'weight"), {code}, getattr(self, "weight'


def tree_type(document: dict[str, Any], _code: str) -> None:
    module = document["graph_module"]["module_call_graph"][0]["signature"]
    context = {"default_factory_module": "antigravity", "default_factory_name": "webbrowser", "dict_context": []}
    leaf = {"type": "collections.defaultdict", "context": context, "children_spec": []}
    module["out_spec"] = json.dumps([1, leaf])


def tree_enum(document: dict[str, Any], _code: str) -> None:
    module = document["graph_module"]["module_call_graph"][0]["signature"]
    context = json.dumps([{"__enum__": True, "fqn": "antigravity:webbrowser", "name": "x"}])
    module["out_spec"] = json.dumps([1, {"type": "builtins.dict", "context": context, "children_spec": []}])


def argument_name(document: dict[str, Any], code: str) -> None:
    module = document["graph_module"]["module_call_graph"][0]["signature"]
    module["forward_arg_names"] = [f"x={code}"]


def write_file(operator: str) -> Callable[[dict[str, Any], str], None]:
    def edit(document: dict[str, Any], code: str) -> None:
        argument = {"name": "filename", "arg": {"as_string": code}, "kind": 1}
        first_node(document).update(target=f"torch.ops.aten.{operator}", inputs=[argument])

    return edit


def delegate(document: dict[str, Any], _code: str) -> None:
    first_node(document)["target"] = "torch.ops.higher_order.aoti_call_delegate"


def namespace(document: dict[str, Any], _code: str) -> None:
    first_node(document)["target"] = "torch.ops.mine.run.default"


ATTACKS: dict[str, tuple[Callable[[Entries, Bomb, str], None], str]] = {
    "constant": (constant("opaque_obj_0", "opaque_obj_0"), r"pickled constant \(opaque_obj_0\)"),
    "constant, other case": (constant("opaque_obj_0", "Opaque_obj_0"), "pickled constant"),
    "constant, other path": (constant("opaque_obj_0/../opaque_obj_0", "opaque_obj_0"), "expected the name of an entry"),
    "custom object": (constant("custom_obj_0", "custom_obj_0"), "custom_ops"),
    "constant of an unknown kind": (constant("Opaque_obj_0", "opaque_obj_0"), "unknown kind"),
    "weight": (pickled_weight(WEIGHTS), r"pickled tensors \(weight\)"),
    "weight, other case": (pickled_weight("data/Weights/Model_weights_Config.JSON"), "pickled tensors"),
    "weights of old": (entry("data/weights/model.pt"), "unpickling"),
    "constants of old": (entry("data/constants/model.pt"), "unpickling"),
    "samples": (entry(SAMPLES), "unpickling"),
    "size": (with_program(sizes), "not allowed"),
    "guard": (with_program(guard), "not allowed"),
    "call of a function": (with_program(call), "operator of torch"),
    "name of a node": (with_program(node_name), "expected a name"),
    "path of a parameter": (with_program(parameter_path), "expected a path"),
    "type in a tree": (with_program(tree_type), "expected"),
    "enumeration in a tree": (with_program(tree_enum), "plain keys"),
    "name of an argument": (with_program(argument_name), "expected a name"),
    "operator that opens a file": (with_program(write_file("from_file.default")), "outside the model"),
    "operator that writes a file": (with_program(write_file("save.default")), "outside the model"),
    "operator that loads a library": (with_program(delegate), "operator of torch"),
    "operator of another namespace": (with_program(namespace), "custom_ops"),
}


@pytest.mark.parametrize("name", ATTACKS)
def test_nothing_in_an_exported_program_runs(name: str, version: Path, tmp_path: Path, exported: Entries) -> None:
    attack, words = ATTACKS[name]
    ran = tmp_path / "ran"
    entries = dict(exported)
    attack(entries, Bomb(ran), f"__import__('pathlib').Path({str(ran)!r}).touch()")
    write(version, entries)
    with pytest.raises(LoadError, match=words):
        open_model(version)
    assert not ran.exists()


def test_a_good_program_of_every_part_is_served(version: Path, exported: Entries) -> None:
    write(version, exported)
    with served(version) as (_, instance):
        got = outputs_of(instance, x=X)
        np.testing.assert_allclose(got["y"], X * 2 + 3 + 1)


def test_pickles_load_where_the_settings_allow_python(version: Path, tmp_path: Path, exported: Entries) -> None:
    ran = tmp_path / "ran"
    entries = dict(exported)
    constant("opaque_obj_0", "opaque_obj_0")(entries, Bomb(ran), "")
    write(version, entries)
    for allow in ((), ("aoti",), ("custom_ops",), ("aoti", "custom_ops")):
        with pytest.raises(LoadError, match=r"repository\.allow names python"):
            open_model(version, allow=allow)
    assert not ran.exists()
    open_model(version, allow=("python",)).close()
    assert ran.exists()


# ---- names, for every kind of archive


def duplicate(path: Path) -> None:
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr(archive.namelist()[0], b"other")


def added(name: str, **options: Any) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        with zipfile.ZipFile(path, "a", **options) as archive:
            info = zipfile.ZipInfo("x")
            info.filename = info.orig_filename = name
            info.compress_type = options.get("compression", zipfile.ZIP_STORED)
            archive.writestr(info, b"\0" * 1000)

    return change


def encrypted(path: Path) -> None:
    content = bytearray(path.read_bytes())
    directory = content.rindex(b"PK\x01\x02")
    content[directory + 8] |= 1
    path.write_bytes(content)


NAMES: dict[str, tuple[Callable[[Path], None], str]] = {
    "twice": (duplicate, "twice"),
    "other case": (added("archive/BYTEORDER"), "differs in case only"),
    "absolute": (added("/archive/x"), "expected a relative path"),
    "parent": (added("archive/../x"), "expected a relative path"),
    "empty part": (added("archive//data/x"), "expected a relative path"),
    "backslash": (added("archive\\x"), "expected a relative path"),
    "control character": (added("archive/a\nb"), "expected a relative path"),
    "other top folder": (added("other/x"), "one top folder"),
    "compression": (added("archive/x", compression=zipfile.ZIP_BZIP2), "compressed by method 12"),
    "encryption": (encrypted, "encrypted"),
    "compiled code, other case": (added("archive/Data/aotInductor/model/m.so"), "AOTInductor"),
}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", ["torch.export", "TorchScript"])
def test_archives_that_readers_understand_differently_are_refused(
    name: str, kind: str, version: Path, exported: Entries
) -> None:
    change, words = NAMES[name]
    if kind == "torch.export":
        path = write(version, exported)
    else:
        script(version, torch.nn.Linear(2, 2))
        path = version / "model.pt"
        with zipfile.ZipFile(path) as archive:
            entries = {n.partition("/")[2]: archive.read(n) for n in archive.namelist()}
        write(version, entries).rename(path)
    change(path)
    with pytest.raises(LoadError, match=words):
        open_model(version)


def test_what_compressed_entries_inflate_to_is_bounded(version: Path, exported: Entries) -> None:
    path = write(version, exported)
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive, archive.open("archive/x", "w") as out:
        for _ in range(257):
            out.write(bytes(2**20))
    assert path.stat().st_size < 2**20
    with pytest.raises(LoadError, match=r"take \d+ bytes when they are inflated"):
        open_model(version)


def test_two_archives_in_one_file_are_refused_or_read_alike(version: Path, tmp_path: Path, exported: Entries) -> None:
    ran = tmp_path / "ran"
    evil = dict(exported)
    constant("opaque_obj_0", "opaque_obj_0")(evil, Bomb(ran), "")
    good_bytes = write(version, exported).read_bytes()
    evil_bytes = write(version, evil).read_bytes()
    for content in (evil_bytes + good_bytes, good_bytes + evil_bytes):
        (version / "model.pt2").write_bytes(content)
        try:
            open_model(version).close()
        except LoadError:
            pass
        assert not ran.exists()


def test_a_key_that_is_given_twice_is_refused(version: Path, exported: Entries) -> None:
    entries = dict(exported)
    entries[MODEL] = entries[MODEL].rstrip()[:-1] + b', "guards_code": []}'
    write(version, entries)
    with pytest.raises(LoadError, match="given twice"):
        open_model(version)


# ---- TorchScript


class Saves(torch.nn.Module):  # type: ignore[misc,name-defined]
    """Writes a file while it is loaded."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.ones(2)

    @torch.jit.export  # type: ignore[untyped-decorator]
    def __getstate__(self) -> tuple[torch.Tensor, bool]:
        return (self.weight, self.training)

    @torch.jit.export  # type: ignore[untyped-decorator]
    def __setstate__(self, state: tuple[torch.Tensor, bool]) -> None:
        self.weight = state[0]
        self.training = state[1]
        torch.save(self.weight, "ran")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.weight


def test_a_torchscript_file_cannot_write_while_it_is_loaded(
    version: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    script(version, Saves())
    with pytest.raises(LoadError, match=r"code/__torch__.*uses torch\.save, which opens any file"):
        open_model(version)
    assert not (tmp_path / "ran").exists()
    open_model(version, allow=("custom_ops",)).close()
    assert (tmp_path / "ran").exists()


CODE = {
    "a name": "torch.save(x, 'f')",
    "blanks": "torch . save (x, 'f')",
    "a method": "x.save('f')",
    "another name": "a = torch\na.save(x, 'f')",
    "getattr": "getattr(torch, 'sa' 've')(x, 'f')",
    "getattr of a namespace": "getattr(ops.aten, 'sa' 've')(x, 'f')",
    "the namespace": "ops.aten.from_file('f')",
    "after a text": "print('\\\\'); torch.save(x, 'f')",
    "after a comment": "torch. # the operator\nsave(x, 'f')",
    "another library": "ops.mine.run(x)",
    "another class": "a = __torch__.torch.classes.dist_c10d.Store()",
}


@pytest.mark.parametrize("what", CODE)
def test_code_that_reaches_outside_the_model_is_refused(what: str) -> None:
    with pytest.raises(LoadError, match="custom_ops"):
        check_code(CODE[what], "code")


def test_ordinary_code_passes() -> None:
    check_code(
        """x = torch.add(a, b)  # torch
raise Exception("torch cannot save this; ops")
y = getattr(self.layers, "0")
z = ops.quantized.linear(x, __torch__.torch.classes.quantized.LinearPackedParamsBase, 1., 0)
self.save(x)
w = torch.ones([2]).to(\'cpu\')
""",
        "code",
    )


# ---- the grammar of expressions


@pytest.mark.parametrize(
    "text",
    [
        "Symbol('s77', positive=True, integer=True)",
        "Mul(Integer(2), Symbol('s0', positive=True, integer=True))",
        "Add(Mul(Integer(-1), FloorDiv(Symbol('s0'), Integer(2))), Pow(Symbol('u0'), Rational(1, 2)))",
        "s0 + 2*s1 - 3", "s0**2", "Eq(s0, 3)", "(s0 < 4) & (s1 >= 2)", "Float('1.5', precision=53)", "-s0 // 2",
        "Piecewise((s0, s0 > 1), (1, True))",
    ],
)  # fmt: skip
def test_sizes_that_torch_writes_pass(text: str) -> None:
    check_size(text)


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os').system('id')", "s0.__class__", "(lambda: 1)()", "Symbol('x;y')", "Symbol(s0)", "open('x')",
        "s0[0]", "[s0]", "f'{s0}'", "Integer('1')", "eval('1')", "Symbol('s0', exec=1)", "Symbol('s0', integer=open)",
        "9**9**9**9", "Pow(Pow(9, 64), 64)", "Pow(9, s0)", "s99999999999", "\n1", "s0 if s1 else s2", "s0:=1", "'x'",
        "(" * 500 + "1" + ")" * 500, "-" * 3000 + "1", "1" * 20_001, "", "S('open')", "sympify('1')", "1;2", "1#",
    ],
)  # fmt: skip
def test_other_sizes_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        check_size(text)


def test_guards_on_sizes_pass_and_others_do_not() -> None:
    for text in ("L['x'].size()[0] <= 8", "L['x']['a'].size()[1] % 2 == 0", "L['a'][0].stride(0) >= 1 and 1 < 2"):
        check_guard(text)
    for text in ("exit()", "L['x'].tofile('y')", "L.__class__", "L['x\"'] == 1", "[1]", "L[x] == 1", "torch.save(1)"):
        with pytest.raises(ValueError, match=r"."):
            check_guard(text)
