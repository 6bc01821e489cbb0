"""Where torchvision's detectors compute the same as ours, and each place where they do not.

Every difference is one test that shows both numbers (docs/dense.md lists them).
"""

import pytest
import torch
import torchvision
from torch import nn
from torchvision.models.detection import _utils as tv
from torchvision.models.detection.anchor_utils import AnchorGenerator, DefaultBoxGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.models.detection.retinanet import RetinaNetHead, retinanet_resnet50_fpn
from torchvision.models.detection.roi_heads import (
    fastrcnn_loss,
    paste_masks_in_image,
    project_masks_on_boxes,
)
from torchvision.models.detection.rpn import RPNHead as TorchvisionRPNHead
from torchvision.models.detection.ssdlite import ssdlite320_mobilenet_v3_large
from torchvision.models.detection.transform import GeneralizedRCNNTransform
from torchvision.ops import FeaturePyramidNetwork, MultiScaleRoIAlign
from torchvision.ops.feature_pyramid_network import LastLevelP6P7

from seewide import create_detector
from seewide.dense.anchors import GridAnchors, SSDAnchors, octave_scales
from seewide.dense.boxes import BoxCoder
from seewide.dense.images import BatchImages, ImageBatch
from seewide.dense.losses import means
from seewide.dense.masks import mask_targets, paste_masks
from seewide.dense.matching import NEGATIVE, MatchRule, assign
from seewide.dense.necks import FPN
from seewide.dense.retina import RetinaHead
from seewide.dense.roi import BoxHead, MaskHead, RegionPool
from seewide.dense.roi_heads import ONE_STAGE, Regions, StandardRoIHead
from seewide.dense.rpn import RPNHead, inside
from seewide.dense.ssd import SSDHead


def copy_in_order(source: nn.Module, target: nn.Module, order=None):
    """Give `target` the parameters of `source`, one after the other."""
    values = list(source.parameters())
    for i, parameter in enumerate(target.parameters()):
        parameter.data.copy_(values[order[i] if order else i])


# ---- equal with equal weights


def test_equal_feature_pyramid():
    channels = [4, 6, 8]
    ours, theirs = FPN(channels, 16, num_outs=3), FeaturePyramidNetwork(channels, 16)
    copy_in_order(ours, theirs)
    maps = [torch.randn(2, c, 17 * 2 ** (2 - i), 5 * 2 ** (2 - i)) for i, c in enumerate(channels)]
    named = theirs({str(i): x for i, x in enumerate(maps)})
    for a, b in zip(ours(maps), named.values(), strict=True):
        torch.testing.assert_close(a, b)


def test_equal_proposal_head():
    ours, theirs = RPNHead(16), TorchvisionRPNHead(16, 3)
    copy_in_order(ours, theirs)
    x = [torch.randn(1, 16, 9, 7)]
    for a, b in zip(ours(x), theirs(x), strict=True):
        torch.testing.assert_close(a[0], b[0])


def test_equal_box_head_with_classes_moved():
    """torchvision's class 0 is the background, which is last here and has no box here."""
    ours = BoxHead(3, channels=4, hidden=8, size=7)
    hidden, predictor = TwoMLPHead(4 * 49, 8), FastRCNNPredictor(8, 4)
    copy_in_order(ours.shared_fcs, hidden)
    predictor.cls_score.weight.data = ours.fc_cls.weight.data[[3, 0, 1, 2]]
    predictor.cls_score.bias.data = ours.fc_cls.bias.data[[3, 0, 1, 2]]
    predictor.bbox_pred.weight.data[4:] = ours.fc_reg.weight.data
    predictor.bbox_pred.bias.data[4:] = ours.fc_reg.bias.data
    x = torch.randn(5, 4, 7, 7)
    logits, offsets = ours(x)
    their_logits, their_offsets = predictor(hidden(x))
    torch.testing.assert_close(logits, their_logits[:, [1, 2, 3, 0]])
    torch.testing.assert_close(offsets, their_offsets[:, 4:])
    assert (offsets.shape[1], their_offsets.shape[1]) == (12, 16)


