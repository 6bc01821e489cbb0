"""Parts of the heads give what mmdetection and mmsegmentation give, on figures stored beside."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from golden import Golden

from seewide.dense import matching
from seewide.dense.boxes import BoxCoder, batched_nms, multiclass_nms
from seewide.dense.losses import (
    LossTerm,
    giou_loss,
    mask_loss,
    pixel_cross_entropy,
    sigmoid_focal_loss,
    smooth_l1_loss,
)
from seewide.dense.lsnet_backbone import MatrixBiasedAttention, bias_matrix, resize_table
from seewide.dense.masks import mask_targets, paste_binary, paste_masks
from seewide.dense.matching import IGNORED, NEGATIVE, MatchRule, Sampler, assign
from seewide.dense.roi import RegionPool
from seewide.layers import BiasedAttention

DATA = Path(__file__).parent / "data"


@pytest.fixture(scope="module")
def parts():
    return {k: torch.from_numpy(v) for k, v in np.load(DATA / "components.npz").items()}


@pytest.mark.parametrize(
    ("name", "stds"),
    [
        ("rpn", (1.0, 1.0, 1.0, 1.0)),
        ("rcnn", (0.1, 0.1, 0.2, 0.2)),
        ("stage3", (0.033, 0.033, 0.067, 0.067)),
    ],
)
def test_box_coder(parts, name, stds):
    coder, boxes = BoxCoder(stds), parts["coder.boxes"]
    encoded = coder.encode(boxes, parts["coder.gt"])
    torch.testing.assert_close(encoded, parts[f"coder.{name}.encoded"])
    decoded = coder.decode(boxes, parts["coder.deltas"])
    torch.testing.assert_close(decoded, parts[f"coder.{name}.unclipped"])
    clipped = coder.decode(boxes, parts["coder.deltas"], (256, 320))
    torch.testing.assert_close(clipped, parts[f"coder.{name}.decoded"])


def test_box_coder_limits_both_directions():
    """torchvision limits only growth."""
    box = torch.tensor([[0.0, 0.0, 10.0, 10.0]])
    huge = BoxCoder().decode(box, torch.tensor([[0.0, 0.0, 9.0, -9.0]]))[0]
    assert float(huge[2] - huge[0]) == pytest.approx(10 * 1000 / 16, rel=1e-5)
    assert float(huge[3] - huge[1]) == pytest.approx(10 * 16 / 1000, rel=1e-3)


RULES = {
    "rpn": MatchRule(0.7, 0.3, 0.3),
    "rcnn": MatchRule(0.5, 0.5, 0.5),
    "cascade": MatchRule(0.6, 0.6),
    "retina": MatchRule(0.5, 0.4, 0.0),
    "ssd": MatchRule(0.5, 0.5, 0.0, first_tie_only=True),
}


@pytest.mark.parametrize("in_parts", [False, True])
@pytest.mark.parametrize("name", RULES)
def test_assign(parts, name, in_parts, monkeypatch):
    if in_parts:
        monkeypatch.setattr(matching, "PAIRS_AT_ONCE", 1000)
    matched = assign(parts["assign.boxes"], parts["assign.gt"], RULES[name])
    theirs = parts[f"assign.{name}.gt_inds"]  # 0 negative, -1 ignored, else index + 1
    theirs = torch.where(theirs > 0, theirs - 1, torch.where(theirs == 0, NEGATIVE, IGNORED))
    assert torch.equal(matched, theirs)


def test_assign_without_objects():
    matched = assign(torch.rand(5, 4), torch.zeros(0, 4), RULES["rpn"])
    assert matched.tolist() == [NEGATIVE] * 5


def test_later_object_takes_tied_anchor():
    anchors = torch.tensor([[0.0, 0, 10, 10], [100, 100, 110, 110]])
    objects = torch.tensor([[0.0, 0, 10, 20], [0.0, 0, 20, 10]])  # IoU 0.5 each with anchor 0
    assert assign(anchors, objects, MatchRule(0.7, 0.3, 0.3)).tolist() == [1, NEGATIVE]


def test_sampler_takes_at_most_its_share_in_ascending_order():
    matched = torch.tensor([0, NEGATIVE, IGNORED, 1, NEGATIVE, 2, NEGATIVE] * 20)
    positive, negative = Sampler(40, 0.25)(matched)
    assert len(positive) == 10
    assert len(negative) == 30
    assert (matched[positive] >= 0).all()
    assert (matched[negative] == NEGATIVE).all()
    assert (positive.diff() > 0).all()
    assert (negative.diff() > 0).all()
    few, many = Sampler(100, 0.5)(torch.tensor([0, 0] + [NEGATIVE] * 200))
    assert (len(few), len(many)) == (2, 98)


def test_multiclass_nms(parts):
    boxes, scores = parts["nms.boxes"].view(300, 5, 4), parts["nms.scores"][:, :5]
    found = multiclass_nms(boxes, scores, 0.05, 0.5, 100)
    torch.testing.assert_close(found[0], parts["nms.dets"][:, :4])
    torch.testing.assert_close(found[1], parts["nms.dets"][:, 4])
    assert torch.equal(found[2], parts["nms.labels"])


def test_batched_nms_of_an_exported_graph_keeps_the_same_boxes(monkeypatch):
    boxes = torch.rand(200, 4) * 50
    boxes[:, 2:] += boxes[:, :2]
    scores, groups = torch.rand(200), torch.randint(0, 4, (200,))
    plain = batched_nms(boxes, scores, groups, 0.5)
    monkeypatch.setattr(torch.compiler, "is_exporting", lambda: True)
    assert torch.equal(batched_nms(boxes, scores, groups, 0.5), plain)
    assert len(plain) < 200


def test_region_features_and_levels(parts):
    rois, pool = parts["roi.rois"], RegionPool(7)
    assert torch.equal(pool.levels(rois[:, 1:]), parts["roi.levels"])
    of_image = [(rois[:, 0] == i).nonzero()[:, 0] for i in range(2)]
    maps = [parts[f"roi.map{i}"] for i in range(4)]
    features = pool(maps, [rois[rows, 1:] for rows in of_image])
    torch.testing.assert_close(features, parts["roi.features"][torch.cat(of_image)])


def test_pasted_masks(parts):
    masks, boxes = parts["paste.masks"][:, 0], parts["paste.boxes"]
    pasted = paste_masks(masks, boxes, (256, 320))
    torch.testing.assert_close(pasted[:, ::4, ::4], parts["paste.values"], atol=2e-6, rtol=0)
    assert torch.equal(paste_binary(masks, boxes, (256, 320)), pasted >= 0.5)


def test_pasting_is_grid_sampling():
    masks, box = torch.rand(1, 28, 28), torch.tensor([3.3, 5.1, 40.9, 29.4])
    x = (torch.arange(50) + 0.5 - box[0]) / (box[2] - box[0]) * 2 - 1
    y = (torch.arange(40) + 0.5 - box[1]) / (box[3] - box[1]) * 2 - 1
    grid = torch.stack([x.expand(40, 50), y[:, None].expand(40, 50)], -1)[None]
    sampled = F.grid_sample(masks[None], grid, align_corners=False)[0]
    torch.testing.assert_close(paste_masks(masks, box[None], (40, 50)), sampled, atol=1e-5, rtol=0)


def test_mask_of_a_box_without_width_is_empty():
    pasted = paste_masks(torch.ones(1, 28, 28), torch.tensor([[5.0, 2.0, 5.0, 9.0]]), (12, 12))
    assert pasted.abs().max() == 0


def test_mask_targets(parts):
    masks = torch.from_numpy(np.unpackbits(parts["target.gt"].numpy(), axis=-1))
    targets = mask_targets(masks, parts["target.boxes"], parts["target.inds"])
    assert torch.equal(targets, parts["target.values"])


def test_losses(parts):
    """The figures' divisors: 7 for the focal loss, 512 for the boxes' (GIoU weighs 10)."""
    prediction, target = parts["loss.in.pred"], parts["loss.in.target"]
    used = parts["loss.in.weights"] > 0
    focal = sigmoid_focal_loss(parts["loss.in.logits"][used], parts["loss.in.labels"][used])
    torch.testing.assert_close(focal / 7, parts["loss.focal"][0])
    giou = 10 * giou_loss(prediction, target) / 512
    torch.testing.assert_close(giou, parts["loss.giou"][0])
    smooth = smooth_l1_loss(prediction / 100, target / 100, beta=1 / 9) / 512
    torch.testing.assert_close(smooth, parts["loss.smooth_l1"][0])
    logits = parts["loss.in.mask_logits"][:, None]
    mask = mask_loss(logits, parts["loss.in.mask_targets"], torch.zeros(9, dtype=torch.long))
    torch.testing.assert_close(mask.mean(), parts["loss.mask"][0])


def test_pixel_cross_entropy_counts_ignored_pixels_in_the_divisor():
    stored = {k: torch.from_numpy(v) for k, v in np.load(DATA / "seg_parts.npz").items()}
    logits, labels = stored["loss.logits"], stored["loss.labels"]
    term = pixel_cross_entropy(logits, labels)
    torch.testing.assert_close(term.mean(), stored["loss.value"][0])
    valid = float((labels != 255).sum())
    torches = F.cross_entropy(logits, labels, ignore_index=255)
    assert valid < term.weight
    torch.testing.assert_close(term.total / valid, torches)


def test_loss_terms_of_parts_add_up():
    """What an accumulating training loop relies on."""
    logits, labels = torch.randn(4, 5, 8, 8), torch.randint(0, 5, (4, 8, 8))
    labels[0, :4] = 255
    whole = pixel_cross_entropy(logits, labels)
    halves = [pixel_cross_entropy(logits[i], labels[i]) for i in (slice(2), slice(2, None))]
    added = LossTerm(sum(h.total for h in halves), sum(h.weight for h in halves))
    torch.testing.assert_close(added.mean(), whole.mean())


def test_lsnet_biases():
    golden = Golden("lsnet_bias")
    table = torch.from_numpy(golden.arrays["table16"])
    assert torch.equal(resize_table(table), torch.from_numpy(golden.arrays["table196"]))
    table = torch.from_numpy(golden.arrays["table196"])
    for height, width in ((4, 5), (13, 21), (14, 14), (7, 7)):
        matrix = bias_matrix(table, height, width)
        assert golden.error(f"matrix_{height}x{width}", matrix) < 1e-6


def test_lsnet_attention():
    golden = Golden("lsnet_bias")
    how = golden.spec["attention"]
    layer = MatrixBiasedAttention(BiasedAttention(how["dim"], how["heads"], how["key_dim"]))
    ours = {}
    for key, value in golden.state().items():
        key = key.replace(".c.", ".conv.").replace(".bn.", ".norm.").replace("proj.1.", "proj.")
        ours[key] = value
    own = layer.state_dict()
    counters = {k: v for k, v in own.items() if k.endswith("num_batches_tracked")}
    layer.load_state_dict({**counters, **ours})
    x = torch.from_numpy(golden.arrays["x"])
    torch.testing.assert_close(
        layer.eval()(x), torch.from_numpy(golden.arrays["y"]), atol=1e-5, rtol=1e-5
    )
