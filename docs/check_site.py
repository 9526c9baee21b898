"""Check a built site: `python docs/check_site.py site/`. Links lead somewhere, nothing is fetched.

Every `href` and `src` to a file of the site must exist, with its anchor, and no page may load a
script, style, font or picture from elsewhere.
"""

import re
import sys
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

LOADS = {
    ("script", "src"),
    ("img", "src"),
    ("iframe", "src"),
    ("source", "src"),
    ("object", "data"),
}
LOADED_LINKS = {"stylesheet", "icon", "preload", "preconnect", "dns-prefetch", "modulepreload"}


class Page(HTMLParser):
    """The anchors of a page, and what it links to and loads."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.anchors: set[str] = set()
        self.links: list[str] = []
        self.loads: list[str] = []
        self.feed(path.read_text("utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note what a tag names, links to and loads."""
        given = {name: value or "" for name, value in attrs}
        self.anchors |= {given[name] for name in ("id", "name") if name in given}
        self.loads += [x for name, x in given.items() if (tag, name) in LOADS]
        if tag == "link":
            loaded = LOADED_LINKS & set(given.get("rel", "").split())
            (self.loads if loaded else self.links).append(given.get("href", ""))
        elif "href" in given:
            self.links.append(given["href"])


def find_faults(site: Path) -> list[str]:
    """Return what is wrong, one sentence each."""
    page = cache(Page)
    faults = []
    for path in sorted(site.rglob("*.html")):
        here = page(path)
        for target in (*here.links, *here.loads):
            parts = urlsplit(target)
            if parts.scheme or parts.netloc:
                if target in here.loads and parts.scheme != "data":
                    faults.append(f"{path} loads {target}")
                continue
            file = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            if parts.path.startswith("/"):  # of the page that is shown for unknown addresses
                file = site.resolve() / unquote(parts.path).lstrip("/")
            file = file / "index.html" if file.is_dir() else file
            if not file.is_file():
                faults.append(f"{path} links to {target}, which is not there")
                continue
            anchor = unquote(parts.fragment)
            if file.suffix == ".html" and anchor not in page(file).anchors | {"", "__search"}:
                faults.append(f"{path} links to {target}, and there is no such anchor")
    for path in site.rglob("*.css"):
        for target in re.findall(
            r"url\(\s*['\"]?((?:https?:)?//[^)'\"]+)", path.read_text("utf-8")
        ):
            faults.append(f"{path} loads {target}")
    return faults


if __name__ == "__main__":
    found = find_faults(Path(sys.argv[1]))
    print("\n".join(found) or "every link leads somewhere, and nothing is fetched from elsewhere")
    sys.exit(bool(found))
