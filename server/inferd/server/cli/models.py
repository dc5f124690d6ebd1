"""`inferd models`: every version with its state, labels, batching, and the reason when something is wrong."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any

from inferd.client import Client, ModelMetadata, ModelStatus, RequestError, VersionChange, VersionState
from inferd.server.cli.connection import add_connection, open_client
from inferd.server.cli.output import print_json, print_table, when

_STYLES = {"AVAILABLE": "green", "LOADING": "yellow", "UNLOADING": "yellow", "END": "dim", "FAILED": "red"}
_COLUMNS = ("MODEL", "VERSION", "STATE", "LABELS", "BACKEND", "DEVICES", "BATCHING", "ORIGIN", "REASON")
_LONGEST_SOURCE = 48  # characters of a source in the table


def add(subparsers: Any) -> None:
    parser = subparsers.add_parser("models", help="list the models of a server", description=__doc__)
    parser.add_argument("model", nargs="?", help="only this one")
    parser.add_argument("--signatures", action="store_true", help="also the inputs and outputs of what is available")
    parser.add_argument("--watch", action="store_true", help="stay, and print every change of state")
    add_connection(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    with open_client(args) as client:
        if args.watch:
            return _watch(client, args)
        statuses = (client.status(args.model),) if args.model else client.list_models()
        signatures = _signatures(client, statuses) if args.signatures else {}
        if args.json:
            print_json([status_json(status) | _signature_json(signatures, status) for status in statuses])
        else:
            print_models(statuses)
            _print_signatures(signatures.values())
    return 0


def print_models(statuses: Iterable[ModelStatus]) -> None:
    """Prints a table with a row for each version, and below it the errors and overrides of whole models."""
    rows: list[tuple[str, ...]] = []
    below: list[str] = []
    for status in statuses:
        for version in status.versions:
            rows.append(
                (
                    status.name,
                    str(version.version),
                    version.state.name,
                    ",".join(version.labels),
                    version.backend,
                    ",".join(version.devices),
                    version.batching,
                    origin(version.origin),
                    "; ".join(part for part in (version.error, *version.notes) if part),
                )
            )
        if not status.versions:
            state = VersionState.FAILED.name if status.error else "-"
            rows.append((status.name, "-", state, "", "", "", "", "", status.error or "no versions"))
        elif status.error and all(version.error != status.error for version in status.versions):
            below.append(f"{status.name}: {status.error}")
        for override in status.overrides:
            kept = "" if override.persistent else ", in memory only"
            removed = override.kind == "label" and override.value.endswith("=")
            value = f"{override.value[:-1]} removed" if removed else override.value
            below.append(f"{status.name}: {override.kind} {value} by {override.by} at {when(override.since)}{kept}")
    if not rows:
        print("no models")
        return
    print_table(_COLUMNS, [[" ".join(cell.split()) for cell in row] for row in rows], _STYLES)
    for line in below:
        print(" ".join(line.split()))


def origin(entries: Mapping[str, str]) -> str:
    """Where a version comes from, in a few words: "git 3f2c1ab* · mlflow models:/digits@champion · accuracy 0.972"."""
    parts = []
    if commit := entries.get("commit", ""):
        parts.append(f"git {commit[:7]}{'*' if entries.get('dirty') else ''}")
    if source := entries.get("source", ""):
        parts.append(source if len(source) <= _LONGEST_SOURCE else f"…{source[1 - _LONGEST_SOURCE :]}")
    metrics = [(key, value) for key, value in sorted(entries.items()) if key.startswith("metric.")]
    parts += [f"{key.removeprefix('metric.')} {value}" for key, value in metrics[:1]]
    parts += [word for key, word in (("forced", "forced"), ("unchecked", "not checked")) if entries.get(key)]
    return " · ".join("".join(letter if letter.isprintable() else "?" for letter in part) for part in parts)


def status_json(status: ModelStatus) -> dict[str, Any]:
    """A status for JSON, with the names of states."""
    value = asdict(status)
    for version in value["versions"]:
        version["state"] = version["state"].name
    return value


def _watch(client: Client, args: argparse.Namespace) -> int:
    for change in client.watch(args.model, timeout=args.timeout):
        version = change.version
        if args.json:
            import json

            line = {"model": change.model, "initial": change.initial, "version": version.version}
            line |= {"state": version.state.name, "error": version.error, "labels": list(version.labels)}
            print(json.dumps(line), flush=True)
        else:
            print(_change_line(change), flush=True)
    return 0


def _change_line(change: VersionChange) -> str:
    version = change.version
    labels = f" [{','.join(version.labels)}]" if version.labels else ""
    error = f"  {' '.join(version.error.split())}" if version.error else ""
    return f"{when(version.changed_at) or '-'}  {change.model}:{version.version}{labels}  {version.state.name}{error}"


def _signatures(client: Client, statuses: Iterable[ModelStatus]) -> dict[tuple[str, int], ModelMetadata]:
    found = {}
    for status in statuses:
        for version in status.available:
            try:
                found[status.name, version] = client.metadata(status.name, version=version)
            except RequestError:
                continue  # unloaded since the status was read
    return found


def _signature_json(found: dict[tuple[str, int], ModelMetadata], status: ModelStatus) -> dict[str, Any]:
    mine = {str(version): metadata for (name, version), metadata in found.items() if name == status.name}
    if not mine:
        return {}
    listed = {version: asdict(metadata) for version, metadata in mine.items()}
    for metadata in listed.values():
        for signature in metadata["signatures"]:
            for spec in (*signature["inputs"], *signature["outputs"]):
                spec["dtype"] = spec["dtype"].name if spec["dtype"] else None
    return {"metadata": listed}


def _print_signatures(found: Iterable[ModelMetadata]) -> None:
    for metadata in found:
        for signature in metadata.signatures:
            print(f"\n{metadata.name}:{metadata.version} {signature.name}")
            for kind, specs in (("in ", signature.inputs), ("out", signature.outputs)):
                for spec in specs:
                    shape = "any rank" if spec.shape is None else list(spec.shape)
                    optional = " optional" if spec.optional else ""
                    print(f"  {kind} {spec.name}  {spec.dtype.name if spec.dtype else '?'} {shape}{optional}")
