"""small_kernel_aggregation against its float64 definition, and under PyTorch's transformations."""

import io

import pytest
import torch
from torch import nn

from seewide.errors import InputError
from seewide.ops import (
    explain,
    small_kernel_aggregation,
    small_kernel_aggregation_reference,
    use_backend,
)
from seewide.testing import assert_equal, assert_matches_reference

# N, C, H, W, G, k: odd and non-square maps, larger and smaller than the kernel.
SHAPES = [
    (2, 12, 19, 23, 3, 3),
    (1, 8, 19, 23, 8, 3),
    (1, 6, 23, 19, 1, 5),
    (3, 16, 7, 9, 2, 3),
    (2, 4, 6, 5, 2, 1),
    (1, 4, 3, 2, 2, 7),
    (2, 8, 1, 1, 4, 3),
]
LAYOUTS = [torch.contiguous_format, torch.channels_last]


def inputs(N, C, H, W, G, k, dtype=torch.float32, layout=torch.contiguous_format):
    """x, and weights as a convolution of that layout makes them."""
    x = torch.randn(N, C, H, W, dtype=dtype).contiguous(memory_format=layout)
    weight = torch.randn(N, G * k * k, H, W, dtype=dtype).contiguous(memory_format=layout)
    return x, weight.unflatten(1, (G, k * k))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("backend", ["cpu", "torch", "reference"])
@pytest.mark.parametrize("shape", SHAPES, ids=lambda s: "x".join(map(str, s)))
def test_output_and_gradients_match_the_definition(shape, backend, layout):
    with use_backend(backend):
        assert_matches_reference(
            small_kernel_aggregation,
            small_kernel_aggregation_reference,
            inputs(*shape, layout=layout),
        )


@pytest.mark.parametrize("layout", LAYOUTS)
def test_output_has_the_layout_of_the_input(layout):
    x, weight = inputs(2, 12, 19, 23, 3, 3, layout=layout)
    x.requires_grad_()
    y = small_kernel_aggregation(x, weight)
    assert y.is_contiguous(memory_format=layout)
    y = small_kernel_aggregation(x.contiguous(), weight)
    assert y.is_contiguous()


def test_reference_against_the_formula():
    """Pixel by pixel, as the head of the file has it."""
    N, C, H, W, G, k = 2, 6, 4, 5, 3, 3
    x, weight = inputs(N, C, H, W, G, k, torch.float64)
    y = torch.zeros_like(x)
    for c in range(C):
        for i in range(H):
            for j in range(W):
                for u in range(k):
                    for v in range(k):
                        a, b = i + u - 1, j + v - 1
                        if 0 <= a < H and 0 <= b < W:
                            y[:, c, i, j] += weight[:, c % G, u * k + v, i, j] * x[:, c, a, b]
    assert_equal(small_kernel_aggregation_reference(x, weight), y)


def test_constant_weights_are_a_depthwise_convolution():
    x, kernel = torch.randn(2, 8, 9, 11), torch.randn(4, 5, 5)
    weight = kernel.flatten(1)[None, :, :, None, None].expand(2, 4, 25, 9, 11)
    want = nn.functional.conv2d(x, kernel.repeat(2, 1, 1)[:, None], padding=2, groups=8)
    assert_equal(small_kernel_aggregation(x, weight), want)


def test_ones_count_the_overlap_of_kernel_and_map():
    y = small_kernel_aggregation(torch.ones(1, 2, 4, 5), torch.ones(1, 1, 9, 4, 5))
    rows, columns = torch.tensor([2.0, 3, 3, 2]), torch.tensor([2.0, 3, 3, 3, 2])
    assert torch.equal(y[0, 1], rows[:, None] * columns)


def test_empty_batch():
    x, weight = (t.requires_grad_() for t in inputs(0, 4, 9, 9, 2, 3))
    y = small_kernel_aggregation(x, weight)
    assert y.shape == (0, 4, 9, 9)
    y.sum().backward()
    assert x.grad.shape == x.shape
    assert weight.grad.shape == weight.shape


@pytest.mark.parametrize("layout", LAYOUTS)
def test_gradcheck_twice(layout):
    """Forward, scatter and correlate are each other's derivatives."""
    tensors = [t.requires_grad_() for t in inputs(2, 4, 3, 4, 2, 3, torch.float64, layout)]
    assert torch.autograd.gradcheck(small_kernel_aggregation, tensors)
    assert torch.autograd.gradgradcheck(small_kernel_aggregation, tensors)


def test_only_requested_gradients_are_computed():
    x, weight = inputs(1, 4, 5, 6, 2, 3)
    for wanted in (x, weight):
        wanted.requires_grad_()
        (gradient,) = torch.autograd.grad(small_kernel_aggregation(x, weight).sum(), (wanted,))
        assert gradient.shape == wanted.shape
        wanted.requires_grad_(False)


