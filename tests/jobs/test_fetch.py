"""`sgmft fetch` against a real server on loopback."""

from __future__ import annotations

import json
import shutil
import socket
import ssl
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from sgmft import read_posts
from sgmft.data.preprocessing.media import decode_media
from sgmft.data.source import Source
from sgmft.data.tables import Columns, open_writer
from sgmft.errors import SgmftError
from sgmft.jobs.fetch import FetchSummary, fetch_table
from sgmft.utils import download
from sgmft.utils.download import DownloadSettings, is_public
from small_tables import file_names, read_rows
from web_server import PICTURE, serve_site


@pytest.fixture
def site() -> Any:
    with serve_site() as site:
        yield site


def write_table(folder: Path, rows: list[dict[str, Any]], name: str = "posts.jsonl") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    table = folder / name
    table.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")
    return table


def fetch(table: Path, output: Path, **settings: Any) -> FetchSummary:
    limits = {k: settings.pop(k) for k in ("max_files", "max_total") if k in settings}
    usual = {"max_bytes": 2**20, "timeout": 2, "backoff": 0.01, "wait": 0, "allow_private": True}
    source = Source(str(table), settings.pop("columns", Columns()))
    return fetch_table(source, output, DownloadSettings(**(usual | settings)), **limits)


def fetch_one(tmp_path: Path, address: str, **settings: Any) -> str:
    """The reason why one address gives no file; "" where it gives the picture."""
    table = write_table(tmp_path / "in", [{"text": "a", "image": address}])
    summary = fetch(table, tmp_path / "out", **settings)
    (post,) = read_posts(tmp_path / "out" / table.name)
    assert post.text == "a"
    if not summary.failed:
        assert [Path(file).read_bytes() for file in post.images] == [PICTURE]
        return ""
    assert read_rows(tmp_path / "out" / "posts.jsonl")[0]["image"] == address
    assert file_names(tmp_path / "out" / "images") == []
    (row,) = read_rows(tmp_path / "out" / "_failed.csv")
    assert row["row"] == "posts.jsonl, row 1" and row["address"].endswith(address)
    return row["reason"]


def test_a_table_is_written_again_with_the_paths_of_its_pictures(site, tmp_path):
    here = tmp_path / "in"
    rows = [
        {"id": 1, "text": "one", "image": f"{site.url}/picture/a.jpg", "likes": {"n": 1}},
        {"id": 2, "text": "two", "image": [f"{site.url}/picture/{x}" for x in "bc"]},
        {"id": 3, "text": "here", "image": "own.jpg"},
        {"id": 4, "text": "none"},
        {"id": 5, "text": "bad", "image": f"{site.url}/forbidden|{site.url}/picture/a.jpg"},
        {"id": 6, "text": "gone", "image": "gone.jpg"},
    ]
    table = write_table(here, rows)
    (here / "own.jpg").write_bytes(PICTURE)
    summary = fetch(table, tmp_path / "out")
    assert (summary.fetched, summary.rows, dict(summary.failed)) == (
        3,
        6,
        {"the server answers 403": 1},
    )
    written = read_rows(tmp_path / "out" / "posts.jsonl")
    for given, row in zip(rows, written, strict=True):
        assert [row[key] for key in row if key != "image"] == [
            given.get(key) for key in row if key != "image"
        ]
    assert written[4]["image"] == [f"{site.url}/forbidden", written[0]["image"]]
    assert written[5]["image"] == "gone.jpg"
    posts = read_posts(tmp_path / "out")
    assert [len(post.images) for post in posts[:4]] == [1, 2, 1, 0]
    assert all(Path(file).read_bytes() == PICTURE for post in posts[:4] for file in post.images)
    assert site.counts["/picture/a.jpg"] == 1


def test_csv_keeps_its_cells(site, tmp_path):
    table = tmp_path / "posts.csv"
    address = f"{site.url}/picture/a.jpg"
    table.write_text(f"id,图,text\n007,{address},甲\n008,,乙\n009,{address};x,=1+1\n", "utf-8")
    fetch(table, tmp_path / "out", columns=Columns(image="图"))
    rows = read_rows(tmp_path / "out" / "posts.csv")
    assert [(row["id"], row["text"]) for row in rows] == [
        ("007", "甲"),
        ("008", "乙"),
        ("009", "=1+1"),
    ]
    assert (tmp_path / "out" / rows[0]["图"]).read_bytes() == PICTURE and rows[1]["图"] is None


