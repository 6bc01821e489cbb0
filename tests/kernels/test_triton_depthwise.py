"""The Triton kernels of depthwise_conv2d against its definition in float64."""

from itertools import product
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from seewide.kernels.triton import depthwise, direct, toeplitz
from seewide.kernels.triton.depthwise import depthwise_conv2d
from seewide.kernels.triton.launch import Config
from seewide.testing import assert_equal, assert_matches_reference

# N, C, H, W, kh, kw, dilation: odd and non-square maps, smaller and larger than the kernel, strips.
SHAPES = [
    (1, 1, 7, 9, 7, 11, 1),
    (2, 1, 19, 23, 5, 5, 1),
    (3, 1, 5, 14, 3, 17, 1),
    (1, 1, 3, 70, 9, 3, 1),
    (1, 1, 11, 8, 5, 5, 2),
    (1, 1, 1, 1, 3, 1, 3),
]


LAYOUTS = [torch.contiguous_format, pytest.param(torch.channels_last, marks=pytest.mark.slow)]


def inputs(shape, device, dtype=torch.float32, layout=torch.contiguous_format):
    N, C, H, W, kh, kw, dilation = shape
    x = torch.randn(N, C, H, W).to(device, dtype).contiguous(memory_format=layout)
    weight = (torch.randn(C, 1, kh, kw) / (kh * kw) ** 0.5).to(device, dtype)
    return x, weight, torch.randn(C).to(device, dtype), dilation


