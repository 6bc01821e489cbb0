"""Scores of referring segmentation over many expressions.

Legend: n expressions.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import InputError

THRESHOLDS = (0.5, 0.6, 0.7, 0.8, 0.9)


class ReferringScores:
    """mIoU, oIoU and P@k, gathered expression by expression.

    mIoU is the mean over expressions of intersection over union (1 where both masks are empty),
    oIoU the summed intersections over the summed unions, P@k the share of expressions whose
    intersection over union exceeds k.
    """

    def __init__(self) -> None:
        self.intersections: list[float] = []
        self.unions: list[float] = []

    def add(self, truth: Tensor, guess: Tensor) -> float:
        """One expression's boolean masks of any equal shape; returns its IoU."""
        if truth.shape != guess.shape:
            raise InputError(
                f"masks must agree in shape, got {tuple(truth.shape)} and {tuple(guess.shape)}"
            )
        truth, guess = truth.bool(), guess.bool()
        self.intersections.append(float((truth & guess).sum()))
        self.unions.append(float((truth | guess).sum()))
        return self.intersections[-1] / self.unions[-1] if self.unions[-1] else 1.0

    def compute(self) -> dict[str, float]:
        """`miou`, `oiou` and `p@0.5` to `p@0.9`, each within [0, 1]; NaN without expressions."""
        i = torch.tensor(self.intersections, dtype=torch.float64)
        u = torch.tensor(self.unions, dtype=torch.float64)
        iou = torch.where(u > 0, i / u.clamp_min(1), 1.0)
        overall = i.sum() / u.sum() if u.sum() > 0 else iou.mean()
        precision = {f"p@{k}": (iou > k).double().mean().item() for k in THRESHOLDS}
        return {"miou": iou.mean().item(), "oiou": float(overall), **precision}
