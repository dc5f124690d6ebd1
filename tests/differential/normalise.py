"""All normalisations: values that differ even between two servers of the same code.

TEXTS      patterns in error texts, metadata, bodies and the output of commands
FIELDS     fields of protobuf messages and JSON documents that hold times or durations
HEADERS    headers of HTTP responses
METADATA   gRPC metadata whose value is an estimate
SERIES     lines of the metrics page that are not compared
RUNS       lines, and RUN_FIELDS fields, not compared where the number of runs depends on the speed of the machine
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

TEXTS: Final[Sequence[tuple[str, re.Pattern[str], str]]] = (
    (
        "a port that the system chooses",
        re.compile(r"(127\.0\.0\.1|localhost|\[::1?\]|0\.0\.0\.0)(:|%3A)\d+"),
        r"\1:<port>",
    ),
    ("process ids", re.compile(r"in process \d+"), "in process <pid>"),
    ("time that something took or waited", re.compile(r"\b\d+(\.\d+)? ?(ms|s|seconds|us|µs)\b(?! \()"), "<time>"),
    ("moments", re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d([.,]\d+)?(Z|[+-]\d\d:?\d\d)?"), "<moment>"),
    ("times of day", re.compile(r"\d\d:\d\d:\d\d UTC"), "<moment>"),
    ("an object's address in memory", re.compile(r"0x[0-9a-f]{6,}"), "<address>"),
    ("request ids that the server makes up", re.compile(r"\b[0-9a-f]{8}-[0-9a-f]+\b"), "<made id>"),
)

FIELDS: Final[Mapping[str, str]] = {
    "load_seconds": "duration of a load",
    "changed_unix_ms": "moment of the last change",
    "since_unix_ms": "moment of a wish",
    "last_inference": "moment of the last answer",
    "ns": "durations of Triton's statistics",
    # Names of the same in the JSON of REST and of the command line.
    "changed": "moment of the last change",
    "since": "moment of a wish",
    "age": "time since the last change",
    "loaded_in": "duration of a load",
}

HEADERS: Final[Mapping[str, str]] = {
    "date": "moment of the answer",
    "content-length": "follows from the body, which is compared after normalisation",
}

METADATA: Final[Mapping[str, str]] = {
    "grpc-retry-pushback-ms": "estimated from measured batches, with jitter",
}

RETRY: Final = "retry-after"  # a header of HTTP, estimated as above
SERIES: Final[Sequence[tuple[str, re.Pattern[str]]]] = (
    ("the process and its interpreter", re.compile(r"(process|python)_.*")),
    ("moments at which series began", re.compile(r".*_created\b.*")),
    ("durations: sums and buckets; their counts are compared", re.compile(r"inferd_\w*seconds_(sum|bucket)\b.*")),
    ("durations", re.compile(r"inferd_(batch_compute_seconds_total|servable_load_seconds)\{.*")),
    ("memory of worker processes", re.compile(r"inferd_worker_resident_bytes\{.*")),
    ("which of equal processes the system chose for a connection", re.compile(r"inferd_group_requests.*")),
)


RUNS: Final = ("a run that takes unexpectedly long on the event loop is repeated", re.compile(r"inferd_batch_.*"))
RUN_FIELDS: Final[Mapping[str, str]] = {
    "inference_count": "rows of runs, repeated ones included",
    "execution_count": "runs, repeated ones included",
    "batch_stats": "runs by their rows, repeated ones included",
}


class Normaliser:
    """Applies TEXTS and FIELDS, and replaces the names of one side (its directories and others in `names`)."""

    def __init__(
        self,
        names: Mapping[str, str],
        texts: Sequence[tuple[str, re.Pattern[str], str]] = TEXTS,
        *,
        runs: bool = True,
    ) -> None:
        """`runs`: the number of runs is compared (else RUN_FIELDS are normalised)."""
        self._names = sorted(names.items(), key=lambda item: -len(item[0]))
        self._texts = texts
        self._fields = FIELDS if runs else {**FIELDS, **RUN_FIELDS}

    @property
    def of_names(self) -> Normaliser:
        """A normaliser that replaces only the names, for texts in which nothing else may differ."""
        return Normaliser(dict(self._names), ())

    def text(self, text: str) -> str:
        """The normalised text."""
        for name, stands_for in self._names:
            text = text.replace(name, stands_for)
        for _, pattern, stands_for in self._texts:
            text = pattern.sub(stands_for, text)
        return text

    def value(self, value: Any) -> Any:
        """The same for every text in a JSON-like value."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, Mapping):
            return {
                self.text(str(key)): (
                    f"<{self._fields[key]}>" if key in self._fields and _is_set(each) else self.value(each)
                )
                for key, each in value.items()
            }
        if isinstance(value, list | tuple):
            return [self.value(each) for each in value]
        return value


def _is_set(value: Any) -> bool:
    # Zero or nothing means that it never happened, which is compared.
    return value not in (0, "0", [], {}, None)


def metadata(pairs: Sequence[tuple[str, str | bytes]]) -> list[list[str]]:
    """gRPC metadata, sorted; estimates are replaced."""
    found = []
    for key, value in pairs:
        text = value.hex() if isinstance(value, bytes) else value
        found.append([key, "<estimate>" if key in METADATA else text])
    return sorted(found)


def headers(pairs: Sequence[tuple[str, str]]) -> list[list[str]]:
    """Headers of an HTTP response, sorted; HEADERS are left out."""
    lowered = [(key.lower(), value) for key, value in pairs]
    return sorted([key, "<estimate>" if key == RETRY else value] for key, value in lowered if key not in HEADERS)


def series(page: str, *, runs: bool = True) -> dict[str, str]:
    """The lines of a metrics page by name and labels, without SERIES. `runs`: include the lines that count runs of
    models (RUNS)."""
    left_out = [pattern for _, pattern in (SERIES if runs else (*SERIES, RUNS))]
    found = {}
    for line in page.splitlines():
        if line.startswith("# "):
            _, kind, name, text = [*line.split(" ", 3), ""][:4]
            if not re.match(r"(process|python)_", name):
                found[f"# {kind} {name}"] = text
            continue
        name, _, value = line.rpartition(" ")
        if not any(pattern.fullmatch(name) for pattern in left_out):
            found[name] = value
    return found
