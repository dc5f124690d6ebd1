"""torch modules, state dicts, checkpoints and safetensors → torch.export (model.pt2) or ONNX, compared on rows."""

from __future__ import annotations

import inspect
import json
import os
import re
from typing import Any

KEYS = ("model_state_dict", "state_dict", "model", "net", "network", "weights", "module")
PREFIXES = ("module.", "model.", "net.", "_orig_mod.")
DTYPES = {
    "FP16": "float16", "FP32": "float32", "FP64": "float64", "BF16": "bfloat16", "INT8": "int8", "INT16": "int16",
    "INT32": "int32", "INT64": "int64", "UINT8": "uint8", "BOOL": "bool",
}  # fmt: skip
INPUT = re.compile(r"(?P<name>\w+):(?P<dtype>[A-Z]+\d*)\[(?P<shape>[-\d, ]*)\]")


def convert(request: dict[str, Any], tools: Any) -> dict[str, Any]:
    torch = tools.need("torch")
    numpy = tools.need("numpy")
    torch.manual_seed(0)
    path = request["source"]
    model = _model(path, torch, request, tools)
    model = model.to("cpu").eval()
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    rows = _rows(model, request, torch, numpy, tools)
    names = list(rows)
    tensors = {name: torch.from_numpy(numpy.ascontiguousarray(array)) for name, array in rows.items()}
    count = len(next(iter(rows.values())))
    tools.say(f"asks the original for the answers to {count} rows")
    with torch.no_grad():
        answers = _flat(model(*tensors.values()), torch)
    if not answers:
        raise tools.Refused("the model gives no tensor")
    wanted = request.get("names") or []
    to = request.get("to") or "pt2"
    tools.say(f"exports it as {to}")
    shapes = _shapes(tensors, request, torch, tools)
    if to == "pt2":
        _pt2(model, tensors, wanted, shapes, os.path.join(request["target"], "model.pt2"), torch, tools)
    elif to == "onnx":
        answers_names = _names(answers, wanted)
        _onnx(model, tensors, answers_names, shapes, os.path.join(request["target"], "model.onnx"), torch, tools)
    else:
        raise tools.Refused(f"a torch model becomes pt2 or onnx, not {to}")
    expected = {f"{i:03d}": value.numpy() for i, (_, value) in enumerate(answers)}
    tools.keep(dict(zip(names, rows.values())), expected)
    return {"order": list(expected)}


# -- the module --------------------------------------------------------------------------------------------------------


def _model(path: str, torch: Any, request: dict[str, Any], tools: Any) -> Any:
    weights = _weights(path, torch, request, tools)
    if isinstance(weights, torch.nn.Module):
        return weights
    if not request.get("module"):
        raise tools.Refused(
            f"{os.path.basename(path)} holds weights without a model ({len(weights)} tensors): name the class or "
            "function that makes the model with --module FILE.py:NAME"
        )
    tools.say(f"makes the model with {os.path.basename(request['module'])}")
    model = tools.made()
    if not isinstance(model, torch.nn.Module):
        raise tools.Refused(f"--module makes a {type(model).__name__}, no torch.nn.Module")
    _fill(model, weights, tools)
    return model


def _weights(path: str, torch: Any, request: dict[str, Any], tools: Any) -> Any:
    """The tensors by name, or the whole module if the file holds one."""
    if path.endswith(".safetensors"):
        return _safetensors(path, torch, tools)
    if path.endswith(".index.json"):
        with open(path, encoding="utf-8") as file:
            parts = sorted(set(json.load(file)["weight_map"].values()))
        found: dict[str, Any] = {}
        for part in parts:
            found.update(_safetensors(os.path.join(os.path.dirname(path), os.path.basename(part)), torch, tools))
        return found
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        if not request.get("trust"):
            tools.trust(f"{os.path.basename(path)} holds Python objects besides tensors ({_first(error)})")
        if request.get("module"):
            _as_main(tools)
        content = torch.load(path, map_location="cpu", weights_only=False)
    if isinstance(content, torch.nn.Module):
        return content
    if not isinstance(content, dict):
        raise tools.Refused(f"{os.path.basename(path)} holds a {type(content).__name__}, neither a model nor weights")
    return _state_dict(content, torch, request, tools)


def _as_main(tools: Any) -> None:
    """Whole modules are pickled by the name of their class, which was in __main__ where a script has trained them."""
    import sys

    made = tools.code()
    setattr(sys.modules["__main__"], made.__name__, made)