def test_equal_mask_head():
    ours = MaskHead(3, channels=8)
    convs, predictor = MaskRCNNHeads(8, (8,) * 4, 1), MaskRCNNPredictor(8, 8, 3)
    copy_in_order(ours.convs, convs)
    copy_in_order(nn.ModuleList([ours.upsample, ours.conv_logits]), predictor)
    x = torch.randn(2, 8, 14, 14)
    torch.testing.assert_close(ours(x), predictor(convs(x)))


def test_equal_retina_head():
    ours, theirs = RetinaHead(5, channels=16), RetinaNetHead(16, 9, 5)
    copy_in_order(nn.ModuleList([ours.cls_convs, ours.retina_cls]), theirs.classification_head)
    # Theirs declares the tower after the last convolution.
    copy_in_order(
        nn.ModuleList([ours.retina_reg, ours.reg_convs]),
        nn.ModuleList([theirs.regression_head.bbox_reg, theirs.regression_head.conv]),
    )
    copy_in_order(
        nn.ModuleList([ours.retina_cls, ours.cls_convs]),
        nn.ModuleList([theirs.classification_head.cls_logits, theirs.classification_head.conv]),
    )
    x = [torch.randn(1, 16, 6, 5)]
    logits, offsets = ours(x)
    out = theirs(x)
    flat = logits[0].permute(0, 2, 3, 1).reshape(1, -1, 5)
    torch.testing.assert_close(flat, out["cls_logits"])
    flat = offsets[0].permute(0, 2, 3, 1).reshape(1, -1, 4)
    torch.testing.assert_close(flat, out["bbox_regression"])


def test_equal_assignment_apart_from_low_quality():
    anchors = torch.rand(200, 4) * 50
    anchors[:, 2:] += anchors[:, :2] + 1
    objects = anchors[:9] + torch.rand(9, 4)
    ours = assign(anchors, objects, MatchRule(0.5, 0.4))
    theirs = tv.Matcher(0.5, 0.4)(torchvision.ops.box_iou(objects, anchors))
    assert torch.equal(ours, theirs)


# ---- different


def test_resized_size():
    image = torch.rand(3, 480, 640)
    theirs, _ = GeneralizedRCNNTransform(800, 1333, [0.0] * 3, [1.0] * 3)([image])
    assert BatchImages().size((480, 640)) == (800, 1067)
    assert theirs.image_sizes == [(800, 1066)]


def test_anchor_sizes_are_not_rounded():
    ours = GridAnchors((8,), octave_scales())().cell_anchors[0][4]  # ratio 1, second scale
    theirs = AnchorGenerator(((32, int(32 * 2 ** (1 / 3)), 50),), ((0.5, 1.0, 2.0),))
    theirs = theirs.cell_anchors[0][4]
    assert float(ours[2] - ours[0]) == pytest.approx(40.3175, abs=1e-4)
    assert float(theirs[2] - theirs[0]) == 40


def test_strides_are_nominal():
    """An image of 800 px has a map of 13 at stride 64; torchvision divides 800 by 13."""
    maps = torch.zeros(1, 1, 13, 13)
    ours = GridAnchors((64,))()([(13, 13)], maps)[0]
    generator = AnchorGenerator(((512,),), ((0.5, 1.0, 2.0),))
    image = torchvision.models.detection.image_list.ImageList(
        torch.zeros(1, 3, 800, 800), [(800, 800)]
    )
    theirs = generator(image, [maps])[0]
    assert float(ours[3, 0] - ours[0, 0]) == 64
    assert float(theirs[3, 0] - theirs[0, 0]) == 61


def test_decoded_size_has_a_lower_limit():
    box, offsets = torch.tensor([[0.0, 0, 100, 100]]), torch.tensor([[0.0, 0, -9, -9]])
    ours = BoxCoder().decode(box, offsets)[0]
    theirs = tv.BoxCoder((1.0, 1.0, 1.0, 1.0)).decode_single(offsets, box)[0]
    assert float(ours[2] - ours[0]) == pytest.approx(1.6, abs=1e-4)
    assert float(theirs[2] - theirs[0]) == pytest.approx(0.0123, abs=1e-3)


def test_low_quality_match_needs_a_least_iou():
    anchors = torch.tensor([[0.0, 0, 10, 10], [50, 50, 60, 60]])
    objects = torch.tensor([[0.0, 0, 100, 10]])  # IoU 0.1 with the first anchor
    ours = assign(anchors, objects, MatchRule(0.7, 0.3, low_quality=0.3))
    theirs = tv.Matcher(0.7, 0.3, allow_low_quality_matches=True)(
        torchvision.ops.box_iou(objects, anchors)
    )
    assert ours.tolist() == [NEGATIVE, NEGATIVE]
    assert theirs.tolist() == [0, NEGATIVE]


