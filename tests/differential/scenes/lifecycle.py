"""Lifecycle: files changed in place, version policies, explicit mode, uploads, overrides that survive a restart."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from differential import models
from differential.requests import MODELS, OIP, PREDICT, native, rows
from differential.scene import Notes
from differential.scenes.control import settled
from differential.side import Side

from inferd.oip.v1 import control_pb2 as oip_control
from inferd.v1 import model_service_pb2 as native_models
from inferd.v1 import predict_service_pb2 as native_predict

SIGNATURE = models.signature([models.X], [models.Z, models.Y])
_AVAILABLE = native_models.VERSION_STATE_AVAILABLE


def write_versions(root: Path) -> None:
    """Models with several versions."""
    root.mkdir(parents=True)
    for version in range(1, 5):
        models.steps(root / "rows", version, SIGNATURE, yaml=models.TRUSTED, marker=version)
    for name in ("first", "second"):
        models.steps(root / name, 1, SIGNATURE, yaml=models.TRUSTED, marker=1)


def _status(side: Side, name: str) -> dict[str, Any]:
    request = native_models.GetModelStatusRequest(name=name)
    return side.ask(f"{MODELS}GetModelStatus", request, native_models.GetModelStatusResponse)


def _versions(side: Side, name: str) -> list[dict[str, Any]]:
    answer = _status(side, name)["answer"]
    return list(answer["model"].get("versions", ())) if answer else []


def _available(side: Side, name: str) -> set[int]:
    return {each["version"] for each in _versions(side, name) if each["state"] == _AVAILABLE}


def _see(notes: Notes, case: str, *names: str) -> None:
    settled(notes.side)
    for name in names:
        notes.see(f"{case}: {name}", _status(notes.side, name))
        asked = native(name, {"x": rows(1)})
        notes.see(f"{case}: predict {name}", notes.side.ask(PREDICT, asked, native_predict.PredictResponse))


def _settings(model: Path, text: str) -> None:
    new = model / ".model.yaml.new"
    new.write_text(text)
    new.rename(model / "model.yaml")


def _content(version: Path, **document: Any) -> None:
    new = version.parent / f".content-{version.name}"
    new.write_text(json.dumps({"signatures": [SIGNATURE], **document}))
    new.rename(version / "model.steps")


def play_policies(notes: Notes) -> None:
    """Changes model.yaml step by step."""
    side = notes.side
    model = side.repository / "rows"
    _see(notes, "at first", "rows")
    for case, text, versions in (
        ("the newest two", "version_policy: {latest: 2}\n", {3, 4}),
        ("all", "version_policy: {all: true}\n", {1, 2, 3, 4}),
        ("some", "version_policy: {specific: [1, 3]}\n", {1, 3}),
        ("some that are not there", "version_policy: {specific: [2, 9]}\n", {2}),
        ("resource first", "version_policy: {latest: 1}\ntransition: resource\n", {4}),
    ):
        _settings(model, models.TRUSTED + text)
        side.until(lambda versions=versions: _available(side, "rows") == versions, f"{case}: {versions}")
        _see(notes, case, "rows")
    _settings(model, models.TRUSTED + "labels: {stable: 4, old: 1}\n")
    side.until(lambda: bool(_versions(side, "rows")[0].get("labels")), "the label is there")
    _see(notes, "labels", "rows")
    _settings(model, "batchin: {}\n")
    side.until(lambda: "error" in _status(side, "rows")["answer"]["model"], "the settings are refused")
    _see(notes, "wrong settings", "rows")
    _settings(model, models.TRUSTED)
    side.until(lambda: "error" not in _status(side, "rows")["answer"]["model"], "the settings are right again")
    _see(notes, "right settings", "rows")


def play_in_place(notes: Notes) -> None:
    """Changes the files of a served version in place."""
    side = notes.side
    version = side.repository / "first" / "1"

    def generation() -> int:
        return int(_versions(side, "first")[0]["generation"])

    for case, document in (("other numbers", {"marker": 5}), ("again", {"marker": 6})):
        before = generation()
        _content(version, **document)
        side.until(lambda before=before: generation() > before and bool(_available(side, "first")), case)
        _see(notes, case, "first")
    _content(version, fail="not this time")
    side.until(lambda: "error" in _versions(side, "first")[0], "the new content is refused")
    _see(notes, "broken", "first")
    before = generation()
    _content(version, marker=7)
    side.until(lambda: generation() > before and "error" not in _versions(side, "first")[0], "the content is right")
    _see(notes, "mended", "first")
    before = generation()
    _settings(version.parent, "batching: {mode: off}\n")
    side.until(lambda: generation() > before and bool(_available(side, "first")), "other settings")
    _see(notes, "other settings", "first")


def _wish(notes: Notes, case: str, kind: str, /, **fields: Any) -> None:
    settled(notes.side)
    request = getattr(native_models, f"{kind}Request")(**fields)
    answer = notes.side.ask(f"{MODELS}{kind}", request, getattr(native_models, f"{kind}Response"))
    if answer["answer"]:
        # An earlier version may still be unloading, so the versions are compared later, when they are at rest.
        answer["answer"]["model"].pop("versions", None)
    notes.see(case, answer)


def play_restarted(notes: Notes) -> None:
    """Overrides are kept in the state directory over restarts."""
    side = notes.side
    names = ("rows", "first", "second")
    _wish(notes, "unload", "UnloadModel", name="first")
    _wish(notes, "roll back", "Rollback", name="rows", to_version=2)
    _wish(notes, "label", "SetLabel", name="rows", label="kept", version=2)
    _wish(notes, "unload a version", "UnloadModel", name="second", version=1)
    _see(notes, "before", *names)
    for case in ("once", "twice"):
        notes.see(f"end {case}", side.end())
        side.start()
        side.until(lambda: _available(side, "rows") == {2}, "rows serves what it is pinned to")
        _see(notes, f"restarted {case}", *names)
    _wish(notes, "load", "LoadModel", name="first")
    _wish(notes, "lift the pin", "LoadModel", name="rows")
    _wish(notes, "remove the label", "SetLabel", name="rows", label="kept")
    _see(notes, "lifted", *names)
    side.end()
    side.start()
    side.until(lambda: 4 in _available(side, "rows"), "rows serves the newest")
    _see(notes, "restarted without", *names)


def play_explicit(notes: Notes) -> None:
    """Explicit mode, and Triton's parameters of a load."""
    side = notes.side
    names = ("rows", "first", "second", "fresh")
    _see(notes, "at first", *names)
    _index(notes, "at first")
    _wish(notes, "load", "LoadModel", name="first")
    _wish(notes, "load a version", "LoadModel", name="rows", version=2)
    _see(notes, "loaded", *names)
    config = '{"max_batch_size": 4, "version_policy": {"specific": {"versions": [1, 3]}}}'
    content = json.dumps({"signatures": [SIGNATURE], "marker": 9}).encode()
    loads: tuple[tuple[str, str, Callable[[Any], None]], ...] = (
        ("config", "rows", lambda p: _text(p, "config", config)),
        ("broken config", "rows", lambda p: _text(p, "config", "{")),
        ("config of a wrong kind", "rows", lambda p: _number(p, "config", 3)),
        ("unknown parameter", "rows", lambda p: _text(p, "nothing", "x")),
        ("file without config", "fresh", lambda p: _bytes(p, "file:1/model.steps", content)),
        ("file", "fresh", lambda p: (_text(p, "config", "{}"), _bytes(p, "file:1/model.steps", content))),
        ("file outside", "fresh", lambda p: (_text(p, "config", "{}"), _bytes(p, "file:../x", content))),
        ("file of no version", "fresh", lambda p: (_text(p, "config", "{}"), _bytes(p, "file:model.steps", content))),
        ("plain again", "rows", lambda p: None),
    )
    for case, name, fill in loads:
        request = oip_control.RepositoryModelLoadRequest(model_name=name)
        fill(request.parameters)
        answer = side.ask(f"{OIP}RepositoryModelLoad", request, oip_control.RepositoryModelLoadResponse)
        notes.see(f"load with {case}", answer)
        _see(notes, f"after {case}", name)
    _wish(notes, "unload", "UnloadModel", name="first")
    _see(notes, "unloaded", *names)
    _index(notes, "at last")


def _index(notes: Notes, case: str) -> None:
    request = oip_control.RepositoryIndexRequest()
    answer = notes.side.ask(f"{OIP}RepositoryIndex", request, oip_control.RepositoryIndexResponse)
    notes.see(f"{case}: index", answer)


def _text(parameters: Any, key: str, value: str) -> None:
    parameters[key].string_param = value


def _number(parameters: Any, key: str, value: int) -> None:
    parameters[key].int64_param = value


def _bytes(parameters: Any, key: str, value: bytes) -> None:
    parameters[key].bytes_param = value
