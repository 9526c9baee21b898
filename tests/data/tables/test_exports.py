"""Collectors and archives of social networks abroad: layouts, older versions, what is missing."""

from __future__ import annotations

import json
import lzma
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from test_collectors import COLLECTED, pictures, read

from image_files import encoded, plain
from sgmft.data.tables import open_table

PICTURE = encoded(plain(), "JPEG")
HOME, CINEMA = "今晚在家煮了面", "电影散场了"


def write(path: Path, data: Any) -> Path:
    """Write a file of this name: bytes, text, JSON, lines of JSON, or JSON in .xz."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".jsonl":
        data = "".join(json.dumps(row) + "\n" for row in data)
    elif not isinstance(data, (bytes, str)):
        data = json.dumps(data, indent=1, ensure_ascii="ascii" in path.name)
    data = data if isinstance(data, bytes) else data.encode()
    path.write_bytes(lzma.compress(data) if path.suffix == ".xz" else data)
    return path


def write_pictures(folder: Path, *names: str) -> None:
    for name in names:
        write(folder / name, PICTURE)


def facts(posts: Any) -> list[tuple[Any, ...]]:
    return [(post.text, post.id, post.user, post.time) for post in posts]


GIVEN = {
    "instaloader": ("instaloader", "C0 C1 C2", [2, 1, 1], "3 posts, 4 pictures found, 0 missing"),
    "twscrape": ("twscrape", None, [0, 0, 0], "3 posts, 0 pictures found, 2 missing"),
    "gallery-dl": ("gallery-dl", None, [1, 1, 1], "3 posts, 3 pictures found, 0 missing"),
    "instagram-download": (
        "instagram",
        "1000 1010 1020",
        [2, 1, 1],
        "3 posts, 4 pictures found, 0 missing",
    ),
    "telegram": (
        "telegram",
        "2 3 4 6",
        [1, 1, 1, 0],
        "4 posts, 3 pictures found, 1 missing, 1 other records left out",
    ),
}


@pytest.mark.parametrize("name", GIVEN)
def test_examples(name: str) -> None:
    tool, ids, counts, told = GIVEN[name]
    posts, notices = read(COLLECTED / name)
    assert notices == [f"{COLLECTED / name} read as {tool}: {told}"]
    assert [len(post.images) for post in posts] == counts
    assert all(image.is_file() for post in posts for image in post.images)
    assert not any(post.error for post in posts) and all(post.time for post in posts)
    assert ids is None or [post.id for post in posts] == ids.split()
    assert posts[0].text.startswith("下课铃一响大家都冲去食堂，今天的数学课真难")
    assert [post.label for post in posts] == [None] * len(posts)
    forced, _ = read(COLLECTED / name, format=tool)
    assert facts(forced) == facts(posts)


def node(code: str, text: str | None, **more: Any) -> dict[str, Any]:
    edges = [] if text is None else [{"node": {"text": text}}]
    inside = {"shortcode": code, "edge_media_to_caption": {"edges": edges}, "id": "9", **more}
    return {"node": inside, "instaloader": {"version": "4.14", "node_type": "Post"}}


def test_instaloader(tmp_path: Path) -> None:
    one, two = tmp_path / "a/anna", tmp_path / "a/#cinema"
    stems = [f"2025-09-0{day}_12-00-00_UTC" for day in range(1, 8)]
    children = {"edge_sidecar_to_children": {"edges": [{}, {}, {}]}, "__typename": "GraphSidecar"}
    owner = {"owner": {"id": "77", "username": "anna"}, "taken_at_timestamp": 1756700000}
    write(one / f"{stems[0]}.json.xz", node("A", HOME, **children, **owner))
    write_pictures(one, *(f"{stems[0]}_{n}.jpg" for n in (1, 3)))
    write(one / f"{stems[1]}.json.xz", node("B", None, __typename="GraphVideo", **owner))
    write_pictures(one, f"{stems[1]}.jpg", f"{stems[1]}.mp4")
    write(one / f"{stems[2]}.json", {"shortcode": "C", "caption": CINEMA, "date": 1756700001})
    write_pictures(one, f"{stems[2]}.jpg", "2025-09-09_12-00-00_UTC_profile_pic.jpg")
    write(one / f"{stems[2]}_comments.json", [{"id": 1, "text": "not a post"}])
    write(one / "anna_77.json.xz", {"node": {"id": "77"}, "instaloader": {"node_type": "Profile"}})
    write(one / f"{stems[3]}.txt", HOME)  # without metadata
    write(one / f"{stems[3]}_old_01.txt", "an earlier caption")
    write(one / f"{stems[3]}_location.txt", "Beijing")
    write_pictures(one, *(f"{stems[3]}_{n}.jpg" for n in (2, 10, 1)))
    write(one / f"{stems[4]}.json.xz", node("D", "x"))
    (one / f"{stems[4]}.json.xz").write_bytes(b"\xfd7zXZ\0 cut off")
    write(two / f"{stems[5]}.json.xz", node("E", HOME, owner={"id": "5"}, __typename="GraphImage"))
    posts, told = read(tmp_path)
    assert told == [f"{tmp_path} read as instaloader: 6 posts, 7 pictures found, 2 missing"]
    assert [post.id for post in posts] == ["E", "A", "B", "C", stems[3], None]
    assert [post.user for post in posts] == ["5", "anna", "anna", "anna", "anna", None]
    assert [post.text for post in posts] == [HOME, HOME, "", CINEMA, HOME, ""]
    assert posts[1].time == "2025-09-01T04:13:20+00:00" and posts[4].time.startswith(
        "2025-09-04T12"
    )
    assert pictures(posts)[:2] == [[], [f"{stems[0]}_1.jpg", f"{stems[0]}_3.jpg"]]
    assert pictures(posts)[2] == [f"{stems[1]}.mp4"]
    assert pictures(posts)[4] == [f"{stems[3]}_{n}.jpg" for n in (1, 2, 10)]
    assert posts[5].error == f"{stems[4]}.json.xz is damaged"
    assert posts[1].row["edge_sidecar_to_children"] and posts[1].row["original.id"] == "9"
    write_pictures(one, f"{stems[4]}.jpg")
    posts, told = read(tmp_path)
    assert posts[5].id == stems[4] and not posts[5].error and len(posts[5].images) == 1
    assert told[0].endswith(f"{stems[4]}.json.xz is damaged: what lies beside it is read.")


def test_instaloader_with_other_names(tmp_path: Path) -> None:
    record = node("Cab", HOME, owner={"id": "5", "username": "anna"}, taken_at_timestamp=1756700000)
    write(tmp_path / "anna/Cab.json", dict(sorted(record.items())))
    write_pictures(tmp_path / "anna", "Cab.jpg")
    for path in (tmp_path, tmp_path / "anna"):
        posts, told = read(path)
        assert facts(posts) == [(HOME, "Cab", "anna", "2025-09-01T04:13:20+00:00")]
        assert told == [f"{path} read as instaloader: 1 posts, 1 pictures found, 0 missing"]


def tweet(key: int, text: str, media: Any = None, **more: Any) -> dict[str, Any]:
    row = {"id": key, "rawContent": text, "date": "2025-09-01T12:00:00+00:00", "media": media}
    return row | {"user": {"id": 1, "username": "anna"}} | more


def addresses(path: Path) -> list[Any]:
    return [row.values.get("image_addresses", []) for row in open_table(path).rows]


def test_twscrape_and_snscrape(tmp_path: Path) -> None:
    variants = [
        {"url": "https://v/low.mp4", "bitrate": 1, "contentType": "video/mp4"},
        {"url": "https://v/high.mp4", "bitrate": 9, "contentType": "video/mp4"},
        {"url": "https://v/list.m3u8", "bitrate": None, "contentType": "x"},
    ]
    video = {"photos": [], "videos": [{"variants": variants, "thumbnailUrl": "https://t.jpg"}]}
    again = tweet(1, HOME, {"photos": [{"url": "https://p/1.jpg"}], "videos": [], "animated": []})
    empty = {"photos": [], "videos": [], "animated": []}
    rows = [
        tweet(2, HOME, video),
        tweet(3, f"RT @anna: {HOME}", empty, retweetedTweet=again),
        tweet(4, CINEMA, None, user=None),
    ]
    path = write(tmp_path / "twscrape.jsonl", rows)
    posts, told = read(path)
    assert told == [f"{path} read as twscrape: 3 posts, 0 pictures found, 2 missing"]
    assert [(post.id, post.user) for post in posts] == [("2", "anna"), ("3", "anna"), ("4", None)]
    assert addresses(path) == [["https://v/high.mp4"], ["https://p/1.jpg"], []]
    kind = "snscrape.modules.twitter."
    photo = {
        "_type": f"{kind}Photo",
        "previewUrl": "https://p/s",
        "fullUrl": "https://p/1?format=jpg",
    }
    film = {"_type": f"{kind}Video", "variants": variants[:2], "thumbnailUrl": "https://t.jpg"}
    today = tweet(5, HOME, [photo, film], renderedContent="short", _type=f"{kind}Tweet")
    old = {"url": "https://u", "date": "2020-01-01", "content": CINEMA, "id": 6, "username": "bob"}
    for name, row in (("new", today), ("old", old | {"outlinks": [], "tcooutlinks": []})):
        path = write(tmp_path / f"{name}.jsonl", [row])
        (post,), told = read(path)
        assert "read as snscrape: 1 posts" in told[0] and not post.error
        assert (post.text, post.user) in ((HOME, "anna"), (CINEMA, "bob"))
    assert addresses(tmp_path / "new.jsonl") == [["https://p/1?format=jpg", "https://v/high.mp4"]]


@pytest.mark.parametrize(
    ("row", "text", "address"),
    [
        ({"id": "1", "text": HOME, "pictures": ["https://w/1.jpg"]}, HOME, "https://w/1.jpg"),
        ({"url": "u", "content": HOME, "displayUrl": "https://d"}, HOME, "https://d"),
        (
            {"id": "t3_a", "title": "T", "selftext": "s", "subreddit": "x", "author": "u"}
            | {"link": "https://i.redd.it/a.jpg", "url": "https://r"},
            "T\n\ns",
            "https://i.redd.it/a.jpg",
        ),
    ],
    ids=["weibo", "instagram", "reddit"],
)
def test_other_networks_of_snscrape(tmp_path: Path, row: Any, text: str, address: str) -> None:
    more = {"_type": "snscrape.modules.x.Post", "date": "2021", "_snscrape": "0.7"}
    path = write(tmp_path / "p.jsonl", [row | more])
    ((post,), _) = read(path)
    assert (post.text, post.time, addresses(path)) == (text, "2021", [[address]])


SKEET = {"uri": "at://did/post/3k", "cid": "b", "author": {"did": "did", "handle": "anna"}}
SKEET["record"] = {"text": HOME, "createdAt": "2025-09-01T12:00:00Z"}
SKEET["embed"] = {"images": [{"thumb": "https://b/t.jpg", "fullsize": "https://b/f.jpg"}]}
TOOT = {"id": "1", "content": HOME, "account": {"acct": "anna"}, "created_at": "2025-09-01"}
TOOT["media_attachments"] = [{"url": "https://m/1.jpg", "preview_url": "https://m/p.jpg"}]

USER, MEDIA = {"id": 1, "screen_name": "anna"}, [{"media_url_https": "https://m/1.jpg"}]
TWEET = {"id_str": "1", "text": f"{HOME[:3]}… https://t.co/a", "truncated": True, "user": USER}
TWEET |= {"created_at": "Mon", "entities": {"media": [{"media_url_https": "https://m/cut.jpg"}]}}
TWEET["extended_tweet"] = {"full_text": HOME, "extended_entities": {"media": MEDIA}}
NEWER = {"id": "1", "text": "x…", "note_tweet": {"text": HOME}, "author": {"username": "anna"}}
NEWER |= {"edit_history_tweet_ids": ["1"], "created_at": "Mon", "attachments": {"media": MEDIA}}
WEIBO = {"mid": "5", "bid": "P", "text": "x<a>全文</a>", "isLongText": True, "created_at": "Mon"}
WEIBO |= {"longText": {"longTextContent": HOME}, "pics": [{"large": {"url": "https://w/1.jpg"}}]}
WEIBO |= {"user": USER, "id": "5"}
AJAX = {"mblogid": "P", "idstr": "5", "text_raw": HOME, "text": "<b>", "pic_num": 1, "user": USER}
AJAX |= {"created_at": "Mon", "pic_infos": {"006": {"largest": {"url": "https://w/2.jpg"}}}}
SPIDER = {"_id": "5", "mblogid": "P", "content": HOME, "pic_urls": ["https://w/3.jpg"]}
SPIDER |= {"user": {"_id": "1", "nick_name": "anna"}, "created_at": "2025-09-01 12:00:00"}
APIFY = {
    "id": "1",
    "shortCode": "C",
    "caption": HOME,
    "images": [],
    "displayUrl": "https://d/1.jpg",
}
APIFY |= {"ownerUsername": "anna", "timestamp": "2025-09-01"}


@pytest.mark.parametrize(
    ("tool", "data", "address"),
    [
        ("x-json", [TWEET], "https://m/1.jpg"),
        ("x-json", {"statuses": [TWEET], "search_metadata": {}}, "https://m/1.jpg"),
        ("x-json", [NEWER], "https://m/1.jpg"),
        ("weibo-json", [WEIBO], "https://w/1.jpg"),
        ("weibo-json", {"ok": 1, "data": {"cards": [{"mblog": WEIBO}]}}, "https://w/1.jpg"),
        ("weibo-json", [AJAX], "https://w/2.jpg"),
        ("weibo-json", [SPIDER], "https://w/3.jpg"),
        ("instagram-json", [APIFY], "https://d/1.jpg"),
        ("bluesky", [SKEET], "https://b/f.jpg"),
        ("bluesky", {"posts": [SKEET], "cursor": "c"}, "https://b/f.jpg"),
        ("bluesky", {"feed": [{"post": SKEET}], "cursor": "c"}, "https://b/f.jpg"),
        ("mastodon", [TOOT], "https://m/1.jpg"),
    ],
)
def test_answers_of_networks(tmp_path: Path, tool: str, data: Any, address: str) -> None:
    path = write(tmp_path / ("p.jsonl" if isinstance(data, list) else "p.json"), data)
    (post,), told = read(path)
    assert (post.text, post.user, post.row["image_addresses"]) == (HOME, "anna", [address])
    assert post.id and post.time and f"read as {tool}: 1 posts, 0 pictures found, 1 m" in told[-1]


def test_the_archive_of_mastodon(tmp_path: Path) -> None:
    post = {"id": "p1", "content": HOME, "attachment": [{"url": "/media_attachments/1.jpg"}]}
    about = {"type": "Create", "actor": "https://m/users/anna", "published": "2025-09-01"}
    items = [about | {"object": post}, about | {"object": "https://elsewhere/1"}]
    write(tmp_path / "outbox.json", {"@context": "x", "orderedItems": items})
    write(tmp_path / "actor.json", {"id": "u", "type": "Person"})
    write_pictures(tmp_path / "media_attachments", "1.jpg")
    posts, told = read(tmp_path)
    assert facts(posts) == [(HOME, "p1", "anna", "2025-09-01")] and pictures(posts) == [["1.jpg"]]
    assert told[-1].endswith("1 posts, 1 pictures found, 0 missing, 1 other records left out")


def test_lines_may_be_called_json_and_ids_of_json_are_whole(tmp_path: Path) -> None:
    rows = [tweet(1960000000000000000 + n, HOME) for n in (0, 1)]
    lines = write(tmp_path / "tweets.jsonl", rows)
    posts, told = read(Path(lines.rename(tmp_path / "tweets.json")))
    assert "read as twscrape: 2 posts" in told[0] and posts[0].id == "1960000000000000000"
    assert not posts[0].warnings


def gallery(key: int, num: int, **more: Any) -> dict[str, Any]:
    author = {"id": 1, "name": "anna"}
    row = {"category": "twitter", "subcategory": "timeline", "tweet_id": key, "content": HOME}
    row |= {"author": author, "num": num, "extension": "jpg", "filename": f"G{num}", "date": "d"}
    return row | more


def test_gallery_dl(tmp_path: Path) -> None:
    folder = tmp_path / "twitter/anna"
    for key, num in ((1, 1), (1, 2), (1, 10), (2, 1)):
        write(folder / f"{key}_{num}.jpg.json", gallery(key, num))
    write_pictures(folder, "1_1.jpg", "1_2.jpg", "1_10.jpg")
    write(folder / "info.json", {"id": 1})
    posts, told = read(tmp_path)
    assert told == [f"{tmp_path} read as gallery-dl: 2 posts, 3 pictures found, 1 missing"]
    assert pictures(posts) == [["1_1.jpg", "1_2.jpg", "1_10.jpg"], []]
    assert facts(posts)[0] == (HOME, "1", "anna", "d")


@pytest.mark.parametrize(
    ("row", "file", "user"),
    [
        (gallery(1, 1), "1_1.jpg", "anna"),
        (
            {"category": "weibo", "subcategory": "user", "num": 2, "extension": "jpg"}
            | {"status": {"id": 5, "idstr": "5", "text_raw": HOME, "user": {"screen_name": "王"}}}
            | {"filename": "006abc"},
            "5_02.jpg",
            "王",
        ),
        (
            {"category": "instagram", "subcategory": "posts", "num": 1, "extension": "jpg"}
            | {"post_id": "7", "description": HOME, "username": "anna", "media_id": "8"}
            | {"filename": "n", "sidecar_media_id": "7"},
            "7_8.jpg",
            "anna",
        ),
    ],
    ids=["twitter", "weibo", "instagram"],
)
def test_gallery_dl_lines(tmp_path: Path, row: Any, file: str, user: str) -> None:
    write(tmp_path / "data.jsonl", [row])
    write_pictures(tmp_path, file)
    (post,), told = read(tmp_path)
    assert (post.text, post.user, pictures([post])) == (HOME, user, [[file]])
    assert told[0].endswith("gallery-dl: 1 posts, 1 pictures found, 0 missing")


def test_gallery_dl_with_a_record_for_each_post(tmp_path: Path) -> None:
    row = {"category": "twitter", "subcategory": "x", "count": 11, "date": "d", "content": HOME}
    write(tmp_path / "5.json", row | {"tweet_id": 5})
    write_pictures(tmp_path, "5_2.jpg", "5_11.jpg", "5_1.mp4", "50_1.jpg")
    assert pictures(read(tmp_path)[0]) == [["5_1.mp4", "5_2.jpg", "5_11.jpg"]]
    write(tmp_path / "lines/data.jsonl", [row | {"tweet_id": 5}, row | {"tweet_id": 6}])
    write_pictures(tmp_path / "lines", "6_1.jpg")
    assert pictures(read(tmp_path / "lines")[0]) == [[], ["6_1.jpg"]]


@pytest.mark.parametrize("info", ["info.json", "1.json"])
def test_gallery_dl_with_records_for_posts_and_files(tmp_path: Path, info: str) -> None:
    for num in (1, 2):
        write(tmp_path / f"1_{num}.jpg.json", gallery(1, num))
    write_pictures(tmp_path, "1_1.jpg")
    post = gallery(1, 1)
    write(tmp_path / info, {x: post[x] for x in post if x not in ("num", "extension", "filename")})
    posts, told = read(tmp_path)
    assert pictures(posts) == [["1_1.jpg"]]
    assert told[0].endswith("1 posts, 1 pictures found, 1 missing")


@pytest.mark.parametrize(
    "user",
    [
        {"author": "anna"},
        {"author": {"did": "d", "handle": "anna"}, "user": {"handle": "b"}},
        {"account": {"acct": "anna", "username": "a"}},
        {"author": {"id": "7", "uniqueId": "anna"}},
        {"blog_name": "anna", "user": {"id": 1}},
    ],
)
def test_users_of_gallery_dl(tmp_path: Path, user: dict[str, Any]) -> None:
    record = {"category": "x", "subcategory": "y", "id": "1", "text": HOME, "extension": "jpg"}
    write(tmp_path / "1.jpg.json", record | user)
    assert [post.user for post in read(tmp_path)[0]] == ["anna"]


def test_gallery_dl_dump(tmp_path: Path) -> None:
    messages = [
        [2, gallery(1, 0)],
        [3, "https://p/1.jpg", gallery(1, 1)],
        [3, "https://p/2.jpg", gallery(1, 2)],
        [2, gallery(2, 0, content=CINEMA)],
    ]
    path = write(tmp_path / "dump.json", messages)
    posts, told = read(path)
    assert [post.text for post in posts] == [HOME, CINEMA]
    assert told[0].endswith("2 posts, 0 pictures found, 2 missing")
    assert addresses(path) == [["https://p/1.jpg", "https://p/2.jpg"], []]


def test_x_archive(tmp_path: Path) -> None:
    data = tmp_path / "twitter-2025-09-01/data"
    media = [
        {"media_url_https": "https://pbs.twimg.com/media/G1.jpg", "type": "photo"},
        {
            "media_url_https": "https://pbs.twimg.com/thumb/T.jpg",
            "video_info": {
                "variants": [
                    {"content_type": "application/x-mpegURL", "url": "https://v/l.m3u8"},
                    {"bitrate": "832000", "url": "https://v/low.mp4?tag=12"},
                    {"bitrate": "2176000", "url": "https://v/high.mp4?tag=12"},
                ]
            },
        },
        {"media_url_https": "https://pbs.twimg.com/media/gone.jpg"},
    ]
    when = "Mon Sep 01 12:00:00 +0000 2025"
    one = {"id_str": "12", "full_text": HOME, "created_at": when}
    one |= {"extended_entities": {"media": media}}
    two = {"id_str": "13", "full_text": CINEMA, "created_at": when, "entities": {}}
    posts = [{"tweet": one}, {"tweet": two}]
    write(data / "tweets.js", "window.YTD.tweets.part0 = " + json.dumps(posts[:1]))
    write(data / "tweets-part1.js", "window.YTD.tweets.part1 = " + json.dumps(posts[1:]))
    write(data / "deleted-tweets.js", "window.YTD.deleted_tweets.part0 = [ ]")
    account = [{"account": {"username": "anna", "accountId": "1"}}]
    write(data / "account.js", "window.YTD.account.part0 = " + json.dumps(account))
    write_pictures(data / "tweets_media", "12-G1.jpg", "12-high.mp4")
    for path in (tmp_path, data.parent, data):
        read_now, told = read(path)
        assert told == [f"{path} read as x-archive: 2 posts, 2 pictures found, 1 missing"]
        assert pictures(read_now) == [["12-G1.jpg", "12-high.mp4"], []] or pictures(read_now) == [
            [],
            ["12-G1.jpg", "12-high.mp4"],
        ]
    assert (HOME, "12", "anna", "2025-09-01T12:00:00+00:00") in facts(read_now)
    cut = [one | {"full_text": f"{HOME} &amp; {x}…"} for x in ("long", "short", "none")]
    cut[1] |= {"created_at": when.replace("2025", "2024")}
    write(data / "tweets.js", "window.YTD.tweets.part0 = " + json.dumps(cut))
    notes = [
        {"noteTweet": {"createdAt": "2025-09-01T12:00:01.000Z", "core": {"text": f"{HOME} & {x}"}}}
        for x in ("long story", "short story")
    ]
    write(data / "note-tweet.js", "window.YTD.note_tweet.part0 = " + json.dumps(notes))
    texts = [post.text for post in read(data / "tweets.js")[0]]
    assert texts == [f"{HOME} & long story", cut[1]["full_text"], cut[2]["full_text"]]
    old = tmp_path / "old"
    write(old / "tweet.js", "window.YTD.tweet.part0 = " + json.dumps([one]))
    write_pictures(old / "tweet_media", "12-G1.jpg")
    (post,), told = read(old / "tweet.js")
    assert pictures([post]) == [["12-G1.jpg"]] and told[0].endswith("1 pictures found, 2 missing")


def as_latin(text: str) -> str:
    return text.encode().decode("latin-1")


def test_instagram(tmp_path: Path) -> None:
    root = tmp_path / "instagram-anna.b-2025-09-01-AbC123"
    activity = root / "your_instagram_activity/media"

    def medium(name: str, title: str) -> dict[str, Any]:
        return {
            "uri": f"media/posts/202509/{name}",
            "creation_timestamp": 1756700000,
            "title": title,
        }

    album = {"media": [medium("1.jpg", ""), medium("2.jpg", "")], "title": as_latin(HOME)}
    album |= {"creation_timestamp": 1756700009}
    posts = [
        album,
        {"media": [medium("3.jpg", as_latin("café 😋"))]},
        {"media": [medium("4.jpg", CINEMA)]},
    ]
    write(activity / "posts_1.json", posts)
    write(activity / "reels.json", {"ig_reels_media": [{"media": [medium("5.mp4", "Café été")]}]})
    write(activity / "stories.json", {"ig_stories": [medium("6.jpg", "")]})
    write(activity / "profile_photos.json", {"ig_profile_picture": [medium("7.jpg", "")]})
    write_pictures(root / "media/posts/202509", "1.jpg", "2.jpg", "4.jpg", "5.mp4", "6.jpg")
    for path in (tmp_path, root):
        found, told = read(path)
        assert told == [f"{path} read as instagram: 5 posts, 5 pictures found, 1 missing"]
        assert [post.text for post in found] == [HOME, "café 😋", CINEMA, "Café été", ""]
        assert pictures(found) == [["1.jpg", "2.jpg"], [], ["4.jpg"], ["5.mp4"], ["6.jpg"]]
        assert {post.user for post in found} == {"anna.b"}
    assert found[0].time == "2025-09-01T04:13:29+00:00" and found[1].id == "3"


@pytest.mark.parametrize("uri", ["./b/../secret.jpg", "../secret.jpg"])
def test_instagram_looks_in_no_folder_above_the_export(tmp_path: Path, uri: str) -> None:
    write_pictures(tmp_path, "secret.jpg")
    write(tmp_path / "given/posts_1.json", [{"media": [{"uri": uri, "title": "x"}]}])
    (tmp_path / "given/b").mkdir()
    (post,), _ = read(tmp_path / "given")
    assert not post.images


def test_an_old_copy_of_instagram(tmp_path: Path) -> None:
    photo = {"caption": as_latin(HOME), "taken_at": "2020-01-01T00:00:00", "path": "photos/a.jpg"}
    more = {"videos": [photo | {"path": "videos/b.mp4"}], "profile": [photo | {"path": "c.jpg"}]}
    one = {"media": [{"uri": "media/1.jpg", "title": as_latin(HOME), "creation_timestamp": 1}]}
    write(tmp_path / "one/posts_1.json", one)
    assert [post.text for post in read(tmp_path / "one")[0]] == [HOME]
    (tmp_path / "one/posts_1.json").unlink()
    write(tmp_path / "media.json", {"photos": [photo], **more})
    write_pictures(tmp_path, "photos/a.jpg", "videos/b.mp4", "c.jpg")
    posts, told = read(tmp_path)
    assert facts(posts)[0] == (HOME, "a", None, "2020-01-01T00:00:00")
    assert told == [f"{tmp_path} read as instagram: 2 posts, 2 pictures found, 0 missing"]


def test_telegram(tmp_path: Path) -> None:
    def message(key: int, text: Any, **more: Any) -> dict[str, Any]:
        row = {"id": key, "type": "message", "date": "2025-09-01T12:00:00", "from": None}
        return row | {"date_unixtime": "1756728000", "from_id": "user1", "text": text} | more

    film = {"file": "video_files/v.mp4", "mime_type": "video/mp4", "media_type": "video_file"}
    sticker = {"file": "stickers/s.webp", "mime_type": "image/webp", "media_type": "sticker"}
    sheet = {"file": "files/t.pdf", "mime_type": "application/pdf"}
    chats = [
        {"name": "g", "type": "private_group", "id": 1, "messages": [message(1, HOME, **film)]},
        {
            "type": "saved_messages",
            "id": 2,
            "messages": [
                {"id": 1, "type": "service", "action": "create_channel", "text": ""},
                message(2, [CINEMA, {"type": "bold", "text": "!"}], **sticker),
                message(3, "", **sheet),
            ],
        },
    ]
    about = "Here is the data you requested. Remember: ..."
    data = {"about": about, "chats": {"list": chats[:1]}, "left_chats": {"list": chats[1:]}}
    write(tmp_path / "result.json", data)
    write_pictures(tmp_path / "video_files", "v.mp4")
    posts, told = read(tmp_path)
    said = "3 posts, 1 pictures found, 0 missing, 1 other records left out"
    assert told == [f"{tmp_path} read as telegram: {said}"]
    assert [post.text for post in posts] == [HOME, CINEMA + "!", ""]
    assert [post.id for post in posts] == ["1_1", "2_2", "2_3"]
    assert {post.user for post in posts} == {"user1"} and pictures(posts) == [["v.mp4"], [], []]
    assert posts[2].error == "nothing to go on: no text and no picture"


def test_an_album_of_telegram_is_one_post(tmp_path: Path) -> None:
    def message(key: int, text: str, second: int = 0, **more: Any) -> dict[str, Any]:
        row = {"id": key, "type": "message", "date": f"2025-09-01T12:00:0{second}", "text": text}
        return row | {"from": "A", "from_id": "user1", "photo": f"photos/{key}.jpg"} | more

    rows = [
        *(message(1, HOME), message(2, ""), message(3, "")),
        *(message(4, CINEMA), message(5, "another"), message(6, "", second=1)),
        message(7, "", second=1, from_id="user2"),
        message(8, "words", second=1, from_id="user2", photo=None),
    ]
    write(tmp_path / "result.json", {"name": "g", "type": "x", "id": 1, "messages": rows})
    write_pictures(tmp_path / "photos", *(f"{n}.jpg" for n in (1, 3, 4, 5, 6, 7)))
    posts, told = read(tmp_path)
    assert [post.id for post in posts] == ["1", "4", "5", "6", "7", "8"]
    assert pictures(posts)[0] == ["1.jpg", "3.jpg"] and posts[0].text == HOME
    assert [message["id"] for message in posts[0].row["album"]] == [2, 3]
    assert told == [f"{tmp_path} read as telegram: 6 posts, 6 pictures found, 1 missing"]


def test_reddit(tmp_path: Path) -> None:
    def submission(key: str, title: str, **more: Any) -> dict[str, Any]:
        row = {"id": key, "subreddit": "pics", "title": title, "author": "anna"}
        return row | {"created_utc": 1756700000, "selftext": "", "url": "https://r/x"} | more

    kinds = {"m1": {"m": "image/jpg"}, "m2": {"m": "image/png"}}
    rows = [
        submission("a", "Home", selftext="at home"),
        submission(
            "b", "Removed", selftext="[removed]", author="[deleted]", created_utc="1756700000"
        ),
        submission(
            "c",
            "Gallery",
            gallery_data={"items": [{"media_id": "m2"}, {"media_id": "m1"}]},
            media_metadata=kinds,
            url="https://www.reddit.com/gallery/c",
        ),
        submission("d", "Picture", url="https://i.redd.it/x.jpg"),
        submission(
            "e", "Video", media={"reddit_video": {"fallback_url": "https://v/DASH_720.mp4"}}
        ),
    ]
    path = write(tmp_path / "r_pics_posts.jsonl", rows)
    comment = {"id": "z", "subreddit": "pics", "body": "x", "author": "b", "link_id": "t3_a"}
    write(tmp_path / "r_pics_comments.jsonl", [comment])
    mixed = write(tmp_path / "mixed/r.jsonl", [comment | {"created_utc": 1}, rows[0]])
    assert facts(read(mixed)[0])[0][:2] == ("Home\n\nat home", "a")
    mixed.unlink()
    posts, told = read(tmp_path)
    assert told == [f"{tmp_path} read as reddit: 5 posts, 0 pictures found, 4 missing"]
    assert facts(posts)[0] == ("Home\n\nat home", "a", "anna", "2025-09-01T04:13:20+00:00")
    assert facts(posts)[1] == ("Removed", "b", None, "2025-09-01T04:13:20+00:00")
    assert addresses(path)[2:] == [
        ["https://i.redd.it/m2.png", "https://i.redd.it/m1.jpg"],
        ["https://i.redd.it/x.jpg"],
        ["https://v/DASH_720.mp4"],
    ]


@pytest.mark.parametrize(
    ("name", "data"),
    [("matrix.json", [[1, 2], [3, 4]]), ("media.json", [{"path": "a.jpg", "text": HOME}])],
)
def test_files_of_others_are_left_alone(tmp_path: Path, name: str, data: Any) -> None:
    write(tmp_path / name, data)
    (tmp_path / "folder.json").mkdir()
    write(tmp_path / "anna/2025-09-01_12-00-00_UTC.txt", HOME)
    posts, told = read(tmp_path)
    assert [post.text for post in posts] == [HOME]
    assert "instaloader" in told[-1]
    assert name == "matrix.json" or facts(read(tmp_path / name)[0]) == [(HOME, None, None, None)]


def test_records_that_are_laid_out_otherwise_are_reported(tmp_path: Path) -> None:
    write(
        tmp_path / "data/tweets.js", 'window.YTD.tweets.part0 = [{"tweet": {"created_at": "a"}}, 5]'
    )
    posts, _ = read(tmp_path)
    assert [post.error for post in posts] == [
        "not laid out as x-archive does it",
        "not an object of columns and values",
    ]


def xhs(key: str, title: str, time: str, urls: str, **more: Any) -> dict[str, Any]:
    row = {"作品ID": key, "作品标题": title, "作品描述": "#北京[话题]#", "发布时间": time}
    return (
        row | {"下载地址": urls, "作者昵称": "小红", "作者ID": "5" * 24, "作品类型": "图文"} | more
    )


def write_database(path: Path, table: str, rows: list[dict[str, Any]]) -> Path:
    path.parent.mkdir(exist_ok=True)
    columns = ", ".join(f"{name} TEXT" for name in rows[0])
    with closing(sqlite3.connect(path)) as database, database:
        database.execute(f"CREATE TABLE {table} ({columns})")
        marks = ", ".join("?" * len(rows[0]))
        database.executemany(
            f"INSERT INTO {table} VALUES ({marks})", map(tuple, map(dict.values, rows))
        )
    return path


def test_xhs_downloader(tmp_path: Path) -> None:
    keys = [f"66f0a{n:019}" for n in range(4)]
    time = "2025-09-01_12:00:00"
    rows = [
        xhs(keys[0], "在家！カ煮面🍜 第1天", time, "https://p/0 https://p/1"),
        xhs(keys[1], CINEMA, time, "https://v/0", 作品类型="视频"),
        xhs(keys[2], "", "2025-09-02_12:00:00", "https://p/2 https://p/3 https://p/4"),
        xhs(keys[3], HOME, "2025-09-03_12:00:00", "https://p/5"),
    ]
    path = write_database(tmp_path / "Download/ExploreData.db", "explore_data", rows)
    write_database(tmp_path / "ExploreID.db", "explore_id", [{"ID": keys[0]}])
    write_database(tmp_path / "MappingData.db", "mapping_data", [{"ID": "5", "NAME": "小红"}])
    at = "2025-09-01_12.00.00_小红_"
    write_pictures(path.parent, *(f"{at}在家！煮面_第1天_{n}.jpeg" for n in (1, 2)))
    write_pictures(path.parent, f"{at}在家！煮面_第1天_1.mp4")  # a live photo
    write_pictures(path.parent / f"{'5' * 24}_小红/{at}{CINEMA}", f"{at}{CINEMA}.mp4")
    write_pictures(path.parent / "own", *(f"{keys[2]}_{n}.webp" for n in (3, 1)))
    posts, told = read(tmp_path)
    assert told == [f"{tmp_path} read as xhs-downloader: 4 posts, 6 pictures found, 2 missing"]
    names = [f"{at}在家！煮面_第1天_{end}" for end in ("1.jpeg", "1.mp4", "2.jpeg")]
    assert pictures(posts)[:2] == [names, [f"{at}{CINEMA}.mp4"]]
    assert pictures(posts)[2:] == [[f"{keys[2]}_1.webp", f"{keys[2]}_3.webp"], []]
    assert addresses(path) == [[], [], ["https://p/3"], ["https://p/5"]]
    assert posts[1].text == f"{CINEMA}\n#北京[话题]#" and posts[1].time == "2025-09-01 12:00:00"
    assert posts[1].user == "5" * 24


@pytest.mark.parametrize("order", [1, -1])
def test_titles_of_one_second_that_begin_alike(tmp_path: Path, order: int) -> None:
    time, long = "2025-09-01_12:00:00", f"{HOME}{'，今天也是' * 9}"
    titles = [HOME, f"{HOME}第二", f"{long}好的一天", f"{long}坏的一天", "在家"][::order]
    same = xhs("9" * 24, f"{HOME}第二", time, "https://p/0", 作者昵称="小兰", 作品描述="")
    rows = [xhs(f"66f0a{n:019}", x, time, "https://p/0 https://p/1") for n, x in enumerate(titles)]
    write_database(tmp_path / "Download/ExploreData.db", "explore_data", [*rows, same][::order])
    cut = f"2025-09-01_12.00.00_小红_{long[:16]}...{long[-12:]}"  # as the tool does
    names = [f"2025-09-01_12.00.00_小红_{HOME}第二_1.png", f"{cut}坏的一天_2.png"]
    write_pictures(tmp_path / "Download", *names)
    posts, _ = read(tmp_path)
    found = {post.id: picture for post, picture in zip(posts, pictures(posts), strict=True)}
    right = [rows[titles.index(x)]["作品ID"] for x in (f"{HOME}第二", f"{long}坏的一天")]
    assert {x: y for x, y in found.items() if y} == dict(
        zip(right, ([x] for x in names), strict=True)
    )
