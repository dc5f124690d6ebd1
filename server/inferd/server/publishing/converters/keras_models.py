"""Keras models, weights and checkpoints → SavedModel, ONNX or LiteRT, compared with the original on rows."""

from __future__ import annotations

import json
import os
import zipfile
from typing import Any

MOST_CONFIG = 64 * 2**20  # bytes of a model's description
OWN_MODULES = ("keras", "keras_hub", "keras_cv", "keras_nlp", "tf_keras", "tensorflow.keras", "builtins")
CODE = ("Lambda", "__lambda__", "TorchModuleWrapper", "TFSMLayer", "JaxLayer", "FlaxLayer")


def convert(request: dict[str, Any], tools: Any) -> dict[str, Any]:
    path = request["source"]
    if not request.get("trust"):
        _look_for_code(path, request, tools)
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
    tensorflow = tools.need("tensorflow")
    keras = tools.need("keras")
    tools.say("reads the model")
    model = _load(path, keras, tensorflow, request, tools)
    numpy = tools.need("numpy")
    if not getattr(model, "built", True):
        raise tools.Refused("the model has no shapes yet: call it once, or build it, before it is saved")
    inputs = _inputs(model, tensorflow, tools)
    given = tools.rows_for([spec.name for spec in inputs])
    rows = _fitting(given, inputs, numpy, tools) if given else _made_up(inputs, numpy)
    count = len(next(iter(rows.values())))
    tools.say(f"asks the original for the answers to {count} rows")
    names = request.get("names") or []
    expected = _named(_answers(model, rows, inputs, numpy), model, names)
    to = request.get("to") or "savedmodel"
    target = request["target"]
    tools.say(f"exports it as {to}")
    if to == "savedmodel":
        _saved_model(model, inputs, names, target, keras, tensorflow)
    elif to == "onnx":
        _onnx(model, inputs, names, os.path.join(target, "model.onnx"), request["work"], keras, tensorflow, tools)
    elif to == "litert":
        _litert(model, inputs, names, os.path.join(target, "model.tflite"), request["work"], keras, tensorflow)
    else:
        raise tools.Refused(f"a Keras model becomes savedmodel, onnx or litert, not {to}")
    tools.keep(rows, expected)
    return {"pairs": {name: name for name in expected}}


# -- reading -----------------------------------------------------------------------------------------------------------


def _look_for_code(path: str, request: dict[str, Any], tools: Any) -> None:
    """Refuses files that bring code along. Keras's own guard has been passed by several times (CVE-2025-1550, -8747,
    -9905, -9906), and the version that is installed here may be an old one."""
    text = ""
    if path.endswith(".keras") and zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            for member in ("config.json",):
                if member in archive.namelist():
                    with archive.open(member) as file:
                        text = file.read(MOST_CONFIG + 1).decode("utf-8", "replace")
    elif path.endswith((".h5", ".hdf5")) and not path.endswith(".weights.h5"):
        h5py = tools.need("h5py")
        try:
            with h5py.File(path, "r") as file:
                value = file.attrs.get("model_config", "")
                text = value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
        except OSError as error:
            raise tools.Refused(f"{os.path.basename(path)} is no HDF5 file: {error}") from None
    if len(text) > MOST_CONFIG:
        raise tools.Refused(f"the description of the model has more than {MOST_CONFIG} bytes")
    try:
        code = os.path.splitext(os.path.basename(request.get("module", "").rpartition(":")[0]))[0]
        _check(json.loads(text) if text else {}, (*OWN_MODULES, *([code] if code else [])), tools)
    except (ValueError, RecursionError):
        raise tools.Refused("the description of the model is no JSON that Keras writes") from None


def _check(value: Any, own: tuple[str, ...], tools: Any) -> None:
    if isinstance(value, list):
        for each in value:
            _check(each, own, tools)
    elif isinstance(value, dict):
        name, module = value.get("class_name"), value.get("module")
        if isinstance(name, str) and name in CODE:
            tools.trust(f"the model holds a {name.strip('_')} layer")
        if isinstance(module, str) and name and module and not _own(module, own):
            tools.trust(
                f"the model names {module[:80]}.{str(name)[:80]}, which is neither Keras's nor that of --module"
            )
        for each in value.values():
            _check(each, own, tools)


def _own(module: str, known: tuple[str, ...]) -> bool:
    return any(module == own or module.startswith(own + ".") for own in known)


