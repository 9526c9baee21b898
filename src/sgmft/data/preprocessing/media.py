"""From a file of a post (a still, animation, video, motion photo) to its pictures; thumbnails."""

from __future__ import annotations

import base64
import io
import math
import re
import time
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import ExifTags, Image

from sgmft.data.posts import Attachment, MediaFile
from sgmft.data.preprocessing import images
from sgmft.data.preprocessing.images import ImageError, Pixels, squash
from sgmft.errors import TEXTS, SgmftError, make_printable, needs_extra

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

MAX_SECONDS = 20.0  # of processor time for one file; waiting for a busy machine does not count


class TimedFile(io.BytesIO):
    """Bytes that seem to end once a time is over, which stops a decoder; for use in one thread."""

    def __init__(self, data: bytes, name: str) -> None:
        super().__init__(data)
        self._name = make_printable(name)
        self._end = time.thread_time() + MAX_SECONDS

    def read(self, size: int | None = -1, /) -> bytes:
        """Read as `io.BytesIO` does; nothing once the time is over."""
        return b"" if time.thread_time() > self._end else super().read(size)

    def check(self) -> None:
        """Raise ImageError once the time is over."""
        if time.thread_time() > self._end:
            raise ImageError(TEXTS["slow"], name=self._name, most=MAX_SECONDS)


MAX_VIDEO_BYTES = 256 * 1024 * 1024  # larger files are refused unread (256 MiB)
MAX_VIDEO_PIXELS = 16_000_000  # of a frame, about 5300 x 3000; a decoder keeps up to 17 of them
MAX_TIMES = 1_000_000  # the most frames of one video: nine hours at 30 a second
MAX_BOXES = 100_000  # the most parts of an MP4 that are visited to find its end
_BOXES = (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"moof")  # of MP4 and MOV
_STILLS = b"avif avis heic heix heim heis heif hevc hevx mif1 msf1".split()
_MATROSKA, _SEGMENT = b"\x1aE\xdf\xa3", b"\x18S\x80g"


def is_video(data: bytes) -> bool:
    """Return whether the first bytes are those of MP4, MOV (3GP, M4V), WebM or Matroska."""
    return _format(data) is not None


def decode_video(data: bytes, name: str, most: int) -> Iterator[Image.Image]:
    """Decode frames of a video, evenly over its length, upright, in order, one at a time.

    The length is cut into `most` equal spans, and the frame on show in the middle of each is
    taken, so a short video may give fewer. Times are those of the packets: a header that tells
    another length, or none, and a changing frame rate do no harm. Nothing but these bytes is read:
    a reference to another file is not followed. ImageError where they are damaged, no video, or
    too many (`MAX_VIDEO_PIXELS` of a frame, `MAX_TIMES`, `MAX_SECONDS` of processor time).
    """
    with needs_extra("video", "A video"):  # in a motion photo, too: the store keeps what is seen
        import av

    name, file, format = make_printable(name), TimedFile(data, name), _format(data)
    limits = {"max_pixels": str(MAX_VIDEO_PIXELS), "enable_drefs": "0"}  # the latter: other files
    if format is None:
        raise ImageError(f"{name} is not a video (MP4, MOV, WebM are read)")
    if _is_cut_off(data):
        raise ImageError(TEXTS["cut off"], name=name)
    try:
        with av.open(file, "r", format, options=limits, metadata_errors="ignore") as film:
            stream = _open_stream(film, name)
            stream.codec_context.options = limits
            stream.codec_context.thread_count = 1  # pictures are prepared in several threads
            times, keys = _read_times(film, stream, file, name)
            if not times:
                raise ImageError(TEXTS["no frames"], name=name)
            for frame in _decode_at(film, stream, file, keys, _sample_times(times, most)):
                _check_pixels(name, frame.width, frame.height)
                picture = Image.fromarray(frame.to_ndarray(format="rgb24"))
                turned = frame.rotation and frame.rotation % 90 == 0
                yield picture.rotate(frame.rotation, expand=True) if turned else picture
    except ImageError:
        file.check()  # a file that ended with its time may look as if it held nothing
        raise
    except MemoryError:
        raise ImageError(TEXTS["no memory"], name=name) from None
    except Exception:  # FFmpeg's errors, and those of numbers that hostile bytes make absurd
        file.check()
        raise ImageError(TEXTS["cut off"], name=name) from None


def _format(data: bytes) -> str | None:
    """Return FFmpeg's name of the container; others, above all lists of files, are not tried."""
    if data.startswith(_MATROSKA):
        return "matroska"
    if data[4:8] in _BOXES and data[0] < 32 and data[8:12] not in _STILLS:  # 32 and up: a text
        return "mov"
    return None


