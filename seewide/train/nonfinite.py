"""Optimizer steps with a NaN or infinite loss or gradient: skip them, or stop."""

from __future__ import annotations

from torch import Tensor, nn

MOST_SKIPS = 10  # consecutive steps; a network whose weights have diverged does not recover


class NonFiniteGuard:
    """Decides whether a run continues after a step with a non-finite loss or gradient.

    Args:
        policy: `stop`, or `skip`: leave out the optimizer step, and stop after MOST_SKIPS
            consecutive ones.
        model: its buffers, such as the means of batch norms, are restored after a skipped step.
    """

    def __init__(self, policy: str, model: nn.Module) -> None:
        self.skips = policy == "skip"
        self.model = model
        self.consecutive = 0
        self._buffers: list[Tensor] = []

    def before_step(self) -> None:
        """To be called before the micro-batches of a step."""
        if self.skips:
            self._buffers = [buffer.clone() for buffer in self.model.buffers()]

    def should_continue(self, finite: bool) -> bool:
        """Whether the run continues after a step."""
        self.consecutive = 0 if finite else self.consecutive + 1
        if finite:
            return True
        for buffer, old in zip(self.model.buffers(), self._buffers, strict=bool(self._buffers)):
            buffer.copy_(old)
        return self.skips and self.consecutive < MOST_SKIPS
