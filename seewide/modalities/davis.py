"""J and F of video object segmentation, and both ways in which DAVIS 2017 averages them.

J is the intersection over union of two masks. F is the harmonic mean of the precision and recall of
their boundaries, which match within 0.8% of the image's diagonal (Perazzi et al., CVPR 2016;
Pont-Tuset et al., arXiv 1704.00675). Figures equal those of davis2017-evaluation.

Legend: T frames, H x W pixels.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import InputError, require, unknown

TOLERANCE = 0.008  # of the image's diagonal
PROTOCOLS = ("semi-supervised", "unsupervised")


def region_similarity(truth_THW: Tensor, guess_THW: Tensor) -> Tensor:
    """J (T,) of boolean masks: intersection over union, 1 where both are empty."""
    _same_shape(truth_THW, guess_THW)
    truth, guess = truth_THW.bool(), guess_THW.bool()
    both = (truth & guess).flatten(1).sum(1).double()
    either = (truth | guess).flatten(1).sum(1).double()
    return torch.where(either > 0, both / either.clamp_min(1), 1.0)


def boundary(mask_THW: Tensor) -> Tensor:
    """Boundaries (T, H, W): pixels that differ from the one right, below, or right and below.

    The last row compares with the right only, the last column with the one below only, and the last
    pixel is never a boundary.
    """
    mask = mask_THW.bool()
    padded = F.pad(mask[:, None].to(torch.uint8), (0, 1, 0, 1), mode="replicate")[:, 0].bool()
    right, below, diagonal = padded[:, :-1, 1:], padded[:, 1:, :-1], padded[:, 1:, 1:]
    edge = (mask ^ right) | (mask ^ below) | (mask ^ diagonal)
    edge[:, -1] = mask[:, -1] ^ right[:, -1]
    edge[:, :, -1] = mask[:, :, -1] ^ below[:, :, -1]
    edge[:, -1, -1] = False
    return edge


def boundary_measure(truth_THW: Tensor, guess_THW: Tensor, tolerance: float = TOLERANCE) -> Tensor:
    """F (T,) of boolean masks.

    Args:
        truth_THW: the annotation.
        guess_THW: the segmentation.
        tolerance: distance within which boundaries match: below 1 as a share of the image's
            diagonal, rounded up to pixels; otherwise in pixels.
    """
    _same_shape(truth_THW, guess_THW)
    H, W = truth_THW.shape[1:]
    radius = tolerance if tolerance >= 1 else math.ceil(tolerance * math.hypot(H, W))
    truth, guess = boundary(truth_THW), boundary(guess_THW)
    near_truth, near_guess = _dilate(truth, int(radius)), _dilate(guess, int(radius))
    n_truth, n_guess = truth.flatten(1).sum(1).double(), guess.flatten(1).sum(1).double()
    precision = (guess & near_truth).flatten(1).sum(1) / n_guess.clamp_min(1)
    recall = (truth & near_guess).flatten(1).sum(1) / n_truth.clamp_min(1)
    # An empty boundary on one side only: nothing is wrong about it, and nothing is found.
    precision = torch.where(n_guess == 0, (n_truth >= 0).double(), precision)
    precision = torch.where((n_truth == 0) & (n_guess > 0), 0.0, precision)
    recall = torch.where(n_truth == 0, 1.0, recall)
    recall = torch.where((n_guess == 0) & (n_truth > 0), 0.0, recall)
    total = precision + recall
    return torch.where(total > 0, 2 * precision * recall / total.clamp_min(1e-300), 0.0)


def _dilate(mask_THW: Tensor, radius: int) -> Tensor:
    """Pixels within `radius` of a set one: a maximum over each row of the disk, and over rows."""
    x = mask_THW[:, None].float()
    H = x.shape[2]
    padded = F.pad(x, (0, 0, radius, radius))
    out = torch.zeros_like(x)
    for offset in range(-radius, radius + 1):
        reach = math.isqrt(radius * radius - offset * offset)
        rows = padded[:, :, radius + offset : radius + offset + H]
        out = torch.maximum(out, F.max_pool2d(rows, (1, 2 * reach + 1), 1, (0, reach)))
    return out[:, 0] > 0


def _same_shape(truth: Tensor, guess: Tensor) -> None:
    if truth.shape != guess.shape or truth.ndim != 3:
        raise InputError(
            f"masks must be (T, H, W) and agree, got {tuple(truth.shape)} and {tuple(guess.shape)}"
        )


@dataclass(frozen=True)
class DavisScores:
    """Means over objects, each a mean over frames; `per_object` by video and object."""

    j: float
    f: float
    per_object: Mapping[tuple[str, int], tuple[float, float]]

    @property
    def j_and_f(self) -> float:
        return (self.j + self.f) / 2


def evaluate_davis(
    truth: Mapping[str, Tensor],
    guess: Mapping[str, Tensor],
    protocol: str = "semi-supervised",
    all_frames: bool = False,
) -> DavisScores:
    """J and F of index masks by one of the two evaluators of DAVIS 2017.

    Args:
        truth: per video, object numbers (T, H, W), 0 for the background; 255 is ignored.
        guess: the same videos and shapes.
        protocol: "semi-supervised": object i is compared with object i, without the first and last
            frame. "unsupervised": objects are matched so that the mean of J and F is largest, over
            all frames.
        all_frames: count the first and last frame in the semi-supervised protocol too.

    Raises:
        InputError: an unknown protocol, a missing video, or shapes that do not fit.
    """
    if protocol not in PROTOCOLS:
        raise unknown("protocol", protocol, PROTOCOLS)
    missing = sorted(truth.keys() - guess.keys())
    if missing:
        raise InputError(f"there are no segmentations of {', '.join(missing[:4])}")
    scores: dict[tuple[str, int], tuple[float, float]] = {}
    for video, annotation in truth.items():
        segmentation = guess[video]
        _same_shape(annotation, segmentation)
        if protocol == "semi-supervised" and not all_frames:
            if len(annotation) < 3:
                raise InputError(
                    f"{video} has {len(annotation)} frames; without the first and last none is left"
                )
            annotation, segmentation = annotation[1:-1], segmentation[1:-1]
        ignored = annotation == 255
        annotation = torch.where(ignored, 0, annotation)
        segmentation = torch.where(ignored, 0, segmentation)
        objects = _objects(truth[video])
        if protocol == "semi-supervised":
            for number in objects:
                masks = annotation == number, segmentation == number
                scores[video, number] = _mean_scores(*masks)
        else:
            scores |= _matched(video, annotation, segmentation, objects, _objects(guess[video]))
    if not scores:
        raise InputError("the annotations have no objects")
    j, f = np.mean(list(scores.values()), axis=0)
    return DavisScores(float(j), float(f), scores)


def _objects(masks: Tensor) -> list[int]:
    return [int(number) for number in masks.unique() if number not in (0, 255)]


def _mean_scores(truth: Tensor, guess: Tensor) -> tuple[float, float]:
    j, f = region_similarity(truth, guess), boundary_measure(truth, guess)
    return j.mean().item(), f.mean().item()


def _matched(
    video: str, truth: Tensor, guess: Tensor, objects: Sequence[int], found: Sequence[int]
) -> dict[tuple[str, int], tuple[float, float]]:
    assignment = require("scipy.optimize", extra="robustness").linear_sum_assignment
    table = np.zeros((len(objects), max(len(found), len(objects)), 2))
    nothing = torch.zeros_like(guess, dtype=torch.bool)
    for i, number in enumerate(objects):
        for j in range(table.shape[1]):
            mask = guess == found[j] if j < len(found) else nothing
            table[i, j] = _mean_scores(truth == number, mask)
    rows, columns = assignment(-table.mean(2))
    best = {int(i): table[i, j] for i, j in zip(rows, columns, strict=True)}
    return {(video, number): tuple(map(float, best[i])) for i, number in enumerate(objects)}