def _is_cut_off(data: bytes) -> bool:
    """Return whether a file claims to be longer; FFmpeg itself takes what there is."""
    if data.startswith(_MATROSKA):
        return _segment_end(data) > len(data)
    at = 0
    for _ in range(MAX_BOXES):  # one after another; what else follows is none of ours
        size, kind = int.from_bytes(data[at : at + 4]), data[at + 4 : at + 8]
        if size == 1:  # the size is too large for 4 bytes
            size = int.from_bytes(data[at + 8 : at + 16])
        if kind not in _BOXES or size < 8:
            return False
        at += size
        if at >= len(data):
            return at > len(data)
    return False


def _segment_end(data: bytes) -> int:
    """Return where a Matroska file ends by its header; 0 where that is unknown."""
    start = data.find(_SEGMENT, 0, 4096) + len(_SEGMENT)
    if start < len(_SEGMENT) or start >= len(data):
        return 0
    width = 9 - data[start].bit_length()  # of the number that follows, in bytes
    unknown = (1 << 7 * width) - 1  # of a live recording
    size = int.from_bytes(data[start : start + width]) & unknown
    return 0 if size == unknown else start + width + size


def _open_stream(film: InputContainer, name: str) -> VideoStream:
    from av.stream import Disposition

    stream = film.streams.best("video")
    if stream is None or stream.disposition & Disposition.attached_pic:  # the cover of a song
        raise ImageError("{name} has no video in it, only sound or data", name=name)
    video: VideoStream = film.streams.video[film.streams.video.index(stream)]
    if video.codec_context is None:
        raise ImageError("{name} cannot be decoded; save the video in another format", name=name)
    _check_pixels(name, video.codec_context.width, video.codec_context.height)
    return video


def _read_times(
    film: InputContainer, stream: VideoStream, file: TimedFile, name: str
) -> tuple[list[int], list[int]]:
    """Return the times of all frames and of the key frames, in order, decoding nothing."""
    times, keys = set[int](), set[int]()
    for packet in film.demux(stream):
        file.check()
        if packet.is_corrupt:
            raise ValueError("a packet is cut off")
        if packet.pts is not None and not packet.is_discard:
            times.add(packet.pts)
            keys.update([packet.pts] if packet.is_keyframe else [])
        if len(times) > MAX_TIMES:
            raise ImageError(TEXTS["many frames"], name=name, most=MAX_TIMES)
    file.check()
    return sorted(times), sorted(keys)


