"""deploy/: alert rules and the dashboard speak of metrics that exist, in PromQL that Prometheus' own tool takes."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from inferd.server.observability.metrics import Metrics
from inferd.server.workers.metrics_totals import Others, families, server_totals, text

DEPLOY = Path(__file__).resolve().parent.parent / "deploy"
RULES = DEPLOY / "prometheus" / "inferd-rules.yml"
DASHBOARD = DEPLOY / "grafana" / "inferd.json"
VARIABLES = {"$__rate_interval": "5m", "$job": ".*", "$instance": ".*", "$model": ".*"}
PROMTOOL = shutil.which("promtool")
needs_promtool = pytest.mark.skipif(PROMTOOL is None, reason="promtool (Debian's package prometheus) is not installed")


# The functions and keywords of PromQL that may stand before a bracket.
FUNCTIONS = frozenset(
    {"abs", "and", "avg", "by", "changes", "clamp_max", "clamp_min", "count", "delta", "deriv", "group_left",
     "group_right", "histogram_quantile", "ignoring", "increase", "label_replace", "max", "max_over_time", "min",
     "min_over_time", "on", "or", "quantile", "rate", "sum", "time", "topk", "unless", "vector", "without"}
)  # fmt: skip


@pytest.fixture(scope="module")
def samples() -> dict[str, set[str]]:
    """All samples that a server gives once everything has happened to it: the names of their labels, by name."""
    metrics = Metrics(CollectorRegistry(), version="1")
    model = metrics.model("m", 1)
    model.request("grpc", "OK", 0.1, 0.1, 0.1)
    model.batch("s", [None], 1, 0.1)
    model.dropped("full")
    metrics.watch_queue("m", 1, lambda: (1, 1))
    metrics.watch_inflight(lambda: (1, 1))
    metrics.watch_ready(lambda: True)
    metrics.watch_models(lambda: ["m"])
    metrics.watch_worker("m", 1, lambda: 1)
    metrics.watch_expiry(lambda: {"tokens": 1.0}, lambda: 1)
    metrics.state("m", 1, "available")
    metrics.loaded("m", 1, 0.1)
    whole = text(server_totals(families(metrics.everything()), 1, Others()))
    found: dict[str, set[str]] = {"up": set()}
    for family in text_string_to_metric_families(whole.decode()):
        for sample in family.samples:
            found.setdefault(sample.name, set()).update(sample.labels)
    return found


@pytest.fixture(scope="module")
def exported(samples: dict[str, set[str]]) -> set[str]:
    return set(samples)


def rules() -> list[dict[str, Any]]:
    return [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]


def panels() -> Iterator[tuple[str, str]]:
    """Title and expression of each target on the dashboard, its annotations and variables."""
    dashboard = json.loads(DASHBOARD.read_text())
    for panel in dashboard["panels"]:
        for target in panel.get("targets", ()):
            yield panel["title"], target["expr"]
    for annotation in dashboard["annotations"]["list"]:
        yield annotation["name"], annotation["expr"]


def names_in(expression: str) -> set[str]:
    """Metric names of a PromQL expression."""
    bare = re.sub(r'"[^"]*"', '""', expression)
    return set(re.findall(r"\b(?:inferd|process)_\w+|\bup\b|inferd:[\w:]+", bare))


def test_the_rules_name_metrics_that_exist(exported: set[str]) -> None:
    recorded = {rule["record"] for rule in rules() if "record" in rule}
    for rule in rules():
        named = names_in(rule["expr"])
        assert named, f"{rule} watches nothing of inferd's"
        assert named <= exported | recorded, f"{rule}: {named - exported - recorded} is not exported"


def test_every_alert_says_what_and_what_to_do() -> None:
    alerts = [rule for rule in rules() if "alert" in rule]
    assert len(alerts) >= 10
    for rule in alerts:
        assert rule["labels"]["severity"] in {"warning", "critical"}
        assert set(rule["annotations"]) == {"summary", "description"}


def test_the_dashboard_names_metrics_that_exist(exported: set[str]) -> None:
    for title, expression in panels():
        named = names_in(expression)
        assert named, f"{title} shows nothing of inferd's"
        assert named <= exported, f"{title}: {named - exported} is not exported"


def test_the_dashboards_panels_do_not_overlap() -> None:
    taken: dict[tuple[int, int], str] = {}
    dashboard = json.loads(DASHBOARD.read_text())
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])
    for panel in dashboard["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        for x in range(place["x"], place["x"] + place["w"]):
            for y in range(place["y"], place["y"] + place["h"]):
                assert taken.setdefault((x, y), panel["title"]) == panel["title"]


def test_expressions_use_functions_labels_and_durations_that_exist(samples: dict[str, set[str]]) -> None:
    """What can be said of PromQL without Prometheus: a wrong label would make an alert silent."""
    labels = {"job", "instance"} | set().union(*samples.values())
    expressions = [rule["expr"] for rule in rules()] + [expression for _, expression in panels()]
    for expression in expressions:
        bare = re.sub(r'"[^"]*"', '""', expression)
        for opening, closing in ("()", "[]", "{}"):
            assert bare.count(opening) == bare.count(closing), expression
        assert set(re.findall(r"\b([a-z_]+)\s*\(", bare)) <= FUNCTIONS, expression
        used = set(re.findall(r"[{,]\s*(\w+)\s*[=!]", bare))
        for group in re.findall(r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\(([^)]*)\)", bare):
            used |= {name.strip() for name in group.split(",") if name.strip()}
        assert used <= labels, f"{expression}: {used - labels} is no label"
        for duration in re.findall(r"\[([^\]]*)\]", bare):
            assert re.fullmatch(r"\$__rate_interval|[1-9]\d*[smhdw](:[1-9]\d*[smhdw])?", duration), expression
    for rule in rules():
        assert re.fullmatch(r"[1-9]\d*[smhd]", rule.get("for", "1m")), rule


@needs_promtool
@pytest.mark.parametrize(
    "words",
    [("check", "config", "prometheus.yml"), ("check", "rules", RULES.name), ("test", "rules", "inferd-rules-test.yml")],
)
def test_promtool_takes_the_rules(words: tuple[str, ...]) -> None:
    promtool(*words, cwd=RULES.parent)


@needs_promtool
def test_promtool_takes_the_dashboards_expressions(tmp_path: Path) -> None:
    recorded = []
    for number, (_, expression) in enumerate(panels()):
        plain = re.sub(r"\$\w+", lambda variable: VARIABLES[variable[0]], expression)
        recorded.append({"record": f"panel:{number}", "expr": plain})
    file = tmp_path / "panels.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": recorded}]}))
    promtool("check", "rules", str(file), cwd=tmp_path)


def promtool(*words: str, cwd: Path) -> None:
    assert PROMTOOL is not None
    done = subprocess.run([PROMTOOL, *words], cwd=cwd, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
