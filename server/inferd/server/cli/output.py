"""Prints tables, JSON and arrays."""

from __future__ import annotations

import base64
import json
import sys
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from inferd.client import Prediction


def print_json(value: Any) -> None:
    """Prints one JSON document to stdout, and nothing else."""
    print(json.dumps(value, indent=2, default=_plain, ensure_ascii=False))


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]], styles: Mapping[str, str] | None = None) -> None:
    """Prints a table: with `rich` on a terminal, otherwise as aligned plain text, which other programs can read.

    styles: cell text → style of rich.
    """
    if sys.stdout.isatty():
        try:
            from rich.console import Console
            from rich.table import Table
            from rich.text import Text
        except ImportError:
            pass
        else:
            table = Table(box=None, pad_edge=False, header_style="bold")
            for column in columns:
                table.add_column(column)
            for row in rows:
                table.add_row(*(Text(cell, style=(styles or {}).get(cell, "")) for cell in row))
            Console().print(table)
            return
    widths = [max(len(column), *(len(row[i]) for row in rows), 0) for i, column in enumerate(columns)]
    for line in (columns, *rows):
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def prediction_json(answer: Prediction) -> dict[str, Any]:
    """A prediction for JSON: outputs with dtype, shape and nested data. Bytes that are no UTF-8 become {"b64": ...}."""
    return {
        "model": answer.model,
        "version": answer.version,
        "signature": answer.signature,
        "request_id": answer.request_id,
        "outputs": {
            name: {"dtype": dtype_name(array), "shape": list(array.shape), "data": _listed(array)}
            for name, array in answer.items()
        },
    }


def print_prediction(answer: Prediction) -> None:
    """Prints a prediction as text: a head line, then every output; long outputs are shortened."""
    print(f"{answer.model} version {answer.version}, signature {answer.signature}")
    for name, array in answer.items():
        print(f"{name}  {dtype_name(array)} {list(array.shape)}")
        shown = np.vectorize(_text, otypes=[object])(array) if array.dtype == object and array.size else array
        text = np.array2string(shown, threshold=64, edgeitems=4, max_line_width=100, precision=6, suppress_small=True)
        print("\n".join(f"  {line}" for line in text.splitlines()))


def dtype_name(array: np.ndarray[Any, Any]) -> str:
    """The name of the array's element type in requests and answers."""
    from inferd.wire.dtypes import dtype_of

    return dtype_of(array).name


def when(moment: datetime | None) -> str:
    """A time as text, in the local time zone; "" for None."""
    return moment.astimezone().strftime("%Y-%m-%d %H:%M:%S") if moment else ""


def _listed(array: np.ndarray[Any, Any]) -> Any:
    if array.dtype.kind == "V":  # bfloat16, whose scalars are not JSON numbers
        array = array.astype(np.float32)
    return array.tolist()


def _text(item: object) -> str:
    return item.decode("utf-8", "backslashreplace") if isinstance(item, bytes) else str(item)


def _plain(value: object) -> Any:
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError:
            return {"b64": base64.b64encode(value).decode()}
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"{type(value).__name__} is no JSON")
