"""Convolution by Fourier transforms against the definition, and where it is chosen."""

import pytest
import torch

from seewide.kernels.cpu import depthwise, fourier
from seewide.ops import depthwise_conv2d
from seewide.ops.depthwise import depthwise_conv2d_reference
from seewide.testing import assert_equal, assert_matches_reference

SHAPES = [  # N, C, H, W, kh, kw: odd and non-square maps, kernels larger than the map, strips
    (1, 3, 19, 23, 13, 13),
    (2, 2, 23, 14, 31, 31),
    (2, 3, 9, 30, 5, 21),
    (1, 2, 30, 9, 21, 5),
    (3, 1, 1, 7, 1, 13),
    (1, 2, 5, 5, 1, 1),
]


@pytest.fixture
def everywhere(monkeypatch):
    """Transforms also where direct sums are faster."""
    monkeypatch.setattr(depthwise, "fourier_pays", lambda *args: True)


@pytest.mark.usefixtures("everywhere")
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("shape", SHAPES, ids=lambda s: "x".join(map(str, s)))
def test_output_and_gradients_match_the_definition(shape, layout):
    N, C, H, W, kh, kw = shape
    x = torch.randn(N, C, H, W).contiguous(memory_format=layout)
    weight, bias = torch.randn(C, 1, kh, kw) / (kh * kw) ** 0.5, torch.randn(C)
    assert depthwise.plan(x, weight, bias, 1) == "fourier"
    assert_matches_reference(depthwise_conv2d, depthwise_conv2d_reference, (x, weight, bias))
    assert depthwise_conv2d(x, weight, bias).is_contiguous(memory_format=layout)


@pytest.mark.usefixtures("everywhere")
def test_second_derivatives():
    x = torch.randn(2, 2, 4, 5, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(2, 1, 3, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(depthwise_conv2d, (x, weight))
    assert torch.autograd.gradgradcheck(depthwise_conv2d, (x, weight))


@pytest.mark.usefixtures("everywhere")
def test_in_parts_of_the_channels(monkeypatch):
    monkeypatch.setattr(fourier, "TILE_BYTES", 2 * 4 * 24 * 30)
    x, weight = torch.randn(2, 5, 17, 21), torch.randn(5, 1, 13, 13)
    assert_matches_reference(depthwise_conv2d, depthwise_conv2d_reference, (x, weight))


@pytest.mark.skipif(not torch.backends.mkl.is_available(), reason="transforms are not MKL's")
@pytest.mark.parametrize(("side", "size", "chosen"), [
    (56, 13, False), (56, 31, True), (56, 101, True), (14, 27, False), (224, 51, True),
])  # fmt: skip
def test_it_is_chosen_for_large_kernels_on_large_maps(side, size, chosen):
    x, weight = torch.empty(1, 2, side, side), torch.empty(2, 1, size, size)
    assert (depthwise.plan(x, weight, None, 1) == "fourier") == chosen
    assert depthwise.plan(x, weight, None, 2) != "fourier"


@pytest.mark.usefixtures("everywhere")
def test_large_maps_far_from_zero_mean():
    x, weight = 10 + torch.randn(1, 1, 256, 256), torch.randn(1, 1, 101, 101) / 101
    want = fourier.convolve(x.double(), weight.double(), None)
    assert_equal(depthwise_conv2d(x, weight), want)
    padded = torch.nn.functional.pad(x.double(), (50,) * 4)
    for i, j in ((0, 0), (128, 7), (255, 255)):
        direct = (padded[0, 0, i : i + 101, j : j + 101] * weight[0, 0].double()).sum()
        assert torch.isclose(want[0, 0, i, j], direct, rtol=1e-10)
