"""Weight algebra against the layers it replaces, in float64."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from seewide.errors import InputError
from seewide.layers import DepthwiseConv2d, DilatedReparamBlock
from seewide.layers.dilated_reparam import BRANCHES
from seewide.reparam import (
    batch_norm_affine,
    center_pad,
    fold_batch_norm,
    fold_parallel,
    fuse,
    fuse_checked,
    undilate,
)
from seewide.testing import assert_equal, deviation, randomize


@pytest.mark.parametrize("affine", [True, False])
def test_folding_a_batch_norm(affine):
    conv, norm = nn.Conv2d(6, 8, 3, groups=2).double(), nn.BatchNorm2d(8, affine=affine).double()
    randomize(nn.Sequential(conv, norm)).eval()
    x = torch.randn(2, 6, 9, 7, dtype=torch.float64)
    weight, bias = fold_batch_norm(conv.weight, conv.bias, norm)
    assert_equal(F.conv2d(x, weight, bias, groups=2), norm(conv(x)))
    scale, shift = batch_norm_affine(norm)
    assert_equal(x[:, :1] * scale[0] + shift[0], norm(x[:, :1].expand(-1, 8, -1, -1))[:, :1])


@pytest.mark.parametrize("groups", [1, 2, 6], ids=["dense", "grouped", "depthwise"])
@pytest.mark.parametrize(("size", "dilation"), [((3, 3), 1), ((3, 3), 4), ((5, 3), 2), ((1, 1), 7)])
def test_undilated_kernel_computes_the_same(groups, size, dilation):
    """Appendix A: for dense and grouped kernels as well."""
    weight = torch.randn(6, 6 // groups, *size, dtype=torch.float64)
    x = torch.randn(1, 6, 19, 17, dtype=torch.float64)
    dense = undilate(weight, dilation)
    want = F.conv2d(x, weight, dilation=dilation, groups=groups)
    assert_equal(F.conv2d(x, dense, groups=groups), want)
    assert dense.shape[2:] == tuple((s - 1) * dilation + 1 for s in size)


def test_undilation_is_the_papers_transposed_convolution():
    """Section 3.1: a transposed convolution with an identity kernel, stride r."""
    weight, identity = torch.randn(4, 1, 3, 3), torch.ones(1, 1, 1, 1)
    assert torch.equal(undilate(weight, 3), F.conv_transpose2d(weight, identity, stride=3))


def test_center_pad_refuses_what_has_no_centre():
    kernel = torch.randn(2, 1, 3, 5)
    assert torch.equal(center_pad(kernel, (7, 5))[:, :, 2:5], kernel)
    with pytest.raises(InputError, match="a 3x5 kernel has no centred place in a 6x5 one"):
        center_pad(kernel, (6, 5))
    with pytest.raises(InputError, match="no centred place in a 3x3"):
        center_pad(kernel, (3, 3))


def test_parallel_branches_add_up():
    branches = [(torch.randn(4, 1, k, k), torch.randn(4)) for k in (3, 7, 5)]
    x = torch.randn(2, 4, 9, 11)
    kernel, bias = fold_parallel(branches)
    want = sum(F.conv2d(x, w, b, padding=w.shape[2] // 2, groups=4) for w, b in branches)
    assert_equal(F.conv2d(x, kernel, bias, padding=3, groups=4), want)


@pytest.mark.parametrize("size", BRANCHES)
@pytest.mark.parametrize(("dtype", "limit"), [(torch.float64, 1e-10), (torch.float32, 1e-5)])
def test_dilated_reparam_block_fuses(size, dtype, limit):
    block = randomize(DilatedReparamBlock(5, size)).to(dtype).eval()
    fused = fuse(block, torch.randn(1, 5, 19, 23, dtype=dtype))
    assert type(fused) is DepthwiseConv2d
    x = torch.randn(2, 5, 13, 21, dtype=dtype)
    assert deviation(fused(x), block(x)) < limit


def test_dilated_reparam_block_refusals():
    with pytest.raises(InputError, match="no branches are known for kernel_size=19; known are 5,"):
        DilatedReparamBlock(4, 19)
    with pytest.raises(
        InputError, match="a 5x5 branch of dilation 3 reaches beyond kernel_size=11"
    ):
        DilatedReparamBlock(4, 11, branches=((5, 3),))
    with pytest.raises(InputError, match="kernel_size must be odd, got 6"):
        DilatedReparamBlock(4, 6, branches=((3, 1),))
    assert DilatedReparamBlock(4, 31, branches=((5, 1), (5, 7))).folded()[0].shape == (4, 1, 31, 31)


def test_fuse_leaves_the_model_alone_and_reports():
    block = randomize(DilatedReparamBlock(4, 7))
    before = {k: v.clone() for k, v in block.state_dict().items()}
    fused, report = fuse_checked(block, torch.randn(1, 4, 9, 9))
    assert block.training
    assert not fused.training
    assert all(torch.equal(v, before[k]) for k, v in block.state_dict().items())
    assert report.parameters_after == 4 * 49 + 4
    assert 0 < report.deviation < 1e-5
    assert "deviation" in str(report)


def test_fuse_notices_a_wrong_fold():
    class Wrong(DilatedReparamBlock):
        def fuse(self):
            layer = super().fuse()
            with torch.no_grad():
                layer.bias.add_(0.1)
            return layer

    with pytest.raises(RuntimeError, match=r"the model \(Wrong\) was folded wrongly"):
        fuse(randomize(Wrong(4, 7)), torch.randn(1, 4, 9, 9))


def test_fuse_accepts_rounding_that_the_network_magnifies():
    class Magnifying(nn.Module):
        """Its output is what float32 rounds away in the block's."""

        def __init__(self):
            super().__init__()
            self.block = randomize(DilatedReparamBlock(4, 7))

        def forward(self, x):
            return torch.sin(1e5 * self.block(x))

    fused, report = fuse_checked(Magnifying(), torch.randn(1, 4, 9, 9))
    assert isinstance(fused.block, DepthwiseConv2d)
    assert report.deviation > 1e-3, "reported as measured"


def test_fuse_asks_for_an_example_it_cannot_make():
    with pytest.raises(InputError, match="Sequential does not say what input it takes; give fuse"):
        fuse(nn.Sequential(nn.Conv2d(3, 3, 1)))
