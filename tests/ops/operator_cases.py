"""Random calls of all operators and how each is checked: used by test_properties.py and fuzz.py.

A `Case` is plain data, so that a failing one can be printed as code and run again:

    from operator_cases import Case, check
    check(Case(...))                                  # with tests/ops on PYTHONPATH
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

import torch
from hypothesis import strategies as st
from torch import Tensor

from seewide import ops
from seewide.numerics import difference, tolerance

# How a tensor lies in memory. "expanded" repeats the first image, filter or pixel with stride 0.
LAYOUTS = ("contiguous", "channels_last", "expanded", "transposed", "sliced")

# What surrounds the call. "compile" is drawn rarely, since each call compiles anew.
CONTEXTS = (
    "gradients",
    "some_gradients",
    "no_grad",
    "inference_mode",
    "autocast",
    "vmap",
    "func_grad",
    "jvp",
    "double_backward",
    "nan",
    "inf",
)

# Rounding, relative to `seewide.numerics.TOLERANCE`: one operator, but gradients sum over an image
# and, in half precision, PyTorch's own formulation rounds once per tap.
FACTOR = {torch.float64: 10, torch.float32: 5, torch.float16: 4, torch.bfloat16: 4}


@dataclass(frozen=True)
class Case:
    """One call of an operator.

    Attributes:
        operator: name in `seewide.ops`.
        shapes: of its tensors, in order; None for an absent bias or embedding.
        options: the arguments between and after the tensors, by name.
        layouts: of each tensor, names of LAYOUTS.
        dtype: name of a torch dtype.
        context: a name of CONTEXTS or "compile".
        backend: for `use_backend`; None for the operator's own choice.
        seed: of the values.
    """

    operator: str
    shapes: tuple[tuple[int, ...] | None, ...]
    options: dict
    layouts: tuple[str, ...]
    dtype: str = "float32"
    context: str = "gradients"
    backend: str | None = None
    seed: int = 0


def sizes(largest: int) -> st.SearchStrategy[int]:
    return st.integers(1, largest)


odd = st.sampled_from([1, 3, 5, 7, 9, 11, 13, 15, 17, 31])


@st.composite
def depthwise(draw):
    """Maps up to 20 x 20, kernels larger than the map, strips, dilation."""
    N, C = draw(st.integers(0, 3)), draw(sizes(6))
    H, W, kh, kw = draw(sizes(20)), draw(sizes(20)), draw(odd), draw(odd)
    bias = (C,) if draw(st.booleans()) else None
    dilation = draw(st.sampled_from([1, 1, 1, 2, 3]))
    return ((N, C, H, W), (C, 1, kh, kw), bias), {"dilation": dilation}


@st.composite
def peripheral(draw):
    """Grids of any cells with an odd sum."""
    N, C, H, W = draw(st.integers(0, 2)), draw(sizes(3)), draw(sizes(12)), draw(sizes(12))
    grid = draw(st.lists(st.integers(1, 4), min_size=1, max_size=6))
    grid[0] += (sum(grid) + 1) % 2
    k, K = len(grid), sum(grid)
    bias = (C,) if draw(st.booleans()) else None
    embedding = (C, K, K) if draw(st.booleans()) else None
    options = {"grid": grid, "pos_mode": draw(st.sampled_from(ops.peripheral.POS_MODES))}
    return ((N, C, H, W), (C, k, k), bias, embedding), options


@st.composite
def aggregation(draw):
    N, G, repeats = draw(st.integers(0, 3)), draw(sizes(4)), draw(sizes(3))
    H, W, k = draw(sizes(12)), draw(sizes(12)), draw(st.sampled_from([1, 3, 3, 5, 7]))
    return ((N, G * repeats, H, W), (N, G, k * k, H, W)), {}


@st.composite
def deformable(draw):
    N, G, D = draw(st.integers(0, 2)), draw(sizes(3)), draw(sizes(5))
    H, W, k = draw(sizes(9)), draw(sizes(9)), draw(st.sampled_from([1, 3, 3, 5]))
    stride = draw(st.integers(1, 3))
    out = (N, (H - 1) // stride + 1, (W - 1) // stride + 1)
    options = {
        "kernel_size": k,
        "groups": G,
        "offset_scale": draw(st.sampled_from([0.5, 1.0, 2.0])),
        "stride": stride,
        "dilation": draw(st.integers(1, 2)),
        "softmax": draw(st.booleans()),
    }
    return ((N, H, W, G * D), (*out, G * k * k * 2), (*out, G * k * k)), options


@st.composite
def response_norm(draw):
    N, H, W, C = draw(st.integers(0, 3)), draw(sizes(9)), draw(sizes(9)), draw(sizes(8))
    bias = (1, 1, 1, C) if draw(st.booleans()) else None
    return ((N, H, W, C), (1, 1, 1, C), bias), {"eps": 1e-6}


OPERATORS = {
    "depthwise_conv2d": depthwise(),
    "peripheral_conv2d": peripheral(),
    "small_kernel_aggregation": aggregation(),
    "dcnv3": deformable(),
    "global_response_norm": response_norm(),
}


@st.composite
def cases(draw, contexts: tuple[str, ...] = CONTEXTS) -> Case:
    """A call that the operator's documentation allows."""
    operator = draw(st.sampled_from(sorted(OPERATORS)))
    shapes, options = draw(OPERATORS[operator])
    context = draw(st.sampled_from(contexts))
    dtypes = ["float32", "float64"]
    if context in ("gradients", "some_gradients", "no_grad", "inference_mode"):
        dtypes += ["bfloat16", "float16"]
    if context == "double_backward":
        dtypes = ["float64"]
    if context == "autocast":
        dtypes = ["float32"]
    backends = [None, None, "cpu", "torch"]
    if context in ("vmap", "func_grad", "jvp"):
        backends = [None, "torch"]  # "cpu" refuses these
    return Case(
        operator,
        shapes,
        options,
        tuple(draw(st.sampled_from(LAYOUTS)) for _ in shapes),
        draw(st.sampled_from(dtypes)),
        context,
        draw(st.sampled_from(backends)),
        draw(st.integers(0, 2**16)),
    )


