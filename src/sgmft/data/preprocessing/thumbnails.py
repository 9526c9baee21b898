"""Thumbnails as `data:` URLs, to be embedded in a page."""

import base64
import io
from contextlib import suppress

from PIL import ExifTags, Image

from sgmft.data.posts import MediaFile
from sgmft.data.preprocessing.images import ImageError, decode_image, open_image, squash
from sgmft.data.preprocessing.media import MAX_FRAMES, media_name, read_media
from sgmft.data.preprocessing.videos import decode_video, is_video

SIDE = 280  # the longer side of a thumbnail, in pixels: about 10 kB of JPEG


def make_thumbnail(file: MediaFile) -> str:
    """Return a picture file as the `data:` URL of a small JPEG, upright and in its proportions.

    An animation gives its first frame, a video the first one that a model sees.

    Raises:
        ImageError: the file is missing, empty, too large, damaged or not a picture or video.
    """
    data, name = read_media(file), media_name(file)
    if is_video(data):
        frame = next(decode_video(data, name, MAX_FRAMES))
        square, (width, height) = squash(frame, SIDE), frame.size
    else:
        square = Image.fromarray(decode_image(data, name, SIDE))
        width, height = _proportions(data)
    scale = SIDE / max(width, height)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return to_data_url(square.resize(size, Image.Resampling.BICUBIC))


def to_data_url(picture: Image.Image) -> str:
    """Encode an RGB picture as the `data:` URL of a JPEG."""
    out = io.BytesIO()
    picture.save(out, format="JPEG", quality=80)
    return "data:image/jpeg;base64," + base64.b64encode(out.getvalue()).decode("ascii")


def _proportions(data: bytes) -> tuple[int, int]:
    """Return the width and height, upright, of a picture that has been decoded before."""
    with suppress(Exception), open_image(data, "") as picture:
        width, height = picture.size
        lying = picture.getexif().get(ExifTags.Base.Orientation, 1) in (5, 6, 7, 8)
        return (height, width) if lying else (width, height)
    return SIDE, SIDE


def image_view(file: MediaFile) -> dict[str, str]:
    """Return a thumbnail as a `data:` address, or the reason why there is none."""
    try:
        return {"data": make_thumbnail(file), "reason": ""}
    except ImageError as error:
        return {"data": "", "reason": str(error)}
