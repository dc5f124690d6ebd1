"""Servers of other kinds: models of every framework, models in processes of their own, several serving processes."""

from __future__ import annotations

from typing import Any

import numpy as np
from differential.requests import (
    INFER,
    MODELS,
    OIP,
    PREDICT,
    TFS,
    native,
    oip,
    oip_infer,
    oip_json,
    rows,
    tfs,
    tfs_predict,
)
from differential.scene import Notes
from differential.scenes.native import MARKS
from differential.scenes.order import Held

from inferd.oip.v1 import control_pb2 as oip_control
from inferd.v1 import model_service_pb2 as native_models
from inferd.v1 import predict_service_pb2 as native_predict


def _everywhere(notes: Notes, case: str, model: str, inputs: dict[str, Any]) -> None:
    side = notes.side
    notes.see(f"{case}: native", side.ask(PREDICT, native(model, inputs), native_predict.PredictResponse))
    notes.see(f"{case}: oip", side.ask(INFER, oip(model, inputs), oip_infer.ModelInferResponse))
    notes.see(f"{case}: tfs", side.ask(f"{TFS}Predict", tfs(model, inputs), tfs_predict.PredictResponse))
    notes.see(f"{case}: rest", side.rest("POST", f"/v2/models/{model}/infer", oip_json(inputs)))


def _described(notes: Notes, *names: str) -> None:
    side = notes.side
    listed = native_models.ListModelsRequest()
    notes.see("list", side.ask(f"{MODELS}ListModels", listed, native_models.ListModelsResponse))
    for name in names:
        metadata = native_models.GetModelMetadataRequest(name=name)
        answer = side.ask(f"{MODELS}GetModelMetadata", metadata, native_models.GetModelMetadataResponse)
        notes.see(f"{name} metadata", answer)
        config = oip_control.ModelConfigRequest(name=name)
        notes.see(f"{name} config", side.ask(f"{OIP}ModelConfig", config, oip_control.ModelConfigResponse))


def play_frameworks(notes: Notes) -> None:
    """The digits model of each framework, with valid and invalid requests."""
    chance = np.random.default_rng(7)
    images = chance.random((5, 64), np.float32)
    names = ("digits_onnx", "digits_torch", "digits_tf", "digits_pt2")
    _described(notes, *names)
    for name in names:
        for turn in range(3):
            for count in (1, 5):
                _everywhere(notes, f"{name}, {count} images, {turn}", name, {"image": images[:count]})
        _everywhere(notes, f"{name}, width", name, {"image": images[:, :60]})
        _everywhere(notes, f"{name}, type", name, {"image": images.astype(np.float64)})
        _everywhere(notes, f"{name}, other input", name, {"picture": images})
        _everywhere(notes, f"{name}, not finite", name, {"image": np.full((1, 64), np.nan, np.float32)})
        _everywhere(notes, f"{name}, many", name, {"image": np.repeat(images, 20, axis=0)})


def play_kinds(notes: Notes) -> None:
    """Each kind of model, alone and in batches."""
    _described(notes, "rows", "counting", "onnx", "failing")
    for turn in ("first", "again"):
        for model in ("rows", "onnx", "counting", "failing", "nobody"):
            _everywhere(notes, f"{model} ({turn})", model, {"x": rows(1, 2)})
            _everywhere(notes, f"{model}, width ({turn})", model, {"x": np.ones((2, 5), np.float32)})
        for name, mark in MARKS.items():
            _everywhere(notes, f"{name} ({turn})", "rows", {"x": rows(1, mark)})
    with Held(notes, "batch", "gated") as held:
        held.native("native", rows(1))
        held.oip("oip", rows(2, 3))
        held.tfs("tfs", rows(4))
        held.rest("rest", rows(5))
    for name in ("breaks", "raises", "output missing", "refuses"):
        with Held(notes, f"culprit {name}", "gated") as held:
            held.native("innocent", rows(1, 2))
            held.oip("culprit", rows(3, MARKS[name]))
            held.tfs("innocent 2", rows(4))


def play_workers(notes: Notes) -> None:
    """Several serving processes behave like one."""
    _described(notes, "rows", "onnx", "failing")
    side = notes.side
    for turn in range(6):
        # A new connection each time, which any of the processes may accept.
        channel = side.connect()
        for model in ("rows", "onnx", "failing", "nobody"):
            request = native(model, {"x": rows(1, 2)})
            answer = side.ask(PREDICT, request, native_predict.PredictResponse, channel=channel)
            notes.see(f"{model} {turn}", answer)
        notes.see(f"rest {turn}", side.rest("POST", "/v2/models/rows/infer", oip_json({"x": rows(turn)})))
    for name, kind, fields in (
        ("unload", "UnloadModel", {"name": "counting"}),
        ("load", "LoadModel", {"name": "counting"}),
        ("label", "SetLabel", {"name": "rows", "label": "l", "version": 1}),
        ("load nobody", "LoadModel", {"name": "nobody"}),
        ("load failing", "LoadModel", {"name": "failing"}),
    ):
        request = getattr(native_models, f"{kind}Request")(**fields)
        answer = side.ask(f"{MODELS}{kind}", request, getattr(native_models, f"{kind}Response"))
        notes.see(name, answer)
    notes.see("by label", side.ask(PREDICT, native("rows", {"x": rows(1)}, label="l"), native_predict.PredictResponse))
