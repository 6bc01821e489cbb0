"""The files of a run: what they hold, what is refused, and that a full disk costs nothing."""

from __future__ import annotations

import json
import resource
import shutil
from contextlib import contextmanager
from pathlib import Path

import pytest
import tiny
import torch
from rich.console import Console
from safetensors import safe_open
from safetensors.torch import save_file
from tiny import SMALL, paint

from seewide.errors import InputError
from seewide.preprocess import Preprocess
from seewide.train import fit, load_run, resume
from seewide.train.checkpoint import RunConfig, WeightsInfo, load_state, save_tensors, save_weights

ANY = WeightsInfo(
    model=tiny.NAME,
    task="classification",
    options={},
    facts={"class_names": ["blue", "green", "red"]},
    preprocess=Preprocess(image_size=32, crop_pct=1.0).to_dict(),
    backbone={},
    epoch=1,
    score=0.0,
    data="",
)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("finished")
    fit(tiny.NAME, paint(folder / "images"), SMALL, folder / "run", workers=0,
        console=Console(quiet=True))  # fmt: skip
    return folder / "run"


@pytest.fixture
def run(finished, tmp_path):
    return Path(shutil.copytree(finished, tmp_path / "run"))


@contextmanager
def files_of_at_most(size: int):
    """The system refuses to write beyond, as it does on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_files_of_a_run_folder(run):
    lines = {"metrics.jsonl", "steps.jsonl"}
    names = {"config.json", "curves.png", "best.safetensors", "last.pt", "previous.pt", "run.lock"}
    assert {path.name for path in run.iterdir()} == names | lines


def test_the_configuration_is_exact(run):
    config = RunConfig.load(run)
    assert config.recipe == SMALL
    assert config.facts == {"class_names": ["blue", "green", "red"]}
    assert config.preprocess["mean"] == [0.5, 0.5, 0.5]
    assert config.preprocess["std"] == [0.25, 0.25, 0.25]
    assert set(config.versions) == {"seewide", "torch", "timm"}
    assert json.loads((run / "config.json").read_text())["recipe"]["options"] == SMALL.options


def test_the_weights_travel_alone(run, tmp_path):
    alone = tmp_path / "elsewhere.safetensors"
    shutil.copy(run / "best.safetensors", alone)
    model, task, info = load_run(alone)
    assert info.facts == {"class_names": ["blue", "green", "red"]}
    assert (info.model, task.options.image_size) == (tiny.NAME, 32)
    assert info.preprocess["crop_pct"] == 1.0
    with safe_open(alone, "pt") as file:
        assert set(file.keys()) == set(model.state_dict())


def test_last_is_plain_data(run):
    state = torch.load(run / "last.pt", weights_only=True)
    assert state["epoch"] == len(state["history"]) == SMALL.epochs
    parts = {"model", "ema", "optimizer", "scaler", "sparsity"}
    assert set(state) == {"epoch", "position", "history", "checksum"} | parts


@pytest.mark.parametrize(
    "save",
    [
        lambda run: save_weights(run / "best.safetensors", load_run(run)[0].state_dict(), ANY),
        lambda run: save_tensors(run / "last.pt", load_state(run)[0]),
    ],
    ids=["best", "last"],
)
def test_a_full_disk_keeps_what_was_there(run, save):
    before = content(run)
    with files_of_at_most(20_000), pytest.raises(InputError, match="could not write") as caught:
        save(run)
    assert "\n" not in str(caught.value)
    assert content(run) == before


def test_a_disk_that_fills_in_training_costs_the_epoch_only(run, monkeypatch):
    """Back to after epoch 1, the disk full in epoch 2, and on when there is room again."""
    state = load_state(run)[0]
    finished = {key: value.clone() for key, value in state["model"].items()}
    fresh = run.parent / "fresh"
    data = RunConfig.load(run).data
    quiet = Console(quiet=True)
    sentence = r"could not write .*; the previous checkpoint is intact"
    with pytest.raises(InputError, match=sentence), _full_after_epoch(1, monkeypatch):
        fit(tiny.NAME, data, SMALL, fresh, workers=0, console=quiet)
    monkeypatch.undo()
    assert load_state(fresh)[0]["epoch"] == 1
    assert not [path.name for path in fresh.iterdir() if path.name.startswith(".writing")]
    resume(fresh, console=quiet)
    for key, value in load_state(fresh)[0]["model"].items():
        assert torch.equal(value, finished[key]), key


@contextmanager
def _full_after_epoch(epoch: int, monkeypatch):
    from seewide.train import loop

    save = loop.Run.save_epoch
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    def save_until_full(self):
        if len(self.history) > epoch:
            self.writer.wait()
            resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
        save(self)

    monkeypatch.setattr(loop.Run, "save_epoch", save_until_full)
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_cut_file_of_weights(run):
    best = run / "best.safetensors"
    best.write_bytes(best.read_bytes()[:-100])
    with pytest.raises(InputError, match=r"best\.safetensors is damaged"):
        load_run(run)


def test_foreign_weights_and_foreign_places(run, tmp_path):
    save_file({"x": torch.zeros(1)}, tmp_path / "foreign.safetensors")
    with pytest.raises(InputError, match="is not from `seewide train`"):
        load_run(tmp_path / "foreign.safetensors")
    with pytest.raises(InputError, match="there is no run"):
        load_run(tmp_path / "nowhere")
    with pytest.raises(InputError, match="is not a run folder"):
        load_run(tmp_path)
