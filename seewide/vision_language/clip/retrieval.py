"""Retrieval with many captions per image: recall@k in both directions.

open_clip's own numbers after an epoch take one caption as the right one and count the other
captions of the same image as wrong. Here, as in the tables of Flickr8k, Flickr30k and COCO, text
to image looks for the caption's image, and image to text for any caption of the image.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import comb

import torch
from torch import Tensor

from ..pairs import Pairs
from .model import Clip

RANKS = (1, 5, 10)


@dataclass(frozen=True)
class Recall:
    """Recall in percent by k, and the median rank (1 is best), of one direction."""

    at: dict[int, float]
    median_rank: float
    chance: dict[int, float]


@dataclass(frozen=True)
class RetrievalReport:
    """Both directions, with the numbers of images and captions."""

    text_to_image: Recall
    image_to_text: Recall
    images: int
    captions: int


def retrieve(clip: Clip, pairs: Pairs) -> RetrievalReport:
    """Evaluate a CLIP model on images with captions.

    Raises:
        InputError: an image that cannot be read.
    """
    images_ND = clip.encode_images(pairs.images)
    texts = [caption for _, caption in pairs]
    counts = [len(captions) for captions in pairs.captions]
    return report(images_ND @ clip.encode_texts(texts).T, owners(counts))


def owners(counts: Sequence[int]) -> Tensor:
    """Index of the image of each caption, where image i has counts[i] captions in a row."""
    return torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))


def report(scores_NM: Tensor, owner_M: Tensor) -> RetrievalReport:
    """Recall from the similarities of N images and M captions.

    Equal scores count against the model: a rank is one more than the number of others that are at
    least as high, so that constant features do not look perfect.

    Args:
        owner_M: index of the image of each caption; every image has at least one.
    """
    N, M = scores_NM.shape
    own_M = scores_NM[owner_M, torch.arange(M)]
    t2i = (scores_NM >= own_M).sum(0)
    mine_NM = owner_M[None] == torch.arange(N)[:, None]
    best_N = scores_NM.masked_fill(~mine_NM, -torch.inf).amax(1)
    i2t = 1 + ((scores_NM >= best_N[:, None]) & ~mine_NM).sum(1)
    counts = mine_NM.sum(1).tolist()
    chance_t2i = {k: 100 * min(k / N, 1.0) for k in RANKS}
    chance_i2t = {
        k: 100 * sum(1 - comb(M - c, k) / comb(M, k) for c in counts) / N if k <= M else 100.0
        for k in RANKS
    }
    return RetrievalReport(_recall(t2i, chance_t2i), _recall(i2t, chance_i2t), N, M)


def _recall(rank: Tensor, chance: dict[int, float]) -> Recall:
    at = {k: 100 * float((rank <= k).double().mean()) for k in RANKS}
    return Recall(at, float(rank.double().median()), chance)
