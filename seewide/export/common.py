"""What all exporters share: preparation of the model, comparison, errors of one line."""

from __future__ import annotations

import contextlib
import copy
import io
import logging
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from seewide._version import __version__
from seewide.errors import InputError
from seewide.export.constants import fold_constants
from seewide.numerics import Difference, compare, tensors, worst
from seewide.reparam import fuse

LARGEST_DEVIATION = 1e-4  # relative; float32 forward passes differ by 1e-7 to 1e-5

# Precisions other than float32 are not exact: what an ordinary network's outputs may move.
LARGEST_BY_PRECISION = {"f32": 1e-4, "f16": 3e-2, "bf16": 1e-1}

Outputs = tuple[Tensor, ...]
Runner = Callable[[Tensor], Outputs]


@dataclass(frozen=True)
class ExportReport:
    """What was written and how far its outputs are from the model's.

    `max_abs` is the largest |exported - model|, `max_rel` the same over the largest |model| of
    that output, each the worst of all shapes in `shapes`; `seconds` covers fusing, writing,
    reading back and comparing. `notes` are further facts, such as the agreement of an int8 file.
    """

    path: Path
    format: str
    max_abs: float
    max_rel: float
    size_bytes: int
    seconds: float
    shapes: tuple[tuple[int, ...], ...] = ()
    notes: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        extra = "".join(f", {key} {value}" for key, value in self.notes.items())
        return (
            f"{self.path} ({self.format}, {self.size_bytes / 1e6:.1f} MB): largest deviation "
            f"{self.max_abs:.1e}, relative {self.max_rel:.1e}{extra}"
        )