def test_what_is_there_is_not_fetched_again(site, tmp_path):
    rows = [{"text": "a", "image": f"{site.url}/picture/{i}"} for i in range(5)]
    table = write_table(tmp_path / "in", rows)
    out = tmp_path / "out"
    first = fetch(table, out, max_files=2)
    assert first.fetched == 2 and sum(first.failed.values()) == 3
    (out / "images" / ".x.jpg.0123456789abcdef.tmp").write_bytes(PICTURE[:100])
    second = fetch(table, out)
    assert (second.fetched, second.there) == (3, 2)
    assert len(site.seen) == 5 and len(file_names(out / "images")) == 5
    assert not (out / "_failed.csv").exists()
    assert fetch(table, out, max_total=1).there == 5


def test_the_table_itself_is_not_overwritten(site, tmp_path):
    table = write_table(tmp_path / "in", [{"text": "a", "image": f"{site.url}/picture"}])
    with pytest.raises(SgmftError, match="is the table that is read"):
        fetch(table, tmp_path / "in")
    assert not site.seen


@pytest.mark.parametrize(
    "path",
    [
        "picture",
        "gzip",
        "busy",
        "flaky",
        "redirect/picture",
        "redirect/redirect/flaky",
        "slow?a=b c",
    ],
)
def test_fetched(site, tmp_path, path):
    assert fetch_one(tmp_path, f"{site.url}/{path}") == ""


@pytest.mark.parametrize(
    ("path", "reason", "requests"),
    [
        ("forbidden", "the server answers 403", 1),
        ("broken", "the server answers 500", 3),
        ("page", "what is there holds HTML", 1),
        ("empty", "is empty", 1),
        ("long", "cut off", 1),
        ("short", "the connection failed", 3),
        ("huge", "more than 1 MiB", 1),
        ("endless", "more than 1 MiB", 1),
        ("bomb", "more than 1 MiB", 1),
        ("brotli", "the encoding br", 1),
        ("circle", "more than 5 times", 6),
        ("file", "/etc/passwd does not begin with http", 1),
        ("later", "asks to wait", 1),
        ("lost", "is no valid web address", 1),
        ("stall", "no whole answer within 0.5 seconds", 2),
        ("trickle", "no whole answer within 0.5 seconds", 2),
    ],
)
def test_not_fetched(site, tmp_path, path, reason, requests):
    settings = {"timeout": 0.5, "attempts": 2} if path in ("stall", "trickle") else {}
    assert reason in fetch_one(tmp_path, f"{site.url}/{path}", **settings)
    assert len(site.seen) == requests


@pytest.mark.parametrize(
    "address", ["http://", "http://[::1", "https://exa mple/a.jpg", "http://no-such.invalid/a.jpg"]
)
def test_addresses_that_lead_nowhere(tmp_path, address):
    assert fetch_one(tmp_path, address, attempts=1)


@pytest.mark.parametrize("name", ["referer", "proxy"])
@pytest.mark.parametrize(
    "address", ["", "localhost:7890", "socks5://x", "http://微博", "http://a b"]
)
def test_options_that_are_no_addresses(name, address):
    with pytest.raises(SgmftError, match=f"The {name} .* does not begin with http"):
        DownloadSettings(1, **{name: address})


def test_through_a_proxy(site, tmp_path):
    address = "http://somewhere.example/picture"
    assert fetch_one(tmp_path, address, proxy=site.url, allow_private=False) == ""
    assert site.seen[0][0] == address and site.seen[0][1]["Host"] == "somewhere.example"


def test_a_server_that_asks_to_wait_is_obeyed(site, tmp_path):
    assert fetch_one(tmp_path, f"{site.url}/busy") == ""
    (_, _, first), (_, _, second) = site.seen
    assert second - first >= 1


def test_a_few_at_once_and_waits_between(site, tmp_path):
    rows = [{"text": "a", "image": f"{site.url}/slow/{i}"} for i in range(12)]
    table = write_table(tmp_path / "in", rows)
    assert fetch(table, tmp_path / "out", per_host=2, wait=0.03).fetched == 12
    assert site.most == 2
    times = sorted(time for _, _, time in site.seen)
    assert times[-1] - times[0] > 11 * 0.03 - 0.02


