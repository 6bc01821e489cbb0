"""Tables of the papers that take networks apart, ours beside theirs: `make generate`.

UniRepLKNet's ablations (arXiv 2311.15599, Tables 1 to 4; in 2410.08049 Tables 3a to 3d), the parts
of UniConvNet (arXiv 2508.09000, Table 8), and PeLK's split of the work (arXiv 2403.07589, Figure
5). All of it is counted on the meta device.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Sequence
from pathlib import Path

import timm
import torch
from torch import nn

import seewide
from seewide.analysis.breakdown import break_down_cost
from seewide.analysis.cost import count_cost
from seewide.models.unireplknet import UniRepLKNet

DOCS = Path(__file__).parent
# The network that UniRepLKNet's guidelines were found on: ConvNeXt-T's size.
VANILLA = {"depths": (3, 3, 9, 3), "dims": (96, 192, 384, 768), "kernel_sizes": (3, 13, 13, 13)}
REPARAM = {  # Table 2: names of `reparam=` and of the table's rows
    "none": "none",
    "dilated": "Dilated Reparam",
    "same_size": "same kernel size",
    "same_reach": "same equivalent kernel size",
}
PARTS = ("rfa", "dcn", "mlp")
# Millions of RFA, DCN and MLP in the authors' model file. Table 8 prints about half of these.
AUTHORS_PARTS = {
    "uniconvnet_t": (6.69, 6.83, 14.68),
    "uniconvnet_s": (10.90, 11.42, 24.57),
    "uniconvnet_b": (20.72, 22.54, 48.62),
    "uniconvnet_l": (42.33, 46.96, 101.46),
    "uniconvnet_xl": (47.87, 53.04, 114.58),
}


def markdown(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table whose first column is set left, the others right."""
    ruler = ["---", *["---:"] * (len(columns) - 1)]
    return "\n".join(f"| {' | '.join(line)} |" for line in [columns, ruler, *rows])


def paper_ablations() -> list[dict[str, str]]:
    with (DOCS / "paper_ablations.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def vanilla(**changes) -> nn.Module:
    """The unfused network of the ablations, on the meta device."""
    return UniRepLKNet(**{**VANILLA, **changes}, device="meta").eval()


def seen_parameters(model: nn.Module) -> float:
    """Millions, as the paper's counter sees them: without the GRN's, which are in no layer."""
    named = model.named_parameters()
    return sum(p.numel() for name, p in named if "grn." not in name) / 1e6


def ablation(row: dict[str, str]) -> list[str]:
    """A line of Tables 1, 3 and 4."""
    merged = seewide.fuse(vanilla(**json.loads(row["arguments"])))
    giga = count_cost(merged).macs / 1e9
    return [
        row["what"], row["table"], f"{seen_parameters(merged):.1f}", row["parameters_m"],
        f"{giga:.2f}", row["gmacs"],
    ]  # fmt: skip


def ablations() -> str:
    """Tables 1, 3 and 4."""
    columns = ("network", "table", "M parameters", "paper", "G", "paper")
    return markdown(columns, map(ablation, paper_ablations()))


def reparam_forms() -> str:
    """Table 2: four unfused networks, which are one network when fused."""
    rows = []
    for form, name in REPARAM.items():
        model = vanilla(extra="none", reparam=form)
        cost, merged = count_cost(model), count_cost(seewide.fuse(model))
        rows.append([
            name, f"{cost.parameters / 1e6:.2f}", f"{cost.macs / 1e9:.2f}",
            f"{merged.parameters / 1e6:.2f}", f"{merged.macs / 1e9:.2f}",
        ])  # fmt: skip
    return markdown(("beside the 13 x 13", "M in training", "G", "M fused", "G"), rows)


def parts_of(name: str) -> list[float]:
    """Millions of parameters in a UniConvNet's aggregators, DCNs and MLPs."""
    model = timm.create_model(name, device="meta")
    return [
        sum(p.numel() for key, p in model.named_parameters() if f".{part}." in key) / 1e6
        for part in PARTS
    ]


def uniconvnet_parts(names: Iterable[str]) -> str:
    """Table 8, from the smallest network to the largest."""
    rows = []
    for name, parts in sorted(((n, parts_of(n)) for n in names), key=lambda pair: sum(pair[1])):
        authors = AUTHORS_PARTS.get(name, ())
        theirs = " / ".join(f"{value:.2f}" for value in authors)
        rows.append([f"`{name}`", *(f"{value:.2f}" for value in parts), theirs])
    return markdown(("model", "RFA", "DCNv3", "MLP", "the authors' file"), rows)


def pelk_shares(names: Sequence[str] = ("pelk_t", "pelk_t_dense")) -> str:
    """Figure 5 in percent of the multiply-adds."""
    image = torch.empty(1, 3, 224, 224, device="meta")
    columns = []
    for name in names:
        split = break_down_cost(seewide.fuse(timm.create_model(name, device="meta").eval(), image))
        total = split.total.macs
        columns.append({kind: 100 * share.macs / total for kind, share in split.by_kind().items()})
    paper = {"large kernel": "25", "embedding": "0.05"}
    rows = [
        [kind, *(f"{column.get(kind, 0):.2f}" for column in columns), paper.get(kind, "")]
        for kind in columns[0]
    ]
    return markdown(("multiply-adds, %", *(f"`{name}`" for name in names), "paper"), rows)
