"""Looks through the built site: every link leads to a page and an anchor that are there, and no page fetches anything
from another host."""

from __future__ import annotations

from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

# Elements whose `src` is fetched when the page is read. The address of an <a> is only fetched on a click.
FETCHED = {"script", "img", "iframe", "source", "video", "audio", "embed"}
FETCHED_RELATIONS = {"stylesheet", "preload", "modulepreload", "icon", "preconnect", "dns-prefetch", "manifest"}


class Page(HTMLParser):
    """The ids, links and fetched addresses of one page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids: set[str] = set()
        self.links: list[str] = []
        self.fetched: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {name: value or "" for name, value in attrs}
        self.ids |= {found[name] for name in ("id", "name") if name in found}
        if tag == "a" and "href" in found:
            self.links.append(found["href"])
        if tag in FETCHED and found.get("src"):
            self.fetched.append(found["src"])
        if tag == "link" and FETCHED_RELATIONS & set(found.get("rel", "").split()):
            self.fetched.append(found.get("href", ""))


def problems(site: Path) -> Iterator[str]:
    """A line for each broken link, and for each address of another host that a page or style sheet fetches."""
    pages = {path.resolve(): Page(path.read_text()) for path in sorted(site.rglob("*.html"))}
    for path, page in pages.items():
        shown = path.relative_to(site.resolve())
        for address in page.fetched:
            if urlsplit(address).netloc:
                yield f"{shown}: fetches {address}"
        for address in [*page.links, *page.fetched]:
            parts = urlsplit(address)
            if parts.scheme or parts.netloc or shown.name == "404.html":
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            if target.is_dir():
                target /= "index.html"
            if not target.exists():
                yield f"{shown}: links to {address}, which does not exist"
            elif parts.fragment and target in pages and unquote(parts.fragment) not in pages[target].ids:
                yield f"{shown}: links to {address}, which has no such anchor"
    for path in sorted(site.rglob("*.css")):
        for word in ("url(http", 'url("http', "url(//", "@import"):
            if word in path.read_text():
                yield f"{path.relative_to(site)}: fetches something by {word}"
