"""Makes a LiteRT model in 8 bits from a SavedModel with TensorFlow's converter, in a subprocess.

python -P -m inferd.server.publishing.optimise.litert_program DESCRIPTOR      a JSON request on stdin

    {"parent": PID, "as": "litert-int8", "source": DIRECTORY, "target": FILE, "calibration": FILE.npz or null,
     "signature": "serving_default"}

Inputs and outputs keep their element types and names: clients notice nothing.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np

from inferd.backends.api import LoadError
from inferd.backends.import_order import import_framework
from inferd.server.publishing.probe_worker import answered, serve


def answer(request: Mapping[str, Any], progress: Callable[[str], None]) -> dict[str, Any]:
    """The answer to a request. Never raises."""
    return answered(lambda: _make(request, progress))


def _make(request: Mapping[str, Any], progress: Callable[[str], None]) -> dict[str, Any]:
    tf: Any = import_framework("tensorflow")
    signature = request["signature"]
    try:
        converter = tf.lite.TFLiteConverter.from_saved_model(request["source"], signature_keys=[signature])
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        if request["as"] == "litert-int8":
            progress("calibrates")
            converter.representative_dataset = _rows(Path(request["calibration"]), signature)
            converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        with redirect_stdout(sys.stderr):
            content = converter.convert()
    except Exception as error:
        text = " ".join(str(error).split())[:300] or type(error).__name__
        raise LoadError(f"TensorFlow's converter does not take it: {text}") from None
    Path(request["target"]).write_bytes(content)
    return {"made_with": {"tensorflow": tf.__version__}}


def _rows(path: Path, signature: str) -> Callable[[], Iterator[tuple[str, dict[str, Any]]]]:
    with np.load(path, allow_pickle=False) as archive:
        arrays = {name: archive[name] for name in archive.files}
    rows = max((len(array) for array in arrays.values() if array.ndim), default=1)

    def each() -> Iterator[tuple[str, dict[str, Any]]]:
        for i in range(rows):
            yield signature, {n: a[i : i + 1] if a.ndim and len(a) == rows else a for n, a in arrays.items()}

    return each


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    logging.disable(logging.WARNING)
    serve(sys.argv[1:], answer)
