"""Turns the docstrings of this project into Markdown."""

from __future__ import annotations

import inspect
import re
import textwrap

# "name  meaning" in a table of arguments or attributes, or a name alone whose meaning begins in the next line.
_ROW = re.compile(r"^(?P<name>[a-z_]\w*(?:, ?\w+)*)(?:\s{2,}(?P<text>\S.*))?$")
_FURTHER = re.compile(r"^\s{4,}(?P<text>\S.*)$")


def markdown(docstring: str | None) -> str:
    """Paragraphs stay, aligned lists of names become tables, indented examples become code blocks."""
    blocks = re.split(r"\n\s*\n", inspect.cleandoc(docstring or "").strip())
    parts: list[str] = []
    for block in blocks:
        lines = block.splitlines()
        rows = _rows(lines)
        if rows:
            table = "\n".join(f"| {_names(name)} | {escaped(text)} |" for name, text in rows)
            parts.append(f"| name | meaning |\n| --- | --- |\n{table}")
        elif lines and all(line.startswith("    ") for line in lines):
            code = textwrap.dedent(block)
            if parts and parts[-1].endswith("\n```"):  # a blank line inside one example
                parts[-1] = f"{parts[-1].removesuffix('```')}\n{code}\n```"
            else:
                parts.append(f"```python\n{code}\n```")
        else:
            parts.append(" ".join(line.strip() for line in lines))
    return "\n\n".join(part for part in parts if part)


def escaped(text: str) -> str:
    """Text for a cell of a table."""
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")


def _names(name: str) -> str:
    return ", ".join(f"`{each}`" for each in re.split(", ?", name))


def _rows(lines: list[str]) -> list[tuple[str, str]]:
    """The rows of an aligned list; empty if these lines are not one."""
    rows: list[tuple[str, str]] = []
    for line in lines:
        further = _FURTHER.match(line)
        row = _ROW.match(line)
        if rows and further:
            rows[-1] = (rows[-1][0], f"{rows[-1][1]} {further['text']}".strip())
        elif row and (row["text"] or len(lines) > 1):
            rows.append((row["name"], row["text"] or ""))
        else:
            return []
    return rows if all(text for _, text in rows) else []
