"""What learns: a network, its average, its optimizer, and one update after the other."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from timm.models import model_parameters
from timm.utils import ModelEmaV3, adaptive_clip_grad
from torch import Tensor, nn

from seewide.errors import InputError
from seewide.recipes import Recipe
from seewide.train.build import use_grad_checkpointing
from seewide.train.checkpoint import RunConfig
from seewide.train.distillation import make_task
from seewide.train.engine import Batch, Engine, like, optimizer_like, whole
from seewide.train.optim import Schedule, make_optimizer
from seewide.train.seeding import seed_all
from seewide.train.sparsity import DynamicSparsity
from seewide.train.surviving import Patience

Batches = Iterator[tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Outcome:
    """Of one update: mean loss, length of the gradient before clipping, and the learning rate.

    `finite`: whether loss and gradient were numbers; if not, nothing was learned. `guilty`: the
    first pass of this process whose loss was none.
    """

    loss: float
    norm: float
    lr: float
    finite: bool
    guilty: int


class Learner:
    """The network of a run and everything that changes with it.

    Args:
        model: on the CPU, with its first weights.
        updates: of an epoch.

    Chance is drawn anew for each pass, from (seed, epoch, update, pass), and passes are counted
    over all processes. So it does not matter which process draws.
    """

    def __init__(self, model: nn.Module, config: RunConfig, engine: Engine, updates: int) -> None:
        self.recipe: Recipe = config.recipe
        self.engine, self.updates, self.seed = engine, updates, config.seed
        self.batch = Batch.of(self.recipe, engine.ranks)
        if engine.sharded and self.recipe.clip_adaptive:
            raise InputError("adaptive clipping needs whole weights, and --shard splits them")
        if config.grad_checkpointing:
            use_grad_checkpointing(model, config.model)
        self.model = engine.place(
            model,
            sync_batch_norm=bool(self.recipe.sync_batch_norm),
            channels_last=config.channels_last,
        )
        self.ema = self._average()
        engine.shard(self.model, *self.averages)
        self.patience = Patience(config.nan, self.model)
        shown = config.mean, config.std
        self.task = make_task(self.model, self.recipe, config.class_names, shown, engine.device)
        optimizer = make_optimizer(self.model, self.recipe)
        self.loss, self.optimizer = engine.prepare(self.task, self.model, optimizer)
        self.schedule = Schedule(optimizer, self.recipe, updates)
        self.sparsity = self._sparsity()

    def _average(self) -> ModelEmaV3 | None:
        if not self.recipe.ema_decay:
            return None
        whole = not self.engine.sharded  # shards have no fused arithmetic
        return ModelEmaV3(self.model, self.recipe.ema_decay, use_warmup=True, foreach=whole)

    def _sparsity(self) -> DynamicSparsity | None:
        if not self.recipe.sparsity:
            return None
        total = self.recipe.epochs * self.updates
        return DynamicSparsity.of(self.model, self.recipe, total_updates=total, seed=self.seed)

    @property
    def averages(self) -> list[nn.Module]:
        """The averaged network, if there is one."""
        return [] if self.ema is None else [self.ema.module]

    @property
    def kept(self) -> nn.Module:
        """What is validated and kept: the average if there is one."""
        return self.model if self.ema is None else self.ema.module

    def make_sparse(self, images: Batches) -> None:
        """The first masks of a sparse network: from the first batch, or at random."""
        if self.recipe.sparse_init == "random":
            self.sparsity.start(None)
        else:
            self.model.train()
            self.sparsity.start(lambda: self.task(*next(images)))
        if self.ema is not None:
            self.ema.set(self.model)

    def update(self, epoch: int, update: int, images: Batches) -> Outcome:
        """All passes of one update (from 0), and the optimizer's step."""
        done = (epoch - 1) * self.updates + update
        lr = self.schedule.set(done)
        self.patience.before()
        losses = torch.stack([self._pass((epoch, update), n, images) for n in self._passes])
        self.engine.unscale()
        if self.sparsity is not None:
            self.sparsity.before_step(done, self.optimizer, self.averages)
        norm = self.engine.gradient_norm(self.model, self.recipe.clip_grad)
        if self.recipe.clip_adaptive:
            parameters = model_parameters(self.model, exclude_head=True)
            adaptive_clip_grad(parameters, self.recipe.clip_adaptive)
        # One wait for the device.
        own, norm, *parts = torch.stack([losses.mean(), norm, *losses]).tolist()
        (loss,) = self.engine.total(own / self.engine.ranks)
        # Scaled gradients may overflow; the scaler then leaves out the step and scales less.
        finite = math.isfinite(loss) and (math.isfinite(norm) or self.engine.scaler is not None)
        if finite:
            self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        if finite and self.ema is not None:
            self.ema.update(self.model, step=done + 1)
        guilty = next((n for n, part in enumerate(parts) if not math.isfinite(part)), 0)
        return Outcome(loss, norm, lr, finite, guilty)

    @property
    def _passes(self) -> Iterable[int]:
        return range(self.batch.passes)

    def _pass(self, key: tuple[int, int], number: int, images: Batches) -> Tensor:
        """Forward and backward; the loss."""
        x_NCHW, y_N = next(images)
        seed_all(self.seed, *key, number * self.batch.ranks + self.engine.rank)
        with self.engine.turn(last=number + 1 == self.batch.passes):
            loss = self.loss(x_NCHW, y_N)
            self.engine.accelerator.backward(loss / self.batch.passes)
        return loss.detach()

    def state_dict(self) -> dict[str, Any]:
        """Whole, on any device; every process of a sharded run must ask."""
        scaler, sparsity = self.engine.scaler, self.sparsity
        return {
            "model": whole(self.model.state_dict()),
            "ema": None if self.ema is None else whole(self.ema.module.state_dict()),
            "optimizer": whole(self.optimizer.state_dict()),
            "scaler": None if scaler is None else scaler.state_dict(),
            "sparsity": None if sparsity is None else sparsity.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Of any number of processes."""
        self.model.load_state_dict(like(state["model"], self.model.state_dict()))
        for average in self.averages:
            average.load_state_dict(like(state["ema"], average.state_dict()))
        groups = self.optimizer.param_groups
        parameters = [parameter for group in groups for parameter in group["params"]]
        self.optimizer.load_state_dict(optimizer_like(state["optimizer"], parameters))
        if self.engine.scaler is not None and state["scaler"] is not None:
            self.engine.scaler.load_state_dict(state["scaler"])
        if self.sparsity is not None:
            self.sparsity.load_state_dict(state["sparsity"])
