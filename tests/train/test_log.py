"""What a run says of itself while it trains, and what remains of it on disk."""

from __future__ import annotations

import io
import json
import math
import os

import pytest
import torch
from rich.console import Console

from seewide import InputError
from seewide.tasks import Score
from seewide.train import log
from seewide.train.lines import json_line, read_json_lines
from seewide.train.log import (
    ProgressLogger,
    draw_run,
    duration,
    peak_memory,
    speed,
)

SCORE = Score("top1", "max", "%", "top-1")


class Clock:
    """Seconds that pass when told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def lines(folder):
    return [json.loads(line) for line in (folder / "steps.jsonl").read_text().splitlines()]


def train(logger: ProgressLogger, clock: Clock, steps: int, seconds: float = 2.0):
    reading = None
    for _ in range(steps):
        clock.now += seconds
        reading = logger.step(1, loss=1.5, lr=1e-3, grad_norm=0.25)
    return reading


def test_readings(tmp_path):
    clock = Clock()
    with ProgressLogger(tmp_path, 100, 64, every=10, clock=clock) as logger:
        reading = train(logger, clock, 10)
        assert reading.samples_per_second == pytest.approx(32)
        assert reading.seconds_left == pytest.approx(180)
        train(logger, clock, 30, seconds=1.0)
        reading = train(logger, clock, 1, seconds=1.0)
        assert reading.samples_per_second == pytest.approx(64)  # of the last updates alone
        assert reading.seconds_left == pytest.approx(51 / 41 * 59)  # by the mean speed
        assert [line["step"] for line in lines(tmp_path)] == [10, 20, 30, 40]
        clock.now += 1000  # validation
        logger.epoch({"epoch": 1, "val_top1": 50.0})
        assert train(logger, clock, 1).samples_per_second == pytest.approx(32)
    note = str(reading)
    assert note.startswith("loss 1.500  lr 1.0e-03  gradient 0.25  64 images/s  ")
    assert note.endswith(" GB")


def test_the_last_update_is_noted(tmp_path):
    clock = Clock()
    train(ProgressLogger(tmp_path, 7, 8, every=5, clock=clock), clock, 7)
    assert [line["step"] for line in lines(tmp_path)] == [5, 7]
    assert lines(tmp_path)[-1]["seconds_left"] == 0


def test_what_a_killed_run_noted_beyond_its_checkpoint_is_taken_back(tmp_path):
    clock = Clock()
    train(ProgressLogger(tmp_path, 20, 8, every=1, clock=clock), clock, 6)
    with open(tmp_path / "steps.jsonl", "a") as file:
        file.write('{"step": 7, "lo')  # killed in the middle of a line
    train(ProgressLogger(tmp_path, 20, 8, every=1, done=4, clock=clock), clock, 3)
    assert [line["step"] for line in lines(tmp_path)] == [1, 2, 3, 4, 5, 6, 7]


def test_a_log_file_gets_a_line_every_minute(tmp_path):
    clock, log = Clock(), io.StringIO()
    console = Console(file=log, width=100)
    train(ProgressLogger(tmp_path, 200, 8, console=console, clock=clock), clock, 100, seconds=1.5)
    said = log.getvalue().splitlines()
    assert [line.split()[1] for line in said] == ["40/200", "80/200"]
    assert said[0].endswith("GB  4:00 left")


def test_a_terminal_has_a_bar_instead(tmp_path):
    clock, log = Clock(), io.StringIO()
    console = Console(file=log, force_terminal=True)
    train(ProgressLogger(tmp_path, 200, 8, console=console, clock=clock), clock, 100)
    assert not log.getvalue()


def test_tensorboard(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    clock = Clock()
    with ProgressLogger(tmp_path, 20, 8, every=2, tensorboard=True, clock=clock) as logger:
        train(logger, clock, 4)
        logger.epoch({"epoch": 1, "val_top1": 50.0, "lr": 1e-3})
        train(logger, clock, 4)  # lost with the kill, and done again
    with ProgressLogger(tmp_path, 20, 8, every=2, tensorboard=True, done=4, clock=clock) as logger:
        train(logger, clock, 2)
        logger.epoch({"epoch": 2, "val_top1": 60.0, "lr": 1e-3})
    board = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    names = board.Tags()["scalars"]
    assert {"step/loss", "step/grad_norm", "step/memory", "epoch/val_top1"} <= set(names)
    assert [event.step for event in board.Scalars("step/loss")] == [2, 4, 6]
    assert [(e.step, e.value) for e in board.Scalars("epoch/val_top1")] == [(1, 50.0), (2, 60.0)]


def test_tensorboard_that_is_missing(tmp_path, monkeypatch):
    def missing(module, extra):
        raise InputError(f"{module} is not installed; `pip install seewide[{extra}]` brings it")

    monkeypatch.setattr(log, "require", missing)
    with pytest.raises(InputError, match=r"pip install seewide\[tensorboard\]"):
        ProgressLogger(tmp_path, 20, 8, tensorboard=True)


def test_a_disk_that_is_full(tmp_path):
    logger = ProgressLogger(tmp_path / "run", 20, 8, every=1)
    os.remove(tmp_path / "run" / "steps.jsonl")
    (tmp_path / "run" / "steps.jsonl").mkdir()  # no file can be written here
    with pytest.raises(InputError, match=r"could not write .*steps\.jsonl: Is a directory"):
        logger.step(1, 1.0, 1e-3, 1.0)


def test_lines_up_to_the_damage(tmp_path):
    path = tmp_path / "metrics.jsonl"
    assert read_json_lines(path) == ([], None)
    path.write_text('{"epoch": 1}\n{"epoch": 2}\n')
    assert read_json_lines(path) == ([{"epoch": 1}, {"epoch": 2}], None)
    for damage in ('{"epoch": 3', "3", "\x00\x00"):
        path.write_text('{"epoch": 1}\n' + damage + '\n{"epoch": 4}\n')
        assert read_json_lines(path) == ([{"epoch": 1}], 2)


def test_a_changed_character_of_a_line_is_noticed(tmp_path):
    path, rows = tmp_path / "metrics.jsonl", [{"epoch": n, "loss": n / 7} for n in (1, 2, 3)]
    path.write_text("".join(f"{json_line(row)}\n" for row in rows))
    assert read_json_lines(path) == (rows, None)
    content = path.read_text()
    path.write_text(content.replace(str(2 / 7), str(2 / 7).replace("2", "3", 1)))
    assert read_json_lines(path) == (rows[:1], 2)
    assert read_json_lines(path, keep_going=True) == ([rows[0], rows[2]], 2)
    path.write_text(content.replace('"crc"', '"crb"', 1))
    assert read_json_lines(path) == ([], 1)


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
    assert [speed(value) for value in (1234.4, 10, 2.54, 0.0)] == ["1234", "10", "2.5", "0.0"]


def test_curves_of_a_run_with_and_without_all_columns(tmp_path):
    row = {"epoch": 1, "train_loss": 1.0, "val_loss": 1.2, "val_top1": 50.0, "val_top5": 90.0}
    old = draw_run([row, {**row, "epoch": 2}], tmp_path / "old.svg", SCORE).read_text()
    new = draw_run(
        [{**row, "lr": 1e-3, "grad_norm": math.nan}], tmp_path / "new.svg", SCORE
    ).read_text()
    full = draw_run(
        [{**row, "lr": 1e-3, "grad_norm": 0.5}], tmp_path / "full.svg", SCORE
    ).read_text()
    panels = [figure.count('<g id="axes_') for figure in (old, new, full)]
    assert panels == [2, 4, 4]  # three panels leave the fourth of the square empty
    assert [figure.count("<!-- gradient norm -->") for figure in (old, new, full)] == [0, 0, 1]
