"""depthwise_conv2d against its definition in float64, and under PyTorch's transformations."""

import pytest
import torch
from torch import nn

import seewide
from seewide.errors import InputError
from seewide.ops import depthwise_conv2d, depthwise_conv2d_reference, explain, use_backend
from seewide.testing import assert_equal, assert_matches_reference

# N, C, H, W, kh, kw, dilation: odd and non-square maps, smaller and larger than the kernel.
SHAPES = [
    (1, 3, 19, 23, 1, 1, 1),
    (2, 3, 19, 23, 3, 3, 1),
    (1, 4, 9, 30, 5, 5, 1),
    (2, 3, 19, 23, 7, 7, 1),
    (2, 5, 23, 19, 9, 9, 1),
    (2, 16, 19, 23, 11, 11, 1),
    (2, 16, 19, 23, 13, 13, 1),
    (1, 3, 70, 66, 13, 13, 1),
    (2, 3, 7, 9, 13, 13, 1),
    (2, 3, 19, 23, 15, 15, 1),
    (1, 3, 65, 67, 17, 17, 1),
    (1, 4, 19, 23, 31, 31, 1),
    (2, 4, 7, 7, 31, 31, 1),
    (1, 2, 60, 40, 51, 51, 1),
    (1, 2, 14, 14, 101, 101, 1),
    (1, 1, 1, 1, 7, 7, 1),
    (3, 2, 1, 5, 3, 3, 1),
    (1, 3, 19, 23, 51, 5, 1),
    (1, 3, 19, 23, 5, 51, 1),
    (2, 3, 19, 23, 3, 9, 1),
    (2, 3, 19, 23, 3, 3, 5),
    (2, 3, 19, 23, 7, 7, 2),
    (1, 3, 19, 23, 5, 5, 4),
    (1, 3, 4, 5, 3, 3, 7),
    (1, 3, 19, 23, 9, 3, 2),
]


def inputs(N, C, H, W, kh, kw, dtype=torch.float32, layout=torch.contiguous_format):
    x = torch.randn(N, C, H, W, dtype=dtype).contiguous(memory_format=layout)
    return x, torch.randn(C, 1, kh, kw, dtype=dtype) / kh, torch.randn(C, dtype=dtype)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("shape", SHAPES, ids=lambda s: "x".join(map(str, s)))
def test_output_and_gradients_match_the_definition(shape, layout):
    *sizes, dilation = shape
    tensors = inputs(*sizes, layout=layout)
    assert_matches_reference(
        lambda x, w, b: depthwise_conv2d(x, w, b, dilation),
        lambda x, w, b: depthwise_conv2d_reference(x, w, b, dilation),
        tensors,
    )
    assert depthwise_conv2d(*tensors, dilation).is_contiguous(memory_format=layout)


def test_every_odd_kernel_size_up_to_101():
    """Forward and gradients for K in 1, 3, ..., 101; the larger ones meet maps they exceed."""
    for size in range(1, 102, 2):
        assert_matches_reference(
            lambda x, w: depthwise_conv2d(x, w),
            lambda x, w: depthwise_conv2d_reference(x, w),
            inputs(1, 2, 11, 14, size, size)[:2],
        )


@pytest.mark.parametrize("backend", ["torch", "reference"])
def test_torch_and_reference_backends_match_the_definition(backend):
    tensors = inputs(2, 4, 19, 23, 13, 7)
    with use_backend(backend):
        assert_matches_reference(depthwise_conv2d, depthwise_conv2d_reference, tensors)


def test_ones_count_the_overlap_of_kernel_and_map():
    y = depthwise_conv2d(torch.ones(1, 1, 6, 8), torch.ones(1, 1, 5, 5))
    rows = torch.tensor([3.0, 4, 5, 5, 4, 3])
    columns = torch.tensor([3.0, 4, 5, 5, 5, 5, 4, 3])
    assert torch.equal(y[0, 0], rows[:, None] * columns)


