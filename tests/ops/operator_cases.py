"""Random calls of all operators, as plain data that can be printed as code and run again.

How a call is checked stands in operator_checks.py; test_properties.py and fuzz.py use both.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

import torch
from hypothesis import strategies as st
from torch import Tensor

from seewide import ops

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


@st.composite
def pointwise(draw):
    """Products over the last axis, with and without pixels."""
    lead, C = draw(st.lists(sizes(6), max_size=2)), draw(sizes(40))
    lead, K = (draw(st.integers(0, 5)), *lead), draw(sizes(40))
    activation = draw(st.sampled_from(["none", "relu", "gelu"]))
    # Where ReLU has its kink, rounding decides on the gradient; the bias keeps sums away from it.
    bias = (K,) if activation == "relu" or draw(st.booleans()) else None
    residual = (*lead, K) if draw(st.booleans()) else None
    return ((*lead, C), (K, C), bias, residual), {"activation": activation}


@st.composite
def asymmetric(draw):
    """Kernels of one or two axes, of even and odd sizes, also larger than the map."""
    N, C, K = draw(st.integers(0, 3)), draw(sizes(4)), draw(sizes(3))
    size = tuple(draw(st.lists(sizes(12), min_size=1, max_size=2)))
    along = size if len(size) == 1 or draw(st.integers(0, 3)) else (max(size),)
    padding, dense = draw(st.sampled_from(["same", "valid"])), draw(st.booleans())
    taps = tuple(draw(sizes(k if padding == "valid" else min(2 * k + 3, 13))) for k in along)
    identity = draw(st.booleans())
    K = C if identity else K
    options = {
        "channels": "dense" if dense else "depthwise",
        "padding": padding,
        "normalize": draw(st.sampled_from(["none", "size", "softmax", "l2"])),
        "mask": draw(st.sampled_from([None, None, 0.7])),
        "resize": tuple(draw(sizes(k)) for k in taps) if draw(st.booleans()) else None,
    }
    kernel = (N, K, C, *taps) if dense else (N, C, *taps)
    return ((N, C, *size), kernel, (C,) if identity else None), options


OPERATORS = {
    "depthwise_conv2d": depthwise(),
    "peripheral_conv2d": peripheral(),
    "small_kernel_aggregation": aggregation(),
    "dcnv3": deformable(),
    "global_response_norm": response_norm(),
    "pointwise_product": pointwise(),
    "asymmetric_conv": asymmetric(),
}

# The names of their tensors, and of those that have a batch dimension.
TENSORS = {
    "depthwise_conv2d": ("x", "weight", "bias"),
    "peripheral_conv2d": ("x", "weight", "bias", "pos_embed"),
    "small_kernel_aggregation": ("x", "weight"),
    "dcnv3": ("x", "offset", "mask"),
    "global_response_norm": ("x", "weight", "bias"),
    "pointwise_product": ("x", "weight", "bias", "residual"),
    "asymmetric_conv": ("x", "kernel", "alpha"),
}
BATCHED = {
    "small_kernel_aggregation": ("x", "weight"),
    "dcnv3": ("x", "offset", "mask"),
    "pointwise_product": ("x", "residual"),
    "asymmetric_conv": ("x", "kernel"),
}


def backends(
    operator: str, shapes: tuple, options: dict, context: str, dtype: str
) -> list[str | None]:
    """Those that can run the call, None for the operator's own choice."""
    if operator == "asymmetric_conv" and 0 in shapes[0]:
        return [None]  # the others refuse these
    if context in ("vmap", "func_grad", "jvp"):
        return [None, "torch"]
    if operator == "pointwise_product":
        plain = context in ("autocast", "compile") or dtype != "float32"
        return [None, "torch"] if plain else [None, None, "onednn", "torch"]
    if operator == "asymmetric_conv":
        return [None, "torch"] if options["channels"] == "dense" else [None, "cpu", "torch"]
    return [None, None, "cpu", "torch"]


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
    dtype = draw(st.sampled_from(dtypes))
    half = context == "autocast" or dtype in ("bfloat16", "float16")
    if half and options.get("normalize") == "l2":
        options["normalize"] = "size"  # the gradient of l2 cancels: few digits are left of 8
    return Case(
        operator,
        shapes,
        options,
        tuple(draw(st.sampled_from(LAYOUTS)) for _ in shapes),
        dtype,
        context,
        draw(st.sampled_from(backends(operator, shapes, options, context, dtype))),
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
        elif case.options.get("activation") == "relu":
            # Multiples of 1/4, and odd multiples of 1/32 for the bias: no sum is 0.
            quarters = torch.randint(-8, 9, shape, generator=generator)
            values = quarters.double() / 4 + (1 / 32 if index == 2 else 0)
        else:
            fan_in = shape[-1] * shape[-2] if index == 1 and len(shape) in (3, 4) else 1
            if index == 1 and case.operator == "pointwise_product":
                fan_in = shape[1]
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


def present(case: Case) -> list[str]:
    """The names of the tensors that the case has."""
    names = zip(TENSORS[case.operator], case.shapes, strict=True)
    return [name for name, shape in names if shape is not None]


def call_of(case: Case, suffix: str = "") -> Callable[..., Tensor]:
    """The operator as a function of its present tensors."""
    function, options = getattr(ops, case.operator + suffix), dict(case.options)
    names, every = present(case), TENSORS[case.operator]
    absent = {name: None for name in every if name not in names}
    share = options.pop("mask", None)
    if share is None:
        return lambda *tensors: function(
            **dict(zip(names, tensors, strict=True)), **absent, **options
        )
    generator = torch.Generator().manual_seed(case.seed)
    spatial = len(case.shapes[1]) - (3 if options["channels"] == "dense" else 2)
    masks = torch.rand(3, *case.shapes[1][-spatial:], generator=generator) < share

    def masked(*tensors: Tensor) -> Tensor:
        named = dict(zip(names, tensors, strict=True))
        return function(**named, **absent, mask=masks[: len(named["kernel"])], **options)

    return masked


def as_code(case: Case) -> str:
    """A program that runs the case again."""
    values = ", ".join(
        f"{field.name}={getattr(case, field.name)!r}" for field in dataclasses.fields(case)
    )
    return (
        "from operator_cases import Case  # PYTHONPATH=.:tests/ops\n"
        f"from operator_checks import check\n\ncheck(Case({values}))"
    )
