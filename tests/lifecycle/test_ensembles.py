"""When an ensemble is served, and what is said while it is not: stepped by hand, with models that load a file."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.lifecycle import FakeLoader, SteppedManager

from inferd.server.errors import Conflict, ServingError, Unavailable
from inferd.server.lifecycle.ensemble.load import compose
from inferd.server.lifecycle.loading.cancellation import Cancellation
from inferd.server.lifecycle.loading.load_request import LoadRequest
from inferd.server.lifecycle.servable import Servable
from inferd.server.lifecycle.state import State
from inferd.server.scheduling.observer import NullObserver

# The fake loader's models all take x FP32 [-1, 2] and give y FP32 [-1].
CONFIG = """
platform: "ensemble"
max_batch_size: 4
input {{ name: "x" data_type: TYPE_FP32 dims: 2 }}
output {{ name: "y" data_type: {dtype} dims: [] }}
ensemble_scheduling {{
  step {{ model_name: "{model}" model_version: {version} input_map {{ key: "x" value: "x" }}
         output_map {{ key: "y" value: "y" }} }}
}}
"""


@pytest.fixture
def stepped(tmp_path: Path) -> SteppedManager:
    return SteppedManager(tmp_path / "models")


def ensemble(stepped: SteppedManager, name: str, model: str, version: int = -1, dtype: str = "TYPE_FP32") -> None:
    stepped.write(f"{name}/1/model", "ensemble")
    stepped.write(f"{name}/config.pbtxt", CONFIG.format(model=model, version=version, dtype=dtype))


def refusal(stepped: SteppedManager, name: str) -> ServingError:
    with pytest.raises(ServingError) as caught:
        stepped.manager.acquire(name)
    return caught.value


def test_an_ensemble_is_loaded_after_its_models(stepped: SteppedManager) -> None:
    ensemble(stepped, "e", "m")
    stepped.write("m/1/model")
    stepped.settle()
    assert [name for name, _, _ in stepped.loader.loads] == ["m", "e"]
    assert stepped.default("e") == 1
    assert stepped.status("e").parts == ("m",)
    assert stepped.manager.ready()


def test_an_ensemble_waits_for_a_model_that_is_still_being_written(stepped: SteppedManager) -> None:
    ensemble(stepped, "e", "m")
    stepped.settle()
    stepped.write("m/1/model")
    stepped.see()
    error = refusal(stepped, "e")
    assert isinstance(error, Unavailable)
    assert "waiting: step 1 (model 'm') is not loaded yet" in " ".join(
        stepped.version(1, "e").notes
    ) or "loading" in str(error)
    stepped.settle()
    assert stepped.default("e") == 1
    assert stepped.version(1, "e").error == ""


def test_a_missing_model_is_named_and_does_not_keep_the_server_from_being_ready(stepped: SteppedManager) -> None:
    ensemble(stepped, "e", "nobody")
    stepped.settle()
    assert "step 1 (model 'nobody'): there is no such model in the repository" in str(refusal(stepped, "e"))
    assert isinstance(refusal(stepped, "e"), Conflict)
    assert stepped.manager.ready()
    assert stepped.version(1, "e").state is State.FAILED


def test_the_reason_names_the_model_that_failed(stepped: SteppedManager) -> None:
    ensemble(stepped, "e", "m")
    stepped.write("m/1/model", "bad: no weights")
    stepped.settle()
    assert "step 1 (model 'm') is not available: bad: no weights" in str(refusal(stepped, "e"))
    assert stepped.manager.ready()
    stepped.write("m/1/model", "good")
    stepped.settle()
    assert stepped.default("e") == 1


def test_a_swap_of_a_model_does_not_reload_the_ensemble(stepped: SteppedManager) -> None:
    ensemble(stepped, "e", "m")
    stepped.write("m/1/model")
    stepped.settle()
    with stepped.manager.acquire("e") as before:
        generation = before.generation
    stepped.write("m/2/model")
    stepped.settle()
    assert stepped.default("m") == 2
    with stepped.manager.acquire("e") as after:
        assert after.generation == generation


def test_an_ensemble_is_unloaded_and_loaded_with_its_model(stepped: SteppedManager) -> None:
    ensemble(stepped, "e", "m")
    stepped.write("m/1/model")
    stepped.settle()
    stepped.do(stepped.manager.unload("m", by="test"))
    assert "is not available" in str(refusal(stepped, "e"))
    assert stepped.version(1, "e").state is State.FAILED
    stepped.do(stepped.manager.load("m", by="test"))
    assert stepped.default("e") == 1
    assert State.UNLOADING in [state for _, state in stepped.story("e")]


def test_a_load_of_an_ensemble_loads_its_models(stepped: SteppedManager) -> None:
    ensemble(stepped, "e", "m")
    ensemble(stepped, "outer", "e")
    stepped.write("m/1/model")
    stepped.settle()
    for name in ("outer", "e", "m"):
        stepped.do(stepped.manager.unload(name, by="test"))
    status = stepped.do(stepped.manager.load("outer", by="test"))
    assert status.versions[0].state is State.AVAILABLE
    assert stepped.default("m") == stepped.default("e") == 1


def test_a_load_that_cannot_succeed_gives_the_reason(stepped: SteppedManager) -> None:
    ensemble(stepped, "e", "nobody")
    stepped.settle()
    with pytest.raises(Conflict, match="there is no such model"):
        stepped.do(stepped.manager.load("e", by="test"))


def test_an_ensemble_may_contain_ensembles(stepped: SteppedManager) -> None:
    ensemble(stepped, "a_outer", "b_middle")
    ensemble(stepped, "b_middle", "c_inner")
    ensemble(stepped, "c_inner", "m")
    stepped.write("m/1/model")
    stepped.settle()
    assert stepped.default("a_outer") == 1
    stepped.do(stepped.manager.unload("m", by="test"))
    assert "is not available" in str(refusal(stepped, "a_outer"))


def test_an_ensemble_may_not_contain_itself(stepped: SteppedManager) -> None:
    ensemble(stepped, "a", "b")
    ensemble(stepped, "b", "a")
    ensemble(stepped, "self", "self")
    stepped.settle()
    assert "circle: a → b → a" in str(refusal(stepped, "a"))
    assert "circle: self → self" in str(refusal(stepped, "self"))
    assert stepped.manager.ready()
    with pytest.raises(Conflict, match="circle"):
        stepped.do(stepped.manager.load("a", by="test"))


def test_a_step_with_a_version_needs_that_version(stepped: SteppedManager) -> None:
    ensemble(stepped, "e", "m", version=1)
    (stepped.root / "m").mkdir()
    stepped.write("m/2/model")
    stepped.settle()
    assert "it has no such version; there is 2" in str(refusal(stepped, "e"))
    stepped.write("m/1/model")
    stepped.settle()
    assert "is not available" in str(refusal(stepped, "e")), "on disk, but not what the policy wants"
    stepped.do(stepped.manager.load("m", 1, by="test"))
    assert stepped.default("e") == 1


def test_signatures_that_do_not_fit_are_reported(stepped: SteppedManager) -> None:
    ensemble(stepped, "e", "m", dtype="TYPE_INT64")
    stepped.write("m/1/model")
    stepped.settle()
    assert "output 'y' is declared as INT64 [-1], step 1 (model 'm') gives FP32 [-1]" in str(refusal(stepped, "e"))
    ensemble(stepped, "e", "m")
    stepped.settle()
    assert stepped.default("e") == 1


def test_explicit_mode_loads_the_models_of_a_named_ensemble(tmp_path: Path) -> None:
    stepped = SteppedManager(tmp_path / "models", repository={"mode": "explicit", "load": ("e",)})
    ensemble(stepped, "e", "m")
    stepped.write("m/1/model")
    stepped.write("other/1/model")
    stepped.settle()
    assert stepped.default("e") == stepped.default("m") == 1
    with pytest.raises(ServingError):
        stepped.manager.acquire("other")


def test_stop_ends_everything(stepped: SteppedManager) -> None:
    ensemble(stepped, "e", "m")
    stepped.write("m/1/model")
    stepped.settle()
    stepped.manager.begin_stop(1.0)
    stepped.run()
    assert stepped.version(1, "e").state is State.END
    assert {name for name, _, _ in stepped.loader.unloads} == {"m", "e"}


class ComposingLoader(FakeLoader):
    """Makes real ensembles, and fakes of everything else."""

    def load(self, request: LoadRequest, cancellation: Cancellation) -> Servable:
        if request.config.ensemble:
            self.loads.append((request.id.name, request.id.version, "ensemble"))
            return compose(request, self.acquire, NullObserver())
        return super().load(request, cancellation)


@pytest.fixture
def real(stepped: SteppedManager) -> SteppedManager:
    """A stepped whose ensembles are real ones."""
    loader = ComposingLoader()
    loader.acquire = stepped.manager.acquire
    stepped.loader = stepped.manager._loader = stepped.manager._reconciler._transitions._runner._loader = loader
    return stepped


def test_settings_that_do_not_fit_keep_the_served_ensemble(real: SteppedManager) -> None:
    ensemble(real, "e", "m")
    real.write("m/1/model")
    real.settle()
    with real.manager.acquire("e") as before:
        ensemble(real, "e", "nobody")
        real.settle()
        with real.manager.acquire("e") as now:
            assert now is before
    status = real.version(1, "e")
    assert status.state is State.AVAILABLE
    assert "files on disk differ: step 1 (model 'nobody')" in status.error
    ensemble(real, "e", "other")
    real.write("other/1/model")
    real.settle()
    real.later(120)
    with real.manager.acquire("e") as after:
        assert [step.model for step in after.ensemble] == ["other"]
    assert real.version(1, "e").error == ""


def test_a_served_ensemble_depends_on_the_models_with_which_it_was_loaded(real: SteppedManager) -> None:
    ensemble(real, "e", "m")
    real.write("m/1/model")
    real.settle()
    ensemble(real, "e", "nobody")
    real.settle()
    real.do(real.manager.unload("m", by="test"))
    with pytest.raises(ServingError):
        real.manager.acquire("e")
    assert "nobody" in real.version(1, "e").error


def test_an_ensemble_in_model_yaml(real: SteppedManager) -> None:
    real.write("m/1/model")
    real.write("e/1/.keep", "")
    real.write(
        "e/model.yaml",
        """
        signatures:
          - inputs: [{name: a, dtype: FP32, shape: [-1, 2]}]
            outputs: [{name: b, dtype: FP32, shape: [-1]}]
        ensemble:
          - {model: m, inputs: {x: a}, outputs: {y: b}}
        """,
    )
    real.settle()
    with real.manager.acquire("e") as servable:
        assert servable.backend == "ensemble"
        assert servable.max_batch_size == 0
        assert servable.batching == "each step batches in its own model"
