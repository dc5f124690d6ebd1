"""The registry: which backend serves a directory, and the errors if there is none or more than one."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest
from support.backends import BackendCase

from inferd.backends.api import IncompleteArtefact, LoadError
from inferd.backends.registry import GROUP, Registry


class Fake:
    """A backend that finds one file name."""

    platforms: tuple[str, ...] = ()
    code = ""

    def __init__(self, name: str, file: str, platforms: tuple[str, ...] = (), error: Exception | None = None) -> None:
        self.name = name
        self.artefacts = (file,)
        self.platforms = platforms
        self.error = error

    def find(self, directory: Path) -> Path | None:
        if self.error is not None:
            raise self.error
        path = directory / self.artefacts[0]
        return path if path.exists() else None

    def complete(self, artefact: Path) -> str | None:
        return None

    def files(self, artefact: Path) -> tuple[Path, ...]:
        return ()

    def open(self, request: Any) -> Any:
        raise NotImplementedError

    def devices(self) -> tuple[str, ...]:
        return ("cpu",)


def a_class_without_much() -> object:
    return object()


def named_wrongly() -> Fake:
    return Fake("another", "model.x")


def registry(*backends: Fake, plugins: tuple[EntryPoint, ...] = ()) -> Registry:
    found = Registry(plugins)
    for backend in backends:
        found.add(backend)
    return found


def point(name: str, value: str) -> EntryPoint:
    return EntryPoint(name, value, GROUP)


def test_the_own_backends_are_installed() -> None:
    assert {"onnx", "torch", "tensorflow"} <= set(Registry().names())


def test_an_unknown_name_is_refused_with_the_known_ones() -> None:
    with pytest.raises(LoadError, match=r"unknown backend 'caffe'; known: onnx"):
        Registry([point("onnx", "inferd.backends.onnx.backend:OnnxBackend")]).get("caffe")


def test_get_returns_one_object_for_each_name() -> None:
    found = Registry([point("onnx", "inferd.backends.onnx.backend:OnnxBackend")])
    assert found.get("onnx") is found.get("onnx")


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("no_such_module:Backend", "no_such_module"),
        ("inferd.backends.onnx.backend:NoSuchClass", "NoSuchClass"),
        ("builtins:object", "lacks name, platforms, find"),
        ("inferd.backends.onnx.backend:OnnxBackend", "calls itself 'onnx'"),
    ],
)
def test_a_broken_plug_in_does_not_affect_other_backends(tmp_path: Path, value: str, reason: str) -> None:
    found = registry(Fake("good", "model.good"), plugins=(point("bad", value),))
    (tmp_path / "model.good").touch()
    assert found.names() == ("bad", "good")
    assert found.detect(tmp_path)[0].name == "good"
    for ask in (lambda: found.get("bad"), lambda: found.detect(tmp_path, "bad")):
        with pytest.raises(LoadError, match=reason):
            ask()
    (tmp_path / "model.good").unlink()
    with pytest.raises(LoadError, match=rf"good looks for model\.good.*'bad' cannot be loaded: .*{reason}"):
        found.detect(tmp_path)


def test_two_plug_ins_of_one_name_are_an_error_one_listed_twice_is_not() -> None:
    twice = point("onnx", "inferd.backends.onnx.backend:OnnxBackend")
    assert Registry([twice, twice]).get("onnx").name == "onnx"
    with pytest.raises(LoadError, match="two plug-ins have this name"):
        Registry([twice, point("onnx", "elsewhere:OnnxBackend")]).get("onnx")


def test_the_only_artefact_wins(tmp_path: Path) -> None:
    found = registry(Fake("a", "model.a"), Fake("b", "model.b"))
    (tmp_path / "model.b").touch()
    backend, artefact = found.detect(tmp_path)
    assert (backend.name, artefact) == ("b", tmp_path / "model.b")


def test_two_artefacts_are_refused_unless_a_backend_is_named(tmp_path: Path) -> None:
    found = registry(Fake("a", "model.a"), Fake("b", "model.b", ("b_platform",)))
    (tmp_path / "model.a").touch()
    (tmp_path / "model.b").touch()
    with pytest.raises(LoadError, match=r"model\.a \(a\), model\.b \(b\).*backend:"):
        found.detect(tmp_path)
    assert found.detect(tmp_path, "a")[0].name == "a"
    assert found.detect(tmp_path, "b")[0].name == "b"
    assert found.detect(tmp_path, "b_platform")[0].name == "b"
    with pytest.raises(LoadError, match=r"unknown backend 'c'; known: a, b \(b_platform\)"):
        found.detect(tmp_path, "c")


def test_code_that_is_not_allowed_does_not_count_beside_another_artefact(tmp_path: Path) -> None:
    """Many keep the sources of a model beside it."""
    code = Fake("python", "model.py")
    code.code = "python"
    found = registry(Fake("a", "model.a"), code)
    (tmp_path / "model.py").touch()
    assert found.detect(tmp_path)[0].name == "python"
    assert found.artefact_names() == {"model.a"}, "a model.py that lies about need not be a model"
    (tmp_path / "model.a").touch()
    assert found.detect(tmp_path)[0].name == "a"
    with pytest.raises(LoadError, match=r"more than one artefact: model\.a \(a\), model\.py \(python\)"):
        found.detect(tmp_path, None, {"python"})


def test_the_error_says_what_was_looked_for_and_what_is_there(tmp_path: Path) -> None:
    found = registry(Fake("a", "model.a"), Fake("b", "model.b"))
    with pytest.raises(LoadError, match=r"a looks for model\.a; b looks for model\.b; the directory is empty"):
        found.detect(tmp_path)
    for i in range(12):
        (tmp_path / f"f{i:02}").touch()
    (tmp_path / "a_folder").mkdir()
    with pytest.raises(LoadError, match=r"holds a_folder/, f00.* and 5 more"):
        found.detect(tmp_path)
    with pytest.raises(LoadError, match=r"a looks for model\.a; the directory holds"):
        found.detect(tmp_path, "a")
    with pytest.raises(LoadError, match="cannot be read"):
        found.detect(tmp_path / "gone")


def test_a_refusal_is_raised_only_if_nothing_is_found(tmp_path: Path) -> None:
    found = registry(Fake("a", "model.a"), Fake("b", "model.b", error=LoadError("model.pth is a pickle: convert it")))
    with pytest.raises(LoadError, match="convert it"):
        found.detect(tmp_path)
    (tmp_path / "model.a").touch()
    assert found.detect(tmp_path)[0].name == "a"


def test_an_incomplete_artefact_is_reported_as_incomplete(tmp_path: Path) -> None:
    found = registry(Fake("a", "model.a"), Fake("b", "model.b", error=IncompleteArtefact("variables are missing")))
    with pytest.raises(IncompleteArtefact, match="variables are missing"):
        found.detect(tmp_path)
    (tmp_path / "model.a").touch()
    with pytest.raises(LoadError, match="more than one artefact"):
        found.detect(tmp_path)


def test_a_bug_in_one_backend_does_not_hide_other_models(tmp_path: Path) -> None:
    found = registry(Fake("a", "model.a"), Fake("b", "model.b", error=ZeroDivisionError("oops")))
    (tmp_path / "model.a").touch()
    assert found.detect(tmp_path)[0].name == "a"
    with pytest.raises(LoadError, match="the backend 'b' failed while it looked: ZeroDivisionError: oops"):
        found.detect(tmp_path, "b")


def test_detecting_imports_no_framework(tmp_path: Path) -> None:
    """Runs in a separate process: the registry loads every backend, each looks at a directory, and afterwards no
    framework has been imported."""
    (tmp_path / "model.onnx").write_bytes(b"x")
    program = """
import sys
from pathlib import Path
from inferd.backends.registry import Registry
registry = Registry()
directory = Path(sys.argv[1])
backend, artefact = registry.detect(directory)
assert backend.name == "onnx", backend
backend.complete(artefact); backend.files(artefact)
for name in ("onnx", "torch", "tensorflow"):
    assert registry.get(name).name == name
loaded = {m.partition(".")[0] for m in sys.modules}
print(sorted(loaded & {"onnxruntime", "onnx", "torch", "tensorflow", "grpc", "google", "keras", "ml_dtypes"}))
"""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program, str(tmp_path)],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"


def test_the_own_backends_are_found_by_their_platform_names(case: BackendCase) -> None:
    backend = case.backend()
    found = Registry([])
    found.add(backend)
    for platform in backend.platforms:
        assert found.named(platform) is backend
