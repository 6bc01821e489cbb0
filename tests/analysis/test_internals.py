"""Effective kernels, feature maps and aggregation coefficients against known values."""

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from torch import nn

from seewide.analysis.internals import (
    accumulated_coefficients,
    draw_maps,
    erf_by_layer,
    feature_maps,
    impulse_response,
)
from seewide.errors import InputError
from seewide.layers.dilated_reparam import DilatedReparamBlock
from seewide.layers.peripheral import PeripheralConv2d
from seewide.ops.aggregation import small_kernel_aggregation_reference


def test_impulse_response_of_a_convolution_is_its_kernel():
    conv = nn.Conv2d(4, 4, (5, 7), padding="same", groups=4)
    found = impulse_response(conv, 4, 9)
    assert found.shape == (4, 9, 9)
    np.testing.assert_allclose(found[:, 2:7, 1:8], conv.weight[:, 0].detach(), atol=1e-6)
    found[:, 2:7, 1:8] = 0
    np.testing.assert_allclose(found, 0, atol=1e-6)


def test_impulse_response_of_branches_is_the_fused_kernel():
    block = DilatedReparamBlock(3, 13).eval()
    for name, buffer in block.named_buffers():
        if name.endswith("running_var"):
            buffer.uniform_(0.5, 2)
    fused = block.fuse()
    np.testing.assert_allclose(
        impulse_response(block, 3, 13), fused.weight[:, 0].detach(), atol=1e-5
    )


def test_impulse_response_of_a_peripheral_convolution_is_expanded():
    grid = [4, 2, 1, 2, 4]
    conv = PeripheralConv2d(2, grid)
    nn.init.normal_(conv.weight)
    cells = torch.tensor(grid)
    expected = conv.weight.repeat_interleave(cells, 1).repeat_interleave(cells, 2)
    np.testing.assert_allclose(impulse_response(conv, 2, 13), expected.detach(), atol=1e-5)
    assert impulse_response(lambda x: 2 * x + 1, 1, 1).item() == 2


def test_accumulated_coefficients_are_the_gradient_of_the_aggregation():
    """The coefficient of a token is the derivative of the sum of all outputs."""
    weights = torch.randn(2, 3 * 9, 5, 7, dtype=torch.double)
    x = torch.zeros(2, 6, 5, 7, dtype=torch.double, requires_grad=True)
    y = small_kernel_aggregation_reference(x, weights.unflatten(1, (3, 9)))
    (gradient,) = torch.autograd.grad(y[0].sum(), x)
    np.testing.assert_allclose(
        accumulated_coefficients(weights, 9), gradient[0].mean(0), rtol=1e-12, atol=1e-12
    )


def test_accumulated_coefficients_by_hand():
    """Each token has weight 1 for itself, but the right one of the middle row for its neighbor."""
    weights = torch.zeros(1, 9, 3, 3)
    weights[:, 4] = 1
    weights[0, 4, 1, 2], weights[0, 3, 1, 2] = 0, 1  # tap 3 is the left neighbor
    np.testing.assert_array_equal(
        accumulated_coefficients(weights, 9), [[1, 1, 1], [1, 2, 0], [1, 1, 1]]
    )


def test_feature_maps_of_lsnet():
    model = timm.create_model("lsnet_t", depths=(2, 1, 1, 1), img_size=64).eval()
    names = ["stages.2.blocks.1.mixer.weight_norm", "stages.2.blocks.1.mixer.lkp.dw"]
    x = torch.randn(1, 3, 64, 64)
    weights, seen = feature_maps(model, x, names).values()
    assert weights.shape == (1, 8 * 9, 8, 8)
    assert seen.shape == (1, 32, 8, 8)
    assert seen.min() < 0, "the depthwise convolution, not the ReLU at the end"
    assert accumulated_coefficients(weights, 9).shape == (8, 8)


def test_the_erf_grows_through_the_aggregator():
    model = timm.create_model("uniconvnet_a", depths=(1, 1, 1, 1))
    layers = [f"stages.0.blocks.0.rfa.layers.{i}" for i in range(3)]
    flow = erf_by_layer(model, [torch.randn(3, 96, 96)], layers)
    sides = [field.support[0] for field in flow.values()]
    assert sides[0] < sides[1] < sides[2]


def test_figure_of_signed_maps(tmp_path):
    maps = {"up": np.eye(5), "down": -np.eye(5)}
    path = draw_maps(maps, tmp_path / "a.png", signed=True)
    with Image.open(path) as image:
        pixels = np.asarray(image.convert("RGB")).reshape(-1, 3).astype(int)
    red, blue = pixels[:, 0] - pixels[:, 2] > 60, pixels[:, 2] - pixels[:, 0] > 40
    assert red.any()
    assert blue.any()


def test_bad_input(tmp_path):
    with pytest.raises(InputError, match="must be odd, got size=4"):
        impulse_response(nn.Identity(), 1, 4)
    with pytest.raises(InputError, match=r"returns \(1, 2, 3, 3\) for \(1, 2, 5, 5\)"):
        impulse_response(nn.Conv2d(2, 2, 3), 2, 3)
    model = timm.create_model("test_convnext")
    with pytest.raises(InputError, match="unknown layer of ConvNeXt 'stage'"):
        feature_maps(model, torch.zeros(1, 3, 32, 32), ["stage"])
    with pytest.raises(InputError, match=r"are \(N, sets \* 9, H, W\), got shape \(1, 8, 2, 2\)"):
        accumulated_coefficients(torch.zeros(1, 8, 2, 2), 9)
    for taps in (8, 16, 0):
        with pytest.raises(InputError, match=f"square of an odd number, got taps={taps}"):
            accumulated_coefficients(torch.zeros(1, 16, 2, 2), taps)
    with pytest.raises(InputError, match="no map to draw"):
        draw_maps({}, tmp_path / "a.png")
    with pytest.raises(InputError, match=r"a map is \(H, W\), x has shape \(2,\)"):
        draw_maps({"x": np.zeros(2)}, tmp_path / "a.png")
