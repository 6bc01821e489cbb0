"""asymmetric_conv against loops in float64, its options, and under what torch does with ops."""

import random
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from seewide.errors import InputError
from seewide.ops import (
    asymmetric_conv,
    asymmetric_conv_reference,
    explain,
    fusion_kernel,
    use_backend,
)
from seewide.testing import assert_equal, assert_matches_reference

sys.path.append(str(Path(__file__).parents[1] / "modalities"))


def draw_case(seed: int):
    """A random case: tensors (x, kernel) and the other arguments."""
    random.seed(seed)
    generator = torch.Generator().manual_seed(seed)
    N, C, K = random.randint(1, 3), random.randint(1, 5), random.randint(1, 4)
    flat = random.random() < 0.3
    size = [random.randint(1, 24)] if flat else [random.randint(1, 20), random.randint(1, 20)]
    words = not flat and random.random() < 0.25
    padding = random.choice(["same", "valid"])
    longest = [max(size)] if words else size
    largest = [k if padding == "valid" else 2 * k + 3 for k in longest]
    taps = [random.randint(1, min(k, 31)) for k in largest]
    channels = random.choice(["depthwise", "depthwise", "dense"])
    dense = channels == "dense"
    identity = random.random() < 0.4
    if identity:
        K = C
    x = torch.randn(N, C, *size, generator=generator)
    kernel = torch.randn(N, *([K] if dense else []), C, *taps, generator=generator)
    mask = None
    if random.random() < 0.4:
        mask = torch.rand(N, *taps, generator=generator) < 0.7
    alpha = torch.randn(C, generator=generator) if identity else None
    normalize = random.choice(["none", "size", "softmax", "l2"])
    return x, kernel, mask, alpha, channels, padding, normalize


