"""`seewide.optimize`: the fastest way to run a network on this CPU.

The model is fused, its operators are captured as a straight list for the size of its input, batch
norms and scales are folded, activations join the layers before them, and each convolution and
matrix product is computed in the layout that is fastest here, which is measured. The result is
compared with the model and timed against it before it is returned. See docs/performance.md.
"""

from __future__ import annotations

import copy
import logging
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from timm.models import reparameterize_model
from torch import Tensor, nn

from ..errors import InputError, unknown
from ..numerics import NETWORK, deviation
from ..reparam import fuse, probe
from .capture import capture, skeleton, weights
from .choices import Choices
from .program import (
    Constants,
    MissingWeights,
    as_torchscript,
    choose_ways,
    finish,
    rewrite_graph,
)
from .runtimes import RUNTIMES

log = logging.getLogger(__name__)
ROUNDS = 7


@dataclass
class Optimization:
    """What `optimize` did.

    Attributes:
        changes: (what, how often or how), in the order of the work.
        milliseconds: of the fused model and of the optimized one, on the probe.
        deviation: largest difference of the outputs on the probe, relative to the largest output.
        megabytes: of the fused model's weights, and of what the optimized model retains.
    """

    changes: list[tuple[str, str]] = field(default_factory=list)
    milliseconds: tuple[float, float] = (0.0, 0.0)
    deviation: float = 0.0
    megabytes: tuple[float, float] = (0.0, 0.0)

    @property
    def speedup(self) -> float:
        """How many times as fast as the fused model."""
        return self.milliseconds[0] / self.milliseconds[1]

    def __str__(self) -> str:
        before, after = self.milliseconds
        rows = [
            *self.changes,
            ("time on the probe", f"{before:.1f} -> {after:.1f} ms ({self.speedup:.2f} times)"),
            ("weights", "{:.1f} -> {:.1f} MB".format(*self.megabytes)),
            ("largest deviation", f"{self.deviation:.1e} of the largest output"),
        ]
        width = max(len(what) for what, _ in rows)
        return "\n".join(f"{what:<{width}}  {how}" for what, how in rows)


class OptimizedModel(nn.Module):
    """A model that `optimize` returned: takes what the model took, in inference only.

    A program is built for each size of input at its first call, which takes seconds; all share
    their weights. `report` says what was changed. It cannot be saved: save the model, and
    optimize it where it shall run.
    """

    def __init__(self, model: nn.Module, dtype: torch.dtype | None, channels_last: bool):
        super().__init__()
        self.report = Optimization()
        self._dtype = dtype
        self._channels_last = channels_last
        self._programs: dict[tuple, Callable[[Tensor], Any]] = {}
        self._constants = Constants(weights(model))
        self._choices = Choices()
        self._counts: dict[str, int] = {}
        self._skeleton = [skeleton(model)]  # in a list: its parameters are not this module's

    def forward(self, x: Tensor) -> Tensor:
        """As the model's. Raises InputError in training mode or where a gradient is wanted."""
        if self.training:
            raise InputError("an optimized model cannot be trained; train the original model")
        if torch.is_grad_enabled() and x.requires_grad:
            raise InputError("an optimized model has no gradients; use the original model")
        if x.device.type != "cpu":
            raise InputError(f"an optimized model runs on cpu, got an input on {x.device}")
        with torch.inference_mode():
            dtype = x.dtype
            x = self._prepared(x)
            key = (*x.shape, *x.stride(), x.dtype)
            program = self._programs.get(key)
            if program is None:
                program = self._programs[key] = self._build(x)
            y = program(x)
            return y if self._dtype is None else _converted(y, dtype)

    def _prepared(self, x: Tensor) -> Tensor:
        x = x if self._dtype is None else x.to(self._dtype)
        if x.ndim != 4:
            return x.contiguous()
        layout = torch.channels_last if self._channels_last else torch.contiguous_format
        return x.contiguous(memory_format=layout)

    def _build(self, x: Tensor):
        with torch.inference_mode(False), torch.no_grad():
            x = x.clone()
            graph_module = capture(self._skeleton[0], x)
            counts = rewrite_graph(graph_module)
            try:
                for what, n in choose_ways(
                    graph_module.graph, self._constants, self._choices
                ).items():
                    counts[what] = counts.get(what, 0) + n
                module = finish(graph_module, self._constants)
            except MissingWeights as missing:
                raise InputError(
                    f"this model was optimized for another input than {tuple(x.shape)}, and the "
                    f"weights that this one needs ({missing}) were replaced; optimize it with an "
                    "example of this size"
                ) from None
            self._constants.release()
            self._counts = self._counts or counts
            return as_torchscript(module, x)

    def train(self, mode: bool = True) -> OptimizedModel:
        """Raises InputError for `train()`; `eval()` changes nothing."""
        if mode:
            raise InputError("an optimized model cannot be trained; train the original model")
        return super().train(False)

    def __reduce__(self):
        raise InputError("an optimized model cannot be saved or copied; save the original model")


