"""Front-end plus network as ONNX, compared with ONNX Runtime; a sentence where that cannot be."""

from __future__ import annotations

import pytest
import timm
import torch

from seewide.export import export_model, load_exported
from seewide.modalities import (
    AudioClassifier,
    Forecaster,
    FramesToMap,
    LogMel,
    VideoClassifier,
)
from seewide.tasks import get_task

SMALL = {"dims": (8, 12, 16, 20), "depths": (1, 1, 1, 1)}


def network(in_chans: int, num_classes: int = 5) -> torch.nn.Module:
    return timm.create_model("unireplknet_a", in_chans=in_chans, num_classes=num_classes, **SMALL)


MODELS = {
    "video": (lambda: VideoClassifier(network(3), 5, FramesToMap()), (2, 3, 4, 16, 16)),
    "audio": (lambda: AudioClassifier(network(1), 5, LogMel(8000, 32, 32)), (2, 2720)),
    "series": (lambda: Forecaster(network(1, 0), 16, 8, 1, 2, 16, "linear"), (2, 16, 2)),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_signals_are_exported_with_their_front_end(name, tmp_path):
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime")
    build, shape = MODELS[name]
    model = build().eval()
    report = export_model(model, tmp_path / "model.onnx", "onnx", torch.randn(shape))
    assert report.max_rel < 1e-4
    loaded = load_exported(tmp_path / "model.onnx")
    assert loaded.input == ("N", *shape[1:])
    x = torch.randn(3, *shape[1:])
    with torch.no_grad():
        wanted = model(x)
    torch.testing.assert_close(loaded(x)[0], wanted, rtol=1e-3, atol=1e-4)


def test_models_with_two_inputs_are_refused_in_a_sentence():
    assert "reads words beside the image" in get_task("referring").not_exported
