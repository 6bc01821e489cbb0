"""Forecasting: the next steps of many series, from their past.

Shapes: N windows, L input steps, P predicted steps, M series.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from seewide.data.samples import Samples
from seewide.data.series import (
    SeriesData,
    WindowSamples,
    describe_series,
    open_series,
    read_series,
    time_marks,
)
from seewide.errors import InputError
from seewide.modalities import Forecaster
from seewide.options import check, option
from seewide.tasks._task import Batch, DataSplits, Facts, ResultTable, Sample, Score, Task

if TYPE_CHECKING:
    from matplotlib.figure import Figure

RIDGE = 1.0  # of the linear baseline, on z-scores


@dataclass(frozen=True)
class ForecastingOptions:
    """Windows, map and decoder."""

    steps: int = option(96, "Input steps.", least=2)
    horizon: int = option(96, "Predicted steps.", least=1)
    width: int = option(24, "Width of the embedding; steps x width must be a square.", least=1)
    nodes: int = option(
        0,
        "Groups of neighbouring columns (0: one column each); all share the network.",
        least=0,
    )
    decoder: str = option("linear", "Decoder.", choices=("linear", "corrformer"))
    reading: str = option(
        "tokens",
        "How the Corrformer decoder reads the network's output.",
        choices=("tokens", "reshaped_map", "reshaped_pooled"),
    )
    skip: bool = option(True, "Add a linear function of the input to the linear decoder.")
    heads: int = option(4, "Heads of the Corrformer decoder.", least=1)
    hidden: int = option(128, "Hidden width of the Corrformer decoder.", least=1)
    window: int = option(25, "Steps of its moving average.", least=1)
    dropout: float = option(0.05, "Dropout of embeddings and decoder.", least=0, below=1)
    season: int = option(24, "Steps of a season, for the repeat-season baseline.", least=1)
    stride: int = option(1, "Rows between training windows.", least=1)
    val_stride: int = option(1, "Rows between validation windows.", least=1)
    val_share: float = option(0.1, "Share of the rows for validation.", above=0, below=1)
    test_share: float = option(0.0, "Share of the rows, at the end, for testing.", least=0, below=1)
    part: str = option(
        "val", "Rows that `seewide eval` judges by.", choices=("val", "test"), may_change=True
    )

    def __post_init__(self) -> None:
        check(self)


class Forecasting(Task[ForecastingOptions]):
    """Mean squared error on series that are z-scored on the training rows; gaps do not count."""

    name = "forecasting"
    Options = ForecastingOptions
    score = Score("mse", "min", "", "MSE")
    unit = "windows"
    default_recipe = "small_series"

    def __init__(self, options: ForecastingOptions | None = None) -> None:
        super().__init__(options)
        self._facts: Facts | None = None  # of the model, for the scale of files to predict from

    @classmethod
    def recognize(cls, data: str) -> str | None:
        return describe_series(data)

    def open(self, data: str) -> DataSplits:
        options = self.options
        found = open_series(data, options.val_share, options.test_share)
        values, marks, facts = self._scaled(found, None)
        train_end, val_end, _ = found.borders
        common = (values, found.table.missing_TM, marks)
        length = (options.steps, options.horizon)
        train = WindowSamples(*common, 0, train_end, *length, options.stride)
        val = WindowSamples(*common, train_end, val_end, *length, options.val_stride)
        words = f"rows {train_end} to {val_end}"
        return DataSplits(
            found.name, train, val, words, facts, Path(found.name).stem, in_memory=True
        )

    def held_out(self, data: str, facts: Facts, *, trained_on: str) -> tuple[Samples, str]:
        options = self.options
        found = open_series(data, options.val_share, options.test_share)
        if list(found.table.columns) != facts["columns"]:
            raise InputError(
                f"{data} has the columns {', '.join(found.table.columns)}, the model was trained "
                f"for {', '.join(facts['columns'])}"
            )
        values, marks, _ = self._scaled(found, facts)
        train_end, val_end, test_end = found.borders
        first, last = (train_end, val_end) if options.part == "val" else (val_end, test_end)
        samples = WindowSamples(
            values, found.table.missing_TM, marks, first, last, options.steps, options.horizon,
            options.val_stride,
        )  # fmt: skip
        return samples, f"rows {first} to {last}"

    def _scaled(
        self, found: SeriesData, facts: Facts | None
    ) -> tuple[np.ndarray, np.ndarray, Facts]:
        table = found.table
        if facts is None:
            known = table.values_TM[: found.borders[0]].astype(np.float64)
            spread = known.std(0)
            if not spread.all():
                name = table.columns[int((spread == 0).argmax())]
                raise InputError(f"the column {name} is constant in the training rows")
            facts = {
                "columns": list(table.columns),
                "mean": [round(float(value), 6) for value in known.mean(0)],
                "std": [round(float(value), 6) for value in spread],
                "minutes": int(table.step.total_seconds() // 60),
            }
        mean, std = (np.array(facts[key], np.float32) for key in ("mean", "std"))
        return (table.values_TM - mean) / std, time_marks(table.times), facts

    def overview(self, splits: DataSplits) -> list[ResultTable]:
        """Range and gaps of every column, and the rows of each part."""
        options = self.options
        found = open_series(splits.name, options.val_share, options.test_share)
        table, (train_end, val_end, test_end) = found.table, found.borders
        columns = [
            (name, *(f"{value:.4g}" for value in (v.min(), v.mean(), v.max())), f"{100 * gap:.2f}")
            for name, v, gap in zip(
                table.columns, table.values_TM.T, table.missing_TM.mean(0), strict=True
            )
        ]
        ends = (0, train_end, val_end, test_end)
        rows = [
            (part, last - first, str(table.times[first]), str(table.times[last - 1]))
            for part, first, last in zip(("train", "val", "test"), ends, ends[1:], strict=False)
            if last > first
        ]
        step = f"Rows, {table.step} apart"
        return [
            ResultTable("Columns", ("column", "smallest", "mean", "largest", "gaps %"), columns),
            ResultTable(step, ("part", "rows", "from", "to"), rows),
        ]

    def backbone_options(self, facts: Facts) -> dict[str, Any]:
        return {"in_chans": 1, "num_classes": 0}

    def build(self, backbone: nn.Module, facts: Facts) -> nn.Module:
        self._facts = facts
        options, series = self.options, len(facts["columns"])
        nodes = options.nodes or series
        if series % nodes:
            raise InputError(f"{series} columns do not divide into {nodes} nodes")
        return Forecaster(
            backbone,
            options.steps,
            options.horizon,
            series // nodes,
            nodes,
            options.width,
            options.decoder,
            options.reading,
            options.heads,
            options.hidden,
            options.window,
            dropout=options.dropout,
            skip=options.skip,
        )

    def example(self, facts: Facts, preprocess: dict[str, Any], count: int = 2) -> Tensor:
        generator = torch.Generator().manual_seed(0)
        return torch.randn(count, self.options.steps, len(facts["columns"]), generator=generator)

    def transform(self, train: bool, preprocess: dict[str, Any]) -> Callable[[Sample], Sample]:
        return _ToTensors(self._facts, self.options.horizon)

    def loss(self, model: nn.Module, batch: Batch) -> dict[str, Any]:
        forecast = model(batch["x"], batch["marks"])
        real = ~batch["missing"]
        error = torch.where(real, forecast - batch["y"], 0.0).square().sum((1, 2))
        return {"loss": (error / real.sum((1, 2)).clamp_min(1)).sum(), "weight": len(error)}

    def predict(self, model: nn.Module, batch: Batch) -> Tensor:
        """Scaled forecasts (N, P, M)."""
        return model(batch["x"], batch["marks"])

    def metric(self, facts: Facts) -> ForecastMetric:
        return ForecastMetric(self.options.season, torch.tensor(facts["std"]))

    def tables(self, metric: ForecastMetric, facts: Facts) -> list[ResultTable]:
        """Errors beside the baselines, and per step of the horizon."""
        scores = metric.compute()
        rows = [("network", round(scores["mse"], 4), round(scores["mae"], 4), "")]
        for name, key in (("repeat last", "last"), ("repeat season", "season")):
            skill = 100 * (1 - scores["mse"] / max(scores[f"{key}_mse"], 1e-12))
            rows.append(
                (name, round(scores[f"{key}_mse"], 4), round(scores[f"{key}_mae"], 4),
                 round(skill, 1))
            )  # fmt: skip
        horizon = [
            (step + 1, round(mse, 4), round(mae, 4))
            for step, (mse, mae) in enumerate(
                zip(metric.per_step("mse"), metric.per_step("mae"), strict=True)
            )
        ]
        return [
            ResultTable("Beside baselines", ("forecast", "MSE", "MAE", "skill %"), rows),
            ResultTable("Per step", ("step", "MSE", "MAE"), horizon),
        ]

    def read(self, path: Path) -> Iterable[Sample]:
        """The last L rows of a CSV file, raw; the forecast goes on from there."""
        table = read_series(path)
        L, P = self.options.steps, self.options.horizon
        if len(table.values_TM) < L:
            raise InputError(f"{path} has {len(table.values_TM)} rows, the model needs {L}")
        times = table.times[-L:]
        times += tuple(times[-1] + table.step * (i + 1) for i in range(P))
        past = table.values_TM[-L:]
        yield {"raw": past, "columns": table.columns, "marks": time_marks(times), "times": times}

    def describe(self, prediction: Tensor, index: int, facts: Facts) -> dict[str, Any]:
        """`{"forecast": {column: [P numbers]}, "minutes": of a step}`, in the units of the data."""
        mean, std = (torch.tensor(facts[key]) for key in ("mean", "std"))
        values = prediction[index].float().cpu() * std + mean
        columns = {
            name: [round(float(v), 4) for v in values[:, i]]
            for i, name in enumerate(facts["columns"])
        }
        return {"forecast": columns, "minutes": facts["minutes"]}

    def draw(self, sample: Sample, description: dict[str, Any]) -> Figure:
        """Past and forecast of up to four series, with the last season repeated."""
        from matplotlib.figure import Figure

        names = list(description["forecast"])[:4]
        figure = Figure(figsize=(9, 1.8 * len(names) + 0.6), layout="constrained")
        axes = np.atleast_1d(figure.subplots(len(names), 1, sharex=True))
        step = timedelta(minutes=description["minutes"]).total_seconds() / 3600
        for index, (name, axis) in enumerate(zip(names, axes, strict=True)):
            past, future = sample["raw"][:, index], description["forecast"][name]
            axis.plot(np.arange(-len(past), 0) * step, past, label="past")
            ahead = np.arange(len(future))
            axis.plot(ahead * step, future, label="forecast")
            season = past[-self.options.season :]
            axis.plot(ahead * step, season[ahead % len(season)], ":", label="last season repeated")
            axis.set(ylabel=name)
        axes[0].legend(ncols=3, fontsize="small")
        axes[-1].set(xlabel="hours")
        return figure


class _ToTensors:
    """Arrays to tensors; rows of a file are scaled, and have no truth."""

    def __init__(self, facts: Facts | None, horizon: int) -> None:
        self.facts, self.horizon = facts, horizon

    def __call__(self, sample: Sample) -> Sample:
        if "raw" in sample:
            assert self.facts is not None  # the model of a run was built first
            if list(sample["columns"]) != self.facts["columns"]:
                raise InputError(
                    f"the file has the columns {', '.join(sample['columns'])}, the model was "
                    f"trained for {', '.join(self.facts['columns'])}"
                )
            mean, std = (np.array(self.facts[key], np.float32) for key in ("mean", "std"))
            x = (sample["raw"] - mean) / std
            y = np.zeros((self.horizon, x.shape[1]), np.float32)
            missing = np.ones(y.shape, bool)
            sample = {"x": x, "y": y, "missing": missing, "marks": sample["marks"]}
        return {key: torch.from_numpy(np.array(value)) for key, value in sample.items()}


class ForecastMetric:
    """Errors per step, of the network and of two baselines; gaps in the data do not count.

    Args:
        season: steps of the repeat-season baseline.
        std_M: of each series, for errors in the units of the data.
    """

    KINDS = ("", "last_", "season_")

    def __init__(self, season: int, std_M: Tensor) -> None:
        self.season, self.std = season, std_M.double()
        self.sums: dict[str, Tensor] = {}

    def update(self, prediction: Tensor, batch: Batch) -> None:
        x, y = batch["x"].double().cpu(), batch["y"].double().cpu()
        real = ~batch["missing"].cpu()
        P = y.shape[1]
        season = x[:, -self.season :]
        repeated = season[:, torch.arange(P) % season.shape[1]]
        forecasts = (prediction.double().cpu(), x[:, -1:].expand_as(y), repeated)
        self._add("count", real.sum(0).double())
        for kind, forecast in zip(self.KINDS, forecasts, strict=True):
            error = torch.where(real, forecast - y, 0.0)
            self._add(f"{kind}mse", error.square().sum(0))
            self._add(f"{kind}mae", error.abs().sum(0))

    def _add(self, key: str, value_PM: Tensor) -> None:
        self.sums[key] = self.sums[key] + value_PM if key in self.sums else value_PM

    def merge(self, others: Sequence[ForecastMetric]) -> None:
        for other in others:
            for key, value in other.sums.items():
                self._add(key, value)

    def per_step(self, key: str) -> list[float]:
        """An error at each of the P steps, averaged over series."""
        return (self.sums[key].sum(1) / self.sums["count"].sum(1).clamp_min(1)).tolist()

    def compute(self) -> dict[str, float]:
        """`mse`, `mae` of z-scores, `raw_mse`, `raw_mae` in the units of the data, the baselines'
        `last_mse`, `season_mse` and so on, and `skill`: 1 - mse / season_mse."""
        count = self.sums["count"].sum().clamp_min(1)
        scores = {key: (self.sums[key].sum() / count).item() for key in self.sums if key != "count"}
        scores["raw_mse"] = ((self.sums["mse"] * self.std**2).sum() / count).item()
        scores["raw_mae"] = ((self.sums["mae"] * self.std).sum() / count).item()
        scores["skill"] = 1 - scores["mse"] / max(scores["season_mse"], 1e-12)
        return {"loss": scores["mse"], **scores}


def ridge_baseline(
    train: Samples, val: Samples, strength: float = RIDGE, shared: bool = True
) -> dict[str, float]:
    """MSE and MAE of a linear map from the L inputs, minus the last one, to the P outputs.

    Args:
        train, val: windows.
        strength: of the L2 penalty.
        shared: one map for all series; otherwise one per series.
    """

    def tensors(samples: Samples) -> tuple[Tensor, Tensor]:
        x, y = (
            torch.from_numpy(np.stack([np.asarray(sample[key], np.float64) for sample in samples]))
            for key in ("x", "y")
        )
        last = x[:, -1:]
        return (x - last).permute(2, 0, 1), (y - last).permute(2, 0, 1)  # (M, N, L), (M, N, P)

    (a, b), (c, d) = tensors(train), tensors(val)
    if shared:
        a, b = a.flatten(0, 1)[None], b.flatten(0, 1)[None]
    gram = a.mT @ a + strength * torch.eye(a.shape[2], dtype=a.dtype)
    error = c @ torch.linalg.solve(gram, a.mT @ b) - d
    return {"mse": error.square().mean().item(), "mae": error.abs().mean().item()}
