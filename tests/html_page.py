"""A page of HTML, parsed: its tags, its tables and the text that a reader sees."""

from __future__ import annotations

import re
from html import unescape
from html.parser import HTMLParser
from typing import Any
from xml.etree import ElementTree

EVIL = "<script>alert('&')</script>"


def svg_words(svg: str) -> list[str]:
    """Return the texts of a drawing."""
    return [element.text for element in ElementTree.fromstring(svg).iter() if element.text]


class Page(HTMLParser):
    """Tags with their attributes, tables as rows of (text, columns), and text outside <style>."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.source, self.text = source, ""
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.tables: list[list[list[tuple[str, int]]]] = []
        self.feed(source)

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        attributes = dict(attrs)
        self.tags.append((tag, attributes))
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append(("", int(attributes.get("colspan", 1))))

    def handle_data(self, data: str) -> None:
        self.text += "" if self.tags and self.tags[-1][0] == "style" else data
        if self.tables and self.tables[-1] and self.tables[-1][-1]:
            text, span = self.tables[-1][-1][-1]
            self.tables[-1][-1][-1] = (text + data, span)

    def numbers(self) -> list[str]:
        """All numbers that a reader sees, sorted."""
        text = re.sub(r"(?s)<style.*?</style>|<[^>]*>", " ", self.source)
        return sorted(re.findall(r"\d[\d,.]*\d|\d", unescape(text)))

    def all(self, tag: str) -> list[dict[str, str | None]]:
        """Attributes of every such tag."""
        return [attributes for name, attributes in self.tags if name == tag]

    def check_harmless(self, *sources: str) -> None:
        """Nothing is fetched and nothing is run; addresses begin with one of these."""
        for tag, attributes in self.tags:
            assert tag not in ("link", "iframe", "object", "script")
            assert not [name for name in attributes if name.startswith("on")]
            for name in ("src", "href", "xlink:href"):
                assert str(attributes.get(name, "#")).startswith(("#", *sources))
        assert "url(h" not in self.source and "@import" not in self.source
