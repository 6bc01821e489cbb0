"""What `make bench-gpu` found, as a page of the documentation with a picture."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from benchmarks.conditions import FIGURES
from benchmarks.gpu import networks, operators
from benchmarks.gpu.cases import FORWARD
from benchmarks.gpu.clock import Budget
from seewide.analysis import figures
from seewide.errors import write_atomically

PAGE = FIGURES.parent / "performance_gpu.md"
CURVE = FIGURES / "gpu-table-1.png"
LEAST = 3  # points that make a curve


def write_page(
    facts: Mapping[str, str],
    ops: Sequence[operators.Row],
    nets: Sequence[networks.Row],
    aims: Sequence[tuple[str, str, str]],
    budget: Budget,
    path: Path = PAGE,
    picture: Path = CURVE,
) -> Path:
    """Write the page and, if there is a curve to draw, its picture."""
    lines = [
        "# Measured on a GPU",
        "",
        "Written by `make bench-gpu`; how to read it: [gpu](gpu.md).",
        "",
    ]
    lines += [f"- {name}: {value}" for name, value in facts.items()]
    if draw_table_1(ops, picture):
        lines += ["", "## UniRepLKNet's Table 1: one depthwise layer against its kernel", ""]
        lines += [f"![milliseconds against kernel size]({picture.parent.name}/{picture.name})"]
    lines += ["", "## Aims", "", *_table(("aim", "figure", "met"), aims)]
    for title, columns, rows in (
        ("Operators", operators.COLUMNS, ops), ("Networks", networks.COLUMNS, nets),
    ):  # fmt: skip
        lines += ["", f"## {title}", "", *_table(columns, [row.cells() for row in rows])]
    for title, names in (("Failed", budget.failed), ("Not measured", budget.left_out)):
        if names:
            lines += ["", f"## {title}", "", *(f"- {name}" for name in names)]
    text = "\n".join(lines) + "\n"
    return write_atomically(path, lambda scratch: scratch.write_text(text))


def _table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> list[str]:
    cells = [columns, ["---"] * len(columns), *rows]
    return ["| " + " | ".join(map(str, row)) + " |" for row in cells]


def draw_table_1(ops: Sequence[operators.Row], path: Path) -> Path | None:
    """Milliseconds against K on logarithmic axes, a panel per shape and dtype, a line per form."""
    panels: dict[str, dict[str, list[tuple[int, float]]]] = defaultdict(lambda: defaultdict(list))
    for row in ops:
        if row.case.where == "Table 1" and row.what == FORWARD:
            shape, dtype = " x ".join(map(str, row.case.shape)), str(row.case.dtype)[6:]
            K = int(row.case.kernel.removeprefix("K="))
            panels[f"{shape}, {dtype}"][row.form].append((K, row.ms))
    panels = {title: forms for title, forms in panels.items()
              if max(map(len, forms.values())) >= LEAST}  # fmt: skip
    if not panels:
        return None
    names = list(dict.fromkeys(form for forms in panels.values() for form in forms))
    colour = dict(zip(names, figures.colors(len(names)), strict=True))
    columns = min(3, len(panels))
    rows = -(-len(panels) // columns)
    with figures.style():
        figure, axes = figures.canvas(rows, columns, 3.4 * columns, 3.0 * rows)
        for axis, (title, forms) in zip(axes, panels.items(), strict=False):
            for form, points in forms.items():
                K, ms = np.array(sorted(points)).T
                axis.plot(K, ms, "o-", color=colour[form], markersize=3, label=form)
            axis.set(xscale="log", yscale="log", xlabel="kernel size K", ylabel="ms")
            axis.set_title(title, fontsize=8)
            ticks = [3, 5, 9, 17, 31]
            axis.set_xticks(ticks, [str(tick) for tick in ticks], minor=False)
            axis.set_xticks([], minor=True)
        axes[0].legend(fontsize=7)
        return figures.save(figure, path)
