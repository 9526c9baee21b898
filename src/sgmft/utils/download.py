"""Download files from the web: a few at once from each host, with waits, retries and limits."""

import asyncio
import random
import re
import socket
import zlib
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from ipaddress import IPv4Address, IPv6Network, ip_address
from typing import Any

import httpcore2
import httpx2

from sgmft.errors import TEXTS, SgmftError

MAX_REDIRECTS = 5
MAX_PAUSE = 120  # seconds: a host that asks for more is left for another run
SILENCE = 10  # attempts in a row without an answer, after which a host is left for another run
AT_ONCE = 16  # requests to all hosts together
_REFERERS = {"sinaimg.cn": "https://weibo.com/"}  # hosts that answer 403 without one
_NAT64 = IPv6Network("64:ff9b::/96")
_AGAIN = {408, 429, 500, 502, 503, 504}  # status codes after which another attempt makes sense
_FAILURES = (httpcore2.NetworkError, httpcore2.ProtocolError, httpcore2.ProxyError)
_HEADERS = {"User-Agent": "Mozilla/5.0 (compatible; sgmft)", "Accept-Encoding": "identity"}


class DownloadError(SgmftError):
    """The reason why an address gave no file, fit for a message."""

    def __init__(self, reason: str, pause: float | None = None) -> None:
        super().__init__(reason)
        self.pause = pause  # seconds before another attempt, 0 for any; None where it is no use


@dataclass(frozen=True)
class DownloadSettings:
    """How files are downloaded; a server's Retry-After counts more than `backoff`."""

    max_bytes: int  # of one file
    timeout: float = 60  # seconds for one attempt, from the look-up of the host to the last byte
    attempts: int = 3  # at one file
    backoff: float = 1  # seconds before the second attempt; twice as many before each further one
    per_host: int = 4  # requests at once to one host
    wait: float = 0.1  # seconds between the beginnings of two requests to one host
    referer: str | None = None  # sent as Referer; by default what a host is known to need
    allow_private: bool = False  # also private, loopback, link-local and reserved networks
    proxy: str | None = None  # its address; it looks up the hosts itself, so they go unchecked

    def __post_init__(self) -> None:
        for name in ("referer", "proxy"):
            address = getattr(self, name)
            if address is not None and not re.fullmatch("https?://[!-~]+", address):
                raise SgmftError(f"The {name} {address!r} does not begin with http:// or https://.")


@dataclass
class _Host:
    slots: asyncio.Semaphore
    free_at: float = 0  # on the loop's clock: when the next request may begin
    silent: int = 0  # attempts in a row without an answer
    closed: str = ""  # the reason why it is asked no more in this run


