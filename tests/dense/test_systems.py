"""Every system on several backbones, in torchvision's calling convention."""

import pytest
import timm
import torch

import seewide
from seewide import InputError, create_detector, create_segmenter
from seewide.dense import BatchImages, list_detectors, list_segmenters, means
from seewide.dense.matching import Sampler

SMALL = BatchImages(short=96, long=128)


def detector(system, backbone="lsnet_t", classes=3, **options):
    if system != "ssdlite":
        options.setdefault("images", SMALL)
    model = create_detector(system, backbone, classes, **options)
    if hasattr(model, "roi_head"):  # fewer regions, since four convolutions on each take time
        model.roi_head.sampler = Sampler(8, 0.25)
        model.train_proposals = model.test_proposals = 8
    return model


def data():
    images = [torch.rand(3, 96, 128), torch.randint(0, 256, (3, 60, 90), dtype=torch.uint8)]
    box = torch.tensor([[10.0, 10, 80, 70]])
    mask = torch.zeros(1, 96, 128, dtype=torch.uint8)
    mask[:, 10:70, 10:80] = 1
    objects = {"boxes": box, "labels": torch.tensor([2]), "masks": mask}
    empty = {
        "boxes": torch.zeros(0, 4),
        "labels": torch.zeros(0, dtype=torch.long),
        "masks": torch.zeros(0, 60, 90, dtype=torch.uint8),
    }
    return images, [objects, empty]


@pytest.mark.parametrize(
    ("system", "backbone"),
    [
        ("cascade_mask_rcnn", "unireplknet_a"),
        ("cascade_rcnn", "resnet18"),
        ("mask_rcnn", "lsnet_t"),
        ("faster_rcnn", "uniconvnet_a"),
        ("retinanet", "lsnet_t"),
        ("retinanet", "mobilenetv3_small_100"),
        ("ssdlite", "unireplknet_a"),
        ("ssdlite", "lsnet_t"),
    ],
)
def test_detectors_learn_and_detect(system, backbone):
    model = detector(system, backbone)
    images, targets = data()
    losses = model.train()(images, targets)
    assert all(loss.isfinite() for loss in losses.values())
    sum(losses.values()).backward()
    missing = {n.split(".")[0] for n, p in model.named_parameters() if p.grad is None}
    assert not missing - {"backbone", "neck"}
    found = model.eval()(images)
    for result, image in zip(found, images, strict=True):
        height, width = image.shape[-2:]
        boxes, scores, labels = (result[k] for k in ("boxes", "scores", "labels"))
        assert boxes.shape == (len(scores), 4)
        assert (boxes >= 0).all()
        assert (boxes[:, 0::2] <= width + 1e-3).all()
        assert (boxes[:, 1::2] <= height + 1e-3).all()
        assert (scores.diff() <= 0).all()
        assert set(labels.tolist()) <= {0, 1, 2}
        assert ("masks" in result) == ("mask" in system)
        if "masks" in result:
            assert result["masks"].shape == (len(scores), 1, height, width)
            assert result["masks"].dtype == torch.bool


def test_batch_without_any_object_trains():
    images, (_, empty) = data()
    model = detector("mask_rcnn").train()
    losses = model(images[1:], [empty])
    assert float(losses["loss_bbox"].detach()) == 0
    assert float(losses["loss_mask"].detach()) == 0
    sum(losses.values()).backward()
    assert all(p.grad is not None for p in model.roi_head.mask_head.parameters())


def test_mean_losses_are_the_terms_divided():
    images, targets = data()
    model = detector("retinanet").train()
    terms = model.loss_terms(images, targets)
    assert means(terms).keys() == model(images, targets).keys()
    for term in terms.values():
        assert float(term.mean().detach()) == pytest.approx(
            float(term.total.detach()) / float(term.weight), rel=1e-5
        )


