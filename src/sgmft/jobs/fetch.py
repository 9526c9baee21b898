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
    pictures = _Pictures(source, summary)
    asyncio.run(pictures.download(settings, max_files, max_total, on_fetched))
    pictures.write_table()
    return summary


class _Pictures:
    """The pictures of a source; `_paths` has the file of each by a key of its address or bytes."""

    def __init__(self, source: Source, summary: FetchSummary) -> None:
        self._source, self._summary, self._reasons = source, summary, dict[str, str]()
        self._options = source.table, source.columns, source.format, source.allow_outside
        self._folder = folder = summary.table.with_name(IMAGES)
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
            for leftover in leftovers(folder):
                leftover.unlink(missing_ok=True)
            self._paths = {x.stem: f"{IMAGES}/{x.name}" for x in folder.iterdir()}

    async def download(
        self, settings: DownloadSettings, most: int, total: int, on_fetched: Callable[[int], object]
    ) -> None:
        """Download what is not there, and note why an address gave no file."""
        summary, seen, started, size = self._summary, set[str](), 0, 0
        loop, given = asyncio.get_running_loop(), iter_image_cells(*self._options)
        cells = chain.from_iterable(cells.values() for _, _, cells, _ in given)
        addresses = filter(None, map(find_web_address, chain.from_iterable(cells)))

        async def work() -> None:
            nonlocal started, size
            for address in addresses:  # shared by all workers
                if (key := _key(address)) in seen:
                    continue
                seen.add(key)
                try:
                    if key in self._paths:
                        summary.there += 1
                    elif started >= most or size >= total:
                        raise DownloadError("the limit of a run is reached: run it again to go on")
                    else:
                        started += 1
                        data = await downloader.download(address)
                        checked = loop.run_in_executor(decoders, check_media, data, "what is there")
                        self._keep(key, await checked, data)
                        summary.fetched += 1
                        size += len(data)
                except SgmftError as error:
                    self._reasons[key] = str(error)
                    summary.failed[str(error)] += 1
                on_fetched(summary.fetched + summary.there + len(self._reasons))

        with ThreadPoolExecutor(2) as decoders:  # a large picture takes hundreds of megabytes
            async with aclosing(Downloader(settings)) as downloader:
                await asyncio.gather(*(work() for _ in range(WORKERS)))

    def write_table(self) -> None:
        """Write the table with paths in place of addresses, and the report."""
        columns, reasons = dict.fromkeys(self._source.columns_seen()), self._reasons
        columns |= {"images": None} if ADDRESSES in columns else {}
        report = self._folder.with_name(FAILED)
        with (
            open_writer(self._summary.table, list(columns)) as table,
            open_writer(report, ["row", "address", "reason"]) as failed,
        ):
            for place, values, cells, resolve in iter_image_cells(*self._options):
                kept: dict[str, list[str]] = {name: [] for name in cells}
                for name, picture in ((name, x) for name, given in cells.items() for x in given):
                    address = find_web_address(picture)
                    key = self._copy(picture, resolve) if address is None else _key(address)
                    kept[name].append(self._paths.get(key) or str(picture))
                    if key in reasons:
                        failed.write([{"row": place, "address": address, "reason": reasons[key]}])
                if ADDRESSES in kept:
                    kept["images"] = kept.get("images", []) + kept.pop(ADDRESSES)
                    values[ADDRESSES] = None
                for name, pictures in kept.items():
                    single = isinstance(values.get(name), str) and len(pictures) == 1
                    values[name] = (pictures[0] if single else pictures) or values.get(name)
                table.write([values])
                self._summary.rows += 1
        if not reasons:
            report.unlink()

    def _copy(self, picture: str | Attachment, resolve: PathResolver) -> str:
        try:
            file = resolve(picture) if isinstance(picture, str) else picture
            data = read_media(file)
        except (ImageError, ValueError):
            return ""
        self._keep(_key(data), Path(media_name(file)).suffix, data)
        self._summary.copied.add(_key(data))
        return _key(data)

    def _keep(self, key: str, suffix: str, data: bytes) -> None:
        if key not in self._paths:
            with writing(self._folder):
                write_whole(self._folder / (key + suffix), data)
            self._paths[key] = f"{IMAGES}/{key}{suffix}"


def _key(content: str | bytes) -> str:
    """Return the name of a file: a digest of its address, or of its bytes if it has none."""
    data = content if isinstance(content, bytes) else content.encode("utf-8", "surrogatepass")
    return hashlib.sha256(data).hexdigest()[:32]
