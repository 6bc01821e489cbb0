"""Exported files are opened as a stranger would: with onnxruntime, torch.export, safetensors."""

import json

import pytest
import timm
import torch
from torch import nn

from seewide.errors import InputError
from seewide.export import export_model

NAMES = {"classes": "cat,dog", "mean": "0.5,0.5,0.5"}


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return timm.create_model("test_convnext", num_classes=10)


@pytest.fixture(scope="module")
def example():
    return torch.randn(1, 3, 64, 48, generator=torch.Generator().manual_seed(1))


def run_elsewhere(path, x):
    """The file's outputs for x and its metadata, without seewide.export's own reader."""
    if path.suffix == ".onnx":
        session = pytest.importorskip("onnxruntime").InferenceSession(path)
        (y,) = session.run(["output"], {"images": x.numpy()})
        return torch.from_numpy(y), session.get_modelmeta().custom_metadata_map
    extra = {"metadata.json": ""}
    y = torch.export.load(path, extra_files=extra).module()(x)
    return y, json.loads(extra["metadata.json"])


@pytest.mark.parametrize("format", ["onnx", "pt2"])
def test_the_file_runs_elsewhere_at_any_batch_size(model, example, tmp_path, format, capfd):
    if format == "onnx":
        pytest.importorskip("onnxruntime")
    report = export_model(model, tmp_path / f"m.{format}", format, example, NAMES)
    assert capfd.readouterr().out == ""
    assert model.training, "the model handed in stays in its mode"
    assert report.max_rel < 1e-5
    assert report.size_bytes == report.path.stat().st_size
    assert [p.name for p in tmp_path.iterdir()] == [f"m.{format}"], "one self-contained file"

    x = torch.randn(5, 3, 64, 48)
    y, metadata = run_elsewhere(report.path, x)
    with torch.no_grad():
        torch.testing.assert_close(y, model.eval()(x), rtol=1e-4, atol=1e-5)
    model.train()
    assert metadata.items() >= {**NAMES, "form": "fused", "input": "N,3,64,48"}.items()
    assert b"site-packages" not in report.path.read_bytes(), "names no folder of this machine"


def test_safetensors_hold_all_weights_and_the_metadata(model, example, tmp_path):
    from safetensors import safe_open

    report = export_model(model, tmp_path / "m.safetensors", "safetensors", example, NAMES)
    assert report.max_abs == 0
    with safe_open(report.path, "pt") as file:
        assert sorted(file.keys()) == sorted(model.state_dict())
        assert file.metadata()["classes"] == "cat,dog"


def test_feature_maps_are_compared_one_by_one(example, tmp_path):
    model = timm.create_model("test_convnext", features_only=True)
    report = export_model(model, tmp_path / "m.pt2", "pt2", example)
    maps = torch.export.load(report.path).module()(example)
    assert [tuple(y.shape) for y in maps] == [tuple(y.shape) for y in model(example)]


class Drifts(nn.Module):
    """Another result at every call, which no file can hold."""

    calls = 0

    def forward(self, x):
        self.calls += 1
        return x.mean((2, 3)) * self.calls


class KnowsItsBatch(nn.Module):
    def forward(self, x):
        return x.mean((2, 3)) if len(x) == 3 else x.amax((2, 3))


@pytest.mark.parametrize("format", ["onnx", "pt2", "safetensors"])
def test_a_file_that_computes_something_else_is_refused(example, tmp_path, format):
    if format == "onnx":
        pytest.importorskip("onnxruntime")
    path = tmp_path / f"m.{format}"
    path.write_bytes(b"what was there before")
    with pytest.raises(InputError, match=r"deviate by .* relative, allowed is 1e-04"):
        export_model(Drifts(), path, format, example)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
    assert path.read_bytes() == b"what was there before"


def test_bad_input_is_one_sentence(model, example, tmp_path, monkeypatch):
    with pytest.raises(InputError, match="unknown export format 'onx'; did you mean onnx"):
        export_model(model, tmp_path / "m.onx", "onx", example)
    with pytest.raises(InputError, match=r"format pt2 ends in .pt2, got .*m.onnx"):
        export_model(model, tmp_path / "m.onnx", "pt2", example)
    with pytest.raises(InputError, match=r"shape \(3, 64, 48\)"):
        export_model(model, tmp_path / "m.pt2", "pt2", example[0])
    with pytest.raises(InputError, match="exported as pt2 with a free batch size") as refusal:
        export_model(KnowsItsBatch(), tmp_path / "m.pt2", "pt2", example.expand(2, -1, -1, -1))
    assert "\n" not in str(refusal.value)
    monkeypatch.setitem(__import__("sys").modules, "onnxruntime", None)
    with pytest.raises(InputError, match=r"pip install seewide\[export\]"):
        export_model(model, tmp_path / "m.onnx", "onnx", example)
    assert list(tmp_path.iterdir()) == []
