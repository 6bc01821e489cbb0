"""The trained model with its average and optimizer, and one optimizer step after the other."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from timm.utils import ModelEmaV3, adaptive_clip_grad
from torch import Tensor, nn

from seewide.errors import InputError
from seewide.recipes import Recipe
from seewide.seeding import seed_all
from seewide.tasks import Batch, Task, find_backbone
from seewide.train.build import classifiers_of, use_grad_checkpointing
from seewide.train.nonfinite import NonFiniteGuard
from seewide.train.optim import Schedule, make_optimizer
from seewide.train.processes import (
    BatchShape,
    Processes,
    gather_full_state,
    shard_like,
    shard_optimizer_like,
)
from seewide.train.runtime import Runtime
from seewide.train.sparsity import DynamicSparsity

Batches = Iterator[Batch]


@dataclass(frozen=True)
class StepResult:
    """What an optimizer step did.

    Attributes:
        loss: mean over the step's global weight.
        norm: of the gradient, before it was clipped.
        lr: the largest of all parameter groups.
        finite: whether loss and gradient were finite; otherwise the optimizer step was left out.
        stop: whether any process was asked to stop.
        first_nonfinite_microbatch: of this process; 0 if there is none.
        parts: further numbers that the task logs, as means of the same weight.
    """

    loss: float
    norm: float
    lr: float
    finite: bool
    stop: bool = False
    first_nonfinite_microbatch: int = 0
    parts: dict[str, float] = field(default_factory=dict)


class LossModule(nn.Module):
    """The model and the task's loss as one module, which DDP can wrap."""

    def __init__(self, task: Task, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self._loss = task.loss

    def forward(self, batch: Batch) -> dict[str, Any]:
        return self._loss(self.model, batch)


class Trainer:
    """A model in training.

    Args:
        model: on the CPU, with its initial weights.
        total: optimizer steps of the whole run.
        steps_per_epoch: optimizer steps of an epoch.

    Random numbers are seeded for each micro-batch from (seed, epoch, step, micro-batch), where
    micro-batches are counted over all processes. So it does not matter which process computes them.
    """

    def __init__(
        self,
        model: nn.Module,
        task: Task,
        recipe: Recipe,
        runtime: Runtime,
        processes: Processes,
        total: int,
        steps_per_epoch: int,
    ) -> None:
        self.recipe, self.processes, self.task = recipe, processes, task
        self.seed, self.total, self.steps_per_epoch = runtime.seed, total, steps_per_epoch
        self.batch = BatchShape.of(recipe, processes.ranks, task.accumulates)
        if processes.sharded and recipe.clip_adaptive:
            raise InputError("clip_adaptive needs the full weights, which --shard splits")
        if runtime.grad_checkpointing:
            use_grad_checkpointing(find_backbone(model), type(find_backbone(model)).__name__)
        self.model = processes.move(
            model,
            sync_batch_norm=recipe.sync_batch_norm,
            channels_last=runtime.channels_last,
        )
        self.ema = self._average()
        processes.shard(self.model, *self.averages)
        self.guard = NonFiniteGuard(runtime.nan, self.model)
        optimizer = make_optimizer(self.model, recipe)
        self._loss_module = LossModule(task, self.model)
        self.loss, self.optimizer = processes.prepare(self._loss_module, self.model, optimizer)
        self.schedule = Schedule(optimizer, recipe, total, steps_per_epoch)
        self.sparsity = self._sparsity()

    def _average(self) -> ModelEmaV3 | None:
        recipe = self.recipe
        if not recipe.ema_decay:
            return None
        fused = not self.processes.sharded  # shards have no fused arithmetic
        return ModelEmaV3(self.model, recipe.ema_decay, use_warmup=recipe.ema_warmup, foreach=fused)

    def _sparsity(self) -> DynamicSparsity | None:
        if not self.recipe.sparsity:
            return None
        return DynamicSparsity.of(self.model, self.recipe, total_steps=self.total, seed=self.seed)

    @property
    def averages(self) -> list[nn.Module]:
        """The averaged model, if there is one."""
        return [] if self.ema is None else [self.ema.module]

    @property
    def evaluated(self) -> nn.Module:
        """The model that is validated and saved as the best: the average if there is one."""
        return self.model if self.ema is None else self.ema.module

    def final_ema_decay(self) -> float:
        """The decay of the average at the last step: smaller than the recipe's with a warm-up."""
        return self.ema.get_decay(self.total)

    def init_sparsity(self, batches: Batches) -> None:
        """The first masks of a sparse network: from the first batch, or at random."""
        if self.recipe.sparse_init == "random":
            self.sparsity.start(None)
        else:
            self.model.train()

            def mean_loss() -> Tensor:
                result = self._loss_module(next(batches))
                return result["loss"] / result["weight"]

            self.sparsity.start(mean_loss)
        if self.ema is not None:
            self.ema.set(self.model)

    def step(
        self,
        epoch: int,
        number: int,
        batches: Batches,
        stop: Callable[[], bool] = lambda: False,
    ) -> StepResult:
        """All micro-batches of step `number` (from 0) of an epoch, and the optimizer's step.

        `stop()` says whether this process was asked to stop; the result, whether any was.
        """
        done = (epoch - 1) * self.steps_per_epoch + number
        lr = self.schedule.set(done)
        self.guard.before_step()
        results = [
            self._micro_batch((epoch, number), index, batches)
            for index in range(self.batch.micro_batches)
        ]
        sums = {key: _sum(result[key] for result in results) for key in results[0]}
        # One exchange between the processes, and one wait for the device.
        totals = self.processes.total([*_numbers(sums.values()), float(stop())])
        means = dict(zip(sums, totals, strict=False))
        weight = means.pop("weight")
        means = {key: value / weight if weight else 0.0 for key, value in means.items()}
        self._divide_gradients(weight)
        self.processes.unscale()
        if self.sparsity is not None:
            self.sparsity.before_step(done, self.optimizer, self.averages)
        norm = float(self.processes.gradient_norm(self.model, self.recipe.clip_grad))
        if self.recipe.clip_adaptive:
            adaptive_clip_grad(self._outside_head(), self.recipe.clip_adaptive)
        loss = means.pop("loss")
        # Scaled gradients may overflow; the scaler then leaves out the step and scales less.
        scaler = self.processes.scaler
        finite = math.isfinite(loss) and (math.isfinite(norm) or scaler is not None)
        if finite:
            self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        if finite and self.ema is not None:
            self.ema.update(self.model, step=done + 1)
        first = 0
        if not finite:
            losses = _numbers(result["loss"] for result in results)
            first = next((i for i, loss in enumerate(losses) if not math.isfinite(loss)), 0)
        return StepResult(loss, norm, lr, finite, totals[-1] > 0, first, means)

    def _micro_batch(self, key: tuple[int, int], index: int, batches: Batches) -> dict[str, Any]:
        """Forward and backward; the detached sums."""
        batch = next(batches)
        ranks, rank = self.processes.ranks, self.processes.rank
        seed_all(self.seed, *key, index * ranks + rank)
        with self.processes.micro_batch(last=index + 1 == self.batch.micro_batches):
            result = self.loss(batch)
            self.processes.accelerator.backward(result["loss"] / self.batch.device_total)
        return {key: _detached(value) for key, value in result.items()}

    def _divide_gradients(self, weight: float) -> None:
        """Turn the mean over processes of sum / device_total into the mean over the global weight.

        Nothing is to be done where every sample weighs 1, as in classification.
        """
        factor = self.batch.device_total * self.batch.ranks / weight if weight else 0.0
        if factor != 1:
            gradients = [p.grad for p in self.model.parameters() if p.grad is not None]
            for gradient in gradients:
                gradient.mul_(factor)

    def _outside_head(self) -> list[nn.Parameter]:
        """The parameters that adaptive clipping applies to: the backbone without its classifier."""
        backbone = find_backbone(self.model)
        head = {p for module in classifiers_of(backbone) for p in module.parameters()}
        return [p for p in backbone.parameters() if p not in head]

    def state_dict(self) -> dict[str, Any]:
        """The full state, on any device; all processes of a sharded run must call it."""
        scaler, sparsity = self.processes.scaler, self.sparsity
        return {
            "model": gather_full_state(self.model.state_dict()),
            "ema": None if self.ema is None else gather_full_state(self.ema.module.state_dict()),
            "optimizer": gather_full_state(self.optimizer.state_dict()),
            "scaler": None if scaler is None else scaler.state_dict(),
            "sparsity": None if sparsity is None else sparsity.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The state of a run on any number of processes."""
        self.model.load_state_dict(shard_like(state["model"], self.model.state_dict()))
        for average in self.averages:
            average.load_state_dict(shard_like(state["ema"], average.state_dict()))
        groups = self.optimizer.param_groups
        parameters = [parameter for group in groups for parameter in group["params"]]
        self.optimizer.load_state_dict(shard_optimizer_like(state["optimizer"], parameters))
        if self.processes.scaler is not None and state["scaler"] is not None:
            self.processes.scaler.load_state_dict(state["scaler"])
        if self.sparsity is not None:
            self.sparsity.load_state_dict(state["sparsity"])


def _detached(value: Any) -> Any:
    return value.detach() if isinstance(value, Tensor) else value


def _sum(values: Any) -> Any:
    total = 0
    for value in values:
        total = total + value
    return total


def _numbers(values: Any) -> list[float]:
    """Tensors and numbers as numbers, with a single copy from the device."""
    values = list(values)
    tensors = [value.double().reshape(()) for value in values if isinstance(value, Tensor)]
    copied = iter(torch.stack(tensors).tolist() if tensors else [])
    return [next(copied) if isinstance(value, Tensor) else float(value) for value in values]
