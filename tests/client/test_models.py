"""The state and metadata of models, and the operators' calls."""

from __future__ import annotations

import math
from datetime import UTC, datetime

import pytest
from support.client import LONG, Script

from inferd.client import (
    ClientClosed,
    DType,
    InvalidInput,
    ModelMetadata,
    ModelStatus,
    NotFound,
    Override,
    Signature,
    TensorSpec,
    VersionState,
    VersionStatus,
)

NOON = datetime.fromtimestamp(1_700_000_000, tz=UTC)


def test_a_status_has_every_field(client):
    assert client.status("m") == ModelStatus(
        name="m",
        versions=(
            VersionStatus(
                version=3,
                state=VersionState.AVAILABLE,
                generation=2,
                backend="onnx",
                devices=("cpu",),
                batching="up to 32 rows",
                load_seconds=0.5,
                changed_at=NOON,
                labels=("stable",),
                notes=("a note",),
            ),
            VersionStatus(version=2, state=VersionState.FAILED, error="truncated file"),
        ),
        labels={"stable": 3},
        overrides=(Override("pinned", "3", "op", NOON, False),),
        version_policy="latest(1)",
    )
    assert client.status("m").available == (3,)


def test_list_models_returns_every_model(client):
    assert [status.name for status in client.list_models()] == ["a", "b"]


def test_an_unknown_model_is_not_found(client):
    with pytest.raises(NotFound, match="no model 'missing'"):
        client.status("missing")


def test_metadata_gives_the_signatures(client):
    assert client.metadata("m", version=3) == ModelMetadata(
        "m",
        3,
        "onnx",
        (
            Signature(
                "serving_default",
                (TensorSpec("x", DType.FP32, (-1, 2)),),
                (TensorSpec("y", DType.FP32, (-1, 2)),),
            ),
        ),
        32,
    )
    assert client.metadata("m").signature("nope") is None
    assert client.metadata("m").signature().name == "serving_default"


@pytest.mark.parametrize("persistent", [True, False])
def test_changes_reach_the_server_and_report_whether_they_are_persistent(client, script: Script, persistent):
    script.persistent = persistent
    replies = [
        client.load("m"),
        client.load("m", version=4),
        client.unload("m", version=4),
        client.set_label("m", "canary", 4),
        client.set_label("m", "canary", None),
        client.rollback("m"),
        client.rollback("m", to=2),
    ]
    assert {reply.persistent for reply in replies} == {persistent}
    assert {reply.model.name for reply in replies} == {"m"}
    load, load4, unload4, label, unlabel, back, back2 = script.admin
    assert not load.HasField("version")
    assert (load4.version, unload4.version) == (4, 4)
    assert (label.label, label.version) == ("canary", 4)
    assert not unlabel.HasField("version")
    assert not back.HasField("to_version")
    assert back2.to_version == 2


def test_a_watch_yields_the_current_states_and_then_the_changes(client):
    changes = list(client.watch("m"))
    assert [(c.model, c.version.version, c.version.state.name, c.initial) for c in changes] == [
        ("m", 3, "AVAILABLE", True),
        ("m", 2, "FAILED", True),
        ("m", 4, "LOADING", False),
    ]


def test_leaving_a_watch_ends_the_call(client, script: Script):
    watch = client.watch("endless")
    next(watch)
    watch.close()
    assert script.cancelled.wait(LONG)


def test_a_watch_ends_after_its_timeout_without_an_error(client):
    assert len(list(client.watch("endless", timeout=1.0))) == 3


def test_an_unknown_state_is_not_an_error():
    assert VersionState(99) is VersionState.UNKNOWN


@pytest.mark.parametrize("timeout", [math.inf, 1e300], ids=repr)
def test_a_watch_without_a_timeout_does_not_end(client, timeout):
    assert len(list(client.watch("a", timeout=timeout))) == 3


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (lambda c: c.metadata("m", version=1, label="a"), "are both given"),
        (lambda c: c.metadata("m", version="1"), "version is '1'; expected a whole number"),
        (lambda c: c.metadata("m", version=2**63), "version is 9223372036854775808; expected a number of 64 bits"),
        (lambda c: c.status(5), "model is 5; expected text"),
        (lambda c: c.load("m", version="1"), "version is '1'; expected a whole number"),
        (lambda c: c.set_label("m", "a", "1"), "version is '1'; expected a whole number"),
        (lambda c: c.rollback("m", to=1.5), "to is 1.5; expected a whole number"),
        (lambda c: list(c.watch(5)), "model is 5; expected text"),
        (lambda c: list(c.watch("a", timeout=-1)), "timeout is -1"),
        (lambda c: list(c.watch("a", timeout="1")), "timeout is '1'"),
        (lambda c: list(c.predict_many("m", [], errors="ignore")), "errors is 'ignore'; expected 'raise' or 'return'"),
    ],
)
def test_invalid_queries_are_not_sent(client, script: Script, call, told):
    with pytest.raises(InvalidInput, match=told):
        call(client)
    assert script.calls == []


def test_a_watch_of_a_closed_client_raises_client_closed(client):
    client.close()
    with pytest.raises(ClientClosed):
        list(client.watch())
