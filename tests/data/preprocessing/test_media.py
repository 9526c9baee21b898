"""Which pictures a file gives (a video, an animation, a motion photo, a still), and bad files."""

import logging
import struct
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import image_files as made
import video_files as film
from sgmft.data.preprocessing import images, media
from sgmft.data.preprocessing.images import ImageError, decode_image
from sgmft.data.preprocessing.media import (
    MAX_FRAMES,
    decode_media,
    decode_video,
    is_multi_image,
    read_media,
)
from sgmft.errors import SgmftError

VIDEOS = [
    ("mp4", "libx264"),
    ("mp4", "mpeg4"),
    ("mov", "mpeg4"),
    ("mov", "libx264"),
    ("webm", "libvpx"),
    ("webm", "libvpx-vp9"),
    ("matroska", "libx264"),
]
ANIMATIONS = ["GIF", "PNG", "WEBP", *(["AVIF"] if made.HAS_AVIF else [])]


def numbers(data: bytes, most: int = MAX_FRAMES) -> list[int]:
    """The numbers of the frames that were taken."""
    return [film.number_of(picture) for picture in decode_media(data, "a", 16, most)]


# --- videos ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("format", "codec"), VIDEOS)
def test_frames_are_the_middles_of_equal_spans(format, codec):
    assert numbers(film.video(film.coloured(32), format, codec)) == [4, 12, 20, 28]


@pytest.mark.parametrize("gap", ["1", "3", "12", "250"])
@pytest.mark.parametrize("bf", ["0", "3"])
def test_however_far_apart_key_frames_are(gap, bf):
    data = film.video(film.coloured(64), "mp4", "libx264", g=gap, bf=bf)
    assert numbers(data) == [8, 24, 40, 56]


@pytest.mark.parametrize(
    ("count", "most", "taken"),
    [
        (1, 4, [0]),
        (2, 4, [0, 1]),
        (3, 4, [0, 1, 2]),
        (5, 4, [0, 1, 3, 4]),
        (40, 1, [20]),
        (40, 2, [10, 30]),
        (40, 3, [6, 20, 33]),
    ],
)
@pytest.mark.parametrize("format", ["mp4", "webm", "GIF"])
def test_how_many(format, count, most, taken):
    if format == "GIF":
        data = film.moving("GIF", count) if count > 1 else made.encoded(film.coloured(1)[0], "GIF")
    else:
        data = film.video(film.coloured(count), format)
    assert numbers(data, most) == taken


def test_shape_and_type():
    pictures = decode_media(film.video(film.coloured(8)), "a.mp4")
    assert len(pictures) == MAX_FRAMES
    for picture in pictures:
        assert picture.shape == (224, 224, 3) and picture.dtype == np.uint8
        assert picture.flags.c_contiguous and picture.flags.writeable


def test_spans_are_of_time():
    for times, taken in [
        ([0, 1, 2, 3, 30, 31, 60, 61], [3, 5, 7]),  # tenths of a second; the rate changes
        ([0, 1, 2, 3, 4, 100], [4, 5]),
        (range(50, 58), [1, 3, 5, 7]),  # a late start is no part of the length
    ]:
        assert numbers(film.video(film.coloured(len(times)), times=times)) == taken


def test_headers_that_tell_nothing_or_nonsense_do_no_harm():
    frames = film.coloured(32)
    parts = film.video(frames, "mp4", movflags="frag_keyframe+empty_moov", g="8")
    length = bytearray(film.video(frames))
    at = length.index(b"mvhd") + 20
    length[at : at + 4] = bytes(4)
    title = film.video(frames).replace(b"Lavf", b"\xff\xfe\xff\xfe")  # in no known encoding
    assert b"\xff\xfe\xff\xfe" in title
    for data in (film.video(frames, "webm", live="1"), parts, bytes(length), title):
        assert numbers(data) == [4, 12, 20, 28]


@pytest.mark.parametrize("format", ["mp4", "mov"])
@pytest.mark.parametrize("quarter", range(4))
def test_shown_as_the_telephone_was_held(format, quarter):
    data = film.rotated(film.video([made.quarters((64, 48))] * 2, format, "libx264"), quarter)
    picture = decode_media(data, "a", 32)[0]
    clockwise = np.rot90(decode_image(made.encoded(made.quarters()), "a", 32), -quarter)
    assert np.abs(picture.astype(int) - clockwise)[4:12, 4:12].max() < 12
    assert np.abs(picture.astype(int) - clockwise)[20:28, 20:28].max() < 12
    wide, high = next(decode_video(data, "a", 1)).size
    assert (wide, high) == ((64, 48) if quarter % 2 == 0 else (48, 64))


