"""Which code models may bring along, by the directory that they lie in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from inferd.server.config.errors import ConfigError
from inferd.server.config.load import load_config, model_config
from inferd.server.config.schema import ServerConfig
from inferd.server.repository.code_trust import CodeTrust
from inferd.server.repository.uploads import Uploads


def trust_of(allow: Any, **options: Any) -> CodeTrust:
    config = ServerConfig.model_validate({"repository": {"allow": allow}})
    return CodeTrust(config.repository.allow, **options)


def test_nothing_is_allowed_unless_it_is_named(tmp_path: Path) -> None:
    assert CodeTrust(ServerConfig().repository.allow).kinds(tmp_path / "m" / "1") == frozenset()


def test_a_list_is_for_every_root(tmp_path: Path) -> None:
    trust = trust_of(["aoti", "custom_ops"])
    assert trust.kinds(tmp_path / "m" / "1") == {"aoti", "custom_ops"}
    assert trust_of("aoti").kinds(Path("models/m/1")) == {"aoti"}


def test_a_mapping_is_for_directories(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    trust = trust_of({"own": ["aoti"], str(tmp_path / "own" / "deep"): "python", "*": ["custom_ops"]})
    assert trust.kinds(tmp_path / "own" / "m" / "1") == {"aoti", "custom_ops"}
    assert trust.kinds(Path("own/deep/m/1")) == {"aoti", "custom_ops", "python"}
    for other in ("owner/m/1", "own/../other/m/1", "other/own/1"):
        assert trust.kinds(tmp_path / other) == {"custom_ops"}


def test_uploads_are_allowed_what_their_own_entry_says(tmp_path: Path) -> None:
    uploads = Uploads(tmp_path / "own" / "state", 1000)
    version = uploads.write({("1", "model.onnx"): b"x"}) / "1"
    everywhere = {"*": ["aoti", "python"], str(tmp_path / "own"): ["custom_ops"]}
    assert trust_of(everywhere, is_upload=uploads.holds).kinds(version) == frozenset()
    assert trust_of(everywhere).kinds(version) == {"aoti", "python", "custom_ops"}
    assert trust_of(everywhere | {"uploads": ["aoti"]}, is_upload=uploads.holds).kinds(version) == {"aoti"}
    uploads.close()


@pytest.mark.parametrize("allow", ["pickle", ["aoti", "aoti"], {"own": "all"}, True, {"": ["aoti"]}, [["aoti"]]])
def test_wrong_settings_are_refused(allow: Any) -> None:
    with pytest.raises(ConfigError, match=r"repository\.allow"):
        load_config(None, {}, [], flags={"repository.allow": allow})


@pytest.mark.parametrize("settings", [{"allow": ["aoti"]}, {"repository": {"allow": ["aoti"]}}])
def test_a_models_own_settings_allow_nothing(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="unknown"):
        model_config(ServerConfig(), "m", settings)
