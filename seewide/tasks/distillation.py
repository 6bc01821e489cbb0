"""Distillation: a network learns from the labels and from a teacher that sees the same pictures.

With t and s the logits of teacher and student, L the loss by the labels, and a the teacher's share:

    hard   (1 - a) L(s, y) + a CE(s', argmax t)                   DeiT, arXiv 2012.12877, equation 3
    soft   (1 - a) L(s, y) + a T^2 KL(softmax(t/T) || softmax(s'/T))   Hinton, arXiv 1503.02531

A network with two heads learns the labels in one, s, and the teacher in the other, s' (DeiT,
section 4; LSNet); with one head s' = s. The divergence is the mean over the pictures, as in both
papers; DeiT's code also divides it by the number of classes.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seewide.errors import InputError, unknown
from seewide.tasks.classification import Classification

KINDS = ("hard", "soft")


class Teacher(nn.Module):
    """A trained network as the student's pictures need it: frozen, and in evaluation mode always.

    Args:
        model: images -> classes.
        name: what the user calls it.
        shown: mean and std that the pictures were normalized with for the student.
        own: mean and std that the teacher was trained with.
        size: side of the only pictures that it takes, in pixels; 0: takes them as they are.

    Shape: (N, C, H, W) -> (N, K)
    """

    def __init__(
        self,
        model: nn.Module,
        name: str,
        shown: tuple[Sequence[float], Sequence[float]],
        own: tuple[Sequence[float], Sequence[float]],
        size: int = 0,
    ) -> None:
        super().__init__()
        self.model = model.eval().requires_grad_(False)
        self.name, self.size = name, size
        (mean, std), (own_mean, own_std) = (map(torch.tensor, pair) for pair in (shown, own))
        scale, shift = std / own_std, (mean - own_mean) / own_std
        self.register_buffer("scale_C11", scale[:, None, None], persistent=False)
        self.register_buffer("shift_C11", shift[:, None, None], persistent=False)

    def train(self, mode: bool = True) -> Teacher:
        """Stays in evaluation mode."""
        return super().train(False)

    @torch.no_grad()
    def forward(self, x_NCHW: Tensor) -> Tensor:
        x_NCHW = x_NCHW * self.scale_C11 + self.shift_C11
        if self.size and x_NCHW.shape[-2:] != (self.size, self.size):
            size = (self.size, self.size)
            x_NCHW = F.interpolate(x_NCHW, size, mode="bicubic", antialias=True)
        return self.model(x_NCHW)

    def __str__(self) -> str:
        return f"{self.name}{f', pictures of {self.size} px' * bool(self.size)}"


class Distillation(Classification):
    """Classification with a teacher; the pictures reach it as the student sees them, mixed too.

    Args:
        model: the student. One with two heads (timm's `set_distilled_training`) is told to return
            both while it trains.
        num_classes: K, of the teacher as well.
        teacher: where the student is.
        kind: `hard` or `soft`.
        alpha: the teacher's share of the loss, 0..1.
        tau: temperature T of the soft kind.
        augmentation: mixup, cutmix and label smoothing of `Classification`.

    Raises:
        InputError: unknown kind, or a number out of range.
    """

    def __init__(
        self,
        model: nn.Module,
        num_classes: int,
        teacher: Teacher,
        *,
        kind: str = "hard",
        alpha: float = 0.5,
        tau: float = 1.0,
        **augmentation: float,
    ) -> None:
        super().__init__(model, num_classes, **augmentation)
        if kind not in KINDS:
            raise unknown("kind of distillation", kind, KINDS)
        if not 0 <= alpha <= 1 or tau <= 0:
            raise InputError(
                f"distillation takes alpha within 0..1 and tau above 0, got {alpha} and {tau}"
            )
        if isinstance(model.get_classifier(), tuple):
            model.set_distilled_training(True)
        self.kind, self.alpha, self.tau = kind, alpha, tau
        # In a tuple it is no part of this module: DDP does not send it from process to process.
        self._teacher = (teacher,)

    def forward(self, x_NCHW: Tensor, y_N: Tensor) -> Tensor:
        """The mean loss, a scalar. `x_NCHW` is mixed in place."""
        target = y_N
        if self.mix is not None:
            x_NCHW, target = self.mix(x_NCHW, y_N)
        outputs = self.model(x_NCHW)
        by_label_NK, by_teacher_NK = outputs if isinstance(outputs, tuple) else (outputs, outputs)
        taught_NK = self._teacher[0](x_NCHW)
        loss = self.criterion(by_label_NK, target)
        return (1 - self.alpha) * loss + self.alpha * self.imitation(by_teacher_NK, taught_NK)

    def imitation(self, student_NK: Tensor, teacher_NK: Tensor) -> Tensor:
        """How far the student is from the teacher, a scalar."""
        if self.kind == "hard":
            return F.cross_entropy(student_NK, teacher_NK.argmax(1))
        student_NK = F.log_softmax(student_NK.float() / self.tau, dim=1)
        teacher_NK = F.log_softmax(teacher_NK.float() / self.tau, dim=1)
        divergence = F.kl_div(student_NK, teacher_NK, reduction="batchmean", log_target=True)
        return self.tau**2 * divergence
