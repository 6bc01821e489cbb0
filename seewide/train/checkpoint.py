"""The run folder: what it holds, and how it is written so that no moment of failure costs it.

    config.json             every setting of the run, with the versions that ran it
    metrics.jsonl           one line per epoch
    updates.jsonl           one line every few updates
    curves.png              the same as a picture
    best.safetensors        the best weights so far, and in the header all that their use needs
    epoch-10.safetensors    those of epoch 10, if the run keeps every so many
    last.pt                 the state to continue from: tensors and plain containers, no code

Files are replaced in one step, `last.pt` after all others but the picture. So a run killed between
two files repeats what came after the `last.pt` before, and writes the same again. States are whole
and on the CPU, however many processes and shards they come from, so any number of processes goes on
with them.
"""

from __future__ import annotations

import io
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from seewide.errors import InputError, write_atomically
from seewide.models._checkpoint import load_checkpoint, read_state_dict
from seewide.recipes import Recipe, override
from seewide.train.build import build_model
from seewide.train.data import SHARE

CONFIG, METRICS, CURVES = "config.json", "metrics.jsonl", "curves.png"
BEST, LAST = "best.safetensors", "last.pt"


@dataclass(frozen=True)
class RunConfig:
    """Everything that decides the weights of a run, apart from the pictures themselves."""

    model: str
    data: str
    recipe_name: str
    recipe: Recipe
    seed: int
    workers: int
    device: str
    amp: str
    pretrained: bool
    checkpoint: str | None
    class_names: tuple[str, ...]
    train_images: int
    val_images: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    versions: dict[str, str]
    compile: bool = False
    shard: bool = False
    channels_last: bool = False
    grad_checkpointing: bool = False
    save_every: int = 0
    keep_every: int = 0
    nan: str = "stop"
    broken: float = SHARE
    tensorboard: bool = False

    def save(self, folder: Path) -> None:
        _write_text(folder / CONFIG, json.dumps(asdict(self), indent=2) + "\n")

    @classmethod
    def load(cls, folder: Path) -> RunConfig:
        """Read back; an InputError says why `folder` is no run."""
        path = folder / CONFIG
        if not path.is_file():
            raise InputError(f"{folder} is no run folder: it has no {CONFIG}")
        try:
            content = json.loads(path.read_text())
            content["recipe"] = override(Recipe(), content["recipe"])
            for name in ("class_names", "mean", "std"):
                content[name] = tuple(content[name])
            return cls(**content)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise InputError(f"{path} is not a run's configuration: {error}") from None


@dataclass(frozen=True)
class RunInfo:
    """What the use of trained weights needs; travels in the header of `best.safetensors`."""

    model: str
    num_classes: int
    class_names: tuple[str, ...]
    image_size: int
    interpolation: str
    crop_pct: float
    crop_mode: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    epoch: int
    top1: float
    data: str
    stem_stride: int = 0

    def header(self) -> dict[str, str]:
        """As text, each value in JSON."""
        return {name: json.dumps(value) for name, value in asdict(self).items()}

    @classmethod
    def of(cls, path: Path) -> RunInfo | None:
        """Read the header of a safetensors file; None if it is not a run's."""
        try:
            with safe_open(path, framework="pt") as file:
                header = file.metadata() or {}
        except (SafetensorError, OSError) as error:
            raise InputError(f"{path} is damaged or is no safetensors file: {error}") from None
        try:
            names = {field.name for field in fields(cls)} & header.keys()
            values = {name: json.loads(header[name]) for name in names}
            lists = {name: tuple(v) for name, v in values.items() if isinstance(v, list)}
            return cls(**{**values, **lists})
        except (TypeError, ValueError):  # a fact is missing, or is no JSON
            return None


def weights_of(run: str | os.PathLike) -> Path:
    """The best weights of a run folder; a file stands for itself.

    Raises:
        InputError: neither, or a run whose first epoch is not finished.
    """
    path = Path(run)
    if path.is_dir():
        if not (path / BEST).is_file():
            RunConfig.load(path)  # says so if it is no run at all
            raise InputError(f"{path} has no {BEST} yet: its first epoch is not finished")
        return path / BEST
    if not path.is_file():
        raise InputError(f"there is no run {run}")
    return path


def load_run(run: str | os.PathLike) -> tuple[nn.Module, RunInfo]:
    """The best model of a run, in training form and evaluation mode, and its facts.

    Args:
        run: the folder, or its `best.safetensors` alone.

    Raises:
        InputError: no run, nothing finished in it yet, or a damaged file.
    """
    path = weights_of(run)
    info = RunInfo.of(path)
    if info is None:
        raise InputError(f"{path} is not from `seewide train`: its header lacks the run's facts")
    model = build_model(info.model, info.num_classes, info.image_size, stem_stride=info.stem_stride)
    return load_checkpoint(model, path).eval(), info


def save_weights(path: Path, weights: Mapping[str, Tensor], info: RunInfo) -> None:
    """Write weights that are on the CPU as safetensors that know their run."""
    contiguous = {name: tensor.contiguous() for name, tensor in weights.items()}
    _write_bytes(path, save(contiguous, metadata=info.header()))


def every(epoch: int) -> str:
    """The file of the weights after `epoch`, for runs that keep some."""
    return f"epoch-{epoch}.safetensors"


def save_metrics(folder: Path, history: list[dict[str, float]]) -> None:
    """Write `metrics.jsonl`."""
    _write_text(folder / METRICS, "".join(json.dumps(row) + "\n" for row in history))


def save_tensors(path: Path, state: Mapping[str, Any]) -> None:
    """Write tensors, numbers, text and containers of them."""
    # In memory first: torch's own writer turns a full disk into an error that is not an OSError.
    buffer = io.BytesIO()
    torch.save(dict(state), buffer)
    _write_bytes(path, buffer.getbuffer())


def load_last(folder: Path) -> dict[str, Any] | None:
    """The state to continue from, on the CPU; None before there is any."""
    if not (folder / LAST).exists():
        return None
    return read_state_dict(folder / LAST)


def _write_bytes(path: Path, content: bytes | memoryview) -> None:
    write_atomically(path, lambda scratch: scratch.write_bytes(content))


def _write_text(path: Path, content: str) -> None:
    write_atomically(path, lambda scratch: scratch.write_text(content, encoding="utf-8"))
