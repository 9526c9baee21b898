"""From a file of a post (a still, animation, video, motion photo) to its pictures; thumbnails."""

import base64
import io
import math
import re
from contextlib import suppress
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image

from sgmft.data.posts import Attachment, MediaFile
from sgmft.data.preprocessing import images
from sgmft.data.preprocessing.images import ImageError, Pixels, squash
from sgmft.data.preprocessing.videos import MAX_VIDEO_BYTES, TimedFile, decode_video, is_video
from sgmft.errors import SgmftError

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
    start = _find_motion(data)
    if start is not None:
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
    file = TimedFile(data, name)
    pictures: list[Pixels] = []
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
    out = io.BytesIO()
    picture.save(out, format="JPEG", quality=80)
    return "data:image/jpeg;base64," + base64.b64encode(out.getvalue()).decode("ascii")


def image_view(file: MediaFile) -> dict[str, str]:
    """Return a thumbnail as a `data:` address, or the reason why there is none."""
    try:
        return {"data": make_thumbnail(file), "reason": ""}
    except SgmftError as error:
        return {"data": "", "reason": str(error)}
