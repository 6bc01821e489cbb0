"""What tests and benchmarks share: an operator against its definition, and random weights.

Numbers are compared by `seewide.numerics`. Never imported by the rest of the package.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from .numerics import TOLERANCE, assert_close, deviation
from .reparam import randomize

__all__ = ["TOLERANCE", "assert_equal", "assert_matches_reference", "deviation", "randomize"]

assert_equal = assert_close


def assert_matches_reference(
    op: Callable, reference: Callable, inputs: Sequence[Tensor | None], factor: float = 1.0
) -> None:
    """Output of `op(*inputs)` and the gradient of every input equal the float64 reference's."""
    ours = [t if t is None else t.detach().requires_grad_() for t in inputs]
    theirs = [t if t is None else t.detach().double().requires_grad_() for t in inputs]
    got, want = op(*ours), reference(*theirs)
    assert_close(got, want, "output", factor)
    generator = torch.Generator().manual_seed(1)
    dy = torch.randn(want.shape, generator=generator, dtype=torch.float64)
    got_gradients = _gradients(got, ours, dy.to(got.dtype))
    want_gradients = _gradients(want, theirs, dy.to(got.dtype).double())
    for index, (g, w) in enumerate(zip(got_gradients, want_gradients, strict=True)):
        assert_close(g, w, f"gradient of input {index}", factor)


def _gradients(y: Tensor, inputs: Sequence[Tensor | None], dy: Tensor) -> tuple[Tensor, ...]:
    wanted = [t for t in inputs if t is not None]
    return torch.autograd.grad(y, wanted, dy)
