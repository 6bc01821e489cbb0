"""pointwise_product against its definition in float64, and under everything torch does with ops."""

import copy

import pytest
import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

import seewide
from seewide.errors import InputError
from seewide.kernels.cpu import pointwise as onednn
from seewide.kernels.cpu import product_choice
from seewide.numerics import assert_close
from seewide.ops import (
    explain,
    pack_pointwise_weight,
    pointwise_product,
    pointwise_product_reference,
    use_backend,
)

BACKENDS = ["torch", "onednn"]
needs_onednn = pytest.mark.skipif(not onednn.has_operator(), reason="torch without the operator")
FORMS = ["contiguous", "strided", "expanded", "transposed", "channels_last", "offset"]


def tensor(shape, form, generator):
    """A random tensor of this shape in an unusual memory layout."""
    if form == "strided":
        return torch.randn(*[2 * n for n in shape], generator=generator)[
            tuple(slice(None, None, 2) for _ in shape)
        ]
    if form == "expanded":
        return torch.randn(1, *shape[1:], generator=generator).expand(shape)
    if form == "transposed" and len(shape) > 1:
        order = (*shape[:-2], shape[-1], shape[-2])
        return torch.randn(order, generator=generator).transpose(-1, -2)
    if form == "channels_last" and len(shape) == 4:
        return torch.randn(shape[0], shape[3], *shape[1:3], generator=generator).permute(0, 2, 3, 1)
    count = torch.Size(shape).numel()
    return torch.randn(count + 1, generator=generator)[form == "offset" :][:count].view(shape)


def check(backend, lead, c_in, c_out, forms, bias, activation, residual, seed):
    """Output and all gradients of one random call equal the float64 definition's."""
    generator = torch.Generator().manual_seed(seed)
    x = tensor((*lead, c_in), forms[0], generator)
    weight = tensor((c_out, c_in), forms[1], generator) / c_in**0.5
    b = tensor((c_out,), forms[2], generator) if bias else None
    r = tensor((*lead, c_out), forms[3], generator) if residual else None
    tensors = [x, weight, b, r]
    if activation == "relu":  # whose derivative jumps at 0: away from where rounding decides
        y = pointwise_product_reference(x.double(), weight.double(), b if b is None else b.double())
        if y.numel() and y.abs().min() < 1e-4:
            return
    ours = [t if t is None else t.detach().requires_grad_() for t in tensors]
    wide = [t if t is None else t.detach().double().requires_grad_() for t in tensors]
    want = pointwise_product_reference(wide[0], wide[1], wide[2], activation, wide[3])
    if activation == "gelu" and want.numel() and want.abs().max() < 0.1:
        return  # all outputs on GELU's left tail, where float32 has few digits in any formula
    with use_backend(backend):
        inference = pointwise_product(x, weight, b, activation, r)
        got = pointwise_product(ours[0], ours[1], ours[2], activation, ours[3])
    assert_close(inference, want.detach(), "inference")
    assert_close(got, want, "output")
    dy = torch.randn(want.shape, generator=generator, dtype=torch.float64)
    pre = pointwise_product_reference(*(t if t is None else t.detach() for t in wide[:3]))
    pre.requires_grad_()
    activated = {"none": lambda y: y * 1, "relu": F.relu, "gelu": F.gelu}[activation](pre)
    (dpre,) = torch.autograd.grad(activated, pre, dy)
    dpre, terms = (
        dpre.abs().reshape(-1, c_out),
        [t if t is None else t.detach().abs() for t in wide],
    )
    # What the gradients would be without cancellation, by which rounding errors are measured.
    uncancelled = [
        dpre @ terms[1],
        dpre.t() @ terms[0].reshape(-1, c_in),
        dpre.sum(0),
        dy.abs(),
    ]
    present = [i for i, t in enumerate(wide) if t is not None]
    got_gradients = torch.autograd.grad(got, [ours[i] for i in present], dy.float())
    want_gradients = torch.autograd.grad(want, [wide[i] for i in present], dy.float().double())
    for i, g, w in zip(present, got_gradients, want_gradients, strict=True):
        factor = 1.0
        if w.numel() and w.abs().max() > 0:
            factor = max(1.0, (uncancelled[i].max() / w.abs().max()).item())
        assert_close(g, w, f"gradient of {['x', 'weight', 'bias', 'residual'][i]}", factor)


