"""The flags for the connection to a server, and the client that they describe."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

from inferd.client import NO_RETRIES, Client, Tls
from inferd.server.cli.errors import CommandError, usage

TOKEN_FILE = "INFERD_TOKEN_FILE"
"""The environment variable that gives the default of --token-file."""
DEFAULT_ADDRESS = "localhost:8001"
MAX_VERSION = 2**63 - 1


def add_connection(parser: argparse.ArgumentParser, *, json: bool = True) -> None:
    """Adds the connection flags, which all commands that call a server have."""
    group = parser.add_argument_group("server")
    group.add_argument(
        "-a", "--address", default=DEFAULT_ADDRESS, help="host:port, several with commas, or unix:/path (%(default)s)"
    )
    group.add_argument("--timeout", type=seconds, metavar="SECONDS", help="for each call (30, admin calls 300)")
    group.add_argument("--no-retries", action="store_true", help="fail at once instead of trying again")
    group.add_argument("--tls", action="store_true", help="encrypt; implied by the other --tls flags")
    group.add_argument(
        "--tls-ca", "--ca", metavar="PEM", help="authorities that the server's certificate is checked against"
    )
    group.add_argument("--tls-cert", "--cert", metavar="PEM", help="this client's certificate")
    group.add_argument("--tls-key", "--key", metavar="PEM", help="and its key")
    group.add_argument("--tls-name", metavar="NAME", default="", help="name in the server's certificate")
    group.add_argument(
        "--token-file",
        metavar="FILE",
        default=os.environ.get(TOKEN_FILE),
        help=f"file with the bearer token; without this flag the one that {TOKEN_FILE} names",
    )
    group.add_argument(
        "--allow-plaintext-token", action="store_true", help="send it to another machine without TLS, too"
    )
    group.add_argument(
        "--metadata", action="append", default=[], metavar="KEY=VALUE", help="sent with every call; repeatable"
    )
    if json:
        parser.add_argument("--json", action="store_true", help="machine-readable output")


def client_options(args: argparse.Namespace) -> dict[str, Any]:
    """The keyword arguments for Client and AsyncClient. Raises CommandError, InvalidInput."""
    # Otherwise gRPC logs every lost connection to stderr; the command reports the error itself, in one line.
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    options: dict[str, Any] = {"metadata": _metadata(args.metadata)}
    if args.tls or args.tls_ca or args.tls_cert or args.tls_key or args.tls_name:
        options["tls"] = Tls(ca=args.tls_ca, cert=args.tls_cert, key=args.tls_key, override_name=args.tls_name)
    if args.token_file:
        try:
            Path(args.token_file).read_bytes()
        except OSError as error:
            raise CommandError(f"cannot read {args.token_file}: {error.strerror}") from None
        options["token_file"] = args.token_file
        options["allow_plaintext_token"] = args.allow_plaintext_token
    if args.timeout is not None:
        options["timeout"] = args.timeout
    if args.no_retries:
        options["retry"] = NO_RETRIES
    return options


def open_client(args: argparse.Namespace) -> Client:
    """A client for the flags of `add_connection`."""
    return Client(args.address, **client_options(args))


def seconds(text: str) -> float:
    """An argparse type: seconds above 0."""
    try:
        value = float(text.removesuffix("s"))
    except ValueError:
        value = -1.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds above 0")
    return value


def rate(text: str) -> float:
    """An argparse type: a rate above 0."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is no rate above 0")
    return value


def positive(text: str) -> int:
    """An argparse type: a whole number above 0."""
    try:
        value = int(text)
    except ValueError:
        value = 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number above 0")
    return value


def version(text: str) -> int:
    """An argparse type: a version's number, as settings take it."""
    if not (text.isascii() and text.isdigit() and int(text) <= MAX_VERSION):
        raise argparse.ArgumentTypeError(f"expected a whole number from 0 to {MAX_VERSION}, got {text!r}")
    return int(text)


def _metadata(pairs: list[str]) -> list[tuple[str, str]]:
    split = [pair.partition("=") for pair in pairs]
    wrong = next((pair for pair, (key, sign, _) in zip(pairs, split, strict=True) if not key or not sign), None)
    if wrong is not None:
        raise usage(f"--metadata {wrong!r}: expected KEY=VALUE")
    return [(key, value) for key, _, value in split]
