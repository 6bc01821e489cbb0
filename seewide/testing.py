"""Comparison with float64 definitions: what tests and benchmarks mean by "equal".

Never imported by the package itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

# Largest deviation allowed, relative to the largest value of the reference.
TOLERANCE = {
    torch.float64: 1e-11,
    torch.float32: 1e-5,
    torch.float16: 4e-3,
    torch.bfloat16: 2e-2,
}


def deviation(got: Tensor, want: Tensor) -> float:
    """Largest |difference| relative to the largest |want|; shapes must agree; NaN is infinite."""
    assert got.shape == want.shape, f"shape {tuple(got.shape)}, expected {tuple(want.shape)}"
    if want.numel() == 0:
        return 0.0
    difference = (got.double() - want.double()).abs().max().item()
    scale = want.double().abs().max().item()
    relative = difference / scale if scale > 0 else difference
    return relative if relative == relative else float("inf")


def assert_equal(got: Tensor, want: Tensor, what: str = "output", factor: float = 1.0) -> None:
    """`got` is `want` within `factor` times the rounding of its dtype."""
    limit = factor * TOLERANCE[got.dtype]
    found = deviation(got, want)
    assert found <= limit, f"{what} deviates by {found:.1e}, more than {limit:.1e} ({got.dtype})"


def assert_matches_reference(
    op: Callable, reference: Callable, inputs: Sequence[Tensor | None], factor: float = 1.0
) -> None:
    """Output of `op(*inputs)` and the gradient of every input equal the float64 reference's."""
    ours = [t if t is None else t.detach().requires_grad_() for t in inputs]
    theirs = [t if t is None else t.detach().double().requires_grad_() for t in inputs]
    got, want = op(*ours), reference(*theirs)
    assert_equal(got, want, "output", factor)
    generator = torch.Generator().manual_seed(1)
    dy = torch.randn(want.shape, generator=generator, dtype=torch.float64)
    got_gradients = _gradients(got, ours, dy.to(got.dtype))
    want_gradients = _gradients(want, theirs, dy.to(got.dtype).double())
    for index, (g, w) in enumerate(zip(got_gradients, want_gradients, strict=True)):
        assert_equal(g, w, f"gradient of input {index}", factor)


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
