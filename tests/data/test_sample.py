"""The sample generator: what it writes, that it repeats itself, and what it refuses."""

import hashlib
import json
import re
import shutil
import subprocess
import sys
from collections import Counter
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from synthetic.sample import KINDS, PLACES, plan_post, write_sample, write_text

from sgmft.errors import SgmftError

COLUMNS = ["id", "user", "text", "images", "label", "informative", "split", "synthetic"]
COLUMNS += ["time", "gender", "followers"]
POSTS = 35


def rows(table: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in table.read_text(encoding="utf-8").splitlines()]


def pixels(folder: Path) -> dict[str, str]:
    digests = {}
    for path in sorted((folder / "images").iterdir()):
        with Image.open(path) as image:
            digests[path.name] = hashlib.sha256(image.convert("RGB").tobytes()).hexdigest()
    return digests


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_sample(tmp_path_factory.mktemp("data") / "posts", posts=POSTS, seed=3)


@pytest.fixture(scope="module")
def damaged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_sample(tmp_path_factory.mktemp("bad") / "posts", posts=7, damaged=len(KINDS) + 2)


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_sample(tmp_path_factory.mktemp("few") / "posts", posts=7)


def test_columns_labels_and_split(sample: Path) -> None:
    posts = rows(sample)
    assert len(posts) == POSTS
    assert all(list(post) == COLUMNS and post["synthetic"] is True for post in posts)
    assert Counter(post["label"] for post in posts) == dict.fromkeys(PLACES, POSTS // 7)
    assert len({post["id"] for post in posts}) == POSTS
    assert all(post["text"] or post["informative"] == "image" for post in posts)
    assert all(post["images"] or post["informative"] == "text" for post in posts)
    tests = Counter(post["label"] for post in posts if post["split"] == "test")
    assert tests == dict.fromkeys(PLACES, POSTS // 35)


def test_every_picture_opens_and_none_is_left_over(sample: Path) -> None:
    named = [image for post in rows(sample) for image in post["images"]]
    assert {f"images/{path.name}" for path in (sample.parent / "images").iterdir()} == set(named)
    for image in named:
        with Image.open(sample.parent / image) as picture:
            picture.load()
            assert min(picture.size) >= 180


def test_shares_at_the_default_noise() -> None:
    plans = [plan_post(0, index, 60, 0.35) for index in range(1400)]
    kinds = Counter(plan["informative"] for plan in plans)
    shares = {kind: count / 1400 for kind, count in kinds.items()}
    assert shares == pytest.approx({"both": 0.5, "text": 0.28, "image": 0.22}, abs=0.04)
    assert Counter(plan["label"] for plan in plans) == dict.fromkeys(PLACES, 200)
    tests = Counter(plan["label"] for plan in plans if plan["split"] == "test")
    assert tests == dict.fromkeys(PLACES, 40)
    assert len({plan["user"] for plan in plans}) > 50
    times = {
        x: [datetime.fromisoformat(p["time"]) for p in plans if p["label"] == x] for x in PLACES
    }
    weekdays = {x: np.mean([time.weekday() < 5 for time in some]) for x, some in times.items()}
    assert weekdays["Work"] > 0.9 and weekdays["Travel"] < 0.4
    hours = {x: np.median([time.hour for time in some]) for x, some in times.items()}
    assert hours["Work"] == pytest.approx(13, abs=1) and hours["Cinema"] == pytest.approx(20, abs=1)
    assert len({(p["user"], p["gender"], p["followers"]) for p in plans}) == len(
        {p["user"] for p in plans}
    )


def test_same_arguments_same_sample(sample: Path, tmp_path: Path) -> None:
    again = write_sample(tmp_path / "again", posts=14, seed=3)
    lines = sample.read_bytes().splitlines()
    assert again.read_bytes().splitlines() == lines[:14], "a smaller set begins a larger one"
    larger = pixels(sample.parent)
    assert all(larger[name] == digest for name, digest in pixels(again.parent).items())
    assert write_sample(tmp_path / "other", posts=14, seed=4).read_bytes() != again.read_bytes()


def test_noise_from_none_to_full(tmp_path: Path) -> None:
    posts = rows(write_sample(tmp_path / "clean", posts=14, noise=0.0))
    assert {post["informative"] for post in posts} == {"both"}
    assert all(post["text"] and post["images"] for post in posts)
    assert not any(re.search(r"[@#\[]|http", post["text"]) for post in posts)
    posts = rows(write_sample(tmp_path / "noisy", posts=14, noise=1.0, users=1))
    assert "both" not in {post["informative"] for post in posts}
    assert {post["user"] for post in posts} == {"user000"}


def test_noise_decorates_texts() -> None:
    texts = "".join(
        write_text(np.random.default_rng(i), PLACES[i % 7], "user000", 0.35) for i in range(200)
    )
    for mark in (r"http://t\.cn/\w+", r"//@", r" @", r"\[二哈\]", r"#.+#", "😂", "mood", "滴"):
        assert re.search(mark, texts), mark


def test_the_share_of_posts_with_several_pictures(tmp_path: Path) -> None:
    for share in (0.0, 1.0):
        table = write_sample(tmp_path / str(share), posts=7, several=share)
        counts = {len(post["images"]) for post in rows(table)} - {0}
        assert counts == {1} if share == 0 else min(counts) > 1 and len(counts) > 2
        assert f"several = {share}" in (table.parent / "README.md").read_text("utf-8")


def test_the_readme_says_what_this_is(sample: Path) -> None:
    readme = (sample.parent / "README.md").read_text(encoding="utf-8")
    assert "Synthetic" in readme and "never a benchmark" in readme and "seed = 3" in readme
    assert all(f"`{column}`" in readme for column in COLUMNS)


def test_damaged_rows_follow_and_cycle(damaged: Path) -> None:
    lines = damaged.read_text(encoding="utf-8").splitlines()
    assert len(lines) == 7 + len(KINDS) + 2
    assert not any("damage" in json.loads(line) for line in lines[:7])
    for line, kind in zip(lines[7:], [*KINDS, *KINDS], strict=False):
        assert f'"damage": "{kind}' in line


def test_each_damage_is_what_it_says(damaged: Path) -> None:
    lines = damaged.read_text(encoding="utf-8").splitlines()
    first, lines = json.loads(lines[0]), lines[7 : 7 + len(KINDS)]
    broken = list(KINDS).index("broken-json")
    with pytest.raises(json.JSONDecodeError):
        json.loads(lines.pop(broken))
    post = {p["damage"]: p for p in map(json.loads, lines)}
    file = {kind: damaged.parent / row["images"][0] for kind, row in post.items() if row["images"]}
    with pytest.raises(OSError, match="truncated"), Image.open(file["truncated-jpeg"]) as image:
        image.load()
    assert file["zero-byte-file"].stat().st_size == 0
    assert file["text-named-jpg"].read_text().startswith("<html>")
    assert not file["missing-file"].exists()
    assert post["outside-folder"]["images"] == ["../secret.jpg"]
    assert not file["outside-folder"].exists()
    assert file["huge-png"].stat().st_size < 100
    with pytest.raises(Image.DecompressionBombError):
        Image.open(file["huge-png"])
    assert post["duplicate-id"]["id"] == first["id"]
    assert post["unknown-label"]["label"] == "Moon"
    assert (post["nothing"]["text"], post["nothing"]["images"]) == ("", [])
    assert not re.search(r"\w", post["emoji-only"]["text"]) and not post["emoji-only"]["images"]
    assert "\0" in post["nul-in-text"]["text"]
    with Image.open(file["cmyk-jpeg"]) as image:
        assert (image.mode, image.format) == ("CMYK", "JPEG")
    with Image.open(file["16-bit-png"]) as image:
        assert image.mode == "I;16"
    with Image.open(file["animated-gif"]) as image:
        assert getattr(image, "n_frames", 1) == 3
    with Image.open(file["exif-rotated"]) as image:
        assert image.getexif()[0x0112] == 6


def test_a_second_run_replaces_the_first(tmp_path: Path) -> None:
    table = write_sample(tmp_path, posts=14, damaged=len(KINDS))
    (tmp_path / "predictions.csv").write_text("kept")
    write_sample(tmp_path, posts=7)
    named = {image for post in rows(table) for image in post["images"]}
    assert {f"images/{path.name}" for path in (tmp_path / "images").iterdir()} == named
    assert (tmp_path / "predictions.csv").read_text() == "kept"
    assert not (tmp_path / "posts.jsonl.part").exists()
    table.unlink()  # as in a run that was stopped
    assert len(rows(write_sample(tmp_path, posts=7))) == 7


@pytest.mark.parametrize("line", ['{"id": 1, "text": "mine"}', "no JSON", "[1]", ""])
def test_a_foreign_table_is_left_alone(few: Path, tmp_path: Path, line: str) -> None:
    table = shutil.copytree(few.parent, tmp_path / "posts") / few.name
    table.write_text(line)
    with pytest.raises(SgmftError, match="choose a new folder for the sample"):
        write_sample(table.parent, posts=7)
    assert table.read_text() == line


def test_a_foreign_folder_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "holiday.txt").write_text("mine")
    with pytest.raises(SgmftError, match="holds other files"):
        write_sample(tmp_path, posts=7)
    with pytest.raises(SgmftError, match="is a file"):
        write_sample(tmp_path / "holiday.txt", posts=7)
    with pytest.raises(SgmftError, match="cannot be written: Not a directory"):
        write_sample(tmp_path / "holiday.txt" / "deep", posts=7)
    assert [path.name for path in tmp_path.iterdir()] == ["holiday.txt"]


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"posts": 6}, "at least 7"),
        ({"noise": -0.1}, "noise"),
        ({"noise": 1.5}, "noise"),
        ({"noise": float("nan")}, "noise"),
        ({"seed": -1}, "seed"),
        ({"damaged": -1}, "damaged"),
        ({"users": 0}, "users"),
        ({"several": 1.1}, "several"),
    ],
)
def test_wrong_options_are_refused(tmp_path: Path, options: dict[str, Any], reason: str) -> None:
    with pytest.raises(SgmftError, match=reason):
        write_sample(tmp_path / "new", **options)
    assert not (tmp_path / "new").exists()


def test_the_program(tmp_path):
    program = Path(__file__).parents[2] / "examples" / "sample.py"

    def run(*words):
        command = [sys.executable, program, *map(str, words)]
        return subprocess.run(command, capture_output=True, text=True)

    ended = run(tmp_path / "posts", "--posts", 8, "--damaged", 2)
    assert ended.returncode == 0 and "8 synthetic posts and 2 damaged rows" in ended.stderr
    assert len((tmp_path / "posts/posts.jsonl").read_text("utf-8").splitlines()) == 10
    for words, why in (((tmp_path / "few", "--posts", 3), "at least 7"), ((tmp_path,), "choose")):
        ended = run(*words)
        (line,) = filter(None, ended.stderr.splitlines())
        assert ended.returncode and line.startswith("sample: ") and why in line