calls = st.fixed_dictionaries(
    {
        "backend": st.sampled_from(BACKENDS),
        "lead": st.sampled_from(
            [(), (0,), (1,), (7,), (33,), (2, 5), (1, 3, 4), (2, 3, 5), (0, 4, 4), (130,)]
        ),
        "c_in": st.integers(1, 70),
        "c_out": st.integers(1, 70),
        "forms": st.tuples(*[st.sampled_from(FORMS)] * 4),
        "bias": st.booleans(),
        "activation": st.sampled_from(["none", "relu", "gelu"]),
        "residual": st.booleans(),
        "seed": st.integers(0, 2**31 - 1),
    }
)
relaxed = {"deadline": None, "suppress_health_check": list(HealthCheck), "derandomize": True}


@needs_onednn
@settings(max_examples=60, **relaxed)
@given(calls)
def test_random_calls_equal_the_definition(call):
    check(**call)


@needs_onednn
@pytest.mark.slow
@settings(max_examples=2000, **relaxed)
@given(calls)
def test_two_thousand_random_calls_equal_the_definition(call):
    check(**call)


@needs_onednn
@pytest.mark.parametrize("rows", [0, 1, 49, 3136])
@pytest.mark.parametrize("activation", ["none", "relu", "gelu"])
def test_packed_weights(rows, activation):
    x, weight, bias = torch.randn(rows, 40), torch.randn(56, 40), torch.randn(56)
    packed = pack_pointwise_weight(weight, 49)
    want = pointwise_product_reference(x.double(), weight.double(), bias.double(), activation)
    assert_close(pointwise_product(x, packed, bias, activation), want)
    assert torch.equal(packed.to_dense(), weight)


@needs_onednn
def test_residual_is_added_and_left_alone():
    x, weight, residual = torch.randn(5, 8), torch.randn(6, 8), torch.randn(5, 6)
    before = residual.clone()
    with use_backend("onednn"):
        y = pointwise_product(x, weight, residual=residual)
    assert_close(y, x.double() @ weight.double().t() + before.double())
    assert torch.equal(residual, before)


@needs_onednn
@pytest.mark.parametrize("activation", ["none", "relu", "gelu"])
def test_nan_is_not_hidden(activation):
    x, weight = torch.ones(2, 3), torch.ones(4, 3)
    x[0, 0] = torch.nan
    with use_backend("onednn"):
        y = pointwise_product(x, weight, None, activation)
    assert y[0].isnan().all()
    assert y[1].isfinite().all()


@needs_onednn
def test_second_derivatives():
    x, weight = torch.randn(4, 3, requires_grad=True), torch.randn(5, 3, requires_grad=True)

    def second(product):
        y = product(x, weight, None, "gelu")
        (dx,) = torch.autograd.grad(y.square().sum(), x, create_graph=True)
        return torch.autograd.grad(dx.square().sum(), (x, weight))

    with use_backend("onednn"):
        got = second(pointwise_product)
    for g, w in zip(got, second(pointwise_product_reference), strict=True):
        assert_close(g, w, factor=10)


@needs_onednn
@pytest.mark.parametrize("trained", [0, 1, 2])
def test_only_what_needs_a_gradient_gets_one(trained):
    tensors = [torch.randn(4, 3), torch.randn(5, 3), torch.randn(5)]
    tensors[trained].requires_grad_()
    with use_backend("onednn"):
        pointwise_product(*tensors, activation="gelu").sum().backward()
    assert [t.grad is not None for t in tensors] == [i == trained for i in range(3)]


class Layer(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(6, 4))
        self.bias = nn.Parameter(torch.randn(6))

    def forward(self, x):
        return pointwise_product(x, self.weight, self.bias, "gelu")


