"""The samples of one process of a run: batches to train on, and held-out ones to validate on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import Tensor

from seewide.console import make_progress
from seewide.data.broken import BROKEN, BrokenSamples
from seewide.data.loader import Loader, batches, make_loader
from seewide.data.order import Order
from seewide.data.samples import Samples, check_samples
from seewide.errors import InputError
from seewide.recipes import Recipe
from seewide.tasks import Batch, DataSplits, Task
from seewide.train.checkpoint import save_tensors
from seewide.train.processes import BatchShape, Processes
from seewide.train.runtime import Runtime
from seewide.train.step import StepResult

# Beyond this, reading everything twice costs more than a late error; it takes about a minute.
CHECK_AT_MOST = 100_000


class Feed:
    """The data of one process of a run.

    Attributes:
        train, val: the samples, as far as the recipe uses them.
        steps: optimizer steps of an epoch.
        val_loader: this process's share of the held-out samples, of which `val_count` count.

    Raises:
        InputError: fewer samples than an optimizer step takes.
    """

    def __init__(
        self,
        splits: DataSplits,
        task: Task,
        recipe: Recipe,
        runtime: Runtime,
        preprocess: dict[str, Any],
        folder: Path,
        processes: Processes,
        console: Console,
    ) -> None:
        self.folder, self.task, self.processes, self.console = folder, task, processes, console
        self.channels_last = runtime.channels_last
        self.train = splits.train.limited(recipe.limit_samples)
        self.val = splits.val.limited(recipe.limit_samples)
        self.steps = len(self.train) // recipe.batch_size
        if not self.steps:
            raise InputError(
                f"batch size {recipe.batch_size} is more than the {len(self.train)} samples to "
                "train on; choose a smaller one"
            )
        self.size = BatchShape.of(recipe, processes.ranks).device_batch
        workers = runtime.worker_count(in_memory=splits.in_memory)
        self.broken = BrokenSamples(
            folder / BROKEN,
            len(self.train) + len(self.val),
            runtime.broken,
            lambda line: console.print(line, markup=False, soft_wrap=True),
        )
        self.order = Order(
            len(self.train),
            seed=runtime.seed,
            per_epoch=self.steps * recipe.batch_size,
            batch_size=recipe.batch_size,
            device_batch=self.size,
            rank=processes.rank,
            world_size=processes.ranks,
            repeats=recipe.repeated_augment,
            shards=self.train.shards,
        )
        self.loader = make_loader(
            self.train,
            task.transform(True, preprocess),
            task.collate,
            self.order,
            self.size,
            workers,
            seed=runtime.seed,
            broken=self.broken,
        )
        self.val_loader, self.val_count = make_eval_loader(
            self.val, task, preprocess, min(64, len(self.val)), workers,
            processes.rank, processes.ranks, self.broken,
        )  # fmt: skip

    def check(self) -> None:
        """Read all samples of a split that is not too large, so that most errors cost seconds."""
        splits = [split for split in (self.train, self.val) if len(split) <= CHECK_AT_MOST]
        found = []
        with make_progress(self.console) as progress:
            bar = progress.add_task("checking the samples", total=sum(map(len, splits)), note="")
            for split in splits:
                found += check_samples(split, lambda: progress.advance(bar))
        self.broken.add(found)

    def batches(self, epoch: int, step: int = 0) -> Iterator[Batch]:
        """This process's batches of an epoch from a step on, on the device."""
        self.order.epoch, self.order.step = epoch, step
        layout = torch.channels_last if self.channels_last else None
        for batch in batches(self.loader):
            yield to_device(batch, self.processes.device, layout)

    def save_nonfinite(self, epoch: int, step: int, result: StepResult) -> Path:
        """Write the first micro-batch with a non-finite loss to the run's folder.

        The file holds `batch` as it was before mixup, `keys` of (epoch, index), the epoch, the
        step, the loss and the gradient norm; `torch.load(path, weights_only=True)` reads it.
        """
        self.order.epoch, self.order.step = epoch, step
        first = result.first_nonfinite_microbatch * self.size
        keys = list(islice(self.order, first, first + self.size))
        path = self.folder / f"nan-{self.processes.rank}.pt"
        facts = {"epoch": epoch, "step": step, "loss": result.loss, "norm": result.norm}
        save_tensors(path, {"batch": self.loader.read(keys), "keys": torch.tensor(keys), **facts})
        return path


def make_eval_loader(
    samples: Samples,
    task: Task,
    preprocess: dict[str, Any],
    batch_size: int,
    workers: int,
    rank: int = 0,
    ranks: int = 1,
    broken: BrokenSamples | None = None,
) -> tuple[Loader, int]:
    """The samples of one of `ranks` processes, in order: every `ranks`-th; and how many count.

    Each process has as many, so that sharded networks run in step: some read the last sample once
    more, which does not count.
    """
    last = len(samples) - 1
    mine = [min(index, last) for index in range(rank, last + ranks, ranks)]
    part = samples if ranks == 1 else samples.take(mine)
    loader = make_loader(
        part, task.transform(False, preprocess), task.collate, Order(len(part)), batch_size,
        workers, broken=broken,
    )  # fmt: skip
    return loader, len(range(rank, len(samples), ranks))


def to_device(batch: Any, device: torch.device, layout: torch.memory_format | None = None) -> Any:
    """A nested batch on a device; 4-D tensors in the memory format `layout`."""
    if isinstance(batch, Tensor):
        settings = {"memory_format": layout} if layout is not None and batch.ndim == 4 else {}
        return batch.to(device, non_blocking=True, **settings)
    return map_nested(lambda value: to_device(value, device, layout), batch)


def take_first(batch: Any, count: int) -> Any:
    """The first `count` samples of a nested batch."""
    if isinstance(batch, Tensor | list | tuple):
        return batch[:count]
    return map_nested(lambda value: take_first(value, count), batch)


def batch_length(batch: Any) -> int:
    """The number of samples of a nested batch."""
    if isinstance(batch, dict):
        return batch_length(next(iter(batch.values())))
    return len(batch)


def map_nested(function: Callable[[Any], Any], batch: Any) -> Any:
    """`function` of the entries of a dict, list or tuple; other values as they are."""
    if isinstance(batch, dict):
        return type(batch)((key, function(value)) for key, value in batch.items())
    if isinstance(batch, list | tuple):
        return type(batch)(map(function, batch))
    return batch
