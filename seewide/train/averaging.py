"""The average of the weights of several epochs of a run, as timm's avg_checkpoints.py."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from seewide.checkpoints import read_state_dict
from seewide.errors import InputError
from seewide.train.checkpoint import RunConfig, WeightsInfo, save_weights

AVERAGE = "average.safetensors"


def average_checkpoints(run: Path, last: int = 5) -> tuple[Path, list[int]]:
    """Average the last retained epochs of a run into `RUN/average.safetensors`.

    Floating-point tensors, with the statistics of batch norms, are averaged in float64; others are
    those of the last epoch. Evaluate it as any weights: `seewide eval RUN/average.safetensors`.

    Args:
        run: the folder of a run with `--keep-every`.
        last: how many of its `epoch-*.safetensors`.

    Returns:
        the file, and the epochs that it averages.

    Raises:
        InputError: fewer than two epochs were retained.
    """
    run = Path(run)
    RunConfig.load(run)
    found = {
        int(match[1]): path
        for path in run.glob("epoch-*.safetensors")
        if (match := re.fullmatch(r"epoch-(\d+)\.safetensors", path.name))
    }
    epochs = sorted(found)[-last:]
    if len(epochs) < 2:
        raise InputError(
            f"{run} retains the weights of {len(found)} epochs, and an average needs two; "
            "`--keep-every 1` retains those of each epoch"
        )
    total: dict[str, Tensor] = {}
    for epoch in epochs:
        state = read_state_dict(found[epoch])
        for key, value in state.items():
            if not value.is_floating_point():
                total[key] = value
            elif key in total:
                total[key] += value.double()
            else:
                total[key] = value.double()
    weights = {
        key: (value / len(epochs)).to(state[key].dtype) if value.dtype == torch.float64 else value
        for key, value in total.items()
    }
    info = WeightsInfo.of(found[epochs[-1]])
    if info is None:
        raise InputError(f"{found[epochs[-1]]} lacks the run's facts in its header")
    path = run / AVERAGE
    save_weights(path, weights, replace(info, score=0.0))
    return path, epochs
