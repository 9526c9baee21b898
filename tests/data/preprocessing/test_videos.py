"""Videos and animations that are damaged, hostile, too large or too slow."""

import logging
import struct

import pytest

import image_files as made
import video_files as film
from sgmft.data.preprocessing import images, videos
from sgmft.data.preprocessing import videos as timed
from sgmft.data.preprocessing.images import ImageError
from sgmft.data.preprocessing.media import decode_media, read_media

MP4 = film.video(film.coloured(16))
WEBM = film.video(film.coloured(16), "webm")


def reason(data: bytes, name: str = "a.mp4") -> str:
    with pytest.raises(ImageError) as caught:
        decode_media(data, name, 16)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("format", ["mp4", "mov", "webm", "matroska"])
@pytest.mark.parametrize("share", [0.0, 0.2, 0.5, 0.8, 0.99])
def test_cut_off(format, share):
    data = film.video(film.coloured(16), format, "" if format in film.CODECS else "libx264")
    assert reason(data[: max(8, int(len(data) * share))]) == "a.mp4 is cut off or damaged"


def test_cut_off_in_fragments_and_with_more_behind():
    data = film.video(film.coloured(16), movflags="frag_keyframe+empty_moov", g="4")
    for share in (0.3, 0.6, 0.9):
        assert "cut off or damaged" in reason(data[: int(len(data) * share)])
    behind = (MP4 + b"a trailer of its own", MP4 + bytes(9), MP4 + b"\xff" * 9)
    assert [outcome(data) for data in behind] == ["4 pictures"] * 3


@pytest.mark.parametrize("format", ["WEBP", *(["AVIF"] if made.HAS_AVIF else [])])
def test_cut_off_animations(format):
    assert reason(made.truncated(film.moving(format, 20))) == "a.mp4 is cut off or damaged"


def test_nothing_and_nonsense():
    assert reason(b"") == "a.mp4 is empty (0 bytes)"
    assert reason(b"\0" * 5000).startswith("a.mp4 is not a picture")
    assert "MP4, MOV and WebM videos" in reason(b"RIFF\0\0\0\0AVI LIST")
    assert reason(b"\0\0\0\x18ftypmp42" + b"\0" * 12) == "a.mp4 is cut off or damaged"
    assert reason(b"\x1aE\xdf\xa3") == "a.mp4 is cut off or damaged"
    assert reason(MP4[:8] + b"heic" + MP4[12:]).startswith("a.mp4 is not a picture")


def test_only_sound_and_no_frames():
    assert reason(film.sound()) == "a.mp4 has no video in it, only sound or data"
    empty = film.video(film.coloured(1), "mp4", movflags="frag_keyframe+empty_moov")
    head = empty[: empty.index(b"moof") - 4]
    assert "without a frame" in reason(head) or "no video" in reason(head)


@pytest.mark.parametrize(
    "text",
    [
        b"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nsecret.mp4\n",
        b"ffconcat version 1.0\nfile 'secret.mp4'\n",
        b"v=0\no=- 0 0 IN IP4 127.0.0.1\nc=IN IP4 127.0.0.1\nm=video 5004 RTP/AVP 96\n",
        b"<?xml version='1.0'?><MPD><BaseURL>secret.mp4</BaseURL></MPD>",
        b"Let's wide open moov, free skip and mdat",
        b"Let'free ",
    ],
)
def test_lists_of_files_are_not_followed(tmp_path, monkeypatch, text):
    (tmp_path / "secret.mp4").write_bytes(MP4)
    monkeypatch.chdir(tmp_path)
    for name in ("a.m3u8", "a.mp4", "a%d.jpg"):
        assert "is not a picture" in reason(text, name)
    with pytest.raises(ImageError, match="a is not a video"):
        next(videos.decode_video(text, "a", 1))


def test_too_many_pixels(monkeypatch):
    data = film.video([made.plain(size=(64, 48))] * 3)
    at = data.index(b"avc1", data.index(b"stsd")) + 28
    claimed = data[:at] + struct.pack(">HH", 60_000, 60_000) + data[at + 4 :]
    monkeypatch.setattr(videos, "MAX_VIDEO_PIXELS", 64 * 48 - 1)
    assert "pixels; at most" in reason(data)
    monkeypatch.setattr(videos, "MAX_VIDEO_PIXELS", 64 * 48)
    assert len(decode_media(data, "a", 16)) == 3
    monkeypatch.undo()
    if "pixels" not in (found := outcome(claimed)):  # the codec's own header counts
        assert found == "3 pictures"


def outcome(data: bytes) -> str:
    try:
        return f"{len(decode_media(data, 'a', 16))} pictures"
    except ImageError as error:
        return str(error)


def test_too_many_frames(monkeypatch):
    monkeypatch.setattr(videos, "MAX_TIMES", 15)
    assert reason(MP4) == "a.mp4 has more than 15 frames; give a shorter copy"


@pytest.mark.parametrize("data", [MP4, WEBM, *(film.moving(f, 8) for f in ("GIF", "PNG", "WEBP"))])
def test_too_slow(data, monkeypatch):
    monkeypatch.setattr(timed, "MAX_SECONDS", 0.0)
    assert reason(data) == (
        "a.mp4 takes more than 0 seconds to read; give a shorter or a smaller copy"
    )


def test_too_slow_half_way(monkeypatch):
    """The clock is looked at between frames, not only where the file is read."""
    times = iter([0.0] * 30)
    monkeypatch.setattr(timed.time, "thread_time", lambda: next(times, 100.0))
    assert "takes more than 20 seconds" in reason(MP4)


def test_too_large_a_file_is_not_read(tmp_path):
    with (tmp_path / "big.mp4").open("wb") as file:
        file.truncate(videos.MAX_VIDEO_BYTES + 1)
    with pytest.raises(ImageError, match=r"^big\.mp4 has at least .* at most 256 MiB are read$"):
        read_media(tmp_path / "big.mp4")


def test_a_picture_may_not_be_as_large_as_a_video(monkeypatch):
    monkeypatch.setattr(images, "MAX_BYTES", 1000)
    assert len(MP4) > 1000 and len(decode_media(MP4, "a", 16)) == 4
    assert "bytes; at most" in reason(made.encoded(made.scene((60, 40)), "BMP"))


def test_nothing_is_logged(caplog, capfd):
    capfd.readouterr()
    with caplog.at_level(logging.DEBUG):
        for data in (MP4, MP4[:800], WEBM[:-200], b"\0\0\0\x18ftypmp42", film.sound()):
            outcome(data)
    assert not caplog.records
    assert capfd.readouterr() == ("", "")
