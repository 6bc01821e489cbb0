"""The Triton kernel of small_kernel_aggregation against its definition in float64."""

import pytest
import torch

from seewide.kernels.triton import aggregation
from seewide.kernels.triton.aggregation import small_kernel_aggregation
from seewide.ops import small_kernel_aggregation_reference
from seewide.testing import assert_equal, assert_matches_reference

# N, C, H, W, G, k: odd and non-square maps, a batch of one, more sets and columns than a program's.
SHAPES = [
    (1, 6, 5, 7, 3, 3),
    (1, 2, 3, 35, 1, 3),
    (2, 36, 1, 2, 18, 3),
    (3, 2, 4, 3, 1, 1),
    (1, 2, 2, 5, 1, 5),
]


LAYOUTS = [torch.contiguous_format, pytest.param(torch.channels_last, marks=pytest.mark.slow)]


def inputs(shape, device, dtype=torch.float32, layout=torch.contiguous_format):
    N, C, H, W, G, k = shape
    x = torch.randn(N, C, H, W).to(device, dtype).contiguous(memory_format=layout)
    weight = torch.randn(N, G * k * k, H, W).to(device, dtype).contiguous(memory_format=layout)
    return x, weight.unflatten(1, (G, k * k))


def check(tensors, factor=1.0):
    reference = small_kernel_aggregation_reference
    assert_matches_reference(small_kernel_aggregation, reference, tensors, factor)


@pytest.mark.parametrize("shape", SHAPES, ids=lambda s: "x".join(map(str, s)))
def test_output_and_gradients_match_the_definition(shape, device):
    check(inputs(shape, device))


@pytest.mark.slow
@pytest.mark.parametrize("config", aggregation._configs(3, 8, backward=False)[1:])
def test_every_configuration(config, device, monkeypatch):
    monkeypatch.setattr(aggregation, "_configs", lambda *args, **kwargs: [config])
    check(inputs((1, 2, 3, 3, 1, 3), device))


def test_float16(device):
    check(inputs((1, 4, 3, 7, 2, 3), device, torch.float16))


def test_channels_last_is_kept(device):
    x, weight = inputs((2, 4, 3, 4, 2, 3), device, layout=torch.channels_last)
    y = small_kernel_aggregation(x, weight)
    assert y.is_contiguous(memory_format=torch.channels_last)
    assert_equal(y, small_kernel_aggregation_reference(x.double(), weight.double()))


def test_slices_of_larger_tensors(device):
    x, weight = inputs((1, 8, 4, 9, 2, 3), device)
    check((x[:, 2:6, 1:, ::2], weight[..., 1:, ::2]))


def test_empty_batch(device):
    x, weight = (t.requires_grad_() for t in inputs((0, 4, 5, 7, 2, 3), device))
    y = small_kernel_aggregation(x, weight)
    y.sum().backward()
    assert y.shape == x.grad.shape == x.shape
    assert weight.grad.shape == weight.shape


@pytest.mark.slow
def test_second_derivatives(device):
    """Against autograd through the definition."""

    def slopes(op, *tensors):
        x, weight = (t.detach().requires_grad_() for t in tensors)
        first = torch.autograd.grad(op(x, weight).sin().sum(), (x, weight), create_graph=True)
        return torch.autograd.grad(sum(t.square().sum() for t in first), (x, weight))

    tensors = inputs((1, 4, 2, 3, 2, 3), device)
    want = slopes(small_kernel_aggregation_reference, *(t.double() for t in tensors))
    for got, expected in zip(slopes(small_kernel_aggregation, *tensors), want, strict=True):
        assert_equal(got, expected, factor=3)


@pytest.mark.filterwarnings(
    "ignore:The .grad attribute of a Tensor that is not a leaf"
)  # opcheck's
@pytest.mark.parametrize("layout", LAYOUTS)
def test_operators_are_well_formed(layout, device):
    x, weight = inputs((1, 4, 2, 3, 2, 1), device, layout=layout)  # one tap: the quickest
    x, weight = x.requires_grad_(), weight.contiguous().requires_grad_()
    torch.library.opcheck(aggregation._aggregate, (x, weight))
    torch.library.opcheck(aggregation._gradients, (x, weight, torch.ones_like(x)))


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize(
    "shape",
    [
        *((4, 128, 28, 28, 16, 3), (4, 256, 14, 14, 32, 3), (3, 384, 7, 7, 48, 3)),
        *((1, 64, 19, 23, 64, 3), (1, 6, 127, 61, 3, 5), (2, 8, 57, 56, 1, 1)),
    ],
    ids=lambda s: "x".join(map(str, s)),
)
def test_on_a_gpu(shape, dtype):
    check(inputs(shape, "cuda", dtype), factor=2)


@pytest.mark.gpu
def test_more_than_two_billion_elements():
    x = torch.zeros(129, 64, 512, 512, device="cuda", dtype=torch.bfloat16)
    weight = torch.ones(129, 1, 9, 512, 512, device="cuda", dtype=torch.bfloat16)
    x[-1] = 1
    y = small_kernel_aggregation(x, weight)
    assert y[-1, :, 1:-1, 1:-1].unique().tolist() == [9]
    assert not y[0].any()
