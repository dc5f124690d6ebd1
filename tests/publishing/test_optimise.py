"""Variants of a classifier of digits: what is published, what is refused, and what the gate says to publish."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.digits_models import trained, write_digits, write_noise, write_sample

from inferd.server.publishing import probe, probe_worker
from inferd.server.publishing.comparison import task, worker
from inferd.server.publishing.comparison.versions import ModelVersions
from inferd.server.publishing.errors import PublishError
from inferd.server.publishing.optimise import litert_program, onnx_program, optimiser
from inferd.server.publishing.optimise.optimiser import OptimiseSettings, optimise
from inferd.server.publishing.optimise.text import lines
from inferd.server.publishing.probe import ProbeSettings
from inferd.server.publishing.publication import PublishSettings, publish
from inferd.server.publishing.sources.material import SourceOptions
from inferd.server.publishing.tasks import TaskFailed

ROOT = Path(__file__).resolve().parents[2]
PROGRAMS = {
    "inferd.server.publishing.probe_worker": probe_worker.answer,
    "inferd.server.publishing.comparison.worker": worker.answer,
    "inferd.server.publishing.optimise.onnx_program": onnx_program.answer,
    "inferd.server.publishing.optimise.litert_program": litert_program.answer,
}


@pytest.fixture
def digits(tmp_path: Path) -> ModelVersions:
    write_digits(tmp_path / "repository" / "digits" / "1" / "model.onnx")
    write_sample(tmp_path / "sample.npz")
    write_noise(tmp_path / "noise.npz")
    return ModelVersions(tmp_path / "repository", "digits")


@pytest.fixture(autouse=True)
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    """The programs run in this process: the same code, without two seconds for a new process each time."""

    def run(command: list[str], asked: Mapping[str, Any], **_rest: object) -> dict[str, Any]:
        found = PROGRAMS[command[-1]](asked, lambda _line: None)
        if "failed" in found:
            raise TaskFailed(found["failed"], found.get("install", ()))
        return found["done"]

    for module in (probe, task, optimiser):
        monkeypatch.setattr(module, "run_task", run)
    monkeypatch.setattr(worker, "_TIMED", 5)


def settings_of(place: ModelVersions, **more: Any) -> OptimiseSettings:
    return OptimiseSettings(sample=place.repository.parent / "sample.npz", **more)


def versions(place: ModelVersions) -> list[str]:
    return sorted(path.name for path in place.directory.iterdir())


def gate(place: ModelVersions, text: str) -> None:
    (place.directory / "model.yaml").write_text(f"gate: {{{text}}}\n")


def test_int8_is_published_with_its_figures(digits: ModelVersions) -> None:
    done = optimise(digits, None, settings_of(digits, kind="int8", publish=True))
    assert done.place == digits.directory / "2"
    (attempt,) = done.attempts
    assert attempt.compared is not None
    found = attempt.compared.figures
    assert found.accuracy is not None
    assert found.accuracy[1] > found.accuracy[0] - 0.005 > 0.9
    assert found.agreement is not None
    assert found.agreement > 0.99
    assert attempt.compared.sizes[1] < 0.4 * attempt.compared.sizes[0]
    assert attempt.compared.facts[1].batching == "up to 32 rows"
    told = json.loads((done.place / ".inferd" / "provenance.json").read_text())
    assert told["source"] == {"kind": "optimised", "uri": "digits:1 int8"}
    assert told["parent"]["version"] == 1
    assert told["metrics"]["accuracy"] == pytest.approx(found.accuracy[1], abs=1e-6)
    assert told["optimised"]["split"]["judge"] == found.rows
    assert told["optimised"]["split"]["calibrate"] + found.rows <= 540
    assert told["checked"]["batching"] == "up to 32 rows"
    assert sorted(told["files"]) == ["model.onnx"]


def test_a_calibration_on_noise_is_refused_and_leaves_nothing(digits: ModelVersions) -> None:
    noise = digits.repository.parent / "noise.npz"
    done = optimise(digits, 1, settings_of(digits, kind="int8", publish=True, calibration=noise))
    assert done.chosen is None
    (attempt,) = done.attempts
    assert [objection.key for objection in attempt.objections] == ["max_drop", "min_agreement"]
    assert any(line.startswith("int8: max_drop: accuracy 0.9") for line in lines(done))
    assert attempt.objections[0].text.startswith("accuracy 0.9")
    assert versions(digits) == ["1"]
    assert sorted(path.name for path in digits.repository.iterdir()) == ["digits"]


def test_what_the_gate_refuses_can_be_forced_and_that_is_recorded(digits: ModelVersions) -> None:
    noise = digits.repository.parent / "noise.npz"
    wanted = settings_of(digits, kind="int8", publish=True, calibration=noise, force="for a demonstration")
    done = optimise(digits, 1, wanted)
    assert done.place is not None
    told = json.loads((done.place / ".inferd" / "provenance.json").read_text())
    assert told["forced"] == "for a demonstration"
    assert told["optimised"]["objections"][0].startswith("accuracy")


def test_auto_takes_what_passes_and_keeps_batches(digits: ModelVersions) -> None:
    done = optimise(digits, None, settings_of(digits))
    assert [attempt.kind.name for attempt in done.attempts] == ["int8", "int8-dynamic"]
    assert done.chosen is not None
    assert done.chosen.kind.name == "int8"
    assert "DynamicQuantizeLinear" in done.attempts[1].unbatched
    assert done.place is None
    assert versions(digits) == ["1"]


def test_fp16_is_half_as_large_and_answers_the_same(digits: ModelVersions) -> None:
    gate(digits, "max_size: 60KB")
    done = optimise(digits, None, settings_of(digits, kind="fp16"))
    assert done.attempts[0].passed
    assert done.attempts[0].compared is not None
    assert done.attempts[0].compared.figures.agreement == 1.0
    gate(digits, "max_size: 20KB")
    done = optimise(digits, None, settings_of(digits, kind="fp16"))
    assert [objection.key for objection in done.attempts[0].objections] == ["max_size"]


def test_a_variant_is_not_optimised_again(digits: ModelVersions) -> None:
    optimise(digits, None, settings_of(digits, kind="int8", publish=True))
    with pytest.raises(PublishError, match="digits:2 is made from digits:1 already"):
        optimise(digits, 2, settings_of(digits, kind="fp16"))
    assert optimise(digits, None, settings_of(digits, kind="int8")).parent == "digits:1"
    (digits.directory / "2" / ".inferd" / "provenance.json").unlink()  # nothing tells it any more, but its operators
    done = optimise(digits, 2, settings_of(digits, kind="int8"))
    assert "quantised already" in done.attempts[0].failed


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        (
            dict.fromkeys(("image", "picture"), np.zeros((540, 64), np.float32)),
            "it holds 'image', 'picture', the model has 'image'",
        ),
        ({"image": np.zeros((540, 63), np.float32)}, "expected shape [-1, 64]"),
        ({"image": np.zeros((1, 64), np.float32)}, "too few"),
    ],
)
def test_a_sample_that_does_not_fit_is_told_in_one_line(
    digits: ModelVersions, tmp_path: Path, arrays: dict[str, Any], words: str
) -> None:
    arrays = {name: array + np.arange(len(array), dtype=np.float32)[:, None] for name, array in arrays.items()}
    np.savez(tmp_path / "wrong.npz", **arrays)
    try:
        done = optimise(digits, None, OptimiseSettings(kind="fp16", sample=tmp_path / "wrong.npz"))
        said = done.attempts[0].failed
    except PublishError as error:
        said = str(error)
    assert words in said
    assert "\n" not in said


def test_other_formats_say_what_can_be_done(digits: ModelVersions) -> None:
    (digits.directory / "1" / "model.onnx").rename(digits.directory / "1" / "model.pt2")
    with pytest.raises(PublishError, match=r"no variant can be made from model\.pt2: export the model to ONNX"):
        optimise(digits, None, settings_of(digits))


def test_a_new_version_is_held_to_the_gate_when_it_is_published(digits: ModelVersions, tmp_path: Path) -> None:
    (digits.directory / "rows.npz").write_bytes((tmp_path / "sample.npz").read_bytes())
    gate(digits, "sample: rows.npz, min_agreement: 90%")
    write_digits(tmp_path / "wrong" / "model.onnx", permuted=True)
    with pytest.raises(PublishError, match=r"gate: max_drop: accuracy 0\.9\d+ -> 0\.0\d+"):
        publish("digits", str(tmp_path / "wrong" / "model.onnx"), digits.repository, PublishSettings())
    assert versions(digits) == ["1", "model.yaml", "rows.npz"]
    write_digits(tmp_path / "good" / "model.onnx")
    made = publish("digits", str(tmp_path / "good" / "model.onnx"), digits.repository, PublishSettings())
    told = json.loads((made.place / ".inferd" / "provenance.json").read_text())
    assert told["gate"]["against"] == "digits:1"
    assert told["gate"]["passed"] is True
    forced = PublishSettings(force="the labels have changed")
    made = publish("digits", str(tmp_path / "wrong" / "model.onnx"), digits.repository, forced)
    assert any(note.startswith("published although gate: max_drop") for note in made.notes)


def test_a_gate_without_rows_says_so(digits: ModelVersions, tmp_path: Path) -> None:
    gate(digits, "min_rows: 100")
    source = str(digits.directory / "1" / "model.onnx")
    assert any(
        "the gate is not asked" in note
        for note in publish("digits", source, digits.repository, PublishSettings()).notes
    )
    options = SourceOptions(sample=tmp_path / "sample.npz")
    made = publish("digits", source, digits.repository, PublishSettings(source=options))
    assert not any("the gate is not asked" in note for note in made.notes)


def test_a_gates_sample_may_not_lead_out_of_the_models_directory(digits: ModelVersions, tmp_path: Path) -> None:
    gate(digits, "sample: ../../sample.npz")
    with pytest.raises(PublishError, match=r"gate\.sample"):
        optimise(digits, None, OptimiseSettings(kind="fp16"))


def test_settings_over_the_files_reach_the_gate(digits: ModelVersions) -> None:
    probe_settings = ProbeSettings(sets=["models.digits.gate.max_size=1KB"])
    done = optimise(digits, None, settings_of(digits, kind="int8", probe=probe_settings))
    assert [objection.key for objection in done.attempts[0].objections] == ["max_size"]


@pytest.mark.heavy
@pytest.mark.filterwarnings("ignore")
def test_a_saved_model_becomes_a_litert_model_in_8_bits(tmp_path: Path) -> None:
    pytest.importorskip("tensorflow")
    place = ModelVersions(tmp_path / "repository", "digits_tf")
    shutil.copytree(ROOT / "model_repository" / "digits_tf", place.directory)
    _, images, labels = trained()
    np.savez(tmp_path / "sample.npz", image=images * 16, expected=labels)  # this model takes the numbers of the pixels
    done = optimise(place, None, settings_of(place, kind="litert-int8", publish=True))
    assert done.place is not None, done.attempts
    assert sorted(path.name for path in done.place.iterdir()) == [".inferd", "model.tflite"]
    (attempt,) = done.attempts
    assert attempt.compared is not None
    assert [facts.backend for facts in attempt.compared.facts] == ["tensorflow", "litert"]
    assert attempt.compared.facts[1].batching == "up to 32 rows"
    assert attempt.compared.figures.agreement is not None
    assert attempt.compared.figures.agreement > 0.99
    assert attempt.compared.sizes[1] < 0.3 * attempt.compared.sizes[0]


def test_weights_in_a_file_of_their_own_do_not_come_along(digits: ModelVersions) -> None:
    import onnx

    path = digits.directory / "1" / "model.onnx"
    onnx.save_model(
        onnx.load(path), str(path), save_as_external_data=True, location="model.onnx.data", size_threshold=0
    )
    (digits.directory / "1" / "labels.txt").write_text("zero\n")
    assert (digits.directory / "1" / "model.onnx.data").stat().st_size > 90_000
    done = optimise(digits, None, settings_of(digits, kind="int8", publish=True))
    assert done.place is not None, done.attempts
    assert sorted(path.name for path in done.place.iterdir()) == [".inferd", "labels.txt", "model.onnx"]
