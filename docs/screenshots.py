"""Pictures of the page for the documentation, with a model and posts that examples/sample.py makes.

python examples/sample.py posts/ --posts 420
sgmft train posts/posts.jsonl -o model/
python docs/screenshots.py docs/ posts/ model/
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
import tempfile
import zipfile
from pathlib import Path

from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "serving"))
from browser import Visit, chromium

from conftest import start_server

ROWS = 60


def main() -> None:
    """Take them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("docs", type=Path)
    parser.add_argument("posts", type=Path, help="the folder that examples/sample.py wrote")
    parser.add_argument("model", type=Path)
    options = parser.parse_args()
    server = start_server(options.model)
    try:
        with tempfile.TemporaryDirectory() as folder:
            take(server.address, *table_of(options.posts, Path(folder)), options.docs)
    finally:
        server.process.kill()


def table_of(posts: Path, folder: Path) -> tuple[Path, Path]:
    """Some of the posts as a table with a bad row, and a zip of their pictures."""
    lines = (posts / "posts.jsonl").read_text("utf-8").splitlines()[:ROWS]
    rows = [json.loads(line) for line in lines]
    with (folder / "posts.csv").open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        table.writerow(["id", "text", "images"])
        table.writerow(["post-lost", "在路上", "images/lost.jpg"])
        table.writerows((row["id"], row["text"], "|".join(row["images"])) for row in rows)
    with zipfile.ZipFile(folder / "pictures.zip", "w") as packed:
        for image in (image for row in rows for image in row["images"]):
            packed.write(posts / image, image)
    return folder / "posts.csv", folder / "pictures.zip"


def take(address: str, table: Path, pictures: Path, docs: Path) -> None:
    """The three pictures."""
    with chromium() as browser:
        wide = browser.new_context(viewport={"width": 1240, "height": 820}, color_scheme="light")
        page = Visit(wide, address)
        page.page.get_by_role("button", name="Chinese text and a picture").click()
        page.explained()
        save(page, docs / "serving-post.png")

        page = Visit(wide, address)
        page.label(table, pictures)
        page.page.locator("#download").wait_for()
        save(page, docs / "serving-table.png")

        phone = browser.new_context(
            viewport={"width": 390, "height": 844}, device_scale_factor=1.5, is_mobile=True
        )
        page = Visit(phone, address, "zh")
        page.page.get_by_role("button", name="英文文字加两张图片").click()
        page.explained()
        page.page.locator("#post-result").scroll_into_view_if_needed()
        page.page.evaluate("document.querySelector('#post-result').scrollIntoView()")
        save(page, docs / "serving-phone-zh.png")


def save(page: Visit, path: Path) -> None:
    """What is seen of the page, in few enough colours for a small file."""
    page.page.mouse.move(2, 2)
    page.page.wait_for_timeout(1500)  # animations
    page.page.screenshot(path=path, full_page="phone" not in path.name)
    with Image.open(path) as picture:
        picture.convert("RGB").quantize(256, dither=Image.Dither.NONE).save(path, optimize=True)
    print(f"{path}: {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
