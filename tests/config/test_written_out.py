"""The generated reference (docs/reference/config.yaml and settings.md) matches the schema; config.yaml is an example.

To write them again: python -m inferd.server.config.render .
"""

from pathlib import Path

import yaml
from pydantic import TypeAdapter
from support.settings import config_of

from inferd.server.config import render
from inferd.server.config.document import parse_document
from inferd.server.config.gate_schema import Gate
from inferd.server.config.keys import all_keys, item_keys
from inferd.server.config.load import load_config
from inferd.server.config.schema import ModelConfig, ServerConfig

ROOT = Path(__file__).parents[2]


def test_the_reference_is_rendered_from_the_schema():
    assert (ROOT / render.CONFIG_FILE).read_text() == render.config_yaml()
    assert (ROOT / render.DOCUMENT).read_text() == render.settings_page()


def test_config_yaml_is_a_short_example_of_the_defaults():
    text = (ROOT / "config.yaml").read_text()
    assert len(text.splitlines()) <= 80
    assert load_config(ROOT / "config.yaml") == ServerConfig()
    head, _, models = text.partition("models: {}\n")
    shown = head + "models:\n" + models.replace("\n#", "\n").removeprefix("#")
    config = load_config_text(shown)
    assert config_of(config, "digits_onnx").batching.max_batch_size == 8


def test_the_full_config_yaml_shows_the_defaults():
    document = parse_document((ROOT / render.CONFIG_FILE).read_text(), "config.yaml")
    assert load_config(ROOT / render.CONFIG_FILE) == ServerConfig()
    for key in all_keys(ServerConfig):
        if key.path[:2] in (("server", "tls"), ("http", "tls"), ("auth", "jwt")):
            continue
        value = document
        for part in key.path:
            value = value[part]
        assert key.section is not None or value == key.written, key.path


def uncommented(text, *sections):
    """The text with the keys of these sections, which are null by default."""
    lines, indent = [], None
    for line in text.splitlines():
        if line in sections:
            indent = line[: len(line) - len(line.lstrip())]
            lines.append(line.removesuffix(" null"))
        else:
            if indent is not None and not line.startswith(f"{indent}#   "):
                indent = None
            lines.append(line if indent is None else f"{indent}  " + line.removeprefix(f"{indent}#   "))
    return "\n".join(lines)


def test_commented_settings_are_valid():
    text = (ROOT / render.CONFIG_FILE).read_text()
    tls = (
        uncommented(text, "  tls: null", "  jwt: null")
        .replace("certificate:", "certificate: c")
        .replace(" key:", " key: k")
        + "\n"
    )
    for name in ("jwks_file", "issuer", "audience"):
        tls = tls.replace(f"{name}:\n", f"{name}: x\n")
    config = load_config_text(tls)
    assert config.server.tls.certificate == config.http.tls.certificate == "c"
    assert config.auth.jwt.audience == ("x",)
    head, _, model = text.partition("\nmodels: {}\n")
    shown = head + "\n" + "".join(line.removeprefix("# ") + "\n" for line in model.splitlines())
    config = load_config_text(shown)
    assert list(config.models) == ["digits"]
    assert config_of(config, "digits") == ModelConfig()
    config = load_config_text(uncommented(shown, "    gate: null"))
    assert config_of(config, "digits").gate == Gate()
    for key in all_keys(ModelConfig):
        value = config.models["digits"]
        for part in key.path:
            assert part in value, key.path
            value = value[part]


def load_config_text(text):
    from inferd.server.config.layers import Layer, validated

    return validated(ServerConfig, [Layer(parse_document(text, "f"), "f")])


def test_the_documentation_lists_every_key():
    document = (ROOT / render.DOCUMENT).read_text()
    for model in (ServerConfig, ModelConfig):
        for key in all_keys(model):
            assert f"| `{'.'.join(key.path)}` |" in document
            for name, _ in item_keys(key, ".".join(key.path)):
                assert f"| `{name}` |" in document
    for name in (
        "signatures[].inputs[].dtype",
        "warmup.samples[].inputs.<name>.file",
        "auth.certificates.<name>.models",
    ):
        assert f"| `{name}` |" in document


def test_the_example_in_the_documentation_is_a_valid_model_yaml():
    example = (ROOT / "docs" / "configuration.md").read_text().split("```yaml\n")[1].split("```")[0]
    config = config_of(ServerConfig(), "m", parse_document(example, "example"))
    assert config.signatures[0].inputs[0].shape == (-1, 1, 28, 28)


def test_every_key_is_documented():
    for model in (ServerConfig, ModelConfig):
        for key in all_keys(model):
            assert len(render.meaning_of(key)) > 10, key.path
            assert all(render.meaning_of(inner) for _, inner in item_keys(key, key.path[-1])), key.path


def test_the_json_schema_describes_every_key():
    schema = render.json_schema()
    sections = [schema, *(each for each in schema["$defs"].values() if "properties" in each)]
    assert len(sections) > 20
    for section in sections:
        for name, key in section["properties"].items():
            assert "$ref" in key or len(key["description"]) > 10, name  # a section has a description of its own


def test_the_json_schema_has_the_keys_and_their_defaults():
    schema = render.json_schema()
    assert schema["properties"]["models"]["additionalProperties"] == {"$ref": "#/$defs/ModelConfig"}
    assert schema["$defs"]["Grpc"]["properties"]["max_message"]["default"] == "64MiB"
    assert schema["$defs"]["Drain"]["properties"]["grace"]["default"] == "30s"
    assert schema["$defs"]["Server"]["additionalProperties"] is False
    for name, _, reference in [(n, 0, r) for n, r in references(schema)]:
        assert reference.removeprefix("#/$defs/") in schema["$defs"], name


def references(value, name=""):
    if isinstance(value, dict):
        if isinstance(value.get("$ref"), str):
            yield name, value["$ref"]
        for key, inner in value.items():
            yield from references(inner, f"{name}.{key}")
    elif isinstance(value, list):
        for inner in value:
            yield from references(inner, name)


def test_a_configuration_dumped_as_yaml_loads_again(tmp_path):
    config = ServerConfig()
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(TypeAdapter(ServerConfig).dump_python(config, mode="json")))
    assert load_config(tmp_path / "c.yaml") == config
