"""Is a wide network with weights left out better than a narrow whole one? PeLK on photographs.

    python -m benchmarks.sparse_width ../shared/data/classification/flowers128 --seeds 0 1 2

SLaK's claim, which PeLK takes over (section 4.4): 1.3 times the width with 40% of the weights at
zero has about the parameters of the whole network of width 1.0, and is more accurate. Here at a
quarter of PeLK-T's width, with its kernels of 51 to 13, from scratch with `seewide train`'s own
loop: the same photographs in the same order and as many updates for all. Beside the two stands the
wide network without zeros, and the wide one whose zeros never move. Runs are kept in
runs/sparse_width, and one that was stopped goes on.
"""

from __future__ import annotations

import statistics
from dataclasses import dataclass, replace
from pathlib import Path

from timm.models import register_model

from benchmarks.budget import RECIPE_NAME, make_parser, recipe_of, run_folder
from benchmarks.conditions import RESULTS, Settings, write_csv
from seewide.analysis.cost import count_cost
from seewide.analysis.pictures import Panel, draw_lines, points
from seewide.models.pelk import PeLK, pelk_t
from seewide.recipes import Recipe
from seewide.train import fit, load_run
from seewide.train.density import density_of

RUNS = Path("runs/sparse_width")
NARROW = {"dims": (24, 48, 96, 192)}


@register_model
def pelk_narrow_10(pretrained: bool = False, **kwargs) -> PeLK:
    """PeLK-T of a quarter of the width."""
    return pelk_t(pretrained, **{**NARROW, "width_factor": 1.0, **kwargs})


@register_model
def pelk_narrow_13(pretrained: bool = False, **kwargs) -> PeLK:
    """1.3 times as wide as `pelk_narrow_10`."""
    return pelk_t(pretrained, **{**NARROW, "width_factor": 1.3, **kwargs})


@dataclass(frozen=True)
class Variant:
    """A network and its sparsity."""

    label: str
    model: str
    settings: dict[str, float]


SPARSE = {"sparsity": 0.4, "prune_rate": 0.3, "prune_every": 20}
VARIANTS = (
    Variant("dense, width 1.0", "pelk_narrow_10", {}),
    Variant("40% sparse, width 1.3", "pelk_narrow_13", SPARSE),
    Variant("40% sparse, fixed, width 1.3", "pelk_narrow_13", {**SPARSE, "prune_rate": 0.0}),
    Variant("dense, width 1.3", "pelk_narrow_13", {}),
)


def train(variant: Variant, data: Path, recipe: Recipe, seed: int) -> list[dict[str, float]]:
    """One row per epoch; trains unless the run is finished."""
    recipe = replace(recipe, **variant.settings)
    folder = folder_of(variant, data, recipe, seed)
    return fit(variant.model, data, recipe, folder, seed=seed, recipe_name=RECIPE_NAME).history


def folder_of(variant: Variant, data: Path, recipe: Recipe, seed: int) -> Path:
    """One folder for each set of conditions, so that no run is taken for another."""
    name = variant.label.replace(",", "").replace(" ", "-").replace("%", "")
    return run_folder(RUNS, data, recipe) / f"{name}-seed{seed}"


def size(variant: Variant, folder: Path) -> tuple[int, int]:
    """Non-zero parameters of a run, and its multiply-adds for one image."""
    if variant.settings:
        report = density_of(folder)
        return report.parameters, report.macs
    model, task, info = load_run(folder)
    cost = count_cost(model, tuple(task.example(info.facts, info.preprocess, 1).shape))
    return cost.parameters, cost.macs


def main() -> None:
    parser = make_parser(__doc__, epochs=14)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    given = parser.parse_args()
    recipe = recipe_of(given, batch_size=given.batch_size)
    data = given.data.resolve()
    header = (
        "variant",
        "parameters",
        "M multiply-adds",
        "seed",
        "best top-1",
        "last top-1",
        "loss",
    )
    rows, curves = [], {}
    for variant in VARIANTS:
        for seed in given.seeds:
            history = train(variant, data, recipe, seed)
            parameters, macs = size(variant, folder_of(variant, data, recipe, seed))
            best = max(row["val_top1"] for row in history)
            last = history[-1]
            rows.append(
                (variant.label, parameters, f"{macs / 1e6:.1f}", seed, f"{best:.2f}",
                 f"{last['val_top1']:.2f}", f"{last['val_loss']:.3f}")
            )  # fmt: skip
            curves.setdefault(variant.label, []).append(history)
    print(write_csv(f"sparse-width-{data.name}", header, rows, Settings()))
    panels = [
        Panel(title, {label: mean(runs, key) for label, runs in curves.items()}, digits)
        for title, key, digits in (
            ("top-1 (%), validation", "val_top1", 1),
            ("loss, validation", "val_loss", 3),
        )
    ]
    draw_lines(panels, RESULTS / f"sparse-width-{data.name}.png")


def mean(runs: list[list[dict[str, float]]], key: str) -> list[tuple[float, float]]:
    """The mean over the seeds for each epoch."""
    lines = zip(*(points(history, key) for history in runs), strict=True)
    return [(line[0][0], statistics.mean(y for _, y in line)) for line in lines]


if __name__ == "__main__":
    main()
