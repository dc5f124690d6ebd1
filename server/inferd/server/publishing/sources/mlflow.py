"""MLflow: URIs (models:/, runs:/) and directories with an MLmodel file, by their flavours."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import yaml

from inferd.backends.api import Array
from inferd.server.publishing.errors import PublishError
from inferd.server.publishing.record import Provenance
from inferd.server.publishing.rows import write_rows
from inferd.server.publishing.sources.conversion import run_converter
from inferd.server.publishing.sources.material import SourceOptions
from inferd.server.publishing.staging import Staging
from inferd.server.repository.provenance import shown

Say = Callable[[str], None]
SCHEMES: Final = ("models:/", "runs:/", "mlflow-artifacts:/")
_MOST_BYTES: Final = 64 * 2**20
# Where each flavour says that its model lies, the most direct way first.
_KEYS: Final = {
    "onnx": ("data",),
    "pytorch": ("model_data",),
    "keras": ("data",),
    "tensorflow": ("saved_model_dir", "data"),
    "sklearn": ("pickled_model",),
    "lightgbm": ("data",),
    "xgboost": ("data",),
}
_INSIDE: Final = (
    "model.pt2", "model.pth", "model.pt", "model.keras", "model.h5", "model", "model.onnx",
)  # fmt: skip


def is_uri(source: str) -> bool:
    """Whether a source is an MLflow URI."""
    return source.startswith(SCHEMES)


def download(uri: str, staging: Staging, options: SourceOptions, say: Say) -> tuple[Path, Provenance]:
    """The directory with the MLmodel file that a URI names, and what MLflow knows of it. Raises PublishError."""
    found = run_converter("mlflow_fetch", {"uri": uri}, staging, options, say)
    directory = Path(str(found.get("directory", ""))).resolve()
    if not directory.is_relative_to(staging.work.resolve()) or not directory.is_dir():
        raise PublishError(f"MLflow gave {directory}, which is not where {uri} was to be put")
    name = shown(found.get("name"))
    uri = f"{uri} (version {shown(found.get('version'), 20)})" if name and "@" in uri else uri
    made = Provenance(source={"kind": "mlflow", "uri": uri})
    for key in ("version", "alias", "run_id", "model_id"):
        if text := shown(found.get(key)):
            made.source[key] = text
    made.metrics = {
        str(k): float(v)
        for k, v in _object(found, "metrics").items()
        if isinstance(v, (int, float)) and math.isfinite(v)
    }
    made.params = {str(k): shown(str(v)) for k, v in _object(found, "params").items()}
    if commit := shown(found.get("commit"), 64):
        made.git = {"commit": commit, "remote": shown(found.get("repository"), 200)}
    return directory, made


def model_of(directory: Path, made: Provenance, work: Path) -> tuple[Path, Path | None]:
    """The file or directory of the model in a directory with an MLmodel file, and its example rows. What MLmodel tells
    goes into `made`. Raises PublishError."""
    described = _described(directory / "MLmodel")
    flavours = _object(described, "flavors")
    for key in ("run_id", "model_id"):
        if key not in made.source and (text := shown(described.get(key), 64)):
            made.source[key] = text
    for flavour, keys in _KEYS.items():
        details = flavours.get(flavour)
        if not isinstance(details, dict):
            continue
        made.source["flavour"] = flavour
        for key in keys:
            if isinstance(details.get(key), str):
                return _inside(directory, details[key]), _example(directory, described, work)
        raise PublishError(f"{directory}/MLmodel: the flavour {flavour} does not say where its model lies")
    names = ", ".join(shown(name, 40) for name in list(flavours)[:8]) or "none"
    own = "python_function" in flavours and "python_model" in _object(flavours, "python_function")
    more = "; a model in Python code is served as a Python model" if own else ""
    raise PublishError(
        f"{directory} has no flavour that can be served: it has {names}; expected {', '.join(_KEYS)}{more}"
    )


def _inside(directory: Path, name: str) -> Path:
    """A path that MLmodel names: below its directory, and the file in it if it is a directory of one."""
    path = (directory / name).resolve()
    if not path.is_relative_to(directory.resolve()):
        raise PublishError(f"MLmodel names {shown(name)}, which lies outside its directory")
    if not path.exists():
        raise PublishError(f"MLmodel names {shown(name)}, which is not there")
    if path.is_dir() and not (path / "saved_model.pb").exists():
        for inner in _INSIDE:
            if (path / inner).exists():
                return path / inner
    return path


def _described(path: Path) -> Mapping[str, Any]:
    try:
        data = path.read_bytes()
        if len(data) > 1 << 20:
            raise PublishError(f"{path} is larger than 1 MiB")
        if b"&" in data and b"*" in data:  # aliases: a few bytes may stand for gigabytes
            for event in yaml.parse(data, Loader=yaml.SafeLoader):
                if isinstance(event, yaml.AliasEvent):
                    raise PublishError(f"{path} has aliases, which MLflow does not write")
        content = yaml.safe_load(data)
    except (OSError, yaml.YAMLError, RecursionError, UnicodeDecodeError) as error:
        raise PublishError(f"{path} cannot be read: {type(error).__name__}") from None
    if not isinstance(content, dict):
        raise PublishError(f"{path} is no MLmodel file")
    return content


def _example(directory: Path, described: Mapping[str, Any], work: Path) -> Path | None:
    """The example rows of the model as sample rows, None if there are none that can be read."""
    details = _object(described, "saved_input_example_info")
    name = details.get("artifact_path")
    if not isinstance(name, str):
        return None
    try:
        path = _inside(directory, name)
        if path.stat().st_size > _MOST_BYTES:
            return None
        content = json.loads(path.read_bytes())
        arrays = _arrays(content)
    except (PublishError, OSError, ValueError, RecursionError):
        return None
    if not arrays or any(array.ndim == 0 or len(array) < 2 for array in arrays.values()):
        return None  # one row would fix the number of rows
    target = work / "example.npz"
    write_rows(target, arrays)
    return target


def _arrays(content: Any) -> dict[str, Array]:
    """What MLflow writes: a frame in two parts, `inputs`, or plain lists."""
    if isinstance(content, dict) and isinstance(content.get("columns"), list):
        rows = content.get("data")
        if not isinstance(rows, list):
            return {}
        return {str(name): _array([row[i] for row in rows]) for i, name in enumerate(content["columns"])}
    if isinstance(content, dict) and "inputs" in content:
        content = content["inputs"]
    if isinstance(content, dict):
        return {str(name): _array(values) for name, values in content.items()}
    return {"input": _array(content)}


def _array(values: Any) -> Array:
    array = np.array(values)
    if array.dtype == object:
        raise ValueError("not all rows are alike")
    return array


def _object(value: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    found = value.get(key)
    return found if isinstance(found, dict) else {}
