"""A browser on the page, as a person has it: what is typed, dropped, pressed and seen."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

CHROMIUM = shutil.which("chromium")
WORDS = {
    "en": {"text": "Text of the post", "table": "A table", "label": "Label the table"},
    "zh": {"text": "帖子文字", "table": "整张表格", "label": "为表格加标签"},
}
SECONDS = 40_000  # milliseconds for an answer, on a busy machine


@contextmanager
def chromium() -> Iterator[Browser]:
    """Debian's own browser, without a window."""
    with sync_playwright() as tools:
        browser = tools.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


class Visit:
    """One visitor's page.

    Attributes:
        page: as playwright has it.
        language: "en" or "zh".
    """

    def __init__(self, context: BrowserContext, address: str, language: str = "en") -> None:
        self.page: Page = context.new_page()
        self.page.set_default_timeout(SECONDS)
        self.language = language
        self.page.goto(f"{address}/{language}/")
        self.page.locator("#ask").wait_for()

    @property
    def words(self) -> dict[str, str]:
        return WORDS[self.language]

    def give(self, text: str, files: Sequence[Path | dict[str, Any]] = ()) -> None:
        """Type a text and choose files."""
        self.page.get_by_label(self.words["text"]).fill(text)
        if files:
            self.page.locator("input[type=file]").first.set_input_files(list(files))
            self.wait_for_files(len(files))

    def wait_for_files(self, count: int) -> None:
        """Until so many files are there."""
        self.page.locator(".file-preview tr.file").nth(count - 1).wait_for()

    def ask(self) -> None:
        """Press the button."""
        self.page.locator("#ask").click()

    def explained(self) -> Any:
        """The result, when its reasons are there."""
        self.page.locator("#result .steps").wait_for()
        return self.page.locator("#result")

    def problem(self, where: str = "#result") -> str:
        """What is wrong, when it is told."""
        self.page.locator(f"{where} .problem p").wait_for()
        return self.page.locator(f"{where} .problem p").inner_text()

    def label(self, table: Path, pictures: Path | None = None) -> None:
        """Choose a table and its pictures, and have it labelled."""
        self.page.get_by_role("tab", name=self.words["table"]).click()
        inputs = self.page.locator("input[type=file]:not([accept*=image])")
        if pictures is not None:
            self.page.locator("input[type=file][accept*=zip]").set_input_files(pictures)
            self._wait_for_file(pictures)
        inputs.first.set_input_files(table)
        self._wait_for_file(table)
        self.page.get_by_role("button", name=self.words["label"]).click()

    def _wait_for_file(self, file: Path) -> None:
        shown = re.compile(rf"{re.escape(file.stem)}\s*{re.escape(file.suffix)}")
        self.page.locator("tr.file").filter(has_text=shown).wait_for()

    def download(self, to: Path) -> Path:
        """The labelled table, when it is there."""
        self.page.locator("#download").wait_for()
        with self.page.expect_download() as coming:
            self.page.locator("#download").click()
        coming.value.save_as(to / coming.value.suggested_filename)
        return to / coming.value.suggested_filename

    def has(self, script: str) -> Any:
        """What a script says of the page."""
        return self.page.evaluate(script)
