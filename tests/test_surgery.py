"""Networks of timm with our layers: weights are preserved, and the papers' experiments run."""

import pytest
import timm
import torch
from torch import nn

import seewide
from seewide.analysis.cost import count_cost
from seewide.errors import InputError
from seewide.layers import DepthwiseConv2d, LSConv, PeripheralConv2d, ReceptiveFieldAggregator
from seewide.layers.reparam_conv import ReparamConv
from seewide.surgery import (
    aggregators_in_convnext,
    grow_kernels,
    is_depthwise,
    ls_convs_in_resnet,
    ls_convs_in_vit,
    replace,
    share_kernels,
)
from seewide.testing import deviation, randomize


def count(model, kind) -> int:
    return sum(isinstance(m, kind) for m in model.modules())


def outputs(model, size=64):
    with torch.no_grad():
        return model.eval()(torch.linspace(-1, 1, 3 * size * size).reshape(1, 3, size, size))


@pytest.mark.parametrize("kernel_size", [9, 13])
@pytest.mark.parametrize("small_kernel", [0, 3])
def test_mobilenetv2_with_larger_kernels_starts_equal(kernel_size, small_kernel):
    """RepLKNet, section 3: all 17 depthwise layers, strided ones as well."""
    model = randomize(timm.create_model("mobilenetv2_100"))
    large = grow_kernels(model, kernel_size, small_kernel)
    depthwise = [m for m in large.modules() if is_depthwise("", m)]
    assert len([m for m in depthwise if max(m.kernel_size) == kernel_size]) == 17
    assert count(large, ReparamConv) == (17 if small_kernel else 0)
    want = outputs(model)
    assert deviation(outputs(large), want) < 1e-4
    if small_kernel:
        for block in large.modules():
            if isinstance(block, ReparamConv):
                randomize(block)
        fused = seewide.fuse(large)
        assert count(fused, ReparamConv) == 0
        assert deviation(outputs(fused), outputs(large)) < 1e-4


@pytest.mark.parametrize("size", [13, 51, 151])
def test_convnext_with_dense_and_peripheral_kernels_starts_equal(size):
    """PeLK, Figure 6, on timm's small test network; parameters as the sharing grid says."""
    model = randomize(timm.create_model("test_convnext"))
    layers = [m for m in model.modules() if is_depthwise("", m)]
    want = outputs(model)
    for make, kind in ((grow_kernels, DepthwiseConv2d), (share_kernels, PeripheralConv2d)):
        large = make(model, size)
        assert count(large, kind) == len(layers)
        assert deviation(outputs(large), want) < 1e-4


def test_parameters_grow_with_k_squared_or_with_the_grid():
    conv = nn.Sequential(nn.Conv2d(4, 4, 7, padding=3, groups=4))
    weights = [
        (make(conv, size)[0].weight.numel() // 4)
        for make in (grow_kernels, share_kernels)
        for size in (51, 101)
    ]
    assert weights == [51**2, 101**2, 15**2, 17**2]


def test_ls_convs_in_resnet_and_deit():
    resnet = ls_convs_in_resnet(timm.create_model("resnet50", num_classes=5))
    assert count(resnet, LSConv) == 16
    deit = ls_convs_in_vit(timm.create_model("deit_tiny_patch16_224", num_classes=5))
    assert count(deit, LSConv) == 12
    for model, size in ((resnet, 64), (deit, 224)):
        x = torch.randn(1, 3, size, size, requires_grad=True)
        model.eval()(x).sum().backward()
        assert x.grad.abs().sum() > 0
        mixers = [m for m in model.modules() if isinstance(m, LSConv)]
        assert all(p.grad is not None for m in mixers for p in m.lkp.parameters())


def test_aggregators_in_convnext():
    original = timm.create_model("test_convnext")
    replaced = sum(is_depthwise("", m) and m.stride == (1, 1) for m in original.modules())
    model = aggregators_in_convnext(original)
    assert count(model, ReceptiveFieldAggregator) == replaced > 0
    left = [
        name
        for name, m in model.named_modules()
        if is_depthwise("", m) and ".context." not in name and ".part_conv." not in name
    ]
    assert left == [], "no depthwise convolution outside the aggregators"
    aggregators = [m for m in model.modules() if isinstance(m, ReceptiveFieldAggregator)]
    randomize(model)(torch.randn(2, 3, 64, 64)).square().sum().backward()
    assert all(p.grad.abs().sum() > 0 for m in aggregators for p in m.parameters())


def test_resnet_50_of_the_paper():
    """All 16 3x3 convolutions, three of them with stride 2: 2.6 G (LSNet, section 4)."""
    model = ls_convs_in_resnet(timm.create_model("resnet50", device="meta"))
    dense = [
        name
        for name, m in model.named_modules()
        if isinstance(m, nn.Conv2d) and m.kernel_size == (3, 3) and name.startswith("layer")
    ]
    assert dense == []
    assert round(count_cost(model).macs / 1e9, 1) == 2.6


def test_strided_ls_convs_fuse():
    model = ls_convs_in_resnet(timm.create_model("resnet50", num_classes=5)).double()
    x = torch.randn(1, 3, 65, 70, dtype=torch.float64)
    fused = seewide.fuse(randomize(model).eval(), x)
    with torch.no_grad():
        assert deviation(fused(x), model(x)) < 1e-10


def test_a_cell_of_the_sharing_grid_gets_the_mean_of_its_taps():
    conv = randomize(nn.Conv2d(2, 2, 7, padding=3, groups=2))
    shared = share_kernels(nn.Sequential(conv), 7, center=3)[0]
    assert shared.grid == [2, 1, 1, 1, 2]
    taps = conv.weight[:, 0]
    for row, rows in enumerate(([0, 1], [2], [3], [4], [5, 6])):
        for column, columns in enumerate(([0, 1], [2], [3], [4], [5, 6])):
            mean = taps[:, rows][:, :, columns].mean((1, 2))
            assert torch.allclose(shared.weight[:, row, column], mean, atol=1e-6)
    assert torch.equal(shared.bias, conv.bias)


def test_the_model_itself_stays_as_it_was():
    model = timm.create_model("test_convnext")
    before = {k: v.clone() for k, v in model.state_dict().items()}
    grow_kernels(model, 13)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def test_refusals():
    model = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1, groups=4))
    with pytest.raises(InputError, match="selects no module of Sequential"):
        replace(model, lambda name, module: False, lambda module: module)
    with pytest.raises(InputError, match="kernel_size must be odd, got 12"):
        grow_kernels(model, 12)
    with pytest.raises(InputError, match=r"small_kernel must be odd, at least 3 .* got 1"):
        grow_kernels(model, 13, small_kernel=1)
    with pytest.raises(InputError, match="no grid of tokens"):
        ls_convs_in_vit(model)
