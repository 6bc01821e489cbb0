"""The matrix product equals the convolution, and gives way where a convolution is wanted."""

import pytest
import torch
from torch import nn

from seewide.layers.pointwise import PointwiseConv2d


@pytest.fixture
def layer():
    torch.manual_seed(0)
    return PointwiseConv2d.of(torch.randn(5, 3, 1, 1), torch.randn(5))


def stock(layer, x):
    return nn.functional.conv2d(x, layer.weight, layer.bias)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("shape", [(2, 3, 7, 5), (1, 3, 1, 1), (0, 3, 4, 4)])
def test_output_gradients_and_layout(layer, shape, layout):
    x = torch.randn(shape).contiguous(memory_format=layout).requires_grad_()
    got, want = layer(x), stock(layer, x)
    assert torch.allclose(got, want, atol=1e-6)
    assert got.is_contiguous(memory_format=layout)
    inputs = (x, layer.weight, layer.bias)
    for a, b in zip(
        torch.autograd.grad(got.square().sum(), inputs),
        torch.autograd.grad(want.square().sum(), inputs),
        strict=True,
    ):
        assert torch.allclose(a, b, atol=1e-4)


def test_it_is_a_convolution_to_scripts_graphs_and_exports(layer):
    x = torch.randn(2, 3, 7, 5).contiguous(memory_format=torch.channels_last)
    want = stock(layer, x)
    assert torch.allclose(torch.jit.script(layer)(x), want, atol=1e-6)
    assert torch.allclose(torch.fx.symbolic_trace(layer)(x), want, atol=1e-6)
    program = torch.export.export(layer, (x,))
    assert "aten.conv2d.default" in [str(node.target) for node in program.graph.nodes]