def _load(path: str, keras: Any, tensorflow: Any, request: dict[str, Any], tools: Any) -> Any:
    weights = path.endswith((".weights.h5", ".index")) or not os.path.isfile(path)
    if weights or (request.get("module") and path.endswith((".h5", ".hdf5"))):
        if not request.get("module"):
            raise tools.Refused(
                f"{os.path.basename(path)} holds weights without a model: name the function that makes the model with "
                "--module FILE.py:NAME"
            )
        model = tools.made()
        if path.endswith(".h5"):
            model.load_weights(path)
            return model
        prefix = path[: -len(".index")] if path.endswith(".index") else path
        # `read`, not `restore`: that one wants the counter of Checkpoint.save, too.
        status = tensorflow.train.Checkpoint(model=model).read(prefix)
        try:
            status.assert_existing_objects_matched()
        except AssertionError:
            try:  # Model.save_weights of Keras 2 writes the model itself as the root
                tensorflow.train.Checkpoint(model).read(prefix).assert_existing_objects_matched().expect_partial()
            except AssertionError as error:
                raise tools.Refused(f"the checkpoint does not fit the model of --module: {str(error)[:300]}") from None
        status.expect_partial()
        return model
    trust = bool(request.get("trust"))
    if request.get("module"):
        tools.code()  # registers the model's own classes
    try:
        if _major(keras) >= 3:
            return keras.saving.load_model(path, compile=False, safe_mode=not trust)
        return keras.models.load_model(path, compile=False)
    except (TypeError, ValueError) as error:
        first = (str(error).strip().splitlines() or [""])[0]
        raise tools.Refused(
            f"keras {keras.__version__} cannot read {os.path.basename(path)}: {first[:300]}. Own layers need "
            "--module FILE.py:NAME, the file that defines them; a model of another Keras needs its own interpreter "
            "(--python)"
        ) from None


def _major(keras: Any) -> int:
    return int(str(getattr(keras, "__version__", "2")).partition(".")[0])


# -- inputs and outputs ------------------------------------------------------------------------------------------------


def _inputs(model: Any, tensorflow: Any, tools: Any) -> list[Any]:
    """The inputs as TensorSpecs with names, the batch axis free."""
    tensors = tensorflow.nest.flatten(model.inputs) if getattr(model, "inputs", None) else []
    if not tensors:  # a model that is a class of its own
        return _told_inputs(tensorflow, tools)
    specs = []
    for number, tensor in enumerate(tensors):
        shape = [None, *tensor.shape[1:]]
        name = str(getattr(tensor, "name", "") or f"input_{number}").partition(":")[0]
        specs.append(tensorflow.TensorSpec(shape, tensor.dtype, name=_word(name)))
    return specs


def _told_inputs(tensorflow: Any, tools: Any) -> list[Any]:
    """The inputs as the sample rows show them."""
    sample = tools.sample()
    if not sample:
        raise tools.Refused("the model does not tell its inputs: give rows with --sample, arrays by names of inputs")
    kinds = {"U": tensorflow.string, "S": tensorflow.string, "f": tensorflow.float32}
    return [
        tensorflow.TensorSpec([None, *array.shape[1:]], kinds.get(array.dtype.kind, array.dtype), name=_word(name))
        for name, array in sample.items()
    ]


def _word(name: str) -> str:
    """A name that TensorFlow takes for an argument."""
    return "".join(letter if letter.isalnum() or letter == "_" else "_" for letter in name)


def _output_names(model: Any, count: int, names: list[str]) -> list[str]:
    if names:
        return (names + [f"output_{i}" for i in range(len(names), count)])[:count]
    own = [_word(str(name).rpartition("/")[2]) for name in getattr(model, "output_names", None) or []]
    return own if len(own) == count and len(set(own)) == count else [f"output_{i}" for i in range(count)]


def _call(model: Any, tensors: list[Any]) -> Any:
    structure = getattr(model, "input", None)
    if isinstance(structure, dict):
        return model(dict(zip(structure, tensors)), training=False)
    return model(tensors[0] if len(tensors) == 1 else tensors, training=False)


def _flat(outputs: Any) -> list[Any]:
    if isinstance(outputs, dict):
        return [outputs[name] for name in outputs]
    return list(outputs) if isinstance(outputs, (list, tuple)) else [outputs]


