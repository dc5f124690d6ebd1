"""XGBoost's and LightGBM's own files → ONNX, compared with the original on rows."""

from __future__ import annotations

import importlib.util
import json
import os
from typing import Any

OPSET = 15


def convert(request: dict[str, Any], tools: Any) -> dict[str, Any]:
    numpy = tools.need("numpy")
    onnx = tools.need("onnx")
    tools.need("skl2onnx")
    tools.need("onnxmltools")
    path = request["source"]
    lightgbm = _is_lightgbm(path)
    model, width, classes = _lightgbm(path, tools) if lightgbm else _xgboost(path, tools)
    types = tools.need("onnxmltools.convert.common.data_types")
    kind = "LightGBM" if lightgbm else "XGBoost"
    tools.say(f"converts a model of {kind} with {width} columns to ONNX")
    initial = [("input", types.FloatTensorType([None, width]))]
    convert_all = tools.need("onnxmltools.convert")
    try:
        if lightgbm:
            made = convert_all.convert_lightgbm(model, initial_types=initial, target_opset=OPSET, zipmap=False)
        else:
            made = convert_all.convert_xgboost(model, initial_types=initial, target_opset=OPSET)
    except Exception as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise tools.Refused(f"onnxmltools cannot convert this model of {kind}: {reason[:300]}") from None
    _sibling("sklearn_models").finish(
        onnx, made, os.path.join(request["target"], "model.onnx"), request.get("names") or []
    )
    given = tools.rows_for(["input"])
    rows = given["input"] if given else numpy.random.default_rng(0).normal(size=(64, width)) * 3
    rows = numpy.asarray(rows, numpy.float64).reshape(len(rows), width)
    tools.say(f"asks the original for the answers to {len(rows)} rows")
    expected = _answers(model, rows, lightgbm, classes, numpy)
    outputs = [output.name for output in made.graph.output]
    names = ["label", "scores"] if "scores" in expected else ["value"]
    tools.keep({"input": rows.astype(numpy.float32)}, expected)
    return {"pairs": dict(zip(outputs, names)), "classes": list(range(classes)) if classes else None}


def _is_lightgbm(path: str) -> bool:
    with open(path, "rb") as file:
        return file.read(5) == b"tree\n" or path.endswith((".lgb", ".txt"))


def _xgboost(path: str, tools: Any) -> tuple[Any, int, int]:
    """The model, the number of its columns, and of its classes (0: it is no classifier)."""
    package = tools.need("xgboost")
    booster = package.Booster()
    booster.load_model(path)
    learner = json.loads(booster.save_config())["learner"]
    objective = learner["objective"]["name"]
    count = int(learner["learner_model_param"].get("num_class", "0") or 0)
    classifies = objective.startswith(("binary:logistic", "multi:"))
    model = package.XGBClassifier() if classifies else package.XGBRegressor()
    model.load_model(path)
    inner = model.get_booster()
    inner.feature_names = None  # the converter knows columns by their numbers only
    return model, int(booster.num_features()), (max(2, count) if classifies else 0)


def _lightgbm(path: str, tools: Any) -> tuple[Any, int, int]:
    """As _xgboost."""
    package = tools.need("lightgbm")
    model = package.Booster(model_file=path)
    objective = str(model.dump_model(num_iteration=1).get("objective", ""))
    classes = int(model.num_model_per_iteration()) if objective.startswith("multiclass") else 0
    return model, int(model.num_feature()), 2 if objective.startswith("binary") else classes


def _answers(model: Any, rows: Any, lightgbm: bool, classes: int, numpy: Any) -> dict[str, Any]:
    if not classes:
        return {"value": numpy.asarray(model.predict(rows)).reshape(len(rows), -1)}
    scores = numpy.asarray(model.predict(rows) if lightgbm else model.predict_proba(rows))
    if scores.ndim == 1:
        scores = numpy.stack([1 - scores, scores], axis=1)
    return {"label": numpy.argmax(scores, axis=1), "scores": scores}


def _sibling(name: str) -> Any:
    path = os.path.join(os.path.dirname(os.path.abspath(__file__)), name + ".py")
    spec = importlib.util.spec_from_file_location("inferd_" + name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
