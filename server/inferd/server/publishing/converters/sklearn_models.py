"""scikit-learn models → ONNX, compared with the original on rows.

A model of one table gets one input, [-1, columns]; a pipeline that picks columns of a pandas frame by their names gets
an input for each column, [-1, 1], with texts where the columns hold texts.
"""

from __future__ import annotations

import os
from typing import Any

OPSET = {"": 17, "ai.onnx.ml": 3}
MOST_IR = 10
# Types that skops does not know as harmless: data, and models that only compute. Everything else needs --trust.
TRUSTED = (
    "collections.OrderedDict", "collections.defaultdict", "numpy.dtype", "sklearn.tree._tree.Tree",
    "lightgbm.basic.Booster", "lightgbm.sklearn.LGBMClassifier", "lightgbm.sklearn.LGBMRegressor",
    "xgboost.core.Booster", "xgboost.sklearn.XGBClassifier", "xgboost.sklearn.XGBRegressor",
)  # fmt: skip
TRUSTED_MODULES = (
    "sklearn._loss.", "sklearn.ensemble._hist_gradient_boosting.", "sklearn.gaussian_process.kernels.",
    "sklearn.metrics._dist_metrics.", "sklearn.neighbors._", "sklearn.neural_network._stochastic_optimizers.",
)  # fmt: skip


def convert(request: dict[str, Any], tools: Any) -> dict[str, Any]:
    model = _load(request, tools)
    if not hasattr(model, "predict") and not hasattr(model, "transform"):
        raise tools.Refused(f"{type(model).__name__} is no scikit-learn model: it has neither predict nor transform")
    onnx = tools.need("onnx")
    skl2onnx = tools.need("skl2onnx", "skl2onnx")
    numpy = tools.need("numpy")
    model = getattr(model, "best_estimator_", model)
    _register_boosters(model, tools)
    columns = _columns(model, tools, numpy)
    tools.say(f"converts {_name(model)} to ONNX")
    types = tools.need("skl2onnx.common.data_types")
    double = request.get("dtype") == "FP64"
    number = types.DoubleTensorType if double else types.FloatTensorType
    kinds = {"text": types.StringTensorType, "int": types.Int64TensorType, "float": number}
    initial = [(column["name"], kinds[column["kind"]]([None, column["width"]])) for column in columns]
    classifies = tools.need("sklearn.base").is_classifier(model)
    options = {id(model): {"zipmap": False}} if classifies else None
    try:
        made = skl2onnx.convert_sklearn(model, initial_types=initial, target_opset=OPSET, options=options)
    except NameError:  # no such option for this model
        made = skl2onnx.convert_sklearn(model, initial_types=initial, target_opset=OPSET)
    except Exception as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise tools.Refused(f"skl2onnx {skl2onnx.__version__} cannot convert {_name(model)}: {reason[:300]}") from None
    _set_locale(onnx, made)
    if double:
        _cast_before_trees(onnx, made)
    finish(onnx, made, os.path.join(request["target"], "model.onnx"), request.get("names") or [])
    rows, frame = _rows(columns, tools, numpy, model, double)
    outputs = [output.name for output in made.graph.output]
    expected, pairs = _expected(model, frame, outputs, numpy, tools)
    tools.keep(rows, expected)
    classes = getattr(model, "classes_", None)
    listed = numpy.asarray(classes) if classes is not None and not isinstance(classes, list) else None
    return {"pairs": pairs, "classes": listed.tolist() if listed is not None and listed.ndim == 1 else None}


def finish(onnx: Any, made: Any, path: str, names: list[str]) -> None:
    """Names the outputs, lets every one have as many rows as come, and writes the file."""
    made.ir_version = min(made.ir_version, MOST_IR)
    for output, name in zip(made.graph.output, names):
        made.graph.node.append(onnx.helper.make_node("Identity", [output.name], [name]))
        output.name = name
    for output in made.graph.output:
        shape = output.type.tensor_type.shape
        if output.type.HasField("tensor_type") and shape.dim and not shape.dim[0].dim_param:
            shape.dim[0].Clear()  # lightgbm's label is declared as one row
            shape.dim[0].dim_param = "rows"
    onnx.save(made, path)


def _set_locale(onnx: Any, made: Any) -> None:
    """Texts get a locale that every server has: with skl2onnx's en_US, ONNX Runtime needs a language pack."""
    for node in made.graph.node:
        if node.op_type == "StringNormalizer":
            kept = [attribute for attribute in node.attribute if attribute.name != "locale"]
            del node.attribute[:]
            node.attribute.extend([*kept, onnx.helper.make_attribute("locale", "C.UTF-8")])


