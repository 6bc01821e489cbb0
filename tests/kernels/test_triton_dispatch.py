"""The operators with their Triton kernels under compilation and autocast."""

import pytest
import torch

from seewide.ops import (
    dcnv3,
    dcnv3_reference,
    depthwise_conv2d,
    depthwise_conv2d_reference,
    peripheral_conv2d,
    peripheral_conv2d_reference,
    small_kernel_aggregation,
    small_kernel_aggregation_reference,
)
from seewide.testing import assert_equal

# Operator, definition, shapes of its tensors, what follows them.
CALLS = {
    "depthwise_conv2d": (
        depthwise_conv2d, depthwise_conv2d_reference, [(1, 2, 4, 5), (2, 1, 5, 5)], (),
    ),
    "small_kernel_aggregation": (
        small_kernel_aggregation, small_kernel_aggregation_reference,
        [(1, 4, 2, 3), (1, 2, 9, 2, 3)], (),
    ),
    "peripheral_conv2d": (
        peripheral_conv2d, peripheral_conv2d_reference, [(1, 1, 4, 5), (1, 3, 3)], ([2, 1, 2],),
    ),
    "dcnv3": (dcnv3, dcnv3_reference, [(1, 3, 4, 8), (1, 3, 4, 18), (1, 3, 4, 9)], ()),
}  # fmt: skip


def drawn(shapes, device):
    return [torch.randn(shape, device=device) / len(shape) for shape in shapes]


@pytest.mark.usefixtures("forced")
@pytest.mark.parametrize("name", CALLS)
def test_compile_without_graph_break(name, device):
    op, reference, shapes, rest = CALLS[name]
    tensors = [t.requires_grad_() for t in drawn(shapes, device)]
    compiled = torch.compile(lambda *t: op(*t, *rest).sin(), fullgraph=True, backend="aot_eager")
    y = compiled(*tensors)
    wide = [t.detach().double().requires_grad_() for t in tensors]
    want = reference(*wide, *rest).sin()
    assert_equal(y, want)
    gradients = torch.autograd.grad(y.sum(), tensors)
    for got, expected in zip(gradients, torch.autograd.grad(want.sum(), wide), strict=True):
        assert_equal(got, expected)


@pytest.mark.usefixtures("forced")
@pytest.mark.parametrize("name", CALLS)
def test_autocast_casts_as_a_convolution_does(name, device):
    op, reference, shapes, rest = CALLS[name]
    tensors = [t.requires_grad_() for t in drawn(shapes, device)]
    with torch.autocast(device, dtype=torch.float16):  # the interpreter has no bfloat16
        y = op(*tensors, *rest)
    assert y.dtype == torch.float16
    rounded = [t.detach().half().double() for t in tensors]
    assert_equal(y, reference(*rounded, *rest))
    y.float().sum().backward()
    assert all(t.grad.dtype == torch.float32 for t in tensors)
