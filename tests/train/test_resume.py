"""A kill loses at most an epoch, and the resumed run ends with the bits of an unbroken one."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest
import tiny
import torch
from rich.console import Console
from safetensors.torch import load_file
from tiny import SMALL, paint

from seewide.errors import InputError
from seewide.recipes import Recipe
from seewide.train import fit, load_run, resume
from seewide.train.checkpoint import load_state
from seewide.train.writer import FolderLock

# The process kills itself in the middle of an epoch, in the step whose number it is given.
KILLED = """
import json, os, signal, sys, time
sys.path.insert(0, sys.argv[7])
import tiny, torch
from rich.console import Console
from seewide.recipes import Recipe
from seewide.train import fit, step

model, data, out, recipe, threads, last = sys.argv[1:7]
torch.set_num_threads(int(threads))
original = step.Trainer.step

def kill(self, epoch, number, batches, stop):
    if (epoch - 1) * self.steps_per_epoch + number + 1 == int(last):
        while epoch > 1 and not os.path.exists(os.path.join(out, "last.pt")):
            time.sleep(0.01)  # another thread writes it
        os.kill(os.getpid(), signal.SIGKILL)
    return original(self, epoch, number, batches, stop)

step.Trainer.step = kill
fit(model, data, Recipe(**json.loads(recipe)), out, seed=3, workers=0, console=Console(quiet=True))
"""


def kill_in_step(number: int, recipe: Recipe, data, out) -> None:
    words = [tiny.NAME, data, out, json.dumps(asdict(recipe)), torch.get_num_threads(), number,
             Path(__file__).parent]  # fmt: skip
    done = subprocess.run([sys.executable, "-c", KILLED, *map(str, words)], capture_output=True)
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()


def assert_same_bits(one, other) -> None:
    assert one.keys() == other.keys()
    for key in one:
        assert torch.equal(one[key], other[key]), key


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run of three epochs that nothing disturbed, and its images."""
    folder = tmp_path_factory.mktemp("finished")
    fit(tiny.NAME, paint(folder / "images"), SMALL, folder / "run", seed=3, workers=0,
        console=Console(quiet=True))  # fmt: skip
    return folder


@pytest.fixture
def unbroken(finished, tmp_path):
    """A copy of it, to be damaged."""
    return Path(shutil.copytree(finished / "run", tmp_path / "unbroken"))


@pytest.fixture
def images(finished):
    return finished / "images"


def test_killed_in_epoch_2_and_resumed_is_bit_identical(tmp_path, images, small, quiet, unbroken):
    run = tmp_path / "killed"
    # 18 images make two updates an epoch: number 4 is the second of epoch 2.
    kill_in_step(4, small, images, run)
    assert load_state(run)[0]["epoch"] == 1

    # Another number of workers on top: the chance of a image does not depend on who reads it.
    result = resume(run, workers=1, console=quiet)

    assert [row["epoch"] for row in result.history] == [1, 2, 3]
    ours, theirs = load_state(run)[0], load_state(unbroken)[0]
    assert_same_bits(ours["model"], theirs["model"])
    assert_same_bits(ours["ema"], theirs["ema"])
    assert_same_bits(load_file(run / "best.safetensors"), load_file(unbroken / "best.safetensors"))
    timeless = [
        [{k: v for k, v in row.items() if "second" not in k} for row in state["history"]]
        for state in (ours, theirs)
    ]
    assert timeless[0] == timeless[1]
    assert len((run / "metrics.jsonl").read_text().splitlines()) == 3


def test_weights_move_and_the_seed_matters(tmp_path, images, small, quiet, unbroken):
    """The identity above is not that of runs that do nothing."""
    fit(tiny.NAME, images, small, tmp_path / "other", seed=4, workers=0, console=quiet)
    one, other = (load_state(tmp_path / name)[0]["model"] for name in ("other", "unbroken"))
    assert not torch.equal(one["head.fc.weight"], other["head.fc.weight"])


