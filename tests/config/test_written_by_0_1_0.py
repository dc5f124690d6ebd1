"""What version 0.1.0 wrote is read, or refused with the new name: settings, the state directory, names of metrics.

The files in tests/data/written_by_0_1_0 are what that version wrote and took: every key of both settings files, the
overrides of a server with four requests of an operator, and the series of its /metrics with their labels.
docs/upgrading.md says the same for people.
"""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
import yaml

from inferd.server.config.errors import ConfigError
from inferd.server.config.keys import RENAMED, annotations_at
from inferd.server.config.load import load_config, model_config
from inferd.server.config.schema import ServerConfig
from inferd.server.lifecycle.operations.overrides import FILE, Overrides
from inferd.server.observability import series

OLD = Path(__file__).parents[1] / "data" / "written_by_0_1_0"
UPGRADING = (Path(__file__).parents[2] / "docs" / "upgrading.md").read_text()
CHANGED_DEFAULTS = {"isolation": ("none", "auto")}
RENAMED_SERIES = {"inferd_workers": "inferd_group_workers", "inferd_worker_requests": "inferd_group_requests"}


def test_its_config_yaml_is_read_with_the_same_meaning() -> None:
    found = load_config(OLD / "config.yaml", {}).model_dump(mode="json")
    for section, values in yaml.safe_load((OLD / "config.yaml").read_text()).items():
        if isinstance(values, dict):
            assert values.items() <= found[section].items(), section
        else:
            assert found[section] == values


def test_its_defaults_are_still_the_defaults_but_for_those_that_the_guide_names() -> None:
    old = load_config(OLD / "config.yaml", {}).model_dump(mode="json")
    now = ServerConfig().model_dump(mode="json")
    changed = {key: (old[key], now[key]) for key in old if old[key] != now[key]}
    assert changed == CHANGED_DEFAULTS
    assert all(f"`{key}`" in UPGRADING for key in changed)


def test_its_model_yaml_is_read_with_the_same_meaning() -> None:
    written = yaml.safe_load((OLD / "model.yaml").read_text())
    found, notes = model_config(ServerConfig(), "m", written)
    assert notes == ()
    read = found.model_dump(mode="json")
    for key in ("labels", "batching", "queue", "worker", "instances"):
        assert written[key].items() <= read[key].items()
    for key in ("transition", "isolation", "stateful", "default_priority"):
        assert read[key] == written[key]
    assert read["signatures"][0]["inputs"][0]["reshape"] == [-1, 8, 8]
    assert read["warmup"]["samples"][0]["inputs"]["image"]["fill"] == "random"


@pytest.mark.parametrize(("old", "new"), RENAMED.items())
def test_an_old_key_is_refused_with_the_new_name(tmp_path: Path, old: str, new: str) -> None:
    section, _, key = old.partition(".")
    (tmp_path / "config.yaml").write_text(f"{section}: {{{key}: 5}}\n")
    with pytest.raises(ConfigError, match=f"{re.escape(old)}: expected .* did you mean {re.escape(new)}\\?"):
        load_config(tmp_path / "config.yaml", {})
    assert annotations_at(new.split("."))
    assert f"`{old}`" in UPGRADING
    assert f"`{new}`" in UPGRADING


def test_its_state_directory_is_read_and_written_in_the_same_format(tmp_path: Path) -> None:
    shutil.copy(OLD / FILE, tmp_path / FILE)
    overrides = Overrides(tmp_path)
    assert overrides.of("rows").pin == 1
    assert overrides.of("rows").labels == {"stable": 1}
    assert overrides.of("gone").get("unloaded") is not None
    assert overrides.of("third").versions("loaded") == {1}
    before = overrides.of("third")
    overrides.change("third", before.without("loaded"))
    overrides.change("third", before)
    assert json.loads((tmp_path / FILE).read_text()) == json.loads((OLD / FILE).read_text())


def test_its_series_are_still_exported_with_their_labels() -> None:
    now = {each.name: set(each.labels) for each in vars(series).values() if isinstance(each, series.Series)}
    written = dict(re.findall(r"^(inferd_\w+)\{([\w,]*)\}$", (OLD / "metrics.txt").read_text(), re.MULTILINE))
    assert len(written) > 20
    for name, labels in written.items():
        plain = re.sub(r"_(total|bucket|sum|count|created)$", "", name)
        assert plain in now, name
        assert set(filter(None, labels.split(","))) <= now[plain], name


@pytest.mark.parametrize(("old", "new"), RENAMED_SERIES.items())
def test_series_that_were_renamed_before_0_1_0_are_in_the_guide(old: str, new: str) -> None:
    assert f"`{old}`" in UPGRADING
    assert f"`{new}`" in UPGRADING
    assert new in {each.name for each in vars(series).values() if isinstance(each, series.Series)}