def test_squashed_like_pictures():
    scene = made.scene((96, 40))
    picture = decode_media(film.video([scene] * 3, crf="1"), "a", 24)[0]
    still = decode_image(made.encoded(scene), "a", 24)
    assert np.abs(picture.astype(int) - still).mean() < 4


# --- animations ------------------------------------------------------------------------------


@pytest.mark.parametrize("format", ANIMATIONS)
def test_animations(format):
    assert numbers(film.moving(format, 20)) == [2, 7, 12, 17]
    assert numbers(film.moving(format, 3)) == [0, 1, 2]
    assert numbers(film.moving(format, 20), 1) == [10]


def test_frames_that_hold_only_what_changed():
    first, second = made.quarters(), made.quarters()
    second.paste((0, 0, 0), (0, 0, 8, 6))
    data = made.encoded(first, "GIF", save_all=True, append_images=[second], duration=100)
    one, two = decode_media(data, "a", 64)
    assert (one[40, 40] == two[40, 40]).all() and (one[1, 1] != two[1, 1]).any()


def test_pages_are_not_frames():
    first, *rest = film.coloured(5)
    data = made.encoded(first, "TIFF", save_all=True, append_images=rest)
    assert numbers(data) == [0] and not is_multi_image(data)


# --- motion photos ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "between", [b"", b"\0" * 40, made.encoded(made.plain(), "JPEG"), b"ftyp", b"MotionPhoto_Data"]
)
def test_motion_photo_gives_the_still_and_its_motion(between):
    data = film.motion_photo(between=between)
    still, *motion = decode_media(data, "a.jpg", 32)
    alone = decode_image(data, "a.jpg", 32)
    np.testing.assert_array_equal(still, alone)
    assert [film.number_of(picture) for picture in motion] == [2, 8, 13]
    assert len(decode_media(data, "a.jpg", 32, 1)) == 1
    np.testing.assert_array_equal(decode_media(data, "a.jpg", 32, 1)[0], alone)


def test_motion_photo_whose_motion_is_damaged_is_the_still():
    data = film.motion_photo()[:-300]
    (still,) = decode_media(data, "a.jpg", 32)
    np.testing.assert_array_equal(still, decode_image(data, "a.jpg", 32))


def test_a_box_inside_the_jpeg_is_not_its_motion():
    box = film.video(film.coloured(4))[:200]
    assert b"ftyp" in box
    jpeg = made.encoded(made.quarters(), "JPEG", comment=box)
    assert b"ftyp" in jpeg and not is_multi_image(jpeg)
    assert len(decode_media(jpeg, "a", 16)) == 1
    unended = made.encoded(made.quarters(), "JPEG")[:-2] + film.video(film.coloured(4))
    assert not is_multi_image(unended)


# --- without PyAV, as the plain installation is ----------------------------------------------


@pytest.mark.parametrize("data", [film.video(film.coloured(4)), film.motion_photo()])
def test_a_video_asks_for_what_reads_videos(data, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(SgmftError, match=r"^A video needs .*: pip install 'sgmft\[video\]'"):
        decode_media(data, "a")


# --- what holds for all files ----------------------------------------------------------------

ALL = {
    **{f"{kind} {codec}": film.video(film.coloured(16), kind, codec) for kind, codec in VIDEOS},
    **{format: film.moving(format, 8) for format in ANIMATIONS},
    "motion photo": film.motion_photo(),
}
STILLS = {
    **{format: made.encoded(made.scene((60, 40)), format) for format in made.FORMATS},
    "turned": made.turned(made.quarters(), 6),
    "grey": made.grey16(np.arange(100).reshape(10, 10) * 600),
    "with more behind it": made.encoded(made.scene((60, 40)), "JPEG") + b"\xff\xd8\xff ftyp",
}


@pytest.mark.parametrize("name", STILLS)
def test_stills_are_as_they_were(name):
    (picture,) = decode_media(STILLS[name], "a", 32)
    np.testing.assert_array_equal(picture, decode_image(STILLS[name], "a", 32))
    assert not is_multi_image(STILLS[name])


@pytest.mark.parametrize("name", ALL)
def test_files_of_several_pictures_are_known_before_they_are_decoded(name):
    assert is_multi_image(ALL[name])


def test_the_same_bytes_give_the_same_frames_in_any_thread():
    def digest(data: bytes) -> bytes:
        return np.stack(decode_media(data, "a", 32)).tobytes()

    expected = [digest(data) for data in ALL.values()]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(digest, list(ALL.values()) * 4)) == expected * 4


