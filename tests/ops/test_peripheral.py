"""peripheral_conv2d against its definition in float64, and under PyTorch's transformations."""

import pytest
import torch
from torch import nn

from seewide.errors import InputError
from seewide.kernels.cpu import peripheral as cpu
from seewide.ops import (
    depthwise_conv2d,
    depthwise_conv2d_reference,
    explain,
    peripheral_conv2d,
    peripheral_conv2d_reference,
    sharing_grid,
    use_backend,
)
from seewide.ops.peripheral import expand_weight
from seewide.testing import assert_equal, assert_matches_reference

# Half of each grid that the paper prints, from the edge to the middle (Figure 1, Tables 5 and 6).
PRINTED = [
    (31, 5, [7, 4, 2, 1, 1, 1]),
    (33, 5, [8, 4, 2, 1, 1, 1]),
    (51, 1, [11, 8, 4, 2, 1]),
    (51, 3, [10, 8, 4, 2, 1, 1]),
    (51, 5, [9, 8, 4, 2, 1, 1, 1]),
    (51, 7, [8, 8, 4, 2, 1, 1, 1, 1]),
]
# By the same rule, for the other kernels of the models; 69 and 151 would leave 1 and 10 over.
DERIVED = [
    (49, 5, [8, 8, 4, 2, 1, 1, 1]),
    (47, 5, [7, 8, 4, 2, 1, 1, 1]),
    (13, 5, [2, 2, 1, 1, 1]),
    (101, 7, [17, 16, 8, 4, 2, 1, 1, 1, 1]),
    (69, 7, [17, 8, 4, 2, 1, 1, 1, 1]),
    (67, 7, [16, 8, 4, 2, 1, 1, 1, 1]),
    (151, 7, [42, 16, 8, 4, 2, 1, 1, 1, 1]),
    (5, 5, [1, 1, 1]),
    (7, 5, [1, 1, 1, 1]),
    (1, 1, [1]),
]


@pytest.mark.parametrize(("size", "center", "half"), PRINTED + DERIVED)
def test_grids(size, center, half):
    grid = sharing_grid(size, center)
    assert grid == half + half[-2::-1]
    assert sum(grid) == size


