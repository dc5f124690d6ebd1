"""The output of the measurements: charts, and the generated part of a document."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from benchmarks.charts import Bars
from benchmarks.pages import write
from benchmarks.report import Table

SVG = "{http://www.w3.org/2000/svg}"


def test_the_longest_bar_of_a_group_sets_its_scale() -> None:
    bars = Bars("a < b", ["one", "two"])
    bars.add("x & y", [100.0, 5.0])
    bars.add("half", [50.0, 10.0])
    bars.add("none", [None, 0.0])
    drawn = ET.fromstring(bars.svg())
    widths = [float(rect.get("width", "nan")) for rect in drawn.iter(f"{SVG}rect")]
    full = max(widths)
    assert widths == [full, full / 2, 0, full / 2, full, 0]
    texts = [text.text for text in drawn.iter(f"{SVG}text")]
    assert "a < b" in texts
    assert texts.count("x & y") == 2
    assert texts.count("not measured") == 1


@pytest.mark.parametrize("values", [[1.0], [1.0, -1.0], [1.0, float("inf")], [1.0, float("nan")]])
def test_values_that_cannot_be_drawn_are_refused(values: list[float]) -> None:
    with pytest.raises(ValueError, match="expected"):
        Bars("t", ["one", "two"]).add("x", values)


def test_only_the_text_between_the_markers_changes(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- peers: generated -->\nold\n<!-- peers: end -->\nafter\n")
    table = Table("T", ("a",), [[1]], "how", plots={"tiny": "<svg/>"})
    for _ in range(2):
        write(page, "peers", [table], "the command")
        text = page.read_text()
        assert text.startswith("before\n<!-- peers: generated -->\n")
        assert text.endswith("\n<!-- peers: end -->\nafter\n")
        assert "old" not in text
        assert text.count("### T") == 1
        assert "`the command`" in text
        assert "![T](plots/peers-tiny.svg)" in text
    assert (tmp_path / "plots" / "peers-tiny.svg").read_text() == "<svg/>"


@pytest.mark.parametrize("text", ["", "<!-- x: generated -->", "<!-- x: end --><!-- x: generated -->"])
def test_a_document_without_the_markers_is_left_alone(tmp_path: Path, text: str) -> None:
    page = tmp_path / "page.md"
    page.write_text(text)
    with pytest.raises(ValueError, match="once each"):
        write(page, "x", [], "c")
    assert page.read_text() == text
