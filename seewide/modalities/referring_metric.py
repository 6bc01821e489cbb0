"""Scores of referring segmentation, gathered batch by batch.

Legend: H x W pixels of an image.
"""

from __future__ import annotations

import zlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import InputError
from .davis import PROTOCOLS, boundary_measure, evaluate_davis, region_similarity
from .referring_scores import ReferringScores


@dataclass(frozen=True)
class _Entry:
    """One expression and image: scores, and of videos the compressed masks (truth, prediction)."""

    group: tuple[str, ...]
    kind: str
    expression: str
    j: float
    f: float
    shape: tuple[int, int]
    masks: bytes


class ReferringMetric:
    """J, F, mIoU, oIoU and P@k in percent.

    J and F are means over groups (the expression of a video), each a mean over its images. mIoU,
    oIoU and P@k count every image alike.

    Args:
        threshold: probability above which a pixel belongs to the object.
        videos: whether to retain the masks (compressed), for `davis`.
    """

    def __init__(self, threshold: float = 0.5, videos: bool = False) -> None:
        self.threshold, self.videos = threshold, videos
        self.entries: list[_Entry] = []
        self.scores = ReferringScores()

    def update(self, prediction: Sequence[Tensor], batch: Mapping[str, Any]) -> None:
        """Probabilities (H, W) with `mask`, `group`, `kind` and `expression` of the batch."""
        keys = ("mask", "group", "kind", "expression")
        for probability, mask, group, kind, expression in zip(
            prediction, *(batch[key] for key in keys), strict=True
        ):
            truth, guess = mask.cpu().bool(), (probability > self.threshold).cpu()
            self.scores.add(truth, guess)
            j = region_similarity(truth[None], guess[None]).item()
            f = boundary_measure(truth[None], guess[None]).item()
            bits = np.packbits(torch.stack([truth, guess]).numpy()) if self.videos else b""
            packed = zlib.compress(bytes(bits), 1)
            shape = (truth.shape[0], truth.shape[1])
            self.entries.append(_Entry(tuple(group), kind, expression, j, f, shape, packed))

    def merge(self, others: Sequence[ReferringMetric]) -> None:
        for other in others:
            self.entries += other.entries
            self.scores.intersections += other.scores.intersections
            self.scores.unions += other.scores.unions

    def compute(self) -> dict[str, float]:
        """`j`, `f`, `j_and_f`, `miou`, `oiou` and `p@0.5` to `p@0.9`."""
        groups: dict[tuple[str, ...], list[_Entry]] = defaultdict(list)
        for entry in self.entries:
            groups[entry.group].append(entry)
        means = [np.mean([(e.j, e.f) for e in members], 0) for members in groups.values()]
        j, f = (100 * np.mean(means, 0)).tolist() if means else (0.0, 0.0)
        others = {key: 100 * value for key, value in self.scores.compute().items()}
        return {"j_and_f": (j + f) / 2, "j": j, "f": f, **others}

    def per_kind(self) -> list[tuple[str, int, float]]:
        """(kind, expressions, mean J in percent)."""
        kinds: dict[str, list[float]] = defaultdict(list)
        for entry in self.entries:
            kinds[entry.kind].append(entry.j)
        return [(k, len(v), 100 * float(np.mean(v))) for k, v in sorted(kinds.items())]

    def worst(self, count: int) -> list[tuple[str, str, float]]:
        """(group, expression, J in percent) of the lowest J."""
        order = sorted(self.entries, key=lambda entry: entry.j)[:count]
        return [(" ".join(e.group), e.expression, 100 * e.j) for e in order]

    def davis(self) -> list[tuple[str, float, float, float]]:
        """(protocol, J, F, J&F) in percent by the evaluators of DAVIS 2017.

        The objects of a video become one map of object numbers, in which later numbers overwrite
        earlier ones; scores are means over the annotators. "semi-supervised, all frames" counts the
        first and last frame too.

        Raises:
            InputError: the masks were not retained, or the groups are not (video, object,
                annotator).
        """
        if not self.videos or any(len(entry.group) != 3 for entry in self.entries):
            raise InputError("DAVIS' evaluators need groups of video, object number and annotator")
        maps = self._index_maps()
        rows = []
        for name, protocol, every in (
            ("semi-supervised, all frames", PROTOCOLS[0], True),
            ("semi-supervised", PROTOCOLS[0], False),
            ("unsupervised", PROTOCOLS[1], True),
        ):
            if not every and any(len(t) < 3 for truth, _ in maps for t in truth.values()):
                continue
            found = [evaluate_davis(*pair, protocol, all_frames=every) for pair in maps]
            j, f = (100 * float(np.mean([getattr(s, k) for s in found])) for k in ("j", "f"))
            rows.append((name, j, f, (j + f) / 2))
        return rows

    def _index_maps(self) -> list[tuple[dict[str, Tensor], dict[str, Tensor]]]:
        """Per annotator, the true and the predicted object numbers (T, H, W) of every video."""
        found: dict[str, dict[str, dict[int, list[_Entry]]]] = defaultdict(
            lambda: defaultdict(lambda: defaultdict(list))
        )
        for entry in self.entries:
            video, number, annotator = entry.group
            found[annotator][video][int(number)].append(entry)
        maps = []
        for videos in found.values():
            truth, guess = {}, {}
            for video, objects in videos.items():
                parts = {n: _unpack(entries) for n, entries in sorted(objects.items())}
                first = next(iter(parts.values()))
                truth[video], guess[video] = (torch.zeros(first.shape[1:]).long() for _ in "tg")
                for number, (true_THW, guess_THW) in parts.items():
                    truth[video][true_THW] = number
                    guess[video][guess_THW] = number
            maps.append((truth, guess))
        return maps


def _unpack(entries: Sequence[_Entry]) -> Tensor:
    """Boolean masks (2, T, H, W): truth and prediction of the frames of one object."""
    frames = []
    for entry in entries:
        bits = np.frombuffer(zlib.decompress(entry.masks), np.uint8)
        H, W = entry.shape
        flat = np.unpackbits(bits, count=2 * H * W)
        frames.append(torch.from_numpy(flat.reshape(2, H, W).astype(bool)))
    return torch.stack(frames, 1)
