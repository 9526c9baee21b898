"""A browser on the page, as a person has it: what is typed, dropped, pressed and seen."""

from __future__ import annotations

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
SECONDS = 40_000  # milliseconds for a result, on a busy machine


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
        mistakes: errors of the script, and what the policy of the page did not allow.
    """

    def __init__(self, context: BrowserContext, address: str, language: str = "en") -> None:
        self.page: Page = context.new_page()
        self.page.set_default_timeout(SECONDS)
        self.language = language
        self.mistakes: list[str] = []
        self.page.on("pageerror", lambda error: self.mistakes.append(str(error)))
        self.page.on("console", self._hear)
        self.page.goto(f"{address}/{language}/")

    def _hear(self, message: Any) -> None:
        if message.type == "error" and "the server responded with" not in message.text:
            self.mistakes.append(message.text)

    @property
    def words(self) -> dict[str, str]:
        return WORDS[self.language]

    def give(self, text: str, files: Sequence[Path | dict[str, Any]] = ()) -> None:
        """Type a text and choose files."""
        self.page.get_by_label(self.words["text"]).fill(text)
        if files:
            self.page.locator("#images").set_input_files(list(files))

    def clear(self) -> None:
        """Remove every file of the post."""
        while self.page.locator("#post-form .remove").count():
            self.page.locator("#post-form .remove").first.click()

    def ask(self) -> None:
        """Press the button."""
        self.page.locator("#predict").click()

    def explained(self) -> Any:
        """The result, when its reasons are there."""
        self.page.locator("#post-result .steps").wait_for()
        return self.page.locator("#post-result")

    def problem(self, where: str = "#post-result") -> str:
        """What is wrong, when it is shown."""
        self.page.locator(f"{where} .problem p").wait_for()
        return self.page.locator(f"{where} .problem p").inner_text()

    def label(self, table: Path, pictures: Path | None = None) -> None:
        """Choose a table and its pictures, and have it labelled."""
        self.page.get_by_role("tab", name=self.words["table"]).click()
        if pictures is not None:
            self.page.locator("#pictures").set_input_files(pictures)
        self.page.locator("#table").set_input_files(table)
        self.page.get_by_role("button", name=self.words["label"]).click()

    def download(self, to: Path) -> Path:
        """The labelled table, when it is there."""
        self.page.locator("#download").wait_for()
        with self.page.expect_download() as coming:
            self.page.locator("#download").click()
        coming.value.save_as(to / coming.value.suggested_filename)
        return to / coming.value.suggested_filename

    def has(self, script: str) -> Any:
        """The value of a script on the page."""
        return self.page.evaluate(script)
