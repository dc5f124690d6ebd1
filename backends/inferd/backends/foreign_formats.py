"""Files that people put in the place of a model: what they are, and what can be done about it.

    by_name      formats that no backend here serves, told by the names of files
    by_content   files that are not what their name says, told by their first bytes

Both only word errors: they are asked after a load has failed and refuse nothing themselves.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import PurePath

HEAD = 512
"""Bytes of a file that `by_content` looks at."""

_KERAS = "load it with Keras and call model.export('1') to write a SavedModel"
_PICKLE = (
    "a pickled Python object, which is never loaded, because that would run code from the file: convert it to {} first"
)
_WEIGHTS = "weights without the model's code: export the model as model.onnx, model.pt2 or a SavedModel"
_ENGINE = (
    "a TensorRT engine, which works with one GPU and one TensorRT only: serve the model.onnx that it was made from"
)
_BY_SUFFIX = {
    ".joblib": _PICKLE.format("model.onnx (scikit-learn: skl2onnx.to_onnx)"),
    ".pkl": _PICKLE.format("model.onnx (scikit-learn: skl2onnx.to_onnx) or model.pt2 (torch: torch.export.save)"),
    ".pickle": _PICKLE.format("model.onnx (scikit-learn: skl2onnx.to_onnx) or model.pt2 (torch: torch.export.save)"),
    ".pth": "a torch checkpoint (weights without the model's code, or a pickled module), which is never loaded: write "
    "model.pt with torch.jit.save(torch.jit.script(model), 'model.pt') or model.pt2 with torch.export.save",
    ".ckpt": f"a checkpoint, {_WEIGHTS}",
    ".bin": f"a file of {_WEIGHTS}",
    ".safetensors": f"a file of {_WEIGHTS}",
    ".mar": "a TorchServe archive: take the TorchScript file out of it and name it model.pt",
    ".keras": f"a Keras model: {_KERAS}",
    ".h5": f"a Keras model or its weights: {_KERAS}",
    ".hdf5": f"a Keras model or its weights: {_KERAS}",
    ".graphdef": "a frozen graph without signatures: write a SavedModel with tf.compat.v1.saved_model.simple_save",
    ".gguf": "a GGUF file, which needs a server for large language models",
    ".plan": _ENGINE,
    ".engine": _ENGINE,
    ".mlmodel": "a Core ML model: export the model as model.onnx",
    ".mlpackage": "a Core ML model: export the model as model.onnx",
    ".pmml": "a PMML document: convert the model to model.onnx",
    ".xgb": "an XGBoost model: convert it to model.onnx (onnxmltools.convert_xgboost)",
    ".ubj": "an XGBoost model: convert it to model.onnx (onnxmltools.convert_xgboost)",
    ".lgb": "a LightGBM model: convert it to model.onnx (onnxmltools.convert_lightgbm)",
    ".cbm": "a CatBoost model: write model.onnx with model.save_model('model.onnx', format='onnx')",
    ".pdmodel": "a Paddle model: convert it to model.onnx (paddle2onnx)",
}
_BY_NAME = {
    "model.xml": "an OpenVINO model: serve the model that it was made from, as model.onnx",
    "model.py": "a model in Python code, which the backend python serves: leave `backend:` out, or say python",
    "model.json": "a model in JSON (XGBoost, TensorFlow.js), which no backend serves: convert it to model.onnx",
    "model.txt": "a model as text (LightGBM), which no backend serves: convert it to model.onnx",
}
_MISNAMED = {
    ".onnx": "model.onnx",
    ".pt2": "model.pt2",
    ".pt": "model.pt",
    ".torchscript": "model.pt",
    ".tflite": "model.tflite",
    ".pb": "saved_model.pb",
}
_FIRST = (*_MISNAMED, *_BY_SUFFIX)

_BINARY = {
    ".onnx": "ONNX model",
    ".pt": "torch archive",
    ".pt2": "torch archive",
    ".pth": "torch archive",
    ".pb": "SavedModel",
    ".tflite": "LiteRT model",
    ".keras": "Keras archive",
}
_LFS = b"version https://git-lfs.github.com/spec/"
_MAGIC = (
    (b"\x1f\x8b", "a gzip archive: unpack it"),
    (b"\xfd7zXZ\x00", "an xz archive: unpack it"),
    (b"BZh", "a bzip2 archive: unpack it"),
    (b"\x28\xb5\x2f\xfd", "a zstd archive: unpack it"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive: unpack it"),
    (b"\x89HDF\r\n\x1a\n", f"an HDF5 file (Keras writes these): {_KERAS}"),
    (b"\x93NUMPY", "a numpy array"),
    (b"GGUF", _BY_SUFFIX[".gguf"]),
    (b"%PDF", "a PDF document"),
    (b"\x89PNG", "a picture"),
    (b"\x80\x02", _PICKLE.format("an ONNX model or a torch.export program")),
    (b"\x80\x03", _PICKLE.format("an ONNX model or a torch.export program")),
    (b"\x80\x04", _PICKLE.format("an ONNX model or a torch.export program")),
    (b"\x80\x05", _PICKLE.format("an ONNX model or a torch.export program")),
)
_TITLE = re.compile(rb"<(?:title|h1|Code)>([^<]{1,80})<", re.IGNORECASE)
_TAGS = re.compile(r"<[^>]*>")
_QUOTED = 60  # characters of a text that are shown


def is_model_file(name: str) -> bool:
    """Whether a file's name alone tells that it is a model, served or not."""
    path = PurePath(name)
    suffix = path.suffix.lower()
    return suffix in (".onnx", ".pt2", ".pt", ".torchscript", ".tflite") or (
        path.stem == "model" and suffix in _BY_SUFFIX
    )