def test_images_of_a_batch_do_not_change_each_other():
    """Alone or beside a larger one, an image has the same detections."""
    images, _ = data()
    model = detector("retinanet", "resnet18").eval()
    model.bbox_head.selection = type(model.bbox_head.selection)(0.0, 50, 0.5, 20)
    alone, together = model(images[1:])[0], model(images)[1]
    torch.testing.assert_close(alone["scores"], together["scores"], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("system", list_segmenters())
def test_segmenters(system):
    model = create_segmenter(system, "lsnet_t" if system != "upernet" else "unireplknet_a", 3)
    x = torch.rand(2, 3, 64, 96)
    out = model.train()(x)
    assert all(logits.shape == (2, 3, 64, 96) for logits in out.values())
    assert ("aux" in out) == (model.auxiliary_head is not None)
    assert list(model.eval()(x)) == ["out"]


def test_given_network_and_named_one_are_the_same_system():
    torch.manual_seed(1)
    named = create_segmenter("upernet", "unireplknet_a", 3)
    given = create_segmenter("upernet", timm.create_model("unireplknet_a", features_only=True), 3)
    assert named.state_dict().keys() == given.state_dict().keys()
    five = timm.create_model("resnet18", features_only=True)
    assert create_segmenter("upernet", five, 3).take == (1, 2, 3, 4)


def test_group_channels_reach_the_backbone():
    """The papers' N0 in RetinaNet has 20.7 M parameters, which are those of 8 channels a group."""
    with torch.device("meta"):
        sizes = [
            sum(
                p.numel()
                for p in create_detector("retinanet", "uniconvnet_n0", **options).parameters()
            )
            for options in ({"group_channels": 8}, {})
        ]
    assert sizes[0] / 1e6 == pytest.approx(20.72, abs=0.01)
    assert sizes[1] / 1e6 == pytest.approx(19.75, abs=0.01)


@pytest.mark.parametrize(
    ("create", "system", "backbone", "millions"),
    [
        (create_detector, "retinanet", "uniconvnet_a", 12.56),
        (create_detector, "ssdlite", "uniconvnet_a", 4.36),
        (create_segmenter, "deeplabv3", "uniconvnet_a", 7.89),
        (create_segmenter, "pspnet", "uniconvnet_a", 6.51),
        (create_detector, "mask_rcnn", "uniconvnet_n2", 34.74),
        (create_segmenter, "upernet", "uniconvnet_n2", 43.9),
    ],
)
def test_parameters_of_the_papers_tables(create, system, backbone, millions):
    classes = 80 if create is create_detector else 150
    with torch.device("meta"):
        model = create(system, backbone, classes)
    count = sum(p.numel() for p in model.parameters()) / 1e6
    assert count == pytest.approx(millions, abs=0.05)


def test_frozen_statistics():
    """As LSNet's detectors: running statistics stay, scale and shift learn."""
    model = detector("retinanet", freeze_statistics=True).train()
    norms = [m for m in model.backbone.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    before = norms[0].running_mean.clone()
    images, targets = data()
    sum(model(images, targets).values()).backward()
    assert torch.equal(norms[0].running_mean, before)
    assert norms[0].weight.grad is not None
    assert not any(norm.training for norm in norms)
    assert model.eval().train().neck.training


def test_fused_detector_is_the_same():
    model = detector("retinanet", "unireplknet_a").eval()
    fused, report = seewide.reparam.fuse_checked(model, torch.randn(1, 3, 64, 96))
    assert report.deviation < 1e-4
    assert sum(p.numel() for p in fused.parameters()) < sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"boxes": torch.tensor([[5.0, 5, 5, 9]])}, "x1 < x2 and y1 < y2"),
        ({"boxes": torch.tensor([[5.0, 5, float("nan"), 9]])}, "must be finite"),
        ({"labels": torch.tensor([3])}, "labels of image 0 must be 0 to 2, got"),
        ({"boxes": torch.zeros(1, 5)}, r"must be \(G, 4\)"),
        ({"masks": torch.zeros(2, 9, 9)}, r"masks of image 0 must be \(1, H, W\)"),
    ],
)
def test_bad_targets_are_refused(change, sentence):
    images, (target, _) = data()
    model = detector("mask_rcnn").train()
    with pytest.raises(InputError, match=sentence):
        model(images[:1], [{**target, **change}])


def test_bad_calls_are_refused():
    images, _ = data()
    model = detector("retinanet").train()
    with pytest.raises(InputError, match="needs targets, got None"):
        model(images)
    with pytest.raises(InputError, match=r"a tensor \(3, H, W\), got \(1, 9, 9\)"):
        model.eval()([torch.zeros(1, 9, 9)])
    with pytest.raises(InputError, match="an empty one"):
        model.eval()([])
    with pytest.raises(InputError, match="did you mean retinanet"):
        create_detector("retinanett", "lsnet_t")
    with pytest.raises(InputError, match="unknown segmenter 'uper'"):
        create_segmenter("uper", "lsnet_t")
    with pytest.raises(InputError, match="unknown backbone 'lsnet_q'"):
        create_detector("retinanet", "lsnet_q")
    with pytest.raises(InputError, match="num_classes must be at least 1, got 0"):
        create_detector("retinanet", "lsnet_t", 0)
    with pytest.raises(InputError, match=r"not of \[4, 8, 32\]"):
        create_detector("mask_rcnn", "vit_tiny_patch16_224")


def test_names():
    assert list_detectors() == [
        "cascade_mask_rcnn", "cascade_rcnn", "mask_rcnn", "faster_rcnn", "retinanet", "ssdlite"
    ]  # fmt: skip
    assert list_segmenters() == ["upernet", "semantic_fpn", "deeplabv3", "pspnet", "fcn"]
