"""Write any posts that can be read as a table of our own."""

import hashlib
import os
from collections.abc import Iterable
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

from sgmft.data.posts import Attachment, MediaFile, Post
from sgmft.data.source import JobSummary, Source
from sgmft.data.tables import RawTable, open_writer
from sgmft.data.tables.columns import find_role
from sgmft.data.tables.images import find_web_address, list_pictures
from sgmft.data.tables.paths import PathResolver
from sgmft.errors import TEXTS, Message, SgmftNotice, warn
from sgmft.utils.files import write_file

ROLES = ("text", "images", "id", "user", "time", "label")


def convert_table(source: Source, output: str | Path) -> JobSummary:
    """Write posts with the columns `ROLES`, of which empty ones are left out, and all others.

    Paths of pictures are relative to the output's folder where they lie in it, and absolute
    elsewhere; web addresses stay. Pictures that are stored in the table become files in a folder
    beside the output. But for a stream, the source is read twice.
    """
    source.refuse_overwriting(output)
    source = replace(source, allow_outside=True)  # no file is opened
    stream = str(source.table) == "-"
    posts: Iterable[Post] = source.read_posts() if stream else source.iter_posts()
    used, names, summary = set[str](), dict[str, None](), JobSummary()
    for post in posts:
        used |= {role for role in ROLES if getattr(post, role)}
        names.update(dict.fromkeys(post.row))
        summary += JobSummary.of([post])
    given = find_role(names, "image")
    roles = [role for role in ROLES if role in used or (role == "images" and given)]
    kept = [name for name in names if name not in given]
    files, outside = PathResolver(RawTable("", Path(), None, iter(()))), 0
    has_lists = Path(output).suffix.lower() not in (".csv", ".tsv", ".xlsx")
    with open_writer(output, list(dict.fromkeys([*roles, *kept]))) as writer:
        for post in posts if stream else source.iter_posts():
            own: dict[str, Any] = {role: getattr(post, role) for role in roles}
            if "images" in roles:
                paths = [_path(image, output) for image in post.images]
                outside += any(map(os.path.isabs, paths))
                cells = (list_pictures(post.row.get(name), files) for name in given)
                web = [*filter(None, map(find_web_address, chain.from_iterable(cells)))]
                own["images"] = paths + web or ([] if has_lists else None)
            writer.write([{name: post.row.get(name) for name in kept} | own])
    if outside:
        warn(Message(TEXTS["pictures outside"], count=outside, output=output), SgmftNotice)
    return summary


def _path(image: MediaFile, output: str | Path) -> str:
    """Return the path of a picture for the table; one that is in memory is written to a file."""
    folder = Path() if str(output) == "-" else Path(output).parent
    if isinstance(image, Attachment):
        data = image.data
        name = hashlib.sha256(data).hexdigest()[:32] + Path(image.name).suffix
        image = folder / f"{Path(output).stem.strip('-') or 'posts'}-images" / name
        write_file(image, data)
    path = os.path.abspath(image)  # noqa: PTH100  no "..", but links as they are
    relative = os.path.relpath(path, os.path.abspath(folder))  # noqa: PTH100
    return path if relative.startswith(os.pardir + os.sep) else Path(relative).as_posix()
