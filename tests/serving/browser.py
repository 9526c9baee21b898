"""A browser on the page, as a person has it: what is typed, dropped, pressed and seen."""

import shutil
from contextlib import contextmanager

from playwright.sync_api import sync_playwright

CHROMIUM = shutil.which("chromium")
WORDS = {
    "en": {"text": "Text of the post", "table": "A table", "label": "Label the table"},
    "zh": {"text": "帖子文字", "table": "整张表格", "label": "为表格加标签"},
}
PATIENCE = 40_000  # milliseconds for a result, on a busy machine


@contextmanager
def chromium():
    """Debian's own browser, without a window."""
    with sync_playwright() as tools:
        browser = tools.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


class Visit:
    """One visitor's page.

    Attributes:
        page: as playwright has it.
        mistakes: errors of the script, and what the policy of the page did not allow.
    """

    def __init__(self, context, address, language="en"):
        self.page, self.words, self.mistakes = context.new_page(), WORDS[language], []
        self.page.set_default_timeout(PATIENCE)
        self.page.on("pageerror", lambda error: self.mistakes.append(str(error)))
        self.page.on("console", self._hear)
        self.page.goto(f"{address}/{language}/")

    def _hear(self, message):
        if message.type == "error" and "the server responded with" not in message.text:
            self.mistakes.append(message.text)

    def press(self, name):
        """Click on a button."""
        self.page.get_by_role("button", name=name).click()

    def give(self, text, files=()):
        """Type a text and choose files."""
        self.page.get_by_label(self.words["text"]).fill(text)
        if files:
            self.page.locator("#images").set_input_files(list(files))

    def clear(self):
        """Remove every file of the post."""
        while self.page.locator("#post-form .remove").count():
            self.page.locator("#post-form .remove").first.click()

    def ask(self):
        """Press the button that sends the post."""
        self.page.locator("#predict").click()

    def explain(self, text, files=()):
        """The result of a post, when its reasons are there."""
        self.give(text, files)
        self.ask()
        return self.explained()

    def refused(self, text, files=()):
        """What is wrong with a post, when it is shown."""
        self.give(text, files)
        self.ask()
        return self.problem()

    def explained(self):
        """The result, when its reasons are there."""
        self.page.locator("#post-result .steps").wait_for()
        return self.page.locator("#post-result")

    def problem(self, where="#post-result"):
        """What is wrong, when it is shown."""
        self.page.locator(f"{where} .problem p").wait_for()
        return self.page.locator(f"{where} .problem p").inner_text()

    def label(self, table, pictures=None):
        """Choose a table and its pictures, and have it labelled."""
        self.page.get_by_role("tab", name=self.words["table"]).click()
        if pictures is not None:
            self.page.locator("#pictures").set_input_files(pictures)
        self.page.locator("#table").set_input_files(table)
        self.press(self.words["label"])

    def download(self, to):
        """The labelled table, when it is there."""
        self.page.locator("#download").wait_for()
        with self.page.expect_download() as coming:
            self.page.locator("#download").click()
        coming.value.save_as(to / coming.value.suggested_filename)
        return to / coming.value.suggested_filename

    def has(self, script):
        """The value of a script on the page."""
        return self.page.evaluate(script)