class Downloader:
    """Downloads files; made and closed in a running event loop."""

    def __init__(self, settings: DownloadSettings) -> None:
        self._settings = settings
        self._hosts: dict[str, _Host] = {}
        self._slots = asyncio.Semaphore(AT_ONCE)
        proxy = httpcore2.Proxy(settings.proxy) if settings.proxy else None
        network = None if proxy else _CheckedNetwork(settings.allow_private)
        self._pool = httpcore2.AsyncConnectionPool(
            proxy=proxy, max_connections=AT_ONCE, keepalive_expiry=5, network_backend=network
        )
        self.aclose = self._pool.aclose

    async def download(self, address: str) -> bytes:
        """Return the body of an address; waits for its turn and tries several times."""
        settings, url = self._settings, _parse(address)
        host = self._hosts.setdefault(url.host, _Host(asyncio.Semaphore(settings.per_host)))
        clock = asyncio.get_running_loop().time
        attempt = 0
        while True:
            attempt += 1
            async with host.slots, self._slots:
                start = max(clock(), host.free_at)
                host.free_at = start + settings.wait
                await asyncio.sleep(start - clock())
                if host.closed:
                    raise DownloadError(host.closed)
                try:
                    return await self._attempt(url, host)
                except DownloadError as error:
                    if error.pause is None or attempt == settings.attempts:
                        raise
                    pause = settings.backoff * 2 ** (attempt - 1) * random.uniform(1, 1.5)
                    if error.pause:  # the whole host is asked for less
                        pause = error.pause
                        host.free_at = max(host.free_at, clock() + pause)
            await asyncio.sleep(pause)

    async def _attempt(self, url: httpx2.URL, host: _Host) -> bytes:
        try:
            async with asyncio.timeout(self._settings.timeout):
                data = await self._get(url)
            host.silent = 0
            return data
        except DownloadError as error:
            host.silent = 0
            if (error.pause or 0) > MAX_PAUSE:
                host.closed = f"{url.host} asks to wait {error.pause:.0f} seconds: run again later"
                raise DownloadError(host.closed) from None
            raise
        except (TimeoutError, httpcore2.TimeoutException):
            reason = f"no whole answer within {self._settings.timeout:g} seconds"
        except (*_FAILURES, ValueError, OSError) as error:  # h11 lets some of Python's through
            reason = f"the connection failed: {str(error)[:200] or type(error).__name__}"
        host.silent += 1
        if host.silent >= SILENCE:
            host.closed = f"{url.host} failed {SILENCE} times in a row: it is left for another run"
        raise DownloadError(reason, pause=0)

    async def _get(self, url: httpx2.URL) -> bytes:
        referers = (to for end, to in _REFERERS.items() if f".{url.host}".endswith(f".{end}"))
        referer = self._settings.referer or next(referers, None)
        given = _HEADERS | ({"Referer": referer} if referer else {})
        headers: list[tuple[bytes | str, bytes | str]] = [*given.items()]
        limits = {"timeout": {"connect": min(10.0, self._settings.timeout)}}
        for _ in range(MAX_REDIRECTS + 1):
            where = {"scheme": url.raw_scheme, "host": url.raw_host, "target": url.raw_path}
            target = httpcore2.URL(**where, port=url.port)
            request = self._pool.stream("GET", target, headers=headers, extensions=limits)
            async with request as response:
                names = {key.lower(): x.decode("latin-1") for key, x in response.headers}
                if not (300 <= response.status < 400 and b"location" in names):
                    return await self._read(response, names)
                url = _parse(names[b"location"], url)
        raise DownloadError(f"the server redirects more than {MAX_REDIRECTS} times")

    async def _read(self, response: httpcore2.Response, headers: dict[bytes, str]) -> bytes:
        if response.status != 200:
            again = response.status in _AGAIN
            pause = _retry_after(headers.get(b"retry-after", "")) if again else None
            raise DownloadError(f"the server answers {response.status}", pause)
        coding = headers.get(b"content-encoding", "identity").strip().lower()
        if coding not in ("identity", "gzip"):
            raise DownloadError(f"the server sends the encoding {coding}, which was not asked for")
        unzip = zlib.decompressobj(zlib.MAX_WBITS | 16) if coding == "gzip" else None
        most, data = self._settings.max_bytes, bytearray()
        declared = headers.get(b"content-length", "")
        if not (declared.isdecimal() and int(declared) > most):
            async for chunk in response.aiter_stream():
                try:
                    data += unzip.decompress(chunk, most + 1) if unzip else chunk
                except zlib.error:
                    raise DownloadError("the server sends damaged gzip") from None
                if len(data) > most:
                    break
            else:
                return bytes(data)
        raise DownloadError(f"the file has more than {most / 2**20:g} MiB")


def is_public(address: str) -> bool:
    """Return whether an IP address, or the IPv4 one inside, is of the public internet."""
    ip = ip_address(address.partition("%")[0])
    if ip.version == 6:
        if ip.is_site_local:
            return False
        inner = ip.ipv4_mapped or ip.sixtofour or (ip.teredo or (None, None))[1]
        ip = IPv4Address(ip.packed[-4:]) if ip in _NAT64 else inner or ip
    return ip.is_global and not ip.is_multicast and not ip.is_reserved


class _CheckedNetwork(httpcore2.AnyIOBackend):
    """Connects to the very addresses that were checked: hosts are looked up once, here."""

    def __init__(self, allow_private: bool) -> None:
        self._allow_private = allow_private

    async def connect_tcp(self, host: str, port: int, *args: Any, **options: Any) -> Any:
        loop = asyncio.get_running_loop()
        try:
            found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError):
            raise httpcore2.ConnectError(f"there is no host {host}") from None
        addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
        if not (public := [x for x in addresses if self._allow_private or is_public(x)]):
            raise DownloadError(TEXTS["private network"].format(host=host, address=addresses[0]))
        for address in public[:-1]:
            with suppress(httpcore2.ConnectError, httpcore2.ConnectTimeout):
                return await super().connect_tcp(address, port, *args, **options)
        return await super().connect_tcp(public[-1], port, *args, **options)


def _parse(address: str, base: httpx2.URL | None = None) -> httpx2.URL:
    try:
        url = base.join(address) if base else httpx2.URL(address)
    except (httpx2.InvalidURL, ValueError):
        raise DownloadError(f"{address[:200]} is no valid web address") from None
    if url.scheme not in ("http", "https") or not url.host:
        raise DownloadError(f"{address[:200]} does not begin with http:// or https://")
    return url


def _retry_after(value: str) -> float:
    if value.strip().isdecimal():
        return float(value)
    with suppress(ValueError, OverflowError):
        until = parsedate_to_datetime(value).astimezone(UTC) - datetime.now(UTC)
        return max(0.0, until.total_seconds())
    return 0
