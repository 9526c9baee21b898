"""Any posts as a table of our own."""

import json
import warnings
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sgmft.data.source import Source
from sgmft.data.tables import read_posts
from sgmft.errors import SgmftError, SgmftNotice
from sgmft.jobs.convert import convert_table

COLLECTED = Path(__file__).parents[1] / "data" / "tables" / "collected"


@pytest.mark.parametrize("suffix", ["jsonl", "csv", "tsv", "parquet", "xlsx"])
@pytest.mark.filterwarnings("ignore::sgmft.errors.SgmftNotice")
def test_a_crawlers_folder_becomes_one_table(tmp_path: Path, suffix: str) -> None:
    source, output = COLLECTED / "weibo-search", tmp_path / f"posts.{suffix}"
    assert convert_table(Source(str(source)), output).posts == 5
    with warnings.catch_warnings(record=True) as caught:
        before, after = read_posts(source), read_posts(output, allow_outside=True)
    told = " ".join(str(x.message) for x in caught)
    assert "understood by a guess" not in told and "seems to hold pictures" not in told
    for role in ("text", "images", "id", "user", "time"):
        assert [getattr(x, role) for x in after] == [getattr(x, role) for x in before]
    assert after[0].row["微博正文"] == before[0].text, "the tool's columns stay"


def test_paths_are_relative_to_the_output_where_they_can_be(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.jpg").write_bytes(b"x")
    table = tmp_path / "in" / "p.csv"
    table.write_text("text,image,kind\na,a.jpg,k\nb,,k\n")
    convert_table(Source(str(table)), tmp_path / "posts.jsonl")
    rows = [json.loads(line) for line in (tmp_path / "posts.jsonl").read_text().splitlines()]
    assert rows[0] == {"text": "a", "images": ["in/a.jpg"], "kind": "k"}
    with pytest.warns(SgmftNotice, match="Pictures of 1 posts lie outside the folder"):
        convert_table(Source(str(table)), tmp_path / "other" / "posts.jsonl")
    first, _ = read_posts(tmp_path / "other" / "posts.jsonl", allow_outside=True)
    assert first.images == (tmp_path / "in" / "a.jpg",)


def test_pictures_in_a_table_become_files(tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": ["a"], "image": [b"a picture"]}), tmp_path / "p.parquet")
    convert_table(Source(str(tmp_path / "p.parquet")), tmp_path / "out.jsonl")
    (post,) = read_posts(tmp_path / "out.jsonl")
    (image,) = post.images
    assert Path(str(image)).read_bytes() == b"a picture"


def test_bad_rows_are_kept_and_counted(tmp_path: Path) -> None:
    table = tmp_path / "p.csv"
    table.write_text("text,image\na,https://x/y.jpg|../b.jpg\n,\n")
    summary = convert_table(Source(str(table)), tmp_path / "out.jsonl")
    assert sum(summary.errors.values()) == len(summary.warnings) == 1
    rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    outside = str(tmp_path.parent / "b.jpg")
    assert rows == [
        {"text": "a", "images": [outside, "https://x/y.jpg"]},
        {"text": "", "images": []},
    ]
    convert_table(Source(str(table)), tmp_path / "out.xlsx")
    for path in (table, tmp_path / "out.xlsx"):
        with pytest.raises(SgmftError, match="is the table that is read"):
            convert_table(Source(str(path)), path)