@pytest.mark.parametrize("size", [3, 13, 31])
def test_empty_batch(size):
    x, w, b = inputs(0, 3, 9, 9, size, size)
    x.requires_grad_()
    w.requires_grad_()
    y = depthwise_conv2d(x, w, b)
    assert y.shape == (0, 3, 9, 9)
    y.sum().backward()
    assert x.grad.shape == x.shape
    assert torch.equal(w.grad, torch.zeros_like(w))


@pytest.mark.parametrize(("kh", "kw", "dilation"), [(3, 3, 1), (5, 3, 2), (9, 1, 1)])
def test_gradcheck_twice(kh, kw, dilation):
    tensors = inputs(1, 2, 5, 6, kh, kw, torch.float64)
    tensors = [t.requires_grad_() for t in tensors]
    op = lambda *args: depthwise_conv2d(*args, dilation)  # noqa: E731 - a named closure
    assert torch.autograd.gradcheck(op, tensors)
    assert torch.autograd.gradgradcheck(op, tensors)


def test_only_requested_gradients_are_computed():
    x, w, b = inputs(1, 2, 9, 9, 13, 13)
    w.requires_grad_()
    (dw,) = torch.autograd.grad(depthwise_conv2d(x, w, b).sum(), (w,))
    assert dw.shape == w.shape


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("size", [3, 13, 31])
def test_half_precision_rounds_once(dtype, size):
    tensors = inputs(2, 4, 19, 23, size, size, dtype)
    assert_matches_reference(depthwise_conv2d, depthwise_conv2d_reference, tensors)


def test_autocast_casts_as_a_convolution_does():
    x, w, b = inputs(2, 4, 19, 23, 13, 13)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = depthwise_conv2d(x.requires_grad_(), w.requires_grad_(), b)
        double = depthwise_conv2d(x.double(), w.double(), b.double())
    assert y.dtype == torch.bfloat16
    assert double.dtype == torch.float64  # autocast leaves it alone
    assert_equal(y, depthwise_conv2d_reference(x.double(), w.double(), b.double()))
    y.float().sum().backward()
    assert x.grad.dtype == torch.float32


class Net(nn.Module):
    def __init__(self, size=13):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(4, 1, size, size))

    def forward(self, x):
        return depthwise_conv2d(x, self.weight).relu()


def test_meta_tensors():
    x, w, b = (t.to("meta") for t in inputs(2, 4, 19, 23, 31, 31))
    assert depthwise_conv2d(x, w, b).shape == (2, 4, 19, 23)


def test_compile_without_graph_break():
    net, x = Net(), torch.randn(2, 4, 19, 23, requires_grad=True)
    compiled = torch.compile(net, fullgraph=True, backend="aot_eager")
    assert_equal(compiled(x), net(x))
    (got,) = torch.autograd.grad(compiled(x).sum(), x)
    (want,) = torch.autograd.grad(net(x).sum(), x)
    assert_equal(got, want)


def test_compiled_graph_holds_one_operator_and_preserves_the_layout():
    """Inductor would give the parts of a fast path layouts of its own."""
    seen = []

    def backend(graph, inputs):
        seen.extend(str(node.target) for node in graph.graph.nodes)
        return graph

    net, x = Net().eval(), torch.randn(2, 4, 19, 23).contiguous(memory_format=torch.channels_last)
    with torch.no_grad():
        y = torch.compile(net, fullgraph=True, backend=backend)(x)
        assert_equal(y, net(x))
    assert y.is_contiguous(memory_format=torch.channels_last)
    assert any("depthwise_conv2d_cpu" in target for target in seen)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_custom_operators_pass_opcheck(layout):
    x = torch.randn(2, 4, 9, 8).contiguous(memory_format=layout)
    operators = torch.ops.seewide
    weight, dy = torch.randn(4, 1, 7, 7), torch.randn_like(x)
    torch.library.opcheck(operators.depthwise_conv2d_cpu.default, (x, weight, None, 1))
    arguments = (x, dy, 7, 7, 1)
    torch.library.opcheck(operators.depthwise_weight_gradient_cpu.default, arguments)


