"""Dilated layers equal undilated ones on maps of every d-th pixel."""

import pytest
import torch

from seewide.layers import LSConv, PeripheralReparamBlock
from seewide.layers.ls_conv import aggregate
from seewide.layers.phases import from_phases, to_phases
from seewide.ops import sharing_grid, small_kernel_aggregation_reference
from seewide.testing import assert_equal, randomize


@pytest.mark.parametrize("size", [(8, 12), (9, 7), (1, 2)])
@pytest.mark.parametrize("dilation", [1, 2, 3, 4])
def test_phases_and_back(size, dilation):
    x = torch.randn(2, 3, *size)
    phases = to_phases(x, dilation)
    assert torch.equal(from_phases(phases, dilation, *size), x)
    if dilation == 2 and size == (8, 12):
        assert torch.equal(phases[1], x[0, :, ::2, 1::2])


def test_dilated_aggregation():
    """Tap by tap: neighbours are two pixels apart."""
    x = torch.randn(2, 8, 9, 7, dtype=torch.float64)
    weight = torch.randn(2, 4 * 9, 9, 7, dtype=torch.float64)
    want = torch.zeros_like(x)
    padded = torch.nn.functional.pad(x, (2, 2, 2, 2))
    for tap in range(9):
        row, column = 2 * (tap // 3), 2 * (tap % 3)
        taps = weight.unflatten(1, (4, 9))[:, :, tap].repeat(1, 2, 1, 1)
        want += padded[:, :, row : row + 9, column : column + 7] * taps
    assert_equal(aggregate(x, weight, 4, 2), want)
    undilated = small_kernel_aggregation_reference(x, weight.unflatten(1, (4, 9)))
    assert_equal(aggregate(x, weight, 4, 1), undilated)


@pytest.mark.parametrize("mode", ["valid", "constant"])
def test_dilated_peripheral_block(mode):
    """The embedding is added where dilated taps meet pixels; fused and unfused."""
    grid, dilation = sharing_grid(7, 3), 2
    block = randomize(PeripheralReparamBlock(2, grid, 3, mode, dilation)).double().eval()
    embedding = torch.randn(2, 7, 7, dtype=torch.float64)
    x = torch.randn(1, 2, 9, 8, dtype=torch.float64)
    fused = block.fuse()
    assert_equal(fused(x, embedding), block(x, embedding))
    kernel = fused.weight[:, [c for c, s in enumerate(fused.grid) for _ in range(s)]]
    kernel = kernel[:, :, [c for c, s in enumerate(fused.grid) for _ in range(s)]]
    want = fused.bias[:, None, None].repeat(1, 9, 8)
    for i in range(9):
        for j in range(8):
            for u in range(7):
                for v in range(7):
                    row, column = i + 2 * (u - 3), j + 2 * (v - 3)
                    inside = 0 <= row < 9 and 0 <= column < 8
                    pixel = x[0, :, row, column] if inside else torch.zeros(2)
                    embedded = inside or mode == "constant"
                    value = pixel + embedding[:, u, v] if embedded else pixel
                    want[:, i, j] += kernel[:, u, v] * value
    assert_equal(block(x, embedding)[0], want)


def test_dilated_ls_conv_sees_further():
    """LKP's 7x7 at dilation 2 covers 13 pixels, SKA's 3x3 five."""
    layer = randomize(LSConv(16, dilation=2)).double().eval()
    x = torch.randn(1, 16, 21, 21, dtype=torch.float64, requires_grad=True)
    context = torch.autograd.grad(layer.lkp(x)[0, :, 10, 10].sum(), x)[0]
    rows = context.abs().sum((0, 1, 3)).nonzero().flatten()
    assert (rows.min(), rows.max()) == (4, 16)
    assert (context.abs().sum((0, 1)) > 0)[10, 11] == 0, "odd distances are skipped"
