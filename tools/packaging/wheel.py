"""What a wheel holds beside the four folders: the file of the namespace `inferd` itself.

An editable installation leaves it out. There the four folders are the namespace, and a file in site-packages would be
found, too, by every other environment that adds this site-packages to its path.
"""

from __future__ import annotations

from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

FILES = {"tools/packaging/top_level.py": "inferd/__init__.py", "tools/packaging/py.typed": "inferd/py.typed"}


class TopLevel(BuildHookInterface):
    """Hatchling's hook for the wheel."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if version != "editable":
            build_data["force_include"].update({f"{self.root}/{source}": target for source, target in FILES.items()})