def _safetensors(path: str, torch: Any, tools: Any) -> dict[str, Any]:
    return dict(tools.need("safetensors.torch", "safetensors").load_file(path))


def _state_dict(content: dict[str, Any], torch: Any, request: dict[str, Any], tools: Any) -> dict[str, Any]:
    key = request.get("key")
    if key:
        if not isinstance(content.get(key), dict):
            there = ", ".join(str(name) for name in list(content)[:10])
            raise tools.Refused(f"the checkpoint has no {key!r}; it has {there}")
        return dict(content[key])
    if content and all(isinstance(value, torch.Tensor) for value in content.values()):
        return content
    for name in KEYS:
        if isinstance(content.get(name), dict):
            tools.note(f"the weights are those of {name!r} in the checkpoint")
            return dict(content[name])
    there = ", ".join(str(name) for name in list(content)[:10])
    raise tools.Refused(
        f"which entry of the checkpoint holds the weights? It has {there}: name one with --checkpoint-key"
    )


def _fill(model: Any, weights: dict[str, Any], tools: Any) -> None:
    pruned = [name for name in weights if name.endswith(("_orig", "_mask"))]
    if any(name.endswith("_mask") for name in pruned):
        raise tools.Refused(
            f"the weights are pruned and hold masks ({pruned[0]}): call torch.nn.utils.prune.remove before saving them"
        )
    own = set(model.state_dict())
    for prefix in PREFIXES:
        if not own & set(weights) and all(name.startswith(prefix) for name in weights):
            weights = {name[len(prefix) :]: value for name, value in weights.items()}
    try:
        model.load_state_dict(weights, strict=True)
    except RuntimeError as error:
        lacking, strange = sorted(own - set(weights)), sorted(set(weights) - own)
        parts = [
            *([f"the file lacks {', '.join(lacking[:4])}"] if lacking else []),
            *([f"the model has no {', '.join(strange[:4])}"] if strange else []),
        ]
        reason = "; ".join(parts) or _first(error)
        raise tools.Refused(f"the weights do not fit the model of --module: {reason}") from None


def _reason(error: Exception) -> str:
    """The beginning of a long explanation."""
    lines = [line.strip() for line in str(error).strip().splitlines() if line.strip()]
    return " ".join(line for line in lines if not line.startswith("The error above"))[:400] or type(error).__name__


def _first(error: Exception) -> str:
    lines = [line.strip() for line in str(error).strip().splitlines() if line.strip()]
    return (lines[-1] if lines else type(error).__name__)[:200]


# -- rows --------------------------------------------------------------------------------------------------------------


def _rows(model: Any, request: dict[str, Any], torch: Any, numpy: Any, tools: Any) -> dict[str, Any]:
    """Rows by the names of the arguments of `forward`. At least two: what is exported with one row is one row for
    ever."""
    arguments = [
        name
        for name, parameter in inspect.signature(model.forward).parameters.items()
        if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD)
    ]
    declared = [_declared(text, tools) for text in request.get("inputs") or []]
    sample = tools.sample()
    if sample:
        names = [name for name, _, _ in declared] or [name for name in arguments if name in sample]
        if not names and len(sample) == 1:
            names = arguments[:1] or list(sample)
        rows: dict[str, Any] = tools.rows_for(names or list(sample))
        types = {name: dtype for name, dtype, _ in declared}
        for name, array in rows.items():
            rows[name] = _typed(array, types.get(name), model, torch, numpy)
            if len(array) < 2:
                raise tools.Refused("the sample has one row; expected two or more, or the batch size would be fixed")
        return rows
    if not declared:
        called = ", ".join(arguments) or "x"
        raise tools.Refused(
            f"a torch model does not tell its inputs ({called}): give rows with --sample, or element type and shape "
            f"with --input '{arguments[0] if arguments else 'x'}:FP32[-1,64]'"
        )
    random = numpy.random.default_rng(0)
    rows = {}
    for name, dtype, shape in declared:
        size = [4, *(8 if n == -1 else n for n in shape[1:])]
        if dtype.startswith(("float", "bfloat")):
            rows[name] = random.normal(size=size).astype("float32" if dtype == "bfloat16" else dtype)
        else:
            rows[name] = random.integers(0, 2, size).astype(dtype)
    return rows


