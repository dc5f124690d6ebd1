"""Writes versions with Python code: models (model.py) and steps (steps.py)."""

from __future__ import annotations

import textwrap
from pathlib import Path

TEXTS = """\
signatures:
  - inputs: [{name: text, dtype: STRING, shape: [-1]}]
    outputs: [{name: upper, dtype: STRING, shape: [-1]}]
"""

UPPER = """\
def predict(text):
    if b"" in text.tolist():
        raise ValueError("expected a text, got an empty one")
    return {"upper": [word.decode().upper() for word in text]}
"""

FAULTY = """\
import ctypes, os, subprocess, sys, threading
import numpy as np

kept = []

def predict(text):
    return {"upper": do(text[0].decode(), text)}

def do(word, text):
    match word:
        case "value": raise ValueError("a fault of the caller's")
        case "key": raise KeyError("a secret of the code")
        case "leave": sys.exit(7)
        case "exit": os._exit(3)
        case "crash": ctypes.string_at(0)
        case "hang": threading.Event().wait()
        case "leak":
            while True: kept.append(np.ones(4 << 20, np.uint8))
        case "flood":
            for number in range(50_000): print("a line of the flood", number)
        case "children":
            for _ in range(20): subprocess.Popen(["sleep", "600"])
        case "fork":
            if not os.fork(): threading.Event().wait()
        case "twin":
            os.fork()
        case "nothing": return None
        case "numbers": return np.arange(3)
        case "rank": return np.array([["a"]], object)
        case "deep":
            return do(word, text)
    return [part.decode().upper() for part in text]
"""


def write_model(root: Path, name: str, code: str, yaml: str = TEXTS, version: int = 1) -> Path:
    """Writes a model in Python code. Returns the version directory."""
    directory = root / name / str(version)
    directory.mkdir(parents=True)
    (directory / "model.py").write_text(textwrap.dedent(code))
    (root / name / "model.yaml").write_text(yaml)
    return directory
