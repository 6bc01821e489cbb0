"""Runs of small networks that the tests of several tasks share: killed, resumed, distributed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from safetensors.torch import load_file

from seewide.recipes import Recipe
from seewide.tasks import get_task
from seewide.train import fit, resume

HERE = Path(__file__).parent
QUIET = Console(quiet=True)
# A network of four blocks.
TINY = {"model": "unireplknet_a", "model_options": {"dims": (8, 12, 16, 20), "depths": (1,) * 4}}


def train(data: Path, out: Path, recipe: Recipe, **how: Any):
    """`fit` in this process, without output."""
    return fit(None, data, recipe, out, task=recipe.task, console=QUIET, workers=0, **how)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "best.safetensors")


def assert_a_killed_run_resumes_to_the_same_bits(
    data: Path, tmp_path: Path, recipe: Recipe, calls: int
) -> None:
    """Kill a run by SIGKILL and resume it; its weights equal those of an uninterrupted run.

    Args:
        calls: of the loss before the kill; beyond the first epoch.
    """
    train(data, tmp_path / "all", recipe)
    words = [HERE / "task_runs.py", data, tmp_path / "killed", repr(asdict(recipe)), calls]
    done = subprocess.run([sys.executable, *map(str, words)], capture_output=True)
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    resume(tmp_path / "killed", console=QUIET)
    expected, resumed = weights(tmp_path / "all"), weights(tmp_path / "killed")
    assert expected.keys() == resumed.keys()
    assert all(torch.equal(expected[key], resumed[key]) for key in expected)


def assert_two_processes_learn_what_one_does(data: Path, tmp_path: Path, recipe: Recipe) -> None:
    """A recipe on one process and on two: parameters are equal up to rounding.

    The network is one without batch norm, whose statistics are those of each process, and the
    optimizer SGD: Adam makes much of rounding errors where gradients are near zero. The recipe must
    be without random augmentation of micro-batches.
    """
    sys.path.insert(0, str(HERE.parent / "train"))
    try:
        from launch import finish, start
    finally:
        sys.path.pop(0)
    recipe = replace(
        recipe, model="test_convnext", model_options={}, layer_scale=0.0, optimizer="sgd",
        device_batch=recipe.batch_size // 2, epochs=1,
    )  # fmt: skip
    train(data, tmp_path / "one", recipe)
    words = [HERE / "task_runs.py", data, tmp_path / "two", repr(asdict(recipe)), 0]
    for code, _, complaint in finish(start(2, words)):
        assert code == 0, complaint
    expected, found = weights(tmp_path / "one"), weights(tmp_path / "two")
    for key, value in expected.items():
        if "running" not in key and "num_batches" not in key:
            torch.testing.assert_close(found[key], value, rtol=1e-3, atol=1e-4, msg=key)


def main(data: str, out: str, recipe: str, calls: str) -> None:
    """Train; with `calls`, kill this process at that call of the loss, after a checkpoint."""
    import ast
    import time

    torch.set_num_threads(1)  # as the tests
    settings = Recipe(**ast.literal_eval(recipe))
    kind, seen = get_task(settings.task), []
    loss = kind.loss

    def kill(self, model, batch):
        seen.append(1)
        if len(seen) == int(calls):
            while not list(Path(out).glob("last*")):
                time.sleep(0.01)
            os.kill(os.getpid(), signal.SIGKILL)
        return loss(self, model, batch)

    if int(calls):
        kind.loss = kill
    train(Path(data), Path(out), settings)


if __name__ == "__main__":
    main(*sys.argv[1:])
