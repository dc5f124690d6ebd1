"""Builds the site from docs/ into var/site/html, and checks it.

    python -m tools.documentation.site GENERATOR     (make docs)

GENERATOR is the program `zensical`. The pages are first copied to var/site/docs, with their links rewritten.
docs/decisions/documentation-site.md says why.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from tools.documentation import html_links
from tools.documentation.pages import ROOT, project_config, repository_url, sources, staged

OUT = ROOT / "var" / "site"


def stage(out: Path) -> Path:
    """Writes the pages and the generator's configuration below `out`. Returns the path of the configuration."""
    shutil.rmtree(out, ignore_errors=True)
    found = sources()
    places = {file.resolve(): place for place, file in found.items()}
    url = repository_url()
    for place, file in found.items():
        target = out / "docs" / place
        target.parent.mkdir(parents=True, exist_ok=True)
        if place.endswith(".md"):
            target.write_text(staged(place, file, places, url))
        else:
            shutil.copyfile(file, target)
    config = project_config()
    config["project"].update(docs_dir="docs", site_dir="html", use_directory_urls=False)
    if url:
        config["project"]["repo_url"] = url
    path = out / "zensical.toml"
    path.write_text("".join(_toml(config)))
    return path


def _toml(config: dict[str, Any]) -> list[str]:
    """The configuration as TOML: below [project] it has inline tables, arrays, text, numbers and booleans."""
    return ["[project]\n", *(f"{_key(key)} = {_value(value)}\n" for key, value in config["project"].items())]


def _key(key: str) -> str:
    return json.dumps(key)


def _value(value: Any) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{_key(key)} = {_value(inner)}" for key, inner in value.items()) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(_value(inner) for inner in value) + "]"
    return json.dumps(value)


def main(generator: str) -> int:
    """Builds the site. Returns the exit code: 1 if the generator or the check finds a fault."""
    path = stage(OUT)
    if subprocess.run([generator, "build", "--clean", "--strict", "-f", path], check=False).returncode:
        return 1
    faults = list(html_links.problems(OUT / "html"))
    for fault in faults:
        print(fault, file=sys.stderr)
    pages = len(list((OUT / "html").rglob("*.html")))
    print(f"{pages} pages, {len(faults)} faults. Open {OUT.relative_to(ROOT)}/html/index.html")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
