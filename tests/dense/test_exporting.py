"""Whole systems in ONNX: the detections of the graph are those of the model, at every size."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import seewide
from seewide.dense import BatchImages
from seewide.dense.exporting import DetectorGraph, SegmenterGraph, run_graph
from seewide.export import export_model, load_exported
from seewide.export.common import Axes
from seewide.tasks import get_task


def confident(system: str, backbone: str, **options):
    """A detector whose random weights detect something."""
    torch.manual_seed(0)
    model = seewide.create_detector(system, backbone, 3, **options).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith(("retina_cls.weight", "fc_cls.weight", "rpn_cls.weight")):
                parameter.mul_(30)
            if name.endswith("retina_cls.bias"):
                parameter.fill_(-1)
    return model


def test_axes_of_a_file():
    assert Axes().shapes((2, 3, 64, 96)) == [(2, 3, 64, 96), (3, 3, 64, 96)]
    shapes = [(2, 3, 64, 96), (3, 3, 128, 128), (1, 3, 64, 192)]
    assert Axes(size=True).shapes((2, 3, 64, 96)) == shapes
    axes = Axes(batch=False, size=True, least=160, multiple=32)
    shapes = [(1, 3, 160, 160), (1, 3, 224, 192), (1, 3, 160, 256)]
    assert axes.shapes((1, 3, 160, 160)) == shapes
    assert str(Axes(batch=False, size=True)) == "height, width"


def test_graph_gives_the_detections_of_the_model():
    """On an image that needs no padding to the bit; on others the network sees the same pixels."""
    images = BatchImages(160, 400)
    model = confident("retinanet", "unireplknet_a", images=images)
    image = torch.randint(0, 256, (3, 160, 224), dtype=torch.uint8)
    with torch.no_grad():
        (wanted,) = model([image])
        found = run_graph(DetectorGraph(model), image, images)
    assert len(wanted["boxes"]) > 5
    for key in ("boxes", "scores", "labels"):
        assert torch.equal(found[key], wanted[key]), key
    larger = torch.randint(0, 256, (3, 250, 301), dtype=torch.uint8)
    with torch.no_grad():
        found = run_graph(DetectorGraph(model), larger, images)
    assert found["boxes"].amax(0).tolist() <= [301, 250, 301, 250]


def test_masks_of_the_graph_fit_the_image():
    images = BatchImages(160, 400)
    model = confident("mask_rcnn", "mobilenetv3_small_050", images=images)
    image = torch.randint(0, 256, (3, 160, 224), dtype=torch.uint8)
    with torch.no_grad():
        (wanted,) = model([image])
        found = run_graph(DetectorGraph(model), image, images)
    assert torch.equal(found["masks"], wanted["masks"])
    assert found["masks"].shape[1:] == (1, 160, 224)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("system", "backbone"),
    [
        ("retinanet", "unireplknet_a"),
        ("mask_rcnn", "mobilenetv3_small_050"),
        ("cascade_rcnn", "mobilenetv3_small_050"),
    ],
)
def test_detectors_in_onnx(system, backbone, tmp_path):
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime")
    task = get_task("detection")(get_task("detection").Options(system=system, short=320))
    preprocess = {"short": 320, "long": 640, "mean": [0.5] * 3, "std": [0.5] * 3}
    images = task.images(preprocess)
    model = confident(system, backbone, images=images)
    graph, settings = task.graph(model)
    example = task.example({}, preprocess, 1)
    path = tmp_path / "system.onnx"
    report = export_model(graph, path, "onnx", example, axes=Axes(**settings))
    assert report.max_rel < 1e-4
    exported = load_exported(path)
    assert exported.metadata["outputs"].startswith("boxes,scores,labels")
    generator = np.random.default_rng(0)
    for size in ((320, 448), (480, 320), (200, 300)):
        image = torch.from_numpy(generator.integers(0, 256, (3, *size), dtype=np.uint8))
        with torch.no_grad():
            wanted = run_graph(graph, image, images)
        found = run_graph(exported, image, images)
        assert len(wanted["boxes"]) > 5
        assert torch.equal(found["labels"], wanted["labels"])
        torch.testing.assert_close(found["boxes"], wanted["boxes"], rtol=1e-4, atol=1e-2)
        torch.testing.assert_close(found["scores"], wanted["scores"], rtol=1e-4, atol=1e-5)
        if "masks" in wanted:
            assert (found["masks"] == wanted["masks"]).float().mean() > 0.9999


@pytest.mark.slow
@pytest.mark.parametrize("system", ["upernet", "semantic_fpn", "deeplabv3", "pspnet"])
def test_segmenters_in_onnx(system, tmp_path):
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime")
    torch.manual_seed(0)
    model = seewide.create_segmenter(system, "mobilenetv3_small_050", 3).eval()
    task = get_task("segmentation")(get_task("segmentation").Options(system=system))
    graph, settings = task.graph(model)
    assert isinstance(graph, SegmenterGraph)
    path = tmp_path / "system.onnx"
    export_model(graph, path, "onnx", torch.randn(2, 3, 64, 96), axes=Axes(**settings))
    exported = load_exported(path)
    for shape in ((1, 3, 64, 128), (3, 3, 96, 64)):
        x = torch.randn(shape)
        with torch.no_grad():
            wanted = graph(x)
        torch.testing.assert_close(exported(x)[0], wanted, rtol=1e-4, atol=1e-4)