@pytest.mark.parametrize("name", [name for name in ALL if name not in ANIMATIONS])
def test_one_frame_is_held_at_a_time(name, monkeypatch):
    """A frame is squashed before the next one is decoded."""
    order = []

    def note(what, function):
        def call(*arguments):
            order.append(what)
            return function(*arguments)

        return call

    def watched(*arguments):
        for frame in decode_video(*arguments):
            order.append("decoded")
            yield frame

    monkeypatch.setattr(media, "decode_video", watched)
    monkeypatch.setattr(media, "squash", note("squashed", media.squash))
    decode_media(ALL[name], "a", 16)
    assert order and order == ["decoded", "squashed"] * (len(order) // 2)


# --- damaged, hostile, too large, too slow

MP4 = film.video(film.coloured(16))
WEBM = film.video(film.coloured(16), "webm")


def reason(data: bytes, name: str = "a.mp4") -> str:
    with pytest.raises(ImageError) as caught:
        decode_media(data, name, 16)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def outcome(data: bytes) -> str:
    try:
        return f"{len(decode_media(data, 'a', 16))} pictures"
    except ImageError as error:
        return str(error)


@pytest.mark.parametrize("format", ["mp4", "mov", "webm", "matroska"])
@pytest.mark.parametrize("share", [0.0, 0.2, 0.5, 0.8, 0.99])
def test_cut_off(format, share):
    data = film.video(film.coloured(16), format, "" if format in film.CODECS else "libx264")
    assert reason(data[: max(8, int(len(data) * share))]) == "a.mp4 is cut off or damaged"


def test_cut_off_in_fragments_or_with_more_behind():
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
    assert reason(b"RIFF\0\0\0\0AVI LIST").startswith("a.mp4 holds AVI, which is not read")
    assert reason(b"\0\0\0\x18ftypmp42" + b"\0" * 12) == "a.mp4 is cut off or damaged"
    assert reason(b"\x1aE\xdf\xa3") == "a.mp4 is cut off or damaged"
    assert reason(MP4[:8] + b"heic" + MP4[12:]) == "a.mp4 is cut off or damaged"


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
        next(decode_video(text, "a", 1))


def test_too_many_pixels(monkeypatch):
    data = film.video([made.plain(size=(64, 48))] * 3)
    at = data.index(b"avc1", data.index(b"stsd")) + 28
    claimed = data[:at] + struct.pack(">HH", 60_000, 60_000) + data[at + 4 :]
    monkeypatch.setattr(media, "MAX_VIDEO_PIXELS", 64 * 48 - 1)
    assert "pixels; at most" in reason(data)
    monkeypatch.setattr(media, "MAX_VIDEO_PIXELS", 64 * 48)
    assert len(decode_media(data, "a", 16)) == 3
    monkeypatch.undo()
    if "pixels" not in (found := outcome(claimed)):  # the codec's own header counts
        assert found == "3 pictures"


def test_too_many_frames(monkeypatch):
    monkeypatch.setattr(media, "MAX_TIMES", 15)
    assert reason(MP4) == "a.mp4 has more than 15 frames; give a shorter copy"


@pytest.mark.parametrize("data", [MP4, WEBM, *(film.moving(f, 8) for f in ("GIF", "PNG", "WEBP"))])
def test_too_slow(data, monkeypatch):
    monkeypatch.setattr(media, "MAX_SECONDS", 0.0)
    assert reason(data).endswith("more than 0 seconds to read; give a shorter or a smaller copy")


def test_too_slow_half_way(monkeypatch):
    """The clock is looked at between frames, not only where the file is read."""
    times = iter([0.0] * 30)
    monkeypatch.setattr(media.time, "thread_time", lambda: next(times, 100.0))
    assert "takes more than 20 seconds" in reason(MP4)


def test_too_large_a_file_is_not_read(tmp_path):
    with (tmp_path / "big.mp4").open("wb") as file:
        file.truncate(media.MAX_VIDEO_BYTES + 1)
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
