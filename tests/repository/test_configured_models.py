"""Configured models: each is named and has a base path of its own; all of them can be replaced at once."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.lifecycle import SteppedManager

from inferd.server.compat.model_server_config import ModelEntry, parse_models
from inferd.server.config.errors import ConfigError
from inferd.server.errors import Conflict, NotFound
from inferd.server.repository.configured_models import ConfiguredModel, fixed_models
from inferd.server.repository.models_file import FollowedFile

FULL = """
# two models
model_config_list: {
  config: {
    name: "a"
    base_path: "file:///models/a"
    model_platform: "tensorflow"
    model_version_policy: { specific { versions: 3 versions: [1, 2] } }
    version_labels { key: "stable" value: 1 }
    version_labels { key: 'canary', value: 2 }
    logging_config { sampling_config { sampling_rate: 0.1 } }
  }
  config { name: "b" base_path: "rel/b" model_version_policy { latest { num_versions: 2 } } }
  config { name: "c" base_path: "/c" model_type: TENSORFLOW model_version_policy { all {} } }
  config { name: "d" base_path: "/d" model_version_policy { latest {} } }
}
"""


def publish(base: Path, version: int, text: str = "good") -> Path:
    file = base / str(version) / "model"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    return base


def named(base: Path, policy: dict[str, Any] | None = None, **labels: int) -> ConfiguredModel:
    return ConfiguredModel.of(ModelEntry("m", str(base), "", policy or {}, labels))


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return tmp_path / "elsewhere" / "base"


@pytest.fixture
def serving(make_stepped: Callable[..., SteppedManager], base: Path) -> SteppedManager:
    """Serves version 1 of the model m from its base path."""
    publish(base, 1, "one")
    stepped = make_stepped(repository={"models": {"m": str(base)}})
    stepped.see()
    assert stepped.serves() == {1: "one"}
    return stepped


def test_a_models_file_is_parsed() -> None:
    found = parse_models(FULL, "models.config")
    assert [entry.name for entry in found.entries] == ["a", "b", "c", "d"]
    assert found.entries[0].base_path == "/models/a"
    assert found.entries[0].settings() == {
        "backend": "tensorflow",
        "version_policy": {"specific": [3, 1, 2]},
        "labels": {"stable": 1, "canary": 2},
    }
    assert [entry.policy for entry in found.entries[1:]] == [{"latest": 2}, {"all": True}, {"latest": 1}]
    assert found.notes == ("model a: logging_config is not honoured",)
    assert parse_models("", "empty").entries == ()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("model_config_list {", "line 1"),
        ("custom_model_config {}", "expected model_config_list, got custom_model_config"),
        ("model_config_list { model {} }", "expected config, got model"),
        ('model_config_list { config { base_path: "/a" } }', "config.name: expected a name"),
        ('model_config_list { config { name: "a" } }', "model a.base_path: expected a directory"),
        ('model_config_list { config { name: "a" base_path: "gs://b/a" } }', "got 'gs://b/a'"),
        ('model_config_list { config { name: "a" base_path: "/a" model_platform: "x" } }', "expected tensorflow"),
        ('model_config_list { config { name: "a" base_path: 3 } }', "base_path: expected text in quotes, got 3"),
        (
            'model_config_list { config { name: "a" base_path: "/a" version_labels { key: "1" value: 1 } } }',
            "expected a label",
        ),
        (
            'model_config_list { config { name: "a" base_path: "/a" model_version_policy { specific {} } } }',
            "version_policy.specific: expected at least one item",
        ),
        (
            'model_config_list { config { name: "a" base_path: "/a" } config { name: "a" base_path: "/b" } }',
            "expected every model once",
        ),
    ],
)
def test_a_wrong_models_file_is_refused_with_what_was_expected(text: str, expected: str) -> None:
    with pytest.raises(ConfigError) as refused:
        parse_models(text, "models.config")
    assert expected in str(refused.value)
    assert str(refused.value).startswith("models.config")


def test_a_missing_models_file_is_named(make_stepped: Callable[..., SteppedManager]) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.config: expected a readable file"):
        make_stepped(repository={"models_file": "nowhere.config"})


def test_a_base_path_is_served_and_followed(serving: SteppedManager, base: Path) -> None:
    publish(base, 2, "two")
    serving.settle()
    assert serving.serves() == {2: "two"}
    shutil.rmtree(base / "2")
    serving.settle()
    assert serving.serves() == {1: "one"}


def test_the_models_file_overrides_the_model_yaml_of_a_base_path(
    make_stepped: Callable[..., SteppedManager], base: Path, tmp_path: Path
) -> None:
    for version in (1, 2, 3):
        publish(base, version)
    (base / "model.yaml").write_text("version_policy: {all: true}\nlabels: {new: 1}")
    stepped = make_stepped(repository={"models": {"m": str(base)}})
    stepped.see()
    assert sorted(stepped.serves()) == [1, 2, 3]
    file = tmp_path / "models.config"
    file.write_text(
        f'model_config_list {{ config {{ name: "m" base_path: "{base}" model_version_policy {{ latest '
        "{ num_versions: 2 } } version_labels { key: 'new' value: 3 } } }"
    )
    stepped = make_stepped(repository={"models_file": str(file)})
    stepped.see()
    assert sorted(stepped.serves()) == [2, 3]
    assert stepped.status().labels == {"new": 3}


def test_one_base_path_under_two_names_has_the_settings_of_each(
    make_stepped: Callable[..., SteppedManager], base: Path, tmp_path: Path
) -> None:
    for version in (1, 2, 3):
        publish(base, version)
    file = tmp_path / "models.config"
    only = "model_version_policy { specific { versions: 1 } } version_labels { key: 'old' value: 1 }"
    file.write_text(
        f'model_config_list {{ config {{ name: "m" base_path: "{base}" }} '
        f'config {{ name: "fixed" base_path: "{base}" {only} }} }}'
    )
    stepped = make_stepped(repository={"models_file": str(file)})
    stepped.see()
    assert sorted(stepped.serves()) == [3]
    assert sorted(stepped.serves("fixed")) == [1]
    assert (stepped.status().labels, stepped.status("fixed").labels) == ({}, {"old": 1})


def test_an_unmounted_base_path_unloads_no_version(serving: SteppedManager, base: Path) -> None:
    base.rename(base.with_name("away"))
    serving.settle()
    assert serving.serves() == {1: "one"}
    assert "cannot be read" in serving.status().error
    base.mkdir()  # an empty mount point
    serving.settle()
    serving.settle()
    assert serving.serves() == {1: "one"}
    assert "is it mounted?" in serving.status().error
    base.rmdir()
    base.with_name("away").rename(base)
    serving.see()
    assert serving.status().error == ""
    assert len(serving.loader.loads) == 1


def test_an_emptied_base_path_unloads_its_versions(serving: SteppedManager, base: Path) -> None:
    shutil.rmtree(base / "1")
    serving.settle()
    assert serving.serves() == {}


def test_readiness_waits_for_a_base_path_that_does_not_exist_yet(
    make_stepped: Callable[..., SteppedManager], base: Path
) -> None:
    stepped = make_stepped(repository={"models": {"m": str(base)}})
    stepped.settle()
    assert not stepped.manager.ready()
    assert "cannot be read" in stepped.status().error
    assert any(str(base) in error for error in stepped.manager.repository_errors())
    publish(base, 1, "one")
    stepped.settle()
    assert stepped.manager.ready()
    assert stepped.serves() == {1: "one"}


def test_a_base_path_with_the_name_of_a_model_in_a_root_is_refused_unless_it_is_the_same(
    make_stepped: Callable[..., SteppedManager], base: Path
) -> None:
    publish(base, 1)
    stepped = make_stepped(repository={"models": {"m": str(base), "n": str(base.parents[1] / "models" / "n")}})
    stepped.write("m/1/model")
    stepped.write("n/1/model", "same")
    stepped.settle()
    assert "is in two repositories" in stepped.status().error
    assert stepped.serves("n") == {1: "same"}


def test_a_repository_given_as_a_base_path_is_refused_with_a_hint(
    make_stepped: Callable[..., SteppedManager], base: Path
) -> None:
    publish(base, 1)
    stepped = make_stepped(repository={"models": {"m": str(base.parent)}})
    stepped.see()
    assert "it is a repository. Give it as --model-repository" in stepped.status().error
    assert str(base) in stepped.status().error


def test_links_may_not_lead_out_of_a_base_path(
    make_stepped: Callable[..., SteppedManager], base: Path, tmp_path: Path
) -> None:
    publish(base, 1)
    secret = tmp_path / "secret"
    secret.write_text("x")
    (base / "1" / "link").symlink_to(secret)
    stepped = make_stepped(repository={"models": {"m": str(base)}})
    stepped.settle()
    assert stepped.serves() == {}
    assert "outside the repository" in stepped.version(1).error


# Replacement


def test_a_replacement_adds_changes_and_removes(serving: SteppedManager, base: Path, tmp_path: Path) -> None:
    other = publish(tmp_path / "other", 7, "seven")
    publish(base, 2, "two")
    serving.settle()
    assert sorted(serving.serves()) == [2]
    futures = serving.manager.replace_configured_models(
        {"m": named(base, {"specific": [1, 2]}, stable=1), "n": named(other)}, by="test"
    )
    assert len(futures) == 2
    for future in futures:
        serving.do(future)
    assert serving.serves() == {1: "one", 2: "two"}
    assert serving.status().labels == {"stable": 1}
    assert serving.serves("n") == {7: "seven"}
    (gone,) = serving.manager.replace_configured_models({"n": named(other)}, by="test")
    serving.do(gone)
    assert serving.serves("n") == {7: "seven"}
    with pytest.raises(NotFound):
        serving.manager.acquire("m")
    assert serving.manager.replace_configured_models({"n": named(other)}, by="test") == ()


def test_removing_a_model_ends_with_its_last_request(serving: SteppedManager) -> None:
    handle = serving.manager.acquire("m")
    (gone,) = serving.manager.replace_configured_models({}, by="test")
    serving.settle()
    assert not gone.done()
    handle.release()
    serving.run()
    assert gone.done()


def test_a_model_that_fails_is_reported_and_loaded_when_it_is_repaired(serving: SteppedManager, tmp_path: Path) -> None:
    bad = publish(tmp_path / "bad", 1, "bad")
    (future,) = serving.manager.replace_configured_models(
        {**serving.manager.configured_models, "n": named(bad)}, by="test"
    )
    with pytest.raises(Conflict):
        serving.do(future)
    publish(bad, 1, "good again")
    serving.settle()
    assert serving.serves("n") == {1: "good again"}


def test_a_missing_base_path_is_a_conflict(serving: SteppedManager, tmp_path: Path) -> None:
    (future,) = serving.manager.replace_configured_models(
        {**serving.manager.configured_models, "n": named(tmp_path / "nowhere")}, by="test"
    )
    with pytest.raises(Conflict, match="cannot be read"):
        serving.do(future)
    assert serving.serves() == {1: "one"}
    assert serving.manager.ready()


def test_overrides_of_a_changed_model_are_dropped(serving: SteppedManager, base: Path) -> None:
    serving.do(serving.manager.set_label("m", "stable", 1, by="operator"))
    serving.do(serving.manager.unload("m", by="operator"))
    (future,) = serving.manager.replace_configured_models({"m": named(base, None, canary=1)}, by="test")
    serving.do(future)
    assert serving.serves() == {1: "one"}
    assert serving.status().labels == {"canary": 1}
    assert serving.status().overrides == ()


def test_another_base_path_replaces_the_content(serving: SteppedManager, tmp_path: Path) -> None:
    other = publish(tmp_path / "other", 1, "other")
    (future,) = serving.manager.replace_configured_models({"m": named(other)}, by="test")
    serving.do(future)
    serving.settle()
    assert serving.serves() == {1: "other"}


def test_explicit_mode_loads_and_unloads_by_replacement(
    make_stepped: Callable[..., SteppedManager], base: Path
) -> None:
    publish(base, 1, "one")
    stepped = make_stepped(repository={"mode": "explicit"})
    stepped.see()
    (future,) = stepped.manager.replace_configured_models({"m": named(base)}, by="test")
    stepped.do(future)
    assert stepped.serves() == {1: "one"}
    publish(base, 2, "two")
    stepped.settle()
    assert stepped.serves() == {1: "one"}
    (future,) = stepped.manager.replace_configured_models({}, by="test")
    stepped.do(future)
    with pytest.raises(NotFound):
        stepped.manager.acquire("m")


def test_explicit_mode_with_load_star_serves_the_versions_of_the_first_scan(
    make_stepped: Callable[..., SteppedManager], base: Path
) -> None:
    publish(base, 1, "one")
    stepped = make_stepped(repository={"mode": "explicit", "load": ["*"], "models": {"m": str(base)}})
    stepped.see()
    assert stepped.serves() == {1: "one"}
    publish(base, 2, "two")
    stepped.settle()
    assert stepped.serves() == {1: "one"}


# A file that is followed


def entry(base: Path, name: str = "m") -> str:
    return f'model_config_list {{ config {{ name: "{name}" base_path: "{base}" }} }}'


@pytest.fixture
def file(base: Path, tmp_path: Path) -> Path:
    file = tmp_path / "models.config"
    file.write_text(entry(base))
    return file


def test_changes_of_a_followed_file_are_applied(
    make_stepped: Callable[..., SteppedManager], base: Path, file: Path, tmp_path: Path
) -> None:
    publish(base, 1, "one")
    other = publish(tmp_path / "other", 1, "other")
    kept = publish(tmp_path / "kept", 1, "kept")
    stepped = make_stepped(
        repository={"models_file": str(file), "models_file_poll": 1.0, "models": {"kept": str(kept)}}
    )
    stepped.see()
    followed = FollowedFile(file, 1.0, fixed_models(stepped.config), stepped.manager)
    requested = stepped.source.requested
    followed.check()
    assert stepped.source.requested == requested
    file.write_text("model_config_list {")
    followed.check()
    stepped.see()
    assert stepped.serves() == {1: "one"}
    file.unlink()
    followed.check()
    stepped.see()
    assert stepped.serves() == {1: "one"}
    file.write_text(entry(other, "n"))
    followed.check()
    stepped.settle()
    assert stepped.serves("n") == {1: "other"}
    assert stepped.serves("kept") == {1: "kept"}
    with pytest.raises(NotFound):
        stepped.manager.acquire("m")
    stepped.manager.replace_configured_models({}, by="a request")
    followed.check()  # the file has not changed, so what the request has set stays
    assert dict(stepped.manager.configured_models) == {}


def test_a_reload_before_the_first_check_of_the_file_is_kept(
    make_stepped: Callable[..., SteppedManager], base: Path, file: Path
) -> None:
    stepped = make_stepped(repository={"models_file": str(file), "models_file_poll": 1.0})
    followed = FollowedFile(file, 1.0, {}, stepped.manager)
    stepped.manager.replace_configured_models({}, by="a request")
    followed.check()
    assert dict(stepped.manager.configured_models) == {}


def test_a_worker_that_starts_after_a_reload_does_not_undo_it(
    make_stepped: Callable[..., SteppedManager], base: Path, file: Path
) -> None:
    """The worker starts with the models of the reload, and finds the file as it was before."""
    stepped = make_stepped(repository={"models_file": str(file), "models_file_poll": 1.0})
    stepped.manager.replace_configured_models({}, by="a request")
    followed = FollowedFile(file, 1.0, {}, stepped.manager, known=True)
    followed.check()
    assert dict(stepped.manager.configured_models) == {}
    file.write_text(entry(base, "later"))
    followed.check()
    assert list(stepped.manager.configured_models) == ["later"]
