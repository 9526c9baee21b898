"""Download the pictures whose web addresses a table holds, and write it again with their files."""

import asyncio
import hashlib
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

from sgmft.data.posts import Attachment
from sgmft.data.preprocessing.images import ImageError
from sgmft.data.preprocessing.media import check_media, media_name, read_media
from sgmft.data.source import Source
from sgmft.data.tables import open_writer
from sgmft.data.tables.collectors import ADDRESSES
from sgmft.data.tables.formats import WRITABLE
from sgmft.data.tables.images import find_web_address
from sgmft.data.tables.paths import PathResolver
from sgmft.data.tables.posts import iter_image_cells
from sgmft.errors import SgmftError
from sgmft.utils.download import Downloader, DownloadError, DownloadSettings
from sgmft.utils.files import check_writable, leftovers, write_whole, writing

IMAGES, FAILED = "images", "_failed.csv"
WORKERS = 128  # addresses looked at together


@dataclass
class FetchSummary:
    """The outcome of `fetch_table`."""

    table: Path  # the file written
    rows: int = 0  # of it
    fetched: int = 0  # files that were downloaded now
    there: int = 0  # addresses whose file was there from an earlier run
    copied: set[str] = field(default_factory=set)  # keys of pictures that were files before
    failed: Counter[str] = field(default_factory=Counter)  # addresses without a file, by reason


def fetch_table(
    source: Source,
    folder: str | Path,
    settings: DownloadSettings,
    *,
    max_files: int = 100_000,
    max_total: int = 20 * 2**30,
    on_fetched: Callable[[int], object] = lambda done: None,
) -> FetchSummary:
    """Download the pictures of a table into a folder, and write the table there with their paths.

    Only picture cells change: addresses become paths in the folder ``images``, to which pictures
    from elsewhere are copied, too. What cannot be had or decoded stays as it stands in its cell,
    and is listed in ``_failed.csv``. What is there is not downloaded again, so what was stopped
    continues. `max_files` and `max_total`, which is in bytes, are limits of one run.
    """
    if source.table == "-":
        raise SgmftError("A stream is read once, and fetch reads twice: give a file.")
    folder, path = Path(folder), Path(source.table)
    suffix = path.suffix if path.suffix.lower() in WRITABLE and path.is_file() else ".jsonl"
    summary = FetchSummary(folder / f"{path.stem or 'posts'}{suffix}")
    source.refuse_overwriting(summary.table)
    check_writable(folder)
    files = _Files(folder / IMAGES)
    limits = max_files, max_total
    reasons = asyncio.run(_download(source, files, settings, limits, summary, on_fetched))
    _write(source, files, reasons, summary)
    return summary


class _Files:
    """The files of a folder; `paths` has that of each by the key of its address or bytes."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
            for leftover in leftovers(folder):
                leftover.unlink(missing_ok=True)
            self.paths = {x.stem: f"{IMAGES}/{x.name}" for x in folder.iterdir()}

    def keep(self, key: str, suffix: str, data: bytes) -> None:
        if key not in self.paths:
            with writing(self._folder):
                write_whole(self._folder / (key + suffix), data)
            self.paths[key] = f"{IMAGES}/{key}{suffix}"


async def _download(
    source: Source,
    files: _Files,
    settings: DownloadSettings,
    limits: tuple[int, int],
    summary: FetchSummary,
    on_fetched: Callable[[int], object],
) -> dict[str, str]:
    """Download what is not there; return why an address gave no file, by its key."""
    reasons: dict[str, str] = {}
    seen: set[str] = set()
    started = size = 0
    loop = asyncio.get_running_loop()
    options = source.table, source.columns, source.format, source.allow_outside
    cells = (cell for _, _, cells, _ in iter_image_cells(*options) for cell in cells.values())
    addresses = filter(None, map(find_web_address, chain.from_iterable(cells)))

    async def work() -> None:
        nonlocal started, size
        for address in addresses:  # shared by all workers
            key = _key(address)
            if key in seen:
                continue
            seen.add(key)
            try:
                if key in files.paths:
                    summary.there += 1
                elif started >= limits[0] or size >= limits[1]:
                    raise DownloadError("the limit of a run is reached: run it again to go on")
                else:
                    started += 1
                    data = await downloader.download(address)
                    checking = loop.run_in_executor(decoders, check_media, data, "what is there")
                    files.keep(key, await checking, data)
                    summary.fetched += 1
                    size += len(data)
            except SgmftError as error:
                reasons[key] = str(error)
                summary.failed[reasons[key]] += 1
            on_fetched(summary.fetched + summary.there + len(reasons))

    with ThreadPoolExecutor(2) as decoders:  # a large picture takes hundreds of megabytes
        async with aclosing(Downloader(settings)) as downloader:
            await asyncio.gather(*(work() for _ in range(WORKERS)))
    return reasons


def _write(source: Source, files: _Files, reasons: dict[str, str], summary: FetchSummary) -> None:
    options = source.table, source.columns, source.format, source.allow_outside
    columns = dict.fromkeys(source.columns_seen())
    columns |= {"images": None} if ADDRESSES in columns else {}
    report = summary.table.with_name(FAILED)
    with (
        open_writer(summary.table, list(columns)) as table,
        open_writer(report, ["row", "address", "reason"]) as failed,
    ):
        for place, values, cells, resolve in iter_image_cells(*options):
            kept: dict[str, list[str]] = {name: [] for name in cells}
            for name, given in cells.items():
                for picture in given:
                    address = find_web_address(picture)
                    key = _copy(picture, resolve, files) if address is None else _key(address)
                    summary.copied |= {key} if address is None and key else set()
                    kept[name].append(files.paths.get(key) or str(picture))
                    if key in reasons:
                        failed.write([{"row": place, "address": address, "reason": reasons[key]}])
            if ADDRESSES in kept:
                kept["images"] = kept.get("images", []) + kept.pop(ADDRESSES)
                values[ADDRESSES] = None
            for name, pictures in kept.items():
                single = isinstance(values.get(name), str) and len(pictures) == 1
                values[name] = (pictures[0] if single else pictures) or values.get(name)
            table.write([values])
            summary.rows += 1
    if not summary.failed:
        report.unlink()


def _copy(picture: str | Attachment, resolve: PathResolver, files: _Files) -> str:
    try:
        file = resolve(picture) if isinstance(picture, str) else picture
        data = read_media(file)
    except (ImageError, ValueError):
        return ""
    files.keep(_key(data), Path(media_name(file)).suffix, data)
    return _key(data)


def _key(content: str | bytes) -> str:
    """Return the name of a file: a digest of its address, or of its bytes if it has none."""
    data = content if isinstance(content, bytes) else content.encode("utf-8", "surrogatepass")
    return hashlib.sha256(data).hexdigest()[:32]
