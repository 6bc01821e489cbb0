"""Kernels that are known come back; maps are those of the layers."""

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from torch import nn

from seewide.analysis.anatomy import (
    draw_maps,
    feature_maps,
    field_flow,
    impulse_response,
    tap_means,
)
from seewide.errors import InputError
from seewide.layers.dilated_reparam import DilatedReparamBlock
from seewide.layers.peripheral import PeripheralConv2d


def test_a_convolution_s_kernel_comes_back():
    conv = nn.Conv2d(4, 4, (5, 7), padding="same", groups=4)
    found = impulse_response(conv, 4, 9)
    assert found.shape == (4, 9, 9)
    np.testing.assert_allclose(found[:, 2:7, 1:8], conv.weight[:, 0].detach(), atol=1e-6)
    found[:, 2:7, 1:8] = 0
    np.testing.assert_allclose(found, 0, atol=1e-6)


def test_branches_show_as_the_one_kernel_that_they_merge_into():
    block = DilatedReparamBlock(3, 13).eval()
    for name, buffer in block.named_buffers():
        if name.endswith("running_var"):
            buffer.uniform_(0.5, 2)
    merged = block.fuse()
    np.testing.assert_allclose(
        impulse_response(block, 3, 13), merged.weight[:, 0].detach(), atol=1e-5
    )


def test_shared_weights_show_expanded():
    grid = [4, 2, 1, 2, 4]
    conv = PeripheralConv2d(2, grid)
    nn.init.normal_(conv.weight)
    cells = torch.tensor(grid)
    expected = conv.weight.repeat_interleave(cells, 1).repeat_interleave(cells, 2)
    np.testing.assert_allclose(impulse_response(conv, 2, 13), expected.detach(), atol=1e-5)
    assert impulse_response(lambda x: 2 * x + 1, 1, 1).item() == 2


def test_lsnet_s_weights_and_maps():
    model = timm.create_model("lsnet_t", depths=(2, 1, 1, 1), img_size=64).eval()
    names = ["stages.2.blocks.1.mixer.weight_norm", "stages.2.blocks.1.mixer.lkp"]
    x = torch.randn(1, 3, 64, 64)
    weights, seen = feature_maps(model, x, names).values()
    assert weights.shape == (1, 8 * 9, 8, 8)
    assert seen.shape == (1, 32, 8, 8)
    means = tap_means(weights, 9)
    assert means.shape == (9, 8, 8)
    np.testing.assert_allclose(means[3], weights[0, 3::9].mean(0), rtol=1e-5)


def test_the_field_grows_through_the_aggregator():
    model = timm.create_model("uniconvnet_a", depths=(1, 1, 1, 1))
    layers = [f"stages.0.blocks.0.rfa.layers.{i}" for i in range(3)]
    flow = field_flow(model, [torch.randn(3, 96, 96)], layers)
    sides = [field.support[0] for field in flow.values()]
    assert sides[0] < sides[1] < sides[2]


def test_pictures(tmp_path):
    maps = {"up": np.eye(5), "down": -np.eye(5)}
    path = draw_maps(maps, tmp_path / "a.png", signed=True)
    with Image.open(path) as picture:
        pixels = np.asarray(picture.convert("RGB")).reshape(-1, 3).astype(int)
    red, blue = pixels[:, 0] - pixels[:, 2] > 60, pixels[:, 2] - pixels[:, 0] > 40
    assert red.any()
    assert blue.any()


def test_bad_input_is_one_sentence(tmp_path):
    with pytest.raises(InputError, match="must be odd, got side=4"):
        impulse_response(nn.Identity(), 1, 4)
    with pytest.raises(InputError, match=r"makes \(1, 2, 3, 3\) of \(1, 2, 5, 5\)"):
        impulse_response(nn.Conv2d(2, 2, 3), 2, 3)
    model = timm.create_model("test_convnext")
    with pytest.raises(InputError, match="unknown layer of ConvNeXt 'stage'"):
        feature_maps(model, torch.zeros(1, 3, 32, 32), ["stage"])
    with pytest.raises(InputError, match=r"are \(N, sets \* 9, H, W\), got shape \(1, 8, 2, 2\)"):
        tap_means(torch.zeros(1, 8, 2, 2), 9)
    with pytest.raises(InputError, match="no map to draw"):
        draw_maps({}, tmp_path / "a.png")
    with pytest.raises(InputError, match=r"a map is \(H, W\), x has shape \(2,\)"):
        draw_maps({"x": np.zeros(2)}, tmp_path / "a.png")
