import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferd.server.config.document import parse_document, parse_value, read_document
from inferd.server.config.errors import ConfigError


def problem(text):
    with pytest.raises(ConfigError) as caught:
        parse_document(text, "f.yaml")
    return str(caught.value)


def test_every_key_has_its_line():
    document = parse_document("a: 1\nb:\n  c: [x,\n   y]\n  d: {e: 1}\n", "f.yaml")
    assert document == {"a": 1, "b": {"c": ["x", "y"], "d": {"e": 1}}}
    assert [document.line_of(path) for path in [("a",), ("b",), ("b", "c", 1), ("b", "d", "e"), ("b", "gone"), ()]] == [
        1,
        2,
        4,
        5,
        2,
        0,
    ]


@pytest.mark.parametrize(
    ("text", "value"),
    [("off", "off"), ("yes", "yes"), ("true", True), ("010", 10), ("0x10", 16), ("0o10", 8), ("1:30", "1:30"), ("1e3", 1000.0), ("2020-01-02", "2020-01-02"), ("~", None), ("", None), ("-3", -3), ("1_000", "1_000"), (".5", 0.5)],  # noqa: E501
)  # fmt: skip
def test_scalars_are_read_as_in_yaml_1_2(text, value):
    found = parse_value(text)
    assert found == value
    assert type(found) is type(value)


def test_an_empty_file_has_no_settings():
    assert parse_document("", "f") == parse_document("# only\n", "f") == {}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\na: 2\n", "f.yaml:2: a: expected every key once"),
        ("a: [1\n", "f.yaml:2: expected YAML"),
        ("- 1\n", "f.yaml:1: expected a mapping (key: value), got a list"),
        ("just text", "got a text"),
        ("1: a\n", "expected a key that is text"),
        ("a: &x [*x]\n", "around itself"),
        ("a: !!python/object:os.system {}\n", "expected YAML"),
        ("a: 1\n---\nb: 2\n", "expected YAML"),
        ("a: " + "[" * 5000, "nesting"),
        ("a: \x00", "expected YAML"),
    ],
)
def test_errors_name_the_line(text, message):
    assert message in problem(text)


def test_aliases_are_expanded_up_to_a_bound():
    document = parse_document("base: &b {x: 1, y: 2}\nm:\n  <<: *b\n  y: 3\n", "f")
    assert document["m"] == {"x": 1, "y": 3}
    bomb = "a0: &a0 [x]\n" + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 12))
    assert "more than 200000 values" in problem(bomb)


def test_unreadable_files_are_errors(tmp_path):
    with pytest.raises(ConfigError, match="expected a readable file, got No such file"):
        read_document(tmp_path / "none.yaml")
    with pytest.raises(ConfigError, match="got Is a directory"):
        read_document(tmp_path)
    (tmp_path / "latin.yaml").write_bytes(b"a: 1\nb: \xff\n")
    with pytest.raises(ConfigError, match=r"latin\.yaml:2: expected UTF-8 text"):
        read_document(tmp_path / "latin.yaml")
    (tmp_path / "bom.yaml").write_bytes(b"\xef\xbb\xbfa: 1\n")
    assert read_document(tmp_path / "bom.yaml") == {"a": 1}


@given(st.text(max_size=60))
def test_any_text_is_a_document_or_a_clear_error(text):
    found = None
    try:
        parse_document(text, "f.yaml")
    except ConfigError as error:
        found = str(error)
    assert found is None or (found.startswith("f.yaml") and "expected" in found)
