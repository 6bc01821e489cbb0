"""The curves of the documentation: `make generate`.

Two figures of PeLK (arXiv 2403.07589), from our own networks, with their values as CSV.
Figure 5: the multiply-adds by kind of layer. Figure 6: parameters against the kernel size of all
depthwise convolutions of ConvNeXt-T, with dense kernels, strips (SLaK's pair K x 5 and 5 x K) and
peripheral convolutions.

The README's figure shows time against kernel size, from the newest benchmark results.
"""

from __future__ import annotations

import csv
from pathlib import Path

import timm
from torch import nn

import seewide.surgery
from seewide.analysis import figures
from seewide.analysis.breakdown import break_down_cost, draw_cost_breakdown
from seewide.errors import write_atomically

RESULTS = Path(__file__).parents[1] / "benchmarks" / "results"
SHAPE = "1x64x56x56"
SERIES = {
    "torch NCHW": ("torch", "#9a9a9a"),
    "torch channels_last": ("torch, channels last", "#5f5f5f"),
    "seewide": ("seewide", "#c2452d"),
    "seewide channels_last": ("seewide, channels last", "#e39a5b"),
}
KERNELS = (7, 13, 21, 31, 51, 71, 101, 151)
SPLIT = ("pelk_t_dense", "pelk_t", "slak_t", "replknet_31b")
STRIP_WIDTH = 5
COLORS = {"dense": "#b03a2e", "strips": "#d99a3d", "peripheral": "#2f6f8f"}


def millions(model: nn.Module) -> float:
    return sum(p.numel() for p in model.parameters()) / 1e6


def parameters_by_kernel() -> list[dict[str, float]]:
    """One row per kernel size: millions of parameters with each kind of convolution."""
    plain = timm.create_model("convnext_tiny", device="meta")
    rows = []
    for K in KERNELS:
        dense = seewide.surgery.grow_kernels(plain, K) if K > 7 else plain
        shared = seewide.surgery.share_kernels(plain, K)
        kernels = sum(
            m.weight.numel() for m in dense.modules() if seewide.surgery.is_depthwise("", m)
        )
        strips = millions(dense) - kernels * (1 - min(1, 2 * STRIP_WIDTH / K)) / 1e6
        rows.append({
            "kernel": K, "dense": millions(dense), "strips": strips, "peripheral": millions(shared),
        })  # fmt: skip
    return rows


def draw_time_against_kernel(results: Path, target: Path) -> None:
    """Forward, and forward plus backward, for one shape, with one line per implementation."""
    lines = results.read_text().splitlines()
    conditions = [line[2:] for line in lines if line.startswith("#")]
    rows = [
        row for row in csv.DictReader(line for line in lines if not line.startswith("#"))
        if (row["where"], row["shape"]) == ("grid", SHAPE) and row["median ms"]
    ]  # fmt: skip
    figure, both = figures.canvas(1, 2, 9, 3.6)
    for axes, what in zip(both, ("forward", "forward + backward"), strict=True):
        for series, (label, color) in SERIES.items():
            chosen = [row for row in rows if (row["pass"], row["form"]) == (what, series)]
            sizes = [int(row["kernel"].partition("x")[0]) for row in chosen]
            times = [float(row["median ms"]) for row in chosen]
            axes.plot(sizes, times, color=color, marker="o", ms=4, lw=1.8, label=label)
        axes.set(xscale="log", yscale="log", title=what, xlabel="kernel size K")
        axes.set_xticks([3, 7, 13, 21, 31, 51, 101], ["3", "7", "13", "21", "31", "51", "101"])
        axes.minorticks_off()
        axes.grid(alpha=0.25)
    both[0].set_ylabel("milliseconds")
    both[0].legend(frameon=False, fontsize=8, loc="upper left")
    what = f"K x K depthwise convolution of {SHAPE.replace('x', ' x ')}"
    figure.suptitle(f"{what}; {conditions[0]}, {conditions[1]}", fontsize=9)
    figures.save(figure, target)


def draw_curves(figures: Path) -> None:
    results = sorted(RESULTS.glob("depthwise-cpu-torch*-float32.csv"))
    draw_time_against_kernel(results[-1], figures / "time-against-kernel.png")
    splits = {
        name: break_down_cost(timm.create_model(name, device="meta").eval()) for name in SPLIT
    }
    draw_cost_breakdown(splits, figures / "pelk-figure-5.png")
    rows = parameters_by_kernel()

    def write(path: Path) -> None:
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, rows[0], lineterminator="\n")
            writer.writeheader()
            writer.writerows({k: round(v, 2) for k, v in row.items()} for row in rows)

    write_atomically(figures / "pelk-figure-6.csv", write)
    figure, (axes,) = figures.canvas(1, 1, 6.4, 3.6)
    for kind, color in COLORS.items():
        sizes, counts = [row["kernel"] for row in rows], [row[kind] for row in rows]
        axes.plot(sizes, counts, color=color, marker="o", ms=4, lw=1.8)
        axes.annotate(
            f"{kind}, {counts[-1]:.0f} M", (sizes[-1], counts[-1]), (-6, 7), color=color,
            textcoords="offset points", ha="right", fontsize=9,
        )  # fmt: skip
    axes.set(xlabel="kernel size K of ConvNeXt-T", ylabel="parameters (M)", yscale="log")
    axes.set_ylim(25, 240)
    axes.set_yticks([30, 50, 100, 200], ["30", "50", "100", "200"])
    axes.minorticks_off()
    axes.grid(alpha=0.25)
    figures.save(figure, figures / "pelk-figure-6.png")
