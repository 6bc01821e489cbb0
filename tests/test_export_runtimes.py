"""Free sizes, int8 and OpenVINO: files are opened again and compared."""

import pytest
import timm
import torch
from torch import nn

from seewide.errors import InputError
from seewide.export import export_model, load_exported, onnx, quantize
from seewide.export.common import Axes
from seewide.numerics import deviation
from seewide.reparam import randomize

pytest.importorskip("onnxruntime")


@pytest.fixture(scope="module")
def model():
    return randomize(timm.create_model("test_convnext", num_classes=10), seed=1).eval()


@pytest.fixture(scope="module")
def example():
    return torch.randn(1, 3, 64, 48, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def free(model, example, tmp_path_factory):
    path = tmp_path_factory.mktemp("free") / "net.onnx"
    return export_model(model, path, "onnx", example, {"classes": "a,b"}, free_size=True)


def test_free_sizes_are_compared_and_declared(model, free):
    assert len({shape[2:] for shape in free.shapes}) == 3
    exported = load_exported(free.path)
    assert exported.input == ("N", 3, "H", "W")
    for size in ((96, 96), (64, 160), (40, 72)):
        x = torch.randn(2, 3, *size)
        with torch.no_grad():
            assert deviation(exported(x)[0], model(x)) < 1e-5


def test_an_axis_that_the_exporter_fixed_is_noticed(model, example, tmp_path):
    """As torch.onnx.export does in silence where a layer depends on the size."""
    report = export_model(model, tmp_path / "fixed.onnx", "onnx", example)
    with pytest.raises(InputError, match=r"axis 2 of the input should be free, .* fixed it at 64"):
        onnx.check_axes(report.path, Axes(size=True))
    with pytest.raises(InputError, match=r"takes images of shape \(N, 3, 64, 48\), got"):
        load_exported(report.path)(torch.randn(1, 3, 64, 64))


class ForOneSize(nn.Module):
    """Has a shortcut for the size it was traced at."""

    def forward(self, x):
        return x.mean((2, 3)) if x.shape[2] == x.shape[3] else 2 * x.mean((2, 3))


def test_a_model_that_depends_on_its_size_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"not exported|cannot be exported"):
        export_model(
            ForOneSize(), tmp_path / "a.onnx", "onnx", torch.randn(1, 3, 64, 64), free_size=True
        )
    assert list(tmp_path.iterdir()) == []


def test_int8_agrees_with_float32_or_is_refused(free, model, tmp_path):
    generator = torch.Generator().manual_seed(0)
    images = [torch.randn(3, 64, 48, generator=generator) + i % 4 for i in range(16)]
    labels = [0] * 16
    report = quantize(free.path, tmp_path / "a.onnx", images, labels=labels, least_agreement=0.5)
    assert 0.5 <= report.agreement <= 1
    assert report.accuracy is not None
    assert report.size_bytes < free.size_bytes
    exported = load_exported(tmp_path / "a.onnx")
    assert exported.metadata["precision"] == "int8"
    assert exported.metadata["classes"] == "a,b"
    with torch.no_grad():
        found = deviation(exported(images[0][None])[0], model(images[0][None]))
    assert 1e-6 < found < 0.5
    with pytest.raises(InputError, match=r"only .*% of the answers .* at least 110%"):
        quantize(free.path, tmp_path / "b.onnx", images, least_agreement=1.1)
    with pytest.raises(InputError, match="needs images to calibrate on"):
        quantize(free.path, tmp_path / "b.onnx", [])
    assert not (tmp_path / "b.onnx").exists()


@pytest.mark.parametrize("format", ["openvino", "openvino_f16"])
def test_openvino(model, example, tmp_path, format):
    pytest.importorskip("openvino")
    report = export_model(model, tmp_path / "net.xml", format, example, {"classes": "a,b"})
    assert sorted(p.name for p in tmp_path.iterdir()) == ["net.bin", "net.xml"]
    exported = load_exported(report.path)
    assert exported.metadata["classes"] == "a,b"
    with torch.no_grad():
        found = deviation(exported(example)[0], model(example))
    assert found < (1e-5 if format == "openvino" else 3e-2)


def test_files_that_are_none(tmp_path):
    for name in ("a.onnx", "a.xml", "a.pt2"):
        if name.endswith("xml"):
            pytest.importorskip("openvino")
        (tmp_path / name).write_bytes(b"no network")
        with pytest.raises(InputError) as caught:
            load_exported(tmp_path / name)
        assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match="there is no exported network"):
        load_exported(tmp_path / "none.onnx")
    with pytest.raises(InputError, match="ends in one of"):
        load_exported(tmp_path / "a.pth")