def _named(outputs: Any, model: Any, names: list[str]) -> dict[str, Any]:
    if isinstance(outputs, dict) and not names:
        return {_word(str(name)): value for name, value in outputs.items()}
    flat = _flat(outputs)
    return dict(zip(_output_names(model, len(flat), names), flat))


def _answers(model: Any, rows: dict[str, Any], inputs: list[Any], numpy: Any) -> Any:
    """The original's answers, 32 rows at a time."""
    count = len(next(iter(rows.values())))
    parts: list[Any] = []
    for start in range(0, count, 32):
        part = [rows[spec.name][start : start + 32] for spec in inputs]
        answer = _call(model, part)
        if isinstance(answer, dict):
            parts.append({name: numpy.asarray(value) for name, value in answer.items()})
        else:
            parts.append([numpy.asarray(value) for value in _flat(answer)])
    if isinstance(parts[0], dict):
        return {name: numpy.concatenate([part[name] for part in parts]) for name in parts[0]}
    return [numpy.concatenate([part[i] for part in parts]) for i in range(len(parts[0]))]


def _fitting(given: dict[str, Any], inputs: list[Any], numpy: Any, tools: Any) -> dict[str, Any]:
    fitting = {}
    for spec in inputs:
        array = given[spec.name]
        shape = spec.shape.as_list()
        if array.ndim != len(shape) or any(want not in (None, got) for want, got in zip(shape[1:], array.shape[1:])):
            raise tools.Refused(f"sample for input {spec.name!r}: expected shape {shape}, got {list(array.shape)}")
        fitting[spec.name] = array if array.dtype.kind in "US" else array.astype(spec.dtype.as_numpy_dtype)
    return fitting


def _made_up(inputs: list[Any], numpy: Any) -> dict[str, Any]:
    random = numpy.random.default_rng(0)
    rows = {}
    for spec in inputs:
        shape = [64, *(8 if size is None else size for size in spec.shape.as_list()[1:])]
        if spec.dtype.is_floating:
            rows[spec.name] = random.random(shape).astype(spec.dtype.as_numpy_dtype)
        elif spec.dtype.name == "string":
            rows[spec.name] = numpy.full(shape, "a b c")
        else:
            rows[spec.name] = random.integers(0, 2, shape).astype(spec.dtype.as_numpy_dtype)
    return rows


# -- formats -----------------------------------------------------------------------------------------------------------


def _function(model: Any, inputs: list[Any], names: list[str], tensorflow: Any) -> Any:
    """A TensorFlow function with named inputs and outputs, in inference mode."""

    def serve(*tensors: Any) -> Any:
        return _named(_call(model, list(tensors)), model, names)

    return tensorflow.function(serve, input_signature=inputs)


def _saved_model(model: Any, inputs: list[Any], names: list[str], target: str, keras: Any, tensorflow: Any) -> None:
    function = _function(model, inputs, names, tensorflow)
    if _major(keras) >= 3:
        archive = keras.export.ExportArchive()
        archive.track(model)
        archive.add_endpoint("serving_default", function)
        archive.write_out(target, verbose=False)
        return
    module = tensorflow.Module()
    module.model = model
    tensorflow.saved_model.save(module, target, signatures={"serving_default": function})


def _onnx(
    model: Any, inputs: list[Any], names: list[str], path: str, work: str, keras: Any, tensorflow: Any, tools: Any
) -> None:
    convert = tools.need("tf2onnx", "tf2onnx").convert
    tools.need("onnx")
    function = _function(model, inputs, names, tensorflow)
    made, _ = convert.from_function(function, input_signature=inputs, opset=17)
    wanted = list(function.get_concrete_function().structured_outputs)
    onnx = tools.need("onnx")
    for output, name in zip(made.graph.output, wanted):
        if output.name != name:
            made.graph.node.append(onnx.helper.make_node("Identity", [output.name], [name]))
            output.name = name
    made.ir_version = min(made.ir_version, 10)
    onnx.save(made, path)


def _litert(model: Any, inputs: list[Any], names: list[str], path: str, work: str, keras: Any, tensorflow: Any) -> None:
    saved = os.path.join(work, "saved_model")
    _saved_model(model, inputs, names, saved, keras, tensorflow)
    converter = tensorflow.lite.TFLiteConverter.from_saved_model(saved, signature_keys=["serving_default"])
    with open(path, "wb") as file:
        file.write(converter.convert())
