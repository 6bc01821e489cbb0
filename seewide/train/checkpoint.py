"""The run folder: what it holds, and how it is written so that no failure costs the run.

    config.json             all settings of the run, and the versions that ran it
    metrics.jsonl           one line per epoch
    steps.jsonl             one line every few optimizer steps
    curves.png              the same as a figure
    best.safetensors        the best weights so far; the header holds all that using them needs
    epoch-10.safetensors    the weights of epoch 10, if the run retains some
    last.pt, previous.pt    the last two states to resume from: tensors and plain containers

Files are replaced in one step, `last.pt` after all others but the figure. So a run that is killed
between two files repeats what followed the previous `last.pt`, and writes the same again. States
are complete and on the CPU, whatever the number of processes and shards they come from, so any
number of processes can resume from them. They hold a checksum of their content, as `config.json`,
the weights and each line of the logs do; a damaged `last.pt` is answered by resuming from
`previous.pt`. `seewide.train.check` reads all files and says which ones are damaged.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from seewide.checkpoints import (
    checksum,
    load_checkpoint,
    read_metadata,
    read_state_dict,
    save_safetensors,
)
from seewide.errors import InputError, write_atomically
from seewide.options import parse
from seewide.recipes import Recipe
from seewide.tasks import Task, get_task
from seewide.train.build import build_backbone
from seewide.train.lines import json_line
from seewide.train.runtime import Runtime

CONFIG, METRICS, CURVES = "config.json", "metrics.jsonl", "curves.png"
BEST, LAST, PREVIOUS = "best.safetensors", "last.pt", "previous.pt"


@dataclass(frozen=True)
class RunConfig:
    """Everything that decides the weights of a run, apart from the samples themselves.

    Attributes:
        facts, preprocess: see `seewide.tasks.DataSplits` and `Task.preprocess`.
        samples: numbers of training and validation samples.
        fingerprint: a hash of the names and labels of the samples.
        versions: of the packages that ran it.
    """

    model: str
    data: str
    recipe_name: str
    recipe: Recipe
    runtime: Runtime
    facts: dict[str, Any]
    preprocess: dict[str, Any]
    samples: dict[str, int]
    fingerprint: str
    versions: dict[str, str]

    @property
    def task(self) -> Task:
        """A new instance of the run's task."""
        kind = get_task(self.recipe.task)
        return kind(make_options(kind, self.recipe.options))

    def save(self, folder: Path) -> None:
        content = json.loads(json.dumps(asdict(self)))
        content["checksum"] = checksum(content)
        _write_text(folder / CONFIG, json.dumps(content, indent=2) + "\n")

    @classmethod
    def load(cls, folder: Path) -> RunConfig:
        """Read a run's configuration.

        Raises:
            InputError: the folder is no run, or its configuration is damaged or of seewide 0.1.
        """
        path = folder / CONFIG
        if not path.is_file():
            raise InputError(f"{folder} is not a run folder: it has no {CONFIG}")
        try:
            content = read_config(folder)
            if "class_names" in content:
                version = content.get("versions", {}).get("seewide", "0.1.0")
                raise InputError(
                    f"{folder} is a run of seewide {version}, which this version cannot resume; "
                    f"its weights still load: seewide eval {folder / BEST}"
                )
            content["recipe"] = make_options(Recipe, content["recipe"])
            content["runtime"] = make_options(Runtime, content["runtime"])
            config = cls(**content)
            _ = config.task
            return config
        except InputError as error:
            raise InputError(f"{path} is not valid: {error}") from None
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise InputError(f"{path} is not a run's configuration: {error}") from None


def read_config(folder: Path) -> dict[str, Any]:
    """The content of a run's `config.json`, after its checksum was compared, if it has one.

    Raises:
        InputError: another checksum.
        OSError, ValueError, RecursionError: the file cannot be read.
    """
    content = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    written = content.pop("checksum", None) if isinstance(content, dict) else None
    if written is not None and written != checksum(content):
        raise InputError(
            "its content does not match its checksum: the file is damaged, or was edited (then "
            'remove its line "checksum")'
        )
    return content


@dataclass(frozen=True)
class WeightsInfo:
    """What using trained weights needs; stored as JSON in the header of their file.

    Attributes:
        model: the backbone's timm name.
        task, options: what the weights were trained for.
        backbone: how the backbone was built, beyond the task's own arguments (`stem_stride`).
        epoch: of the run, from 1.
        score: the validation result of that epoch, by the task's score key.
        data: what the run was trained on; empty for published weights.
    """

    model: str
    task: str
    options: dict[str, Any]
    facts: dict[str, Any]
    preprocess: dict[str, Any]
    backbone: dict[str, Any]
    epoch: int
    score: float
    data: str

    def make_task(self) -> Task:
        kind = get_task(self.task)
        return kind(make_options(kind, self.options))

    def build(self) -> tuple[nn.Module, Task]:
        """The model with initial weights, and its task."""
        task = self.make_task()
        backbone = build_backbone(
            self.model,
            task.backbone_options(self.facts),
            image_size=self.preprocess.get("image_size"),
            **self.backbone,
        )
        return task.build(backbone, self.facts), task

    def header(self) -> dict[str, str]:
        """As text, each value in JSON."""
        return {name: json.dumps(value) for name, value in asdict(self).items()}

    @classmethod
    def of(cls, path: Path) -> WeightsInfo | None:
        """Read the header of a safetensors file; None if it is not a run's."""
        return cls.from_header(read_metadata(path))

    @classmethod
    def from_header(cls, header: Mapping[str, str]) -> WeightsInfo | None:
        """The facts in a header, also in that of a file of seewide 0.1; None if there are none."""
        names = {field.name for field in fields(cls)}
        try:
            if "class_names" in header:
                values = _from_0_1({name: json.loads(text) for name, text in header.items()})
            else:
                values = {name: json.loads(header[name]) for name in names}
            info = cls(**values)
            return info if isinstance(info.facts, dict) and isinstance(info.options, dict) else None
        except (TypeError, ValueError, KeyError, RecursionError):  # a fact is missing, or no JSON
            return None