def by_name(names: Iterable[str]) -> str:
    """What the files of a version directory without an artefact are, as a text for operators that begins with the name
    of one file; "" if no name tells."""
    found: list[tuple[int, str, str]] = []
    for name in sorted(names):
        suffix = PurePath(name).suffix.lower()
        if suffix in _MISNAMED and name != _MISNAMED[suffix]:
            wanted = _MISNAMED[suffix]
            found.append((_FIRST.index(suffix), name, f"expected the name {wanted}: rename it"))
        elif name in _BY_NAME:
            found.append((len(_FIRST), name, f"is {_BY_NAME[name]}"))
        elif suffix in _BY_SUFFIX:
            found.append((_FIRST.index(suffix), name, f"is {_BY_SUFFIX[suffix]}"))
    if not found:
        return ""
    _, name, text = min(found)
    return f"{name[:100]}: {text}" if text.startswith("expected") else f"{name[:100]} {text}"


def by_content(name: str, head: bytes, size: int) -> str:
    """What a file is that is not what its name says, as a text that begins with its name; "" if nothing is wrong as far
    as its first bytes show. `head`: the first HEAD bytes, `size`: of the whole file."""
    if head.startswith(_LFS):
        whole = re.search(rb"^size (\d{1,20})$", head, re.MULTILINE)
        much = f" of a file of {int(whole[1])} bytes" if whole else ""
        return (
            f"{name} is a Git LFS pointer{much}, not the file itself: run 'git lfs pull' where the repository was "
            "cloned, and copy the files again"
        )
    expected = _BINARY.get(PurePath(name).suffix.lower())
    if expected is None:
        return ""
    if not size:
        return f"{name} is empty (0 bytes), no {expected}: was the copy interrupted, or the disk full?"
    for magic, what in _MAGIC:
        if head.startswith(magic) and not (magic[:1] == b"\x80" and expected == "torch archive"):
            return f"{name} is {what}" if ": " in what else f"{name} is {what}, no {expected}"
    if head.startswith(b"PK\x03\x04") and expected not in ("torch archive", "Keras archive"):
        return (
            f"{name} is a zip archive, no {expected}: torch and Keras write such files; a packed download is one, too"
        )
    if head[257:262] == b"ustar":
        return f"{name} is a tar archive: unpack it"
    if head[4:8] == b"TFL3" and expected != "LiteRT model":
        return f"{name} is a LiteRT (TensorFlow Lite) model, no {expected}: name it model.tflite"
    return _text(name, head, expected)


def _text(name: str, head: bytes, expected: str) -> str:
    """As `by_content`, for a file that is text."""
    start = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    try:
        words = start.decode()
    except UnicodeDecodeError as error:
        if error.reason != "unexpected end of data":  # the head may end within a character
            return ""
        words = start[: error.start].decode()
    if not words or not all(letter.isprintable() or letter in "\r\n\t" for letter in words):
        return ""
    title = _TITLE.search(head)
    if words[:100].lower().startswith(("<!doctype html", "<html", "<head", "<body")):
        shown = title[1].decode(errors="replace") if title else _TAGS.sub(" ", words)
        return (
            f"{name} is a web page (text: {_quoted(shown)}), no {expected}: the download gave an error or a login page"
        )
    if words.startswith("<"):
        shown = title[1].decode(errors="replace") if title else words
        return f"{name} is an XML text ({_quoted(shown)}), no {expected}: object stores answer so when a download fails"
    if words.startswith("{"):
        return f"{name} is a JSON text ({_quoted(words)}), no {expected}: the download gave an error"
    return f"{name} is text ({_quoted(words)}), no {expected}"


def _quoted(words: str) -> str:
    text = " ".join(words.split())
    return repr(text if len(text) <= _QUOTED else f"{text[: _QUOTED - 1]}…")
