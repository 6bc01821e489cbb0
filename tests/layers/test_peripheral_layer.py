"""The fused peripheral block caches its position map, and never uses a stale one."""

import copy

import pytest
import torch

from seewide.layers.peripheral import FusedPeripheralConv2d, PeripheralReparamBlock
from seewide.ops import peripheral_conv2d, sharing_grid


@pytest.fixture
def layer():
    torch.manual_seed(0)
    return PeripheralReparamBlock(4, sharing_grid(13)).eval().fuse()


def plain(layer, x, embedding):
    return peripheral_conv2d(x, layer.weight, layer.grid, layer.bias, embedding, layer.pos_mode)


def test_it_computes_the_operator(layer):
    x, embedding = torch.randn(2, 4, 9, 7), torch.randn(4, 13, 13)
    assert isinstance(layer, FusedPeripheralConv2d)
    with torch.no_grad():
        for _ in range(2):
            assert torch.allclose(layer(x, embedding), plain(layer, x, embedding), atol=1e-5)
    assert torch.equal(layer(x), plain(layer, x, None))


def test_the_map_is_cached_and_computed_again_after_any_change(layer):
    x, embedding = torch.randn(1, 4, 9, 7), torch.randn(4, 13, 13)

    def check(same):
        before = layer._cache[1]
        with torch.inference_mode():
            y = layer(x, embedding)
        assert (layer._cache[1] is before) == same
        assert torch.allclose(y, plain(layer, x, embedding), atol=1e-5)

    check(same=False)
    check(same=True)
    x = torch.randn(1, 4, 7, 9)
    check(same=False)
    embedding.mul_(2)
    check(same=False)
    embedding = embedding.clone()
    check(same=False)
    layer.load_state_dict({k: v + 1 for k, v in layer.state_dict().items()})
    check(same=False)
    with torch.no_grad():
        layer.weight.add_(1)
    check(same=False)
    layer = copy.deepcopy(layer).double()
    x, embedding = x.double(), embedding.double()
    check(same=False)
    check(same=True)


def test_gradients_still_reach_weight_and_embedding(layer):
    x, embedding = torch.randn(1, 4, 9, 7), torch.randn(4, 13, 13, requires_grad=True)
    layer(x, embedding).sum().backward()
    assert embedding.grad.abs().sum() > 0
    assert layer.weight.grad.abs().sum() > 0


def test_scripted_and_exported(layer):
    x, embedding = torch.randn(1, 4, 9, 7), torch.randn(4, 13, 13)
    with torch.no_grad():
        want = plain(layer, x, embedding)
        assert torch.allclose(torch.jit.script(layer)(x, embedding), want, atol=1e-5)
        program = torch.export.export(layer, (x, embedding)).module()
        assert torch.allclose(program(x, embedding), want, atol=1e-5)
