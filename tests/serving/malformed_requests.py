"""Malformed requests at random: bytes as a client sends them."""

import base64
import gzip
import json
import random
import zlib
from functools import cache

from loopback import Case, request

import image_files
import video_files

LISTENER = "http://127.0.0.1:{port}/picture.png"  # to which nobody may connect
NUMBERS = ("1e999", "5e-324", "-0", "0.5", "1" * 400, "1e-9", "0.9999999999999999", "-1", "2e-308")
NOT_JSON = (
    *("NaN", "-Infinity", "00", "0x1", "1.", "nul", "'a'", "", "undefined", "[,]", "{1: 2}"),
    *("9" * 5000, r'"\ud800"', r'"\udc00\ud800"', r'"\x41"', '"\udcff"', '"\n"', '"', "\ufeff1"),
    "// a",
)
PLACES = (
    *("/etc/passwd", "/etc/passwd/", "file:///etc/passwd", "../../../../etc/shadow", "http://[::1"),
    *("\\\\host\\share\\a.png", "data:image/png;base64", "data:,text", "~/.ssh/id_rsa"),
    *(LISTENER, LISTENER),
)
HEADERS = (
    *("X-API-Key: \udce4\udcf6", "Authorization: Basic ====", "Accept: text/html;q=\udcff"),
    *("Range: bytes=0-", "Expect: 100-continue", "Upgrade: h2c", "Host: [", "a b: c", ": c"),
    "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: a",
    "Cookie: " + "a=b; " * 300,
    *("X-Forwarded-For: 127.0.0.1, \udcf0\udc9f", "Content-Encoding: identity", "\u540d: \u503c"),
)
PATHS = (
    *("/v1/predict/", "/v1/%2e%2e/health", "//v1/predict", "/v1/predict?text=%ff%00", "/%", "/%zz"),
    *("/problems/%00", "/problems/..%2f..%2fetc%2fpasswd", "/problems/not-json", "/\udcff", "*"),
    *("/problems/" + "a" * 3000, "/openapi.json?" + "&" * 500, "http://127.0.0.1:1/health", ""),
    *("127.0.0.1:1", "/metrics;x", "/v1/explain#x", "/docs", "/static/../../etc/passwd"),
)
REPEATED = ("a", "#", "@a", "[", "//", "\u200d")
METHODS = ("GET", "PUT", "HEAD", "OPTIONS", "TRACE", "DELETE", "CONNECT", "PATCH", "get", "POST")


def place(rng):
    """Return now and then the address of explanations: most of these are refused before that."""
    return rng.choice(("/v1/predict",) * 9 + ("/v1/explain",))


def damaged(data, rng):
    """With some bytes changed, cut out, doubled or cut off."""
    found = bytearray(data)
    for _ in range(rng.randint(1, 6)):
        at = rng.randrange(len(found)) if found else 0
        what = rng.randrange(5)
        if what == 0 and found:
            found[at] = rng.randrange(256)
        elif what == 1:
            found[at:at] = rng.randbytes(rng.randint(1, 4))
        elif what == 2:
            del found[at : at + rng.randint(1, 8)]
        elif what == 3:
            found[at:at] = found[at : at + 20]
        elif rng.random() < 0.3:
            del found[at:]
    return bytes(found)


