"""Recorded warm-up requests, written with TensorFlow's own writer and messages, as its users write them."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from support.loading import load
from support.marked import write_version

from inferd.backends.api import LoadError
from inferd.server.config.schema import ModelConfig
from inferd.server.protocols.tfs.warmup_records import MAX_RECORDS, recorded

pytestmark = pytest.mark.heavy
ROWS = 7  # no other part of a load runs this number of rows


def predict(shape: tuple[int, ...] = (ROWS, 4), **spec: str) -> bytes:
    import tensorflow as tf
    from tensorflow_serving.apis import prediction_log_pb2

    log = prediction_log_pb2.PredictionLog()
    log.predict_log.request.model_spec.name = "m"
    for key, value in spec.items():
        setattr(log.predict_log.request.model_spec, key, value)
    log.predict_log.request.inputs["x"].CopyFrom(tf.make_tensor_proto(np.ones(shape, np.float32)))
    return bytes(log.SerializeToString())


def write(version: Path, *logs: bytes) -> Path:
    """Writes a file of records with TensorFlow's own writer."""
    import tensorflow as tf

    file = version / "assets.extra" / "tf_serving_warmup_requests"
    file.parent.mkdir(parents=True)
    with tf.io.TFRecordWriter(str(file)) as writer:
        for log in logs:
            writer.write(log)
    return file


@pytest.fixture
def version(tmp_path: Path) -> Path:
    directory = tmp_path / "m" / "1"
    write_version("onnx", directory, 1.0)
    return directory


@pytest.fixture
def rows(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """The number of rows in every run of an ONNX model."""
    from inferd.backends.onnx.session import OnnxInstance

    seen: list[int] = []
    run = OnnxInstance.run

    def watched(self, signature, inputs, outputs=None):
        seen.append(len(inputs["x"]))
        return run(self, signature, inputs, outputs)

    monkeypatch.setattr(OnnxInstance, "run", watched)
    return seen


def test_every_record_runs_before_the_version_is_served(version: Path, rows: list[int]) -> None:
    write(version, *[predict()] * 3)
    load(version, recorded=recorded).scheduler.close()
    assert rows.count(ROWS) == 3


def test_every_instance_runs_the_records(version: Path, rows: list[int]) -> None:
    write(version, predict())
    load(version, ModelConfig(instances={"count": 2}), recorded=recorded).scheduler.close()
    assert rows.count(ROWS) == 2


def test_warmup_off_runs_no_records(version: Path, rows: list[int]) -> None:
    write(version, predict())
    load(version, ModelConfig(warmup={"mode": "off"}), recorded=recorded).scheduler.close()
    assert ROWS not in rows


def test_a_saved_model_runs_the_records(tmp_path: Path) -> None:
    directory = tmp_path / "m" / "1"
    write_version("tensorflow", directory, 1.0)
    write(directory, predict(), predict(signature_name="serving_default"))
    load(directory, recorded=recorded).scheduler.close()


def test_records_in_tritons_layout_are_found(tmp_path: Path) -> None:
    write_version("tensorflow", tmp_path / "m" / "1" / "model.savedmodel", 1.0)
    write(tmp_path / "m" / "1" / "model.savedmodel", predict(), predict((1, 5)))
    with pytest.raises(LoadError, match=r"record 2 of tf_serving_warmup_requests.*\[-1, 4\].*\[1, 5\]"):
        load(tmp_path / "m" / "1", recorded=recorded)


def test_a_record_that_does_not_fit_fails_the_load(version: Path) -> None:
    write(version, predict(), predict(signature_name="other"))
    with pytest.raises(LoadError, match=r"record 2 of tf_serving_warmup_requests.*no signature 'other'"):
        load(version, recorded=recorded)


def test_a_file_cut_short_fails_the_load(version: Path) -> None:
    file = write(version, predict(), predict())
    file.write_bytes(file.read_bytes()[:-10])
    with pytest.raises(LoadError, match="record 2 is cut short"):
        load(version, recorded=recorded)
    file.write_bytes(b"abc")
    with pytest.raises(LoadError, match="record 1 is cut short"):
        load(version, recorded=recorded)


@pytest.mark.parametrize("record", [b"\xff\xff", b"nonsense", b""], ids=["bytes", "text", "empty"])
def test_records_of_other_messages_fail_the_load(version: Path, record: bytes) -> None:
    write(version, record)
    with pytest.raises(LoadError, match="record 1 of tf_serving_warmup_requests"):
        load(version, recorded=recorded)


def test_too_many_records_fail_the_load(version: Path) -> None:
    write(version, *[predict((1, 4))] * (MAX_RECORDS + 1))
    with pytest.raises(LoadError, match="at most 1000 records"):
        load(version, recorded=recorded)


def test_examples_become_serialized_rows(tmp_path: Path) -> None:
    import tensorflow as tf
    from tensorflow_serving.apis import prediction_log_pb2

    def example(value: float) -> tf.train.Example:
        return tf.train.Example(features=tf.train.Features(feature={
            "a": tf.train.Feature(float_list=tf.train.FloatList(value=[value])),
        }))  # fmt: skip

    classify, regress, multi = (prediction_log_pb2.PredictionLog() for _ in range(3))
    classify.classify_log.request.input.example_list.examples.extend([example(1), example(2)])
    regress.regress_log.request.model_spec.signature_name = "regress"
    regress.regress_log.request.input.example_list.examples.append(example(3))
    multi.multi_inference_log.request.input.example_list.examples.append(example(4))
    for name in ("one", "two"):
        task = multi.multi_inference_log.request.tasks.add()
        task.model_spec.signature_name = name
    write(tmp_path, *(log.SerializeToString() for log in (classify, regress, multi)))
    found = list(recorded(tmp_path))
    assert [request.signature for request in found] == ["serving_default", "regress", "one", "two"]
    assert found[0].inputs["inputs"].tolist() == [example(1).SerializeToString(), example(2).SerializeToString()]


def test_session_runs_are_skipped(tmp_path: Path) -> None:
    from tensorflow_serving.apis import prediction_log_pb2

    log = prediction_log_pb2.PredictionLog()
    log.session_run_log.request.target.append("op")
    write(tmp_path, log.SerializeToString(), predict())
    assert len(list(recorded(tmp_path))) == 1


def test_a_false_length_in_a_record_fails_the_load(tmp_path: Path) -> None:
    (tmp_path / "assets.extra").mkdir()
    file = tmp_path / "assets.extra" / "tf_serving_warmup_requests"
    file.write_bytes(struct.pack("<QI", 2**63, 0) + b"x" * 100)
    with pytest.raises(LoadError, match="cut short"):
        list(recorded(tmp_path))
