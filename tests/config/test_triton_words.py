"""Errors in a config.pbtxt are in its own words, with the line."""

from __future__ import annotations

import pytest

from inferd.server.compat.pbtxt import parse_triton_config
from inferd.server.config.errors import ConfigError
from inferd.server.config.load import model_config
from inferd.server.config.schema import ServerConfig

HEAD = """# a model
name: "m"
max_batch_size: 4
input [
  { name: "x" data_type: TYPE_FP32 dims: [3] },
  { name: "y" data_type: TYPE_FP32 dims: [3] }
]
output [ { name: "o" data_type: TYPE_FP32 dims: [3] } ]
"""


def wrong(text: str, yaml: dict[str, object] | None = None) -> str:
    given = parse_triton_config(text.encode(), "m/config.pbtxt", "m").values
    with pytest.raises(ConfigError) as caught:
        model_config(ServerConfig(), "m", yaml, given, model_yaml_source="m/model.yaml", pbtxt_source="m/config.pbtxt")
    return str(caught.value)


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        (
            "max_batch_size: 4",
            "max_batch_size: -3",
            "m/config.pbtxt:3: max_batch_size: expected a whole number, at least 0, got -3",
        ),
        (
            '"y" data_type: TYPE_FP32 dims: [3]',
            '"y" data_type: TYPE_FP32 dims: [-3]',
            "m/config.pbtxt:6: input 'y' dims: expected sizes, or -1, got [-3]",
        ),
        (
            '{ name: "y"',
            '{ name: "x"',
            "m/config.pbtxt:4: input: expected inputs with different names, got x more than once",
        ),
        (
            "# a model",
            "instance_group [ { count: 100000 kind: KIND_CPU } ]",
            "m/config.pbtxt:1: instance_group.count: expected less than or equal to 256, got 100000",
        ),
        (
            "# a model",
            "dynamic_batching { max_queue_delay_microseconds: 99999999999999999 }",
            "m/config.pbtxt:1: dynamic_batching.max_queue_delay_microseconds: expected",
        ),
        (
            "# a model",
            "version_policy { specific { versions: [-1] } }",
            "m/config.pbtxt:1: version_policy.specific.versions",
        ),
        (
            "# a model",
            'model_warmup [ { name: "w" inputs { key: "x" value { data_type: TYPE_FP32 dims: [-1] } } } ]',
            "m/config.pbtxt:1: model_warmup 'w' input 'x' dims: expected sizes",
        ),
    ],
)
def test_the_field_and_its_line_are_named(before: str, after: str, message: str) -> None:
    assert message in wrong(HEAD.replace(before, after))


def test_errors_of_model_yaml_keep_their_words() -> None:
    assert wrong(HEAD, {"instances": {"count": 100000}}) == (
        "m/model.yaml: instances.count: expected less than or equal to 256, got 100000"
    )
