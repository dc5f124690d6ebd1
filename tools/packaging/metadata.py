"""What the package index shows: the README with links that lead somewhere, and the project's addresses.

A package has no folder beside its README, so relative links lead nowhere. The tree does not know at which address it is
published; who publishes it does, and says so when building:

    INFERD_PROJECT_URL=https://forge.example/team/inferd make dist

With it, links become absolute (ADDRESS/blob/v0.1.0/docs/...), and the addresses of sources, documentation and
changes are part of the metadata. Without it, links become their text.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface

VARIABLE = "INFERD_PROJECT_URL"
_LINK = re.compile(r"\[([^\]]+)\]\((?!https?://|mailto:)([^)\s]+)\)")


def with_absolute_links(text: str, base: str) -> str:
    """The text with relative links below `base`, an address; with "" links become their text. Links to the page's own
    headings stay as they are."""

    def replaced(found: re.Match[str]) -> str:
        title, target = found.groups()
        if target.startswith("#"):
            return found[0]
        return f"[{title}]({base}/{target})" if base else title

    parts = re.split(r"(^```.*?^```$)", text, flags=re.MULTILINE | re.DOTALL)  # odd parts are blocks of code
    return "".join(part if i % 2 else _LINK.sub(replaced, part) for i, part in enumerate(parts))


class ReadmeAndAddresses(MetadataHookInterface):
    """Hatchling's hook: fills in `readme` and `urls`."""

    def update(self, metadata: dict[str, Any]) -> None:
        address = os.environ.get(VARIABLE, "").strip().rstrip("/")
        if address and not address.startswith(("https://", "http://")):
            raise ValueError(f"{VARIABLE}: expected https://..., got {address!r}")
        base = f"{address}/blob/v{metadata['version']}" if address else ""
        text = (Path(self.root) / "README.md").read_text(encoding="utf-8")
        metadata["readme"] = {"content-type": "text/markdown", "text": with_absolute_links(text, base)}
        if address:
            metadata["urls"] = {
                "Source": address,
                "Documentation": f"{base}/docs",
                "Changelog": f"{base}/CHANGELOG.md",
            }
