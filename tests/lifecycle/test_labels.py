"""Labels: names of versions that are available, from the settings and from operators."""

from __future__ import annotations

import pytest
from support.lifecycle import House

from inferd.server.errors import Conflict, InvalidRequest, NotFound, Unavailable


def test_labels_point_to_available_versions_only(house: House) -> None:
    house.write("m/model.yaml", "version_policy: {latest: 2}\nlabels: {stable: 1}")
    house.write("m/1/model", "one")
    house.write("m/2/model", "two")
    house.write("m/3/model", "bad: no")
    house.see()
    with house.manager.acquire("m", label="stable") as servable:
        assert servable.id.version == 1
    with pytest.raises(Conflict, match="label 'stable': version 3 of model 'm' is not available: bad: no"):
        house.do(house.manager.set_label("m", "stable", 3, by="me"))
    with pytest.raises(NotFound, match="has no version 7; its versions: 3, 2, 1"):
        house.do(house.manager.set_label("m", "stable", 7, by="me"))
    status = house.do(house.manager.set_label("m", "stable", 2, by="me"))
    assert status.labels == {"stable": 2}
    assert [(o.kind, o.value) for o in status.overrides] == [("label", "stable=2")]
    assert house.version(2).labels == ("stable",)
    with house.manager.acquire("m", label="stable") as servable:
        assert servable.id.version == 2
    house.do(house.manager.set_label("m", "stable", 1, by="me"))
    assert house.status().overrides == (), "the same as the settings say: no override"
    house.do(house.manager.set_label("m", "stable", None, by="me"))
    with pytest.raises(NotFound, match="model 'm' has no label 'stable'; it has no labels"):
        house.manager.acquire("m", label="stable")
    with pytest.raises(NotFound, match="no label 'nope'"):
        house.do(house.manager.set_label("m", "nope", None, by="me"))


@pytest.mark.parametrize("label", ["", "3", "a b", "x" * 200, "é"])
def test_invalid_labels_are_refused(house: House, label: str) -> None:
    house.write("m/1/model")
    house.see()
    with pytest.raises(InvalidRequest, match="expected a letter"):
        house.do(house.manager.set_label("m", label, 1, by="me"))


def test_a_configured_label_waits_for_its_version(house: House) -> None:
    house.write("m/model.yaml", "labels: {canary: 2}")
    house.write("m/1/model", "one")
    house.see()
    with pytest.raises(NotFound, match="label 'canary' of model 'm' points to version 2, which does not exist"):
        house.manager.acquire("m", label="canary")
    house.write("m/2/model", "two")
    house.see()
    with pytest.raises(Unavailable, match="label 'canary' of model 'm' points to version 2, which is not loaded yet"):
        house.manager.acquire("m", label="canary")
    house.settle()
    with house.manager.acquire("m", label="canary") as servable:
        assert servable.id.version == 2


def test_a_label_keeps_its_version_but_does_not_make_it_the_default(house: House) -> None:
    house.write("m/model.yaml", "labels: {stable: 1}\nversion_policy: {specific: [2]}")
    for number in (1, 2, 3):
        house.write(f"m/{number}/model", str(number))
    house.see()
    assert set(house.serves()) == {1, 2}
    house.write("m/model.yaml", "labels: {stable: 1, next: 3}\nversion_policy: {specific: [2]}")
    house.settle()
    assert set(house.serves()) == {1, 2, 3}
    assert house.default() == 2
    house.do(house.manager.unload("m", 1, by="me"))
    with pytest.raises(NotFound, match="label 'stable' of model 'm' points to version 1, which was unloaded by me"):
        house.manager.acquire("m", label="stable")


def test_version_and_label_together_are_refused(house: House) -> None:
    house.write("m/1/model")
    house.see()
    with pytest.raises(InvalidRequest, match="expected a version or a label, got both"):
        house.manager.acquire("m", 1, "stable")
