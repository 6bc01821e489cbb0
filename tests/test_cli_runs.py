"""`seewide runs`: finished, stopped and damaged runs in one table and one picture."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy
import pytest
from PIL import Image
from rich.console import Console

from seewide import InputError
from seewide.recipes import get
from seewide.train import fit
from seewide.train.compare import draw_runs, find_runs, read_run


def write_run(folder: Path, epochs: int, top1: float, wanted: int = 4) -> Path:
    """A run of `epochs` finished epochs out of `wanted`, the last but one the best."""
    folder.mkdir(parents=True)
    config = {"model": "pelk_t", "data": "/data/flowers", "recipe_name": "small_folder"}
    config |= {"recipe": {"epochs": wanted, "task": "classification"}, "runtime": {"seed": 0}}
    (folder / "config.json").write_text(json.dumps(config))
    rows = [
        {"epoch": epoch, "train_loss": 2 / epoch, "val_loss": 1 / epoch, "lr": 1e-3,
         "val_top1": top1 - abs(epochs - 1 - epoch), "val_top5": 90.0, "seconds": 61.0,
         "samples_per_second": 120.0}
        for epoch in range(1, epochs + 1)
    ]  # fmt: skip
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


@pytest.fixture
def run_cli(command):
    return lambda *words: command("runs", *words)


@pytest.fixture
def runs(tmp_path):
    """Good, better, stopped, just begun, and three that are damaged."""
    folder = tmp_path / "runs"
    write_run(folder / "good", 4, 70.0)
    write_run(folder / "better", 4, 80.0)
    write_run(folder / "stopped", 2, 60.0)
    write_run(folder / "begun", 0, 0.0)
    with open(write_run(folder / "torn", 3, 50.0) / "metrics.jsonl", "a") as file:
        file.write('{"epoch": 4, "train_lo')
    (write_run(folder / "headless", 3, 40.0) / "config.json").write_text("{")
    strange = write_run(folder / "strange", 2, 30.0) / "metrics.jsonl"
    strange.write_text(strange.read_text() + '{"epoch": 3}\n')
    (folder / "notes").mkdir()
    return folder


def test_the_table_has_every_run_the_best_first(run_cli, runs, tmp_path):
    result = run_cli(runs, "--out", tmp_path / "all.png")
    assert result.exit_code == 0, result.output
    rows = [line.split() for line in result.output.splitlines() if "pelk_t" in line]
    assert [row[0] for row in rows] == ["better", "good", "stopped", "torn", "strange", "begun"]
    best = rows[0]
    assert best[1:] == [
        "pelk_t", "flowers", "small_folder", "4/4", "top-1", "80%", "3", "0.333", "120", "4:04",
    ]  # fmt: skip
    assert rows[2][4] == "2/4"
    assert (tmp_path / "all.png").read_bytes().startswith(b"\x89PNG")


def test_what_is_wrong_is_one_sentence_each(run_cli, runs, tmp_path):
    output = run_cli(runs, "--out", tmp_path / "all.png").output
    sentences = [line for line in output.splitlines() if ": " in line]
    assert "begun: its first epoch is not finished" in sentences
    assert "torn: line 4 of metrics.jsonl is damaged, 3 before it count" in sentences
    assert "strange: line 3 of metrics.jsonl is damaged, 2 before it count" in sentences
    assert sum(line.startswith("headless: config.json is damaged") for line in sentences) == 1
    assert len(sentences) == 5  # and where the curves are


def test_the_curves_are_of_all_runs_with_an_epoch(runs, tmp_path):
    figure = draw_runs(find_runs([runs]), tmp_path / "all.svg").read_text()
    for name in ("better", "good", "stopped", "torn", "headless", "strange"):
        assert figure.count(f"<!-- {name} -->") == 1  # in the legend
    assert "<!-- begun -->" not in figure


def test_runs_one_by_one_and_none_twice(runs):
    found = find_runs([runs / "good", runs / "better", runs])
    assert [run.name for run in found[:2]] == ["better", "good"]
    assert len(found) == 7
    assert [run.name for run in find_runs([runs / "good", runs / "better"])] == ["better", "good"]


def test_equal_names_get_their_folders(tmp_path):
    one, two = write_run(tmp_path / "a" / "run", 1, 5.0), write_run(tmp_path / "b" / "run", 1, 6.0)
    names = [run.name for run in find_runs([one, two])]
    assert names == [str(Path("b", "run")), str(Path("a", "run"))]


def test_the_best_epoch_is_the_one_that_training_keeps(runs):
    record = read_run(runs / "good")
    assert (record.best["epoch"], record.best["val_top1"], record.seconds) == (3, 70.0, 244.0)


@pytest.mark.parametrize(
    ("argument", "sentence"),
    [("nowhere", "there is no folder"), ("runs/notes", "is not a run and holds none")],
)
def test_folders_that_are_none(run_cli, runs, argument, sentence):
    result = run_cli(runs.parent / argument)
    assert result.exit_code == 2
    assert sentence in result.output
    assert "Traceback" not in result.output


def test_only_runs_without_an_epoch(run_cli, runs, tmp_path):
    result = run_cli(runs / "begun", "--out", tmp_path / "none.png")
    assert result.exit_code == 0
    assert not (tmp_path / "none.png").exists()
    with pytest.raises(InputError, match="no run has finished an epoch"):
        draw_runs(find_runs([runs / "begun"]), tmp_path / "none.png")


def test_a_sparse_run_shows_what_is_left_of_each_layer(run_cli, tmp_path):
    recipe = replace(get("small_folder").smoke(), sparsity=0.4)
    picture = numpy.zeros((8, 8, 3), dtype=numpy.uint8)
    for index in range(20):
        folder = tmp_path / "pictures" / ("black" if index % 2 else "white")
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture + 255 * (index % 2 == 0)).save(folder / f"{index}.png")
    out = tmp_path / "run"
    fit("test_convnext", tmp_path / "pictures", recipe, out, console=Console(quiet=True))
    result = run_cli(out, "--out", tmp_path / "one.png")
    assert result.exit_code == 0, result.output
    assert "40.0% of " in result.output
    assert "head.fc" in result.output
    saved = json.loads((out / "density.json").read_text())
    assert saved["nonzero"] == saved["weights"] - round(0.4 * saved["weights"])
