"""Depthwise convolutions rewritten for a runtime compute the same."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from seewide.errors import InputError
from seewide.export.fourier import ConcatPadded, FourierDepthwise, rewrite
from seewide.layers import DepthwiseConv2d
from seewide.numerics import assert_close


def convolution(C, kh, kw, dtype=torch.float64, bias=True):
    torch.manual_seed(0)
    weight = torch.randn(C, 1, kh, kw, dtype=dtype)
    return DepthwiseConv2d.of(weight, torch.randn(C, dtype=dtype) if bias else None)


@pytest.mark.parametrize("kernel", [(3, 3), (13, 13), (31, 5), (1, 51), (101, 101)])
@pytest.mark.parametrize("size", [(14, 14), (9, 16), (1, 1), (23, 8)])
def test_the_fourier_form_is_the_convolution(kernel, size):
    """Odd and even sizes, kernels larger than the map, one pixel."""
    conv = convolution(3, *kernel)
    layer = FourierDepthwise(conv.weight, conv.bias, *size)
    x = torch.randn(2, 3, *size, dtype=torch.float64)
    pads = (kernel[0] // 2, kernel[1] // 2)
    want = F.conv2d(x, conv.weight, conv.bias, padding=pads, groups=3)
    with torch.no_grad():
        assert_close(layer(x), want)
        assert_close(ConcatPadded(conv)(x), want)


def test_float32_error_is_that_of_rounding():
    conv = convolution(8, 51, 51, torch.float32)
    layer = FourierDepthwise(conv.weight, conv.bias, 56, 56)
    x = torch.randn(1, 8, 56, 56)
    want = F.conv2d(x.double(), conv.weight.double(), conv.bias.double(), padding=25, groups=8)
    with torch.no_grad():
        assert_close(layer(x), want.float(), factor=0.2)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = convolution(4, 31, 31, torch.float32), nn.MaxPool2d(2)
        self.c, self.d = (
            convolution(4, 13, 13, torch.float32),
            convolution(4, 13, 13, torch.float32),
        )
        self.e = convolution(4, 5, 5, torch.float32)

    def forward(self, x):
        return self.e(self.d(self.c(self.b(self.a(x)))))


@pytest.mark.parametrize(
    ("runtime", "free", "forms"),
    [
        ("onnxruntime", False, ["fourier", "concat"]),
        ("onnxruntime", True, ["concat", "concat"]),
        ("openvino", False, ["fourier", "plain"]),
        ("web", False, ["fourier", "fourier"]),
        ("web", True, ["plain", "plain"]),
    ],
)
def test_each_runtime_has_its_rule(runtime, free, forms):
    net, x = Net().eval(), torch.randn(1, 4, 24, 20)
    rewritten, choices = rewrite(net, x, runtime, free)
    assert [choice.form for choice in choices] == forms
    assert [choice.layers for choice in choices] == [1, 2]
    assert choices[1].size == (12, 10)
    with torch.no_grad():
        assert_close(rewritten(x), net(x))
    assert isinstance(net.a, DepthwiseConv2d), "the model itself is not changed"
    if free:
        x = torch.randn(1, 4, 32, 40)
        with torch.no_grad():
            assert_close(rewritten(x), net(x))


def test_unknown_runtimes_are_refused():
    with pytest.raises(InputError, match="unknown runtime 'tensort'"):
        rewrite(Net(), torch.randn(1, 4, 24, 20), "tensort")


def test_auto_times_every_form_and_exports_what_it_chose(tmp_path):
    pytest.importorskip("onnxruntime")
    from seewide.export import export_model, load_exported

    net, x = Net().eval(), torch.randn(1, 4, 24, 20)
    report = export_model(net, tmp_path / "net.onnx", "onnx", x, for_runtime="auto")
    assert len(report.notes) == 2
    for note in report.notes.values():
        assert all(form in note for form in ("plain", "concat", "fourier", "ms"))
    exported = load_exported(report.path)
    assert exported.metadata["runtime"] == "auto"
    with torch.no_grad():
        assert_close(exported(x)[0], net(x))
