"""`inferd config`: prints the JSON schema of the settings, or the current settings."""

from __future__ import annotations

import argparse
from typing import Any

from inferd.server.cli.errors import CommandError
from inferd.server.cli.output import print_json
from inferd.server.cli.serve import add_configuration, configuration, missing


def add(subparsers: Any) -> None:
    """Registers the command."""
    parser = subparsers.add_parser("config", help="the settings: their JSON schema, or those in force")
    commands = parser.add_subparsers(title="config commands", metavar="WHAT", required=True)
    schema = commands.add_parser("schema", help="print the JSON schema of config.yaml, or of model.yaml with --model")
    schema.add_argument("--model", action="store_true", help="of model.yaml")
    schema.set_defaults(run=run_schema)
    show = commands.add_parser("show", help="print the settings that flags, environment and file give, as JSON")
    add_configuration(show)
    show.set_defaults(run=run_show)


def run_schema(args: argparse.Namespace) -> int:
    """Prints a JSON schema."""
    try:
        from inferd.server.config.render import json_schema
    except ImportError as error:
        raise CommandError(missing(error)) from None
    schema = json_schema()
    if args.model:
        definitions = schema["$defs"]
        schema = {"$schema": schema["$schema"], **definitions.pop("ModelConfig"), "$defs": definitions}
    print_json(schema)
    return 0


def run_show(args: argparse.Namespace) -> int:
    """Prints the current settings. Secrets are hidden."""
    from inferd.server.config.secrets import redacted

    print_json(redacted(configuration(args).model_dump(mode="json")))
    return 0
