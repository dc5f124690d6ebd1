"""Writes the generated pages below docs/reference/. A test checks that they are up to date.

    python -m tools.documentation.reference          (make reference)

docs/reference/settings.md and config.yaml come from `inferd.server.config.render`, which an installed server has, too.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tools.documentation import client_page, command_page, metric_page, protocol_page

from inferd.server.config import render

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "docs" / "reference"
PROTOC = ROOT / ".venv-proto" / "bin" / "python"

PAGES: dict[str, Callable[[], str]] = {
    "client.md": client_page.page,
    "commands.md": command_page.page,
    "config.yaml": render.config_yaml,
    "metrics.md": metric_page.page,
    "protocol.md": lambda: protocol_page.page(PROTOC),
    "settings.md": render.settings_page,
}


def main() -> None:
    """Writes every page."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name, page in PAGES.items():
        (FOLDER / name).write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()
