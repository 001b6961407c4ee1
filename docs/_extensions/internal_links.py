"""Looks up every link inside the built site: its file must be there, and in it the place that it names."""

from __future__ import annotations

from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

if TYPE_CHECKING:
    from sphinx.application import Sphinx


class _Page(HTMLParser):
    """The places and links of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.places: set[str] = set()
        self.links: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name in ("id", "name") and value:
                self.places.add(value)
            elif name in ("href", "src") and value:
                self.links.add(value)


def broken(folder: Path) -> Iterator[str]:
    """Yield a line for each link inside ``folder`` that leads nowhere."""
    files = [path for path in sorted(folder.rglob("*.html")) if "_static" not in path.parts]
    pages = {path: _Page(path.read_text(encoding="utf-8")) for path in files}
    for path, page in pages.items():
        for link in sorted(page.links):
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            if not target.exists():
                yield f"{path.relative_to(folder)}: {link} is not there"
            elif parts.fragment and target in pages and parts.fragment not in pages[target].places:
                yield f"{path.relative_to(folder)}: {link} names no place on that page"


def _check(app: Sphinx, error: Exception | None) -> None:
    from sphinx.util import logging

    if error is None and app.builder.format == "html":
        for line in broken(Path(app.outdir).resolve()):
            logging.getLogger(__name__).warning(line)


def setup(app: Sphinx) -> dict[str, bool]:
    """Check after the build, when other extensions have copied their files."""
    app.connect("build-finished", _check, priority=900)
    return {"parallel_read_safe": True}
