"""Image classification: the loss of a training batch, and the scores of a model.

Shapes: N pictures, C channels, H x W pixels, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from timm.data import Mixup
from timm.loss import SoftTargetCrossEntropy
from torch import Tensor, nn


class Classification(nn.Module):
    """A model and the loss of one training batch: mixup, cutmix and label smoothing, from timm.

    Mixup draws from numpy's global generator, so seeding that seeds the task.
    """

    def __init__(
        self,
        model: nn.Module,
        num_classes: int,
        *,
        mixup: float = 0.0,
        cutmix: float = 0.0,
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__()
        self.model = model
        self.mix = None
        self.criterion: nn.Module = nn.CrossEntropyLoss(label_smoothing=label_smoothing)
        if mixup or cutmix:
            self.mix = Mixup(
                mixup, cutmix, label_smoothing=label_smoothing, num_classes=num_classes
            )
            self.criterion = SoftTargetCrossEntropy()

    def forward(self, x_NCHW: Tensor, y_N: Tensor) -> Tensor:
        """The mean loss, a scalar. `x_NCHW` is mixed in place."""
        target = y_N
        if self.mix is not None:
            x_NCHW, target = self.mix(x_NCHW, y_N)
        return self.criterion(self.model(x_NCHW), target)


@dataclass
class Scores:
    """What was said of each picture and what is true, batch by batch."""

    num_classes: int
    in_top5: int = field(default=0, init=False)
    loss_sum: float = field(default=0.0, init=False)
    _true: list[Tensor] = field(default_factory=list, init=False)
    _said: list[Tensor] = field(default_factory=list, init=False)

    def add(self, logits_NK: Tensor, y_N: Tensor) -> None:
        """Count a batch."""
        logits_NK, y_N = logits_NK.float().cpu(), y_N.cpu()
        best = logits_NK.topk(min(5, self.num_classes), dim=1).indices
        self._true.append(y_N)
        self._said.append(logits_NK.argmax(1))
        self.in_top5 += int((best == y_N[:, None]).any(1).sum())
        self.loss_sum += float(nn.functional.cross_entropy(logits_NK, y_N, reduction="sum"))

    @classmethod
    def together(cls, parts: Sequence[Scores]) -> Scores:
        """Those of several processes as one."""
        whole = cls(parts[0].num_classes)
        for part in parts:
            whole.in_top5 += part.in_top5
            whole.loss_sum += part.loss_sum
            whole._true += part._true
            whole._said += part._said
        return whole

    @property
    def images(self) -> int:
        return sum(map(len, self._true))

    @property
    def top1(self) -> float:
        """Percent right."""
        right = sum(int((t == s).sum()) for t, s in zip(self._true, self._said, strict=True))
        return 100 * right / max(self.images, 1)

    @property
    def top5(self) -> float:
        """Percent with the right class among the five best (all, below five classes)."""
        return 100 * self.in_top5 / max(self.images, 1)

    @property
    def loss(self) -> float:
        """Mean cross-entropy, without label smoothing."""
        return self.loss_sum / max(self.images, 1)

    @property
    def confusion_KK(self) -> Tensor:
        """Counts, `confusion_KK[true, said]`."""
        cells = torch.cat(self._true) * self.num_classes + torch.cat(self._said)
        counts = torch.bincount(cells, minlength=self.num_classes**2)
        return counts.view(self.num_classes, self.num_classes)

    @property
    def recall_K(self) -> Tensor:
        """Percent of each true class that is found; NaN for a class without pictures."""
        return 100 * self._count(self._right()) / self._count(torch.cat(self._true))

    @property
    def precision_K(self) -> Tensor:
        """Percent of each said class that is right; NaN for a class never said."""
        return 100 * self._count(self._right()) / self._count(torch.cat(self._said))

    def _right(self) -> Tensor:
        true, said = torch.cat(self._true), torch.cat(self._said)
        return true[true == said]

    def _count(self, classes: Tensor) -> Tensor:
        return torch.bincount(classes, minlength=self.num_classes)
