"""What a run says of itself while it trains, and what remains of it on disk."""

from __future__ import annotations

import io
import json
import math
import os

import pytest
import torch
from rich.console import Console
from seewide.train.watching import Watch, draw_run, duration, pace, peak_memory, read_lines

from seewide import InputError
from seewide.train import watching


class Clock:
    """Seconds that pass when told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def lines(folder):
    return [json.loads(line) for line in (folder / "updates.jsonl").read_text().splitlines()]


def train(watch: Watch, clock: Clock, updates: int, seconds: float = 2.0):
    reading = None
    for _ in range(updates):
        clock.now += seconds
        reading = watch.update(1, loss=1.5, lr=1e-3, grad_norm=0.25)
    return reading


def test_readings(tmp_path):
    clock = Clock()
    with Watch(tmp_path, 100, 64, every=10, clock=clock) as watch:
        reading = train(watch, clock, 10)
        assert reading.images_per_second == pytest.approx(32)
        assert reading.seconds_left == pytest.approx(180)
        train(watch, clock, 30, seconds=1.0)
        reading = train(watch, clock, 1, seconds=1.0)
        assert reading.images_per_second == pytest.approx(64)  # of the last updates alone
        assert reading.seconds_left == pytest.approx(51 / 41 * 59)  # by the mean pace
        assert [line["update"] for line in lines(tmp_path)] == [10, 20, 30, 40]
        clock.now += 1000  # validation
        watch.epoch({"epoch": 1, "val_top1": 50.0})
        assert train(watch, clock, 1).images_per_second == pytest.approx(32)
    note = str(reading)
    assert note.startswith("loss 1.500  lr 1.0e-03  gradient 0.25  64 images/s  ")
    assert note.endswith(" GB")


def test_the_last_update_is_noted(tmp_path):
    clock = Clock()
    train(Watch(tmp_path, 7, 8, every=5, clock=clock), clock, 7)
    assert [line["update"] for line in lines(tmp_path)] == [5, 7]
    assert lines(tmp_path)[-1]["seconds_left"] == 0


def test_what_a_killed_run_noted_beyond_its_checkpoint_is_taken_back(tmp_path):
    clock = Clock()
    train(Watch(tmp_path, 20, 8, every=1, clock=clock), clock, 6)
    with open(tmp_path / "updates.jsonl", "a") as file:
        file.write('{"update": 7, "lo')  # killed in the middle of a line
    train(Watch(tmp_path, 20, 8, every=1, done=4, clock=clock), clock, 3)
    assert [line["update"] for line in lines(tmp_path)] == [1, 2, 3, 4, 5, 6, 7]


def test_a_log_file_gets_a_line_every_minute(tmp_path):
    clock, log = Clock(), io.StringIO()
    console = Console(file=log, width=100)
    train(Watch(tmp_path, 200, 8, console=console, clock=clock), clock, 100, seconds=1.5)
    said = log.getvalue().splitlines()
    assert [line.split()[1] for line in said] == ["40/200", "80/200"]
    assert said[0].endswith("GB  4:00 left")


def test_a_terminal_has_a_bar_instead(tmp_path):
    clock, log = Clock(), io.StringIO()
    console = Console(file=log, force_terminal=True)
    train(Watch(tmp_path, 200, 8, console=console, clock=clock), clock, 100)
    assert not log.getvalue()


def test_tensorboard(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    clock = Clock()
    with Watch(tmp_path, 20, 8, every=2, tensorboard=True, clock=clock) as watch:
        train(watch, clock, 4)
        watch.epoch({"epoch": 1, "val_top1": 50.0, "lr": 1e-3})
        train(watch, clock, 4)  # lost with the kill, and done again
    with Watch(tmp_path, 20, 8, every=2, tensorboard=True, done=4, clock=clock) as watch:
        train(watch, clock, 2)
        watch.epoch({"epoch": 2, "val_top1": 60.0, "lr": 1e-3})
    board = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    names = board.Tags()["scalars"]
    assert {"update/loss", "update/grad_norm", "update/memory", "epoch/val_top1"} <= set(names)
    assert [event.step for event in board.Scalars("update/loss")] == [2, 4, 6]
    assert [(e.step, e.value) for e in board.Scalars("epoch/val_top1")] == [(1, 50.0), (2, 60.0)]


def test_tensorboard_that_is_missing(tmp_path, monkeypatch):
    def missing(module, extra):
        raise InputError(f"{module} is not installed; `pip install seewide[{extra}]` brings it")

    monkeypatch.setattr(watching, "require", missing)
    with pytest.raises(InputError, match=r"pip install seewide\[tensorboard\]"):
        Watch(tmp_path, 20, 8, tensorboard=True)


def test_a_disk_that_is_full(tmp_path):
    watch = Watch(tmp_path / "run", 20, 8, every=1)
    os.remove(tmp_path / "run" / "updates.jsonl")
    (tmp_path / "run" / "updates.jsonl").mkdir()  # no file can be written here
    with pytest.raises(InputError, match=r"could not write .*updates\.jsonl: Is a directory"):
        watch.update(1, 1.0, 1e-3, 1.0)


def test_lines_up_to_the_damage(tmp_path):
    path = tmp_path / "metrics.jsonl"
    assert read_lines(path) == ([], None)
    path.write_text('{"epoch": 1}\n{"epoch": 2}\n')
    assert read_lines(path) == ([{"epoch": 1}, {"epoch": 2}], None)
    for damage in ('{"epoch": 3', "3", "\x00\x00"):
        path.write_text('{"epoch": 1}\n' + damage + '\n{"epoch": 4}\n')
        assert read_lines(path) == ([{"epoch": 1}], 2)


def test_memory_is_counted_in_bytes():
    before = peak_memory(torch.device("cpu"))
    ballast = torch.ones(40, 2**18)
    assert peak_memory(torch.device("cpu")) >= before > 2**25
    assert ballast.all()


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(7.2, "0:07"), (750, "12:30"), (11109, "3:05:09"), (90000, "1 day 1:00:00"),
     (190000, "2 days 4:46:40"), (math.inf, "?")],
)  # fmt: skip
def test_durations(seconds, words):
    assert duration(seconds) == words


def test_paces():
    assert [pace(speed) for speed in (1234.4, 10, 2.54, 0.0)] == ["1234", "10", "2.5", "0.0"]


def test_curves_of_a_run_with_and_without_all_columns(tmp_path):
    row = {"epoch": 1, "train_loss": 1.0, "val_loss": 1.2, "val_top1": 50.0, "val_top5": 90.0}
    old = draw_run([row, {**row, "epoch": 2}], tmp_path / "old.svg").read_text()
    new = draw_run([{**row, "lr": 1e-3, "grad_norm": math.nan}], tmp_path / "new.svg").read_text()
    full = draw_run([{**row, "lr": 1e-3, "grad_norm": 0.5}], tmp_path / "full.svg").read_text()
    panels = [figure.count('<g id="axes_') for figure in (old, new, full)]
    assert panels == [2, 4, 4]  # three panels leave the fourth of the square empty
    assert [figure.count("<!-- gradient norm -->") for figure in (old, new, full)] == [0, 0, 1]
