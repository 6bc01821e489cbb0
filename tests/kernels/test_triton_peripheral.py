"""The Triton kernel of peripheral_conv2d against its definition in float64."""

import pytest
import torch

from seewide.kernels.triton import peripheral
from seewide.kernels.triton.peripheral import peripheral_conv2d
from seewide.ops import peripheral_conv2d_reference, sharing_grid
from seewide.testing import assert_equal, assert_matches_reference

# Shape and grid: odd and non-square maps, smaller and larger than the kernel, odd grids.
CASES = [
    ((1, 2, 5, 7), [2, 1, 1, 1, 2]),
    ((2, 1, 9, 6), [1, 2, 1, 1, 3, 1, 2]),
    ((3, 1, 4, 3), [3, 1, 3]),
    ((1, 1, 37, 9), [4, 1, 4]),
]
MAPS = [(2, 3, 56, 56), (3, 2, 28, 31), (1, 2, 90, 199), (1, 1, 33, 70)]


def inputs(case, device, dtype=torch.float32, layout=torch.contiguous_format):
    (N, C, H, W), grid = case
    x = torch.randn(N, C, H, W).to(device, dtype).contiguous(memory_format=layout)
    weight = (torch.randn(C, len(grid), len(grid)) / sum(grid)).to(device, dtype)
    return x, weight, torch.randn(C).to(device, dtype)


def check(tensors, grid, factor=1.0):
    assert_matches_reference(
        lambda x, weight, bias: peripheral_conv2d(x, weight, grid, bias),
        lambda x, weight, bias: peripheral_conv2d_reference(x, weight, grid, bias),
        tensors,
        factor,
    )


@pytest.mark.parametrize("case", CASES, ids=lambda case: "x".join(map(str, case[0])))
def test_output_and_gradients_match_the_definition(case, device):
    check(inputs(case, device), case[1])


def test_far_from_zero_mean(device):
    """Sums along full rows lose digits; their differences over a cell must not."""
    x, weight, bias = inputs(((1, 1, 3, 70), [4, 1, 1, 1, 4]), device)
    x = x + 30
    want = peripheral_conv2d_reference(x.double(), weight.double(), [4, 1, 1, 1, 4], bias.double())
    assert_equal(peripheral_conv2d(x, weight, [4, 1, 1, 1, 4], bias), want)


def test_float16(device):
    check(inputs(CASES[0], device, torch.float16), CASES[0][1])


def test_channels_last_is_preserved(device):
    x, weight, bias = inputs(CASES[0], device, layout=torch.channels_last)
    y = peripheral_conv2d(x, weight, CASES[0][1], bias)
    assert y.is_contiguous(memory_format=torch.channels_last)
    want = peripheral_conv2d_reference(x.double(), weight.double(), CASES[0][1], bias.double())
    assert_equal(y, want)


def test_slices_of_larger_tensors(device):
    """As PeLK convolves a part of the channels; without bias."""
    x, weight, _ = inputs(((1, 6, 5, 14), [2, 1, 2]), device)
    for part in (x[:, 1:3], x[:, ::3, :, ::2]):
        y = peripheral_conv2d(part, weight[:2], [2, 1, 2], None)
        want = peripheral_conv2d_reference(part.double(), weight[:2].double(), [2, 1, 2])
        assert_equal(y, want)


def test_empty_batch(device):
    tensors = [t.requires_grad_() for t in inputs(((0, 2, 5, 7), [2, 1, 2]), device)]
    peripheral_conv2d(*tensors[:2], [2, 1, 2], tensors[2]).sum().backward()
    assert tensors[0].grad.shape == tensors[0].shape
    assert not tensors[1].grad.any()


@pytest.mark.filterwarnings("ignore:The .grad attribute")  # which opcheck reads of other tensors
def test_operators_are_well_formed(device):
    x, weight, bias = (t.requires_grad_() for t in inputs(((1, 2, 2, 3), [3]), device))
    torch.library.opcheck(peripheral._peripheral, (x, weight, bias, [3], True))
    torch.library.opcheck(peripheral._weight_gradient, (x, torch.ones_like(x), [3]))


def test_second_derivatives(device):
    """Against autograd through the definition."""
    grid = [2, 1, 2]

    def slopes(op, *tensors):
        x, weight = (t.detach().requires_grad_() for t in tensors)
        first = torch.autograd.grad(
            op(x, weight, grid, None).sin().sum(), (x, weight), create_graph=True
        )
        return torch.autograd.grad(sum(t.square().sum() for t in first), (x, weight))

    x, weight, _ = inputs(((1, 1, 3, 4), grid), device)
    want = slopes(peripheral_conv2d_reference, x.double(), weight.double())
    for got, expected in zip(slopes(peripheral_conv2d, x, weight), want, strict=True):
        assert_equal(got, expected, factor=3)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("size", [31, 51, 101])
@pytest.mark.parametrize("shape", MAPS, ids=lambda s: "x".join(map(str, s)))
def test_on_a_gpu(shape, size, dtype):
    grid = sharing_grid(size, 7 if size == 101 else 5)
    check(inputs((shape, grid), "cuda", dtype), grid, factor=2)