def test_a_host_that_never_answers_is_given_up(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    rows = [{"text": "a", "image": f"http://127.0.0.1:{port}/{i}"} for i in range(100)]
    summary = fetch(write_table(tmp_path / "in", rows), tmp_path / "out", attempts=2)
    assert summary.failed["127.0.0.1 failed 10 times in a row: it is left for another run"] > 80


def test_referer(site, tmp_path, monkeypatch):
    lookup = socket.getaddrinfo
    monkeypatch.setattr(
        socket,
        "getaddrinfo",
        lambda host, *a, **k: lookup("127.0.0.1" if "sina" in str(host) else host, *a, **k),
    )
    at = f":{site.server_port}/weibo"
    assert fetch_one(tmp_path / "known", f"http://wx1.sinaimg.cn{at}") == ""
    assert fetch_one(tmp_path / "other", f"http://notsinaimg.cn{at}") != ""
    assert fetch_one(tmp_path / "given", site.url + "/weibo", referer="https://weibo.com/") == ""


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "localhost", "2130706433", "0x7f.1", "[::ffff:127.0.0.1]", "0", "[::1]"],
)
def test_private_networks_are_refused_unless_allowed(site, tmp_path, host):
    address = f"http://{host}:{site.server_port}/picture"
    reason = fetch_one(tmp_path, address, allow_private=False)
    assert "is in a private or reserved network" in reason and not site.seen


@pytest.mark.parametrize("host", ["127.0.0.2", "169.254.169.254", "[::1]"])
def test_redirects_to_private_networks_are_refused(site, tmp_path, monkeypatch, host):
    monkeypatch.setattr(download, "is_public", lambda address: address == "127.0.0.1")
    path = f"{site.url}/away/{host}/picture"
    assert "is in a private" in fetch_one(tmp_path, path, allow_private=False)
    assert all(path.startswith("/away") for path, *_ in site.seen)


def test_redirects_to_other_hosts_are_followed(site, tmp_path):
    assert fetch_one(tmp_path, f"{site.url}/away/localhost/picture") == ""


def test_the_address_that_was_checked_is_the_one_connected_to(site, tmp_path, monkeypatch):
    lookup, answers = socket.getaddrinfo, []

    def rebinding(host, *args, **options):
        """A name that is public when it is checked, and private ever after."""
        if host != "rebind.example":
            return lookup(host, *args, **options)
        answers.append("127.0.0.1" if not answers else "127.0.0.9")
        return lookup(answers[-1], *args, **options)

    monkeypatch.setattr(socket, "getaddrinfo", rebinding)
    monkeypatch.setattr(download, "is_public", lambda address: address == "127.0.0.1")
    address = f"http://rebind.example:{site.server_port}/picture"
    assert fetch_one(tmp_path, address, allow_private=False) == ""
    assert answers == ["127.0.0.1"]
    assert site.seen[0][1]["Host"] == f"rebind.example:{site.server_port}"


@pytest.mark.skipif(shutil.which("openssl") is None, reason="makes a certificate")
def test_certificates_are_checked_against_the_name_of_the_host(tmp_path, monkeypatch):
    names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    files = ["-keyout", tmp_path / "key.pem", "-out", tmp_path / "certificate.pem"]
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", *files, *names]
    subprocess.run(command, check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "certificate.pem", tmp_path / "key.pem")
    with serve_site(context) as site:
        address = f"https://localhost:{site.server_port}/picture"
        settings = {"attempts": 1, "timeout": 5}
        assert "CERTIFICATE_VERIFY_FAILED" in fetch_one(tmp_path / "unknown", address, **settings)
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "certificate.pem"))
        assert fetch_one(tmp_path / "known", address, **settings) == ""
        other = address.replace("localhost", "127.0.0.1")
        assert "not valid for" in fetch_one(tmp_path / "other", other, **settings)


@pytest.mark.parametrize(
    ("address", "public"),
    [
        *((x, True) for x in ("1.1.1.1", "2606:4700::1111", "64:ff9b::101:101", "2002:101:101::")),
        *((x, False) for x in ("10.1.2.3", "172.16.0.1", "192.168.1.1", "100.64.0.1", "127.8.8.8")),
        *(
            (x, False)
            for x in ("0.0.0.0", "169.254.1.1", "224.0.0.1", "240.0.0.1", "255.255.255.255")
        ),
        *((x, False) for x in ("::", "::1", "fe80::1%eth0", "fc00::1", "fec0::1", "ff02::1")),
        *(
            (x, False)
            for x in ("::ffff:10.0.0.1", "64:ff9b::a00:1", "2002:7f00:1::", "2001:db8::1")
        ),
        *((x, False) for x in ("64:ff9b:1::1", "2001:0:a00:1::f5ff:fffe")),
    ],
)
def test_public_addresses(address, public):
    assert is_public(address) is public


def test_nothing_else_fetches(site, tmp_path):
    table = write_table(tmp_path / "in", [{"text": "a", "image": f"{site.url}/picture"}])
    list(read_posts(table))
    assert not site.seen