def _cast_before_trees(onnx: Any, made: Any) -> None:
    """Trees compare FP32 numbers, as the original's do: FP64 inputs are rounded once, right before."""
    nodes = list(made.graph.node)
    del made.graph.node[:]
    for number, node in enumerate(nodes):
        if node.op_type.startswith("TreeEnsemble"):
            rounded = f"fp32_{number}"
            made.graph.node.append(onnx.helper.make_node("Cast", [node.input[0]], [rounded], to=onnx.TensorProto.FLOAT))
            node.input[0] = rounded
            scores = 1 if node.op_type.endswith("Classifier") else 0
            wide, node.output[scores] = node.output[scores], f"scores_{number}"
            made.graph.node.append(node)
            node = onnx.helper.make_node("Cast", [f"scores_{number}"], [wide], to=onnx.TensorProto.DOUBLE)  # noqa: PLW2901
        made.graph.node.append(node)


def _load(request: dict[str, Any], tools: Any) -> Any:
    path = request["source"]
    tools.need("sklearn", "scikit-learn")
    if path.endswith(".skops"):
        io = tools.need("skops.io", "skops")
        unknown = io.get_untrusted_types(file=path)
        strange = [name for name in unknown if name not in TRUSTED and not name.startswith(TRUSTED_MODULES)]
        if strange and not request.get("trust"):
            raise tools.Refused(
                f"{os.path.basename(path)} holds objects of unknown types ({', '.join(strange[:8])}): publish it with "
                "--trust, if you trust where it comes from"
            )
        return io.load(path, trusted=unknown)
    tools.trust(f"{os.path.basename(path)} is a pickle")
    if path.endswith(".joblib"):
        return tools.need("joblib").load(path)
    import pickle

    with open(path, "rb") as file:
        try:
            return pickle.load(file)
        except pickle.UnpicklingError:
            return tools.need("joblib").load(path)


def _name(model: Any) -> str:
    steps = getattr(model, "steps", None)
    return " → ".join(type(step).__name__ for _, step in steps) if steps else type(model).__name__


def _register_boosters(model: Any, tools: Any) -> None:
    """Teaches skl2onnx the models of XGBoost and LightGBM, where they are parts of a pipeline."""
    parts = [model, *(step for _, step in getattr(model, "steps", []))]
    modules = {type(part).__module__.partition(".")[0] for part in parts}
    if not modules & {"xgboost", "lightgbm"}:
        return
    shapes = tools.need("skl2onnx.common.shape_calculator")
    register = tools.need("skl2onnx").update_registered_converter
    choices = {"nocl": [True, False], "zipmap": [True, False, "columns"]}
    if "lightgbm" in modules:
        package = tools.need("lightgbm")
        convert_one = tools.need(
            "onnxmltools.convert.lightgbm.operator_converters.LightGbm", "onnxmltools"
        ).convert_lightgbm
        register(
            package.LGBMClassifier, "LightGbmLGBMClassifier", shapes.calculate_linear_classifier_output_shapes,
            convert_one, options=choices,
        )  # fmt: skip
        register(
            package.LGBMRegressor, "LightGbmLGBMRegressor", shapes.calculate_linear_regressor_output_shapes,
            convert_one, options={"split": None},
        )  # fmt: skip
    if "xgboost" in modules:
        package = tools.need("xgboost")
        convert_one = tools.need(
            "onnxmltools.convert.xgboost.operator_converters.XGBoost", "onnxmltools"
        ).convert_xgboost
        register(
            package.XGBClassifier, "XGBoostXGBClassifier", shapes.calculate_linear_classifier_output_shapes,
            convert_one, options=choices,
        )  # fmt: skip
        register(
            package.XGBRegressor, "XGBoostXGBRegressor", shapes.calculate_linear_regressor_output_shapes, convert_one
        )


# -- inputs ------------------------------------------------------------------------------------------------------------


def _columns(model: Any, tools: Any, numpy: Any) -> list[dict[str, Any]]:
    """The inputs: name, kind (float, int, text), width, and the values that made-up rows take."""
    first = model
    while getattr(first, "steps", None):
        first = first.steps[0][1]
    if _picks_columns(first):
        known = _column_kinds(first, numpy)
        sample = tools.sample() or {}
        found = []
        for name in (str(name) for name in first.feature_names_in_):
            kind, values = known.get(name, ("float", None))
            if name in sample and sample[name].dtype.kind in "USO":
                kind = "text"
            found.append({"name": name, "kind": kind, "width": 1, "values": values, "column": True})
        used = [column for column in found if column["name"] in known]
        unused = [column["name"] for column in found if column["name"] not in known]
        if unused:
            tools.note(f"columns that the model does not use are no inputs: {', '.join(unused[:10])}")
        return used
    if type(first).__name__ in ("CountVectorizer", "TfidfVectorizer", "HashingVectorizer"):
        words = [str(word) for word in list(getattr(first, "vocabulary_", {"word": 0}))[:500]]
        return [{"name": "text", "kind": "text", "width": 1, "values": words, "column": False, "flat": True}]
    width = getattr(model, "n_features_in_", None) or getattr(first, "n_features_in_", None)
    sample = tools.sample()
    if width is None and sample:
        width = next(iter(sample.values())).shape[1]
    if width is None:
        raise tools.Refused(f"{_name(model)} does not tell how many columns it takes: give rows with --sample")
    return [{"name": "input", "kind": "float", "width": int(width), "values": None, "column": False}]


