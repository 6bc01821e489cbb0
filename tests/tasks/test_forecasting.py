"""Forecasting: tables on disk, damaged ones, training, resuming, baselines, prediction."""

import csv
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
import torch
from task_runs import (
    TINY,
    assert_a_killed_run_resumes_to_the_same_bits,
    assert_two_processes_learn_what_one_does,
    train,
)

from seewide.data.series import load_array, open_series, read_series, time_marks
from seewide.errors import InputError
from seewide.recipes import get
from seewide.tasks import guess_task
from seewide.tasks.forecasting import (
    Forecasting,
    ForecastingOptions,
    ForecastMetric,
    ridge_baseline,
)
from seewide.train import Predictor, evaluate

START = datetime(2020, 1, 1)


def write_table(path: Path, values: np.ndarray, names=None, times=None) -> Path:
    names = names or [f"s{i}" for i in range(values.shape[1])]
    times = times or [START + timedelta(hours=i) for i in range(len(values))]
    with open(path, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["date", *names])
        for time, row in zip(times, values, strict=True):
            cells = ["" if v != v else f"{v:.5g}" for v in row]
            writer.writerow([time, *cells])
    return path


def waves(rows: int = 240, columns: int = 2) -> np.ndarray:
    t = np.arange(rows)[:, None]
    phase = np.arange(columns)
    noise = np.random.default_rng(0).normal(0, 0.1, (rows, columns))
    return 20 + 5 * np.sin(2 * np.pi * t / 12 + phase) + noise


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    return write_table(tmp_path_factory.mktemp("series") / "waves.csv", waves())


RECIPE = replace(
    get("small_series"),
    options={"steps": 16, "horizon": 8, "width": 16, "season": 12, "val_share": 0.2},
    epochs=2,
    steps=0,
    batch_size=32,
    device_batch=16,
    drop_path=0.1,
    lr=2e-3,
    **TINY,
)


def test_tables_are_recognized_and_split_in_time(table):
    assert guess_task(str(table)) == ("forecasting", "a table of 2 series")
    assert guess_task(str(table.parent)) == ("forecasting", "a table of 2 series")
    splits = Forecasting(ForecastingOptions(**RECIPE.options)).open(str(table))
    assert splits.held_out == "rows 192 to 240"
    assert len(splits.train) == 192 - 16 - 8 + 1
    assert len(splits.val) == 48 - 8 + 1
    # The first validated row follows the training rows; its input may overlap them.
    facts, rows = splits.facts, waves()
    first = splits.val[0]["y"][0] * facts["std"] + facts["mean"]
    assert np.allclose(first, rows[192], atol=1e-2)
    scaled = np.concatenate([splits.train[0]["x"], *(s["y"][:1] for s in splits.train)])
    assert np.abs(scaled.mean(0)).max() < 0.1
    assert np.abs(scaled.std(0) - 1).max() < 0.1


def test_ett_has_its_usual_borders(shared_data):
    found = open_series(shared_data / "time_series" / "ett" / "ETTh1.csv")
    assert found.borders == (8640, 11520, 14400)
    assert found.table.columns[-1] == "OT"


def test_gaps_are_interpolated_and_do_not_count(tmp_path):
    values = waves()
    values[50:53, 0] = np.nan
    table = read_series(write_table(tmp_path / "gaps.csv", values))
    assert table.missing_TM.sum() == 3
    line = np.interp([50, 51, 52], [49, 53], values[[49, 53], 0])
    assert np.allclose(table.values_TM[50:53, 0], line, atol=1e-3)
    metric = ForecastMetric(2, torch.ones(1))
    missing = torch.tensor([[[False], [True]]])
    batch = {"x": torch.zeros(1, 2, 1), "y": torch.ones(1, 2, 1), "missing": missing}
    metric.update(torch.tensor([[[3.0], [100.0]]]), batch)
    scores = metric.compute()
    assert (scores["mse"], scores["mae"], scores["last_mse"]) == (4, 2, 1)


def test_time_marks():
    marks = time_marks([datetime(2021, 1, 1, 0), datetime(2021, 12, 31, 23)])
    assert np.allclose(
        marks, [[-0.5, 4 / 6 - 0.5, -0.5, -0.5], [0.5, 4 / 6 - 0.5, 0.5, 0.498]], atol=2e-3
    )


def test_baselines_by_hand():
    metric = ForecastMetric(2, torch.tensor([10.0]))
    x, y = torch.tensor([[[1.0], [2.0], [4.0]]]), torch.tensor([[[2.0], [4.0], [3.0]]])
    batch = {"x": x, "y": y, "missing": torch.zeros(1, 3, 1, dtype=torch.bool)}
    metric.update(y + 1, batch)
    scores = metric.compute()
    assert scores["mse"] == 1
    assert scores["raw_mse"] == 100
    assert scores["last_mse"] == pytest.approx((4 + 0 + 1) / 3)
    assert scores["season_mse"] == pytest.approx((0 + 0 + 1) / 3)
    assert scores["skill"] == pytest.approx(1 - 1 / (1 / 3))
    assert metric.per_step("mse") == [1, 1, 1]


