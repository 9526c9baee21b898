"""Limits of one request, and of all of them together."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from sgmft.data.preprocessing.images import MAX_PIXELS
from sgmft.errors import SgmftError
from sgmft.features.encode import MAX_IMAGES
from sgmft.serving.problems import Problem


@dataclass(frozen=True)
class Limits:
    """Limits of a request, and of all of them together; docs/serving.md gives the reasons.

    Attributes:
        body: bytes of a request's body, 32 MiB.
        posts: of one request.
        pictures: picture and video files of one post.
        pixels: of one picture, read from its header before it is decoded.
        text: characters of one post's text.
        seconds: until a request's headers are complete, from then until its body is, from then
            until the worker takes it, and from then until its result is there; of an upload to the
            page, until the next part of it comes.
        requests: that are read, wait or are answered at the same time; more are refused at once.
        connections: that are open at the same time, the page's too; more are refused at once.
        batch: posts that the model sees together, from as many requests as are waiting.

    Raises:
        SgmftError: a limit below 1, or more pictures or pixels than the encoders read.
    """

    body: int = 32 * 1024 * 1024
    posts: int = 64
    pictures: int = 16
    pixels: int = 50_000_000
    text: int = 20_000
    seconds: float = 30.0
    requests: int = 64
    connections: int = 500
    batch: int = 32

    @property
    def upload(self) -> int:
        """Bytes of a table and of its pictures that are given to the page, each."""
        return 8 * self.body

    @property
    def unpacked(self) -> int:
        """Bytes of a table's pictures, unpacked."""
        return 2 * self.upload

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not 1 <= value <= 10**12:  # NaN is neither
                raise SgmftError(f"The limit of {name} must be from 1 to 10^12, not {value:g}.")
        for name, value, most in (
            ("pictures", self.pictures, MAX_IMAGES),
            ("pixels", self.pixels, MAX_PIXELS),
        ):
            if value > most:
                raise SgmftError(f"The limit of {name} must be at most {most:,}, not {value:,}.")


class Places:
    """Room for so many at a time; the next is refused.

    Attributes:
        taken: how many there are.
    """

    def __init__(self, count: int) -> None:
        self._count, self.taken = count, 0

    @contextmanager
    def take(self) -> Iterator[None]:
        """Hold one place; Problem where all are taken."""
        if self.taken >= self._count:
            raise Problem("busy", f"{self.taken} requests are being answered.", retry=1)
        self.taken += 1
        try:
            yield
        finally:
            self.taken -= 1