def broken_http(rng):
    """Bytes that are hardly HTTP, or that lie about their length."""
    good = request(b'{"text": "at home"}')
    chunked = request(b"", "application/json", "/v1/predict", "Transfer-Encoding: chunked")
    chunked = chunked.replace(b"Content-Length: 0\r\n", b"")
    kinds = (
        lambda: rng.randbytes(rng.randint(1, 300)),
        lambda: damaged(good, rng),
        lambda: good[: rng.randrange(len(good))],
        lambda: request(b"{}", length=rng.choice((3, 999, -1, "1 1", "9" * 30, "", "1e3"))),
        lambda: chunked + rng.choice((b"zz\r\n{}\r\n", b"ffffffffffffffff\r\n", b"2\r\n{}")),
        lambda: chunked + b"2\r\n{}\r\n" * rng.randint(1, 50),
        lambda: chunked + b"2;" + b"x" * rng.randint(1, 5000) + b"\r\n{}\r\n0\r\n\r\n",
        lambda: request(b"{}", "application/json", "/health", "Content-Length: 5"),
        lambda: request(b"{}", "a", "/", "Transfer-Encoding: gzip, chunked"),
        lambda: good.replace(b"HTTP/1.1", rng.choice((b"HTTP/9.9", b"HTTP", b"", b"X/1.1"))),
        lambda: good.replace(b"\r\n", rng.choice((b"\n", b"\r", b"\r\n "))),
        lambda: b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * rng.randint(1, 3000),
        lambda: b"GET /" + b"a" * rng.randint(1, 70_000),
        lambda: b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + rng.randbytes(200),  # TLS
        lambda: b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + rng.randbytes(50),
        lambda: good + damaged(good, rng),  # one behind another
    )
    return Case(rng.choice(kinds)(), whole=False)


def odd_http(rng):
    """HTTP as it may be, of methods, paths and headers that nobody expects."""
    extra = rng.sample(HEADERS, rng.choice((0, 0, 1, 2)))
    known = rng.random() < 0.3
    path = rng.choice(("/v1/predict", "/health", "/problems/x") if known else PATHS)
    method = rng.choice(METHODS) if rng.random() < 0.9 else "".join(rng.choices("AZ-!~", k=9))
    return Case(request(b'{"text": ""}', "application/json", path, *extra, method=method))


def value(rng, depth=0):
    """Some JSON or what looks like it."""
    kind = rng.randrange(9 if depth < 3 else 6)
    if kind == 0:
        return rng.choice(NUMBERS)
    if kind == 1:
        return rng.choice(("null", "true", "false", r'"\u0000"'))
    if kind == 2:
        return json.dumps("".join(chr(rng.randrange(0x3000)) for _ in range(rng.randrange(20))))
    if kind == 3:
        return rng.choice(NOT_JSON if rng.random() < 0.3 else ("0.25", '"home"', '[{"text": "a"}]'))
    if kind == 4:
        return json.dumps(rng.choice(PLACES))
    if kind == 5:
        return json.dumps(base64.b64encode(rng.randbytes(rng.randrange(40))).decode()[1:])
    if kind == 6:
        return "{" + ", ".join(f'"a{i}": {value(rng, depth + 1)}' for i in range(3)) + "}"
    return "[" + ", ".join(value(rng, depth + 1) for _ in range(rng.randrange(4))) + "]"


def wrong_json(rng):
    """Of the right members, mostly, and the wrong values; or no JSON."""
    names = ("text", "id", "images", "posts", "coverage", "min_probability", "reject", "label", "x")
    chosen = rng.sample(names, rng.randint(1, 3))
    text = "{" + ", ".join(f'"{name}": {value(rng)}' for name in chosen) + "}"
    body = text.encode("utf-8", "surrogateescape")
    odd = {
        0: lambda: damaged(body, rng),
        1: lambda: (
            rng.choice((b"[", b'{"text":', b'{"posts":[', b'[{"a":')) * rng.randint(1, 20_000)
        ),
        2: lambda: b'{"posts": [' + b"1," * rng.randint(1, 50_000) + b"1]}",
        3: lambda: text.encode(rng.choice(("utf-16", "utf-32", "utf-8-sig", "utf-7")), "replace"),
        4: lambda: b'{"text": "' + rng.choice(REPEATED).encode() * 25_000 + b'"}',
        5: lambda: json.dumps({f"a{i}": i for i in range(rng.randint(17, 5000))}).encode(),
    }.get(rng.randrange(20), lambda: body)
    return Case(request(odd(), "application/json", place(rng)))