@pytest.mark.parametrize("backend", ["cpu", "torch", "reference"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision(dtype, backend):
    factor = 1 if backend == "cpu" else 3  # which rounds once, the others at every tap
    with use_backend(backend):
        assert_matches_reference(
            small_kernel_aggregation,
            small_kernel_aggregation_reference,
            inputs(2, 8, 19, 23, 4, 3, dtype),
            factor,
        )


def test_autocast_casts_as_a_convolution_does():
    x, weight = (t.requires_grad_() for t in inputs(2, 8, 9, 11, 4, 3))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = small_kernel_aggregation(x, weight.to(torch.bfloat16))
    assert y.dtype == torch.bfloat16
    assert_equal(y, small_kernel_aggregation_reference(x.double(), weight.double()))
    y.float().sum().backward()
    assert x.grad.dtype == weight.grad.dtype == torch.float32


class Net(nn.Module):
    """Makes its weights from its input, as LSConv does."""

    def __init__(self):
        super().__init__()
        self.to_weight = nn.Conv2d(8, 4 * 9, 1)

    def forward(self, x):
        return small_kernel_aggregation(x, self.to_weight(x).unflatten(1, (4, 9))).relu()


def test_meta_tensors():
    x, weight = (t.to("meta") for t in inputs(2, 8, 19, 23, 4, 3))
    assert small_kernel_aggregation(x, weight).shape == (2, 8, 19, 23)


def test_compile_without_graph_break():
    net, x = Net(), torch.randn(2, 8, 9, 11, requires_grad=True)
    compiled = torch.compile(net, fullgraph=True, backend="aot_eager")
    assert_equal(compiled(x), net(x))
    (got,) = torch.autograd.grad(compiled(x).sum(), x)
    (want,) = torch.autograd.grad(net(x).sum(), x)
    assert_equal(got, want)


def test_export_holds_aten_operators_and_any_batch():
    net = Net().eval()
    batch = torch.export.Dim("batch", min=1, max=64)
    x = torch.randn(2, 8, 9, 11)
    program = torch.export.export(net, (x,), dynamic_shapes=({0: batch},))
    calls = {str(n.target) for n in program.graph.nodes if n.op == "call_function"}
    assert all(call.startswith("aten.") for call in calls if not call.startswith("sym_")), calls
    x = torch.randn(5, 8, 9, 11)
    assert_equal(program.module()(x), net(x))


def test_onnx():
    runtime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    net, x, file = Net().eval(), torch.randn(2, 8, 9, 11), io.BytesIO()
    torch.onnx.export(net, (x,), dynamo=True, verbose=False).save(file)
    session = runtime.InferenceSession(file.getvalue())
    (y,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    assert_equal(torch.from_numpy(y), net(x))


def test_fx_and_torchscript():
    net, x = Net(), torch.randn(2, 8, 9, 11)
    traced = torch.fx.symbolic_trace(net)
    assert small_kernel_aggregation in [n.target for n in traced.graph.nodes]
    for form in (traced, torch.jit.script(net), torch.jit.script(traced)):
        assert_equal(form(x), net(x))


def test_explain_prints_choice_and_reasons(capsys):
    x, weight = inputs(1, 4, 5, 6, 2, 3)
    explain(small_kernel_aggregation, x, weight)
    assert "cpu        chosen" in capsys.readouterr().out
    explain(small_kernel_aggregation, x.to("meta"), weight.to("meta"))
    assert "the input is on meta, this backend runs on cpu" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("x", "weight", "sentence"),
    [
        ((3, 8, 8), (1, 1, 9, 8, 8), r"\(N, C, H, W\), got shape \(3, 8, 8\)"),
        ((1, 4, 8, 8), (1, 18, 8, 8), r"N=1, H=8, W=8 as in x, got shape \(1, 18, 8, 8\)"),
        ((1, 4, 8, 8), (1, 2, 9, 8, 7), r"got shape \(1, 2, 9, 8, 7\)"),
        ((2, 4, 8, 8), (1, 2, 9, 8, 8), r"N=2, H=8, W=8 as in x"),
        ((1, 4, 8, 8), (1, 3, 9, 8, 8), "must divide C=4, got G=3"),
        ((1, 4, 8, 8), (1, 2, 4, 8, 8), "odd square kernel, got 4 taps"),
        ((1, 4, 8, 8), (1, 2, 8, 8, 8), "odd square kernel, got 8 taps"),
    ],
)
def test_bad_input_raises_one_sentence(x, weight, sentence):
    with pytest.raises(InputError, match=sentence):
        small_kernel_aggregation(torch.zeros(x), torch.zeros(weight))


def test_dtypes_must_agree():
    x, weight = inputs(1, 4, 5, 6, 2, 3)
    with pytest.raises(InputError, match=r"x is torch.float32 and weight is torch.float64"):
        small_kernel_aggregation(x, weight.double())
    with pytest.raises(InputError, match=r"floating point, got torch.int64"):
        small_kernel_aggregation(x.long(), weight)