def make_tensors(case: Case) -> list[Tensor | None]:
    """The tensors of a case: its values, dtype and layouts."""
    generator = torch.Generator().manual_seed(case.seed)
    dtype = getattr(torch, case.dtype)
    made: list[Tensor | None] = []
    for index, (shape, layout) in enumerate(zip(case.shapes, case.layouts, strict=True)):
        if shape is None:
            made.append(None)
            continue
        if case.operator == "dcnv3" and index == 1:
            # Odd multiples of 1/16: exact in all dtypes, and no point falls on a pixel, where the
            # gradient jumps and float32 and float64 may take different sides.
            eighths = torch.randint(-24, 25, shape, generator=generator)
            values = eighths.double() / 8 + 1 / 16
        else:
            fan_in = shape[-1] * shape[-2] if index == 1 and len(shape) in (3, 4) else 1
            values = torch.randn(shape, generator=generator, dtype=torch.float64) / fan_in**0.5
        made.append(laid_out(values.to(dtype), layout))
    return made


def laid_out(t: Tensor, layout: str) -> Tensor:
    """`t` in a memory layout; the values change only if "expanded"."""
    if layout == "channels_last" and t.ndim == 4:
        return t.contiguous(memory_format=torch.channels_last)
    if layout == "expanded" and t.shape[0] > 0:
        return t[:1].expand(t.shape)
    if layout == "transposed" and t.ndim >= 2:
        return t.transpose(-1, -2).contiguous().transpose(-1, -2)
    if layout == "sliced":
        larger = t.new_full((*t.shape[:-1], 2 * t.shape[-1] + 1), float("nan"))
        larger[..., 1::2] = t
        return larger[..., 1::2]
    return t


def call_of(case: Case, suffix: str = "") -> Callable[..., Tensor]:
    """The operator as a function of its present tensors."""
    function = getattr(ops, case.operator + suffix)
    names = {
        "depthwise_conv2d": ("x", "weight", "bias"),
        "peripheral_conv2d": ("x", "weight", "bias", "pos_embed"),
        "small_kernel_aggregation": ("x", "weight"),
        "dcnv3": ("x", "offset", "mask"),
        "global_response_norm": ("x", "weight", "bias"),
    }[case.operator]
    present = [n for n, shape in zip(names, case.shapes, strict=True) if shape is not None]
    absent = dict.fromkeys(set(names) - set(present))
    return lambda *tensors: function(
        **dict(zip(present, tensors, strict=True)), **absent, **case.options
    )


