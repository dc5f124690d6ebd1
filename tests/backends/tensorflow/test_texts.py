"""A text model that pads each run to its longest text, from the file to what an operator sees."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from inferd.backends.registry import Registry
from inferd.backends.tensorflow.backend import TensorFlowBackend
from inferd.server.config.schema import ModelConfig
from inferd.server.lifecycle.loading.cancellation import Cancellation
from inferd.server.lifecycle.loading.load_request import LoadRequest
from inferd.server.lifecycle.loading.loader import Loader
from inferd.server.lifecycle.servable import Servable
from inferd.server.lifecycle.state import ServableId
from inferd.server.repository.disk import VersionOnDisk
from inferd.server.repository.tree import read_tree

pytestmark = pytest.mark.heavy
Load = Callable[..., Servable]


@pytest.fixture(scope="module")
def version(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import tensorflow as tf

    class Score(tf.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            self.table = tf.Variable(np.random.default_rng(0).normal(size=(100, 4)).astype(np.float32))

        @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="text")])  # type: ignore[untyped-decorator]
        def score(self, text: Any) -> Any:
            words = tf.strings.to_hash_bucket_fast(tf.strings.split(text).to_tensor(""), 100)
            return {"score": tf.reduce_mean(tf.gather(self.table, words), 1)}

    directory = tmp_path_factory.mktemp("texts") / "1"
    model = Score()
    tf.saved_model.save(model, str(directory), signatures={"serving_default": model.score})
    return directory


@pytest.mark.parametrize(
    ("settings", "batching"),
    [
        ({}, "unbatched: "),
        ({"batching": {"mode": "trusted"}}, "up to 32 rows (declared, but "),
        ({"batching": {"mode": "off"}}, "unbatched: batching.mode is off"),
    ],
    ids=["as installed", "declared", "off"],
)
def test_a_model_that_pads_to_the_longest_text_is_not_batched(
    version: Path, settings: dict[str, Any], batching: str
) -> None:
    registry = Registry(plugins=[])
    registry.add(TensorFlowBackend())
    loader = Loader(registry, cpu_threads=1)
    disk = VersionOnDisk(1, version, read_tree(version))
    servable = loader.load(LoadRequest(ServableId("score", 1), 1, disk, ModelConfig(**settings)), Cancellation())
    try:
        assert servable.batching.startswith(batching), servable.batching
    finally:
        loader.unload(servable)
