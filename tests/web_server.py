"""An HTTP server on loopback that behaves well, badly, or not at all, by path."""

from __future__ import annotations

import gzip
import ssl
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from image_files import encoded, scene

PICTURE = encoded(scene((64, 48)), "JPEG")
PAGE = b"<html><body>Forbidden</body></html>"


class Site(ThreadingHTTPServer):
    """The server; `seen` has (path, headers, time) of each request, `most` how many at once."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.seen: list[tuple[str, dict[str, str], float]] = []
        self.counts: Counter[str] = Counter()
        self.at_once = self.most = 0
        self.lock = threading.Lock()
        self.stop = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, *_: Any) -> None:
        """Clients hang up here on purpose."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # a body does not wait until its headers are acknowledged
    server: Site

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        site = self.server
        with site.lock:
            site.seen.append((self.path, dict(self.headers), time.monotonic()))
            site.counts[self.path] += 1
            site.at_once += 1
            site.most = max(site.most, site.at_once)
        try:
            path = self.path.removeprefix("http://somewhere.example")  # asked as a proxy
            name = path.split("?")[0].strip("/").split("/")
            getattr(self, f"serve_{name[0]}")(*name[1:])
        finally:
            with site.lock:
                site.at_once -= 1

    def reply(self, status: int, body: bytes = b"", length: int | None = None, **headers: str):
        self.send_response(status)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        for key, value in headers.items():
            self.send_header(key.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def serve_picture(self, *_: str) -> None:
        self.reply(200, PICTURE)

    def serve_slow(self, *_: str) -> None:
        time.sleep(0.1)
        self.reply(200, PICTURE)

    def serve_redirect(self, *to: str) -> None:
        self.reply(302, b"moved", Location="/" + "/".join(to))

    def serve_circle(self, *_: str) -> None:
        self.reply(302, Location="/circle")

    def serve_away(self, host: str, *path: str) -> None:
        self.reply(302, Location=f"http://{host}:{self.server.server_port}/{'/'.join(path)}")

    def serve_lost(self) -> None:
        self.reply(302, Location="http://[::1")

    def serve_file(self) -> None:
        self.reply(302, Location="file:///etc/passwd")

    def serve_stall(self) -> None:
        self.server.stop.wait(60)

    def serve_trickle(self) -> None:
        with suppress(OSError):
            for byte in b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 1000:
                self.wfile.write(bytes([byte]))
                if self.server.stop.wait(0.05):
                    return

    def serve_short(self) -> None:
        self.reply(200, PICTURE[:100], length=len(PICTURE))
        self.close_connection = True

    def serve_long(self) -> None:
        self.reply(200, PICTURE, length=len(PICTURE) // 2)
        self.close_connection = True

    def serve_huge(self) -> None:
        self.reply(200, PICTURE, length=10**12)
        self.close_connection = True

    def serve_endless(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.close_connection = True
        with suppress(OSError):
            while not self.server.stop.is_set():
                self.wfile.write(PICTURE * 20)

    def serve_forbidden(self) -> None:
        self.reply(403, PAGE, Content_Type="text/html")

    def serve_page(self) -> None:
        self.reply(200, PAGE, Content_Type="image/jpeg")

    def serve_empty(self) -> None:
        self.reply(200)

    def serve_gzip(self) -> None:
        self.reply(200, gzip.compress(PICTURE), Content_Encoding="gzip")

    def serve_bomb(self) -> None:
        self.reply(200, gzip.compress(bytes(50_000_000)), Content_Encoding="gzip")

    def serve_brotli(self) -> None:
        self.reply(200, PICTURE, Content_Encoding="br")

    def serve_busy(self) -> None:
        if self.server.counts[self.path] > 1:
            self.reply(200, PICTURE)
        else:
            self.reply(429, b"later", Retry_After="1")

    def serve_later(self) -> None:
        self.reply(429, b"later", Retry_After="Fri, 31 Dec 2100 23:59:59 GMT")

    def serve_flaky(self) -> None:
        self.reply(*((200, PICTURE) if self.server.counts[self.path] > 2 else (500, b"oops")))

    def serve_broken(self) -> None:
        self.reply(500, b"oops")

    def serve_weibo(self) -> None:
        here = self.headers.get("Referer") == "https://weibo.com/"
        self.reply(*((200, PICTURE) if here else (403, PAGE)))


@contextmanager
def serve_site(context: ssl.SSLContext | None = None) -> Iterator[Site]:
    site = Site()
    if context is not None:
        site.socket = context.wrap_socket(site.socket, server_side=True)
    thread = threading.Thread(target=site.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield site
    finally:
        site.stop.set()
        site.shutdown()
        thread.join()
        site.server_close()
