"""`inferd load | unload | label | rollback`: operators' requests."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from inferd.client import AdminReply
from inferd.server.cli.connection import add_connection, open_client, version
from inferd.server.cli.errors import usage
from inferd.server.cli.models import print_models, status_json
from inferd.server.cli.output import print_json


def add(subparsers: Any) -> None:
    load = subparsers.add_parser("load", help="load a model, or one version of it, and wait until it answers")
    unload = subparsers.add_parser("unload", help="take a model, or one version of it, out of service")
    for parser, run in ((load, run_load), (unload, run_unload)):
        parser.add_argument("model")
        parser.add_argument("--version", type=version, metavar="N")
        add_connection(parser)
        parser.set_defaults(run=run)
    label = subparsers.add_parser("label", help="point a label to an available version, or remove it")
    label.add_argument("model")
    label.add_argument("label")
    label.add_argument("version", nargs="?", type=version, help="the version that it shall point to")
    label.add_argument("--remove", action="store_true", help="remove the label")
    add_connection(label)
    label.set_defaults(run=run_label)
    rollback = subparsers.add_parser("rollback", help="pin a model to an earlier version, until it is loaded again")
    rollback.add_argument("model")
    rollback.add_argument("--to", type=version, metavar="N", help="the version; without it the next older one")
    add_connection(rollback)
    rollback.set_defaults(run=run_rollback)


def run_load(args: argparse.Namespace) -> int:
    with open_client(args) as client:
        return _report(args, client.load(args.model, version=args.version, timeout=args.timeout))


def run_unload(args: argparse.Namespace) -> int:
    with open_client(args) as client:
        return _report(args, client.unload(args.model, version=args.version, timeout=args.timeout))


def run_label(args: argparse.Namespace) -> int:
    if (args.version is None) != args.remove:
        raise usage("label: give the version that the label shall point to, or --remove")
    with open_client(args) as client:
        return _report(args, client.set_label(args.model, args.label, args.version, timeout=args.timeout))


def run_rollback(args: argparse.Namespace) -> int:
    with open_client(args) as client:
        return _report(args, client.rollback(args.model, to=args.to, timeout=args.timeout))


def _report(args: argparse.Namespace, reply: AdminReply) -> int:
    if args.json:
        print_json({"model": status_json(reply.model), "persistent": reply.persistent})
        return 0
    print_models([reply.model])
    if not reply.persistent:
        print("kept in memory only: the server runs without --state-dir and forgets it when it ends", file=sys.stderr)
    return 0
