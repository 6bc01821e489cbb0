"""What a run is fed: its pictures to train on and its held-out ones, batch by batch."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from seewide.errors import InputError
from seewide.train.checkpoint import RunConfig, RunInfo
from seewide.train.console import make_progress
from seewide.train.data import (
    BROKEN,
    CHECK_AT_MOST,
    Broken,
    Order,
    Source,
    batches,
    check_pictures,
    make_loader,
    train_transform,
)
from seewide.train.engine import Batch, Engine
from seewide.train.evaluate import make_eval_loader
from seewide.train.learner import Batches, Outcome
from seewide.train.surviving import keep_batch


class Feed:
    """The pictures of one process of a run.

    Attributes:
        train, val: the splits, as far as the recipe uses them.
        split: in words, where the held-out pictures come from.
        updates: of an epoch.
        val_loader: this process's part of the held-out pictures, of which `val_count` count.

    Raises:
        InputError: fewer pictures than an update takes, or a batch that mixup cannot pair.
    """

    def __init__(
        self,
        config: RunConfig,
        info: RunInfo,
        folder: Path,
        source: Source,
        engine: Engine,
        console: Console,
    ) -> None:
        recipe = config.recipe
        self.folder, self.engine, self.console = folder, engine, console
        self.channels_last = config.channels_last
        self.split = source.split
        self.train = source.train.limited(recipe.limit_images)
        self.val = source.val.limited(recipe.limit_images)
        self.updates = len(self.train) // recipe.batch_size
        if not self.updates:
            raise InputError(
                f"batch size {recipe.batch_size} is more than the {len(self.train)} pictures to "
                "train on; choose a smaller one"
            )
        self.size = Batch.of(recipe, engine.ranks).device_batch
        if (recipe.mixup or recipe.cutmix) and self.size % 2:
            raise InputError(
                f"mixup and cutmix pair pictures, so a batch must be even, got {self.size}"
            )
        self.broken = Broken(
            folder / BROKEN,
            len(self.train) + len(self.val),
            config.broken,
            lambda line: console.print(line, markup=False, soft_wrap=True),
        )
        self.order = Order(
            len(self.train),
            seed=config.seed,
            take=self.updates * recipe.batch_size,
            update=recipe.batch_size,
            device_batch=self.size,
            rank=engine.rank,
            ranks=engine.ranks,
            repeats=recipe.repeated_augment,
            shards=self.train.shards,
        )
        self.loader = make_loader(
            self.train,
            train_transform(recipe, config.mean, config.std),
            self.order,
            self.size,
            config.workers,
            seed=config.seed,
            broken=self.broken,
        )
        self.val_loader = make_eval_loader(
            self.val, info, min(64, len(self.val)), config.workers, engine.rank, engine.ranks,
            self.broken,
        )  # fmt: skip
        self.val_count = len(range(engine.rank, len(self.val), engine.ranks))

    def check(self) -> None:
        """All of a split that is not too large, so that most trouble costs seconds."""
        splits = [split for split in (self.train, self.val) if len(split) <= CHECK_AT_MOST]
        found = []
        with make_progress(self.console) as progress:
            bar = progress.add_task("checking the pictures", total=sum(map(len, splits)), note="")
            for split in splits:
                found += check_pictures(split, lambda: progress.advance(bar))
        self.broken.add(found)

    def batches(self, epoch: int, update: int = 0) -> Batches:
        """This process's batches of an epoch from an update on, on the device."""
        self.order.epoch, self.order.start = epoch, update
        layout = torch.channels_last if self.channels_last else torch.preserve_format
        device = self.engine.device
        for x_NCHW, y_N in batches(self.loader):
            yield (
                x_NCHW.to(device, non_blocking=True, memory_format=layout),
                y_N.to(device, non_blocking=True),
            )

    def keep(self, epoch: int, update: int, outcome: Outcome) -> Path:
        """Write the pictures of the pass that an update failed in to the run's folder."""
        self.order.epoch, self.order.start = epoch, update
        first = outcome.guilty * self.size
        keys = list(islice(self.order, first, first + self.size))
        facts: dict[str, Any] = {"epoch": epoch, "update": update}
        facts |= {"loss": outcome.loss, "norm": outcome.norm}
        path = self.folder / f"nan-{self.engine.rank}.pt"
        return keep_batch(path, self.loader.dataset, keys, facts)
