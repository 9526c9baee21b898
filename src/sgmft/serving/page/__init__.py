"""The page for people."""

from __future__ import annotations

from fastapi import FastAPI

from sgmft.serving.engine import Engine


def add_pages(app: FastAPI, engine: Engine) -> None:
    """Add the page to the application."""
