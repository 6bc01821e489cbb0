"""Distillation: a network learns from the labels and from a teacher that sees the same images.

With t and s the logits of teacher and student, L the loss by the labels, and a the teacher's share:

    hard   (1 - a) L(s, y) + a CE(s', argmax t)                   DeiT, arXiv 2012.12877, equation 3
    soft   (1 - a) L(s, y) + a T^2 KL(softmax(t/T) || softmax(s'/T))   Hinton, arXiv 1503.02531

A network with two heads learns the labels in one, s, and the teacher in the other, s' (DeiT,
section 4; LSNet); with one head s' = s. The divergence is the mean over the images, as in both
papers; DeiT's code also divides it by the number of classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seewide.errors import InputError
from seewide.options import option
from seewide.preprocess import Preprocess
from seewide.tasks._task import Batch, TrainingContext
from seewide.tasks.classification import Classification, ClassificationOptions

Normalization = tuple[Sequence[float], Sequence[float]]


@dataclass(frozen=True)
class DistillationOptions(ClassificationOptions):
    """Those of classification, and the teacher."""

    teacher: str = option(
        "",
        "The teacher: a run, or a timm name with its weight tag (without one it has random "
        "weights, which is for tests).",
    )
    distill: str = option(
        "hard",
        "hard: learn the teacher's class; soft: its distribution at a temperature.",
        choices=("hard", "soft"),
    )
    distill_alpha: float = option(0.5, "The teacher's share of the loss.", least=0, most=1)
    distill_tau: float = option(1.0, "Temperature of soft distillation.", above=0)


class Teacher(nn.Module):
    """A trained network that takes the student's images: frozen and always in evaluation mode.

    Args:
        model: images -> classes.
        student: mean and std that the images were normalized with for the student.
        own: mean and std that the teacher was trained with.
        size: side of the only images that it takes, in pixels; 0: takes them as they are.

    Shape: (N, C, H, W) -> (N, K)
    """

    def __init__(
        self, model: nn.Module, student: Normalization, own: Normalization, size: int = 0
    ) -> None:
        super().__init__()
        self.model = model.eval().requires_grad_(False)
        self.size = size
        (mean, std), (own_mean, own_std) = (map(torch.tensor, pair) for pair in (student, own))
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


class Distillation(Classification):
    """Classification with a teacher, which sees the images as the student does, mixed too."""

    name = "distillation"
    Options = DistillationOptions

    @classmethod
    def recognize(cls, data: str) -> str | None:
        """Never guessed: the recipe names the teacher."""
        return None

    def prepare(self, model: nn.Module, context: TrainingContext) -> None:
        """Load the teacher, and have a student with two heads return both in training.

        Raises:
            InputError: no such run or model, no weights, other classes, or images that it cannot
                take.
        """
        if self.options.class_weights != "none":
            raise InputError("distillation weights all classes equally; set class_weights=none")
        super().prepare(model, context)
        self._teacher = load_teacher(self.options.teacher, context).to(context.device)
        if isinstance(model.get_classifier(), tuple):
            model.set_distilled_training(True)

    def announce(self, backbone: nn.Module) -> dict[str, Any]:
        size = self._teacher.size
        images = f", images of {size} px" if size else ""
        return {"teacher": f"{self.options.teacher}{images}, {self.options.distill} distillation"}

    def loss(self, model: nn.Module, batch: Batch) -> dict[str, Any]:
        x_NCHW, target = self.mixed(batch)
        outputs = model(x_NCHW)
        by_label_NK, by_teacher_NK = outputs if isinstance(outputs, tuple) else (outputs, outputs)
        teacher_NK = self._teacher(x_NCHW)
        label_loss = self._criterion(by_label_NK, target).sum()
        teacher_loss = self.imitation(by_teacher_NK, teacher_NK)
        alpha = self.options.distill_alpha
        return {
            "loss": (1 - alpha) * label_loss + alpha * teacher_loss,
            "weight": len(x_NCHW),
            "label_loss": label_loss,
            "teacher_loss": teacher_loss,
        }

    def imitation(self, student_NK: Tensor, teacher_NK: Tensor) -> Tensor:
        """The distance of the student from the teacher, summed over the images."""
        if self.options.distill == "hard":
            return F.cross_entropy(student_NK, teacher_NK.argmax(1), reduction="sum")
        tau = self.options.distill_tau
        student_NK = F.log_softmax(student_NK.float() / tau, dim=1)
        teacher_NK = F.log_softmax(teacher_NK.float() / tau, dim=1)
        return tau**2 * F.kl_div(student_NK, teacher_NK, reduction="sum", log_target=True)


def load_teacher(name: str, context: TrainingContext) -> Teacher:
    """A teacher for the images of a run.

    Args:
        name: a run folder or its `best.safetensors`, which must have the same classes; or a timm
            model with its weight tag, as `regnety_160.deit_in1k`, whose weights are downloaded and
            whose number of classes must agree. Without a tag its weights are random.

    Raises:
        InputError: see `Distillation.prepare`.
    """
    if not name:
        raise InputError("distillation needs a teacher: --set teacher=RUN, or a timm model")
    class_names = context.facts["class_names"]
    model, facts, preprocess = context.load(name, num_classes=len(class_names))
    if facts is not None and facts["class_names"] != class_names:
        raise InputError(
            f"the teacher {name} was trained on other classes ({_few(facts['class_names'])}) than "
            f"those of the data ({_few(class_names)})"
        )
    if model.num_classes != len(class_names):
        raise InputError(
            f"the teacher {name} has {model.num_classes} classes and the data has "
            f"{len(class_names)}; they must be the same"
        )
    student, own = (Preprocess.from_dict(p) for p in (context.preprocess, preprocess))
    fixed = getattr(model, "pretrained_cfg", {}).get("fixed_input_size", False)
    size = own.image_size if fixed else 0
    teacher = Teacher(model, (student.mean, student.std), (own.mean, own.std), size)
    side = student.image_size
    try:
        teacher(torch.zeros(1, 3, side, side))
    except (RuntimeError, AssertionError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        raise InputError(f"the teacher {name} cannot take images of {side} px: {reason}") from None
    return teacher


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f", ... {len(names)} in all" if len(names) > 3 else "")
