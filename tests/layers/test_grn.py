"""Global response normalization against its definition, gradients of both orders included."""

import pytest
import torch

from seewide.layers import GlobalResponseNorm
from seewide.ops import global_response_norm


def definition(x, weight, bias, eps):
    energy = torch.linalg.vector_norm(x, dim=(1, 2), keepdim=True)
    response = energy / (energy.mean(-1, keepdim=True) + eps)
    y = x + x * weight * response
    return y if bias is None else y + bias


def arguments(shape, bias):
    generator = torch.Generator().manual_seed(0)
    shapes = (shape, (1, 1, 1, shape[-1]), (1, 1, 1, shape[-1]) if bias else None)
    return [
        None if s is None else torch.randn(s, generator=generator, dtype=torch.float64)
        for s in shapes
    ]


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(2, 5, 3, 6), (1, 1, 7, 4), (3, 4, 4, 1)])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_output_and_gradients_equal_the_definition(shape, bias, dtype):
    wide = [t if t is None else t.requires_grad_() for t in arguments(shape, bias)]
    ours = [t if t is None else t.detach().to(dtype).requires_grad_() for t in wide]
    expected = definition(*wide, 1e-6)
    y = global_response_norm(*ours, 1e-6)
    dy = torch.ones_like(expected).cumsum(1)
    tolerance = 1e-12 if dtype == torch.float64 else 1e-5
    assert torch.allclose(y.double(), expected, rtol=tolerance, atol=tolerance)
    given = [t for t in wide if t is not None]
    mine = [t for t in ours if t is not None]
    for name, want, got in zip(
        ("dx", "dweight", "dbias"),
        torch.autograd.grad(expected, given, dy),
        torch.autograd.grad(y, mine, dy.to(dtype)),
        strict=False,
    ):
        scale = want.abs().max()
        assert (got.double() - want).abs().max() <= 10 * tolerance * scale, name


@pytest.mark.parametrize("bias", [True, False])
def test_second_derivatives(bias):
    x, weight, shift = (
        t if t is None else t.requires_grad_() for t in arguments((2, 3, 2, 4), bias)
    )
    inputs = (x, weight, shift) if bias else (x, weight)

    def function(x, weight, shift=None):
        return global_response_norm(x, weight, shift, 1e-6)

    assert torch.autograd.gradcheck(function, inputs)
    assert torch.autograd.gradgradcheck(function, inputs)


def test_only_what_needs_a_gradient_gets_one():
    layer = GlobalResponseNorm(4)
    layer.bias.requires_grad_(False)
    layer(torch.randn(2, 3, 3, 4)).sum().backward()
    assert layer.weight.grad is not None
    assert layer.bias.grad is None
    layer.requires_grad_(False)
    x = torch.randn(2, 3, 3, 4, requires_grad=True)
    layer(x).sum().backward()
    assert x.grad is not None


def test_a_channel_of_zeros_has_a_gradient():
    x = torch.randn(1, 3, 3, 4)
    x[..., 2] = 0
    x.requires_grad_()
    layer = GlobalResponseNorm(4)
    torch.nn.init.ones_(layer.weight)
    layer(x).sum().backward()
    assert x.grad.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision(dtype):
    x = 100 * torch.randn(1, 8, 8, 4)
    layer = GlobalResponseNorm(4)
    torch.nn.init.ones_(layer.weight)
    expected = layer(x)
    got = layer.to(dtype)(x.to(dtype)).float()
    assert (got - expected).abs().max() < 0.02 * expected.abs().max()