def optimize(
    model: nn.Module,
    example: Tensor | None = None,
    *,
    dtype: torch.dtype | None = None,
    runtime: str = "torch",
) -> nn.Module:
    """The fastest way to run `model` on this CPU, as a module with the same interface.

    Takes any model of timm or of this package, fused or not, whose forward pass is a function of
    one tensor. `model` is left as it is. The number of threads is what `torch.get_num_threads`
    says now.

    Args:
        model: the network.
        example: an input of the size to be expected, (N, C, H, W); of the size of timm's
            `pretrained_cfg` and a batch of 1 if absent. Other sizes run as well, after seconds of
            preparation for each.
        dtype: torch.bfloat16 to compute in it, where the CPU has instructions for it; the output
            has the dtype of the input. int8 is not offered here: see `seewide export`.
        runtime: "torch", or "onnxruntime" or "openvino" where these are installed: the fused model
            is exported and run there, for inputs of the example's size only.

    Returns:
        A module in evaluation mode; `print(module.report)` shows what was changed and gained.

    Raises:
        InputError: a model in training mode, an unknown runtime, a dtype that is not supported, or
            no example where none can be made.
        RuntimeError: the result deviates from the model.

    Example:
        >>> fast = seewide.optimize(timm.create_model("convnext_atto").eval())
        >>> fast(torch.randn(1, 3, 224, 224)).shape
        torch.Size([1, 1000])
    """
    _check(model, dtype, runtime)
    fused, steps = _fused(model)
    example = (_example(model) if example is None else example).detach()
    if runtime != "torch":
        result = RUNTIMES[runtime](fused, example, dtype, Optimization()).eval()
        steps.append(("runtime", runtime))
        result.report.megabytes = (_megabytes(fused), _megabytes(fused))
        return _finish(result, model, fused, example, steps, dtype)
    fused_in_dtype = fused if dtype is None else copy.deepcopy(fused).to(dtype)
    timed = []
    for channels_last in _layouts(fused):
        candidate = OptimizedModel(copy.deepcopy(fused_in_dtype), dtype, channels_last).eval()
        candidate(example)
        timed.append((_least(candidate, example), candidate))
    best = min(timed, key=lambda pair: pair[0])[1]
    steps.append(("memory format", "channels_last" if best._channels_last else "contiguous"))
    if dtype is not None:
        steps.append(("computed in", str(dtype)))
    steps += [(what, str(count)) for what, count in best._counts.items() if count]
    best.report.megabytes = (_megabytes(fused_in_dtype), best._constants.bytes() / 1e6)
    return _finish(best, model, fused, example, steps, dtype)