def check(case: Case) -> None:
    """Run a case and compare it with the reference in float64.

    Raises:
        AssertionError: a wrong value, gradient, shape or dtype.
    """
    with contextlib.ExitStack() as stack:
        if case.backend is not None:
            stack.enter_context(ops.use_backend(case.backend))
        tensors = [t for t in make_tensors(case) if t is not None]
        CHECKS.get(case.context, check_gradients)(case, tensors)


def near(case: Case, got: Tensor, want: Tensor, what: str, factor: float = 1.0) -> None:
    """`got` is `want` within the rounding of the coarser of its dtype and the call's."""
    found = difference(got, want)
    dtype = torch.bfloat16 if case.context == "autocast" else getattr(torch, case.dtype)
    limit = factor * FACTOR[dtype] * tolerance(dtype)
    assert found.rel <= limit, f"{what} deviates by {found}, more than {limit:.1e}"


def wide(tensors: list[Tensor], rounded: torch.dtype | None = None) -> list[Tensor]:
    """Contiguous float64 leaves with the values of `tensors`, rounded to a dtype before."""
    found = [t.detach() if rounded is None else t.detach().to(rounded) for t in tensors]
    return [t.double().contiguous().requires_grad_() for t in found]


def check_gradients(case: Case, tensors: list[Tensor]) -> None:
    """Value, and the gradients of all tensors or of a random choice."""
    generator = torch.Generator().manual_seed(case.seed)
    wanted = [True] * len(tensors)
    if case.context == "some_gradients":
        wanted = torch.rand(len(tensors), generator=generator).gt(0.5).tolist()
        wanted[case.seed % len(tensors)] = True
    autocast = case.context == "autocast"
    ours = [t.detach().requires_grad_(w) for t, w in zip(tensors, wanted, strict=True)]
    rounds = autocast and case.operator != "global_response_norm"  # autocast leaves it alone
    theirs = wide(tensors, torch.bfloat16 if rounds else None)
    call = call_of(case)
    if case.context == "compile":
        torch.compiler.reset()
        call = torch.compile(call, fullgraph=True, backend="aot_eager", dynamic=case.seed % 2 == 0)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        y = call(*ours)
    expected = call_of(case, "_reference")(*theirs)
    dtype = torch.bfloat16 if rounds else tensors[0].dtype
    assert y.dtype == dtype, f"{y.dtype} instead of {dtype}"
    near(case, y, expected, "output")
    dy = torch.randn(expected.shape, generator=generator, dtype=torch.float64).to(y.dtype)
    inputs = [t for t in ours if t.requires_grad]
    got = torch.autograd.grad(y, inputs, dy)
    want = torch.autograd.grad(expected, theirs, dy.double())
    want = [g for g, w in zip(want, wanted, strict=True) if w]
    for index, (g, w, t) in enumerate(zip(got, want, inputs, strict=True)):
        assert g.dtype == t.dtype, f"gradient {index} is {g.dtype} instead of {t.dtype}"
        near(case, g, w, f"gradient {index}", factor=3)


def check_value(case: Case, tensors: list[Tensor]) -> None:
    guard = torch.no_grad if case.context == "no_grad" else torch.inference_mode
    with guard():
        y = call_of(case)(*tensors)
        near(case, y, call_of(case, "_reference")(*wide(tensors)), "output")


def check_vmap(case: Case, tensors: list[Tensor]) -> None:
    """Over a new dimension of the first tensor, and of every second one of the others."""
    batched = [index % 2 == case.seed % 2 or index == 0 for index in range(len(tensors))]
    stacked = [
        torch.stack([t, t.flip(-1)]) if b else t for t, b in zip(tensors, batched, strict=True)
    ]
    axes = tuple(0 if b else None for b in batched)
    y = torch.func.vmap(call_of(case), axes)(*stacked)
    reference = call_of(case, "_reference")
    for part in range(2):
        one = [t[part] if b else t for t, b in zip(stacked, batched, strict=True)]
        near(case, y[part], reference(*wide(one)), f"output {part} of vmap")