def _sample_times(times: Sequence[int], most: int) -> list[int]:
    """Return the times of the frames on show in the middles of `most` equal spans."""
    first, count = times[0], len(times)
    length = (times[-1] - first) * count  # in units of 1 / (count - 1): the last frame stays, too
    units = 2 * most * max(1, count - 1)  # in whole numbers, which may have any size
    middles = [first + length * (2 * i + 1) // units for i in range(most)]
    return sorted({times[bisect_right(times, middle) - 1] for middle in middles})


def _decode_at(
    film: InputContainer, stream: VideoStream, file: TimedFile, keys: list[int], times: list[int]
) -> Iterator[VideoFrame]:
    """Yield the frames on show at these rising times, decoding from the key frame before each."""
    frames: Iterator[VideoFrame] = iter(())
    last: int | None = None
    for moment in times:
        if last is not None and last >= moment:
            continue
        before = bisect_right(keys, moment)
        key = keys[before - 1] if before else times[0]
        if last is None or key > last:
            film.seek(key, stream=stream)
            frames = film.decode(stream)
        frame = None
        for frame in frames:
            file.check()
            last = frame.pts if frame.pts is not None else last
            if last is not None and last >= moment:
                break
        if frame is None:
            raise ValueError("the frames end too early")
        yield frame


def _check_pixels(name: str, width: int, height: int) -> None:
    if width * height > MAX_VIDEO_PIXELS:
        size = {"width": width, "height": height, "most": MAX_VIDEO_PIXELS // 10**6}
        raise ImageError(TEXTS["large frames"], name=name, **size)


SIDE = 280  # the longer side of a thumbnail, in pixels: about 10 kB of JPEG
MAX_FRAMES = 4  # the most pictures taken from one file
_ANIMATED = {"GIF", "PNG", "WEBP", "AVIF"}  # a TIFF's pages are no animation


def read_media(file: MediaFile) -> bytes:
    """Return the bytes of a picture or video file; ImageError where there are none, or too many."""
    if isinstance(file, Attachment):
        images.check_size(len(file.data), file.name, MAX_VIDEO_BYTES)
        return file.data
    return images.read_image(file, MAX_VIDEO_BYTES)


def media_name(file: MediaFile) -> str:
    """Return the name of a file for messages."""
    return file.name if isinstance(file, Attachment) else Path(file).name


def is_multi_image(data: bytes) -> bool:
    """Return whether a file may hold several pictures; `decode_image` decodes all others."""
    if is_video(data) or _find_motion(data) is not None:
        return True
    with suppress(ImageError), images.open_image(data, "") as picture:
        return picture.format in _ANIMATED and getattr(picture, "is_animated", False) is True
    return False


def decode_media(
    data: bytes, name: str, size: int | None = 224, most: int = MAX_FRAMES
) -> list[Pixels]:
    """Decode the pictures of one file, in order; the same bytes give the same pictures.

    A still gives one, as `decode_image` does. A video gives frames sampled evenly over its
    length, see `decode_video`; an animation those in the middles of `most` equal parts of its
    frames. A motion photo (a JPEG with an MP4 behind it) gives the still and `most` - 1 frames of
    the MP4, or the still alone where that cannot be read. One full-size frame is held at a time.
    """
    if is_video(data):
        return _decode_video(data, name, size, most)
    if (start := _find_motion(data)) is not None:
        pictures = [images.decode_image(data[:start], name, size)]
        if most > 1:
            with suppress(ImageError):  # the photo is what was posted; its motion is an extra
                pictures += _decode_video(data[start:], name, size, most - 1)
        return pictures
    return _decode_animation(data, name, size, most)


def check_media(data: bytes, name: str) -> str:
    """Return the suffix of a picture or video file by its kind; ImageError if it is no use."""
    decode_media(data, name)
    if is_video(data):
        return ".mp4" if data[4:8] == b"ftyp" else ".webm"
    with images.open_image(data, name) as picture:
        kind = str(picture.format).lower()
    return ".jpg" if kind in ("jpeg", "mpo") else f".{kind}"


def _decode_video(data: bytes, name: str, size: int | None, most: int) -> list[Pixels]:
    frames = decode_video(data, name, most)
    return [np.array(squash(frame, size), dtype=np.uint8) for frame in frames]


def _decode_animation(data: bytes, name: str, size: int | None, most: int) -> list[Pixels]:
    """Decode a picture that may move; each frame builds on those before, up to the last taken."""
    file, pictures = TimedFile(data, name), list[Pixels]()
    try:
        with images.open_image(data, name, file) as picture:
            count = int(getattr(picture, "n_frames", 1)) if picture.format in _ANIMATED else 1
            taken = [(2 * i + 1) * count // (2 * most) for i in range(most)]
            for number in range(taken[-1] + 1):
                if number:
                    file.check()
                    picture.seek(number)
                    picture.load()  # some decode only now, and then all the frames left out
                if number in taken:
                    pictures.append(images.square(picture, size))
    except ImageError:
        file.check()  # the file that ended with its time looks cut off
        raise
    return pictures


def _find_motion(data: bytes) -> int | None:
    """Return where the MP4 of a motion photo begins, behind its JPEGs; None without one."""
    if not data.startswith(b"\xff\xd8\xff") or b"ftyp" not in data:
        return None
    end = images.jpeg_end(data)  # lengths in the XMP are often wrong: copying leaves them behind
    starts = (found.start() - 4 for found in re.finditer(b"ftyp", data))
    return next((x for x in starts if x >= end and is_video(data[x : x + 12])), None)


def make_thumbnail(file: MediaFile, side: int = SIDE, enlarge: bool = True) -> str:
    """Return the first picture of a file as the `data:` URL of a small JPEG, upright."""
    data, name = read_media(file), media_name(file)
    if is_video(data):
        frame = next(decode_video(data, name, MAX_FRAMES))
        small, (width, height) = squash(frame, side), frame.size
    else:
        with images.open_image(data, name) as picture:
            width, height = picture.size
            with suppress(Exception):  # of damaged metadata
                if picture.getexif().get(ExifTags.Base.Orientation, 1) in (5, 6, 7, 8):
                    width, height = height, width
            small = Image.fromarray(images.square(picture, side))
    scale = min(side / max(width, height), math.inf if enlarge else 1)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return to_data_url(small.resize(size, Image.Resampling.BICUBIC))


def to_data_url(picture: Image.Image) -> str:
    """Encode an RGB picture as the `data:` URL of a JPEG."""
    picture.save(out := io.BytesIO(), format="JPEG", quality=80)
    return "data:image/jpeg;base64," + base64.b64encode(out.getvalue()).decode("ascii")


def image_view(file: MediaFile) -> dict[str, str]:
    """Return a thumbnail as a `data:` address, or the reason why there is none."""
    try:
        return {"data": make_thumbnail(file), "reason": ""}
    except SgmftError as error:
        return {"data": "", "reason": str(error)}
