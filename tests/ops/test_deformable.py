"""dcnv3 against its definition in float64, and under PyTorch's transformations."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from seewide.errors import InputError
from seewide.kernels.cpu import deformable as cpu
from seewide.ops import dcnv3, dcnv3_reference, explain, use_backend
from seewide.testing import assert_equal, assert_matches_reference

# N, H, W, groups, channels per group, kernel_size, offset_scale, stride, dilation, softmax
CASES = [
    (2, 19, 23, 3, 8, 3, 1.0, 1, 1, False),
    (1, 19, 23, 2, 16, 3, 1.0, 1, 1, True),
    (1, 9, 30, 2, 4, 5, 0.7, 1, 1, False),
    (3, 12, 7, 1, 3, 3, 2.0, 2, 1, False),
    (1, 11, 12, 2, 2, 3, 1.0, 3, 2, True),
    (2, 1, 5, 2, 5, 3, 1.0, 1, 1, False),
    (1, 4, 3, 4, 1, 1, 1.0, 1, 1, False),
]


def inputs(N, H, W, G, D, k, *rest, reach=2.0, dtype=torch.float32):
    """x, offset, mask; offsets of a few pixels, so that points leave the map on all sides."""
    stride = rest[1] if rest else 1
    out = (N, (H - 1) // stride + 1, (W - 1) // stride + 1)
    x = torch.randn(N, H, W, G * D, dtype=dtype)
    offset = reach * torch.randn(*out, G * k * k * 2, dtype=dtype)
    return x, offset, torch.randn(*out, G * k * k, dtype=dtype)


def arguments(N, H, W, G, D, k, offset_scale, stride, dilation, softmax):
    return (k, G, offset_scale, stride, dilation, softmax)


@pytest.mark.parametrize("backend", ["cpu", "torch", "reference"])
@pytest.mark.parametrize("case", CASES, ids=lambda c: "-".join(map(str, c)))
def test_output_and_gradients_match_the_definition(case, backend):
    rest = arguments(*case)
    with use_backend(backend):
        assert_matches_reference(
            lambda *tensors: dcnv3(*tensors, *rest),
            lambda *tensors: dcnv3_reference(*tensors, *rest),
            inputs(*case),
        )


def test_splitting_the_batch_does_not_change_the_result(monkeypatch):
    """Tables are built for a few images at a time; more and fewer must not matter."""
    tensors = [t.requires_grad_() for t in inputs(5, 6, 7, 2, 4, 3)]
    results = []
    for points in (1, 2**11, 2**20):
        monkeypatch.setattr(cpu, "PART", points)
        y = dcnv3(*tensors, groups=2)
        results.append((y, *torch.autograd.grad(y.square().sum(), tensors)))
    for other in results[1:]:
        for got, want in zip(other, results[0], strict=True):
            assert_equal(got, want)


def test_zero_offsets_and_a_constant_mask_are_a_box_filter():
    x = torch.randn(1, 8, 9, 4)
    y = dcnv3(x, torch.zeros(1, 8, 9, 36), torch.full((1, 8, 9, 18), 0.5), groups=2)
    box = 0.5 * 9 * F.avg_pool2d(x.permute(0, 3, 1, 2), 3, 1, 1).permute(0, 2, 3, 1)
    assert_equal(y, box)


def test_taps_go_down_first_and_offsets_are_column_then_row():
    x = torch.arange(35.0).reshape(1, 5, 7, 1)
    offset, mask = torch.zeros(1, 5, 7, 18), torch.zeros(1, 5, 7, 9)
    mask[..., 1] = 1  # columns outside, rows inside: the tap at column -1, row 0
    assert dcnv3(x, offset, mask)[0, 2, 3, 0] == x[0, 2, 2, 0]
    offset[..., 2], offset[..., 3] = 3, -1.5
    assert dcnv3(x, offset, mask)[0, 2, 3, 0] == (x[0, 0, 5, 0] + x[0, 1, 5, 0]) / 2


def test_points_outside_are_zero_and_move_nothing():
    x, offset, mask = (t.requires_grad_() for t in inputs(1, 5, 6, 1, 4, 3))
    for far in (-100.0, 100.0, -1e20, 1e20):
        y = dcnv3(x, offset * 0 + far, mask)
        assert torch.equal(y, torch.zeros_like(y))
        gradients = torch.autograd.grad(y.sum(), (x, offset, mask))
        assert not any(g.any() for g in gradients)


def test_nan_offsets_give_nan():
    x, offset, mask = inputs(1, 5, 6, 1, 4, 3, reach=0.3)
    offset[0, 2, 2, 0] = float("nan")
    y = dcnv3(x, offset, mask)
    assert y[0, 2, 2].isnan().all()
    assert y.isnan().sum() == 4


def test_empty_batch():
    tensors = [t.requires_grad_() for t in inputs(0, 5, 6, 2, 4, 3)]
    y = dcnv3(*tensors, groups=2)
    assert y.shape == (0, 5, 6, 8)
    y.sum().backward()
    assert all(t.grad.shape == t.shape for t in tensors)


@pytest.mark.parametrize("layout", ["sliced", "permuted"])
def test_memory_layouts(layout):
    x, offset, mask = inputs(2, 6, 5, 2, 4, 3)
    if layout == "sliced":
        other = [torch.cat([t, t], -1)[..., : t.shape[-1]] for t in (x, offset, mask)]
    else:
        other = [t.permute(0, 3, 2, 1).contiguous().permute(0, 3, 2, 1) for t in (x, offset, mask)]
    assert not any(t.is_contiguous() for t in other)
    assert_matches_reference(
        lambda *t: dcnv3(*t, groups=2), lambda *t: dcnv3_reference(*t, groups=2), other
    )


@pytest.mark.parametrize("softmax", [False, True])
def test_gradcheck(softmax):
    tensors = [t.requires_grad_() for t in inputs(1, 4, 5, 2, 2, 3, dtype=torch.float64)]
    assert torch.autograd.gradcheck(lambda *t: dcnv3(*t, groups=2, softmax=softmax), tensors)


def test_only_requested_gradients_are_computed():
    x, offset, mask = inputs(1, 4, 5, 2, 2, 3)
    (dmask,) = torch.autograd.grad(dcnv3(x, offset, mask.requires_grad_(), groups=2).sum(), (mask,))
    assert dmask.shape == mask.shape


@pytest.mark.parametrize("backend", ["cpu", "torch", "reference"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_rounds_once(dtype, backend):
    tensors = inputs(2, 19, 23, 2, 8, 3, dtype=dtype)
    with use_backend(backend):
        y = dcnv3(*tensors, groups=2)
    assert y.dtype == dtype
    assert_equal(y, dcnv3_reference(*(t.double() for t in tensors), groups=2))


def test_autocast():
    x, offset, mask = inputs(2, 9, 11, 2, 8, 3)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = dcnv3(x.requires_grad_(), offset, mask, groups=2)
    rounded = (t.bfloat16().double() for t in (x, offset, mask))
    assert y.dtype == torch.bfloat16
    assert_equal(y, dcnv3_reference(*rounded, groups=2))
    y.float().sum().backward()
    assert x.grad.dtype == torch.float32


class Net(nn.Module):
    def forward(self, x, offset, mask):
        return dcnv3(x, offset, mask, groups=2, softmax=True).relu()


def test_meta_tensors():
    tensors = (t.to("meta") for t in inputs(2, 9, 11, 2, 8, 3, 1.0, 2))
    assert dcnv3(*tensors, groups=2, stride=2).shape == (2, 5, 6, 16)


def test_compile_without_graph_break():
    tensors = [t.requires_grad_() for t in inputs(2, 9, 11, 2, 8, 3)]
    compiled = torch.compile(Net(), fullgraph=True, backend="aot_eager")
    want = Net()(*tensors)
    assert_equal(compiled(*tensors), want)
    got_gradients = torch.autograd.grad(compiled(*tensors).sum(), tensors)
    for got, expected in zip(got_gradients, torch.autograd.grad(want.sum(), tensors), strict=True):
        assert_equal(got, expected)


def test_export_keeps_grid_sample_and_a_free_batch():
    tensors = inputs(2, 9, 11, 2, 8, 3)
    free = {0: torch.export.Dim("batch")}
    program = torch.export.export(Net(), tensors, dynamic_shapes=(free, free, free))
    calls = [str(n.target) for n in program.graph.nodes if n.op == "call_function"]
    assert calls.count("aten.grid_sampler.default") == 1
    other = inputs(3, 9, 11, 2, 8, 3)
    assert_equal(program.module()(*other), Net()(*other))


def test_fx_and_torchscript():
    tensors = inputs(2, 9, 11, 2, 8, 3)
    traced = torch.fx.symbolic_trace(Net())
    assert [n.target for n in traced.graph.nodes if n.op == "call_function"] == [dcnv3]
    for form in (traced, torch.jit.script(Net()), torch.jit.script(traced)):
        assert_equal(form(*tensors), Net()(*tensors))


def test_explain_prints_choice_and_reasons(capsys):
    tensors = inputs(1, 9, 11, 1, 8, 3)
    explain(dcnv3, *tensors)
    assert "chosen: torch.nn.functional.embedding_bag" in capsys.readouterr().out
    explain(dcnv3, *(t.to("meta") for t in tensors))
    assert "the input is on meta, this backend runs on cpu" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("x", "offset", "mask", "options", "sentence"),
    [
        ((8, 8, 4), (1, 8, 8, 18), (1, 8, 8, 9), {}, r"\(N, H, W, C\), got shape \(8, 8, 4\)"),
        ((1, 8, 8, 4), (1, 8, 8, 18), (1, 8, 8, 9), {"kernel_size": 2}, "odd, got kernel_size=2"),
        ((1, 8, 8, 4), (1, 8, 8, 18), (1, 8, 8, 9), {"groups": 3}, "C=4 and groups=3"),
        ((1, 8, 8, 4), (1, 8, 8, 18), (1, 8, 8, 9), {"stride": 0}, "stride must be at least 1"),
        ((1, 8, 8, 4), (1, 8, 8, 18), (1, 8, 8, 9), {"dilation": 0}, "dilation must be at least"),
        ((1, 8, 8, 4), (1, 8, 8, 9), (1, 8, 8, 9), {}, r"offset must be \(1, 8, 8, 18\)"),
        ((1, 8, 8, 4), (1, 8, 8, 18), (1, 8, 8, 8), {}, r"mask must be \(1, 8, 8, 9\)"),
        ((1, 8, 8, 4), (1, 8, 8, 18), (1, 8, 8, 9), {"stride": 2}, r"must be \(1, 4, 4, 18\)"),
    ],
)
def test_bad_input_raises_one_sentence(x, offset, mask, options, sentence):
    with pytest.raises(InputError, match=sentence):
        dcnv3(torch.zeros(x), torch.zeros(offset), torch.zeros(mask), **options)


def test_dtypes_must_agree():
    x, offset, mask = inputs(1, 5, 5, 1, 4, 3)
    with pytest.raises(InputError, match=r"x is torch.float32 and mask is torch.float64"):
        dcnv3(x, offset, mask.double())
    with pytest.raises(InputError, match=r"floating point, got torch.int64"):
        dcnv3(x.long(), offset, mask)