def test_ridge_solves_a_linear_series(table):
    splits = Forecasting(ForecastingOptions(**RECIPE.options)).open(str(table))
    scores = ridge_baseline(splits.train, splits.val)
    assert scores["mse"] < 0.02  # a sine is a linear function of its past
    separate = ridge_baseline(splits.train, splits.val, shared=False)
    assert separate["mse"] < 0.05


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda r: r.__setitem__(5, "2020-01-01 00:00:00,1,2"), "line 6: the time .* is before"),
        (lambda r: r.__setitem__(5, r[4]), "line 6: the time .* occurs twice"),
        (lambda r: r.pop(5), "line 6: .* is 2:00:00 after the row before, the others are 1:00:00"),
        (lambda r: r.__setitem__(5, r[5].split(",")[0] + ",x,2"), "line 6: 'x' in the column s0"),
        (lambda r: r.__setitem__(5, "today,1,2"), "line 6: 'today' is no time"),
        (lambda r: r.__setitem__(5, r[5] + ",7"), "line 6 has 4 cells, the header 3"),
        (lambda r: r.__delitem__(slice(1, None)), "two or more rows"),
    ],
)
def test_damaged_tables_are_one_sentence(tmp_path, change, sentence):
    path = write_table(tmp_path / "t.csv", waves(40))
    rows = path.read_text().splitlines()
    change(rows)
    path.write_text("\n".join(rows) + "\n")
    with pytest.raises(InputError, match=sentence):
        read_series(path)


def test_constant_columns_and_long_horizons(tmp_path):
    values = waves(40)
    values[:, 1] = 3
    path = write_table(tmp_path / "constant.csv", values)
    with pytest.raises(InputError, match="constant in the column s1: every value is 3"):
        read_series(path)
    path = write_table(tmp_path / "short.csv", waves(30))
    with pytest.raises(InputError, match="rows are too few for a window of 16 input and 8 pred"):
        Forecasting(ForecastingOptions(**RECIPE.options)).open(str(path)).val[0]
    with pytest.raises(InputError, match="is no CSV file of times and numbers"):
        open_series(tmp_path)


def test_pickled_arrays_are_refused(tmp_path):
    np.save(tmp_path / "objects.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(InputError, match="pickled objects, which could run code"):
        load_array(tmp_path / "objects.npy")
    np.save(tmp_path / "numbers.npy", np.ones(3))
    assert load_array(tmp_path / "numbers.npy").sum() == 3
    (tmp_path / "cut.npy").write_bytes((tmp_path / "numbers.npy").read_bytes()[:-4])
    with pytest.raises(InputError, match=r"cut.npy is damaged"):
        load_array(tmp_path / "cut.npy")


@pytest.mark.parametrize("decoder", ["linear", "corrformer"])
def test_forecasts_beat_repetition_and_are_predicted(table, tmp_path, decoder):
    options = {**RECIPE.options, "decoder": decoder, "dropout": 0.0}
    epochs = 4 if decoder == "linear" else 2
    result = train(table, tmp_path / "run", replace(RECIPE, options=options, epochs=epochs))
    assert result.scores["mse"] < result.scores["last_mse"]
    judged = evaluate(str(tmp_path / "run"), str(table))
    assert judged.models[0].scores["mse"] == pytest.approx(result.scores["mse"], rel=1e-4)
    assert judged.deviation < 1e-3
    predictor = Predictor(tmp_path / "run", device="cpu")
    (prediction,) = predictor(table)
    assert prediction.error is None
    forecast = prediction.description["forecast"]
    assert list(forecast) == ["s0", "s1"]
    assert len(forecast["s0"]) == 8
    assert 10 < np.mean(forecast["s0"]) < 30  # in the units of the file
    predictor.task.draw(prediction.sample, prediction.description).savefig(tmp_path / "f.png")
    (short,) = predictor(write_table(tmp_path / "short.csv", waves(10)))
    assert "has 10 rows, the model needs 16" in short.error
    other = write_table(tmp_path / "other.csv", waves(40), names=["a", "b"])
    (wrong,) = predictor(other)
    assert "columns a, b, the model was trained for s0, s1" in wrong.error


def test_a_killed_run_resumes_to_the_same_bits(table, tmp_path):
    assert_a_killed_run_resumes_to_the_same_bits(table, tmp_path, RECIPE, 13)


@pytest.mark.slow
def test_two_processes_learn_what_one_does(table, tmp_path):
    options = {**RECIPE.options, "dropout": 0.0}
    recipe = replace(RECIPE, options=options, drop_path=0.0)
    assert_two_processes_learn_what_one_does(table, tmp_path, recipe)
