"""Posts as an encoder's towers take them, token ids and pixels, read when needed."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from sgmft.data.posts import Post, raise_first_error
from sgmft.features.batch import remaining_modalities
from sgmft.features.encode import PreparedPost, prepare_post
from sgmft.features.encoders.base import EncoderInfo
from sgmft.features.features import Features
from sgmft.features.ragged import Ragged

Tokenize = Callable[[Sequence[str]], list[list[int]]]


class RawBatch(NamedTuple):
    """B posts, T of them with a text, and their P images. A missing modality is not encoded."""

    ids: Tensor  # (T, n) token ids, [CLS] first, padded with 0
    mask: Tensor  # (T, n) 1 where real
    images: Tensor  # (P, s, s, 3) uint8, those of a post one after another
    text_of: Tensor  # (T,) whose text it is
    image_of: Tensor  # (P,) whose image it is
    has_text: Tensor  # (B,) bool
    has_image: Tensor  # (B,)
    ngrams: Tensor | None = None  # (B, g) of the text, padded with -1

    def drop_modalities(self, share: float, draws: Tensor) -> RawBatch:
        """Modality dropout, as `sgmft.features.batch.Batch.drop_modalities`."""
        has_text, has_image = remaining_modalities(self.has_text, self.has_image, share, draws)
        return self._replace(has_text=has_text, has_image=has_image)

    def to(self, device: torch.device) -> RawBatch:
        """The same batch on another device."""
        return RawBatch._make(None if x is None else x.to(device) for x in self)


@dataclass(frozen=True)
class RawPosts:
    """N posts whose texts and images are read batch by batch; in the place of `Features`.

    Args:
        posts: that could be encoded.
        keys: content key of each.
        features: those by the encoder before it is tuned: which modalities a post has, n-grams.
        info: of the encoder: how texts and images are prepared.
        tokenize: from cleaned texts to token ids.
    """

    posts: Sequence[Post]
    keys: Sequence[str]
    features: Features
    info: EncoderInfo
    tokenize: Tokenize

    def __len__(self) -> int:
        return len(self.posts)

    def take(self, rows: Tensor) -> RawPosts:
        """The posts at these positions, in that order."""
        chosen = rows.tolist()
        posts, keys = ([x[i] for i in chosen] for x in (self.posts, self.keys))
        return RawPosts(posts, keys, self.features.take(rows), self.info, self.tokenize)

    def contents(self) -> Iterator[Tensor]:
        """A digest of the posts' content keys, which tells them from others."""
        digest = hashlib.sha256("\n".join(self.keys).encode()).digest()
        yield torch.frombuffer(bytearray(digest), dtype=torch.uint8)

    def batch(self, rows: Tensor | slice | None, ngrams: bool = False) -> RawBatch:
        """The posts at these positions (B,), or all, decoded by several threads.

        Raises:
            SgmftError: a picture cannot be read any more.
        """
        if not isinstance(rows, Tensor):
            rows = torch.arange(len(self))[rows or slice(None)]
        posts = [self.posts[i] for i in rows.tolist()]
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            contents = list(pool.map(lambda post: prepare_post(post, self.info), posts))
        texts: list[str] = []
        images, text_of, image_of = [], [], []
        for i, content in enumerate(contents):
            if not isinstance(content, PreparedPost):
                raise_first_error([replace(posts[i], error=content)])
                continue
            if content.text:
                texts.append(content.text)
                text_of.append(i)
            images += content.images
            image_of += [i] * len(content.images)
        ids, mask = Ragged.of(
            list(map(np.array, self.tokenize(texts))), np.zeros(0, np.int64)
        ).pad()
        size = self.info.image_size
        pixels = np.stack(images) if images else np.zeros((0, size, size, 3), np.uint8)
        chosen = self.features.take(rows)
        grams = chosen.ngrams if ngrams else None
        return RawBatch(
            torch.from_numpy(ids),
            torch.from_numpy(mask).long(),
            torch.from_numpy(pixels),
            torch.tensor(text_of, dtype=torch.long),
            torch.tensor(image_of, dtype=torch.long),
            chosen.has_text,
            chosen.has_image,
            None if grams is None else torch.from_numpy(grams.pad(fill=-1)[0]),
        )
