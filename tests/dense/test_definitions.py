"""Losses and their gradients against plain definitions in float64, box by box."""

import math

import pytest
import torch
import torch.nn.functional as F

from seewide.dense.boxes import BoxCoder
from seewide.dense.losses import giou_loss, mask_loss, sigmoid_focal_loss
from seewide.dense.matching import IGNORED, NEGATIVE, MatchRule, assign


def random_boxes(count, side=40.0):
    low = torch.rand(count, 2, dtype=torch.float64) * side
    return torch.cat([low, low + 1 + torch.rand(count, 2, dtype=torch.float64) * side], 1)


def same_gradient(ours, plain, inputs):
    torch.testing.assert_close(ours, plain, rtol=1e-12, atol=1e-12)
    for a, b in zip(
        torch.autograd.grad(ours, inputs), torch.autograd.grad(plain, inputs), strict=True
    ):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


def iou(a, b):
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    common = max(width, 0.0) * max(height, 0.0)
    areas = [(c[2] - c[0]) * (c[3] - c[1]) for c in (a, b)]
    return common / (areas[0] + areas[1] - common)


@pytest.mark.parametrize("rule", [MatchRule(0.7, 0.3, 0.3), MatchRule(0.5, 0.4, 0.0)])
def test_assign(rule):
    anchors, objects = random_boxes(60), random_boxes(7)
    table = [[iou(a, o) for o in objects.tolist()] for a in anchors.tolist()]
    expected = []
    for row in table:
        best = max(row)
        expected.append(
            row.index(best)
            if best >= rule.positive
            else NEGATIVE
            if best < rule.negative
            else IGNORED
        )
    for j in range(len(objects)):
        best = max(row[j] for row in table)
        if best >= rule.low_quality:
            for i, row in enumerate(table):
                if row[j] == best:
                    expected[i] = j
    assert assign(anchors, objects, rule).tolist() == expected
    assert len(set(expected)) > 4


def test_coder():
    reference, target = random_boxes(9), random_boxes(9).requires_grad_()
    stds = (0.1, 0.1, 0.2, 0.2)
    encoded = BoxCoder(stds).encode(reference, target)
    rows = []
    for r, t in zip(reference, target, strict=True):
        w, h = r[2] - r[0], r[3] - r[1]
        dx = ((t[0] + t[2]) / 2 - (r[0] + r[2]) / 2) / w
        dy = ((t[1] + t[3]) / 2 - (r[1] + r[3]) / 2) / h
        dw, dh = torch.log((t[2] - t[0]) / w), torch.log((t[3] - t[1]) / h)
        rows.append(torch.stack([d / s for d, s in zip((dx, dy, dw, dh), stds, strict=True)]))
    weights = torch.rand(9, 4, dtype=torch.float64)
    same_gradient((encoded * weights).sum(), (torch.stack(rows) * weights).sum(), [target])
    torch.testing.assert_close(BoxCoder(stds).decode(reference, encoded), target)


def test_giou():
    prediction, target = random_boxes(12).requires_grad_(), random_boxes(12)
    total = 0
    for p, t in zip(prediction, target, strict=True):
        low, high = torch.maximum(p[:2], t[:2]), torch.minimum(p[2:], t[2:])
        common = (high - low).clamp(min=0).prod()
        union = (p[2:] - p[:2]).prod() + (t[2:] - t[:2]).prod() - common
        hull = (torch.maximum(p[2:], t[2:]) - torch.minimum(p[:2], t[:2])).prod()
        total = total + 1 - (common / union - (hull - union) / hull)
    same_gradient(giou_loss(prediction, target), total, [prediction])


def test_focal():
    logits = torch.randn(6, 4, dtype=torch.float64, requires_grad=True)
    targets = torch.tensor([0, 3, 4, 1, 4, 2])  # 4 is the background
    total = 0
    for row, target in zip(logits, targets.tolist(), strict=True):
        for c, logit in enumerate(row):
            p = torch.sigmoid(logit)
            if c == target:
                total = total - 0.25 * (1 - p) ** 2 * torch.log(p)
            else:
                total = total - 0.75 * p**2 * torch.log(1 - p)
    same_gradient(sigmoid_focal_loss(logits, targets), total, [logits])


def test_mask():
    logits = torch.randn(3, 5, 4, 4, dtype=torch.float64, requires_grad=True)
    targets = torch.randint(0, 2, (3, 4, 4)).double()
    labels = torch.tensor([4, 0, 2])
    total = 0
    for i, label in enumerate(labels):
        p = torch.sigmoid(logits[i, label])
        total = total - (targets[i] * p.log() + (1 - targets[i]) * (1 - p).log()).sum()
    term = mask_loss(logits, targets, labels)
    same_gradient(term.total, total, [logits])
    assert term.weight == 3 * 16


def test_gradients_numerically():
    """`gradcheck` of the losses away from their corners."""
    target = random_boxes(4)
    prediction = (target + torch.rand(4, 4, dtype=torch.float64)).requires_grad_()
    assert torch.autograd.gradcheck(lambda p: giou_loss(p, target), [prediction])
    logits = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    labels = torch.tensor([0, 4, 2])
    assert torch.autograd.gradcheck(lambda x: sigmoid_focal_loss(x, labels), [logits])


def test_float32_repeats_float64():
    prediction, target = random_boxes(100), random_boxes(100)
    exact = giou_loss(prediction, target)
    single = giou_loss(prediction.float(), target.float())
    assert float(single) == pytest.approx(float(exact), rel=1e-5)
    logits, labels = torch.randn(50, 8, dtype=torch.float64), torch.randint(0, 9, (50,))
    exact = sigmoid_focal_loss(logits, labels)
    assert math.isclose(
        float(sigmoid_focal_loss(logits.float(), labels)), float(exact), rel_tol=1e-5
    )
    assert F.one_hot(labels, 9)[:, :8].sum() < 50
