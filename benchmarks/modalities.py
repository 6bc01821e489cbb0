"""Networks on small real data of every modality, beside simple baselines: scores and CPU seconds.

    python -m benchmarks.modalities fsdd etth1_96 --data DIR --seeds 3

DIR holds the data sets as `audio/fsdd`, `video/fight`, `point_clouds/modelnet10_pc`,
`time_series/ett/ETTh1.csv`, `time_series/beijing12/TEMP.csv` and
`referring_segmentation/coco_refs`; `shapes` is generated. Each line is appended to the CSV file
when it is finished, and lines that are there are not measured again, so a stopped run continues.
The networks' scores are those of the last epoch; nothing is selected on the data that is reported.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from benchmarks import modality_baselines as baselines
from seewide.recipes import changed, get
from seewide.reparam import fuse
from seewide.train import evaluate, fit, load_run
from seewide.train.build import count_parameters

VERSION = torch.__version__.partition("+")[0]
RESULTS = Path(__file__).parent / "results" / f"modalities-cpu-torch{VERSION}-float32.csv"
COLUMNS = ("case", "method", "seed", "scores", "steps", "cpu seconds", "parameters")
QUIET = Console(quiet=True)


@dataclass(frozen=True)
class Network:
    """A timm network and the options that differ from its own."""

    model: str
    model_options: Mapping[str, Any] = field(default_factory=dict)


NETWORKS = {
    "unireplknet_a, kernels 13": Network("unireplknet_a"),
    "unireplknet_a, kernels 3": Network("unireplknet_a", {"kernel_sizes": (3, 3, 3, 3)}),
    "convnext_atto": Network("convnext_atto"),
}


@dataclass(frozen=True)
class Case:
    """A data set, how networks are trained on it, and what is stated.

    Attributes:
        data: below the folder of all data.
        recipe: its name.
        settings: fields of the recipe that differ.
        options: options of the task that differ.
        scores: keys of the metric.
        baselines: name -> function of (data, options) that returns scores by key.
        test: settings of an evaluation after training; empty: the validation of the last epoch.
    """

    data: str
    recipe: str
    scores: tuple[str, ...]
    settings: Mapping[str, Any] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    baselines: Mapping[str, Callable[..., dict[str, float]]] = field(default_factory=dict)
    test: Mapping[str, Any] = field(default_factory=dict)


ETT_BASELINES = {
    "repeat last": baselines.repeat_last,
    "repeat season": baselines.repeat_season,
    "shared ridge": baselines.shared_ridge,
}
CASES = {
    "fsdd": Case(
        "audio/fsdd", "small_audio", ("top1",),
        {"epochs": 24, "drop_path": 0.05},
        baselines={
            "5 nearest neighbours": baselines.audio_neighbours,
            "ridge": baselines.audio_ridge,
            "MLP 256": baselines.audio_mlp,
        },
    ),
    "modelnet10": Case(
        "point_clouds/modelnet10_pc", "small_points", ("top1", "macc"),
        {"epochs": 12},
        baselines={"ridge on 8 x 8 x 8 occupancy": baselines.occupancy_ridge},
    ),
    "etth1_96": Case(
        "time_series/ett/ETTh1.csv", "small_series", ("mse", "mae"),
        {"epochs": 2}, {"val_stride": 7, "stride": 2}, ETT_BASELINES, {"part": "test"},
    ),
    "etth1_96, no skip": Case(
        "time_series/ett/ETTh1.csv", "small_series", ("mse", "mae"),
        {"epochs": 2}, {"val_stride": 7, "stride": 2, "skip": False}, {}, {"part": "test"},
    ),
    "etth1_336": Case(
        "time_series/ett/ETTh1.csv", "small_series", ("mse", "mae"),
        {"epochs": 2}, {"val_stride": 7, "stride": 2, "horizon": 336}, ETT_BASELINES,
        {"part": "test"},
    ),
    "fight, differences": Case(
        "video/fight", "small_video", ("top1",), {"epochs": 30}, {"difference": True},
        {"ridge on frame differences": baselines.motion_ridge},
    ),
    "fight, raw frames": Case(
        "video/fight", "small_video", ("top1",), {"epochs": 30}, {"difference": False},
    ),
    "beijing_temp": Case(
        "time_series/beijing12/TEMP.csv", "small_series", ("mse", "mae"),
        {"epochs": 1}, {"steps": 48, "horizon": 24, "width": 48, "val_stride": 7, "stride": 6},
        ETT_BASELINES,
    ),
}  # fmt: skip


def measure_network(
    case: Case, network: Network, data: Path, seed: int
) -> tuple[dict[str, float], int, float, int]:
    """Scores, optimizer steps, CPU seconds of this process, and parameters."""
    recipe = changed(
        get(case.recipe), model_options=dict(network.model_options),
        options={**get(case.recipe).options, **case.options}, **case.settings,
    )  # fmt: skip
    recipe = replace(recipe, val_every=recipe.epochs)
    started = time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        result = fit(
            network.model, data / case.data, recipe, out, seed=seed, console=QUIET, workers=0
        )
        seconds = time.process_time() - started
        rows = (out / "steps.jsonl").read_text().splitlines()
        scores = result.scores
        if case.test:
            judged = evaluate(str(out), settings=case.test, console=QUIET, batch_size=16)
            scores = judged.models[0].scores
        size = count_parameters(fuse(load_run(out)[0]).parameters())
    last = json.loads(rows[-1])
    return scores, last.get("total", last["step"]), seconds, size


def done(path: Path) -> set[tuple[str, str, str]]:
    """The case, method and seed of every line that is there."""
    if not path.is_file():
        return set()
    with open(path, newline="") as file:
        return {(row["case"], row["method"], row["seed"]) for row in csv.DictReader(file)}


def append(path: Path, row: tuple[Any, ...]) -> None:
    """Add a line, and the header to a new file."""
    new = not path.is_file()
    with open(path, "a", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        if new:
            writer.writerow(COLUMNS)
        writer.writerow(row)


def shown(scores: Mapping[str, float], keys: tuple[str, ...]) -> str:
    """`mse 0.3812, mae 0.3931`"""
    return ", ".join(f"{key} {scores[key]:.4g}" for key in keys)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("cases", nargs="*", help=f"of {', '.join(CASES)}; default: all")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--networks", nargs="*", default=list(NETWORKS))
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    names = arguments.cases or list(CASES)
    for name in names:
        case = CASES[name]
        options = {**get(case.recipe).options, **case.options}
        for method, function in case.baselines.items():
            if (name, method, "") in done(arguments.out):
                continue
            started = time.process_time()
            scores = function(str(arguments.data / case.data), options)
            seconds = round(time.process_time() - started)
            append(arguments.out, (name, method, "", shown(scores, case.scores), "", seconds, ""))
    # All cases once before the next network, and all networks before the next seed.
    for seed in range(arguments.seeds):
        for method in arguments.networks:
            for name in names:
                if (name, method, str(seed)) in done(arguments.out):
                    continue
                case = CASES[name]
                found = measure_network(case, NETWORKS[method], arguments.data, seed)
                scores, steps, seconds, size = found
                line = (name, method, seed, shown(scores, case.scores), steps, round(seconds), size)
                append(arguments.out, line)
                print(*line, flush=True)


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
