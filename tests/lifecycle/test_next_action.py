"""What is to be done for a model: states in, actions out, without a thread, a clock or a disk."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from support.lifecycle import fake_servable, on_disk

from inferd.server.lifecycle.ensemble.definition import Obstacle
from inferd.server.lifecycle.operations.overrides import ModelOverrides, Override
from inferd.server.lifecycle.reconcile.backoff import LoadFailure
from inferd.server.lifecycle.reconcile.desired import Desired
from inferd.server.lifecycle.reconcile.model_state import Content, Loading, ModelState, VersionState
from inferd.server.lifecycle.reconcile.next_action import (
    Action,
    Announce,
    CancelLoad,
    ForgetDifference,
    HashFiles,
    KeepLoad,
    ShowWaiting,
    bookkeeping,
    file_checks,
)
from inferd.server.lifecycle.state import State

WANTED, UNWANTED = Desired(frozenset((1,))), Desired()
MISSING, LATE = Obstacle("step 1 has no model"), Obstacle("step 1 is loading", passing=True)


@pytest.fixture
def model() -> ModelState:
    """Model m, whose version 1 is on disk and not known otherwise."""
    model = ModelState("m")
    model.adopt(on_disk("m", {1: "one"}))
    return model


def begun(version: VersionState) -> None:
    version.state = State.LOADING
    version.loading = Loading(1, Content(version.disk.tree, "") if version.disk else None)  # type: ignore[arg-type]


def serving(version: VersionState) -> None:
    version.state = State.AVAILABLE
    version.servable = fake_servable()


def waiting(version: VersionState) -> None:
    version.state = State.START


def unknown(version: VersionState) -> None:
    pass


@pytest.mark.parametrize(
    ("before", "want", "obstacle", "stopping", "actions"),
    [
        (unknown, WANTED, None, False, [Announce(1, State.START)]),
        (unknown, UNWANTED, None, False, []),
        (waiting, WANTED, None, False, []),
        (waiting, UNWANTED, None, False, [Announce(1, State.END)]),
        (serving, WANTED, None, False, []),
        (serving, UNWANTED, None, False, []),
        (begun, UNWANTED, None, False, [CancelLoad(1, "an operator pinned version 2")]),
        (
            begun,
            UNWANTED,
            None,
            True,
            [CancelLoad(1, "the server is shutting down"), Announce(1, State.END)],
        ),
        (waiting, WANTED, MISSING, False, [Announce(1, State.FAILED, MISSING.reason)]),
        (waiting, WANTED, LATE, False, [ShowWaiting(1, LATE.reason), Announce(1, State.START)]),
    ],
)
def test_bookkeeping(
    model: ModelState,
    before: Callable[[VersionState], None],
    want: Desired,
    obstacle: Obstacle | None,
    stopping: bool,
    actions: list[Action],
) -> None:
    before(model.versions[1])
    pinned = ModelOverrides((Override("pinned", 2, "me", 0.0),))
    assert bookkeeping(model, want, pinned, {1: obstacle}, stopping=stopping) == actions


def test_a_load_goes_on_until_other_content_is_on_disk(model: ModelState) -> None:
    begun(model.versions[1])
    loading = model.versions[1].loading
    assert loading is not None
    loading.content = Content(loading.content.tree, model.settings)
    assert bookkeeping(model, WANTED, ModelOverrides(), {}, stopping=False) == [KeepLoad(1)]
    model.adopt(on_disk("m", {1: "other"}))
    expected = [KeepLoad(1), CancelLoad(1, "its files have changed")]
    assert bookkeeping(model, WANTED, ModelOverrides(), {}, stopping=False) == expected


def test_deciding_changes_nothing(model: ModelState) -> None:
    first = bookkeeping(model, WANTED, ModelOverrides(), {}, stopping=False)
    assert first
    assert bookkeeping(model, WANTED, ModelOverrides(), {}, stopping=False) == first
    assert model.versions[1].state is None


def test_files_that_look_different_are_hashed_once(model: ModelState) -> None:
    version = model.versions[1]
    serving(version)
    assert version.disk is not None
    version.content, version.digest = Content(version.disk.tree, model.settings), "digest"
    assert file_checks(model) == []
    model.adopt(on_disk("m", {1: "touched"}))
    assert file_checks(model) == [HashFiles(1)]
    assert version.disk is not None
    version.hashing = version.disk.tree
    assert file_checks(model) == []


def test_an_error_about_files_is_forgotten_when_the_files_are_restored(model: ModelState) -> None:
    version = model.versions[1]
    serving(version)
    assert version.disk is not None
    version.content = Content(version.disk.tree, model.settings)
    version.error = "files on disk differ: broken"
    version.failure = LoadFailure(None, "broken", 1, 0.0, 0.0)
    assert file_checks(model) == [ForgetDifference(1)]
