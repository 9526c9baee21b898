"""A table in parts, and pictures inside a table."""

from __future__ import annotations

import json
from io import BytesIO
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from sgmft import read_posts
from sgmft.data.posts import Attachment
from sgmft.data.source import Source
from sgmft.data.tables import open_writer
from sgmft.errors import SgmftError
from sgmft.features.encode import encode_all
from tiny_encoder import TinyEncoder


def jpeg(shade: int) -> bytes:
    data = BytesIO()
    Image.new("RGB", (20, 10), (shade, 0, 0)).save(data, "PNG")
    return data.getvalue()


def write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


def test_a_folder_of_tables_is_read_as_one_in_the_order_of_their_names(tmp_path: Path) -> None:
    write(tmp_path / "b.jsonl", '{"id": "1", "text": "三"}\n')
    write(tmp_path / "a.csv", "id,text\n1,一\n2,二\n")
    write(tmp_path / "_job.jsonl", '{"text": "not a part"}\n')
    write(tmp_path / ".b.jsonl", '{"text": "not a part"}\n')
    write(tmp_path / "notes.txt", "not a part")
    posts = read_posts(tmp_path)
    assert [post.text for post in posts] == ["一", "二", "三"]
    assert [post.place for post in posts] == ["a.csv, row 2", "a.csv, row 3", "b.jsonl, row 1"]
    assert [post.error for post in posts] == [None] * 3, "ids are unique within a file"


def test_an_image_folder_is_still_its_metadata_alone(tmp_path: Path) -> None:
    write(tmp_path / "metadata.csv", "file_name,text\n,一\n")
    write(tmp_path / "other.csv", "text\n二\n")
    assert [post.text for post in read_posts(tmp_path)] == ["一"]


def test_a_part_without_the_columns_is_named(tmp_path: Path) -> None:
    write(tmp_path / "a.csv", "text\n一\n")
    write(tmp_path / "b.csv", "txt\n二\n")
    with pytest.raises(SgmftError, match=r"b\.csv has neither a text nor an image column"):
        read_posts(tmp_path)


def test_a_folder_without_tables_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SgmftError, match="without any of metadata"):
        read_posts(tmp_path)


def test_the_same_id_twice_in_one_file_is_a_bad_row(tmp_path: Path) -> None:
    rows = [{"id": str(i % 900), "text": "家"} for i in range(1000)]
    write(tmp_path / "a.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    posts = read_posts(tmp_path / "a.jsonl")
    assert [post.error for post in posts[:900]] == [None] * 900
    assert posts[900].error == "the id '0' is already that of row 1"
    assert sum(post.error is not None for post in posts) == 100


@pytest.mark.parametrize("shape", ["bytes", "hugging face", "list"])
def test_pictures_inside_a_table_are_those_of_files(tmp_path: Path, shape: str) -> None:
    datas = [jpeg(shade) for shade in (10, 200)]
    for i, data in enumerate(datas):
        (tmp_path / f"{i}.png").write_bytes(data)
    files = tmp_path / "files.jsonl"
    write(files, "".join(json.dumps({"text": "家", "image": f"{i}.png"}) + "\n" for i in (0, 1)))
    cells = {
        "bytes": datas,
        "hugging face": [{"bytes": x, "path": f"there/{i}.png"} for i, x in enumerate(datas)],
        "list": [[x] for x in datas],
    }[shape]
    pq.write_table(pa.table({"text": ["家", "家"], "image": cells}), tmp_path / "inside.parquet")
    inside = read_posts(tmp_path / "inside.parquet")
    assert all(isinstance(post.images[0], Attachment) for post in inside)
    ours, theirs = (encode_all(posts, TinyEncoder()) for posts in (inside, read_posts(files)))
    assert ours.keys == theirs.keys
    assert (ours.features.image == theirs.features.image).all()


def test_rows_do_not_repeat_the_bytes_of_their_pictures(tmp_path: Path) -> None:
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    cells = pa.array([{"bytes": jpeg(1), "path": "a.png"}, None], kind)
    pq.write_table(pa.table({"text": ["家", "校"], "image": cells}), tmp_path / "t.parquet")
    rows = [post.row for post in read_posts(tmp_path / "t.parquet")]
    assert rows == [{"text": "家", "image": "a.png"}, {"text": "校", "image": None}]


def test_a_damaged_picture_inside_a_table_is_a_bad_row(tmp_path: Path) -> None:
    table = pa.table({"text": ["家"], "image": [b"no picture"]})
    pq.write_table(table, tmp_path / "t.parquet")
    found = encode_all(read_posts(tmp_path / "t.parquet"), TinyEncoder())
    assert "picture" in str(found.refused[0].error)


def test_a_folder_without_paths_outside_refuses_what_a_part_names_there(tmp_path: Path) -> None:
    (tmp_path / "parts").mkdir()
    (tmp_path / "a.png").write_bytes(jpeg(1))
    with open_writer(tmp_path / "parts" / "a.csv", ["text", "image"]) as writer:
        writer.write([{"text": "家", "image": "../a.png"}])
    [post] = Source(str(tmp_path / "parts")).read_posts()
    assert "outside the table's folder" in str(post.error)
