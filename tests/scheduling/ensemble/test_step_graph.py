"""The graph of an ensemble's steps, and the errors of invalid graphs."""

from __future__ import annotations

import pytest

from inferd.server.scheduling.ensemble.step_graph import GraphStep, StepGraphError, build_step_graph


def stage(model: str, inputs: dict[str, str], outputs: dict[str, str], version: int | None = None) -> GraphStep:
    return GraphStep(model, version, tuple(inputs.items()), tuple(outputs.items()), f"step {model}")


@pytest.mark.parametrize(
    ("inputs", "outputs", "stages", "message"),
    [
        (["x"], ["y"], [stage("a", {"x": "z"}, {"y": "y"})], "gets 'z', which is no input"),
        (["x"], ["y"], [stage("a", {"x": "x"}, {"y": "yy"})], "no step gives the output 'y'; did you mean 'yy'"),
        (["x", "w"], ["y"], [stage("a", {"x": "x"}, {"y": "y"})], "no step uses the input 'w'"),
        (["x"], ["y"], [stage("a", {"x": "x"}, {"y": "x"})], "is an input of the ensemble"),
        (["x"], ["y"], [stage("a", {"x": "x"}, {"y": "y"}), stage("b", {"x": "x"}, {"y": "y"})], "by step a and by"),
        (
            ["x"],
            ["y"],
            [stage("a", {"x": "x", "r": "q"}, {"y": "p"}), stage("b", {"x": "p"}, {"y": "q", "z": "y"})],
            "in a circle: step a → step b → step a|in a circle: step b → step a → step b",
        ),
        (["x"], ["y"], [stage("a", {"x": "x", "r": "y"}, {"y": "y"})], "in a circle: step a → step a"),
        ([], ["y"], [], "declares its inputs and outputs"),
    ],
)
def test_wrong_wirings_are_refused(
    inputs: list[str], outputs: list[str], stages: list[GraphStep], message: str
) -> None:
    with pytest.raises(StepGraphError, match=message):
        build_step_graph(inputs, outputs, stages)


STEPS = (
    stage("c", {"l": "p", "r": "q"}, {"y": "y"}),
    stage("a", {"x": "x"}, {"y": "p"}),
    stage("b", {"x": "x"}, {"y": "q"}),
)


def test_steps_may_be_written_in_any_order() -> None:
    wiring = build_step_graph(["x"], ["y"], STEPS)
    assert [stage.model for stage in wiring.stages][-1] == "c"
    assert wiring.unused == ()
    assert build_step_graph(["x"], ["p"], STEPS).unused == ("y",)