def _declared(text: str, tools: Any) -> tuple[str, str, list[int]]:
    found = INPUT.fullmatch(text.strip())
    if found is None or found["dtype"] not in DTYPES:
        raise tools.Refused(f"--input {text!r}: expected NAME:DTYPE[SHAPE], such as 'x:FP32[-1,64]'")
    shape = [int(size) for size in found["shape"].split(",") if size.strip()]
    if not shape or shape[0] != -1:
        raise tools.Refused(f"--input {text!r}: expected -1 as the first dimension, the number of rows")
    return found["name"], DTYPES[found["dtype"]], shape


def _typed(array: Any, dtype: Any, model: Any, torch: Any, numpy: Any) -> Any:
    if dtype is None:
        floats = [p.dtype for p in model.parameters() if p.dtype.is_floating_point]
        own = "float64" if floats and floats[0] == torch.float64 else "float32"
        dtype = own if array.dtype.kind == "f" else None
    return array.astype(dtype) if dtype is not None else array


# -- export ------------------------------------------------------------------------------------------------------------


def _flat(value: Any, torch: Any, name: str = "") -> list[tuple[str, Any]]:
    """The tensors of an answer in order, with the keys of dictionaries."""
    if isinstance(value, torch.Tensor):
        return [(name, value)]
    if isinstance(value, dict):
        return [pair for key, inner in value.items() for pair in _flat(inner, torch, str(key))]
    if isinstance(value, (list, tuple)):
        return [pair for i, inner in enumerate(value) for pair in _flat(inner, torch, f"{name or 'output'}_{i}")]
    return []


def _names(answers: list[tuple[str, Any]], wanted: list[str]) -> list[str]:
    own = [name or "output" for name, _ in answers]
    return (list(wanted) + own[len(wanted) :])[: len(answers)]


def _shapes(tensors: dict[str, Any], request: dict[str, Any], torch: Any, tools: Any) -> dict[str, Any]:
    """Which sizes stay free: the number of rows, and what --input declares as -1."""
    rows = torch.export.Dim("batch", min=1, max=65536)
    free = {name: shape for name, _, shape in (_declared(text, tools) for text in request.get("inputs") or [])}
    found = {}
    for name in tensors:
        inner = {axis: torch.export.Dim.DYNAMIC for axis, size in enumerate(free.get(name, [])) if axis and size == -1}
        found[name] = {0: rows, **inner}
    return found


def _pt2(
    model: Any, tensors: dict[str, Any], names: list[str], shapes: dict[str, Any], path: str, torch: Any, tools: Any
) -> None:
    if names:
        model = _renamed(model, list(tensors), names, torch)
    try:
        program = torch.export.export(model, tuple(tensors.values()), dynamic_shapes=_by_argument(model, shapes))
    except Exception as error:
        raise tools.Refused(
            f"torch {torch.__version__} cannot export the model with any number of rows: {_reason(error)}"
        ) from None
    torch.export.save(program, path)


def _by_argument(model: Any, shapes: dict[str, Any]) -> dict[str, Any]:
    """The shapes by the names of the arguments of `forward`, which are given in order."""
    return dict(zip(inspect.signature(model.forward).parameters, shapes.values()))


def _renamed(model: Any, inputs: list[str], names: list[str], torch: Any) -> Any:
    """The model with names for its outputs. Its `forward` has the arguments of the original, which name the inputs."""
    arguments = ", ".join(inputs)
    code = f"def forward(self, {arguments}):\n    return self.named(self.model({arguments}))\n"
    functions: dict[str, Any] = {}
    exec(code, functions)  # the names are those of arguments, so they are identifiers

    def named(self: Any, outputs: Any) -> dict[str, Any]:
        return dict(zip(names, (value for _, value in _flat(outputs, torch))))

    made = type("Renamed", (torch.nn.Module,), {"forward": functions["forward"], "named": named})()
    made.model = model
    return made.eval()


def _onnx(
    model: Any, tensors: dict[str, Any], names: list[str], shapes: dict[str, Any], path: str, torch: Any, tools: Any
) -> None:
    tools.need("onnx")
    tools.need("onnxscript")
    try:
        torch.onnx.export(
            model,
            tuple(tensors.values()),
            path,
            input_names=list(tensors),
            output_names=names,
            dynamic_shapes=_by_argument(model, shapes),
            dynamo=True,
            external_data=False,
        )
    except Exception as error:
        raise tools.Refused(f"torch {torch.__version__} cannot export the model as ONNX: {_reason(error)}") from None