def test_batch_of_one_with_stride_zero():
    """As Inductor makes it of a permuted layer norm."""
    x, w, _ = inputs(1, 4, 9, 7, 7, 7)
    x = x.contiguous(memory_format=torch.channels_last)
    assert_equal(depthwise_conv2d(x.as_strided(x.shape, (0, 1, 28, 4)), w), depthwise_conv2d(x, w))


def test_export_is_one_plain_convolution():
    net, x = Net().eval(), torch.randn(2, 4, 19, 23)
    program = torch.export.export(net, (x,))
    calls = [str(n.target) for n in program.graph.nodes if n.op == "call_function"]
    assert calls == ["aten.conv2d.default", "aten.relu.default"]
    assert_equal(program.module()(x), net(x))


def test_fx_and_torchscript():
    net, x = Net(), torch.randn(2, 4, 19, 23)
    traced = torch.fx.symbolic_trace(net)
    assert depthwise_conv2d in [n.target for n in traced.graph.nodes]
    for form in (traced, torch.jit.script(net), torch.jit.script(traced)):
        assert_equal(form(x), net(x))


def test_explain_prints_choice_and_reasons(capsys):
    x, w, _ = inputs(1, 3, 20, 20, 31, 31)
    explain(depthwise_conv2d, x, w)
    table = capsys.readouterr().out
    assert "cpu" in table
    assert "chosen: channels_last" in table
    explain(depthwise_conv2d, x.to("meta"), w.to("meta"))
    assert "the input is on meta, this backend runs on cpu" in capsys.readouterr().out


def test_use_backend_refuses_in_a_sentence():
    x, w, _ = (t.to("meta") for t in inputs(1, 3, 20, 20, 31, 31))
    with use_backend("cpu"), pytest.raises(InputError, match="cannot run depthwise_conv2d: the in"):
        depthwise_conv2d(x, w)
    with pytest.raises(InputError, match="unknown backend 'cuda'"):
        seewide.use_backend("cuda")
    with use_backend("torch"), use_backend(None):
        explain(depthwise_conv2d, *inputs(1, 3, 20, 20, 31, 31))


@pytest.mark.parametrize(
    ("x", "weight", "bias", "dilation", "sentence"),
    [
        ((1, 3, 8, 8), (3, 1, 4, 5), None, 1, "must be odd, got 4 x 5"),
        ((1, 3, 8, 8), (2, 1, 3, 3), None, 1, r"C=3 as in x, got shape \(2, 1, 3, 3\)"),
        ((1, 3, 8, 8), (3, 3, 3, 3), None, 1, r"got shape \(3, 3, 3, 3\)"),
        ((3, 8, 8), (3, 1, 3, 3), None, 1, r"\(N, C, H, W\), got shape \(3, 8, 8\)"),
        ((1, 3, 8, 8), (3, 1, 3, 3), (4,), 1, r"bias must be \(3,\), got shape \(4,\)"),
        ((1, 3, 8, 8), (3, 1, 3, 3), None, 0, "dilation must be at least 1, got dilation=0"),
    ],
)
def test_bad_input_raises_one_sentence(x, weight, bias, dilation, sentence):
    bias = None if bias is None else torch.zeros(bias)
    with pytest.raises(InputError, match=sentence):
        depthwise_conv2d(torch.zeros(x), torch.zeros(weight), bias, dilation)


def test_dtypes_must_agree():
    x, w, _ = inputs(1, 3, 8, 8, 3, 3)
    with pytest.raises(InputError, match=r"x is torch.float32 and weight is torch.float64"):
        depthwise_conv2d(x, w.double())
    with pytest.raises(InputError, match=r"floating point, got torch.int64"):
        depthwise_conv2d(x.long(), w)
