"""List the encoders there are, and test one on made-up posts."""

import io
import time
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from importlib.util import find_spec

import numpy as np
from PIL import Image

from sgmft.data.posts import Attachment, Post, raise_first_error
from sgmft.data.tables.base import first_line
from sgmft.errors import SgmftError
from sgmft.features.encode import encode_posts
from sgmft.features.encoders.base import PostFeatures
from sgmft.features.encoders.hub import CHINESE_CLIP
from sgmft.features.encoders.registry import ENCODERS, load_encoder

CLIP_WIDTHS = dict(zip(CHINESE_CLIP, (512, 768, 768, 1024), strict=True))
FETCH = "a download of its weights"
TEXTS = ("在家", "I am at home on the sofa, and it rains", "学校上课 🎉", "office " * 40, "x", "🙂")
Rows = dict[str, PostFeatures]  # features of posts by their ids


def list_encoders() -> Iterator[tuple[str, int, int, int | str, str]]:
    """Yield the name of each encoder, its widths of texts, pictures and both, and what it needs.

    None that needs torch is loaded. A width is 0 where one cannot be loaded; "-" for no joint one.
    """
    from huggingface_hub import try_to_load_from_cache

    torch = "" if find_spec("torch") else "pip install 'sgmft[torch]'; "
    library = "" if find_spec("sentence_transformers") else "pip install 'sgmft[encoders]'; "
    for name in ENCODERS:
        try:
            if width := CLIP_WIDTHS.get(name):
                found = try_to_load_from_cache(CHINESE_CLIP[name], "config.json")
                needs = torch + ("nothing" if isinstance(found, str) else FETCH)
                yield name, width, width, "-", needs
            else:
                info = load_encoder(name).info
                yield name, info.text_width, info.image_width, info.joint_width or "-", "nothing"
        except SgmftError as error:
            yield name, 0, 0, 0, str(error)
    for kind in ("hf:", "st:"):
        yield f"{kind}NAME", 0, 0, 0, f"{library}{FETCH}, or a folder"


def check_encoder(name: str, device: str | None = None) -> Iterator[tuple[str, bool, str]]:
    """Yield the title of each check, whether it is passed, and what was found."""
    encoder = load_encoder(name, device=device)
    info, posts = encoder.info, _make_posts(6)

    def encode(some: Sequence[Post], tokens: bool = False) -> Rows:
        (chunk,) = encode_posts(some, encoder, tokens=tokens)
        raise_first_error(chunk.posts)
        return dict(zip((str(x.id) for x in chunk.posts), chunk.rows, strict=True))

    rows = cache(lambda: encode(posts))

    def parts() -> Rows:
        pairs = ((rows()[f"text {i}"], rows()[f"picture {i}"]) for i in range(6))
        return {f"both {i}": x._replace(images=y.images) for i, (x, y) in enumerate(pairs)}

    def speed() -> str:
        many, found = _make_posts(32), list[float]()
        for some in (many[1::3], many[2::3]):
            start = time.perf_counter()
            encode(some)
            found.append(len(some) / (time.perf_counter() - start))
        return f"{found[0]:.0f} texts and {found[1]:.1f} pictures a second"

    def fingerprint() -> str:
        again = load_encoder(name, device=device).info.fingerprint
        if again != info.fingerprint or len(bytes.fromhex(again)) != 8:
            raise ValueError(f"{info.fingerprint}, then {again}: not twice the same 16 digits")
        return again

    widths = {"text": info.text_width, "images": info.image_width, "joint": info.joint_width}
    of_tokens = {"words": info.word_width, "regions": info.image_width}
    checks: dict[str, Callable[[], str]] = {
        "shapes": lambda: _check(rows(), **widths),
        "determinism": lambda: _compare(rows(), encode(posts), 1e-6),
        "batches": lambda: _compare(rows(), {k: x for y in posts for k, x in encode([y]).items()}),
        "order": lambda: _compare(rows(), encode(posts[::-1])),
        "missing sides": lambda: _compare(rows(), parts()),
        "tokens": lambda: _check(encode(posts, True), **of_tokens) if info.has_tokens else "none",
        "speed": speed,
        "fingerprint": fingerprint,
    }
    for title, check in checks.items():
        try:
            yield title, True, check()
        except Exception as error:  # of whoever wrote the encoder
            yield title, False, f"{type(error).__name__}: {first_line(error)}"


def _check(rows: Rows, **widths: int) -> str:
    """Describe features of these names; ValueError where they are not of these widths."""
    found = []
    for side, width in ((x, y) for x, y in widths.items() if y):
        known = [x for row in rows.values() if (x := getattr(row, side)) is not None]
        for x in known:
            if x.dtype not in (np.float32, np.float16) or x.shape[-1] != width:
                raise ValueError(f"{side} of {x.dtype} {x.shape}, not {width} float32")
            if not np.isfinite(x).all():
                raise ValueError(f"{side} with numbers that are not finite")
        if len({x.tobytes() for x in known}) < 4:
            raise ValueError(f"{side} of different posts are the same, or missing")
        found.append(f"{side} {known[0].dtype} {known[0].shape}")
    return ", ".join(found)


def _compare(rows: Rows, others: Rows, most: float = 1e-3) -> str:
    """Describe how far features are from what they should be; ValueError for too far."""
    cosines = [1.0]
    for key, row in others.items():
        for side in ("text", "images", "joint"):
            one, other = getattr(row, side), getattr(rows[key], side)
            if one is not None and other is not None:
                norms = np.linalg.norm(one) * np.linalg.norm(other)
                cosines.append(float(np.vdot(one, other) / norms))
    if not (least := float(np.min(cosines))) >= 1 - most:
        raise ValueError(f"a cosine of {least:.4f} to features that should be the same")
    return f"cosines of at least {least:.7f}"


def _make_posts(count: int) -> list[Post]:
    rng, posts = np.random.default_rng(0), list[Post]()
    for i in range(count):
        pixels = rng.integers(0, 256, (*rng.integers(20, 400, 2), 3), np.uint8)
        Image.fromarray(pixels).save(file := io.BytesIO(), "PNG")
        text, picture = f"{TEXTS[i % len(TEXTS)]} {i}", [Attachment(file.getvalue())]
        posts.append(Post(text, picture, f"both {i}"))
        posts += [Post(text, id=f"text {i}"), Post("", picture, f"picture {i}")]
    return posts
