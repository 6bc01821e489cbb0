"""Kills, full disks, losses that are no numbers, and requests to stop, wherever they strike."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from rich.console import Console
from safetensors.torch import load_file
from tiny import SMALL, change, make_recipe, paint

from seewide.errors import InputError
from seewide.train import Terminated, fit, resume, step
from seewide.train.checkpoint import load_state
from seewide.train.nonfinite import MOST_SKIPS, NonFiniteGuard
from seewide.train.runtime import Runtime
from seewide.train.signals import StopRequest
from seewide.train.writer import Writer, to_cpu_copy

HERE = Path(__file__).parent
# Nine updates an epoch, so that there is something within it.
LONG = change(SMALL, batch_size=2, device_batch=0, epochs=2)
PLAIN = make_recipe(
    image_size=32, min_crop=1.0, flip=0.0, epochs=2, batch_size=4, lr=1e-3, warmup_epochs=0.0
)


def before_step(monkeypatch, position: tuple[int, int], act):
    """Call `act(batches)` before step (epoch, number); it may return other batches."""
    original = step.Trainer.step

    def acting(self, epoch, number, batches, stop=lambda: False):
        if (epoch, number) == position:
            batches = act(batches) or batches
        return original(self, epoch, number, batches, stop)

    monkeypatch.setattr(step.Trainer, "step", acting)


def assert_same(run, unbroken) -> None:
    """Weights, average and moments to the bit; curves but for their times."""
    ours, theirs = load_state(run)[0], load_state(unbroken)[0]
    for part in ("model", "ema"):
        for key, value in theirs[part].items():
            assert torch.equal(ours[part][key], value), key
    for index, row in theirs["optimizer"]["state"].items():
        assert torch.equal(ours["optimizer"]["state"][index]["exp_avg"], row["exp_avg"])
    timeless = [
        [{k: v for k, v in row.items() if "second" not in k} for row in state["history"]]
        for state in (ours, theirs)
    ]
    assert timeless[0] == timeless[1]


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    folder = tmp_path_factory.mktemp("unbroken")
    fit(tiny.NAME, paint(folder / "images"), LONG, folder / "run", workers=0,
        console=Console(quiet=True))  # fmt: skip
    return folder


def test_a_request_to_stop_saves_within_the_epoch(tmp_path, unbroken, quiet, monkeypatch):
    run, data = tmp_path / "run", unbroken / "images"
    with monkeypatch.context() as patch:
        before_step(patch, (2, 3), lambda images: os.kill(os.getpid(), signal.SIGTERM))
        with pytest.raises(Terminated, match=rf"epoch 1, step 4 of 9.*--resume {run}"):
            fit(tiny.NAME, data, LONG, run, workers=0, console=quiet)
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    assert load_state(run)[0]["position"]["step"] == 4
    resume(run, workers=1, console=quiet)
    assert_same(run, unbroken / "run")


def test_a_stop_in_validation_goes_on_with_it(tmp_path, unbroken, quiet, monkeypatch):
    from seewide.train import loop

    run, compute = tmp_path / "run", loop.compute_metric
    with monkeypatch.context() as patch:
        patch.setattr(
            loop,
            "compute_metric",
            lambda *words: os.kill(os.getpid(), signal.SIGTERM) or compute(*words),
        )
        with pytest.raises(Terminated, match="epoch 0, step 9 of 9"):
            fit(tiny.NAME, unbroken / "images", LONG, run, workers=0, console=quiet)
    assert load_state(run)[0]["history"] == []
    resume(run, console=quiet)
    assert_same(run, unbroken / "run")


def test_saving_within_an_epoch_loses_few_updates(tmp_path, unbroken, quiet, monkeypatch):
    run = tmp_path / "run"

    def fail(images):
        raise RuntimeError("the power is gone")

    with monkeypatch.context() as patch:
        before_step(patch, (2, 7), fail)
        with pytest.raises(RuntimeError, match="power"):
            fit(tiny.NAME, unbroken / "images", LONG, run, workers=0, save_every=3,
                keep_every=1, console=quiet)  # fmt: skip
    state = load_state(run)[0]
    assert (state["epoch"], state["position"]["step"]) == (1, 6)
    resume(run, console=quiet)
    assert_same(run, unbroken / "run")
    assert load_file(run / "epoch-1.safetensors").keys() == state["model"].keys()
    weights, average = load_file(run / "epoch-2.safetensors"), load_state(run)[0]["ema"]
    for key, value in average.items():
        assert torch.equal(weights[key], value)


PROGRAM = """
import sys
sys.path.insert(0, sys.argv[1])
import tiny, torch
from test_interruptions import MANY
from seewide.train import fit
torch.set_num_threads(1)
fit(tiny.NAME, sys.argv[2], MANY, sys.argv[3], workers=0, save_every=1)
"""
MANY = change(LONG, epochs=16)  # 144 updates


@pytest.mark.slow
def test_ten_kills_at_random_moments(tmp_path, images, quiet):
    """`kill -9` from outside, wherever it strikes; the same call goes on."""
    fit(tiny.NAME, images, MANY, tmp_path / "unbroken", workers=0, console=quiet)
    chance, run = np.random.default_rng(), tmp_path / "run"
    words = [sys.executable, "-c", PROGRAM, str(HERE), str(images), str(run)]
    for _ in range(10):
        process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        with process:
            before = written(run)
            while process.poll() is None and written(run) == before:
                time.sleep(0.01)
            time.sleep(chance.uniform(0, 0.5))
            process.kill()
            complaint = process.stderr.read().decode()
        assert process.returncode == -signal.SIGKILL, complaint or "the run is too short for this"
    assert subprocess.run(words, stdout=subprocess.DEVNULL).returncode == 0
    assert_same(run, tmp_path / "unbroken")


def written(run) -> float:
    """When the state was written last."""
    last = run / "last.pt"
    return last.stat().st_mtime if last.exists() else 0.0


def test_nonfinite_loss_saves_the_batch(tmp_path, images, quiet, monkeypatch):
    def poison(batches):
        batch = next(batches)
        return iter([{**batch, "image": batch["image"] * torch.nan}])

    run = tmp_path / "run"
    with monkeypatch.context() as patch:
        before_step(patch, (1, 2), poison)
        with pytest.raises(InputError, match=r"loss became nan in epoch 1, step 3: .*nan-0\.pt"):
            fit("test_convnext", images, PLAIN, run, workers=0, console=quiet)
    saved = torch.load(run / "nan-0.pt", weights_only=True)
    assert (saved["epoch"], saved["step"], saved["batch"]["image"].shape) == (1, 2, (4, 3, 32, 32))
    # They are the images of the third update, as they were read.
    seen = {}
    with monkeypatch.context() as patch:
        original = step.Trainer.step

        def look(self, epoch, number, batches, stop):
            batch = next(batches)
            seen[epoch, number] = batch["image"].clone()
            return original(self, epoch, number, iter([batch]), stop)

        patch.setattr(step.Trainer, "step", look)
        resume(run, console=quiet)
    assert torch.equal(saved["batch"]["image"], seen[1, 2])


def test_nonfinite_loss_is_skipped_with_nan_skip(tmp_path, images, quiet, monkeypatch):
    """The poison also reaches the running means of batch norms, which are put back."""

    def poison(batches):
        batch = next(batches)
        return iter([{**batch, "image": batch["image"] * torch.nan}])

    before_step(monkeypatch, (1, 2), poison)
    recipe = change(PLAIN, ema_decay=0.9)
    result = fit(tiny.NAME, images, recipe, tmp_path / "run", workers=0, nan="skip", console=quiet)
    assert [row["skipped"] for row in result.history] == [1, 0]
    state = load_state(tmp_path / "run")[0]
    for part in ("model", "ema"):
        assert all(torch.isfinite(value).all() for value in state[part].values())


def test_skipping_ends_when_nothing_is_left():
    guard = NonFiniteGuard("skip", torch.nn.BatchNorm2d(3))
    guard.before_step()
    assert guard.should_continue(False)
    assert guard.should_continue(True)
    assert all(guard.should_continue(False) for _ in range(MOST_SKIPS - 1))
    assert not guard.should_continue(False)
    assert not NonFiniteGuard("stop", torch.nn.ReLU()).should_continue(False)
    with pytest.raises(InputError, match="nan must be stop or skip, got 'ignore'"):
        Runtime(nan="ignore")


def test_jobs_are_written_one_at_a_time_and_tell_what_went_wrong():
    writer, running, order = Writer(), threading.Semaphore(1), []

    def job(number):
        assert running.acquire(blocking=False)
        time.sleep(0.01)
        order.append(number)
        running.release()

    for number in range(4):
        writer.submit(lambda number=number: job(number))
    writer.wait()
    assert order == [0, 1, 2, 3]

    def full():
        raise InputError("could not write last.pt: No space left on device")

    writer.submit(full)
    with pytest.raises(InputError, match="No space left on device; the previous checkpoint is int"):
        writer.submit(lambda: None)
    writer.close()


def test_a_snapshot_is_a_copy():
    state = {"a": torch.zeros(2), "b": [torch.zeros(1), {"c": 1}], "d": (1.0, None)}
    copy = to_cpu_copy(state)
    state["a"] += 1
    state["b"][0] += 1
    state["b"][1]["c"] = 2
    assert copy["a"].tolist() == [0, 0]
    assert copy["b"][0].item() == 0
    assert copy["b"][1] == {"c": 1}
    assert copy["d"] == (1.0, None)


def test_signals_of_other_threads_are_left_alone():
    before, inside = signal.getsignal(signal.SIGTERM), []

    def enter():
        with StopRequest():
            inside.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert inside == [before]
