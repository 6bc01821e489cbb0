"""How a random call of an operator is checked: value, gradients and more, against float64."""

from __future__ import annotations

import contextlib

import torch
from operator_cases import BATCHED, Case, call_of, make_tensors, present
from torch import Tensor

from seewide import ops
from seewide.numerics import difference, tolerance

# Rounding, relative to `seewide.numerics.TOLERANCE`: one operator, but gradients sum over an image
# and, in half precision, PyTorch's own formulation rounds once per tap.
FACTOR = {torch.float64: 10, torch.float32: 5, torch.float16: 4, torch.bfloat16: 4}


# Whose results may cancel to almost nothing (the softmax of one tap has the gradient 0): an
# absolute error within the limit passes too, as their values are about 1.
CANCELLING = ("asymmetric_conv", "pointwise_product")


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
    if case.operator in CANCELLING and found.max_abs <= limit:
        return
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
        batched = BATCHED.get(case.operator, ())
        tensors = [
            torch.cat([t, t])[:2] if name in batched and t.shape[0] else t
            for name, t in zip(present(case), tensors, strict=True)
        ]
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
