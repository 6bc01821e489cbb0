"""Distillation: what the teacher is shown, what each head learns, which teachers are refused."""

from __future__ import annotations

from dataclasses import replace

import pytest
import timm
import tiny
import torch
import torch.nn.functional as F
from seewide.train.distillation import load_teacher, make_task
from torch import nn

from seewide import InputError
from seewide.models import LSNet
from seewide.tasks.classification import Classification
from seewide.tasks.distillation import Distillation, Teacher
from seewide.train import distillation, fit

HALF = ((0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
OTHER = ((0.4, 0.5, 0.6), (0.2, 0.25, 0.3))
NAMES = ("blue", "green", "red")


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
def chance():
    torch.manual_seed(0)


def test_the_teacher_sees_pictures_in_its_own_normalization():
    model = Linear()
    picture_N3HW = torch.rand(2, 3, 8, 8)
    shown, own = (
        (picture_N3HW - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]
        for mean, std in (HALF, OTHER)
    )
    torch.testing.assert_close(Teacher(model, "linear", HALF, OTHER)(shown), model(own))


def test_a_teacher_of_one_size_gets_that_size():
    sizes = []

    class Seeing(nn.Module):
        def forward(self, x_NCHW: torch.Tensor) -> torch.Tensor:
            sizes.append(tuple(x_NCHW.shape[-2:]))
            return x_NCHW.mean((2, 3))

    Teacher(Seeing(), "seeing", HALF, HALF, size=12)(torch.randn(1, 3, 8, 8))
    Teacher(Seeing(), "seeing", HALF, HALF)(torch.randn(1, 3, 8, 8))
    assert sizes == [(12, 12), (8, 8)]


def test_the_teacher_neither_learns_nor_travels():
    teacher = Teacher(timm.create_model("test_resnet", num_classes=3), "test_resnet", HALF, HALF)
    before = {name: tensor.clone() for name, tensor in teacher.state_dict().items()}
    student = Linear()
    task = Distillation(student, 3, teacher).train()
    x_NCHW = torch.randn(4, 3, 32, 32)
    task(x_NCHW, torch.tensor([0, 1, 2, 0])).backward()
    assert not teacher.train().training
    assert all(torch.equal(tensor, before[name]) for name, tensor in teacher.state_dict().items())
    assert all(parameter.grad is None for parameter in teacher.parameters())
    assert task.state_dict().keys() == Classification(student, 3).state_dict().keys()


@pytest.mark.parametrize("heads", [1, 2])
def test_the_loss_is_the_formula(heads):
    student, teacher = Linear(heads), Linear()
    x_NCHW, y_N = batch()
    taught = Teacher(teacher, "linear", HALF, HALF)
    outputs = [head(x_NCHW.mean((2, 3))) for head in student.heads]
    t = teacher(x_NCHW)
    hard = Distillation(student, 3, taught, kind="hard", alpha=0.3)
    expected = 0.7 * F.cross_entropy(outputs[0], y_N)
    expected = expected + 0.3 * F.cross_entropy(outputs[-1], t.argmax(1))
    torch.testing.assert_close(hard(x_NCHW, y_N), expected)
    soft = Distillation(student, 3, taught, kind="soft", alpha=0.3, tau=4.0)
    p, q = (t / 4).softmax(1), (outputs[-1] / 4).softmax(1)
    divergence = (p * (p.log() - q.log())).sum(1).mean()
    expected = 0.7 * F.cross_entropy(outputs[0], y_N) + 0.3 * 16 * divergence
    torch.testing.assert_close(soft(x_NCHW, y_N), expected)


def test_each_head_of_lsnet_has_its_own_lesson():
    student = LSNet(num_classes=3, dims=(16, 24, 32, 40), depths=(0, 1, 1, 1), distilled=True)
    teacher = Teacher(Linear(), "linear", HALF, HALF)
    heads = student.get_classifier()
    for alpha, learning in ((0.0, 0), (1.0, 1)):
        student.zero_grad()
        task = Distillation(student, 3, teacher, alpha=alpha).train()
        task(torch.randn(4, 3, 64, 64), torch.tensor([0, 1, 2, 0])).backward()
        sizes = [float(sum(p.grad.abs().sum() for p in head.parameters())) for head in heads]
        assert sizes[learning] > 0
        assert sizes[1 - learning] == 0
    assert student.eval()(torch.randn(2, 3, 64, 64)).shape == (2, 3)


@pytest.mark.parametrize("kind", ["hard", "soft"])
def test_a_student_without_labels_comes_to_say_what_its_teacher_says(kind):
    student, teacher = Linear(), Linear()
    task = Distillation(student, 3, Teacher(teacher, "linear", HALF, HALF), kind=kind, alpha=1.0)
    x_NCHW = 3 * torch.randn(60, 3, 1, 1)
    optimizer = torch.optim.Adam(student.parameters(), lr=0.1)
    before = (student(x_NCHW).argmax(1) == teacher(x_NCHW).argmax(1)).float().mean()
    for _ in range(60):
        optimizer.zero_grad()
        task(x_NCHW.clone(), torch.zeros(60, dtype=torch.long)).backward()
        optimizer.step()
    after = (student(x_NCHW).argmax(1) == teacher(x_NCHW).argmax(1)).float().mean()
    assert before < 0.8
    assert after > 0.95


def test_under_autocast_and_with_mixed_pictures():
    teacher = Teacher(timm.create_model("test_resnet", num_classes=3), "test_resnet", HALF, HALF)
    task = Distillation(Linear(2), 3, teacher, kind="soft", tau=2.0, mixup=0.8, cutmix=1.0)
    with torch.autocast("cpu", torch.bfloat16):
        loss = task(torch.randn(4, 3, 32, 32), torch.tensor([0, 1, 2, 0]))
    loss.backward()
    assert loss.dtype == torch.float32
    assert loss.isfinite()


def test_a_recipe_makes_its_task():
    student = Linear()
    plain = make_task(student, tiny.SMALL, NAMES, HALF)
    assert type(plain) is Classification
    recipe = replace(tiny.SMALL, teacher="test_resnet", distill="soft", distill_tau=3.0)
    task = make_task(student, recipe, NAMES, HALF)
    assert (task.kind, task.alpha, task.tau) == ("soft", 0.5, 3.0)
    assert task(torch.randn(4, 3, 32, 32), torch.tensor([0, 1, 2, 0])).isfinite()


def test_teachers_of_timm(monkeypatch):
    teacher = load_teacher("test_vit", NAMES, 32, HALF)  # built for 160 px alone
    assert teacher(torch.randn(1, 3, 32, 32)).shape == (1, 3)
    assert str(teacher) == "test_vit, pictures of 160 px"
    with pytest.raises(InputError, match="unknown model 'test_resnett'; did you mean test_resnet"):
        load_teacher("test_resnett", NAMES, 32, HALF)
    learned = timm.create_model("test_resnet", num_classes=1000)
    monkeypatch.setattr(distillation, "build_model", lambda *_, **__: learned)  # no download
    with pytest.raises(InputError, match=r"r160_in1k knows 1000 classes and the data has 3"):
        load_teacher("test_resnet.r160_in1k", NAMES, 32, HALF)


def test_a_run_teaches_its_own_classes(pictures, small, quiet, tmp_path):
    recipe = replace(small, epochs=1)
    run = fit(tiny.NAME, pictures, recipe, tmp_path / "run", console=quiet).folder
    pupil = replace(recipe, teacher=str(run), distill="soft", distill_tau=2.0)
    taught = fit(tiny.NAME, pictures, pupil, tmp_path / "pupil", console=quiet)
    assert torch.tensor(taught.history[-1]["train_loss"]).isfinite()
    teacher = load_teacher(str(run), NAMES, 32, HALF)
    assert teacher(torch.randn(2, 3, 32, 32)).shape == (2, 3)
    torch.testing.assert_close(teacher.scale_C11.flatten(), torch.ones(3))
    with pytest.raises(InputError, match=r"other classes \(blue, green, red\) than .* \(a, b, c, "):
        load_teacher(str(run), ("a", "b", "c", "d"), 32, HALF)


@pytest.mark.parametrize(
    ("setting", "sentence"),
    [
        ({"kind": "medium"}, "unknown kind of distillation 'medium'"),
        ({"alpha": 1.5}, "distillation takes alpha within 0..1 and tau above 0, got 1.5 and 1.0"),
        ({"tau": 0.0}, "distillation takes alpha within 0..1 and tau above 0, got 0.5 and 0.0"),
    ],
)
def test_settings_that_cannot_work(setting, sentence):
    with pytest.raises(InputError) as error:
        Distillation(Linear(), 3, Teacher(Linear(), "linear", HALF, HALF), **setting)
    assert str(error.value).startswith(sentence)
