"""What builds the documentation: its pages, its links, the check of the result. The generator is not needed here."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from tools.documentation.docstrings import markdown
from tools.documentation.html_links import problems
from tools.documentation.pages import ROOT, staged
from tools.documentation.site import stage


def test_the_staged_site_has_its_pages_and_a_configuration(tmp_path: Path) -> None:
    config = tomllib.loads(stage(tmp_path / "site").read_text())["project"]
    assert config["theme"]["font"] is False
    assert "offline" in config["plugins"]
    assert {"decisions/index.md", "decisions/namespace.md"} <= set(config["nav"][-1]["Decisions"])
    docs = tmp_path / "site" / "docs"
    assert (docs / config["extra"]["polyfills"][0]["path"]).is_file()
    assert "](decisions/index.md)" in (docs / "contributing.md").read_text()
    assert (docs / "results" / "index.md").is_file()


def test_links_are_rewritten(tmp_path: Path) -> None:
    page = ROOT / "docs" / "performance.md"
    places = {ROOT / "CONTRIBUTING.md": "contributing.md", page: "performance.md", ROOT / "docs/x.svg": "x.svg"}
    file = tmp_path / "page.md"

    def rewritten(text: str, url: str = "") -> str:
        file.write_text(text.replace("ROOT", str(ROOT)))
        return staged("reference/page.md", file, places, url)

    assert rewritten("[a](ROOT/CONTRIBUTING.md#tests)") == "[a](../contributing.md#tests)"
    assert rewritten("[a `b`](ROOT/docs/performance.md)") == "[a `b`](../performance.md)"
    assert rewritten("[a](https://example.com/x) [b](#here)") == "[a](https://example.com/x) [b](#here)"
    assert rewritten("[code](ROOT/Makefile)") == "code"
    assert (
        rewritten("[code](ROOT/Makefile)", "https://example.com/r")
        == "[code](https://example.com/r/blob/main/Makefile)"
    )
    assert rewritten("`[a](gone.md)`\n```\n[a](gone.md)\n```\n") == "`[a](gone.md)`\n```\n[a](gone.md)\n```\n"
    with pytest.raises(ValueError, match=r"gone\.md"):
        rewritten("[a](ROOT/gone.md)")


@pytest.mark.parametrize(
    ("body", "fault"),
    [
        ('<a href="b.html#two">x</a><img src="data:image/png;base64,AA"><a href="https://example.com">x</a>', ""),
        ('<a href="c.html">x</a>', "c.html, which does not exist"),
        ('<a href="b.html#three">x</a>', "has no such anchor"),
        ('<a href="#here">x</a>', "has no such anchor"),
        ('<script src="https://example.com/x.js"></script>', "fetches https://example.com/x.js"),
        ('<img src="//example.com/x.png">', "fetches //example.com/x.png"),
        ('<link rel="preconnect" href="https://fonts.example.com">', "fetches https://fonts.example.com"),
        ('<link rel="canonical" href="https://example.com/a.html">', ""),
    ],
)
def test_faults_of_the_built_site(tmp_path: Path, body: str, fault: str) -> None:
    (tmp_path / "a.html").write_text(f"<html><body>{body}</body></html>")
    (tmp_path / "b.html").write_text('<html><body><h2 id="two">Two</h2></body></html>')
    found = list(problems(tmp_path))
    assert len(found) == bool(fault)
    assert all(fault in line for line in found)


def test_style_sheets_fetch_nothing(tmp_path: Path) -> None:
    (tmp_path / "a.css").write_text("@import url(https://example.com/x.css);")
    assert any("a.css" in line for line in problems(tmp_path))


def test_docstrings_become_markdown() -> None:
    text = """A class.

        x = C()
        x.run()

    a        the first
    b, c     the others,
             which go on
    much_longer_name
             the last
    """
    assert markdown(text) == (
        "A class.\n\n```python\nx = C()\nx.run()\n```\n\n| name | meaning |\n| --- | --- |\n| `a` | the first |\n"
        "| `b`, `c` | the others, which go on |\n| `much_longer_name` | the last |"
    )


def test_the_readme_has_the_range_of_the_figures_beside_triton() -> None:
    page = (ROOT / "docs" / "performance.md").read_text()
    section = page.partition("## Beside Triton's C++ server")[2].partition("\n## ")[0]
    tables = [part for part in section.split("\n\n") if part.startswith("| ")]
    assert tables, "docs/performance.md: expected a table below 'Beside Triton's C++ server'"
    readme = (ROOT / "README.md").read_text()
    for table in tables:
        cells = [cell for row in table.splitlines()[2:] for cell in row.strip("| ").split(" | ")[1:]]
        figures = [float(figure) for cell in cells for figure in re.findall(r"\d+\.\d+", cell)]
        assert f"{min(figures):.2f} to {max(figures):.2f}" in readme, (
            "README.md: the figure beside Triton is an old one"
        )
