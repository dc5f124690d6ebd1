"""`inferd check`: opens everything that would be served, binds nothing. Exit codes 0 fine, 1 problems, 2 usage."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from .errors import CommandError
from .output import print_json, print_table
from .serve import add_configuration, configuration, missing

if TYPE_CHECKING:
    from inferd.backends.api import TensorSpec
    from inferd.server.lifecycle.inspect import Finding


def add(subparsers: Any) -> None:
    """Registers the command."""
    parser = subparsers.add_parser("check", help="validate configuration and repository; binds no port")
    add_configuration(parser)
    parser.add_argument("--json", action="store_true", help="findings as JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Checks. Gives 1 when something would not be served."""
    config = configuration(args)
    try:
        from inferd.backends.registry import Registry
        from inferd.server.lifecycle.inspect import inspect_repository
        from inferd.server.rpc.tfs.warmup import recorded
    except ImportError as error:
        raise CommandError(missing(error)) from None
    findings = inspect_repository(config, Registry(), recorded)
    problems = sum(not finding.ok for finding in findings)
    if args.json:
        print_json({"ok": not problems, "findings": [_as_json(finding) for finding in findings]})
        return 1 if problems else 0
    rows = [
        (finding.model, "" if finding.version is None else str(finding.version), finding.backend, _verdict(finding))
        for finding in findings
        if finding.version is not None or not finding.ok or finding.notes
    ]
    print_table(("MODEL", "VERSION", "BACKEND", "FOUND"), rows)
    opened = sum(finding.ok and finding.version is not None for finding in findings)
    print(f"\n{opened} versions would be served, {problems} problems")
    return 1 if problems else 0


def _verdict(finding: Finding) -> str:
    if not finding.ok:
        return f"PROBLEM: {' '.join(finding.error.split())}"
    signature = finding.signatures[0] if finding.signatures else None
    words = "" if signature is None else f"{_specs(signature.inputs)} -> {_specs(signature.outputs)}"
    more = f" (+{len(finding.signatures) - 1} signatures)" if len(finding.signatures) > 1 else ""
    notes = f" [{'; '.join(finding.notes)}]" if finding.notes else ""
    return f"{words}{more}{notes}"


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