def test_every_grid_is_symmetric_and_sums_to_its_kernel():
    for size in range(1, 152, 2):
        for center in range(1, min(size, 9) + 1, 2):
            for base in (1, 2, 3):
                grid = sharing_grid(size, center, base)
                assert sum(grid) == size
                assert grid == grid[::-1]
                assert (size - center) // 2 < 2 or base > 1 or grid == [1] * size
                middle = len(grid) // 2
                assert grid[middle - center // 2 : middle + center // 2 + 1] == [1] * center


def test_weights_saved_as_in_table_5():
    """33 x 33 shared as 11 x 11 keeps 0.11 of the weights; other rows share less."""
    ratios = {"0.11": sharing_grid(33), "0.16": [4, 4, 4, 2, *[1] * 5, 2, 4, 4, 4]}
    for printed, grid in ratios.items():
        assert sum(grid) == 33
        assert f"{(len(grid) / 33) ** 2:.2f}" == printed


# N, C, H, W, grid: odd and non-square maps, smaller and larger than the kernel; grids that are not
# symmetric, have even cells, or share nothing.
SHAPES = [
    (1, 3, 19, 23, sharing_grid(13)),
    (1, 2, 23, 19, sharing_grid(31)),
    (2, 2, 7, 9, sharing_grid(33, 7)),
    (1, 2, 9, 30, sharing_grid(9, 1)),
    (1, 3, 12, 11, [1] * 5),
    (2, 3, 12, 11, [3, 1, 2, 5]),
    (1, 1, 1, 1, sharing_grid(13)),
    (1, 2, 1, 6, [5]),
]
BACKENDS = ["cpu", "torch"]


def inputs(N, C, H, W, grid, dtype=torch.float32, layout=torch.contiguous_format):
    k, K = len(grid), sum(grid)
    x = torch.randn(N, C, H, W, dtype=dtype).contiguous(memory_format=layout)
    weight = torch.randn(C, k, k, dtype=dtype) / K
    return x, weight, torch.randn(C, dtype=dtype), torch.randn(C, K, K, dtype=dtype)


@pytest.fixture
def cells_everywhere(monkeypatch):
    """Cells also where the dense kernel is as fast."""
    monkeypatch.setattr(cpu, "TAPS_PER_CELL", 0)


@pytest.mark.usefixtures("cells_everywhere")
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("shape", SHAPES, ids=lambda s: "x".join(map(str, s[:4])) + f"k{sum(s[4])}")
def test_output_and_gradients_match_the_definition(shape, layout, backend):
    grid, tensors = shape[4], inputs(*shape, layout=layout)
    for arguments in (tensors[:2], tensors):
        with use_backend(backend):
            assert_matches_reference(
                lambda x, w, b=None, h=None: peripheral_conv2d(x, w, grid, b, h),
                lambda x, w, b=None, h=None: peripheral_conv2d_reference(x, w, grid, b, h),
                arguments,
            )
            y = peripheral_conv2d(arguments[0], arguments[1], grid, *arguments[2:])
            assert y.is_contiguous(memory_format=layout)


@pytest.mark.usefixtures("cells_everywhere")
@pytest.mark.parametrize("backend", BACKENDS)
def test_constant_embedding(backend):
    grid = sharing_grid(13)
    with use_backend(backend):
        assert_matches_reference(
            lambda *args: peripheral_conv2d(args[0], args[1], grid, *args[2:], "constant"),
            lambda *args: peripheral_conv2d_reference(
                args[0], args[1], grid, *args[2:], "constant"
            ),
            inputs(2, 3, 9, 11, grid),
        )


def test_the_definition_is_the_dense_one_of_the_expanded_kernel():
    grid = sharing_grid(13)
    x, w, b, h = inputs(1, 3, 9, 11, grid, torch.float64)
    kernel = expand_weight(w, grid)[:, None]
    dense = depthwise_conv2d_reference(x, kernel, b)
    assert_equal(peripheral_conv2d_reference(x, w, grid, b), dense)
    # "valid" is the convolution of x + h per tap: for one output, a plain sum over the kernel.
    y = peripheral_conv2d_reference(torch.zeros_like(x), w, grid, None, h)
    assert_equal(y[0, :, 4, 5], (kernel[:, 0] * h)[:, 2:11, 1:12].sum((1, 2)))
    constant = peripheral_conv2d_reference(torch.zeros_like(x), w, grid, None, h, "constant")
    assert_equal(constant, (kernel[:, 0] * h).sum((1, 2))[None, :, None, None].expand_as(x))


def test_equal_cells_of_one_are_the_dense_convolution():
    x, w, b, _ = inputs(2, 4, 14, 9, [1] * 7)
    assert torch.equal(peripheral_conv2d(x, w, [1] * 7, b), depthwise_conv2d(x, w[:, None], b))


@pytest.mark.usefixtures("cells_everywhere")
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("side", [64, 256])
def test_large_maps_lose_no_digits(side, backend):
    """Far from zero mean, where differences of prefix sums would lose them."""
    grid = sharing_grid(51)
    x, w, _, _ = inputs(1, 1, side, side, grid)
    x = x + 10
    with use_backend(backend):
        y = peripheral_conv2d(x, w, grid)
    kernel = expand_weight(w.double(), grid)[0]
    x_padded = nn.functional.pad(x.double(), (25,) * 4)
    for i, j in ((0, 0), (side // 2, side // 2), (side - 1, side // 3)):
        want = (x_padded[0, 0, i : i + 51, j : j + 51] * kernel).sum()
        assert abs(y[0, 0, i, j].item() - want.item()) < 1e-5 * y.abs().max().item()


@pytest.mark.usefixtures("cells_everywhere")
def test_cell_sums_in_tiles(monkeypatch):
    """As on maps too large for one tile, with a last tile that is smaller."""
    grid = sharing_grid(13)
    x, w, b, _ = inputs(2, 3, 19, 23, grid)
    want = peripheral_conv2d_reference(x.double(), w.double(), grid, b.double())
    monkeypatch.setattr(cpu, "TILE_BYTES", 2 * 4 * 2 * 9 * 19 * 23)
    assert_equal(peripheral_conv2d(x, w, grid, b), want)


@pytest.mark.parametrize("backend", [None, "cpu", "torch"])
def test_empty_batch(backend):
    grid = sharing_grid(13)
    x, w, b, h = (t.requires_grad_() for t in inputs(0, 3, 9, 9, grid))
    with use_backend(backend):
        y = peripheral_conv2d(x, w, grid, b, h)
    assert y.shape == (0, 3, 9, 9)
    y.sum().backward()
    assert torch.equal(w.grad, torch.zeros_like(w))


@pytest.mark.usefixtures("cells_everywhere")
@pytest.mark.parametrize("backend", ["cpu", "torch"])
def test_gradcheck_twice(backend):
    grid = [2, 1, 1, 3]
    tensors = [t.requires_grad_() for t in inputs(1, 2, 4, 5, grid, torch.float64)]
    op = lambda x, w, b, h: peripheral_conv2d(x, w, grid, b, h)  # noqa: E731 - a named closure
    with use_backend(backend):
        assert torch.autograd.gradcheck(op, tensors)
        assert torch.autograd.gradgradcheck(op, tensors)


@pytest.mark.usefixtures("cells_everywhere")
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("backend", ["cpu", "torch"])
def test_half_precision(dtype, backend):
    """Without the embedding everything is rounded once; with it, the sum of two rounded numbers."""
    grid = sharing_grid(13)
    tensors = inputs(2, 3, 9, 11, grid, dtype)
    with use_backend(backend):
        for arguments, factor in ((tensors[:3], 1.0), (tensors, 2.0)):
            y = peripheral_conv2d(arguments[0], arguments[1], grid, *arguments[2:])
            wide = [t.double() for t in arguments]
            want = peripheral_conv2d_reference(wide[0], wide[1], grid, *wide[2:])
            assert_equal(y, want, factor=factor)


def test_autocast_casts_as_a_convolution_does():
    grid = sharing_grid(31)
    x, w, b, h = inputs(2, 4, 19, 23, grid)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = peripheral_conv2d(x.requires_grad_(), w.requires_grad_(), grid, b, h)
    assert y.dtype == torch.bfloat16
    want = peripheral_conv2d_reference(x.double(), w.double(), grid, b.double(), h.double())
    assert_equal(y, want, factor=2)
    y.float().sum().backward()
    assert x.grad.dtype == w.grad.dtype == torch.float32


class Net(nn.Module):
    def __init__(self, pos_mode="valid"):
        super().__init__()
        self.grid = sharing_grid(31)
        self.pos_mode = pos_mode
        self.weight = nn.Parameter(torch.randn(4, 11, 11) / 10)
        self.bias = nn.Parameter(torch.randn(4))
        self.pos_embed = nn.Parameter(torch.randn(4, 31, 31))

    def forward(self, x):
        y = peripheral_conv2d(x, self.weight, self.grid, self.bias, self.pos_embed, self.pos_mode)
        return peripheral_conv2d(y, self.weight, self.grid).relu()


def test_meta_tensors():
    grid = sharing_grid(51)
    x, w, b, h = (t.to("meta") for t in inputs(2, 4, 56, 56, grid))
    assert peripheral_conv2d(x, w, grid, b, h).shape == (2, 4, 56, 56)


@pytest.mark.parametrize("taps_per_cell", [0, 1000])
def test_compile_without_graph_break(taps_per_cell, monkeypatch):
    net, x = Net(), torch.randn(1, 4, 19, 23, requires_grad=True)
    monkeypatch.setattr(cpu, "TAPS_PER_CELL", taps_per_cell)
    assert cpu.prefer(x, net.grid) == (taps_per_cell == 0)
    compiled = torch.compile(net, fullgraph=True, backend="aot_eager")
    assert_equal(compiled(x), net(x))
    (got,) = torch.autograd.grad(compiled(x).sum(), x)
    (want,) = torch.autograd.grad(net(x).sum(), x)
    assert_equal(got, want)


def test_custom_operators_pass_opcheck():
    grid = sharing_grid(13)
    x, w, b, _ = inputs(2, 3, 9, 8, grid, layout=torch.channels_last)
    operators = torch.ops.seewide
    torch.library.opcheck(operators.peripheral_conv2d_cpu.default, (x, w, b, grid))
    arguments = (x, torch.randn_like(x), grid)
    torch.library.opcheck(operators.peripheral_weight_gradient_cpu.default, arguments)


@pytest.mark.parametrize("mode", ["valid", "constant"])
def test_export_fx_and_torchscript(mode):
    net, x = Net(mode).eval(), torch.randn(2, 4, 19, 23)
    want = net(x)
    program = torch.export.export(net, (x,))
    convolutions = [n for n in program.graph.nodes if "conv2d" in str(n.target)]
    assert len(convolutions) == 2
    assert_equal(program.module()(x), want)
    traced = torch.fx.symbolic_trace(net)
    assert [n.target for n in traced.graph.nodes].count(peripheral_conv2d) == 2
    for form in (traced, torch.jit.script(net), torch.jit.script(traced)):
        assert_equal(form(x), want)


def test_explain_prints_choice_and_reasons(capsys, monkeypatch):
    grid = sharing_grid(51)
    with monkeypatch.context() as patch:  # where the lines cross depends on the vector unit
        patch.setattr("seewide.kernels.cpu.peripheral.TAPS_PER_CELL", 1)
        explain(peripheral_conv2d, *inputs(1, 2, 56, 56, grid)[:2], grid)
    assert "chosen: row sums" in capsys.readouterr().out
    explain(peripheral_conv2d, *inputs(1, 2, 14, 14, grid)[:2], grid)
    assert "the time of 196 multiply-adds" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"kernel_size": 30}, "odd and positive, got kernel_size=30"),
        ({"kernel_size": 31, "center": 4}, "from 1 to kernel_size=31, got center=4"),
        ({"kernel_size": 3, "center": 5}, "from 1 to kernel_size=3, got center=5"),
        ({"kernel_size": 31, "base": 0}, "base must be at least 1, got base=0"),
    ],
)
def test_bad_grids_raise_one_sentence(arguments, sentence):
    with pytest.raises(InputError, match=sentence):
        sharing_grid(**arguments)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"x": torch.zeros(3, 8, 8)}, r"\(N, C, H, W\), got shape \(3, 8, 8\)"),
        ({"grid": [2, 1, 1, 2]}, r"with an odd sum, got \[2, 1, 1, 2\]"),
        ({"grid": [2, -1, 2]}, r"at least 1 with an odd sum, got \[2, -1, 2\]"),
        ({"weight": torch.zeros(2, 3, 3)}, r"\(3, 3, 3\), for 3 channels .* shape \(2, 3, 3\)"),
        ({"bias": torch.zeros(2)}, r"bias must be \(3,\), got shape \(2,\)"),
        ({"pos_embed": torch.zeros(3, 3, 3)}, r"pos_embed must be \(3, 5, 5\)"),
        ({"pos_mode": "reflect"}, "'valid' or 'constant', got 'reflect'"),
        ({"x": torch.zeros(1, 3, 8, 8, dtype=torch.int64)}, "floating point, got torch.int64"),
        (
            {"weight": torch.zeros(3, 3, 3).double()},
            "torch.float32 and weight is torch.float64",
        ),
    ],
)
def test_bad_input_raises_one_sentence(changes, sentence):
    arguments = {
        "x": torch.zeros(1, 3, 8, 8),
        "weight": torch.zeros(3, 3, 3),
        "grid": [2, 1, 2],
        **changes,
    }
    with pytest.raises(InputError, match=sentence):
        peripheral_conv2d(**arguments)
