"""What tests and benchmarks share: an operator against its definition, and random weights.

Numbers are compared by `seewide.numerics`. Never imported by the rest of the package.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from .numerics import TOLERANCE, assert_close, deviation

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


def randomize(model: nn.Module, seed: int = 0) -> nn.Module:
    """Give every parameter and batch-norm statistic a value that an error would show in.

    Freshly built networks have zero shifts, unit variances and layer scales of 1e-6: a wrong
    fold of any of them would go unnoticed. Returns the model.
    """
    generator = torch.Generator().manual_seed(seed)

    def normal(tensor: Tensor) -> Tensor:
        return torch.randn(tensor.shape, generator=generator, dtype=torch.float64).to(tensor.dtype)

    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.squeeze().ndim <= 1:
                parameter.copy_(0.5 + 0.2 * normal(parameter))
            else:
                fan_in = parameter[0].numel()
                parameter.copy_(normal(parameter) / fan_in**0.5)
        for module in model.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.running_mean.copy_(0.2 * normal(module.running_mean))
                module.running_var.copy_(1 + 0.3 * normal(module.running_var).abs())
    return model
