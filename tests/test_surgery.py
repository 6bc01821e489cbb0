"""Other people's networks with our mixers: what can be kept is kept, and the papers' uses run."""

import pytest
import timm
import torch
from torch import nn

import seewide
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
    assert count(resnet, LSConv) == 13  # 16 blocks, 3 of them strided
    deit = ls_convs_in_vit(timm.create_model("deit_tiny_patch16_224", num_classes=5))
    assert count(deit, LSConv) == 12
    for model, size in ((resnet, 64), (deit, 224)):
        x = torch.randn(1, 3, size, size, requires_grad=True)
        model.eval()(x).sum().backward()
        assert x.grad.abs().sum() > 0
        mixers = [m for m in model.modules() if isinstance(m, LSConv)]
        assert all(p.grad is not None for m in mixers for p in m.lkp.parameters())


def test_aggregators_in_convnext():
    model = aggregators_in_convnext(timm.create_model("test_convnext"))
    assert count(model, ReceptiveFieldAggregator) > 0
    assert not []
    assert outputs(model).isfinite().all()


def test_the_model_itself_stays_as_it_was():
    model = timm.create_model("test_convnext")
    before = {k: v.clone() for k, v in model.state_dict().items()}
    grow_kernels(model, 13)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def test_refusals():
    model = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1, groups=4))
    with pytest.raises(InputError, match="picks no module of Sequential"):
        replace(model, lambda name, module: False, lambda module: module)
    with pytest.raises(InputError, match="kernel_size must be odd, got 12"):
        grow_kernels(model, 12)
    with pytest.raises(InputError, match=r"small_kernel must be odd, at least 3 .* got 1"):
        grow_kernels(model, 13, small_kernel=1)
    with pytest.raises(InputError, match="no grid of tokens"):
        ls_convs_in_vit(model)