@dataclass(frozen=True)
class Axes:
    """Which axes of the input are free in a file.

    Attributes:
        batch: N.
        size: H and W.
        least: of H and W, if they are free.
        multiple: H and W are multiples of it.
        names: of the outputs; empty: `output`, or `output0`, `output1` ...
    """

    batch: bool = True
    size: bool = False
    least: int = 33
    multiple: int = 1
    names: tuple[str, ...] = ()

    def shapes(self, example: Sequence[int]) -> list[tuple[int, ...]]:
        """The shapes of the inputs that are compared; the first is the example's."""
        N, *rest = example
        more, m = N + self.batch, self.multiple
        if not self.size:
            return [(N, *rest), (more, *rest)]
        C, H, W = rest
        # The traced size is no power of two, so that no layer takes a shortcut for its own size.
        small = max(64, self.least, H // 2)
        sides = (64, 32, 96) if m == 1 else (2 * m, m, 3 * m)
        return [
            (N, C, H, W),
            (more, C, H + sides[0], W + sides[1]),
            (1, C, -(-small // m) * m, W + sides[2]),
        ]

    def __str__(self) -> str:
        return ", ".join(["batch size"] * self.batch + ["height", "width"] * self.size)


@dataclass(frozen=True)
class Prepared:
    """A fused model on the CPU, and what its outputs should be."""

    model: nn.Module
    inputs: list[Tensor]
    wanted: list[Outputs]
    properties: dict[str, str]
    axes: Axes

    @property
    def free_size(self) -> bool:
        """Whether height and width are free."""
        return self.axes.size

    @property
    def example(self) -> Tensor:
        """The input that exporters trace: the second, whose batch is not 1 if that is free."""
        return self.inputs[1]

    def check(self, run: Runner, format: str, limit: float = LARGEST_DEVIATION) -> Difference:
        """Compare the outputs of an exported file with the model's, at each shape.

        Raises:
            InputError: they deviate by more than `limit`.
        """
        found = []
        for x, wanted in zip(self.inputs, self.wanted, strict=True):
            try:
                got = run(x)
            except InputError:
                raise
            except Exception as error:
                raise InputError(
                    f"not exported: the {format} file fails on an input of shape "
                    f"{tuple(x.shape)}: {first_line(error)}"
                ) from error
            found.append(worst(compare(got, wanted)))
        result = worst(found)
        if not result.max_rel <= limit:  # a NaN does not pass
            reason = f" ({result.reason})" if result.reason else ""
            raise InputError(
                f"not exported: the outputs of the {format} file deviate by {result.max_rel:.1e} "
                f"relative{reason}, allowed is {limit:.0e}"
            )
        return result


def prepare(
    model: nn.Module,
    example: Tensor,
    metadata: Mapping[str, str] | None = None,
    axes: Axes = Axes(),
    for_runtime: str = "",
) -> Prepared:
    """Fuse the model, fold constant kernels, and compute its outputs on inputs of several shapes.

    Args:
        example: (N, C, H, W), or (N, ...) of other signals: waveforms, clips, windows of series;
            floating point.
        axes: which are free; with free height and width three sizes are compared.

    Raises:
        InputError: an example of another shape or dtype.
    """
    if (
        not isinstance(example, Tensor)
        or example.ndim < 2
        or 0 in example.shape
        or not example.is_floating_point()
    ):
        got = (
            f"{example.dtype} of shape {tuple(example.shape)}"
            if isinstance(example, Tensor)
            else repr(example)
        )
        raise InputError(
            f"the example must be floating point of shape (N, C, H, W) with N >= 1, got {got}"
        )
    if axes.size and example.ndim != 4:
        raise InputError(f"only images have a free height and width, not {tuple(example.shape)}")
    original = copy.deepcopy(model).cpu().eval()
    example = example.detach().cpu()
    N, *rest = example.shape
    inputs = [example] + [_noise(example, shape) for shape in axes.shapes(example.shape)[1:]]
    with torch.no_grad():
        try:
            first = outputs(original(example))
        except RuntimeError as error:
            raise InputError(
                f"the model does not take an example of shape {tuple(example.shape)}: "
                f"{str(error).splitlines()[0]}"
            ) from error
        fused = fold_constants(fuse(original, example))
        wanted = [first, *(outputs(original(x)) for x in inputs[1:])]
    fixed = [rest[0], "H", "W"] if axes.size else rest
    properties = {
        "producer": f"seewide {__version__}",
        "form": "fused",
        "input": ",".join(map(str, ["N" if axes.batch else N, *fixed])),
        **({"outputs": ",".join(axes.names)} if axes.names else {}),
        **({"runtime": for_runtime} if for_runtime else {}),
        **{str(key): str(value) for key, value in (metadata or {}).items()},
    }
    return Prepared(fused, inputs, wanted, properties, axes)


def free_axes(prepared: Prepared) -> tuple[dict[int, object]]:
    """`dynamic_shapes` of `torch.export`: N, and H and W where they are free."""
    axes, free = prepared.axes, {}
    if axes.batch:
        free[0] = torch.export.Dim("batch")
    if axes.size:
        for axis, name in ((2, "height"), (3, "width")):
            least, most = -(-axes.least // axes.multiple), 8192 // axes.multiple
            side = torch.export.Dim(name, min=least, max=most)
            free[axis] = side if axes.multiple == 1 else axes.multiple * side
    return (free,)


def export_program(prepared: Prepared, format: str) -> torch.export.ExportedProgram:
    """The fused model as `torch.export` records it.

    Raises:
        InputError: it cannot be traced with the free axes that were asked for.
    """
    with one_sentence(format, prepared.free_size), quiet(), torch.no_grad():
        return torch.export.export(
            prepared.model, (prepared.example,), dynamic_shapes=free_axes(prepared)
        )


def outputs(output: object) -> Outputs:
    """All tensors of a network's output: logits, a list of feature maps, a dict of them."""
    return tuple(tensor for _, tensor in tensors(output))


def first_line(error: Exception) -> str:
    """The first line of an error's text that is not empty, cut to 200 characters."""
    lines = (line.strip() for line in str(error).splitlines())
    line = next((line for line in lines if line), "") or type(error).__name__
    return "".join(c if c.isprintable() else "?" for c in line[:200])


@contextlib.contextmanager
def one_sentence(format: str, free_size: bool = False) -> Iterator[None]:
    """The exporters' errors are pages long; their first line gives the reason."""
    free = "batch size, height and width" if free_size else "batch size"
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        raise InputError(
            f"this model cannot be exported as {format} with a free {free}: "
            f"{type(error).__name__}: {first_line(error)}"
        ) from error


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without the exporters' progress lines, log records and warnings about their own code."""
    names = ("torch.onnx", "onnxscript", "onnx_ir", "nncf", "root", "torch.export")
    loggers = [logging.getLogger(name) for name in names]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def milliseconds(run: Callable[[Tensor], object], x: Tensor, rounds: int = 15) -> float:
    """CPU milliseconds of this process for one call, the least of `rounds`."""
    run(x)
    least = float("inf")
    for _ in range(rounds):
        started = time.process_time()
        run(x)
        least = min(least, time.process_time() - started)
    return least * 1e3


def agreement(a: Sequence[Tensor], b: Sequence[Tensor]) -> float:
    """Share of positions at which two lists of outputs (N, C, ...) have the same largest class."""
    same = total = 0
    for one, other in zip(a, b, strict=True):
        equal = one.argmax(1) == other.argmax(1)
        same, total = same + int(equal.sum()), total + equal.numel()
    return same / total if total else 1.0


def _noise(example: Tensor, shape: Sequence[int]) -> Tensor:
    """Noise of another shape, of the mean and spread of `example`."""
    noise = torch.empty(*shape, dtype=example.dtype)
    noise.normal_(generator=torch.Generator().manual_seed(0))
    return noise * example.std() + example.mean()
