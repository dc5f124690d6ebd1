"""`inferd check`: opens everything that would be served, binds nothing. Exit codes 0 fine, 1 problems, 2 usage."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from inferd.server.cli.errors import CommandError
from inferd.server.cli.output import print_json, print_table
from inferd.server.cli.serve import add_configuration, configuration, missing, private_directory

if TYPE_CHECKING:
    from inferd.backends.api import TensorSpec
    from inferd.server.lifecycle.inspection import Finding


def add(subparsers: Any) -> None:
    """Registers the command."""
    parser = subparsers.add_parser("check", help="validate configuration and repository; binds no port")
    add_configuration(parser)
    parser.add_argument("--json", action="store_true", help="findings as JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Checks. Returns the exit code: 1 if a version or model would not be served."""
    config = configuration(args)
    try:
        from inferd.backends.registry import Registry
        from inferd.server.access.authority import make_authority
        from inferd.server.access.expiry import Expiry
        from inferd.server.access.tls import tls_files
        from inferd.server.config.errors import ConfigError
        from inferd.server.lifecycle.inspection import inspect_repository
        from inferd.server.protocols.tfs.warmup_records import recorded
    except ImportError as error:
        raise CommandError(missing(error)) from None
    try:
        ports = (tls_files(config.server.tls, "server.tls"), tls_files(config.http.tls, "http.tls"))
        expiry = Expiry(make_authority(config.auth), [files for files in ports if files is not None])
    except ConfigError as error:
        raise CommandError(str(error), exit_code=2) from None
    except OSError as error:
        raise CommandError(str(error.strerror or error), exit_code=2) from None
    with private_directory(config):
        findings = inspect_repository(config, Registry(), recorded)
    problems = sum(not finding.ok for finding in findings)
    if args.json:
        found = [_as_json(finding) for finding in findings]
        print_json({"ok": not problems, "findings": found, "warnings": list(expiry.warnings())})
        return 1 if problems else 0
    rows = [
        (
            finding.model,
            "" if finding.version is None else str(finding.version),
            finding.backend,
            finding.batching,
            _verdict(finding),
        )
        for finding in findings
        if finding.version is not None or not finding.ok
    ]
    if rows:
        print_table(("MODEL", "VERSION", "BACKEND", "BATCHING", "FOUND"), rows)
    for finding in findings:
        _print_long_problem(finding)
    notes = list(dict.fromkeys(_notes(findings)))
    if notes:
        print()
        print_table(("MODEL", "", "NOTE"), notes)
    for warning in expiry.warnings():
        print(f"\nwarning: {warning}")
    opened = sum(finding.ok and finding.version is not None for finding in findings)
    ignored = sum(kind == IGNORED for _, kind, _ in notes)
    settings = f", {ignored} settings ignored" if ignored else ""
    print(f"\n{opened} versions would be served, {problems} problems{settings}")
    return 1 if problems else 0


IGNORED = "ignored"
DIFFERS = "differs"
_AS_WRITTEN = (
    "steps: ",
    "warm-up requests",
    "unbatched: ",
    "runs Python code: ",
)  # notes that report no difference from the configuration


def _notes(findings: Sequence[Finding]) -> Iterator[tuple[str, str, str]]:
    """The notes for the operator, as (model, kind, text): settings that are ignored, settings that are applied
    differently, and other facts."""
    for finding in findings:
        name = finding.model if finding.version is None else f"{finding.model}:{finding.version}"
        for text in finding.notes:
            note = text.replace(f"{finding.path}/", "") if finding.path else text
            if "not honoured: " in note and note.partition("not honoured: ")[0].endswith(": "):
                source, _, fields = note.partition("not honoured: ")
                for field in fields.split(", "):
                    yield name, IGNORED, f"{source}{field}"
            elif "is not honoured" in note or "are not honoured" in note:
                yield name, IGNORED, note.replace(" is not honoured", "").replace(" are not honoured", "")
            else:
                yield name, "" if any(word in note for word in _AS_WRITTEN) else DIFFERS, note


def _verdict(finding: Finding) -> str:
    if not finding.ok:
        lines = _lines(finding.error)
        return f"PROBLEM: {lines[0] if len(lines) == 1 else f'{len(lines)}, see below'}"
    signature = finding.signatures[0] if finding.signatures else None
    shown = "" if signature is None else f"{_specs(signature.inputs)} -> {_specs(signature.outputs)}"
    more = f" (+{len(finding.signatures) - 1} signatures)" if len(finding.signatures) > 1 else ""
    return f"{shown}{more}"


def _lines(error: str) -> list[str]:
    """The lines of a message, without empty ones; each is shown as one line."""
    return [" ".join(line.split()) for line in error.splitlines() if line.strip()] or [""]


def _print_long_problem(finding: Finding) -> None:
    """Prints a problem of several lines below the table, one line each."""
    lines = _lines(finding.error)
    if len(lines) > 1:
        print(f"\n{finding.model or 'repository'}{'' if finding.version is None else f':{finding.version}'}:")
        print("\n".join(f"  {line}" for line in lines))


def _specs(specs: tuple[TensorSpec, ...]) -> str:
    return ", ".join(f"{s.name} {s.dtype.name}{'[?]' if s.shape is None else list(s.shape)}" for s in specs)


def _as_json(finding: Finding) -> dict[str, Any]:
    content = asdict(finding)
    content["signatures"] = [
        {
            "name": s.name,
            "inputs": [{"name": t.name, "dtype": t.dtype.name, "shape": t.shape} for t in s.inputs],
            "outputs": [{"name": t.name, "dtype": t.dtype.name, "shape": t.shape} for t in s.outputs],
        }
        for s in finding.signatures
    ]
    return content