def by_loops(x, kernel, channels, padding):
    """The formula, one output at a time; `kernel` is finished, both have two spatial axes."""
    N, _, H, W = x.shape
    kh, kw = kernel.shape[-2:]
    top, left = ((kh - 1) // 2, (kw - 1) // 2) if padding == "same" else (0, 0)
    rows, columns = (H, W) if padding == "same" else (H - kh + 1, W - kw + 1)
    y = x.new_zeros(N, kernel.shape[1], rows, columns)
    for i in range(rows):
        for j in range(columns):
            u0, u1 = max(0, top - i), min(kh, H + top - i)
            v0, v1 = max(0, left - j), min(kw, W + left - j)
            part = x[:, :, i + u0 - top : i + u1 - top, j + v0 - left : j + v1 - left]
            taps = kernel[..., u0:u1, v0:v1]
            if channels == "dense":
                y[:, :, i, j] = (part[:, None] * taps).sum((2, 3, 4))
            else:
                y[:, :, i, j] = (part * taps).sum((2, 3))
    return y


@pytest.mark.parametrize("block", range(10))
def test_200_random_shapes_equal_loops_in_float64(block):
    """Output, and the gradients to both inputs and alpha."""
    for seed in range(20 * block, 20 * block + 20):
        x, kernel, mask, alpha, *options = draw_case(seed)
        normalize = options[-1]
        tensors = [t for t in (x, kernel, alpha) if t is not None]

        def run(function, leaves, mask=mask, options=options, alpha=alpha):
            scale = leaves[2] if alpha is not None else None
            return function(leaves[0], leaves[1], mask, scale, *options)

        def loops(x, kernel, mask, alpha, channels, padding, normalize):
            finished = fusion_kernel(kernel, mask, alpha, channels, normalize)
            flat = x.ndim == 3
            if flat:
                x, finished = x.unsqueeze(2), finished.unsqueeze(-2)
            elif finished.ndim == (4 if channels == "dense" else 3):
                finished = finished.unsqueeze(-1 if x.shape[2] > x.shape[3] else -2)
            y = by_loops(x, finished, channels, padding)
            return y.squeeze(2) if flat else y

        ours = [t.detach().requires_grad_() for t in tensors]
        theirs = [t.detach().double().requires_grad_() for t in tensors]
        got, want = run(asymmetric_conv, ours), run(loops, theirs)
        what = f"case {seed}: {tuple(x.shape)}, {tuple(kernel.shape)}, {options}"
        assert_equal(got, want, what)
        dy = torch.randn(want.shape)
        got_gradients = torch.autograd.grad(got, ours, dy)
        want_gradients = torch.autograd.grad(want, theirs, dy.double())
        for name, g, w in zip(
            ("x", "kernel", "alpha"), got_gradients, want_gradients, strict=False
        ):
            # Gradients that cancel to almost nothing (softmax of one tap) compare absolutely.
            limit = 1e-5 * max(1.0, w.abs().max().item()) * (3 if normalize == "l2" else 1)
            assert (g - w).abs().max() <= limit, f"{what}, gradient of {name}"


def options_of_each_kind():
    x, kernel = torch.randn(2, 3, 9, 12), torch.randn(2, 3, 5, 7)
    yield x, kernel, {}
    yield x, torch.randn(2, 3, 4, 6), {"padding": "valid"}
    yield x, torch.randn(2, 4, 3, 5, 7), {"channels": "dense", "normalize": "size"}
    yield x, torch.randn(2, 3, 6), {"normalize": "softmax"}
    yield torch.randn(2, 3, 30), torch.randn(2, 3, 11), {"normalize": "l2"}


@pytest.mark.parametrize("backend", ["cpu", "torch", "reference"])
def test_every_backend_matches_the_definition(backend):
    for x, kernel, options in options_of_each_kind():
        if backend == "cpu" and options.get("channels") == "dense":
            continue
        with use_backend(backend):
            assert_matches_reference(
                lambda x, k, options=options: asymmetric_conv(x, k, **options),
                lambda x, k, options=options: asymmetric_conv_reference(x, k, **options),
                (x, kernel),
            )


@pytest.mark.parametrize("size", [7, 13, 31, 45])
def test_all_ways_of_computing_match(size):
    """Direct, padded and Fourier, on one map."""
    tensors = torch.randn(2, 2, 33, 31), torch.randn(2, 2, size, size) / size
    assert_matches_reference(asymmetric_conv, asymmetric_conv_reference, tensors, factor=3)


def test_equals_the_paper_by_loops():
    from modality_figures import Figures, normal

    figures = Figures("fusion_by_loops")
    x, y = normal(2, 12, 6, seed=0).transpose(1, 2), normal(2, 5, 6, seed=1).transpose(1, 2)
    same, valid = asymmetric_conv(x, y), asymmetric_conv(x, y, padding="valid")
    assert_equal(same.transpose(1, 2), figures["depthwise_same"])
    assert_equal(valid.transpose(1, 2), figures["depthwise_valid"])
    dot = asymmetric_conv(x, y.unsqueeze(1), channels="dense", padding="valid")
    assert_equal(dot[:, 0], figures["dot_valid"])
    image, kernel = normal(2, 6, 9, 7, seed=2), normal(2, 6, 5, 3, seed=3)
    assert_equal(asymmetric_conv(image, kernel), figures["depthwise_same_2d"])


def test_one_vector_is_a_product_per_channel():
    """A sentence as a 1 x 1 kernel is RefVOS' fusion."""
    x, sentence = torch.randn(2, 3, 5, 6), torch.randn(2, 3)
    y = asymmetric_conv(x, sentence[:, :, None])
    assert torch.allclose(y, x * sentence[:, :, None, None])


@pytest.mark.parametrize("shape", [(2, 3, 7, 5), (2, 3, 4, 4), (2, 3, 6), (2, 3, 3, 5, 5)])
def test_alpha_zero_is_the_identity(shape):
    x = torch.randn(2, 3, 8, 9)
    channels = "dense" if len(shape) == 5 else "depthwise"
    kernel = torch.randn(shape, requires_grad=True)
    alpha = torch.zeros(3, requires_grad=True)
    y = asymmetric_conv(x, kernel, alpha=alpha, channels=channels)
    assert torch.allclose(y, x, atol=1e-6)
    y.square().sum().backward()
    assert alpha.grad.abs().min() > 0  # it learns from there


def test_words_lie_along_the_longer_axis():
    words = torch.randn(1, 2, 5)
    wide, high = torch.randn(1, 2, 6, 9), torch.randn(1, 2, 9, 6)
    assert torch.allclose(
        asymmetric_conv(wide, words), asymmetric_conv(wide, words[:, :, None, :]), atol=1e-6
    )
    assert torch.allclose(
        asymmetric_conv(high, words), asymmetric_conv(high, words[:, :, :, None]), atol=1e-6
    )


@pytest.mark.parametrize("normalize", ["none", "size", "softmax", "l2"])
def test_masked_taps_count_as_absent(normalize):
    """Padding tokens change nothing, whatever they hold, and a sentence of none is finite."""
    x, words = torch.randn(2, 3, 6, 9), torch.randn(2, 3, 7)
    mask = torch.arange(7)[None] < torch.tensor([[5], [0]])
    got = fusion_kernel(words, mask, normalize=normalize)
    assert torch.allclose(got[0, :, :5], fusion_kernel(words[:1, :, :5], normalize=normalize)[0])
    assert got[0, :, 5:].eq(0).all()
    assert got[1].eq(0).all()
    words[0, :, 5:], words[1] = 1e4, float("nan")
    words.requires_grad_()
    y = asymmetric_conv(x, words, mask, normalize=normalize)
    assert y.isfinite().all()
    y.sum().backward()
    assert words.grad[0].isfinite().all()
    assert words.grad[0, :, 5:].eq(0).all()


def test_normalizations():
    kernel = torch.randn(2, 3, 5, 7)
    assert torch.allclose(fusion_kernel(kernel, normalize="size"), kernel / 35**0.5)
    assert torch.allclose(fusion_kernel(kernel, normalize="softmax").sum((2, 3)), torch.ones(2, 3))
    assert torch.allclose(fusion_kernel(kernel, normalize="l2").norm(dim=(2, 3)), torch.ones(2, 3))
    dense = torch.randn(2, 4, 3, 5, 7)
    sizes = fusion_kernel(dense, channels="dense", normalize="size")
    assert torch.allclose(sizes, dense / (3 * 35) ** 0.5)
    norms = fusion_kernel(dense, channels="dense", normalize="l2").flatten(2).norm(dim=2)
    assert torch.allclose(norms, torch.ones(2, 4))


def test_resize_pools_the_kernel():
    kernel = torch.randn(2, 3, 8, 10)
    pooled = fusion_kernel(kernel, resize=5)
    assert torch.allclose(pooled, F.adaptive_avg_pool2d(kernel, 5))
    words = torch.ones(1, 2, 10)
    mask = torch.arange(10)[None] < 7
    got = fusion_kernel(words * 3, mask, resize=5)
    assert torch.allclose(got, torch.tensor([3.0, 3, 3, 3, 0]).expand(1, 2, 5))
    with pytest.raises(InputError, match="2 positive sizes or one, got 0"):
        fusion_kernel(kernel, resize=0)


def test_gradcheck_twice():
    x = torch.randn(2, 2, 4, 5, dtype=torch.float64, requires_grad=True)
    for shape, options in (
        ((2, 2, 3, 4), {}),
        ((2, 2, 3), {"normalize": "softmax"}),
        ((2, 3, 2, 3, 3), {"channels": "dense", "normalize": "l2"}),
    ):
        kernel = torch.randn(shape, dtype=torch.float64, requires_grad=True)
        call = lambda x, k, options=options: asymmetric_conv(x, k, **options)  # noqa: E731
        assert torch.autograd.gradcheck(call, (x, kernel))
        assert torch.autograd.gradgradcheck(call, (x, kernel))


def test_autocast_half_precision_and_meta():
    x, kernel = torch.randn(2, 3, 9, 12), torch.randn(2, 3, 7, 7)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = asymmetric_conv(x, kernel)
    assert y.dtype == torch.bfloat16
    assert_equal(y, asymmetric_conv_reference(x.double(), kernel.double()))
    assert_matches_reference(
        asymmetric_conv, asymmetric_conv_reference, (x.bfloat16(), kernel.bfloat16()), factor=2
    )
    assert asymmetric_conv(x.to("meta"), kernel.to("meta")).shape == x.shape
    assert asymmetric_conv(x[:0], kernel[:0]).shape == (0, 3, 9, 12)


def test_compile_and_export():
    class Net(torch.nn.Module):
        def forward(self, x, kernel):
            return asymmetric_conv(x, kernel, normalize="size").relu()

    x, kernel = torch.randn(2, 3, 9, 12), torch.randn(2, 3, 13, 13)
    want = Net()(x, kernel)
    compiled = torch.compile(Net(), fullgraph=True, backend="aot_eager")
    assert_equal(compiled(x, kernel), want)
    program = torch.export.export(Net(), (x, kernel))
    assert_equal(program.module()(x, kernel), want)
    opcheck = torch.library.opcheck
    opcheck(torch.ops.seewide.planes_conv2d_cpu.default, (x[:1], torch.randn(3, 1, 5, 5)))


def test_explain_names_the_choice(capsys):
    explain(asymmetric_conv, torch.randn(1, 4, 20, 20), torch.randn(1, 4, 13, 13))
    assert "chosen: padded" in capsys.readouterr().out
    dense = torch.randn(1, 2, 4, 5, 5)
    explain(asymmetric_conv, torch.randn(1, 4, 20, 20), dense, channels="dense")
    assert "dense kernels are computed by the backend 'torch'" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("x", "kernel", "options", "sentence"),
    [
        ((2, 3, 8), (2, 3, 3, 3), {}, r"N=2, C=3 and 1 spatial axes .* got shape \(2, 3, 3, 3\)"),
        ((2, 3, 8, 8), (2, 4, 3, 3), {}, r"kernel must be \(N, C, ...\) with N=2, C=3"),
        ((2, 3, 8, 8), (1, 3, 3, 3), {}, r"got shape \(1, 3, 3, 3\)"),
        ((2, 3, 8, 8), (2, 3, 4, 3), {"channels": "dense"}, r"kernel must be \(N, K, C"),
        ((2, 3, 8, 8), (2, 3, 9, 3), {"padding": "valid"}, r"got \(9, 3\) in \(8, 8\)"),
        ((2, 3, 8, 8), (2, 3, 3, 3), {"padding": "full"}, "unknown padding 'full'"),
        ((2, 3, 8, 8), (2, 3, 3, 3), {"normalize": "max"}, "unknown normalize 'max'"),
        ((2, 3, 8, 8), (2, 3, 3, 3), {"mask": torch.ones(2, 3)}, "mask must be bool of shape"),
        ((2, 3), (2, 3, 3), {}, r"\(N, C, H, W\) or \(N, C, L\), got shape \(2, 3\)"),
    ],
)
def test_bad_input_raises_one_sentence(x, kernel, options, sentence):
    with pytest.raises(InputError, match=sentence):
        asymmetric_conv(torch.zeros(x), torch.zeros(kernel), **options)


def test_identity_needs_as_many_filters_as_channels():
    with pytest.raises(InputError, match="K=2 and C=3"):
        asymmetric_conv(
            torch.zeros(1, 3, 8, 8), torch.zeros(1, 2, 3, 3, 3), alpha=0.0, channels="dense"
        )
    with pytest.raises(InputError, match=r"x is torch.float32 and kernel is torch.float64"):
        asymmetric_conv(torch.zeros(1, 3, 8, 8), torch.zeros(1, 3, 3, 3).double())
