"""Where a version comes from, as `<version>/.inferd/provenance.json` tells it.

`inferd publish` writes the file. It lies in a hidden directory, so changing it reloads nothing. Whoever may write to
the repository may write anything into it: what is shown of it is escaped and bounded, and nothing relies on it.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from inferd.backends.files import FileRule

DIRECTORY: Final = ".inferd"
FILE: Final = "provenance.json"
MOST_BYTES: Final = 1 << 20
_MOST_ENTRIES: Final = 24
_LONGEST: Final = 120  # characters of one value
_LONGEST_KEY: Final = 48
_COMMIT: Final = re.compile(r"[0-9a-fA-F]{7,64}")


def read_provenance(version: Path, rule: FileRule) -> Mapping[str, Any]:
    """The content of a version's file, {} if there is none or it is no JSON object. Never raises for what it finds."""
    try:
        data = rule.read(version / DIRECTORY / FILE, MOST_BYTES)
        content = json.loads(data)
    except (OSError, ValueError, RecursionError, MemoryError):
        return {}
    return content if isinstance(content, dict) else {}


def origin_of(provenance: Mapping[str, Any]) -> dict[str, str]:
    """What people and metrics are shown of it: at most 24 short texts without control characters, by key.

    commit      of git, hexadecimal; `dirty` "true": files had changed since
    source      kind and place: "mlflow models:/digits@champion"
    run         id of the training run
    metric.*    measured by the training run or by a gate
    parity      how many rows were compared with the original, and the largest difference
    published   the time, ISO 8601
    forced      why it was published although a check has failed
    unchecked   "true": it was not loaded before it was published
    """
    return dict(list(_entries(provenance))[:_MOST_ENTRIES])


def shown(value: object, most: int = _LONGEST) -> str:
    """A value of the file as one short line without control characters."""
    if isinstance(value, float):
        text = f"{value:.4g}" if math.isfinite(value) else str(value)
    elif isinstance(value, (str, int, bool)):
        text = str(value) if not isinstance(value, int) or abs(value) < 10**18 else "a huge number"
    else:
        return ""
    text = text[: most + 1]
    line = "".join(
        letter if letter.isprintable() else " " if letter in "\r\n\t" else letter.encode("unicode_escape").decode()
        for letter in text.encode(errors="backslashreplace").decode()
    )
    return line if len(line) <= most else f"{line[: most - 1]}…"


def _entries(provenance: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    git = _object(provenance, "git")
    commit = git.get("commit")
    if isinstance(commit, str) and _COMMIT.fullmatch(commit):
        yield "commit", commit.lower()
        if git.get("dirty") is True:
            yield "dirty", "true"
    source = _object(provenance, "source")
    place = " ".join(part for part in (shown(source.get("kind"), 20), shown(source.get("uri"))) if part)
    if place:
        yield "source", shown(place)
    if run := shown(source.get("run_id"), 64):
        yield "run", run
    parity = _object(provenance, "parity")
    rows, apart = parity.get("rows"), parity.get("max_abs_diff")
    if isinstance(rows, int) and isinstance(apart, (int, float)):
        yield "parity", f"{shown(rows)} rows, largest difference {shown(float(apart))}"
    if made_at := shown(provenance.get("made_at"), 40):
        yield "published", made_at
    if forced := shown(provenance.get("forced")):
        yield "forced", forced
    if provenance.get("checked") is False:
        yield "unchecked", "true"
    for name, value in _object(provenance, "metrics").items():
        text = shown(value, 40)
        if text:
            yield f"metric.{shown(name, _LONGEST_KEY)}", text


def _object(provenance: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = provenance.get(key)
    return value if isinstance(value, dict) else {}
