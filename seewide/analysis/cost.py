"""What a network costs: parameters, multiply-adds, memory, and time against its rivals.

Counts run on the meta device, where operators compute no values: `unireplknet_xl` at 1024 x 1024
takes a second and no memory. Times are only ever compared within one run.
"""

from __future__ import annotations

import statistics
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from seewide.analysis._modes import OnMeta
from seewide.errors import InputError


@dataclass(frozen=True)
class Cost:
    """Trainable and fixed parameters, and multiply-adds of one forward pass."""

    parameters: int
    macs: int

    def __str__(self) -> str:
        return f"{self.parameters / 1e6:.1f} M parameters, {self.macs / 1e9:.2f} G multiply-adds"


def count_cost(model: nn.Module, shape: Sequence[int] = (1, 3, 224, 224)) -> Cost:
    """Parameters and multiply-adds of `model` in evaluation mode for one input of `shape`.

    A multiply-add of a convolution, linear layer, matrix product or attention counts once, taps on
    the padding included, as in the papers' "FLOPs"; norms, activations and pooling count nothing.
    """
    meta = OnMeta(model)
    with FlopCounterMode(display=False) as counter:
        meta.call(meta.input(shape))
    macs = counter.get_total_flops() // 2  # torch counts the multiplication and the addition
    return Cost(sum(parameter.numel() for parameter in model.parameters()), macs)


def peak_memory(call: Callable[[], object], cuda: bool | None = None) -> int:
    """Bytes that `call` holds at most, at once, beyond what was there before.

    With `cuda`, by default where it is in use, the allocator's figure. Otherwise the sum of the
    tensors alive, which leaves out the scratch memory inside an operator, and works on the meta
    device too.
    """
    if torch.cuda.is_initialized() if cuda is None else cuda:
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        call()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before
    with _LiveTensors() as live:
        call()
    return live.peak


def training_memory(model: nn.Module, shape: Sequence[int] = (1, 3, 224, 224)) -> int:
    """Bytes that one forward and backward pass of a batch of `shape` holds at most, at once.

    Activations, gradients of the parameters and intermediate results, beside the parameters; an
    optimizer adds its own state (AdamW: twice the parameters). Counted on the meta device with the
    tensors that the operators say they make, so scratch memory inside an operator is left out.
    """
    meta = OnMeta(model)
    x = meta.input(shape)
    wanted = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    state = {
        name: tensor.requires_grad_(name.removeprefix("model.") in wanted)
        for name, tensor in meta.state.items()
    }
    if not wanted:
        raise InputError(f"no parameter of {type(model).__name__} is trained")

    def step() -> None:
        y = torch.func.functional_call(meta, state, (x,))
        loss = sum(leaf.float().sum() for leaf in _tensors(y))
        torch.autograd.grad(loss, [t for t in state.values() if t.requires_grad], allow_unused=True)

    modes = {module: module.training for module in model.modules()}
    model.train()
    try:
        return peak_memory(step, cuda=False)
    finally:
        for module, training in modes.items():
            module.training = training


class _LiveTensors(TorchDispatchMode):
    """Sum of the bytes of all storages that operators made and that are still referred to."""

    def __init__(self):
        super().__init__()
        self.bytes = self.peak = 0
        self.known = weakref.WeakSet()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        given = {id(t.untyped_storage()) for t in _tensors((args, kwargs))}
        outputs = func(*args, **(kwargs or {}))
        for tensor in _tensors(outputs):
            storage = tensor.untyped_storage()
            if storage not in self.known and id(storage) not in given:  # no view, not in place
                self.known.add(storage)
                size = storage.nbytes()
                self.bytes += size
                weakref.finalize(storage, self._freed, size)
        self.peak = max(self.peak, self.bytes)
        return outputs

    def _freed(self, size: int) -> None:
        self.bytes -= size


def _tensors(tree: object) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]


@dataclass(frozen=True)
class Timings:
    """Seconds per call: `rounds[label][i]` is the figure of round i, the same i for all labels."""

    rounds: dict[str, list[float]]

    def median(self, label: str) -> float:
        return statistics.median(self.rounds[label])

    def spread(self, label: str) -> tuple[float, float]:
        """First and third quartile: half of the rounds lie between."""
        low, _, high = statistics.quantiles(self.rounds[label], n=4, method="inclusive")
        return low, high

    def bar(self, label: str) -> tuple[float, float, float]:
        """Median and quartiles in milliseconds, for `pictures.draw_bars`."""
        low, high = self.spread(label)
        return 1e3 * self.median(label), 1e3 * low, 1e3 * high

    def ratio(self, label: str, base: str) -> float:
        """How many times as fast `label` is as `base`: the median of the ratios per round.

        Both figures of a ratio are neighbours in time, so a machine that slows down for a while
        slows both; the ratio of two medians would not see to that.
        """
        pairs = zip(self.rounds[base], self.rounds[label], strict=True)
        return statistics.median(slow / fast for slow, fast in pairs)

    def rows(self, base: str | None = None) -> list[tuple[str, str, str, str]]:
        """(label, median, quartiles, times as fast as `base`) in words; `base`: the first."""
        base = base or next(iter(self.rounds))
        rows = []
        for label in self.rounds:
            low, high = self.spread(label)
            rows.append((
                label, f"{1e3 * self.median(label):.3g} ms", f"{1e3 * low:.3g} to {1e3 * high:.3g}",
                f"{self.ratio(label, base):.2f}x",
            ))  # fmt: skip
        return rows


def compare_throughput(
    calls: Mapping[str, Callable[[], object]], rounds: int = 15, least_seconds: float = 0.02
) -> Timings:
    """Time several callables in turns, in one run.

    Args:
        calls: label -> what to time, such as `lambda: model(x)`.
        rounds: every round times every callable once, beginning with another one each time.
        least_seconds: a measurement repeats its callable until it lasts about this long.
    """
    if not calls or rounds < 2:
        raise InputError(
            f"timing takes something to time and 2 rounds, got {rounds=}, {len(calls)=}"
        )
    repeats = {}
    for label, call in calls.items():
        _time(call, 1)  # the first call allocates, compiles and chooses
        repeats[label] = max(1, round(least_seconds / _time(call, 1)))
    seconds: dict[str, list[float]] = {label: [] for label in calls}
    labels = list(calls)
    for turn in range(rounds):
        first = turn % len(labels)
        for label in labels[first:] + labels[:first]:
            seconds[label].append(_time(calls[label], repeats[label]))
    return Timings(seconds)


def _time(call: Callable[[], object], repeats: int) -> float:
    """Seconds per call."""
    _finish()
    started = time.perf_counter()
    for _ in range(repeats):
        call()
    _finish()
    return (time.perf_counter() - started) / repeats


def _finish() -> None:
    """Wait for the accelerator, where there is one."""
    if torch.accelerator.is_available():
        torch.accelerator.synchronize()