def test_anchors_leaving_the_image_are_not_trained_in_a_cascade():
    """torchvision trains all of them."""
    with torch.device("meta"):
        borders = [
            create_detector(s, "resnet18").rpn_head.border for s in ("cascade_rcnn", "faster_rcnn")
        ]
    assert borders == [0, None]
    anchors = torch.tensor([[-1.0, 0, 9, 9], [0, 0, 9, 9], [0, 0, 20, 9]])
    assert inside(anchors, (10, 20), 0).tolist() == [False, True, False]


def test_region_features_are_aligned():
    """On a map whose value is x, torchvision's cells are half a pixel to the right."""
    x = torch.arange(32.0).expand(1, 1, 32, 32)
    box = [torch.tensor([[40.0, 40, 68, 68]])]
    ours = RegionPool(7, (4,))([x], box)[0, 0, 0, 0]
    pool = MultiScaleRoIAlign(["0"], 7, sampling_ratio=2)
    theirs = pool({"0": x}, box, [(128, 128)])[0, 0, 0, 0]
    assert float(ours) == pytest.approx(10.0)  # centre of the first cell: 42 px / 4 - 1/2
    assert float(theirs) == pytest.approx(10.5)


def test_epsilon_of_the_level_is_inside_the_logarithm():
    side = 112 * (1 - 3e-7)  # just below the step to the next level
    box = torch.tensor([[0.0, 0, side, side]], dtype=torch.float64)
    theirs = torchvision.ops.poolers.LevelMapper(2, 5)([box])
    assert int(RegionPool(7).levels(box)) == 1
    assert int(theirs) == 1
    box = torch.tensor([[0.0, 0, 448 * (1 - 6e-7), 448 * (1 - 6e-7)]], dtype=torch.float64)
    assert int(RegionPool(7).levels(box)) == 2
    assert int(torchvision.ops.poolers.LevelMapper(2, 5)([box])) == 3


def test_box_loss_is_absolute_not_smooth():
    """One region, whose offset is off by 0.01 in each coordinate of ten."""
    head = StandardRoIHead(2, channels=4, masks=False)
    box = torch.tensor([[0.0, 0, 10, 10]])
    regions = Regions(box, torch.tensor([0]), torch.tensor([0]), torch.tensor([False]))
    logits, offsets = torch.zeros(1, 3), torch.full((1, 8), 0.01)
    terms = head.box_terms(logits, offsets, [regions], [{"boxes": box}], ONE_STAGE)
    _, theirs = fastrcnn_loss(
        logits, torch.full((1, 12), 0.01), [torch.tensor([1])], [torch.zeros(1, 4)]
    )
    assert float(terms["loss_bbox"].mean().detach()) == pytest.approx(0.04, rel=1e-5)
    assert float(theirs) == pytest.approx(4 * 0.5 * 0.01**2 * 9, rel=1e-5)


def test_mask_targets_are_binary():
    mask = torch.zeros(1, 40, 40)
    mask[:, :, :20] = 1
    box, index = torch.tensor([[3.0, 3, 37, 37]]), torch.tensor([0])
    ours = mask_targets(mask, box, index)
    theirs = project_masks_on_boxes(mask, box, index, 28)
    assert set(ours.unique().tolist()) == {0.0, 1.0}
    assert ((theirs > 0.01) & (theirs < 0.99)).any()


def test_masks_are_pasted_at_fractions_of_pixels():
    mask, box = torch.ones(1, 28, 28), torch.tensor([[10.4, 10.0, 20.4, 20.0]])
    ours = paste_masks(mask, box, (32, 32))[0, 15]
    theirs = paste_masks_in_image(mask[:, None], box, (32, 32))[0, 0, 15]
    assert float(ours[10]) == pytest.approx(0.78, abs=0.02)
    assert float(theirs[10]) == pytest.approx(0.864, abs=0.001)


