"""Loss and metric against values computed by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from seewide.tasks.classification import (
    Classification,
    ClassificationMetric,
    ClassificationOptions,
)


class Linear(nn.Module):
    """Pictures to logits, linear, so that mixing images mixes logits."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.layer = nn.Linear(12, classes)

    def forward(self, x_NCHW):
        return self.layer(x_NCHW.flatten(1))


def batch(n: int = 6, classes: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(n, 3, 2, 2), torch.arange(n) % classes


def make_task(model: nn.Module, **options) -> Classification:
    task = Classification(ClassificationOptions(**options))
    task.build(model, {"class_names": list("abcd")})
    return task


def mean_loss(task: Classification, model: nn.Module, x_NCHW, y_N) -> torch.Tensor:
    result = task.loss(model, {"image": x_NCHW, "label": y_N})
    return result["loss"] / result["weight"]


def test_plain_loss_is_cross_entropy_with_smoothing():
    model = Linear(4)
    task = make_task(model, label_smoothing=0.1)
    x, y = batch()
    logprob = model(x).log_softmax(1)
    target = torch.full_like(logprob, 0.1 / 4)
    target[range(6), y] += 0.9
    torch.testing.assert_close(mean_loss(task, model, x, y), -(target * logprob).sum(1).mean())


def test_mixup_pairs_each_image_with_its_mirror_in_the_batch():
    model = Linear(4)
    task = make_task(model, mixup=0.5, label_smoothing=0.1)
    x, y = batch()
    np.random.seed(0)
    loss = mean_loss(task, model, x.clone(), y)
    np.random.seed(0)
    np.random.rand()  # timm asks first whether to mix at all
    weight = np.random.beta(0.5, 0.5)
    mixed = weight * x + (1 - weight) * x.flip(0)
    smooth = nn.functional.one_hot(y, 4) * 0.9 + 0.1 / 4
    target = weight * smooth + (1 - weight) * smooth.flip(0)
    expected = -(target * model(mixed).log_softmax(1)).sum(1).mean()
    torch.testing.assert_close(loss, expected)


def update(metric: ClassificationMetric, logits_NK, y_N) -> None:
    metric.update(logits_NK, {"label": y_N})


def test_scores_by_hand():
    metric = ClassificationMetric(6)
    logits = torch.eye(6)[[0, 1, 1, 5]]  # predicted: 0, 1, 1, 5
    logits[3] = torch.tensor([0.5, 0.4, 0.3, 0.2, -1.0, 1.0])  # class 4 comes last
    update(metric, logits[:2], torch.tensor([0, 1]))
    update(metric, logits[2:], torch.tensor([0, 4]))
    assert len(metric.true_N) == 4
    assert metric.compute()["top1"] == 50.0
    assert metric.compute()["top5"] == 75.0
    assert metric.confusion_KK[0].tolist() == [1, 1, 0, 0, 0, 0]
    assert metric.confusion_KK[4].tolist() == [0, 0, 0, 0, 0, 1]
    assert metric.recall_K[:2].tolist() == [50.0, 100.0]
    assert math.isnan(metric.recall_K[2])
    assert metric.precision_K[1].item() == 50.0
    loss = nn.functional.cross_entropy(logits, torch.tensor([0, 1, 0, 4])).item()
    assert metric.compute()["loss"] == pytest.approx(loss)


def test_scores_do_not_depend_on_the_batches():
    logits, y = torch.randn(50, 7), torch.randint(7, (50,))
    full, parts = ClassificationMetric(7), ClassificationMetric(7)
    update(full, logits, y)
    for start in range(0, 50, 8):
        update(parts, logits[start : start + 8], y[start : start + 8])
    assert torch.equal(full.confusion_KK, parts.confusion_KK)
    assert full.compute()["top5"] == parts.compute()["top5"]
    assert full.compute()["loss"] == pytest.approx(parts.compute()["loss"])


def test_scores_against_scikit_learn():
    metrics = pytest.importorskip("sklearn.metrics")
    logits, y = torch.randn(200, 7), torch.randint(7, (200,))
    metric = ClassificationMetric(7)
    update(metric, logits, y)
    predicted = logits.argmax(1)
    assert (metric.confusion_KK.numpy() == metrics.confusion_matrix(y, predicted)).all()
    top5 = metrics.top_k_accuracy_score(y, logits, k=5)
    assert metric.compute()["top5"] == pytest.approx(100 * top5)
    recall = metrics.recall_score(y, predicted, average=None)
    np.testing.assert_allclose(metric.recall_K, 100 * recall, rtol=1e-6)


def test_with_fewer_than_five_classes_top5_is_all():
    metric = ClassificationMetric(3)
    update(metric, torch.randn(9, 3), torch.randint(3, (9,)))
    assert metric.compute()["top5"] == 100.0