def other_type(rng):
    """A body of a type that is not read, or squeezed."""
    kind = rng.choice(
        ("", "text/plain", "application/x-www-form-urlencoded", "json", "a/\udce4", ";")
    )
    if rng.random() < 0.5:
        return Case(request(b"text=home", kind, place(rng)))
    body, name = rng.choice(
        (
            (bomb(), "gzip"),
            (gzip.compress(b'{"text": "a"}'), "gzip, gzip"),
            (zlib.compress(b"{}"), "deflate"),
            (b"{}", rng.choice(("br", "zstd", "identity, gzip", "\udcff", "GZIP"))),
        )
    )
    return Case(request(body, "application/json", place(rng), f"Content-Encoding: {name}"))


@cache
def bomb():
    """Sixteen MiB in sixteen KiB."""
    return gzip.compress(b"[" * 2**24)


def wrong_form(rng):
    """A form that is none, or holds what it should not."""
    names = ("text", "id", "image", "images", "posts", "coverage", "reject", "x", "", "t\udce4")
    parts = []
    for _ in range(rng.choice((0,) + (1, 2, 3) * 5 + (20, 1100))):
        name = rng.choice(names)
        file = rng.choice(
            ("", '; filename="a.png"', "; filename*=utf-8''%ff", '; filename="\udcff"')
        )
        type_ = rng.choice(("", "Content-Type: image/png\r\n", "Content-Transfer-Encoding: x\r\n"))
        held = rng.choice((value(rng), "0.5", "nan", "-" * 80, "--x", "\r\n--", "\udcff"))
        parts.append(
            f'--x\r\nContent-Disposition: form-data; name="{name}"{file}\r\n{type_}\r\n{held}\r\n'
        )
    body = ("".join(parts) + "--x--\r\n").encode("utf-8", "surrogateescape")
    edge = rng.choice(("x",) * 16 + ("y", "", '"x', "\udce4", "x" * 500))
    charset = rng.choice(
        ("",) * 6 + ("undefined", "unicode_escape", "punycode", "utf-16", "rot13", "a" * 999)
    )
    body = damaged(body, rng) if rng.random() < 0.25 else body
    kind = f"multipart/form-data; boundary={edge}" + (f"; charset={charset}" if charset else "")
    return Case(request(body, kind, place(rng)))


@cache
def files():
    """Small pictures and videos of every kind."""
    return (
        *(image_files.encoded(image_files.quarters(), x) for x in image_files.FORMATS),
        *(image_files.animated(x) for x in ("GIF", "WEBP", "PNG")),
        *(video_files.video(video_files.coloured(4), x) for x in video_files.CODECS),
        video_files.motion_photo(),
        image_files.turned(image_files.quarters(), 6),
        image_files.bomb(),
        image_files.bomb(8_000, 8_000),
        image_files.grey16([[0, 65535]]),
        image_files.truncated(),
    )


def damaged_pictures(rng):
    """A post of good form whose files are not."""
    sent = [damaged(rng.choice(files()), rng) for _ in range(rng.randint(1, 2))]
    if rng.random() < 0.5:
        images = [base64.b64encode(x).decode() for x in sent]
        return Case(request(json.dumps({"text": "at home", "images": images}).encode()))
    head = 'Content-Disposition: form-data; name="image"; filename="../../etc/passwd\u2028.exe"'
    body = b"".join(b"--x\r\n" + head.encode() + b"\r\n\r\n" + x + b"\r\n" for x in sent)
    return Case(request(body + b"--x--\r\n", "multipart/form-data; boundary=x"))


KINDS = {  # of a hundred
    broken_http: 20,
    odd_http: 14,
    wrong_json: 34,
    other_type: 8,
    wrong_form: 18,
    damaged_pictures: 6,
}


def case(seed, port):
    """The same for the same seed; `port` is the listener's and takes as many bytes as its name."""
    rng = random.Random(seed)
    made = rng.choices(list(KINDS), list(KINDS.values()))[0](rng)
    return made._replace(sent=made.sent.replace(b"{port}", b"%06d" % port))
