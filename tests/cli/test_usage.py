"""Wrong usage of the command line: one line on stderr, the nearest known word, exit code 2."""

from __future__ import annotations

import pytest

U = "unknown option"


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("srve",), "inferd: unknown command 'srve'; did you mean serve? expected one of serve, check,"),
        (("zzz",), "inferd: unknown command 'zzz'; expected one of serve, check,"),
        (("serve", "--mdel-repository", "x"), f"inferd: serve: {U} --mdel-repository; did you mean --model-reposi"),
        (("serve", "--model_repository=x"), f"inferd: serve: {U} --model_repository; did you mean --model-reposi"),
        (("serve", "--rest-api-port", "1"), f"inferd: serve: {U} --rest-api-port; did you mean --rest_api_port?"),
        (("check", "--jsn"), "inferd: check: unknown option --jsn; did you mean --json?"),
        (("models", "--xyzzy"), "inferd: models: unknown option --xyzzy (see inferd models --help)"),
        (("models", "m", "more"), "inferd: models: unexpected argument 'more'"),
        (("models", "--timeout", "x"), "inferd: models: argument --timeout: 'x' is no number of seconds above 0"),
        (("rollback", "m", "--to", "x"), "inferd: rollback: argument --to: expected a whole number from 0 to 922"),
        (("label", "m", "stable", "1_0"), "inferd: label: argument version: expected a whole number from 0 to 92"),
        (("predict",), "inferd: predict: the following arguments are required: model"),
        (("serve", "--port", "abc"), "inferd: serve: argument --port: expected a whole number of at least 0, "),
        (("serve", "models"), "inferd: serve: unexpected argument 'models'; did you mean --model-repository? (see inf"),
        (("config", "shw"), "inferd: config: argument WHAT: invalid choice 'shw'; did you mean show? expected one of"),
        (("completion", "bsh"), "inferd: completion: argument shell: invalid choice 'bsh'; did you mean bash? "),
        (
            ("publish", "m", "f", "--repostory", "r"),
            "inferd: publish: the following arguments are required: -r/--repository; unknown option --repostory; did",
        ),
        (("serve", "--line\nbreak"), "inferd: serve: unknown option --line break"),
    ],
)  # fmt: skip
def test_wrong_usage_is_one_line_with_the_nearest_word(cli, arguments: tuple[str, ...], line: str) -> None:
    done = cli(*arguments)
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith(line)
    assert done.err.endswith("--help)\n")
    assert done.err.count("\n") == 1


def test_help_still_has_everything(cli) -> None:
    done = cli("serve", "--help")
    assert done.code == 0
    assert "--model-repository DIR" in done.out


@pytest.mark.parametrize(("arguments", "expected"), [((), "publish"), (("config",), "schema")])
def test_without_arguments_help_is_printed(cli, arguments: tuple[str, ...], expected: str) -> None:
    done = cli(*arguments)
    assert (done.code, done.err) == (0, "")
    assert done.out.startswith("usage: inferd")
    assert expected in done.out
