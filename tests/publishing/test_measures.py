"""What is said of two versions' outputs, and what a gate makes of it."""

from __future__ import annotations

from html.parser import HTMLParser

import numpy as np
import pytest

from inferd.server.config.gate_schema import Gate
from inferd.server.publishing.comparison.judge import caution, judge
from inferd.server.publishing.comparison.measures import Figures, figures, rows_for
from inferd.server.publishing.comparison.page import page
from inferd.server.publishing.comparison.task import Comparison, LoadedFacts
from inferd.server.publishing.comparison.text import as_json, lines
from inferd.server.publishing.errors import PublishError
from inferd.server.publishing.optimise.split import divided
from inferd.server.publishing.rows import EXPECTED, SampleRows

rng = np.random.default_rng(0)
SCORES = rng.normal(size=(400, 10)).astype(np.float32)
LABELS = SCORES.argmax(1)


def wrong(count: int) -> np.ndarray:
    """The scores, with another winner in the first rows."""
    made = SCORES.copy()
    made[np.arange(count), (LABELS[:count] + 1) % 10] = 99
    return made


def compared(
    found: Figures, latency: tuple[float, float] = (0.1, 0.1), sizes: tuple[int, int] = (100, 50)
) -> Comparison:
    facts = LoadedFacts("onnx", "up to 32 rows", (), 0.1, "")
    times = {1: ([latency[0]] * 9, [latency[1]] * 9), 32: ([0.2, 0.3], [0.1, 0.4])}
    return Comparison(("m:1", "<m:2>"), found, {1: latency, 32: (0.25, 0.25)}, times, (100, 50), (facts, facts))


def test_labels_make_accuracy_and_a_chance() -> None:
    found = figures({"scores": SCORES}, {"scores": wrong(5)}, LABELS)
    assert found.accuracy == (1.0, 1 - 5 / 400)
    assert (found.lost, found.won, found.rows) == (5, 0, 400)
    assert found.chance == pytest.approx(0.5**5)
    assert found.agreement == 1 - 5 / 400
    assert sum(count for *_, count in found.confusion) == 5


@pytest.mark.parametrize("labels", [LABELS, LABELS.reshape(-1, 1), LABELS.astype(np.float64)])
def test_labels_may_have_several_forms(labels: np.ndarray) -> None:
    assert figures({"s": SCORES}, {"s": SCORES}, labels).accuracy == (1.0, 1.0)


def test_an_output_of_labels_goes_before_scores_and_texts_are_labels() -> None:
    texts = np.array([f"digit {i}" for i in LABELS])
    outputs = {"scores": SCORES, "name": np.array([text.encode() for text in texts], object)}
    found = figures(outputs, outputs, texts)
    assert (found.decided_by, found.accuracy) == ("name", (1.0, 1.0))
    assert figures(outputs, outputs, LABELS).decided_by == "scores"


def test_quantised_scores_decide_too() -> None:
    quantised = np.clip(SCORES * 20, -128, 127).astype(np.int8)
    found = figures({"s": quantised}, {"s": quantised}, LABELS)
    assert found.accuracy is not None
    assert found.accuracy[0] > 0.9


def test_embeddings_have_a_similarity() -> None:
    turned = SCORES + rng.normal(size=SCORES.shape).astype(np.float32) * 0.3
    found = figures({"e": SCORES}, {"e": turned})
    assert found.cosine is not None
    assert 0.9 < found.cosine < 0.99
    refused = judge(Gate(metric="cosine", max_drop=0.01), compared(found))
    assert [o.key for o in refused] == ["max_drop"]
    assert judge(Gate(metric="cosine", max_drop=0.1), compared(found)) == ()


def test_outputs_that_cannot_be_compared_are_told() -> None:
    with pytest.raises(PublishError, match="other outputs: a; b"):
        figures({"a": SCORES}, {"b": SCORES})
    with pytest.raises(PublishError, match=r"two shapes on the same rows: \[400, 10\] and \[400, 9\]"):
        figures({"a": SCORES}, {"a": SCORES[:, :9]})
    with pytest.raises(PublishError, match=r"gate\.output"):
        figures({"a": SCORES}, {"a": SCORES}, output="b")


def test_a_nan_is_never_let_through() -> None:
    broken = SCORES.copy()
    broken[0, 0] = np.nan
    found = figures({"s": SCORES}, {"s": broken}, LABELS)
    assert found.not_finite == 1
    assert any("NaN" in o.text for o in judge(Gate(max_drop=1.0, min_agreement=None), compared(found)))
    same = figures({"s": broken}, {"s": broken}, LABELS)
    assert same.not_finite == 0


