"""Which pages the site has, and where their links lead. The site has the pages of docs/ and a few files from elsewhere;
links to all other files of the repository lead to its web address, if INFERD_PROJECT_URL has it, and are plain text
otherwise.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
CONFIG = DOCS / "site.toml"
# Files and folders from elsewhere, by their places in the site.
ADDED = {
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security-policy.md",
    "benchmarks/results": "results",
}
# A link or image of Markdown, [text](target), or code, in which nothing is a link: whichever begins first.
_LINK_OR_CODE = re.compile(
    r"^```.*?^```"
    r"|(?P<image>!?)\[(?P<text>(?:[^\[\]]|\[[^\]]*\])*)\]\((?P<target>[^()\s]+)\)"
    r"|`[^`\n]+`",
    re.MULTILINE | re.DOTALL,
)


def sources() -> dict[str, Path]:
    """All files of the site by their places in it."""
    found: dict[str, Path] = {}
    folders = [(DOCS, ""), *((ROOT / source, place) for source, place in ADDED.items())]
    for source, place in folders:
        for file in [source] if source.is_file() else sorted(source.rglob("*")):
            if not file.is_file() or file == CONFIG:
                continue
            path = place if source.is_file() else os.path.join(place, file.relative_to(source).as_posix())
            found[re.sub(r"(^|/)README\.md$", r"\1index.md", path)] = file
    return found


def project_config() -> dict[str, Any]:
    """docs/site.toml with a folder in `nav` ("decisions/") replaced by its pages, its index first."""
    config = tomllib.loads(CONFIG.read_text())
    pages = sorted(place for place in sources() if place.endswith(".md"))
    for entry in config["project"]["nav"]:
        for title, target in entry.items():
            if isinstance(target, str) and target.endswith("/"):
                inside = [place for place in pages if place.startswith(target)]
                entry[title] = sorted(inside, key=lambda place: (not place.endswith("/index.md"), place))
    return config


def in_navigation(nav: Any) -> Iterator[str]:
    """The places of all pages in the navigation."""
    if isinstance(nav, str):
        yield nav
    else:
        for each in nav.values() if isinstance(nav, dict) else nav:
            yield from in_navigation(each)


def repository_url() -> str:
    """The web address of the repository, "" if the environment does not say it. The addresses of the package come from
    the same variable (tools/packaging)."""
    return os.environ.get("INFERD_PROJECT_URL", "").strip().rstrip("/")


def staged(place: str, file: Path, places: dict[Path, str], url: str) -> str:
    """The text of a page with its links rewritten for the site.

    place   where the page is in the site
    places  the place of each file of the site
    url     the web address of the repository, or ""

    Raises ValueError for a link to a file that does not exist.
    """

    def replaced(link: re.Match[str]) -> str:
        target, _, anchor = (link["target"] or "").partition("#")
        if not target or re.match(r"[a-z]+:", target):
            return link[0]
        linked = (file.parent / target).resolve()
        if not linked.exists():
            raise ValueError(f"{file}: expected a link to a file, got {link['target']!r}")
        known = places.get(linked) or places.get(linked / "README.md")
        if known is not None:
            way = os.path.relpath(known, os.path.dirname(place) or ".")
            return f"{link['image']}[{link['text']}]({way}{f'#{anchor}' if anchor else ''})"
        if url:
            return f"{link['image']}[{link['text']}]({url}/blob/main/{linked.relative_to(ROOT)})"
        return link["text"]

    return _LINK_OR_CODE.sub(replaced, file.read_text())
