"""Download the pictures whose web addresses a table holds, and write it again with their files."""

import asyncio
import hashlib
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sgmft.data.posts import Attachment, MediaFile
from sgmft.data.preprocessing.images import ImageError
from sgmft.data.preprocessing.media import check_media, media_name, read_media
from sgmft.data.source import Source
from sgmft.data.tables import open_writer
from sgmft.data.tables.formats import WRITABLE
from sgmft.data.tables.images import PathResolver, find_web_address, parse_image_cell
from sgmft.data.tables.posts import iter_image_cells
from sgmft.utils.download import Downloader, DownloadError, DownloadSettings
from sgmft.utils.files import check_writable, leftovers, write_whole, writing

IMAGES, FAILED = "images", "_failed.csv"
WORKERS = 128  # addresses looked at together


@dataclass
class FetchSummary:
    """The outcome of `fetch_table`.

    Attributes:
        table: the file written.
        rows: of it.
        fetched: files that were downloaded now.
        there: different addresses whose file was there from an earlier run.
        failed: how many different addresses gave no file, by reason.
        report: a table of the row, address and reason of each; None where there is none.
    """

    table: Path
    rows: int = 0
    fetched: int = 0
    there: int = 0
    failed: Counter[str] = field(default_factory=Counter)
    report: Path | None = None


def fetch_table(
    source: Source,
    folder: str | Path,
    settings: DownloadSettings,
    *,
    max_files: int = 100_000,
    max_total: int = 20 * 2**30,
    on_fetched: Callable[[int], None] | None = None,
) -> FetchSummary:
    """Download the pictures of a table into a folder, and write the table there with their paths.

    Only picture cells change: addresses become paths in the folder ``images``, to which pictures
    from elsewhere are copied, too. What cannot be had stays as it stands in its cell, and is
    listed with its row and the reason in ``_failed.csv``. A file is kept if it can be decoded.
    Files that are there are not downloaded again, so what was stopped continues.

    Args:
        source: one table or a folder of them; no stream, since it is read twice.
        max_files: downloads in one run.
        max_total: bytes of one run, about.
        on_fetched: called with the number of addresses done so far.

    Raises:
        SgmftError: a table cannot be read, or the folder cannot be written.
    """
    folder = Path(folder)
    path = Path(source.table)
    suffix = path.suffix if path.suffix.lower() in WRITABLE and path.is_file() else ".jsonl"
    summary = FetchSummary(folder / f"{path.stem or 'posts'}{suffix}")
    source.refuse_overwriting(summary.table)
    check_writable(folder)
    images = folder / IMAGES
    with writing(images):
        images.mkdir(parents=True, exist_ok=True)
        for leftover in leftovers(images):
            leftover.unlink(missing_ok=True)
        files = {file.stem: file.name for file in images.iterdir()}
    downloads = _Downloads(images, files, max_files, max_total, summary, on_fetched)
    asyncio.run(downloads.run(_iter_addresses(source), settings))
    _write(source, downloads)
    return summary


@dataclass
class _Downloads:
    """The downloads of one run."""

    folder: Path
    files: dict[str, str]  # name of each file that is there, by the key of its address
    max_files: int
    max_total: int
    summary: FetchSummary
    on_done: Callable[[int], None] | None
    reasons: dict[str, str] = field(default_factory=dict)  # why there is none, by key
    done: int = 0
    started: int = 0
    size: int = 0

    async def run(self, addresses: Iterator[str], settings: DownloadSettings) -> None:
        """Download what is not there."""
        seen: set[str] = set()
        decoders = ThreadPoolExecutor(2)  # a large picture takes hundreds of megabytes

        async def work() -> None:
            for address in addresses:  # shared by all workers
                key = _key(address.encode("utf-8", "surrogatepass"))
                if key in seen:
                    continue
                seen.add(key)
                if key in self.files:
                    self.summary.there += 1
                else:
                    reason = await self._fetch(key, address, downloader, decoders)
                    if reason:
                        self.reasons[key] = reason
                        self.summary.failed[reason] += 1
                self.done += 1
                if self.on_done:
                    self.on_done(self.done)

        async with Downloader(settings) as downloader:
            await asyncio.gather(*(work() for _ in range(WORKERS)))

    async def _fetch(
        self, key: str, address: str, downloader: Downloader, decoders: ThreadPoolExecutor
    ) -> str | None:
        """Download one file; return the reason if there is none."""
        if self.started >= self.max_files or self.size >= self.max_total:
            return "the limit of one run is reached: run the command again to go on"
        self.started += 1
        try:
            data = await downloader.download(address)
            loop = asyncio.get_running_loop()
            suffix = await loop.run_in_executor(decoders, check_media, data, "what is there")
        except (DownloadError, ImageError) as error:
            return str(error)
        self.keep(key, suffix, data)
        self.summary.fetched += 1
        self.size += len(data)
        return None

    def keep(self, key: str, suffix: str, data: bytes) -> None:
        """Write a file whole, where it is not there."""
        if key not in self.files:
            with writing(self.folder):
                write_whole(self.folder / (key + suffix), data)
            self.files[key] = key + suffix

    def path(self, key: str) -> str | None:
        """Return the path of a file in the table; None where there is none."""
        return f"{IMAGES}/{self.files[key]}" if key in self.files else None


def _iter_addresses(source: Source) -> Iterator[str]:
    for _, row, names in iter_image_cells(source.table, source.columns, source.format):
        for name in names:
            yield from filter(None, map(find_web_address, _pictures(row.values[name])))


def _pictures(cell: Any) -> list[str | Attachment]:
    try:
        return parse_image_cell(cell)
    except ValueError:
        return []


def _write(source: Source, downloads: _Downloads) -> None:
    """Write the table, and the addresses that gave no file."""
    summary = downloads.summary
    columns = list(dict.fromkeys(source.columns_seen()))
    report = summary.table.with_name(FAILED)
    with (
        open_writer(summary.table, columns) as table,
        open_writer(report, ["row", "address", "reason"]) as failed,
    ):
        for raw, row, names in iter_image_cells(source.table, source.columns, source.format):
            values, resolve = dict(row.values), PathResolver(raw, source.allow_outside)
            for name in names:
                cell, kept = values[name], list[Any]()
                for picture in _pictures(cell):
                    address = find_web_address(picture)
                    if address is None:
                        kept.append(_copy(picture, resolve, downloads))
                        continue
                    key = _key(address.encode("utf-8", "surrogatepass"))
                    kept.append(downloads.path(key) or picture)
                    if reason := downloads.reasons.get(key):
                        place = f"{raw.name}, row {row.number}"
                        failed.write([{"row": place, "address": address, "reason": reason}])
                if kept:
                    values[name] = kept[0] if isinstance(cell, str) and len(kept) == 1 else kept
            table.write([values])
            summary.rows += 1
    if summary.failed:
        summary.report = report
    else:
        report.unlink()


def _copy(picture: str | Attachment, resolve: PathResolver, downloads: _Downloads) -> Any:
    """Copy a picture that is no address into the folder; return its path, or what was given."""
    try:
        file: MediaFile = resolve(picture) if isinstance(picture, str) else picture
        data = read_media(file)
    except (ImageError, ValueError):
        return picture if isinstance(picture, str) else None
    downloads.keep(_key(data), Path(media_name(file)).suffix, data)
    return downloads.path(_key(data))


def _key(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:32]
