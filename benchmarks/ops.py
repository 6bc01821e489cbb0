"""Operators against stock PyTorch: `python -m benchmarks.ops depthwise [--quick]`.

Each row is one shape and kernel: ours and stock convolutions in both layouts, timed in turns
(README.md); a wrong result stops the run before any speed is printed.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import torch
import torch.nn.functional as F
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor

from benchmarks.conditions import conditions, write_csv
from seewide.analysis.cost import compare_throughput
from seewide.kernels.cpu.depthwise import plan
from seewide.ops import depthwise_conv2d
from seewide.testing import assert_equal

SHAPES = [(1, 64, 56, 56), (8, 384, 14, 14)]
KERNELS = [3, 5, 7, 9, 11, 13, 17, 21, 31, 51]
OURS, STOCK, STOCK_CL = "seewide", "torch NCHW", "torch channels_last"
HEADER = ["shape", "kernel", "pass", "form", "backend", "median ms", "quartile 1", "quartile 3",
          "times torch NCHW", "GFLOP/s"]  # fmt: skip


def stock(x: Tensor, weight: Tensor) -> Tensor:
    """The convolution as every model file writes it."""
    return F.conv2d(x, weight, padding=weight.shape[2] // 2, groups=x.shape[1])


def forward(op: Callable, x: Tensor, weight: Tensor) -> Callable[[], object]:
    def call():
        with torch.no_grad():
            return op(x, weight)

    return call


def forward_backward(op: Callable, x: Tensor, weight: Tensor) -> Callable[[], object]:
    x, weight, dy = x.requires_grad_(), weight.requires_grad_(), torch.randn_like(x)
    return lambda: torch.autograd.grad(op(x, weight), (x, weight), dy)


def rows_of(shape: tuple[int, ...], size: int, both: bool, rounds: int) -> list[list[object]]:
    """Measured rows for one shape and kernel size."""
    torch.manual_seed(0)
    x = torch.randn(shape)
    weight = torch.randn(shape[1], 1, size, size) / size
    assert_equal(depthwise_conv2d(x, weight), stock(x, weight), "seewide's output")
    x_last = x.contiguous(memory_format=torch.channels_last)
    make = forward_backward if both else forward
    timings = compare_throughput(
        {
            STOCK: make(stock, x.clone(), weight.clone()),
            STOCK_CL: make(stock, x_last.clone(), weight.clone()),
            OURS: make(depthwise_conv2d, x.clone(), weight.clone()),
            f"{OURS} channels_last": make(depthwise_conv2d, x_last.clone(), weight.clone()),
        },
        rounds=rounds,
    )
    N, C, H, W = shape
    flops = 2 * N * C * H * W * size * size * (3 if both else 1)
    rows = []
    for label in timings.rounds:
        low, high = timings.spread(label)
        form = plan(x_last if "last" in label else x, weight, None, 1) if OURS in label else ""
        rows.append([
            "x".join(map(str, shape)), size, "forward + backward" if both else "forward",
            form, label, f"{1e3 * timings.median(label):.3f}", f"{1e3 * low:.3f}",
            f"{1e3 * high:.3f}", f"{timings.ratio(label, STOCK):.2f}",
            f"{flops / timings.median(label) / 1e9:.1f}",
        ])  # fmt: skip
    return rows


def depthwise(quick: bool) -> None:
    """Forward, and forward plus backward, for every shape and kernel size."""
    sizes = [13, 31] if quick else KERNELS
    cases = [(shape, size, both) for both in (False, True) for shape in SHAPES for size in sizes]
    rows = []
    console = Console(width=150)
    for shape, size, both in track(cases, description="measuring", console=console):
        rows += rows_of(shape, size, both, rounds=5 if quick or both else 9)
    console.print(_table(rows))
    for key, value in conditions().items():
        console.print(f"{key}: {value}")
    if not quick:
        console.print(f"written to {write_csv('depthwise', HEADER, rows)}", soft_wrap=True)


def _table(rows: list[list[object]]) -> Table:
    """A line per shape, kernel and pass; a column per backend: ms, and times torch NCHW."""
    labels = list(dict.fromkeys(row[4] for row in rows))
    table = Table("shape", "kernel", "pass", *labels, title="depthwise_conv2d: median ms (times)")
    lines: dict[tuple, list[str]] = {}
    for shape, size, what, form, _, median, _, _, times, _ in rows:
        cell = f"{float(median):.2f} ({float(times):.1f}x)"
        lines.setdefault((shape, str(size), what), []).append(f"{cell} {form}".strip())
    for key, cells in lines.items():
        table.add_row(*key, *cells)
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("operator", choices=["depthwise"])
    parser.add_argument("--quick", action="store_true", help="K=13 and 31 only, no file")
    depthwise(parser.parse_args().quick)


if __name__ == "__main__":
    main()
