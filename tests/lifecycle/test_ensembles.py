"""When an ensemble is served, and what is said while it is not: stepped by hand, with models that load a file."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.lifecycle import FakeLoader, House

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
def house(tmp_path: Path) -> House:
    return House(tmp_path / "models")


def ensemble(house: House, name: str, model: str, version: int = -1, dtype: str = "TYPE_FP32") -> None:
    house.write(f"{name}/1/model", "ensemble")
    house.write(f"{name}/config.pbtxt", CONFIG.format(model=model, version=version, dtype=dtype))


def refusal(house: House, name: str) -> ServingError:
    with pytest.raises(ServingError) as caught:
        house.manager.acquire(name)
    return caught.value


def test_an_ensemble_is_loaded_after_its_models(house: House) -> None:
    ensemble(house, "e", "m")
    house.write("m/1/model")
    house.settle()
    assert [name for name, _, _ in house.loader.loads] == ["m", "e"]
    assert house.default("e") == 1
    assert house.status("e").parts == ("m",)
    assert house.manager.ready()


def test_an_ensemble_waits_for_a_model_that_is_still_being_written(house: House) -> None:
    ensemble(house, "e", "m")
    house.settle()
    house.write("m/1/model")
    house.see()
    error = refusal(house, "e")
    assert isinstance(error, Unavailable)
    assert "waiting: step 1 (model 'm') is not loaded yet" in " ".join(house.version(1, "e").notes) or "loading" in str(
        error
    )
    house.settle()
    assert house.default("e") == 1
    assert house.version(1, "e").error == ""


def test_a_missing_model_is_named_and_does_not_keep_the_server_from_being_ready(house: House) -> None:
    ensemble(house, "e", "nobody")
    house.settle()
    assert "step 1 (model 'nobody'): there is no such model in the repository" in str(refusal(house, "e"))
    assert isinstance(refusal(house, "e"), Conflict)
    assert house.manager.ready()
    assert house.version(1, "e").state is State.START


def test_the_reason_names_the_model_that_failed(house: House) -> None:
    ensemble(house, "e", "m")
    house.write("m/1/model", "bad: no weights")
    house.settle()
    assert "step 1 (model 'm') is not available: bad: no weights" in str(refusal(house, "e"))
    assert house.manager.ready()
    house.write("m/1/model", "good")
    house.settle()
    assert house.default("e") == 1


def test_a_swap_of_a_model_does_not_reload_the_ensemble(house: House) -> None:
    ensemble(house, "e", "m")
    house.write("m/1/model")
    house.settle()
    with house.manager.acquire("e") as before:
        generation = before.generation
    house.write("m/2/model")
    house.settle()
    assert house.default("m") == 2
    with house.manager.acquire("e") as after:
        assert after.generation == generation


def test_an_ensemble_is_unloaded_and_loaded_with_its_model(house: House) -> None:
    ensemble(house, "e", "m")
    house.write("m/1/model")
    house.settle()
    house.do(house.manager.unload("m", by="test"))
    assert "is not available" in str(refusal(house, "e"))
    assert house.version(1, "e").state is State.START
    house.do(house.manager.load("m", by="test"))
    assert house.default("e") == 1
    assert State.UNLOADING in [state for _, state in house.story("e")]


def test_a_load_of_an_ensemble_loads_its_models(house: House) -> None:
    ensemble(house, "e", "m")
    ensemble(house, "outer", "e")
    house.write("m/1/model")
    house.settle()
    for name in ("outer", "e", "m"):
        house.do(house.manager.unload(name, by="test"))
    status = house.do(house.manager.load("outer", by="test"))
    assert status.versions[0].state is State.AVAILABLE
    assert house.default("m") == house.default("e") == 1


def test_a_load_that_cannot_succeed_gives_the_reason(house: House) -> None:
    ensemble(house, "e", "nobody")
    house.settle()
    with pytest.raises(Conflict, match="there is no such model"):
        house.do(house.manager.load("e", by="test"))


def test_an_ensemble_may_contain_ensembles(house: House) -> None:
    ensemble(house, "a_outer", "b_middle")
    ensemble(house, "b_middle", "c_inner")
    ensemble(house, "c_inner", "m")
    house.write("m/1/model")
    house.settle()
    assert house.default("a_outer") == 1
    house.do(house.manager.unload("m", by="test"))
    assert "is not available" in str(refusal(house, "a_outer"))


def test_an_ensemble_may_not_contain_itself(house: House) -> None:
    ensemble(house, "a", "b")
    ensemble(house, "b", "a")
    ensemble(house, "self", "self")
    house.settle()
    assert "circle: a → b → a" in str(refusal(house, "a"))
    assert "circle: self → self" in str(refusal(house, "self"))
    assert house.manager.ready()
    with pytest.raises(Conflict, match="circle"):
        house.do(house.manager.load("a", by="test"))


def test_a_step_with_a_version_needs_that_version(house: House) -> None:
    ensemble(house, "e", "m", version=1)
    (house.root / "m").mkdir()
    house.write("m/2/model")
    house.settle()
    assert "it has no such version; there is 2" in str(refusal(house, "e"))
    house.write("m/1/model")
    house.settle()
    assert "is not available" in str(refusal(house, "e")), "on disk, but not what the policy wants"
    house.do(house.manager.load("m", 1, by="test"))
    assert house.default("e") == 1


def test_signatures_that_do_not_fit_are_reported(house: House) -> None:
    ensemble(house, "e", "m", dtype="TYPE_INT64")
    house.write("m/1/model")
    house.settle()
    assert "output 'y' is declared as INT64 [-1], step 1 (model 'm') gives FP32 [-1]" in str(refusal(house, "e"))
    ensemble(house, "e", "m")
    house.settle()
    assert house.default("e") == 1


def test_explicit_mode_loads_the_models_of_a_named_ensemble(tmp_path: Path) -> None:
    house = House(tmp_path / "models", repository={"mode": "explicit", "load": ("e",)})
    ensemble(house, "e", "m")
    house.write("m/1/model")
    house.write("other/1/model")
    house.settle()
    assert house.default("e") == house.default("m") == 1
    with pytest.raises(ServingError):
        house.manager.acquire("other")


def test_stop_ends_everything(house: House) -> None:
    ensemble(house, "e", "m")
    house.write("m/1/model")
    house.settle()
    house.manager.begin_stop(1.0)
    house.run()
    assert house.version(1, "e").state is State.END
    assert {name for name, _, _ in house.loader.unloads} == {"m", "e"}


class ComposingLoader(FakeLoader):
    """Makes real ensembles, and fakes of everything else."""

    def load(self, request: LoadRequest, cancellation: Cancellation) -> Servable:
        if request.config.ensemble:
            self.loads.append((request.id.name, request.id.version, "ensemble"))
            return compose(request, self.acquire, NullObserver())
        return super().load(request, cancellation)


@pytest.fixture
def real(house: House) -> House:
    """A house whose ensembles are real ones."""
    loader = ComposingLoader()
    loader.acquire = house.manager.acquire
    house.loader = house.manager._loader = house.manager._reconciler._transitions._runner._loader = loader
    return house


def test_settings_that_do_not_fit_keep_the_served_ensemble(real: House) -> None:
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


def test_a_served_ensemble_depends_on_the_models_with_which_it_was_loaded(real: House) -> None:
    ensemble(real, "e", "m")
    real.write("m/1/model")
    real.settle()
    ensemble(real, "e", "nobody")
    real.settle()
    real.do(real.manager.unload("m", by="test"))
    with pytest.raises(ServingError):
        real.manager.acquire("e")
    assert "nobody" in real.version(1, "e").error


def test_an_ensemble_in_model_yaml(real: House) -> None:
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
