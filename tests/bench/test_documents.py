"""The output of the measurements: charts, and the generated part of a document."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from benchmarks.charts import Bars
from benchmarks.pages import write_results, write_summary
from benchmarks.peers import COLUMNS
from benchmarks.report import Table
from benchmarks.summary import summary

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


def test_results_have_a_page_of_their_day_with_their_plots(tmp_path: Path) -> None:
    table = Table("T", ("a",), [[1]], "how", plots={"tiny": "<svg/>"})
    for _ in range(2):
        page = write_results(tmp_path / "results", "peers", [table], "the command")
        text = page.read_text()
        assert text.startswith("# Peers, 20")
        assert text.count("## T\n") == 1
        assert "`the command`" in text
        (image,) = re.findall(r"!\[T\]\((plots/\S+-peers-tiny\.svg)\)", text)
        assert (page.parent / image).read_text() == "<svg/>"


def test_only_the_text_between_the_markers_changes(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- peers: generated -->\nold\n<!-- peers: end -->\nafter\n")
    for _ in range(2):
        write_summary(page, "peers", Table("T", ("a",), [[1]], "how"), "the command")
        text = page.read_text()
        assert text.startswith("before\n<!-- peers: generated -->\n")
        assert text.endswith("\n<!-- peers: end -->\nafter\n")
        assert "old" not in text
        assert text.count("| a |\n| --- |\n| 1 |\n") == 1
        assert "`the command`" in text


@pytest.mark.parametrize("text", ["", "<!-- x: generated -->", "<!-- x: end --><!-- x: generated -->"])
def test_a_document_without_the_markers_is_left_alone(tmp_path: Path, text: str) -> None:
    page = tmp_path / "page.md"
    page.write_text(text)
    with pytest.raises(ValueError, match="once each"):
        write_summary(page, "x", Table("T", ("a",)), "c")
    assert page.read_text() == text


def test_the_summary_has_a_row_for_each_point_and_a_column_for_each_peer() -> None:
    rows = [
        [1, "inferd", 1000.0, 1.0, 50.0, 1.0, 2.0, 100.0],
        [1, "inferd, public API", 500.0, 2.0, 90.0, 2.0, 4.0, 100.0],
        [1, "Other", 250.0, 4.0, 200.0, 4.0, 8.0, 300.0],
        [1, "in process, no server, batches of 1", 4000.0, 0.25, 20.0, 0.2, 0.2, 90.0],
        [32, "inferd", 3000.0, 1.0, 30.0, 5.0, 9.0, 120.0],
        [32, "Other", "failed: it ended", "", "", "", "", 300.0],
        ["", "Third", "not measured: no wheel", "", "", "", "", ""],
    ]
    found = summary([Table("Peers: tiny model, 256 B", COLUMNS, rows)])
    assert found.columns[6:] == ["× Other", "× in process, no server"]
    assert found.rows == [
        ["tiny", 1, 1000.0, 50.0, 1.0, 2.0, "4", "0.25"],
        ["tiny", 32, 3000.0, 30.0, 5.0, 9.0, "-", "-"],
    ]
