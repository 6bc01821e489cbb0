"""Whole systems on the authors' backbones give what the authors' code gives."""

import pytest
import torch
import torch.nn.functional as F
from golden import Golden, as_measured, first_candidates

from seewide.dense import (
    average_views,
    create_detector,
    create_segmenter,
    load_weights,
    to_authors,
    whole_image,
)
from seewide.dense.losses import means

SYSTEM = 1e-4
HEAD = 1e-5


def filled(golden, model):
    """The model with the golden's weights, loaded under the authors' keys."""
    state = golden.state()
    theirs = to_authors(model)
    assert {k: list(v.shape) for k, v in theirs.items()} == {
        k: shape for k, (shape, _) in golden.spec["keys"].items()
    }
    integers = {k: v for k, v in theirs.items() if k not in state}
    assert all(not v.is_floating_point() for v in integers.values())
    return load_weights(model, {**state, **integers}).eval()


def check_outputs(golden, names, levels, tolerance=SYSTEM):
    for name, values in zip(names, levels, strict=True):
        for i, value in enumerate(values):
            assert golden.error(f"{name}{i}", value) < tolerance, f"{name}{i}"


def check_losses(golden, terms):
    losses = means(terms)
    for key, value in losses.items():
        golden.check_loss(key, value, SYSTEM)
    if "loss.total" in golden.arrays:
        golden.check_loss("total", sum(losses.values()), SYSTEM)


@torch.no_grad()
def test_retinanet_lsnet_t():
    golden = Golden("retinanet_lsnet_t")
    model = filled(golden, create_detector("retinanet", "lsnet_t"))
    batch = golden.batch(golden.inputs())
    maps = model.maps(batch.x_NCHW)
    pyramid = model.neck(maps)
    outputs = model.bbox_head(pyramid)
    check_outputs(golden, ("backbone", "neck", "cls", "reg"), (maps, pyramid, *outputs))
    found = model.bbox_head.detect(outputs, batch)
    golden.check_detections(found, share=1)
    check_losses(golden, model.terms(batch, golden.targets()))


@pytest.mark.slow
@torch.no_grad()
def test_mask_rcnn_lsnet_t(first_candidates):
    golden = Golden("maskrcnn_lsnet_t")
    model = as_measured(filled(golden, create_detector("mask_rcnn", "lsnet_t")), golden.spec)
    batch = golden.batch(golden.inputs())
    maps = model.maps(batch.x_NCHW)
    pyramid = model.neck(maps)
    outputs = model.rpn_head(pyramid)
    check_outputs(golden, ("backbone", "neck", "rpn_cls", "rpn_reg"), (maps, pyramid, *outputs))
    golden.check_proposals(
        model.rpn_head.proposals(*outputs, batch.sizes, 1000, model.test_proposals)
    )
    proposals = [p[:, :4] for p in golden.proposals()]
    features = model.roi_head.box_pool(pyramid, proposals)
    assert golden.error("roi_feats", features) < SYSTEM
    logits, offsets = model.roi_head.bbox_head(features)
    assert golden.error("roi_cls", logits) < SYSTEM
    assert golden.error("roi_reg", offsets) < SYSTEM
    masks = model.roi_head.mask_head(model.roi_head.mask_pool(pyramid, [p[:10] for p in proposals]))
    assert golden.error("mask_logits", masks) < SYSTEM
    found = model.roi_head.detect(pyramid, proposals, batch)
    golden.check_detections(found)
    golden.check_masks(found)
    terms = model.rpn_head.loss_terms(*outputs, batch, golden.targets())
    train = [p[:, :4] for p in golden.proposals("train_proposals")]
    terms |= model.roi_head.loss_terms(pyramid, train, batch, golden.targets())
    check_losses(golden, terms)


@pytest.mark.slow
@torch.no_grad()
def test_cascade_mask_rcnn_unireplknet_t(first_candidates):
    golden = Golden("cascade_unireplknet_t")
    model = filled(golden, create_detector("cascade_mask_rcnn", "unireplknet_t"))
    as_measured(model, golden.spec)
    batch = golden.batch(golden.inputs())
    maps = model.maps(batch.x_NCHW)
    pyramid = model.neck(maps)
    outputs = model.rpn_head(pyramid)
    check_outputs(golden, ("backbone", "neck", "rpn_cls", "rpn_reg"), (maps, pyramid, *outputs))
    golden.check_proposals(
        model.rpn_head.proposals(*outputs, batch.sizes, 1000, model.test_proposals)
    )
    roi, proposals = model.roi_head, [p[:, :4] for p in golden.proposals()]
    boxes = proposals
    assert golden.error("roi_feats", roi.box_pool(pyramid, boxes)) < SYSTEM
    for i in range(3):
        logits, offsets = roi.bbox_head[i](roi.box_pool(pyramid, boxes))
        assert golden.error(f"stage{i}.cls", logits) < SYSTEM
        assert golden.error(f"stage{i}.reg", offsets) < SYSTEM
        masks = roi.mask_head[i](roi.mask_pool(pyramid, [p[:10] for p in proposals]))
        assert golden.error(f"mask_logits{i}", masks) < SYSTEM
        if i < 2:
            boxes = [
                roi.refine(i, *parts)
                for parts in zip(
                    boxes, logits.split(250), offsets.split(250), batch.sizes, strict=True
                )
            ]
            rois = torch.cat([F.pad(b, (1, 0), value=n) for n, b in enumerate(boxes)])
            assert golden.error(f"stage{i}.refined", rois) < SYSTEM
    found = roi.detect(pyramid, proposals, batch)
    golden.check_detections(found)
    golden.check_masks(found)
    terms = model.rpn_head.loss_terms(*outputs, batch, golden.targets())
    train = [p[:, :4] for p in golden.proposals("train_proposals")]
    terms |= roi.loss_terms(pyramid, train, batch, golden.targets())
    check_losses(golden, terms)


@torch.no_grad()
def check_segmenter(golden, model, tolerance=SYSTEM):
    x = golden.inputs()
    maps = model.maps(x)
    check_outputs(golden, ("backbone",), (maps,), tolerance)
    if model.neck is not None:
        check_outputs(golden, ("neck",), (model.neck(maps),), tolerance)
    logits = model.logits(x, auxiliary=True)
    assert golden.error("decode_logits", logits["out"]) < tolerance
    terms = means(model.loss_terms(x, golden.labels(150)))
    golden.check_loss("decode.loss_ce", terms["loss_out"], tolerance)
    if model.auxiliary_head is not None:
        assert golden.error("aux_logits", logits["aux"]) < tolerance
        golden.check_loss("aux.loss_ce", terms["loss_aux"], tolerance)
    size = (x.shape[2] * 5 // 4, x.shape[3] * 5 // 4)
    probabilities = whole_image(model, x, size)
    assert golden.error("probabilities", probabilities) < tolerance
    ours = probabilities.argmax(1)[:, ::4, ::4]
    same = (ours == torch.from_numpy(golden.arrays["prediction"])).float().mean()
    assert same > 0.999
    flipped = average_views(lambda view: whole_image(model, view, size), [x])
    assert golden.error("flip_probabilities", flipped) < tolerance


def test_semantic_fpn_lsnet_t():
    golden = Golden("semfpn_lsnet_t")
    check_segmenter(golden, filled(golden, create_segmenter("semantic_fpn", "lsnet_t")))


def test_upernet_unireplknet_t():
    golden = Golden("upernet_unireplknet_t")
    check_segmenter(golden, filled(golden, create_segmenter("upernet", "unireplknet_t")))


__all__ = ["first_candidates"]