def _from_0_1(values: Mapping[str, Any]) -> dict[str, Any]:
    """The header that seewide 0.1 wrote, which knew classification only."""
    shape = ("image_size", "interpolation", "crop_pct", "crop_mode", "mean", "std")
    return {
        "model": values["model"],
        "task": "classification",
        "options": {key: values[key] for key in shape[:4]},
        "facts": {"class_names": values["class_names"]},
        "preprocess": {key: values[key] for key in shape},
        "backbone": {"stem_stride": values.get("stem_stride", 0)},
        "epoch": values["epoch"],
        "score": values["top1"],
        "data": values["data"],
    }


def make_options(kind: type, values: Mapping[str, Any]) -> Any:
    """An instance of an option dataclass, or of a task's `Options`, from JSON values.

    Raises:
        InputError: unknown names, or values of the wrong type or out of range.
    """
    kind = getattr(kind, "Options", kind)
    return kind(**{name: parse(kind, name, value) for name, value in values.items()})


def weights_of(run: str | os.PathLike) -> Path:
    """The best weights of a run folder; a file stands for itself.

    Raises:
        InputError: neither, or a run whose first epoch is not finished.
    """
    path = Path(run)
    if path.is_dir():
        if not (path / BEST).is_file():
            RunConfig.load(path)  # says so if it is not a run at all
            raise InputError(f"{path} has no {BEST} yet: its first epoch is not finished")
        return path / BEST
    if not path.is_file():
        raise InputError(f"there is no run {run}")
    return path


def load_run(run: str | os.PathLike) -> tuple[nn.Module, Task, WeightsInfo]:
    """The best model of a run, not fused and in evaluation mode, its task and its facts.

    Args:
        run: the folder, or its `best.safetensors` alone.

    Raises:
        InputError: no run, nothing finished in it yet, or a damaged file.
    """
    path = weights_of(run)
    info = WeightsInfo.of(path)
    if info is None:
        raise InputError(f"{path} is not from `seewide train`: its header lacks the run's facts")
    model, task = info.build()
    return load_checkpoint(model, path).eval(), task, info


def save_weights(path: Path, weights: Mapping[str, Tensor], info: WeightsInfo) -> None:
    """Write weights that are on the CPU as safetensors with the facts of their run."""
    save_safetensors(path, weights, info.header())


def epoch_file(epoch: int) -> str:
    """The file of the weights after `epoch`, for runs that retain some."""
    return f"epoch-{epoch}.safetensors"


def save_metrics(folder: Path, history: list[dict[str, float]]) -> None:
    """Write `metrics.jsonl`; numbers that are not finite become null."""
    _write_text(folder / METRICS, "".join(f"{json_line(row)}\n" for row in history))


def save_state(folder: Path, state: Mapping[str, Any]) -> None:
    """Write `last.pt` with its checksum; the one before becomes `previous.pt`."""
    last = folder / LAST
    if last.is_file():
        # A hard link keeps the old content under its second name without copying it.
        scratch = folder / f".writing-{PREVIOUS}"
        with contextlib.suppress(FileNotFoundError):
            scratch.unlink()
        try:
            os.link(last, scratch)
        except OSError:  # a file system without hard links
            with contextlib.suppress(OSError):
                shutil.copyfile(last, scratch)
        with contextlib.suppress(OSError):
            os.replace(scratch, folder / PREVIOUS)
            # Both are names of one file after a kill between the two steps, and renaming one name
            # of a file to another one leaves both.
            scratch.unlink(missing_ok=True)
    save_tensors(last, {**state, "checksum": checksum(state)})


def save_tensors(path: Path, state: Mapping[str, Any]) -> None:
    """Write tensors, numbers, text and containers of them."""
    # In memory first: torch's own writer turns a full disk into an error that is not an OSError.
    buffer = io.BytesIO()
    torch.save(dict(state), buffer)
    _write_bytes(path, buffer.getbuffer())


def read_state(path: Path) -> dict[str, Any]:
    """The content of `last.pt` or `previous.pt`, after its checksum was compared.

    Raises:
        InputError: a damaged file.
    """
    state = dict(read_state_dict(path))
    if state.pop("checksum", None) != checksum(state):
        raise InputError(f"{path} is damaged: its content does not match its checksum")
    return state


def load_state(folder: Path) -> tuple[dict[str, Any] | None, str]:
    """The state to resume from, on the CPU, and a sentence if it is not the last one.

    None before there is any.

    Raises:
        InputError: both states are damaged.
    """
    problems = []
    for name in (LAST, PREVIOUS):
        path = folder / name
        if not path.exists():
            continue
        try:
            state = read_state(path)
        except InputError as error:
            problems.append(str(error))
            continue
        return state, "; ".join(problems) and f"{problems[0]}; resuming from {PREVIOUS}"
    if problems:
        raise InputError("; ".join(problems))
    return None, ""


def _write_bytes(path: Path, content: bytes | memoryview) -> None:
    write_atomically(path, lambda scratch: scratch.write_bytes(content))


def _write_text(path: Path, content: str) -> None:
    write_atomically(path, lambda scratch: scratch.write_text(content, encoding="utf-8"))
