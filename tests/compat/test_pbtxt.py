"""config.pbtxt: the text format, the fields that are read, and the fields that are reported as unknown."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferd.server.compat.pbtxt import parse_triton_config, read_triton_config, triton_config
from inferd.server.compat.text_format import TextFormatError, parse
from inferd.server.compat.triton_json import read_triton_json
from inferd.server.errors import LayoutError

FULL = """
# A configuration with every kind of syntax.
name: "den" 'se'
platform: "onnxruntime_onnx"; max_batch_size: 0x8,
input [
  { name: "x" data_type: TYPE_FP32 dims: [ -1, 64 ] reshape { shape: [ 64 ] } },
  { name: "flag" data_type: TYPE_BOOL dims: 1 optional: true }
]
output < name: "y" data_type: TYPE_STRING dims: [ ] >
output { name: "z" data_type: TYPE_INT64 dims: 1 dims: 2 }
instance_group [ { count: 2 kind: KIND_GPU gpus: [ 0, 1 ] } ]
dynamic_batching { preferred_batch_size: [ 4, 8 ] max_queue_delay_microseconds: 100 }
version_policy: { specific: { versions: [ 1, 3 ] } }
parameters: { key: "A" value: { string_value: "tab\\t\\x41\\101\\u00e9" } }
parameters { key: "B" value { string_value: "2" } }
optimization { graph { level: -1 } }
ensemble_scheduling { step [ { model_name: "a" input_map { key: "x" value: "t" } } ] }
model_warmup { name: "w" inputs { key: "x" value { data_type: TYPE_FP32 dims: 4 zero_data: true } } }
model_operations { op_library_filename: "lib.so" }
[com.example.ext]: 3
"""


def test_every_construct_of_the_grammar_is_read() -> None:
    values, unknown = triton_config(FULL)
    assert values == {
        "name": "dense",
        "platform": "onnxruntime_onnx",
        "max_batch_size": 8,
        "input": [
            {"name": "x", "data_type": "TYPE_FP32", "dims": [-1, 64], "reshape": {"shape": [64]}},
            {"name": "flag", "data_type": "TYPE_BOOL", "dims": [1], "optional": True},
        ],
        "output": [
            {"name": "y", "data_type": "TYPE_STRING", "dims": []},
            {"name": "z", "data_type": "TYPE_INT64", "dims": [1, 2]},
        ],
        "instance_group": [{"count": 2, "kind": "KIND_GPU", "gpus": [0, 1]}],
        "dynamic_batching": {"preferred_batch_size": [4, 8], "max_queue_delay_microseconds": 100},
        "version_policy": {"specific": {"versions": [1, 3]}},
        "parameters": {"A": "tab\tAAé", "B": "2"},
        "optimization": {"graph": {"level": -1}},
        "ensemble_scheduling": {"step": [{"model_name": "a", "input_map": {"x": "t"}}]},
        "model_warmup": [
            {"name": "w", "inputs": {"x": {"data_type": "TYPE_FP32", "dims": [4], "zero_data": True}}},
        ],
    }
    assert unknown == ["model_operations", "[com.example.ext]"]


def test_enums_may_be_numbers() -> None:
    """Protobuf allows it in the text format and in JSON."""
    text = "input { name: 'x' data_type: 11 format: 2 } instance_group { kind: 2 }"
    found = {
        "input": [{"name": "x", "data_type": "TYPE_FP32", "format": "FORMAT_NCHW"}],
        "instance_group": [{"kind": "KIND_CPU"}],
    }
    assert triton_config(text) == (found, [])
    json = '{"input": [{"name": "x", "data_type": 11, "format": "FORMAT_NCHW"}], "instance_group": [{"kind": 2}]}'
    assert read_triton_json(json).values == found
    with pytest.raises(TextFormatError, match=r"line 1: input\.data_type: expected one of TYPE_BOOL, .*, got 99"):
        triton_config("input { data_type: 99 }")


def test_unknown_fields_in_known_messages_are_reported_by_path() -> None:
    assert triton_config("input { name: 'x' allow_ragged_batch: true }")[1] == ["input.allow_ragged_batch"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name: ", "line 1, column 7: expected a value, got the end of the file"),
        ("name 'x'", "line 1, column 6: expected ':' or '{' after 'name', got \"'x'\""),
        ("\n  input {", "line 2, column 10: expected '}', got the end of the file"),
        ("input { name: 'x' }}", "line 1, column 20: expected a field name, got '}'"),
        ("dims: [1 2]", "line 1, column 10: expected ',' or ']', got '2'"),
        ("name: @", "line 1, column 7: expected a field, a value or a bracket, got '@'"),
        ("name: 'open", "expected a field, a value or a bracket"),
        ("max_batch_size: 'x'", "max_batch_size: expected an integer, got 'x'"),
        ("name: dense", "name: expected a quoted string, got 'dense'"),
        ("input { data_type: 'TYPE_FP32' }", "input.data_type: expected one of TYPE_BOOL, TYPE_UINT8"),
        ("input { data_type: 'TYPE_FP32' }", "without quotes"),
        ("name = 'm'", "line 1, column 6: expected ':' between a field and its value, got '='"),
        ('{"name": "m"}', "this looks like JSON, and a config.pbtxt is protobuf's text format"),
        ("input: 3", "input: expected { ... }, got 3"),
        ("dynamic_batching { preserve_ordering: 7 }", "expected true or false, got 7"),
    ],
)
def test_errors_name_line_column_expected_and_got(text: str, message: str) -> None:
    with pytest.raises(TextFormatError) as caught:
        triton_config(text)
    assert message in str(caught.value)


@given(st.text(alphabet="abc:{}<>[],;#'\"\\01x.-+ \n/_", max_size=60))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        triton_config(text)
    except TextFormatError:
        pass


@given(st.text(), st.integers(-(2**63), 2**63 - 1), st.floats(allow_nan=False, allow_infinity=False))
def test_text_written_by_protobuf_is_read(text: str, number: int, real: float) -> None:
    from google.protobuf import struct_pb2, text_format

    value = struct_pb2.Struct()
    value.fields["t"].string_value = text.encode(errors="ignore").decode()
    value.fields["n"].number_value = real
    read = dict(dict(entry) for entry in [])  # a map field occurs once for each key
    for _, entry in parse(text_format.MessageToString(value)):
        pair = dict(entry)  # type: ignore[arg-type]
        read[pair["key"]] = dict(pair["value"])  # type: ignore[arg-type]
    assert read["t"].get("string_value", "") == value.fields["t"].string_value
    assert float(read["n"].get("number_value", 0)) == real  # type: ignore[arg-type]
    assert parse(f"n: {number}") == [("n", number)]


def test_nesting_is_bounded() -> None:
    with pytest.raises(TextFormatError, match="nested"):
        parse("a {" * 5000)


def test_files_are_read_or_refused(tmp_path: Path) -> None:
    file = tmp_path / "config.pbtxt"
    with pytest.raises(LayoutError, match="cannot be read: No such file"):
        read_triton_config(file, "m")
    file.write_bytes(b"name: '\xff'")
    with pytest.raises(LayoutError, match="expected text in UTF-8"):
        read_triton_config(file, "m")
    file.write_text("name: 'other'")
    with pytest.raises(LayoutError, match=r"name: expected 'm' \(the directory's name\) or nothing, got 'other'"):
        read_triton_config(file, "m")
    file.write_bytes(b"\xef\xbb\xbfmax_batch_size: 4\r\n")  # as editors on Windows write it
    assert read_triton_config(file, "m").values == {"max_batch_size": 4}
    file.write_text("platform: 'onnxruntime_onnx'\ncc_model_filenames { key: '8.0' value: 'x' }")
    config = read_triton_config(file, "m")
    assert (config.values, config.unknown) == ({"platform": "onnxruntime_onnx"}, ("cc_model_filenames",))


@pytest.mark.parametrize(
    ("text", "error"),
    [
        (f"max_batch_size: {'9' * 5000}", "at most 100 characters, got '9{100}'\\.\\.\\."),
        (f"max_batch_size: 0x{'f' * 50}", "at most 64 bits"),
        (f"max_batch_size: -{'9' * 50}", "at most 64 bits"),
        (f"max_batch_size: '{'x' * 5000}'", "expected an integer, got 'x{99}\\.\\.\\."),
        (f"input: [{'{},' * 200_000}", "at most 100000 fields and values"),
        ("a:[]" * 200_000, "at most 100000 fields and values"),
    ],
)
def test_numbers_and_values_are_bounded(text: str, error: str) -> None:
    with pytest.raises(TextFormatError, match=error):
        triton_config(text)


def test_many_unknown_fields_take_linear_time() -> None:
    """With a quadratic check this would take minutes."""
    values, unknown = triton_config("".join(f"x{number}: 1 " for number in range(45_000)))
    assert values == {}
    assert len(unknown) == 45_000


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("max_batchsize: 8", "line 1: max_batchsize: expected a known field, got an unknown one; did you mean"),
        ("\ndynamic_baching { }", "line 2: dynamic_baching: "),
        ("\ndynamic_baching { }", "did you mean dynamic_batching?"),
        ("input [\n { name: 'x' },\n { nam: 'y' }\n]", "line 3: input.nam: "),
        ("dynamic_batching {\n  prefered_batch_size: [4] }", "line 2: dynamic_batching.prefered_batch_size: "),
        ("version_policy: { lates { num_versions: 2 } }", "did you mean latest?"),
        ("input { data_type: FP32 }", "got 'FP32'; did you mean TYPE_FP32?"),
        ("input { data_type: TYPE_FLOAT }", "got 'TYPE_FLOAT'; did you mean TYPE_FP32?"),
        ("input { data_type: TYPE_FP23 }", "did you mean TYPE_FP32?"),
        ("instance_group { kind: KIND_CPPU }", "instance_group.kind: expected one of KIND_AUTO, KIND_GPU, KIND_CPU, "),
        ("instance_group { kind: KIND_CPPU }", "got 'KIND_CPPU'; did you mean KIND_CPU?"),
        (
            "max_batch_size: 4\nname: 'm'\nmax_batch_size: 8",
            "line 3: max_batch_size: expected once, got twice (the first time in line 1)",
        ),
        ("input {\n name: 'x'\n dims: [ 1,\n a ] }", "line 3: input.dims: expected an integer, got 'a'"),
        ("# one\n\nmax_batch_size: 'x'", "line 3: max_batch_size: expected an integer, got 'x'"),
    ],
)  # fmt: skip
def test_what_is_misspelt_is_an_error_with_line_and_nearest_name(text: str, message: str) -> None:
    with pytest.raises(TextFormatError) as caught:
        triton_config(text)
    assert message in str(caught.value)
    assert str(caught.value).count("line ") == 1 + ("the first time" in message)


def test_what_is_misspelt_in_json_is_an_error_too() -> None:
    with pytest.raises(TextFormatError, match=r"max_batchsize: .* did you mean max_batch_size\?"):
        read_triton_json('{"max_batchsize": 8}')
    with pytest.raises(TextFormatError, match=r"input\.data_type: .* did you mean TYPE_FP32\?"):
        read_triton_json('{"input": [{"name": "x", "data_type": "TYPE_FLOAT"}]}')


def test_fields_of_triton_that_are_not_honoured_are_no_misspellings() -> None:
    text = "sequence_batching { direct { } } response_cache { enable: true } input { name: 'x' is_shape_tensor: true }"
    _, unknown = triton_config(text + " batch_input { kind: BATCH_ELEMENT_COUNT } metric_tags { key: 'a' value: 'b' }")
    assert unknown == ["sequence_batching", "response_cache", "input.is_shape_tensor", "batch_input", "metric_tags"]


def test_the_lines_of_fields_are_known() -> None:
    fields, _ = triton_config("name: 'm'\ninput [\n {name: 'x'},\n {\n name: 'y' dims: [1]}]\ninput { name: 'z' }")
    assert {path: line for path, line in fields.lines.items() if "name" in path} == {
        "name": 1, "input[0].name": 3, "input[1].name": 5, "input[2].name": 6,
    }  # fmt: skip


def test_comments_may_hold_any_bytes() -> None:
    lines = (
        b'name: "m" # caf\xe9',
        b'# "caf\xe9',
        b'backend: "a#b" # \xff',
        "parameters { key: '#' value { string_value: \"é\" } }".encode(),
    )
    values = parse_triton_config(b"\n".join(lines), "config.pbtxt", "m").values
    assert (values["backend"], values["parameters"]) == ("a#b", {"#": "é"})
    for wrong in (b'backend: "caf\xe9" # fine', b"caf\xe9: 1"):
        with pytest.raises(LayoutError, match=r"config\.pbtxt: line 2: expected text in UTF-8, got other bytes"):
            parse_triton_config(b'name: "m"\n' + wrong, "config.pbtxt", "m")
