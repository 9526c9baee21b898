"""The page of an audit in a browser: what is chosen there becomes fixes.csv, and is applied."""

import pytest

pytest.importorskip("playwright", reason="playwright drives the browser")

from browser import CHROMIUM, chromium

from audited_posts import write_audited
from sgmft.data.source import Source, apply_fixes
from sgmft.jobs.audit import audit_table
from small_tables import read_rows, write_rows

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium: apt install it")
ODD = 'a "quoted", id'


def test_choices_become_fixes_that_training_applies(tiny, tmp_path):
    rows = read_rows(write_audited(tmp_path))
    rows[3]["id"] = ODD
    source = Source(str(write_rows(rows, tmp_path / "odd.csv")))
    audit_table(source, tmp_path / "audit", tiny(preset="default"))
    with chromium() as browser:
        context = browser.new_context(viewport={"width": 390, "height": 800}, accept_downloads=True)
        page, mistakes = context.new_page(), []
        page.on("pageerror", lambda error: mistakes.append(str(error)))
        page.on("console", lambda message: mistakes.append(message.text))
        page.goto((tmp_path / "audit" / "audit.html").as_uri())
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        assert page.locator("button").is_disabled()

        def post(name):
            return page.locator("article").filter(has_text=f"{name}: ").first

        post(ODD).get_by_label("Take Home").check()
        post("p65").get_by_label("Another label").last.fill('会议, "big"')
        post("p5").get_by_label("Drop the post").check()  # in the conflicts, and across the split
        post("p80").get_by_label("Drop the post").check()
        post("p80").get_by_label("Keep Home").check()
        page.reload()  # what was chosen is kept
        assert page.locator("#count").inner_text() == "3"
        assert page.locator("article.changed").count() == 4
        with page.expect_download() as download:
            page.locator("button").click()
        assert download.value.suggested_filename == "fixes.csv"
        download.value.save_as(tmp_path / "fixes.csv")
        assert mistakes == []
    expected = [(ODD, "School", "Home"), ("p5", "Work", None), ("p65", "Home", '会议, "big"')]
    fixes = read_rows(tmp_path / "fixes.csv")
    assert sorted(tuple(row.values()) for row in fixes) == expected
    posts = {
        x.id: x.label for x in apply_fixes(source.read_labelled(), str(tmp_path / "fixes.csv"))
    }
    assert (posts[ODD], posts["p65"], "p5" in posts) == ("Home", '会议, "big"', False)
    assert len(posts) == len(rows) - 1
