"""Two figures of PeLK (arXiv 2403.07589), from our own networks, with their numbers as CSV.

Figure 5: where the multiply-adds are. Figure 6: parameters against the kernel size of all depthwise
convolutions of ConvNeXt-T, dense, as strips (SLaK's pair K x 5 and 5 x K) and peripheral.
"""

from __future__ import annotations

import csv
from pathlib import Path

import timm
from torch import nn

import seewide.surgery
from seewide.analysis import pictures
from seewide.analysis.split import draw_split, split_cost
from seewide.errors import write_atomically

KERNELS = (7, 13, 21, 31, 51, 71, 101, 151)
SPLIT = ("pelk_t_dense", "pelk_t", "slak_t", "replknet_31b")
STRIP_WIDTH = 5
COLORS = {"dense": "#b03a2e", "strips": "#d99a3d", "peripheral": "#2f6f8f"}


def millions(model: nn.Module) -> float:
    return sum(p.numel() for p in model.parameters()) / 1e6


def parameters_by_kernel() -> list[dict[str, float]]:
    """One row per kernel size: millions of parameters in each form."""
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


def draw_curves(figures: Path) -> None:
    splits = {name: split_cost(timm.create_model(name, device="meta").eval()) for name in SPLIT}
    draw_split(splits, figures / "pelk-figure-5.png")
    rows = parameters_by_kernel()

    def write(path: Path) -> None:
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, rows[0], lineterminator="\n")
            writer.writeheader()
            writer.writerows({k: round(v, 2) for k, v in row.items()} for row in rows)

    write_atomically(figures / "pelk-figure-6.csv", write)
    figure, (axes,) = pictures.canvas(1, 1, 6.4, 3.6)
    for form, color in COLORS.items():
        sizes, counts = [row["kernel"] for row in rows], [row[form] for row in rows]
        axes.plot(sizes, counts, color=color, marker="o", ms=4, lw=1.8)
        axes.annotate(
            f"{form}, {counts[-1]:.0f} M", (sizes[-1], counts[-1]), (-6, 7), color=color,
            textcoords="offset points", ha="right", fontsize=9,
        )  # fmt: skip
    axes.set(xlabel="kernel size K of ConvNeXt-T", ylabel="parameters (M)", yscale="log")
    axes.set_ylim(25, 240)
    axes.set_yticks([30, 50, 100, 200], ["30", "50", "100", "200"])
    axes.minorticks_off()
    axes.grid(alpha=0.25)
    pictures.save(figure, figures / "pelk-figure-6.png")