@pytest.mark.filterwarnings("ignore:`torch.jit.trace")
def test_compile_export_fx_and_torchscript():
    layer, x = Layer(), torch.randn(2, 3, 4)
    want = layer(x)
    assert_close(torch.compile(layer, backend="eager", fullgraph=True)(x), want)
    assert_close(torch.export.export(layer, (x,)).module()(x), want)
    assert_close(torch.fx.symbolic_trace(layer)(x), want)
    assert_close(torch.jit.script(layer)(x), want)
    with torch.no_grad():
        assert_close(torch.jit.trace(layer, (x,))(x), want)
    assert pointwise_product(x.to("meta"), layer.weight.to("meta")).shape == (2, 3, 6)


@needs_onednn
def test_forced_onednn_gives_way_inside_transforms():
    layer, x = Layer(), torch.randn(5, 3, 4)
    want = layer(x)
    assert_close(torch.func.vmap(layer)(x), want)
    weight = layer.weight.detach()
    gradient = torch.func.grad(lambda w: pointwise_product(x, w, None, "gelu").sum())(weight)
    leaf = weight.clone().requires_grad_()
    pointwise_product(x, leaf, None, "gelu").sum().backward()
    assert_close(gradient, leaf.grad)


def test_autocast():
    layer, x = Layer(), torch.randn(2, 3, 4)
    with torch.autocast("cpu", torch.bfloat16):
        y = layer(x)
    assert y.dtype == torch.bfloat16
    assert_close(y, layer(x))


@needs_onednn
def test_explain_says_why_the_operator_is_not_used(monkeypatch, capsys):
    x, weight = torch.randn(3, 4), torch.randn(5, 4)
    monkeypatch.setattr(onednn, "has_operator", lambda: False)
    explain(pointwise_product, x, weight)
    text = capsys.readouterr().out
    assert "this PyTorch has no mkldnn._linear_pointwise" in text
    assert "torch      chosen" in text
    assert_close(pointwise_product(x, weight), x @ weight.t())
    with pytest.raises(InputError, match="no mkldnn"):
        pack_pointwise_weight(weight)


@needs_onednn
@pytest.mark.parametrize(("ratio", "name"), [(2.0, "onednn"), (1.0, "torch")])
def test_the_measurement_decides_and_is_cached(ratio, name, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    measured = []
    monkeypatch.setattr(product_choice, "_measure", lambda *args: measured.append(args) or ratio)
    x, weight = torch.randn(3, 4), torch.randn(5, 4)
    try:
        for _ in range(2):  # the second time from the file
            product_choice._speedups.cache_clear()
            chosen = seewide.ops.pointwise._operator.choose(x, weight, None, "none", None)
            assert chosen.name == name
        assert len(measured) == len(product_choice.PROBES)
        (file,) = (tmp_path / "seewide").iterdir()
        file.write_text("[]")  # damaged: measured again
        product_choice._speedups.cache_clear()
        assert product_choice.onednn_is_faster(3) == (ratio > 1)
        assert len(measured) == 2 * len(product_choice.PROBES)
    finally:
        product_choice._speedups.cache_clear()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((torch.randn(2, 3), torch.randn(4, 5)), r"got shapes \(2, 3\) and \(4, 5\)"),
        ((torch.randn(2, 3), torch.randn(4, 3), torch.randn(3)), r"bias must be \(4,\)"),
        ((torch.randn(2, 3), torch.randn(4, 3), None, "silu"), "unknown activation 'silu'"),
        ((torch.randn(2, 3), torch.randn(4, 3), None, "none", torch.randn(4)), "residual must be"),
        ((torch.randn(2, 3), torch.randn(4, 3).double()), "they must agree"),
        ((torch.ones(2, 3).int(), torch.ones(4, 3).int()), "floating point"),
    ],
)
def test_bad_input(arguments, message):
    with pytest.raises(InputError, match=message):
        pointwise_product(*arguments)


def test_layers_survive_copying():
    layer = copy.deepcopy(Layer())
    assert layer(torch.randn(1, 4)).shape == (1, 6)
