"""Processes of one run: they learn what one learns, end together, and go on in other numbers."""

from __future__ import annotations

import signal
import time
from dataclasses import asdict

import pytest
import torch
from launch import finish, fits, start
from tiny import SMALL, change, paint

from seewide.errors import InputError
from seewide.recipes import Recipe
from seewide.train import fit, resume
from seewide.train.checkpoint import load_state
from seewide.train.processes import BatchShape

# Everything that draws chance. Two images at once: four passes of one process, two of two.
ALL = change(SMALL, device_batch=2, epochs=2)
# In float64 sums in another order differ by 1e-15 of their terms. AdamW divides by the root of the
# second moment, which makes much of that where gradients are near zero: 1e-9 leaves room.
CLOSE = {"rtol": 1e-7, "atol": 1e-9}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The same run on two processes: to the end, stopped in epoch 2, and sharded."""
    folder = tmp_path_factory.mktemp("processes")
    paint(folder / "images")
    run = {"model": "test_convnext", "recipe": asdict(ALL)}
    fits(
        2,
        folder / "images",
        [
            run | {"out": str(folder / "two")},
            run | {"out": str(folder / "stopped"), "stop": [2, 0]},
            run | {"out": str(folder / "sharded"), "shard": True},
            run | {"out": str(folder / "sharded_stopped"), "shard": True, "stop": [2, 0]},
        ],
    )
    torch.set_default_dtype(torch.float64)
    yield folder
    torch.set_default_dtype(torch.float32)


@pytest.fixture(scope="module")
def alone(trained):
    """The run of one process, that accumulates."""
    from rich.console import Console

    fit("test_convnext", trained / "images", ALL, trained / "one", workers=0,
        console=Console(quiet=True))  # fmt: skip
    return trained / "one"


def assert_close(one, other) -> None:
    """Weights, averages, moments and curves."""
    ours, theirs = load_state(one)[0], load_state(other)[0]
    for part in ("model", "ema"):
        torch.testing.assert_close(ours[part], theirs[part], **CLOSE)
    moments = [
        {i: row["exp_avg"] for i, row in s["optimizer"]["state"].items()} for s in (ours, theirs)
    ]
    torch.testing.assert_close(*moments, **CLOSE)
    for row, expected in zip(ours["history"], theirs["history"], strict=True):
        for key in ("train_loss", "val_loss", "val_top1", "lr", "grad_norm"):
            assert row[key] == pytest.approx(expected[key], rel=1e-6), key


@pytest.mark.parametrize("run", ["two", "sharded"])
def test_two_processes_learn_what_one_does(trained, alone, run):
    assert_close(trained / run, alone)


@pytest.mark.parametrize("run", ["stopped", "sharded_stopped"])
def test_a_checkpoint_of_two_processes_goes_on_with_one(trained, alone, quiet, run):
    """SIGTERM reached one of the two; both stopped at the same update."""
    state = load_state(trained / run)[0]
    # The signal came in update 1 of epoch 2, which was still done.
    assert (state["epoch"], state["position"]["step"]) == (1, 1)
    resume(trained / run, console=quiet)
    assert_close(trained / run, alone)


def test_only_the_first_process_writes(trained):
    names = {"metrics.jsonl", "steps.jsonl", "config.json", "curves.png", "best.safetensors",
             "last.pt", "previous.pt", "run.lock"}  # fmt: skip
    assert {path.name for path in (trained / "two").iterdir()} == names
    assert len((trained / "two" / "metrics.jsonl").read_text().splitlines()) == ALL.epochs


@pytest.mark.parametrize(
    ("batch_size", "device_batch", "ranks", "made"),
    [
        (4096, 128, 8, (128, 8, 4)),
        (4096, 128, 1, (128, 1, 32)),
        (4096, 0, 4, (1024, 4, 1)),
        (48, 16, 2, (12, 2, 2)),  # 16 does not divide a process's 24
        (8, 8, 8, (1, 8, 1)),
    ],
)
def test_a_batch_is_what_the_recipe_says(batch_size, device_batch, ranks, made):
    batch = BatchShape.of(Recipe(batch_size=batch_size, device_batch=device_batch), ranks)
    assert (batch.device_batch, batch.ranks, batch.micro_batches) == made
    assert batch.device_batch * batch.ranks * batch.micro_batches == batch_size
    assert str(batch).startswith(f"{batch_size} = {made[0]} per device x {made[1]} process")


def test_a_batch_that_does_not_divide():
    with pytest.raises(InputError, match="batch size 10 does not divide among 4 processes"):
        BatchShape.of(Recipe(batch_size=10), 4)


@pytest.mark.slow
def test_one_that_dies_ends_the_other_and_the_same_command_goes_on(tmp_path, images):
    run = tmp_path / "run"
    words = ["-m", "seewide", "train", "test_convnext", "--data", images, "--out", run,
             "--epochs", 1000, "--batch-size", 8, "--set", "layer_scale=0", "--workers", 0,
             "--image-size", 32]  # fmt: skip
    processes = start(2, words)
    wait_for(run / "last.pt", processes)
    processes[1].kill()
    (code, said, complaint), _ = finish(processes, seconds=60)
    assert code == 2, complaint
    assert "2 processes" in said
    assert "another process has ended or does not answer" in complaint
    assert "Traceback" not in complaint

    before = load_state(run)[0]["epoch"]
    (process,) = start(1, words)
    lines = wait_for_epoch(before + 1, process)
    process.send_signal(signal.SIGTERM)
    ((code, said, complaint),) = finish([process])
    assert code == 143, complaint
    assert "resuming after epoch" in lines
    assert f"Resume with: seewide train --resume {run}" in said
    assert load_state(run)[0]["epoch"] > before


def wait_for(path, processes, seconds: float = 300) -> None:
    end = time.monotonic() + seconds
    while not path.exists():
        if time.monotonic() > end or any(p.poll() is not None for p in processes):
            raise AssertionError([words for _, *words in finish(processes, seconds=1)])
        time.sleep(0.05)


def wait_for_epoch(number: int, process) -> str:
    """What the process prints until it has finished that epoch."""
    lines = ""
    for line in process.stdout:
        lines += line
        if line.startswith(f"epoch {number:>3}/"):
            return lines
    raise AssertionError(lines + process.stderr.read())
