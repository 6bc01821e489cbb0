"""What UniRepLKNet's block can be made of, as the paper's Table 3 compares it."""

import pytest
import torch

from seewide.layers import UniRepLKNetBlock
from seewide.layers.extra_structure import extra_structure
from seewide.testing import randomize


def test_extra_structures_see_and_mix_as_they_should():
    """Which pixels and which channels reach the middle of the first channel."""
    reach = {"none": (1, 1), "bottleneck": (3, 8), "two_pointwise": (1, 8), "two_depthwise": (5, 1)}
    for extra, (pixels, channels) in reach.items():
        layer = randomize(extra_structure(extra, 8)).double().eval()
        x = torch.randn(8, 8, 9, 9, dtype=torch.float64, requires_grad=True)
        layer(x)[:, 0, 4, 4].sum().backward()
        hit = x.grad.abs().amax(0) > 0
        assert hit.any(0).any(0).sum() == pixels, extra
        assert hit.flatten(1).any(1).sum() == channels, extra


# Table 3b: dense branches of a 13 x 13 kernel, as sides; none dilated.
BRANCHES = {"same_size": [5, 7, 3, 3, 3], "same_reach": [5, 13, 7, 9, 11], "none": []}


@pytest.mark.parametrize("reparam", BRANCHES)
def test_reparameterization_forms_have_the_papers_branches(reparam):
    block = UniRepLKNetBlock(8, 13, reparam=reparam).dwconv
    assert [branch.conv.kernel_size[0] for branch in block.small.values()] == BRANCHES[reparam]
    assert {branch.conv.dilation[0] for branch in block.small.values()} <= {1}


@pytest.mark.parametrize("extra", ["bottleneck", "two_pointwise", "two_depthwise"])
def test_extra_structures_have_a_residual_connection(extra):
    """Figure 7: without the contribution of its layers the structure is the identity."""
    layer = randomize(extra_structure(extra, 8)).eval()
    for norm in layer.modules():
        if isinstance(norm, torch.nn.BatchNorm2d):
            torch.nn.init.zeros_(norm.weight)
            torch.nn.init.zeros_(norm.bias)
    x = torch.randn(2, 8, 5, 7)
    assert torch.equal(layer(x), x)
