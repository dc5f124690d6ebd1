"""Labels: names of versions that are available, from the settings and from operators."""

from __future__ import annotations

import pytest
from support.lifecycle import SteppedManager

from inferd.server.errors import Conflict, InvalidRequest, NotFound, Unavailable


def test_labels_point_to_available_versions_only(stepped: SteppedManager) -> None:
    stepped.write("m/model.yaml", "version_policy: {latest: 2}\nlabels: {stable: 1}")
    stepped.write("m/1/model", "one")
    stepped.write("m/2/model", "two")
    stepped.write("m/3/model", "bad: no")
    stepped.see()
    with stepped.manager.acquire("m", label="stable") as servable:
        assert servable.id.version == 1
    with pytest.raises(Conflict, match="label 'stable': version 3 of model 'm' is not available: bad: no"):
        stepped.do(stepped.manager.set_label("m", "stable", 3, by="me"))
    with pytest.raises(NotFound, match="has no version 7; its versions: 3, 2, 1"):
        stepped.do(stepped.manager.set_label("m", "stable", 7, by="me"))
    status = stepped.do(stepped.manager.set_label("m", "stable", 2, by="me"))
    assert status.labels == {"stable": 2}
    assert [(o.kind, o.value) for o in status.overrides] == [("label", "stable=2")]
    assert stepped.version(2).labels == ("stable",)
    with stepped.manager.acquire("m", label="stable") as servable:
        assert servable.id.version == 2
    stepped.do(stepped.manager.set_label("m", "stable", 1, by="me"))
    assert stepped.status().overrides == (), "the same as the settings say: no override"
    stepped.do(stepped.manager.set_label("m", "stable", None, by="me"))
    with pytest.raises(NotFound, match="model 'm' has no label 'stable'; it has no labels"):
        stepped.manager.acquire("m", label="stable")
    with pytest.raises(NotFound, match="no label 'nope'"):
        stepped.do(stepped.manager.set_label("m", "nope", None, by="me"))


@pytest.mark.parametrize("label", ["", "3", "a b", "x" * 200, "é"])
def test_invalid_labels_are_refused(stepped: SteppedManager, label: str) -> None:
    stepped.write("m/1/model")
    stepped.see()
    with pytest.raises(InvalidRequest, match="expected a letter"):
        stepped.do(stepped.manager.set_label("m", label, 1, by="me"))


def test_a_configured_label_waits_for_its_version(stepped: SteppedManager) -> None:
    stepped.write("m/model.yaml", "labels: {canary: 2}")
    stepped.write("m/1/model", "one")
    stepped.see()
    with pytest.raises(NotFound, match="label 'canary' of model 'm' points to version 2, which does not exist"):
        stepped.manager.acquire("m", label="canary")
    stepped.write("m/2/model", "two")
    stepped.see()
    with pytest.raises(Unavailable, match="label 'canary' of model 'm' points to version 2, which is not loaded yet"):
        stepped.manager.acquire("m", label="canary")
    stepped.settle()
    with stepped.manager.acquire("m", label="canary") as servable:
        assert servable.id.version == 2


def test_a_label_keeps_its_version_but_does_not_make_it_the_default(stepped: SteppedManager) -> None:
    stepped.write("m/model.yaml", "labels: {stable: 1}\nversion_policy: {specific: [2]}")
    for number in (1, 2, 3):
        stepped.write(f"m/{number}/model", str(number))
    stepped.see()
    assert set(stepped.serves()) == {1, 2}
    stepped.write("m/model.yaml", "labels: {stable: 1, next: 3}\nversion_policy: {specific: [2]}")
    stepped.settle()
    assert set(stepped.serves()) == {1, 2, 3}
    assert stepped.default() == 2
    stepped.do(stepped.manager.unload("m", 1, by="me"))
    with pytest.raises(NotFound, match="label 'stable' of model 'm' points to version 1, which was unloaded by me"):
        stepped.manager.acquire("m", label="stable")


def test_version_and_label_together_are_refused(stepped: SteppedManager) -> None:
    stepped.write("m/1/model")
    stepped.see()
    with pytest.raises(InvalidRequest, match="expected a version or a label, got both"):
        stepped.manager.acquire("m", 1, "stable")
