"""Loss and scores against what one would count by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from seewide.tasks.classification import Classification, Scores


class Linear(nn.Module):
    """Pictures to logits, linear, so that mixing pictures mixes logits."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.layer = nn.Linear(12, classes)

    def forward(self, x_NCHW):
        return self.layer(x_NCHW.flatten(1))


def batch(n: int = 6, classes: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(n, 3, 2, 2), torch.arange(n) % classes


def test_plain_loss_is_cross_entropy_with_smoothing():
    task = Classification(Linear(4), 4, label_smoothing=0.1)
    x, y = batch()
    logprob = task.model(x).log_softmax(1)
    target = torch.full_like(logprob, 0.1 / 4)
    target[range(6), y] += 0.9
    torch.testing.assert_close(task(x, y), -(target * logprob).sum(1).mean())


def test_mixup_pairs_each_picture_with_its_mirror_in_the_batch():
    task = Classification(Linear(4), 4, mixup=0.5, label_smoothing=0.1)
    x, y = batch()
    np.random.seed(0)
    loss = task(x.clone(), y)
    np.random.seed(0)
    np.random.rand()  # timm asks first whether to mix at all
    share = np.random.beta(0.5, 0.5)
    mixed = share * x + (1 - share) * x.flip(0)
    smooth = nn.functional.one_hot(y, 4) * 0.9 + 0.1 / 4
    target = share * smooth + (1 - share) * smooth.flip(0)
    expected = -(target * task.model(mixed).log_softmax(1)).sum(1).mean()
    torch.testing.assert_close(loss, expected)


def test_scores_by_hand():
    scores = Scores(6)
    logits = torch.eye(6)[[0, 1, 1, 5]]  # said: 0, 1, 1, 5
    logits[3] = torch.tensor([0.5, 0.4, 0.3, 0.2, -1.0, 1.0])  # class 4 comes last
    scores.add(logits[:2], torch.tensor([0, 1]))
    scores.add(logits[2:], torch.tensor([0, 4]))
    assert scores.images == 4
    assert scores.top1 == 50.0
    assert scores.top5 == 75.0
    assert scores.confusion_KK[0].tolist() == [1, 1, 0, 0, 0, 0]
    assert scores.confusion_KK[4].tolist() == [0, 0, 0, 0, 0, 1]
    assert scores.recall_K[:2].tolist() == [50.0, 100.0]
    assert math.isnan(scores.recall_K[2])
    assert scores.precision_K[1].item() == 50.0
    loss = nn.functional.cross_entropy(logits, torch.tensor([0, 1, 0, 4])).item()
    assert scores.loss == pytest.approx(loss)


def test_scores_do_not_depend_on_the_batches():
    logits, y = torch.randn(50, 7), torch.randint(7, (50,))
    whole, parts = Scores(7), Scores(7)
    whole.add(logits, y)
    for start in range(0, 50, 8):
        parts.add(logits[start : start + 8], y[start : start + 8])
    assert torch.equal(whole.confusion_KK, parts.confusion_KK)
    assert whole.top5 == parts.top5
    assert whole.loss == pytest.approx(parts.loss)


def test_scores_against_scikit_learn():
    metrics = pytest.importorskip("sklearn.metrics")
    logits, y = torch.randn(200, 7), torch.randint(7, (200,))
    scores = Scores(7)
    scores.add(logits, y)
    said = logits.argmax(1)
    assert (scores.confusion_KK.numpy() == metrics.confusion_matrix(y, said)).all()
    top5 = metrics.top_k_accuracy_score(y, logits, k=5)
    assert scores.top5 == pytest.approx(100 * top5)
    recall = metrics.recall_score(y, said, average=None)
    np.testing.assert_allclose(scores.recall_K, 100 * recall, rtol=1e-6)


def test_with_fewer_than_five_classes_top5_is_all():
    scores = Scores(3)
    scores.add(torch.randn(9, 3), torch.randint(3, (9,)))
    assert scores.top5 == 100.0