def test_killed_in_the_first_epoch_begins_again(tmp_path, images, small, quiet, unbroken):
    run = tmp_path / "early"
    kill_in_step(1, small, images, run)
    assert load_state(run)[0] is None
    with pytest.raises(InputError, match="first epoch is not finished"):
        load_run(run)
    resume(run, console=quiet)
    assert_same_bits(load_state(run)[0]["model"], load_state(unbroken)[0]["model"])


def edit(config: Path, old: str = "", new: str = "") -> None:
    """Edit `config.json` as a user may: without its checksum."""
    content = json.loads(config.read_text().replace(old, new) if old else config.read_text())
    del content["checksum"]
    config.write_text(json.dumps(content))


def test_a_finished_run_stays_as_it_is(unbroken, quiet):
    before = (unbroken / "last.pt").read_bytes()
    resume(unbroken, console=quiet)
    assert (unbroken / "last.pt").read_bytes() == before


def test_changed_images_are_noticed(unbroken, quiet):
    config = unbroken / "config.json"
    config.write_text(config.read_text().replace('"val": 6', '"val": 7'))
    with pytest.raises(InputError, match=r"does not match its checksum.* remove its line"):
        resume(unbroken, console=quiet)
    edit(config)
    with pytest.raises(InputError, match="has changed since the run began"):
        resume(unbroken, console=quiet)


@pytest.mark.parametrize("damage", ["cut", "foreign", "flipped", "pickle"])
def test_a_damaged_checkpoint_is_replaced_by_the_previous_one(unbroken, quiet, damage):
    last, finished = unbroken / "last.pt", load_state(unbroken)[0]
    if damage == "cut":
        last.write_bytes(last.read_bytes()[:-2000])
    elif damage == "foreign":
        torch.save({"model": {}, "epoch": 1}, last)
    elif damage == "flipped":
        content = bytearray(last.read_bytes())
        weight = finished["model"]["stages.3.blocks.0.fc1.weight"].numpy().tobytes()
        content[content.index(weight) + 5] ^= 1
        last.write_bytes(content)
    else:
        torch.save({"model": print}, last)
    damaged = last.read_bytes()
    resume(unbroken, console=quiet)
    assert_same_bits(load_state(unbroken)[0]["model"], finished["model"])
    last.write_bytes(damaged)
    (unbroken / "previous.pt").unlink()
    with pytest.raises(InputError) as caught:
        resume(unbroken, console=quiet)
    assert "last.pt" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_two_runs_in_one_folder(finished, unbroken, quiet):
    with FolderLock(unbroken), pytest.raises(InputError, match=r"is in use by .*\"process\": "):
        resume(unbroken, console=quiet)
    resume(unbroken, console=quiet)


def test_relabelled_images_are_noticed(tmp_path, finished, quiet):
    """The numbers of images and classes agree, and still it is other data."""
    folder = Path(shutil.copytree(finished, tmp_path / "copy"))
    config = folder / "run" / "config.json"
    edit(config, str(finished), str(folder))
    resume(folder / "run", console=quiet)
    one, other = (folder / "images" / name for name in ("blue/0.jpg", "red/0.jpg"))
    content = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(content)
    if one.stat().st_size != other.stat().st_size:
        with pytest.raises(InputError, match="renamed, exchanged or labelled anew"):
            resume(folder / "run", console=quiet)
    one.rename(one.with_name("new.jpg"))
    with pytest.raises(InputError, match="renamed, exchanged or labelled anew"):
        resume(folder / "run", console=quiet)


def test_a_folder_that_is_no_run(tmp_path, quiet):
    with pytest.raises(InputError, match=r"is not a run folder: it has no config\.json"):
        resume(tmp_path, console=quiet)
    (tmp_path / "config.json").write_text('{"model": "unireplknet_a"')
    with pytest.raises(InputError, match="is not a run's configuration"):
        resume(tmp_path, console=quiet)
