"""Distillation: what the teacher sees, what each head learns, which teachers are refused."""

from __future__ import annotations

import sys
from dataclasses import replace

import pytest
import timm
import tiny
import torch
import torch.nn.functional as F
from torch import nn

from seewide import InputError
from seewide.models import LSNet
from seewide.tasks import TrainingContext
from seewide.tasks.distillation import Distillation, DistillationOptions, Teacher, load_teacher
from seewide.train import fit
from seewide.train.evaluate import load_for_task

HALF = ((0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
OTHER = ((0.4, 0.5, 0.6), (0.2, 0.25, 0.3))
NAMES = ["blue", "green", "red"]


def context(names=NAMES, size: int = 32) -> TrainingContext:
    """That of a run whose images are normalized with HALF."""
    preprocess = {
        "image_size": size, "interpolation": "bicubic", "crop_pct": 1.0, "crop_mode": "center",
        "mean": list(HALF[0]), "std": list(HALF[1]),
    }  # fmt: skip
    device = torch.device("cpu")
    return TrainingContext({"class_names": list(names)}, preprocess, device, 4, load_for_task)


def make_task(student: nn.Module, teacher: Teacher, **options) -> Distillation:
    """A task whose teacher is given."""
    task = Distillation(DistillationOptions(**{"label_smoothing": 0.0, **options}))
    task.build(student, {"class_names": NAMES})
    task._teacher = teacher
    if isinstance(student.get_classifier(), tuple):
        student.set_distilled_training(True)
    return task


def mean_loss(task: Distillation, student: nn.Module, x_NCHW, y_N) -> torch.Tensor:
    result = task.loss(student, {"image": x_NCHW, "label": y_N})
    return result["loss"] / result["weight"]


class Linear(nn.Module):
    """(N, 3, H, W) -> (N, K), of the mean colour; one head or two."""

    def __init__(self, heads: int = 1, classes: int = 3):
        super().__init__()
        self.heads = nn.ModuleList(nn.Linear(3, classes) for _ in range(heads))
        self.both = False

    def get_classifier(self):
        return self.heads[0] if len(self.heads) == 1 else tuple(self.heads)

    def set_distilled_training(self, enable: bool = True) -> None:
        self.both = enable

    def forward(self, x_NCHW: torch.Tensor):
        outputs = tuple(head(x_NCHW.mean((2, 3))) for head in self.heads)
        if self.both and self.training:
            return outputs
        return sum(outputs) / len(outputs)


def batch(count: int = 6):
    return torch.randn(count, 3, 8, 8), torch.randint(0, 3, (count,))


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def test_the_teacher_sees_images_in_its_own_normalization():
    model = Linear()
    image_N3HW = torch.rand(2, 3, 8, 8)
    shown, own = (
        (image_N3HW - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]
        for mean, std in (HALF, OTHER)
    )
    torch.testing.assert_close(Teacher(model, HALF, OTHER)(shown), model(own))


def test_a_teacher_of_one_size_gets_that_size():
    sizes = []

    class Seeing(nn.Module):
        def forward(self, x_NCHW: torch.Tensor) -> torch.Tensor:
            sizes.append(tuple(x_NCHW.shape[-2:]))
            return x_NCHW.mean((2, 3))

    Teacher(Seeing(), HALF, HALF, size=12)(torch.randn(1, 3, 8, 8))
    Teacher(Seeing(), HALF, HALF)(torch.randn(1, 3, 8, 8))
    assert sizes == [(12, 12), (8, 8)]


def test_the_teacher_is_frozen():
    teacher = Teacher(timm.create_model("test_resnet", num_classes=3), HALF, HALF)
    before = {name: tensor.clone() for name, tensor in teacher.state_dict().items()}
    student = Linear()
    task = make_task(student.train(), teacher)
    x_NCHW = torch.randn(4, 3, 32, 32)
    mean_loss(task, student, x_NCHW, torch.tensor([0, 1, 2, 0])).backward()
    assert not teacher.train().training
    assert all(torch.equal(tensor, before[name]) for name, tensor in teacher.state_dict().items())
    assert all(parameter.grad is None for parameter in teacher.parameters())


@pytest.mark.parametrize("heads", [1, 2])
def test_the_loss_is_the_formula(heads):
    student, teacher = Linear(heads), Linear()
    x_NCHW, y_N = batch()
    wrapped = Teacher(teacher, HALF, HALF)
    outputs = [head(x_NCHW.mean((2, 3))) for head in student.heads]
    t = teacher(x_NCHW)
    hard = make_task(student, wrapped, distill="hard", distill_alpha=0.3)
    expected = 0.7 * F.cross_entropy(outputs[0], y_N)
    expected = expected + 0.3 * F.cross_entropy(outputs[-1], t.argmax(1))
    torch.testing.assert_close(mean_loss(hard, student, x_NCHW, y_N), expected)
    soft = make_task(student, wrapped, distill="soft", distill_alpha=0.3, distill_tau=4.0)
    p, q = (t / 4).softmax(1), (outputs[-1] / 4).softmax(1)
    divergence = (p * (p.log() - q.log())).sum(1).mean()
    expected = 0.7 * F.cross_entropy(outputs[0], y_N) + 0.3 * 16 * divergence
    torch.testing.assert_close(mean_loss(soft, student, x_NCHW, y_N), expected)


def test_each_head_of_lsnet_learns_from_its_own_target():
    student = LSNet(num_classes=3, dims=(16, 24, 32, 40), depths=(0, 1, 1, 1), distilled=True)
    teacher = Teacher(Linear(), HALF, HALF)
    heads = student.get_classifier()
    for alpha, learning in ((0.0, 0), (1.0, 1)):
        student.zero_grad()
        task = make_task(student.train(), teacher, distill_alpha=alpha)
        x_NCHW, y_N = torch.randn(4, 3, 64, 64), torch.tensor([0, 1, 2, 0])
        mean_loss(task, student, x_NCHW, y_N).backward()
        sizes = [float(sum(p.grad.abs().sum() for p in head.parameters())) for head in heads]
        assert sizes[learning] > 0
        assert sizes[1 - learning] == 0
    assert student.eval()(torch.randn(2, 3, 64, 64)).shape == (2, 3)


@pytest.mark.parametrize("kind", ["hard", "soft"])
def test_distillation_learns_without_labels(kind):
    student, teacher = Linear(), Linear()
    wrapped = Teacher(teacher, HALF, HALF)
    task = make_task(student, wrapped, distill=kind, distill_alpha=1.0)
    x_NCHW = 3 * torch.randn(60, 3, 1, 1)
    optimizer = torch.optim.Adam(student.parameters(), lr=0.1)
    before = (student(x_NCHW).argmax(1) == teacher(x_NCHW).argmax(1)).float().mean()
    for _ in range(60):
        optimizer.zero_grad()
        mean_loss(task, student, x_NCHW.clone(), torch.zeros(60).long()).backward()
        optimizer.step()
    after = (student(x_NCHW).argmax(1) == teacher(x_NCHW).argmax(1)).float().mean()
    assert before < 0.8
    assert after > 0.95


def test_autocast_and_mixup():
    teacher = Teacher(timm.create_model("test_resnet", num_classes=3), HALF, HALF)
    student = Linear(2)
    task = make_task(student, teacher, distill="soft", distill_tau=2.0, mixup=0.8, cutmix=1.0)
    with torch.autocast("cpu", torch.bfloat16):
        x_NCHW, y_N = torch.randn(4, 3, 32, 32), torch.tensor([0, 1, 2, 0])
        loss = mean_loss(task, student, x_NCHW, y_N)
    loss.backward()
    assert loss.dtype == torch.float32
    assert loss.isfinite()


def test_teachers_of_timm(monkeypatch):
    teacher = load_teacher("test_vit", context())  # built for 160 px alone
    assert teacher(torch.randn(1, 3, 32, 32)).shape == (1, 3)
    assert teacher.size == 160
    with pytest.raises(InputError, match="unknown model 'test_resnett'; did you mean test_resnet"):
        load_teacher("test_resnett", context())
    learned = timm.create_model("test_resnet", num_classes=1000)
    module = sys.modules["seewide.train.evaluate"]
    monkeypatch.setattr(module, "build_backbone", lambda *_, **__: learned)  # no download
    with pytest.raises(InputError, match=r"r160_in1k has 1000 classes and the data has 3"):
        load_teacher("test_resnet.r160_in1k", context())


def test_a_run_as_teacher(images, small, quiet, tmp_path):
    recipe = replace(small, epochs=1)
    run = fit(tiny.NAME, images, recipe, tmp_path / "run", console=quiet).folder
    distilled = tiny.change(
        recipe, task="distillation", teacher=str(run), distill="soft", distill_tau=2.0
    )
    result = fit(tiny.NAME, images, distilled, tmp_path / "student", console=quiet)
    row = result.history[-1]
    parts = 0.5 * (row["train_label_loss"] + row["train_teacher_loss"])
    assert row["train_loss"] == pytest.approx(parts, rel=1e-5)
    teacher = load_teacher(str(run), context())
    assert teacher(torch.randn(2, 3, 32, 32)).shape == (2, 3)
    torch.testing.assert_close(teacher.scale_C11.flatten(), torch.ones(3))
    with pytest.raises(InputError, match=r"other classes \(blue, green, red\) than .* \(a, b, c, "):
        load_teacher(str(run), context("abcd"))


@pytest.mark.parametrize(
    ("setting", "sentence"),
    [
        ({"distill": "medium"}, "distill must be hard or soft, got 'medium'"),
        ({"distill_alpha": 1.5}, "distill_alpha must be at least 0 and at most 1, got 1.5"),
        ({"distill_tau": 0.0}, "distill_tau must be above 0, got 0.0"),
    ],
)
def test_settings_that_cannot_work(setting, sentence):
    with pytest.raises(InputError) as error:
        DistillationOptions(**setting)
    assert str(error.value).startswith(sentence)