def definition(x, weight, bias, dilation=1):
    """torch's convolution, in float64 the definition; on the CPU, where a GPU's is very slow."""
    kh, kw = weight.shape[2:]
    padding = (kh // 2 * dilation, kw // 2 * dilation)
    tensors = (t if t is None else t.cpu() for t in (x, weight, bias))
    y = F.conv2d(*tensors, padding=padding, dilation=dilation, groups=x.shape[1])
    return y.to(x.device)


def check(x, weight, bias, dilation=1, factor=1.0):
    assert_matches_reference(
        lambda *tensors: depthwise_conv2d(*tensors, dilation),
        lambda *tensors: definition(*tensors, dilation),
        (x, weight, bias),
        factor,
    )


@pytest.mark.parametrize("shape", SHAPES, ids=lambda s: "x".join(map(str, s)))
@pytest.mark.parametrize("form", ["toeplitz", "direct"])
def test_output_and_gradients_match_the_definition(form, shape, device, monkeypatch):
    monkeypatch.setattr(depthwise, "plan", lambda *args: form)
    check(*inputs(shape, device))


@pytest.mark.parametrize(
    "tiles",
    [
        {"BM": 16, "BH": 2, "BW": 8, "BR": 2, "BC": 8, "REP": 8},  # images in M, columns in chunks
        {"BM": 16, "BH": 8, "BW": 16, "BR": 1, "BC": 16, "REP": 1},
        {"BM": 64, "BH": 4, "BW": 32, "BR": 2, "BC": 32, "REP": 4},  # block rows in M
    ],
)
def test_blocks_of_all_shapes(tiles, device, monkeypatch):
    configs = lambda *args: [Config(tiles, stages=1)]  # noqa: E731
    monkeypatch.setattr(toeplitz, "convolve_configs", configs)
    x, weight, bias, _ = inputs((17, 1, 6, 20, 5, 9, 1), device)
    y = torch.empty_like(x)
    toeplitz.convolve(x, weight, bias, 1, False, y)
    assert_equal(y, definition(x.double(), weight.double(), bias.double()))


@pytest.mark.parametrize("BX", [16, 128])  # narrower than what a tile of columns sees, and wider
def test_weight_gradient_in_tiles_and_splits(BX, device, monkeypatch):
    tiles = {"BJ": 16, "BX": BX, "BU": 2, "BL": 16}
    monkeypatch.setattr(toeplitz, "gradient_configs", lambda *args: [Config(tiles, stages=1)])
    monkeypatch.setattr(toeplitz, "WAVES", 24)
    x, weight, _, _ = inputs((3, 1, 7, 35, 3, 7, 1), device)
    dy = torch.randn_like(x)
    weight = weight.double().requires_grad_()
    (want,) = torch.autograd.grad(definition(x.double(), weight, None), weight, dy.double())
    assert_equal(toeplitz.weight_gradient(x, dy, 3, 7, 1), want)


@pytest.mark.parametrize("size", [7, 5])
def test_float16(size, device):
    x, weight, bias, _ = inputs((2, 1, 9, 14, size, size, 1), device, torch.float16)
    assert depthwise.plan(x, weight, bias, 1) == {7: "toeplitz", 5: "direct"}[size]
    check(x, weight, bias)


SLOW = pytest.param((1, 2, 2, 3, 3, 29, 1), marks=pytest.mark.slow)
LAST = [(2, 9, 3, 5, 3, 5, 1), (1, 2, 5, 11, 5, 3, 2), SLOW]


@pytest.mark.parametrize("shape", LAST, ids=str)
def test_channels_last_is_kept(shape, device):
    tensors = inputs(shape, device, layout=torch.channels_last)
    assert depthwise.plan(*tensors) == ("toeplitz" if shape[5] == 29 else "direct, channels last")
    y = depthwise_conv2d(*tensors)
    assert y.is_contiguous(memory_format=torch.channels_last)
    check(*tensors)


@pytest.mark.slow
def test_channels_last_in_all_configurations_and_turned(device, monkeypatch):
    x, weight, bias, _ = inputs((1, 20, 3, 10, 3, 3, 2), device, torch.float16, torch.channels_last)
    want = definition(x.double(), weight.double().flip(2, 3), bias.double(), 2)
    for config in [*direct._configs_last(20, 3, 2), Config({"BI": 1, "BO": 2, "BC": 16})]:
        monkeypatch.setattr(direct, "_configs_last", lambda *args, config=config: [config])
        y = torch.empty_like(x)
        direct.convolve_last(x, weight, bias, 2, True, y)
        assert_equal(y, want)


@pytest.mark.skipif(torch.cuda.is_available(), reason="the GPU has its own test, below")
@pytest.mark.parametrize("form", ["toeplitz", "direct"])
def test_images_two_billion_elements_apart(form, monkeypatch):
    """Memory that is never touched costs none; an offset of 32 bits would fall out of it."""
    monkeypatch.setattr(depthwise, "plan", lambda *args: form)
    memory = torch.from_numpy(np.empty(2**31 + 64, np.float16))
    x = memory.as_strided((2, 1, 5, 6), (2**31 + 8, 30, 6, 1))
    x.copy_(torch.randn(2, 1, 5, 6))
    assert toeplitz.planes(x) is x
    weight, dy = torch.randn(1, 1, 3, 3).half(), torch.randn(2, 1, 5, 6).half()
    leaves = [weight.requires_grad_(), weight.detach().double().requires_grad_()]
    y, want = depthwise_conv2d(x, leaves[0], None, 1), definition(x.double(), leaves[1], None)
    assert_equal(y, want)
    (got,), (want,) = (torch.autograd.grad(r, leaf, dy.to(r.dtype))
                       for r, leaf in ((y, leaves[0]), (want, leaves[1])))  # fmt: skip
    assert_equal(got, want)


def test_slices_of_larger_tensors(device):
    """Every other channel needs no copy, every other column does; bias may be left out."""
    x, weight, _, _ = inputs((1, 4, 3, 6, 5, 5, 1), device)
    leaves = [t.requires_grad_() for t in (x, weight)]
    for part in (slice(1, None, 2), (slice(None), slice(None), slice(1, 3), slice(0, None, 2))):
        views = (x[:, part], weight[part]) if isinstance(part, slice) else (x[part], weight)
        y = depthwise_conv2d(*views, None, 1)
        want = definition(*(t.double() for t in views), None)
        assert_equal(y, want)
        dy = torch.randn_like(y)
        got = torch.autograd.grad(y, leaves, dy)
        for g, w in zip(got, torch.autograd.grad(want, leaves, dy.double()), strict=True):
            assert_equal(g, w)


def test_only_requested_gradients_are_computed(device):
    x, weight, bias, _ = inputs((1, 1, 5, 6, 5, 5, 1), device)
    for wanted in (x, weight, bias):
        wanted.requires_grad_()
        (gradient,) = torch.autograd.grad(depthwise_conv2d(x, weight, bias, 1).sum(), wanted)
        assert gradient.shape == wanted.shape
        wanted.requires_grad_(False)


@pytest.mark.parametrize("form", ["toeplitz", "direct"])
def test_empty_batch(form, device, monkeypatch):
    monkeypatch.setattr(depthwise, "plan", lambda *args: form)
    x, weight, bias, _ = inputs((0, 1, 5, 6, 7, 3, 1), device)
    x, weight, bias = (t.requires_grad_() for t in (x, weight, bias))
    depthwise_conv2d(x, weight, bias, 1).sum().backward()
    assert x.grad.shape == x.shape
    assert not weight.grad.any()
    assert not bias.grad.any()


@pytest.mark.slow
def test_second_derivatives(device):
    """Against autograd through the definition."""

    def slopes(op, *tensors):
        x, weight = (t.detach().requires_grad_() for t in tensors)
        y = op(x, weight, None, 1)
        first = torch.autograd.grad(y.sin().sum(), (x, weight), create_graph=True)
        return torch.autograd.grad(sum(t.square().sum() for t in first), (x, weight))

    x, weight, _, _ = inputs((1, 1, 5, 6, 5, 3, 1), device)
    want = slopes(definition, x.double(), weight.double())
    for got, expected in zip(slopes(depthwise_conv2d, x, weight), want, strict=True):
        assert_equal(got, expected, factor=3)


@pytest.mark.filterwarnings("ignore:The .grad attribute")  # which opcheck reads of other tensors
@pytest.mark.parametrize("layout", LAYOUTS)
def test_operators_are_well_formed(layout, device):
    x, weight, bias, _ = inputs((1, 2, 2, 3, 1, 3, 1), device, layout=layout)
    leaves = tuple(t.requires_grad_() for t in (x, weight, bias))
    torch.library.opcheck(depthwise._convolve, (*leaves, 1, True))
    torch.library.opcheck(depthwise._correlate, (x, torch.ones_like(x), 1, 3, 1))


def test_there_is_a_configuration_for_every_shape():
    batches, widths, extents = (1, 3, 128), (1, 7, 14, 28, 33, 56, 200, 2048), (7, 31, 101)
    both = (False, True)
    for N, W, ew, float32, wgmma in product(batches, widths, extents, both, both):
        for configs in (
            toeplitz.convolve_configs(N, W, W, ew, float32, wgmma),
            toeplitz.gradient_configs(W, ew // 2, float32),
            direct._configs(N, W, ew),
            direct._configs_last(N, W, 4 if float32 else 2),
        ):
            assert configs
            for config in configs:
                assert all(size & (size - 1) == 0 < size for size in config.tiles.values()), config


def test_tf32_only_if_allowed(monkeypatch):
    x = torch.empty(1)
    assert toeplitz.precision(x) == "tf32x3"
    for allowed in ({"fp32_precision": "tf32"}, {"allow_tf32": True}):  # PyTorch from 2.9, before
        monkeypatch.setattr(torch.backends.cuda, "matmul", SimpleNamespace(**allowed))
        assert toeplitz.precision(x) == "tf32"
        assert toeplitz.precision(x.half()) == "ieee"


KERNELS = [(5, 5), (7, 7), (13, 13), (31, 31), (51, 5), (5, 51), (101, 101)]
MAPS = [(128, 4, 7, 7), (3, 5, 14, 14), (65, 2, 28, 28), (1, 3, 19, 23), (2, 2, 56, 57)]


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("dilation", [1, 3])
@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("shape", [*MAPS, (1, 2, 90, 199)], ids=lambda s: "x".join(map(str, s)))
def test_on_a_gpu(shape, kernel, dilation, dtype):
    check(*inputs((*shape, *kernel, dilation), "cuda", dtype), factor=2)


@pytest.mark.gpu
def test_more_than_two_billion_elements():
    x = torch.zeros(129, 64, 512, 512, device="cuda", dtype=torch.bfloat16)
    weight = torch.ones(64, 1, 7, 7, device="cuda", dtype=torch.bfloat16)
    x[-1] = 1
    y = depthwise_conv2d(x, weight, None, 1)
    assert y[-1, :, 3:-3, 3:-3].unique().tolist() == [49]
    assert not y[0].any()
