"""A TensorFlow text model that pads each run to its longest text: answers must not depend on other callers' texts.

The model splits texts at blanks, looks every word up and takes the mean over the padded length. So a text that shares a
run with a longer one gets another answer. As installed the server must not batch it.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
import sys
import threading
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
from chaos.callers import DEADLINE, PAUSE, Caller, Target
from chaos.scenario import Scenario
from chaos.stage import CannotPlay, Setup, Stage
from chaos.tally import Tally
from tritonclient.grpc import InferenceServerClient, InferInput
from tritonclient.utils import InferenceServerException

from inferd.client import AsyncClient, InferdError, RequestError

Asked = Sequence[tuple[list[str], list[list[float]]]]
"""Texts of one request, and their answers."""

WRITE = """
import json, sys
import numpy as np
import tensorflow as tf

class Score(tf.Module):
    def __init__(self):
        self.table = tf.Variable(np.random.default_rng(0).normal(size=(1000, 4)).astype(np.float32))
    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="text")])
    def score(self, text):
        words = tf.strings.to_hash_bucket_fast(tf.strings.split(text).to_tensor(""), 1000)
        return {"score": tf.reduce_mean(tf.gather(self.table, words), 1)}

model = Score()
tf.saved_model.save(model, sys.argv[1], signatures={"serving_default": model.score})
rng = np.random.default_rng(1)
asked = []
for number in range(40):
    texts = [" ".join(f"word{w}" for w in rng.integers(0, 500, rng.integers(1, 20))) for _ in range(1 + number % 3)]
    asked.append((texts, model.score(tf.constant(texts))["score"].numpy().tolist()))
json.dump(asked, open(sys.argv[2], "w"))
"""


def write_texts(directory: Path, answers: Path) -> None:
    """Writes the version, and requests with their answers. In a process of its own, because TensorFlow stays in
    memory. Raises CannotPlay without TensorFlow."""
    done = subprocess.run(
        [sys.executable, "-c", WRITE, str(directory), str(answers)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise CannotPlay(f"the text model cannot be written: {done.stderr.strip()[-300:]}")


def _check(tally: Tally, texts: list[str], wanted: list[list[float]], got: object) -> None:
    found = np.asarray(got)
    right = found.shape == np.shape(wanted) and bool(np.allclose(found, wanted, atol=1e-4))
    tally.answer(right, f"{texts}: {found.tolist()} instead of {wanted}")


def native_texts(asked: Asked, target: Target, tally: Tally, stop: threading.Event, in_flight: int = 24) -> None:
    """inferd's asyncio client."""

    async def call(client: AsyncClient, i: int) -> None:
        while not stop.is_set():
            texts, wanted = asked[i % len(asked)]
            i += in_flight
            tally.send()
            try:
                answer = await client.predict(target.model, {"text": np.array([t.encode() for t in texts], object)})
            except InferdError as error:
                code = error.code.name if isinstance(error, RequestError) else type(error).__name__
                tally.refuse("native", code, str(error))
                await asyncio.sleep(PAUSE)
            else:
                _check(tally, texts, wanted, answer["score"])

    async def call_all() -> None:
        async with AsyncClient(target.grpc, retry=target.retry, timeout=DEADLINE) as client:
            await asyncio.gather(*(call(client, i) for i in range(in_flight)))

    asyncio.run(call_all())


def oip_texts(asked: Asked, target: Target, tally: Tally, stop: threading.Event) -> None:
    """Triton's own client over gRPC, one request at a time, without retries."""
    i = 0
    with InferenceServerClient(target.grpc) as client:
        while not stop.is_set():
            i += 7
            texts, wanted = asked[i % len(asked)]
            tensor = InferInput("text", [len(texts)], "BYTES")
            tensor.set_data_from_numpy(np.array([text.encode() for text in texts], object))
            tally.send()
            try:
                answer = client.infer(target.model, [tensor], client_timeout=DEADLINE)
            except InferenceServerException as error:
                tally.refuse("oip", (error.status() or "").removeprefix("StatusCode.") or "none", error.message())
                stop.wait(PAUSE)
            else:
                _check(tally, texts, wanted, answer.as_numpy("score"))


class MixedTexts(Scenario):
    name = "mixed-texts"
    fault = "texts of very different lengths come together to a TensorFlow model that pads each run to its longest"
    promise = "every caller gets the answer to its own texts, also while new versions of the model are loaded"
    model = "score"
    shown = "backends/tensorflow/test_texts.py::test_a_model_that_pads_to_the_longest_text_is_not_batched"
    setup = Setup(texts=True)

    def __init__(self) -> None:
        self.version = 1

    def callers(self, stage: Stage) -> Sequence[Caller]:
        asked = json.loads(stage.answers.read_text())
        return (partial(native_texts, asked), partial(oip_texts, asked), partial(oip_texts, asked))

    def strike(self, stage: Stage) -> None:
        self.version += 1
        model = stage.root / self.model
        shutil.copytree(model / "1", hidden := model / f".tmp-{self.version}")
        hidden.rename(model / str(self.version))
        stage.available(self.model, self.version)

    def settle(self, stage: Stage) -> None:
        with stage.client() as client:
            (version,) = [v for v in client.status(self.model).versions if v.version == self.version]
        assert version.batching.startswith("unbatched"), version.batching


SCENARIOS: tuple[type[Scenario], ...] = (MixedTexts,)