def test_each_key_of_the_gate_refuses_with_both_numbers() -> None:
    found = figures({"s": SCORES}, {"s": wrong(40)}, LABELS)
    said = {o.key: o.text for o in judge(Gate(), compared(found))}
    assert said == {
        "max_drop": "accuracy 1.0000 -> 0.9000: a drop of 10%, max_drop is 0.5%",
        "min_agreement": "90% of the rows get the decision that they got before, min_agreement is 99%",
    }
    slow = judge(
        Gate(max_latency=1.1, max_size=20, min_rows=500), compared(figures({"s": SCORES}, {"s": SCORES}), (0.1, 0.2))
    )
    assert [o.text for o in slow] == [
        "400 sample rows decide, 500 are asked for",
        "1 row 100 us -> 200 us: 200%, max_latency is 110%",
        "50 bytes, max_size is 20B",
    ]
    far = judge(Gate(metric="max_abs_diff"), compared(figures({"s": SCORES}, {"s": SCORES + 1})))
    assert [o.key for o in far] == ["max_difference"]
    assert [o.key for o in judge(Gate(metric="accuracy"), compared(figures({"s": SCORES}, {"s": SCORES})))] == [
        "metric"
    ]


def test_a_small_sample_is_said_to_be_small() -> None:
    found = figures({"s": SCORES}, {"s": SCORES}, LABELS)
    assert caution(Gate(), found) == "400 rows show a drop of 1.25% or more; max_drop 0.5% needs about 1000"
    assert caution(Gate(max_drop=0.02), found) == ""
    assert rows_for(0.005) == 1000


class Tags(HTMLParser):
    """Checks that what is opened is closed."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: set[str] = set()

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.seen.add(tag)
        if tag != "meta":
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: object) -> None:
        self.seen.add(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_stands_alone_and_escapes_names() -> None:
    one = compared(figures({"s": SCORES}, {"s": wrong(9)}, LABELS))
    text = page("m & n", [one], [judge(Gate(), one)])
    tags = Tags()
    tags.feed(text)
    assert tags.open == []
    assert {"svg", "rect", "table", "line"} <= tags.seen
    assert not {"script", "link", "img"} & tags.seen
    assert "http" not in text
    assert "&lt;m:2&gt;" in text
    assert "<m:2>" not in text


def test_table_and_json_say_the_same() -> None:
    one = compared(figures({"s": SCORES}, {"s": wrong(9)}, LABELS))
    shown = "\n".join(lines(one))
    for words in ("accuracy", "0.9775", "9 rows lost, 0 won", "latency of 1 row", "latency of 32 rows", "50 B", "50%"):
        assert words in shown
    told = as_json(one, judge(Gate(), one))
    assert told["accuracy"] == [1.0, 0.9775]
    assert told["gate"]["passed"] is False
    assert told["latency_ms"]["1"] == [0.1, 0.1]


# ---- rows that calibrate, rows that judge


def test_rows_calibrate_or_judge_and_never_both() -> None:
    rows = np.concatenate([SCORES, SCORES[:50]])  # equal rows are on one side
    sample = SampleRows({"x": rows, "scale": np.float32(2)}, np.arange(450))
    calibrating, judging = divided(sample, None)
    sides = [{row.tobytes() for row in side["x"]} for side in (calibrating, judging)]
    assert not sides[0] & sides[1]
    assert 60 < len(calibrating["x"]) < 160
    assert len(judging[EXPECTED]) == len(judging["x"])
    np.testing.assert_array_equal(rows[judging[EXPECTED]], judging["x"])
    assert calibrating["scale"] == judging["scale"] == 2
    again, _ = divided(sample, None)
    np.testing.assert_array_equal(again["x"], calibrating["x"])


def test_rows_of_ones_own_calibrate_and_do_not_judge() -> None:
    calibrating, judging = divided(SampleRows({"x": SCORES}, LABELS), SampleRows({"x": SCORES[:100]}))
    assert (len(calibrating["x"]), len(judging["x"])) == (100, 300)
    with pytest.raises(PublishError, match="too few"):
        divided(SampleRows({"x": SCORES[:1]}), None)
    with pytest.raises(PublishError, match="the sample has x"):
        divided(SampleRows({"x": SCORES}), SampleRows({"y": SCORES}))
