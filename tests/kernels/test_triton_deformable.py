"""The Triton kernel of dcnv3 against its definition in float64."""

import pytest
import torch

from seewide.kernels.triton import deformable
from seewide.kernels.triton.deformable import dcnv3
from seewide.ops import dcnv3_reference
from seewide.testing import assert_matches_reference

# N, H, W, groups, channels per group, kernel_size, offset_scale, stride, dilation, softmax
CASES = [
    (1, 5, 7, 3, 8, 3, 1.0, 1, 1, False),  # UniConvNet-A to -P2
    (2, 3, 5, 2, 16, 3, 1.0, 1, 1, False),  # UniConvNet-N and larger
    (1, 4, 7, 2, 8, 3, 1.0, 1, 1, True),  # InternImage
    (1, 5, 4, 1, 3, 3, 2.0, 2, 1, True),
    (1, 6, 5, 2, 4, 5, 0.7, 3, 2, False),
    (3, 1, 2, 2, 1, 1, 1.0, 1, 1, False),
]


def inputs(case, device, dtype=torch.float32):
    """Offsets of a few pixels, so that points leave the map on all sides.

    In half precision, quarters: a rounded offset must not cross a pixel's edge, where slopes jump.
    """
    N, H, W, G, D, k, _, stride, *_ = case
    out = (N, (H - 1) // stride + 1, (W - 1) // stride + 1)
    offset = 2 * torch.randn(*out, G * k * k * 2)
    if dtype != torch.float32:
        offset = (4 * offset).floor() / 4 + 0.125
    tensors = (torch.randn(N, H, W, G * D), offset, torch.randn(*out, G * k * k))
    return tuple(tensor.to(device, dtype) for tensor in tensors)


def check(case, tensors, factor=1.0):
    _, _, _, G, _, k, *rest = case
    assert_matches_reference(
        lambda *tensors: dcnv3(*tensors, k, G, *rest),
        lambda *tensors: dcnv3_reference(*tensors, k, G, *rest),
        tensors,
        factor,
    )


@pytest.fixture(autouse=True)
def unordered():
    """On a GPU the gradient of x is added up in no fixed order; memory stays poisoned."""
    torch.utils.deterministic.fill_uninitialized_memory = True


@pytest.mark.parametrize("case", CASES, ids=lambda c: "-".join(map(str, c)))
def test_output_and_gradients_match_the_definition(case, device):
    check(case, inputs(case, device))


@pytest.mark.slow
@pytest.mark.parametrize("config", deformable._configs(8)[1:])
def test_every_configuration(config, device, monkeypatch):
    monkeypatch.setattr(deformable, "_configs", lambda D: [config])
    check(CASES[0], inputs(CASES[0], device))


@pytest.mark.parametrize("case", [CASES[0], CASES[2]], ids=["plain", "softmax"])
def test_float16(case, device):
    check(case, inputs(case, device, torch.float16), factor=2)


def test_slices_of_larger_tensors(device):
    case = (1, 5, 7, 3, 8, 3, 1.0, 1, 1, False)
    x, offset, mask = inputs((1, 5, 14, 3, 8, 3, 1.0, 1, 1, False), device)
    check(case, (x.permute(0, 3, 1, 2).contiguous().permute(0, 2, 3, 1)[:, :, 3:10],
                 offset[:, :, ::2], mask[:, :, 7:]))  # fmt: skip


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")  # infinity less infinity
def test_points_far_outside_and_not_finite(device):
    x, offset, mask = inputs(CASES[0], device)
    offset[..., 0] = 1e30
    offset[..., 1] = float("-inf")
    y = dcnv3(x, offset, mask, 3, 3, 1.0, 1, 1, False)
    assert not y[..., 8:].isnan().any()  # the first group alone has such offsets
    check(CASES[0], (x, offset.clamp(-1e6, 1e6), mask))


def test_a_map_that_needs_no_gradient(device):
    x, offset, mask = inputs(CASES[0], device)
    offset.requires_grad_()
    mask.requires_grad_()
    dcnv3(x, offset, mask, 3, 3, 1.0, 1, 1, False).square().sum().backward()
    ours = offset.grad, mask.grad
    leaves = [t.detach().double().requires_grad_() for t in (offset, mask)]
    y = dcnv3_reference(x.double(), *leaves, 3, 3)
    for got, want in zip(ours, torch.autograd.grad(y.square().sum(), leaves), strict=True):
        torch.testing.assert_close(got.double(), want, rtol=1e-4, atol=1e-4)


def test_empty_batch(device):
    case = (0, 4, 5, 1, 8, 3, 1.0, 1, 1, False)
    tensors = [t.requires_grad_() for t in inputs(case, device)]
    dcnv3(*tensors, 3, 1, 1.0, 1, 1, False).sum().backward()
    assert all(t.grad.shape == t.shape for t in tensors)


@pytest.mark.filterwarnings("ignore:The .grad attribute")  # which opcheck reads of other tensors
@pytest.mark.parametrize("softmax", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_operators_are_well_formed(softmax, device):
    geometry = (3, 2, 1.0, 1, 1, softmax)
    tensors = inputs((1, 3, 4, 2, 4, 3, *geometry[2:]), device)
    leaves = tuple(t.requires_grad_() for t in tensors)
    torch.library.opcheck(deformable._dcnv3, (*leaves, *geometry))
    y = torch.randn(1, 3, 4, 8, device=device)
    arguments = (*(t.detach() for t in tensors), y, y)
    for for_x in (True, False):
        torch.library.opcheck(deformable._gradients, (*arguments, for_x, *geometry))


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize(
    "case",
    [
        (4, 56, 56, 4, 8, 3, 1.0, 1, 1, False),
        (2, 57, 29, 4, 16, 3, 1.0, 1, 1, False),
        (3, 14, 14, 24, 16, 3, 1.0, 1, 1, True),
        (1, 19, 23, 5, 6, 5, 0.5, 2, 2, True),
        (1, 7, 7, 32, 16, 3, 1.0, 1, 1, False),
    ],
    ids=lambda c: "-".join(map(str, c)),
)
def test_on_a_gpu(case, dtype):
    torch.use_deterministic_algorithms(False)
    check(case, inputs(case, "cuda", dtype), factor=4)