def _picks_columns(first: Any) -> bool:
    if not hasattr(first, "transformers_") or not hasattr(first, "feature_names_in_"):
        return False
    picked = [columns for _, _, columns in first.transformers_]
    return any(isinstance(name, str) for columns in picked if isinstance(columns, (list, tuple)) for name in columns)


def _column_kinds(transformer: Any, numpy: Any) -> dict[str, tuple[str, Any]]:
    """Kind and known values of each column that a transformer uses."""
    found: dict[str, tuple[str, Any]] = {}
    for _, part, columns in transformer.transformers_:
        if isinstance(part, str) and part == "drop":
            continue
        if isinstance(columns, str):
            names = [columns]
        elif isinstance(columns, slice):
            names = [str(name) for name in transformer.feature_names_in_[columns]]
        else:
            names = [
                str(name) if isinstance(name, str) else str(transformer.feature_names_in_[name])
                for name in numpy.asarray(columns).tolist()
            ]
        for number, name in enumerate(names):
            found[name] = _kind_of(part, number, numpy)
    return found


def _kind_of(part: Any, number: int, numpy: Any) -> tuple[str, Any]:
    for step in [step for _, step in getattr(part, "steps", [])] or [part]:
        categories = getattr(step, "categories_", None)
        if categories is not None and number < len(categories):
            values = numpy.asarray(categories[number])
            kind = {"O": "text", "U": "text", "S": "text", "T": "text", "i": "int", "u": "int"}.get(values.dtype.kind)
            return kind or "float", values.tolist()
        statistics = getattr(step, "statistics_", None)
        if statistics is not None and numpy.asarray(statistics).dtype.kind in "OUT":
            return "text", [str(statistics[number])]
        mean, scale = getattr(step, "mean_", None), getattr(step, "scale_", None)
        if mean is not None and scale is not None and number < len(mean):
            return "float", [float(mean[number] + scale[number] * by) for by in (-2, -1, -0.5, 0, 0.5, 1, 2)]
    return "float", None


def _rows(
    columns: list[dict[str, Any]], tools: Any, numpy: Any, model: Any, double: bool
) -> tuple[dict[str, Any], Any]:
    """The rows by input of the served model, and the same rows as the original takes them."""
    given = tools.rows_for([column["name"] for column in columns])
    random = numpy.random.default_rng(0)
    kinds = {"text": str, "int": numpy.int64, "float": numpy.float64}
    rows = {}
    for column in columns:
        if given is not None:
            values = given[column["name"]]
        elif column["values"] is not None:
            values = numpy.array(column["values"])[random.integers(len(column["values"]), size=(64, 1))]
        else:
            values = random.normal(size=(64, column["width"]))
            values = numpy.abs(values) if column["width"] == 1 else values
        rows[column["name"]] = values.astype(kinds[column["kind"]]).reshape(len(values), column["width"])
    if columns[0]["column"]:
        pandas = tools.need("pandas")
        frame = pandas.DataFrame({name: values[:, 0] for name, values in rows.items()})
        every = _first_columns(model)
        for name in every:
            if name not in frame:
                frame[name] = 0.0
        frame = frame[list(every)]
    else:
        frame = next(iter(rows.values()))
        if columns[0].get("flat"):
            frame = [str(text) for text in frame[:, 0]]
        elif hasattr(model, "feature_names_in_"):
            pandas = tools.need("pandas")
            frame = pandas.DataFrame(frame, columns=[str(name) for name in model.feature_names_in_])
    types = {"text": str, "int": numpy.int64, "float": numpy.float64 if double else numpy.float32}
    served = {c["name"]: rows[c["name"]].astype(types[c["kind"]]) for c in columns}
    return served, frame


def _first_columns(model: Any) -> list[str]:
    first = model
    while getattr(first, "steps", None):
        first = first.steps[0][1]
    return [str(name) for name in first.feature_names_in_]


# -- the original's answers --------------------------------------------------------------------------------------------


def _expected(
    model: Any, frame: Any, outputs: list[str], numpy: Any, tools: Any
) -> tuple[dict[str, Any], dict[str, str]]:
    """The original's answers by name, and which output of the ONNX model each of them is."""
    tools.say(f"asks the original for the answers to {len(frame)} rows")
    found: dict[str, Any] = {}
    for method in ("predict", "predict_proba", "decision_function", "transform"):
        function = getattr(model, method, None)
        if function is None:
            continue
        try:
            answers = function(frame)
        except Exception as error:
            tools.note(f"the original's {method} fails: {type(error).__name__}: {str(error)[:200]}")
            continue
        if hasattr(answers, "toarray"):
            answers = answers.toarray()
        found[method] = numpy.asarray(answers)
    if not found:
        raise tools.Refused("the original answers none of the rows; give rows that it takes with --sample")
    pairs = {}
    if "predict" in found:
        pairs[outputs[0]] = "predict"
        scores = next((m for m in ("predict_proba", "decision_function", "transform") if m in found), None)
        if len(outputs) > 1 and scores is not None and found[scores].ndim == 2:
            pairs[outputs[1]] = scores
    else:
        pairs[outputs[0]] = "transform"
    return found, pairs
