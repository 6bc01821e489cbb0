"""Necks and heads on random pyramids give what the authors' code gives."""

import pytest
import torch
from golden import Golden, Maps, as_measured, first_candidates, load_heads

from seewide.dense import create_detector, create_segmenter
from seewide.dense.losses import means, pixel_cross_entropy
from seewide.dense.necks import FPN
from seewide.dense.rpn import flatten_levels
from seewide.dense.segmentation_heads import ASPPHead, FCNHead, FPNHead, PSPHead, UPerHead

HEAD = 1e-5


def pyramid_model(golden, system, levels):
    how = golden.spec["input"]
    strides = [how["width"] // size[1] for size in how["sizes"]]
    backbone = Maps(how["channels"][levels], strides[levels])
    model = load_heads(create_detector(system, backbone), golden.state())
    maps = [x.requires_grad_() for x in golden.inputs()]
    backbone.given = maps[levels]
    return model, maps


def check_outputs(golden, names, levels):
    for name, values in zip(names, levels, strict=True):
        for i, value in enumerate(values):
            assert golden.error(f"{name}{i}", value) < HEAD, f"{name}{i}"


@pytest.mark.parametrize(
    ("name", "system", "levels"),
    [
        ("heads_retina_uniconvnet_a", "retinanet", slice(1, None)),
        ("heads_ssd_uniconvnet_a", "ssdlite", slice(None)),
    ],
)
def test_one_stage_heads(name, system, levels):
    golden = Golden(name)
    model, maps = pyramid_model(golden, system, levels)
    batch = golden.batch(torch.zeros(2, 3, 8, 8))
    pyramid = model.features(batch)
    outputs = model.bbox_head(pyramid)
    check_outputs(golden, ("neck", "cls", "reg"), (pyramid, *outputs))
    anchors = model.bbox_head.anchors([x.shape[-2:] for x in outputs[0]], outputs[0][0])
    check_outputs(golden, ("anchors",), [anchors])
    found = model.detect(batch)
    golden.check_detections(found, share=1)
    golden.check_same_order(found)
    losses = means(model.terms(batch, golden.targets()))
    for key, value in losses.items():
        golden.check_loss(key, value)
    golden.check_gradients(name, model, maps, sum(losses.values()))


def test_mask_rcnn_heads(first_candidates):
    name = "heads_mask_uniconvnet_t"
    golden = Golden(name)
    model, maps = pyramid_model(golden, "mask_rcnn", slice(None))
    as_measured(model, golden.spec["model"])
    batch = golden.batch(torch.zeros(2, 3, 8, 8))
    pyramid = model.features(batch)
    outputs = model.rpn_head(pyramid)
    check_outputs(golden, ("neck", "rpn_cls", "rpn_reg"), (pyramid, *outputs))
    anchors = model.rpn_head.anchors([x.shape[-2:] for x in outputs[0]], outputs[0][0])
    check_outputs(golden, ("anchors",), [anchors])
    golden.check_proposals(
        model.rpn_head.proposals(*outputs, batch.sizes, 1000, model.test_proposals)
    )
    proposals = [p[:, :4] for p in golden.proposals()]
    features = model.roi_head.box_pool(pyramid, proposals)
    assert golden.error("roi_feats", features) < HEAD
    logits, offsets = model.roi_head.bbox_head(features)
    assert golden.error("roi_cls", logits) < HEAD
    assert golden.error("roi_reg", offsets) < HEAD
    masks = model.roi_head.mask_head(model.roi_head.mask_pool(pyramid, [p[:10] for p in proposals]))
    assert golden.error("mask_logits", masks) < HEAD
    found = model.roi_head.detect(pyramid, proposals, batch)
    golden.check_detections(found, share=1)
    golden.check_masks(found)
    losses = means(model.terms(batch, golden.targets()))
    for key, value in losses.items():
        golden.check_loss(key, value)
    golden.check_gradients(name, model, maps, sum(losses.values()))


def test_segmentation_heads():
    name = "heads_seg_uniconvnet_a"
    golden = Golden(name)
    channels = golden.spec["input"]["channels"]
    model = torch.nn.ModuleDict(
        {
            "deeplabv3": ASPPHead(channels[-1], 150),
            "pspnet": PSPHead(channels[-1], 150),
            "upernet": UPerHead(channels, 150),
            "aux": FCNHead(channels[-2], 150),
            "fpnhead": FPNHead(256, 150),
            "neck": FPN(channels, num_outs=4),
        }
    )
    assert {k: tuple(v.shape) for k, v in model.state_dict().items()} == {
        k: tuple(shape) for k, (shape, _) in golden.spec["keys"].items()
    }
    load_heads(model, golden.state())
    maps = [x.requires_grad_() for x in golden.inputs()]
    pyramid = model["neck"](maps)
    check_outputs(golden, ("neck",), [pyramid])
    total = 0
    for head, weight in (
        ("deeplabv3", 1),
        ("pspnet", 1),
        ("upernet", 1),
        ("aux", 0.4),
        ("fpnhead", 1),
    ):
        logits = model[head](pyramid if head == "fpnhead" else maps)
        assert golden.error(f"{head}.logits", logits) < HEAD
        loss = weight * pixel_cross_entropy(logits, golden.labels(150)).mean()
        golden.check_loss(f"{head}.loss_ce", loss)
        total = total + loss
    golden.check_gradients(name, model, maps, total)


def test_flattened_levels_are_anchor_major():
    """Channel a * width + k of pixel (y, x) is entry k of anchor a of that pixel."""
    x = torch.arange(2 * 6 * 2 * 3).reshape(2, 6, 2, 3)
    (flat,) = flatten_levels([x], 3)
    assert flat[1, (1 * 3 + 2) * 2 + 1].tolist() == x[1, 3:6, 1, 2].tolist()


@pytest.mark.parametrize("system", ["deeplabv3", "pspnet", "upernet", "semantic_fpn", "fcn"])
def test_segmenters_on_given_maps(system):
    strides = {"upernet": (4, 8, 16, 32), "semantic_fpn": (4, 8, 16, 32), "fcn": (32,)}.get(
        system, (16, 32)
    )
    backbone = Maps([8 * s for s in strides], strides)
    backbone.given = [torch.randn(1, 8 * s, 64 // s, 96 // s) for s in strides]
    model = create_segmenter(system, backbone, num_classes=3).eval()
    assert model(torch.zeros(1, 3, 64, 96))["out"].shape == (1, 3, 64, 96)


__all__ = ["first_candidates"]
