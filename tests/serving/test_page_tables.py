"""A table on the page, in a browser."""

from __future__ import annotations

import csv
import json
import zipfile
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("playwright", reason="playwright drives the browser")

from browser import CHROMIUM, Visit
from loopback import counted, until

pytest_plugins = ["browser_fixtures"]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium: apt install it"),
]


@pytest.fixture(scope="module")
def posts(sample: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in sample.read_text("utf-8").splitlines()][:12]


def write_table(path: Path, posts: list[dict[str, Any]]) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["id", "text", "images"])
        rows.writerows((post["id"], post["text"], "|".join(post["images"])) for post in posts)
        rows.writerows([("lost", "a text", "images/nowhere.jpg"), ("out", "", "../secret.jpg")])
    return path


def write_zip(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
        for name, data in files.items():
            packed.writestr(name, data)
    return path


def read(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        return list(csv.DictReader(file))


def test_a_table_with_a_zip_comes_back_labelled(
    visit: Any, trained: Path, posts: list[dict[str, Any]], sample: Path, tmp_path: Path
) -> None:
    from sgmft import SemanticLocator
    from sgmft.data.source import Source
    from sgmft.jobs.predict import predict_table

    table = write_table(sample.parent / "few.csv", posts)
    names = [name for post in posts for name in post["images"]]
    packed = write_zip(
        tmp_path / "few-pictures.zip", {n: (sample.parent / n).read_bytes() for n in names}
    )
    expected = tmp_path / "expected.csv"
    summary = predict_table(Source(str(table)), expected, SemanticLocator.from_pretrained(trained))

    page = visit()
    page.label(table, packed)
    found = page.download(tmp_path)
    assert found.name == "few-labelled.csv"
    rows, wanted = read(found), read(expected)
    assert len(rows) == summary.posts == 14
    for row, other in zip(rows, wanted, strict=True):
        assert list(row) == list(other)
        for name, value in other.items():
            if name.startswith("p"):  # probabilities, of batches that are cut otherwise
                assert row[name] == value or float(row[name]) == pytest.approx(
                    float(value), abs=1e-3
                )
            else:
                assert row[name] == value
    assert [row["id"] for row in rows if row["error"]] == ["lost", "out"]

    result = page.page.locator("#table-result")
    assert result.locator("h2").inner_text() == "12 of 14 posts have a label."
    assert "2 cannot be used" in result.inner_text()
    assert "1 × there is no file …" in result.locator("li").all_inner_texts()
    assert result.locator("tbody tr").count() == 8


def test_a_tables_name_is_written_down_nowhere(visit: Any, server: Any, tmp_path: Path) -> None:
    """Also where there is a warning of its encoding."""
    table = tmp_path / "confidential.csv"
    table.write_bytes("text\n在电影院看电影\n上课中\n".encode("gb18030"))
    page = visit()
    page.label(table)
    found = page.download(tmp_path)
    assert found.name == "confidential-labelled.csv"
    assert [row["text"] for row in read(found)] == ["在电影院看电影", "上课中"]
    assert "confidential" not in "".join(server.log)


def test_a_table_that_cannot_be_used_is_refused_and_the_page_goes_on(
    visit: Any, tmp_path: Path
) -> None:
    page = visit()
    page.page.get_by_role("tab", name="A table").click()
    page.page.get_by_role("button", name="Label the table").click()
    assert page.problem("#table-result") == "Choose a table first."

    table = write_table(tmp_path / "posts.csv", [])
    outside = write_zip(tmp_path / "outside.zip", {"../outside.jpg": b"x"})
    page.label(table, outside)
    page.page.locator("#table-result").get_by_text("../outside.jpg").wait_for()
    huge = write_zip(tmp_path / "huge.zip", {"huge.jpg": b"0" * (8 * 2**20)})
    page.label(table, huge)
    page.page.locator("#table-result").get_by_text("too large unpacked").wait_for()

    for name, content in (("nothing.csv", ""), ("other.csv", "a,b\n1,2\n")):
        page = visit()
        (tmp_path / name).write_text(content)
        page.label(tmp_path / name)
        shown = page.problem("#table-result")
        assert name in shown
        assert "/tmp" not in shown


def test_a_table_can_be_stopped(visit: Any, server: Any, tmp_path: Path) -> None:
    table = tmp_path / "long.csv"
    table.write_text("text\n" + "".join(f"at home on day {i}\n" for i in range(20_000)))
    page = visit()
    page.label(table)
    page.page.locator("#table-result progress[value]").wait_for()
    page.page.get_by_role("button", name="Stop").click()
    assert page.problem("#table-result") == "Stopped. Nothing was kept."
    until(lambda: counted(server, "sgmft_inside") == 0)
    table.write_text("text\nat home\n")
    page.label(table)
    assert len(read(page.download(tmp_path))) == 1


def test_a_table_that_the_servers_end_breaks_off_leaves_nothing(
    serving: Any, trained: Path, browser: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table, scratch = tmp_path / "long.csv", tmp_path / "scratch"
    table.write_text("text\n" + "".join(f"at home on day {i}\n" for i in range(50_000)))
    scratch.mkdir()
    monkeypatch.setenv("TMPDIR", str(scratch))
    server = serving(trained)
    context = browser.new_context()
    page = Visit(context, server.address)
    page.label(table)
    until(lambda: counted(server, "sgmft_batch_posts_count") > 3)
    assert [x for x in scratch.rglob("*") if x.is_file() and x.name.startswith("long")]
    server.process.terminate()
    assert server.process.wait(30) == 0
    assert list(scratch.glob("sgmft*")) == []
    assert not [line for line in server.log if "ERROR" in line or "Traceback" in line]
    context.close()