def test_retina_loss_is_over_the_positives_of_the_batch():
    """torchvision averages the images' means instead."""
    ours, theirs = RetinaHead(3, channels=16), RetinaNetHead(16, 9, 3)
    for mine, other in ((ours.cls_convs, theirs.classification_head.conv),
                        (ours.retina_cls, theirs.classification_head.cls_logits)):  # fmt: skip
        copy_in_order(mine, other)
    for head in (ours.retina_cls, theirs.classification_head.cls_logits):
        nn.init.normal_(head.bias, std=0, mean=-1)
    maps = [torch.randn(2, 16, 2 ** (5 - i), 2 ** (5 - i)) for i in range(5)]
    one = torch.tensor([[8.0, 8, 60, 60]])
    many = torch.cat([one, torch.tensor([[90.0, 90, 180, 180], [10, 120, 70, 200]])])
    targets = [{"boxes": b, "labels": torch.zeros(len(b), dtype=torch.long)} for b in (one, many)]
    batch = ImageBatch(torch.zeros(2, 3, 256, 256), *[[(256, 256)] * 2] * 3)
    outputs = ours(maps)

    def image(i):
        return tuple([x[i : i + 1] for x in level] for level in outputs)

    mine = float(means(ours.loss_terms(outputs, batch, targets))["loss_cls"].detach())
    _, _, anchors, _ = ours.flat(outputs)
    matched = [assign(anchors, t["boxes"], ours.match) for t in targets]
    head_outputs = theirs(maps)
    other = float(theirs.classification_head.compute_loss(targets, head_outputs, matched).detach())
    counts = [int((m >= 0).sum()) for m in matched]
    assert counts[0] != counts[1]
    sums = [
        float(ours.loss_terms(image(i), ImageBatch(*(v[i : i + 1] for v in batch)), targets[i:][:1])
              ["loss_cls"].total.detach())
        for i in range(2)
    ]  # fmt: skip
    assert mine == pytest.approx(sum(sums) / sum(counts), rel=1e-5)
    assert other == pytest.approx((sums[0] / counts[0] + sums[1] / counts[1]) / 2, rel=1e-5)
    assert abs(mine - other) / other > 0.01, (mine, other)


def test_retina_detections():
    theirs = retinanet_resnet50_fpn(weights=None, weights_backbone=None)
    assert RetinaHead(3).selection.count == 100
    assert theirs.detections_per_img == 300


def test_no_activation_between_extra_levels():
    ours = FPN([4, 4, 4], 4, num_outs=5, extra="on_input")
    theirs = LastLevelP6P7(4, 4)
    copy_in_order(ours.fpn_convs[3:], theirs)
    maps = [torch.randn(1, 4, s, s) for s in (32, 16, 8)]
    p7 = ours(maps)[4]
    (_, p6, their_p7), _ = theirs([maps[2]], [maps[2]], [])
    torch.testing.assert_close(ours(maps)[3], p6)
    assert (p7 - their_p7).abs().max() > 1e-3


def test_ssdlite_anchors():
    ours = SSDAnchors()()([(3, 3)] * 4, torch.zeros(1))[3]  # stride 107
    generator = DefaultBoxGenerator([[2, 3]] * 6, min_ratio=0.2, max_ratio=0.95)
    assert float((ours[0, 0] + ours[0, 2]) / 2) == 53.5
    image = torchvision.models.detection.image_list.ImageList(
        torch.zeros(1, 3, 320, 320), [(320, 320)]
    )
    theirs = generator(image, [torch.zeros(1, 1, 3, 3)] * 6)[0]
    assert float((theirs[0, 0] + theirs[0, 2]) / 2) == pytest.approx(53.333, abs=0.001)
    assert generator.scales[0] * 320 == pytest.approx(64)
    assert float(SSDAnchors()().cell_anchors[0][0, 2]) - 8 == 24  # half of 48


def test_ssdlite_selection():
    theirs = ssdlite320_mobilenet_v3_large(weights=None, weights_backbone=None)
    ours = SSDHead(3, (16, 24, 512, 256, 256, 128)).selection
    assert (ours.score, ours.iou, ours.count, ours.per_level) == (0.02, 0.45, 200, 1000)
    assert (theirs.score_thresh, theirs.nms_thresh, theirs.detections_per_img) == (0.001, 0.55, 300)


def test_torchvision_has_no_cascade():
    assert not [name for name in torchvision.models.list_models() if "cascade" in name]