def test_the_command(site, tmp_path, run):
    rows = [{"text": "a", "image": f"{site.url}/{path}"} for path in ("picture", "forbidden")]
    table = write_table(tmp_path / "in", rows)
    out = tmp_path / "out"
    done = run("fetch", table, "-o", out, "--allow-private")
    assert done.returncode == 0
    assert "1 pictures fetched" in done.stderr and "the server answers 403" in done.stderr
    (row, _) = read_rows(out / "posts.jsonl")
    decode_media((out / row["image"]).read_bytes(), "")
    refused = run("fetch", table, "-o", tmp_path / "other")
    assert refused.returncode == 3
    assert "2  127.0.0.1 is in a private or reserved network" in refused.stderr
    assert len(site.seen) == 2


@pytest.mark.slow
def test_a_run_that_is_killed_goes_on(site, tmp_path, start):
    rows = [{"text": "a", "image": f"{site.url}/slow/{i}"} for i in range(30)]
    table, out = write_table(tmp_path / "in", rows), tmp_path / "out"
    process = start("fetch", table, "-o", out, "--allow-private")
    while len(site.seen) < 12 and process.poll() is None:
        time.sleep(0.01)
    process.kill()
    process.communicate()
    kept = [file for file in (out / "images").iterdir() if file.suffix == ".jpg"]
    assert 0 < len(kept) < 30 and all(file.read_bytes() == PICTURE for file in kept)
    assert not (out / "posts.jsonl").exists()
    summary = fetch(table, out)
    assert summary.there == len(kept) and summary.fetched == 30 - len(kept)
    assert len(read_rows(out / "posts.jsonl")) == 30


def test_what_a_tool_has_not_downloaded(site, tmp_path):
    folder = tmp_path / "in"
    kept = {"category": "twitter", "subcategory": "timeline", "content": "a", "extension": "jpg"}
    rows = [
        [3, f"{site.url}/picture/{n}", kept | {"tweet_id": 1, "num": n, "filename": f"G{n}"}]
        for n in (1, 2)
    ]
    folder.mkdir()
    (folder / "dump.json").write_text(json.dumps(rows))
    (folder / "1_1.jpg").write_bytes(PICTURE)
    assert fetch(folder, tmp_path / "out").fetched == 1
    (post,) = read_posts(tmp_path / "out")
    assert [Path(file).read_bytes() for file in post.images] == [PICTURE, PICTURE]
    assert post.text == "a" and post.row["tweet_id"] == 1


def test_pictures_of_weibo_that_were_not_downloaded(site, tmp_path, run):
    folder = tmp_path / "weibo/小王"
    (folder / "img").mkdir(parents=True)
    (folder / "img/20250901_7_2.jpg").write_bytes(PICTURE)
    urls = ",".join(f"{site.url}/picture/{name}" for name in "abc")
    table = f'id,正文,原始图片url,日期\n7,在家,"{urls}",2025-09-01\n8,无图,无,2025-09-01\n'
    (folder / "1669879400.csv").write_text(table, "utf-8-sig")
    summary = fetch(tmp_path / "weibo", tmp_path / "out")
    assert (summary.fetched, summary.rows, len(site.seen)) == (2, 2, 2)
    first, second = read_posts(tmp_path / "out")
    assert [Path(file).read_bytes() for file in first.images] == [PICTURE] * 3
    assert (first.text, first.id, first.user) == ("在家", "7", "小王") and not second.images
    assert site.counts["/picture/b"] == 0
    done = run("fetch", tmp_path / "weibo", "-o", tmp_path / "out", "--allow-private")
    assert "read as weibo-crawler: 2 posts, 1 pictures found, 2 missing" in done.stderr
    assert "0 pictures fetched, 2 there already, 1 copied" in done.stderr


@pytest.mark.parametrize("suffix", [".jsonl", ".csv"])
def test_pictures_of_a_table_that_was_converted(site, tmp_path, suffix):
    row = {"text": "a", "id": "1", "user": "u", "time": None}
    row |= {"image_addresses": [f"{site.url}/picture/a", f"{site.url}/forbidden"]}
    table = tmp_path / f"posts{suffix}"
    with open_writer(table, list(row)) as writer:
        writer.write([row, row | {"id": "2", "image_addresses": None}])
    summary = fetch(table, tmp_path / "out")
    assert summary.fetched == 1 and summary.failed.total() == 1
    first, second = read_posts(tmp_path / "out")
    assert [Path(file).read_bytes() for file in first.images] == [PICTURE]
    assert not second.images and not first.row["image_addresses"]