def check_func_grad(case: Case, tensors: list[Tensor]) -> None:
    every = tuple(range(len(tensors)))
    got = torch.func.grad(lambda *t: call_of(case)(*t).square().sum(), every)(*tensors)
    theirs = wide(tensors)
    y = call_of(case, "_reference")(*theirs)
    for index, (g, w) in enumerate(
        zip(got, torch.autograd.grad(y.square().sum(), theirs), strict=True)
    ):
        near(case, g, w, f"gradient {index} of torch.func", factor=3)


def check_jvp(case: Case, tensors: list[Tensor]) -> None:
    """Against the difference quotient of the reference in float64, which is exact to 1e-8."""
    tensors = [t.clone(memory_format=torch.contiguous_format) for t in tensors]  # not expanded
    generator = torch.Generator().manual_seed(case.seed)
    tangents = [
        torch.randn(t.shape, generator=generator, dtype=torch.float64).to(t.dtype) for t in tensors
    ]
    _, got = torch.func.jvp(call_of(case), tuple(tensors), tuple(tangents))
    reference, theirs = call_of(case, "_reference"), wide(tensors)
    with torch.no_grad():
        ahead, behind = (
            reference(*(t + step * d.double() for t, d in zip(theirs, tangents, strict=True)))
            for step in (1e-5, -1e-5)
        )
    want = (ahead - behind) / 2e-5
    found = difference(got, want)
    assert found.rel <= 2e-4, f"the forward-mode derivative deviates by {found}"


def check_double_backward(case: Case, tensors: list[Tensor]) -> None:
    """Gradients of a function of all gradients."""

    def second(call, leaves):
        y = call(*leaves)
        first = torch.autograd.grad(y.sin().sum(), leaves, create_graph=True)
        total = sum(g.square().sum() for g in first)
        return torch.autograd.grad(total, leaves, allow_unused=True, materialize_grads=True)

    ours = [t.detach().requires_grad_() for t in tensors]
    got = second(call_of(case), ours)
    want = second(call_of(case, "_reference"), wide(tensors))
    for index, (g, w) in enumerate(zip(got, want, strict=True)):
        near(case, g, w, f"second derivative {index}", factor=100)


def check_not_finite(case: Case, tensors: list[Tensor]) -> None:
    """A NaN or infinity shows where the definition has it, and never in another image."""
    x = tensors[0].clone()
    if x.shape[0] < 2:
        x = torch.cat([x, torch.ones_like(tensors[0]), torch.ones_like(tensors[0])])[:2]
        if x.shape[0] < 2:
            return
        per_image = case.operator in ("small_kernel_aggregation", "dcnv3")
        if per_image:  # the other tensors have a batch too
            tensors = [torch.cat([t, t])[:2] if t.shape[0] else t for t in tensors]
    generator = torch.Generator().manual_seed(case.seed)
    place = int(torch.randint(x[0].numel(), (1,), generator=generator))
    clean = [x, *tensors[1:]]
    dirty = x.clone(memory_format=torch.contiguous_format)
    dirty[0].view(-1)[place] = float(case.context)
    with torch.no_grad():
        want = call_of(case, "_reference")(*wide([dirty, *tensors[1:]]))
        got = call_of(case)(dirty, *tensors[1:])
        near(case, got[1:], call_of(case, "_reference")(*wide(clean))[1:], "another image")
    if case.operator != "dcnv3":  # the definition reads 0 times the nearest pixel outside the map
        hidden = ~want.isfinite() & got.isfinite()
        assert not hidden.any(), f"{int(hidden.sum())} outputs hide a value that is not finite"


CHECKS = {
    "no_grad": check_value,
    "inference_mode": check_value,
    "vmap": check_vmap,
    "func_grad": check_func_grad,
    "jvp": check_jvp,
    "double_backward": check_double_backward,
    "nan": check_not_finite,
    "inf": check_not_finite,
}


def as_code(case: Case) -> str:
    """A program that runs the case again."""
    values = ", ".join(
        f"{field.name}={getattr(case, field.name)!r}" for field in dataclasses.fields(case)
    )
    return (
        f"from operator_cases import Case, check  # PYTHONPATH=.:tests/ops\n\ncheck(Case({values}))"
    )
