import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from inferd.server.config.schema import Batching, Queue, ServerConfig
from inferd.server.config.units import WRITTEN, seconds, show_seconds, show_size, size


@pytest.mark.parametrize(
    ("text", "value"),
    [("2s", 2.0), ("250ms", 0.25), ("0.1ms", 1e-4), ("7us", 7e-6), ("1m", 60.0), ("1h", 3600.0), ("0", 0.0), (0, 0.0)],
)
def test_times_are_read_in_seconds(text, value):
    assert seconds(text) == value


@pytest.mark.parametrize(
    ("text", "value"),
    [("64MiB", 64 * 2**20), ("1KB", 1000), ("1.5KiB", 1536), ("3 GiB", 3 * 2**30), ("12B", 12), ("0", 0)],
)
def test_sizes_are_read_in_bytes(text, value):
    assert size(text) == value


@pytest.mark.parametrize(
    "bad", ["5", 5, 1.5, "-1s", "s", "", "1 fortnight", True, None, [], "nan s", "9" * 400 + "s", "1e3s"]
)
def test_a_time_without_a_sensible_unit_is_refused(bad):
    with pytest.raises(ValueError, match="expected a number with a unit"):
        seconds(bad)


@pytest.mark.parametrize("bad", ["5", 5, "-1B", "1mib", "9" * 19 + "TiB", True, None, "0.3B"])
def test_a_size_without_a_sensible_unit_is_refused(bad):
    with pytest.raises(ValueError, match="expected a"):
        size(bad)


@given(st.floats(min_value=0, max_value=3e8, allow_nan=False))
def test_every_time_survives_a_round_trip(value):
    value = round(value, 9)  # a nanosecond is precise enough for a setting
    assert seconds(show_seconds(value)) == value


@given(st.integers(min_value=0, max_value=2**60))
def test_every_size_survives_a_round_trip(value):
    assert size(show_size(value)) == value


def test_a_dumped_configuration_can_be_read_again():
    config = ServerConfig(queue=Queue(bytes=1000), batching=Batching(max_queue_delay=0.0015))
    assert ServerConfig.model_validate(config.model_dump()) == config
    assert ServerConfig.model_validate_json(config.model_dump_json()) == config
    written = json.loads(config.model_dump_json())
    assert (written["queue"]["bytes"], written["batching"]["max_queue_delay"]) == ("1000B", "1500us")
    assert ServerConfig.model_validate(written, context={WRITTEN: True}) == config


@pytest.mark.parametrize("bad", [-1.0, float("nan"), float("inf"), True, "5"])
def test_python_numbers_are_seconds_and_must_be_finite_and_not_negative(bad):
    assert Batching(max_queue_delay=0.5).max_queue_delay == 0.5
    with pytest.raises(ValidationError):
        Batching(max_queue_delay=bad)