def _check(model: nn.Module, dtype: torch.dtype | None, runtime: str) -> None:
    if runtime not in RUNTIMES and runtime != "torch":
        raise unknown("runtime", runtime, ["torch", *RUNTIMES])
    if model.training:
        raise InputError(
            "optimize is for inference, and the model is in training mode; model.eval()"
        )
    if any(not p.is_cpu for p in model.parameters()):
        raise InputError("optimize is for CPUs, and the model is on another device; model.cpu()")
    if dtype in (torch.int8, torch.uint8, torch.qint8):
        raise InputError(
            "optimize does not quantize: int8 needs calibration images; `seewide export` and the "
            "runtimes' own tools do it"
        )
    if dtype not in (None, torch.float32, torch.bfloat16):
        raise InputError(f"dtype must be torch.float32 or torch.bfloat16, got {dtype}")
    if dtype == torch.bfloat16 and not has_bfloat16():
        raise InputError("this CPU has no instructions for bfloat16 (AVX512-BF16 or AMX)")


def has_bfloat16() -> bool:
    """Whether the CPU multiplies bfloat16 numbers by instructions of its own."""
    for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"):
        if getattr(torch.cpu, name, lambda: False)():
            return True
    return False


def _fused(model: nn.Module) -> tuple[nn.Module, list[tuple[str, str]]]:
    """A fused copy, by `seewide.fuse` or, for models of others, timm's hook."""
    before = sum(p.numel() for p in model.parameters())
    if type(model).__module__.startswith("seewide."):
        fused = fuse(model)
    else:
        fused = reparameterize_model(copy.deepcopy(model))
    fused = fused.eval().requires_grad_(False)
    after = sum(p.numel() for p in fused.parameters())
    if after == before:
        return fused, []
    return fused, [("parameters", f"{before / 1e6:.2f} -> {after / 1e6:.2f} M by fusing")]


def _example(model: nn.Module) -> Tensor:
    small = probe(model, batch=1)  # raises InputError where nothing is known
    size = (getattr(model, "pretrained_cfg", None) or {}).get("input_size", small.shape[1:])
    return torch.randn(1, small.shape[1], *size[1:], generator=torch.Generator().manual_seed(0))


def _layouts(model: nn.Module) -> tuple[bool, ...]:
    """The memory formats to be tried, whether channels_last."""
    if type(model).__module__.startswith("seewide."):
        return (True,)  # these networks convert their input themselves
    return (False, True) if any(isinstance(m, nn.Conv2d) for m in model.modules()) else (False,)


def _finish(
    result: nn.Module,
    model: nn.Module,
    fused: nn.Module,
    example: Tensor,
    steps: list[tuple[str, str]],
    dtype: torch.dtype | None,
) -> nn.Module:
    """Compare with the model, time beside its fused form, and fill in the report."""
    with torch.inference_mode():
        want, got = model(example), result(example)
        report = cast(Optimization, result.report)
        report.deviation = deviation(got, want)
        limit = NETWORK[dtype or torch.float32]
        if not report.deviation <= limit:
            raise RuntimeError(
                f"the optimized model deviates by {report.deviation:.1e} relative, more than the "
                f"{limit:.0e} that rounding explains"
            )
        report.milliseconds = _times(fused, result, example)
    report.changes = steps
    log.info("%s", report)
    return result


def _times(before: nn.Module, after: nn.Module, x: Tensor) -> tuple[float, float]:
    """Median milliseconds of both, in turns."""
    rounds: tuple[list[float], list[float]] = ([], [])
    for _ in range(ROUNDS):
        for times, model in zip(rounds, (before, after), strict=True):
            started = time.perf_counter()
            model(x)
            times.append(1e3 * (time.perf_counter() - started))
    return statistics.median(rounds[0]), statistics.median(rounds[1])


def _least(model: nn.Module, x: Tensor) -> float:
    """Seconds of the fastest of a few calls."""
    best = float("inf")
    with torch.inference_mode():
        for _ in range(ROUNDS):
            started = time.perf_counter()
            model(x)
            best = min(best, time.perf_counter() - started)
    return best


def _megabytes(model: nn.Module) -> float:
    return sum(t.numel() * t.element_size() for t in model.state_dict().values()) / 1e6


def _converted(y, dtype: torch.dtype):
    if isinstance(y, Tensor):
        return y.to(dtype)
    return type(y)(_converted(each, dtype) for each in y)
