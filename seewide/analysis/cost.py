"""Cost of a model: parameters, multiply-adds, memory, and relative speed.

Counts run on the meta device, where operators compute no values: `unireplknet_xl` at 1024 x 1024
takes a second and no memory. Times are only compared within one run.
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

from seewide.analysis._inspection import MetaModel
from seewide.errors import InputError


@dataclass(frozen=True)
class Cost:
    """Cost of one forward pass.

    Attributes:
        parameters: number of parameters, whether trainable or not.
        macs: number of multiply-adds.
    """

    parameters: int
    macs: int

    def __str__(self) -> str:
        return f"{self.parameters / 1e6:.1f} M parameters, {self.macs / 1e9:.2f} G multiply-adds"


def count_cost(model: nn.Module, shape: Sequence[int] = (1, 3, 224, 224)) -> Cost:
    """Parameters and multiply-adds of `model` in evaluation mode for one input of `shape`.

    Multiply-adds of convolutions, linear layers, matrix products and attention, including those of
    zero padding, as in the papers' "FLOPs"; norms, activations and pooling are not counted. The
    executed operators are counted (with `torch.utils.flop_counter`), not the modules, so functional
    convolutions and operators of seewide are included.
    """
    meta = MetaModel(model)
    with FlopCounterMode(display=False) as counter:
        meta.call(meta.input(shape))
    macs = counter.get_total_flops() // 2  # torch counts the multiplication and the addition
    return Cost(sum(parameter.numel() for parameter in model.parameters()), macs)


def peak_memory(call: Callable[[], object], cuda: bool | None = None) -> int:
    """Peak memory in bytes that is allocated during `call`.

    Args:
        call: what is measured.
        cuda: use the statistics of the CUDA allocator; default: if CUDA is initialized. Otherwise
            the sizes of all live tensors are added up, on any device including meta; temporary
            memory inside an operator is not seen then.
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
    """Peak memory in bytes of a forward and backward pass of a batch of `shape`.

    Activations, gradients and intermediate results, without the parameters and the optimizer state
    (AdamW: twice the parameters). Counted on the meta device by the outputs of the operators, so
    temporary memory inside an operator is not included.

    Raises:
        InputError: no parameter requires a gradient.
    """
    meta = MetaModel(model)
    x = meta.input(shape)
    trainable = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    state = {
        name: tensor.requires_grad_(name.removeprefix("model.") in trainable)
        for name, tensor in meta.state.items()
    }
    if not trainable:
        raise InputError(f"no parameter of {type(model).__name__} requires a gradient")

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
    """Total size of the live storages that were allocated by operators."""

    def __init__(self):
        super().__init__()
        self.bytes = self.peak = 0
        self.counted = weakref.WeakSet()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        inputs = {id(t.untyped_storage()) for t in _tensors((args, kwargs))}
        outputs = func(*args, **(kwargs or {}))
        for tensor in _tensors(outputs):
            storage = tensor.untyped_storage()
            if storage not in self.counted and id(storage) not in inputs:  # no view, not in-place
                self.counted.add(storage)
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
    """Measured times.

    Attributes:
        rounds: label -> seconds per call in each round; all labels have the same rounds.
    """

    rounds: dict[str, list[float]]

    def median(self, label: str) -> float:
        """Median of the rounds, in seconds."""
        return statistics.median(self.rounds[label])

    def spread(self, label: str) -> tuple[float, float]:
        """First and third quartile of the rounds, in seconds."""
        low, _, high = statistics.quantiles(self.rounds[label], n=4, method="inclusive")
        return low, high

    def bar(self, label: str) -> tuple[float, float, float]:
        """Median and quartiles in milliseconds, for `figures.draw_bars`."""
        low, high = self.spread(label)
        return 1e3 * self.median(label), 1e3 * low, 1e3 * high

    def ratio(self, label: str, base: str) -> float:
        """Speedup of `label` over `base`: the median of the ratios of each round.

        Both times of a ratio were measured one after the other, so a temporary slowdown of the
        machine affects both, unlike in a ratio of two medians.
        """
        pairs = zip(self.rounds[base], self.rounds[label], strict=True)
        return statistics.median(slow / fast for slow, fast in pairs)

    def rows(self, base: str | None = None) -> list[tuple[str, str, str, str]]:
        """(label, median, quartiles, speedup over `base`) as text; default `base`: the first."""
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
    calls: Mapping[str, Callable[[], object]], rounds: int = 15, min_seconds: float = 0.02
) -> Timings:
    """Time several callables alternately.

    Args:
        calls: label -> what to time, such as `lambda: model(x)`.
        rounds: each round times every callable once, starting with a different one.
        min_seconds: a measurement repeats its callable to last about this long.

    Raises:
        InputError: no callables or fewer than two rounds.
    """
    if not calls or rounds < 2:
        raise InputError(
            f"timing needs at least 1 callable and 2 rounds, got {rounds=}, {len(calls)=}"
        )
    repeats = {}
    for label, call in calls.items():
        _time(call, 1)  # warm-up: allocation, compilation and choice of kernels
        repeats[label] = max(1, round(min_seconds / _time(call, 1)))
    seconds: dict[str, list[float]] = {label: [] for label in calls}
    labels = list(calls)
    for index in range(rounds):
        first = index % len(labels)
        for label in labels[first:] + labels[:first]:
            seconds[label].append(_time(calls[label], repeats[label]))
    return Timings(seconds)


def _time(call: Callable[[], object], repeats: int) -> float:
    """Seconds per call."""
    _synchronize()
    started = time.perf_counter()
    for _ in range(repeats):
        call()
    _synchronize()
    return (time.perf_counter() - started) / repeats


def _synchronize() -> None:
    """Wait for the accelerator, if there is one."""
    if torch.accelerator.is_available():
        torch.accelerator.synchronize()
