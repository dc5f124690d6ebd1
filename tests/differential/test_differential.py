"""The differential suite itself: it finds planted differences between two servers, and nothing else."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from differential import models
from differential.catalogue import SCENES
from differential.code import IMPORT_ROOTS, ROOT, WrongCode, checkout, tree
from differential.compare import Difference, Expected, Report, differences, read_expected
from differential.normalise import Normaliser, series
from differential.play import play
from differential.requests import PREDICT, native, native_predict, oip_json, rows
from differential.scene import Notes, Scene
from differential.side import Setup


def _few(notes: Notes) -> None:
    x = {"x": rows(1, 2)}
    for name, request in (("good", native("rows", x)), ("bad", native("rows", x, outputs=["yy"]))):
        notes.see(name, notes.side.ask(PREDICT, request, native_predict.PredictResponse))
    notes.see("rest", notes.side.rest("POST", "/v2/models/rows/infer", oip_json(x)))


FEW = Scene("few", Setup("few", models.write_small, ("server.transport=cq", "instances.on_loop=never")), _few)


def _replace(source: Path, old: str, new: str) -> None:
    """Replaces a text in all files that contain it."""
    found = [path for path in source.rglob("*.py") if old in path.read_text()]
    assert found, f"nothing holds {old!r} any more: plant another change"
    for path in found:
        path.write_text(path.read_text().replace(old, new))


def test_the_same_code_is_equal_and_a_planted_change_is_found(tmp_path: Path) -> None:
    source = tmp_path / "planted"
    for each in IMPORT_ROOTS:
        # The compiled files come along: they stay good, and the server starts sooner.
        shutil.copytree(ROOT / each, source / each)
    shutil.copy(ROOT / "pyproject.toml", source)
    _replace(source, "unknown output {", "unfamiliar output {")
    _replace(source, '"Requests that ran in batches."', '"Requests in batches."')
    code = tree(source, tmp_path / "venv")
    code.verify()
    report = Report()
    play(checkout(), code, [FEW], report)
    assert not report.broken
    assert {(found.case, found.where) for found in report.differences} == {
        ("few/bad", "details"),
        ("few/metrics", "# HELP inferd_batch_requests_total"),
    }
    assert "unfamiliar output 'yy'" in str(report.differences[0])
    assert report.cases == 4  # the metrics are one


def test_code_that_reaches_into_other_code_is_refused(tmp_path: Path) -> None:
    with pytest.raises(WrongCode, match="expected it below"):
        replace(checkout(), roots=(tmp_path,)).verify()
    checkout().verify()


def test_differences_are_told_where_they_are() -> None:
    base = {"a": [1, {"b": "x"}], "c": 1, "d": 1}
    head = {"a": [1, {"b": "y"}], "c": 1.0, "e": 1}
    assert list(differences(base, head)) == [
        ("a.1.b", "x", "y"),
        ("c", 1, 1.0),
        ("d", 1, "<absent>"),
        ("e", "<absent>", 1),
    ]
    assert list(differences([1, 2], [2, 1])) == [("0", 1, 2), ("1", 2, 1)]
    assert list(differences([1], [1, 2])) == [("", [1], [1, 2])]
    assert not list(differences(base, base))


def test_an_expected_difference_is_no_failure_and_nothing_else_is_covered() -> None:
    report = Report([Expected("order/*", "runs.*", "two batches in hand", head="new")])
    report.add(Difference("order/full", "runs.1", "old", "new"))
    assert not report.failed
    report.add(Difference("order/full", "runs.1", "old", "other"))
    assert report.failed
    assert "1 differences, 1 expected ones" in report.text()


def test_what_is_expected_has_a_reason(tmp_path: Path) -> None:
    read_expected(Path(__file__).with_name("expected.toml"))
    path = tmp_path / "expected.toml"
    path.write_text('[[expected]]\ncase = "*"\nwhere = "*"\nreason = " "\n')
    with pytest.raises(ValueError, match="expected a reason"):
        read_expected(path)


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("at 127.0.0.1:4711", "at 127.0.0.1:<port>"),
        ("/tmp/base/models/m: gone", "<place>/models/m: gone"),
        ("after 0.301 s in the queue", "after <time> in the queue"),
        ("expected FP32 [-1, 4], got 3 inputs", "expected FP32 [-1, 4], got 3 inputs"),
        ("32 bytes", "32 bytes"),
        ("id 1fa07ca2-6f", "id <made id>"),
    ],
)
def test_only_what_must_differ_is_normalised(text: str, normal: str) -> None:
    assert Normaliser({"/tmp/base": "<place>"}).text(text) == normal


def test_counts_are_kept_and_times_are_not() -> None:
    page = """# HELP inferd_request_seconds From receipt to reply.
# TYPE inferd_request_seconds histogram
inferd_request_seconds_bucket{le="0.1",model="m"} 3.0
inferd_request_seconds_count{model="m"} 3.0
inferd_request_seconds_sum{model="m"} 0.1
inferd_batch_rows_bucket{le="2.0",model="m"} 1.0
process_open_fds 12.0
"""
    assert series(page) == {
        "# HELP inferd_request_seconds": "From receipt to reply.",
        "# TYPE inferd_request_seconds": "histogram",
        'inferd_request_seconds_count{model="m"}': "3.0",
        'inferd_batch_rows_bucket{le="2.0",model="m"}': "1.0",
    }
    assert 'inferd_batch_rows_bucket{le="2.0",model="m"}' not in series(page, runs=False)


def test_scenes_have_names_of_their_own() -> None:
    names = [scene.name for scene in SCENES]
    assert len(set(names)) == len(names)


def test_broken_invariants_fail() -> None:
    report = Report()
    report.broken.append("races/drain on head (checkout): lost")
    assert report.failed
    assert "BROKEN: races/drain on head" in report.text()
