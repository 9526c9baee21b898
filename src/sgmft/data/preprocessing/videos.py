"""Frames of a video, sampled evenly over its length."""

from __future__ import annotations

import io
import time
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from PIL import Image

from sgmft.data.preprocessing.images import ImageError
from sgmft.errors import TEXTS, make_printable, needs_extra

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
