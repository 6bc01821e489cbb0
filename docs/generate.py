"""Writes the generated parts of docs/: `make generate`, or `python docs/generate.py`.

The tables of docs/models, between markers, from the models themselves and paper_figures.csv; the
table of docs/recipes.md from the recipes; the blocks (blocks.py); the split and the growth of
PeLK's costs (curves.py). What people wrote around the markers stays. Models are counted on the meta
device, so the figures come out the same everywhere.
"""

from __future__ import annotations

import csv
import re
from dataclasses import dataclass
from pathlib import Path

import tables
import timm
import torch
from blocks import draw_blocks
from curves import draw_curves
from recipes_page import options_tables, recipes_table
from rich.progress import track

import seewide
from seewide.analysis.cost import count_cost
from seewide.errors import write_atomically

DOCS = Path(__file__).parent
MODELS = DOCS / "models"
FAMILIES = ("unireplknet", "lsnet", "uniconvnet", "replknet", "slak", "pelk")
COLUMNS = (
    "model",
    "parameters",
    "fused",
    "paper",
    "G at 224",
    "G at 384",
    "paper",
    "strides",
    "top-1",
)
TELLING = 0.02  # a difference from the paper's figure above which docs/discrepancies says why


@dataclass(frozen=True)
class Row:
    """One model, counted, beside its paper's figures."""

    name: str
    trained: float  # millions of parameters
    merged: float
    macs: dict[int, float]  # G by side of the input
    strides: tuple[int, ...]
    paper: dict[str, str]

    def cells(self) -> list[str]:
        """A line of COLUMNS."""
        paper = self.paper
        macs = paper.get("gmacs", "")
        if macs:
            side = int(paper["resolution"])
            macs = f"{macs} at {side}{difference(self.macs[side], macs)}"
        parameters = paper.get("parameters_m", "")
        if parameters:
            parameters += difference(self.merged, parameters)
        return [
            f"`{self.name}`", f"{self.trained:.2f}", f"{self.merged:.2f}", parameters,
            f"{self.macs[224]:.2f}", f"{self.macs[384]:.1f}", macs,
            ", ".join(map(str, self.strides)), paper.get("top1", ""),
        ]  # fmt: skip


def difference(ours: float, paper: str) -> str:
    """ " (+3.1%)" of the paper's figure, where it is over TELLING; else nothing."""
    share = ours / float(paper) - 1
    return f" ({share:+.1%})" if abs(share) > TELLING else ""


def paper_figures() -> dict[str, dict[str, str]]:
    with (DOCS / "paper_figures.csv").open(newline="") as file:
        return {row["model"]: row for row in csv.DictReader(file)}


def count(name: str, paper: dict[str, str]) -> Row:
    model = timm.create_model(name, device="meta").eval()
    merged = seewide.fuse(model, torch.empty(1, 3, 224, 224, device="meta"))
    costs = {side: count_cost(merged, (1, 3, side, side)) for side in (224, 384)}
    return Row(
        name,
        sum(p.numel() for p in model.parameters()) / 1e6,
        costs[224].parameters / 1e6,
        {side: cost.macs / 1e9 for side, cost in costs.items()},
        tuple(info["reduction"] for info in model.feature_info),
        paper,
    )


def family_of(name: str) -> str:
    return next(family for family in FAMILIES if name.startswith(family))


def table(rows: list[Row]) -> str:
    lines = [COLUMNS, ("---", *["---:"] * 6, "---", "---:"), *(row.cells() for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def weights_table(family: str) -> str:
    """Tag and file of every published checkpoint of a family."""
    lines = ["| `create_model(...)` | file |", "| --- | --- |"]
    for tag in seewide.list_models(f"{family}*", pretrained=True):
        config = timm.get_pretrained_cfg(tag)
        place = f"{config.hf_hub_id}/{config.hf_hub_filename}" if config.hf_hub_id else config.url
        lines.append(f"| `{tag}` | {place} |")
    return "\n".join(lines) if len(lines) > 2 else "No weights were published."


def put(page: Path, name: str, text: str) -> None:
    """Replace what stands between `<!-- name -->` and `<!-- end -->` in the page."""
    old = page.read_text()
    pattern = rf"(<!-- {name} -->\n).*?(<!-- end -->)"
    if not re.search(pattern, old, re.S):
        raise SystemExit(f"{page} has no place <!-- {name} --> ... <!-- end -->")
    new = re.sub(pattern, lambda match: f"{match[1]}\n{text}\n\n{match[2]}", old, flags=re.S)
    write_atomically(page, lambda path: path.write_text(new))


def write_models(names: list[str]) -> None:
    paper = paper_figures()
    rows = [count(name, paper.get(name, {})) for name in track(names, "counting models")]
    put(MODELS / "index.md", "models", table(rows))
    for family in FAMILIES:
        put(
            MODELS / f"{family}.md",
            "sizes",
            table([row for row in rows if family_of(row.name) == family]),
        )
        put(MODELS / f"{family}.md", "weights", weights_table(family))
    put(MODELS / "unireplknet.md", "ablations", tables.ablations())
    put(MODELS / "unireplknet.md", "reparam", tables.reparam_forms())
    parts = tables.uniconvnet_parts(name for name in names if family_of(name) == "uniconvnet")
    put(MODELS / "uniconvnet.md", "parts", parts)
    put(MODELS / "pelk.md", "shares", tables.pelk_shares())


def main() -> None:
    put(DOCS / "recipes.md", "recipes", recipes_table())
    put(DOCS / "options.md", "options", options_tables())
    draw_blocks()
    draw_curves(DOCS / "figures")
    write_models(seewide.list_models())


if __name__ == "__main__":
    main()
