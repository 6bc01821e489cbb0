"""Dynamic sparsity: a share of the weights is zero, and which ones changes while the others learn.

SLaK (arXiv 2207.03620, section 3.3), whose settings PeLK takes over. SNIP (arXiv 1810.02340) picks
the weights to keep before the first update. Then, now and then, in each tensor the smallest of the
kept ones give way to as many of the zeros, picked at random (SET, as in SLaK) or by their gradient
(RigL, arXiv 1911.11134). So every tensor keeps its count, to the weight, and with it the network.

    sparsity = DynamicSparsity(model, 0.4, total_updates=30_000, prune_every=100)
    sparsity.start(lambda: loss_of_one_batch())    # once, before the first update of a new run
    for update in range(30_000):
        ...                                        # backward, all passes; unscale; all-reduce
        sparsity.before_step(update, optimizer, [ema.module])
        ...                                        # clip gradients, step, average

Processes of one run need no messages for this: their weights and averaged gradients are the same,
and chance follows from (seed, update, tensor).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.distributed.tensor import DTensor
from torch.optim import Optimizer

from seewide.errors import InputError, unknown
from seewide.recipes import Recipe
from seewide.train.seeding import seeded

GROWTH = ("random", "gradient")
# Their weights are looked up or scale a channel. What scales channels as a 1 x 1 x 1 x C tensor, a
# global response norm, is known by its shape.
NOT_MULTIPLIED = (nn.Embedding, nn.LayerNorm, nn.GroupNorm)
LEAST_PRUNE_RATE = 0.005  # at the end of the cosine, as in SLaK's code


class DynamicSparsity:
    """Masks over a model's weights, kept at one exact count.

    Args:
        model: its own parameters, not a wrapper's names; DDP around it is fine.
        sparsity: share of all masked weights that is zero, 0 or more and below 1.
        total_updates: of the whole run; the share that moves falls over them.
        prune_rate: share of a tensor's kept weights that moves at first; 0 keeps the first masks.
        prune_every: updates from one move to the next.
        growth: `random` or `gradient`.
        only: patterns of parameter names, as `*.large.conv.weight`; empty: all weights of
            convolutions and linear layers, the classifier included, as in SLaK's code.
        seed: of the random choices.

    Raises:
        InputError: a value out of range, a pattern that fits no weight, or weights that FSDP has
            split over processes.
    """

    def __init__(
        self,
        model: nn.Module,
        sparsity: float,
        *,
        total_updates: int,
        prune_rate: float = 0.3,
        prune_every: int = 100,
        growth: str = "random",
        only: Sequence[str] = (),
        seed: int = 0,
    ) -> None:
        if not 0 <= sparsity < 1:
            raise InputError(f"sparsity must be 0 or more and below 1, got {sparsity}")
        if not 0 <= prune_rate <= 1:
            raise InputError(f"prune_rate must be within 0..1, got {prune_rate}")
        if prune_every < 1 or total_updates < 1:
            raise InputError(
                f"prune_every and total_updates are at least 1, got {prune_every} and "
                f"{total_updates}"
            )
        if growth not in GROWTH:
            raise unknown("growth", growth, GROWTH)
        self.sparsity, self.seed, self.growth = sparsity, seed, growth
        self.prune_rate, self.prune_every = prune_rate, prune_every
        self.total_updates = total_updates
        self.model = model
        self.weights = dict(_chosen(model, only))
        split = [name for name, weight in self.weights.items() if isinstance(weight, DTensor)]
        if split:
            raise InputError(
                f"dynamic sparsity needs whole weights, and FSDP has split {split[0]}; train "
                "without --shard"
            )
        self.masks = {
            name: torch.ones_like(w, dtype=torch.bool) for name, w in self.weights.items()
        }
        self.total = sum(weight.numel() for weight in self.weights.values())
        self.kept = self.total - round(sparsity * self.total)

    @classmethod
    def of(
        cls, model: nn.Module, recipe: Recipe, *, total_updates: int, seed: int
    ) -> DynamicSparsity:
        """As the recipe says."""
        return cls(
            model,
            recipe.sparsity,
            total_updates=total_updates,
            prune_rate=recipe.prune_rate,
            prune_every=recipe.prune_every,
            growth=recipe.growth,
            seed=seed,
        )

    def start(self, loss: Callable[[], Tensor] | None) -> None:
        """Choose the first masks and set all other weights to zero.

        Args:
            loss: the loss of one batch by the model itself (not by DDP around it): SNIP keeps the
                weights with the largest |weight x gradient| in the whole network. Over several
                processes the gradients are averaged. None: the same share of each tensor, at
                random. Batch statistics and chance are afterwards as before.
        """
        if loss is None:
            self._keep_at_random()
        else:
            self._keep_best(self._saliencies(loss))
        self.apply()

    @torch.no_grad()
    def apply(self) -> None:
        """Set every weight without a place in its mask to zero."""
        for name, weight in self.weights.items():
            weight.mul_(self.masks[name])

    @torch.no_grad()
    def before_step(
        self, done: int, optimizer: Optimizer, averages: Iterable[nn.Module] = ()
    ) -> None:
        """Between backward and the optimizer's step: move weights if it is time, mask gradients.

        A gradient without a place in the mask is zero afterwards, before it counts in a norm. With
        zero gradient and fresh state, AdamW and SGD leave a zero weight at zero, weight decay or
        not. What grows begins at zero with fresh state, since it was masked up to now.

        Args:
            done: updates of the run before this one.
            optimizer: of the model; the state of weights that leave is set to zero.
            averages: modules with the same parameter names, as of an exponential moving average,
                which become as sparse as the model.
        """
        if self.prune_rate and done and done % self.prune_every == 0:
            self._move(done)
            self.apply()
            for name, weight in self.weights.items():
                for value in optimizer.state.get(weight, {}).values():
                    if isinstance(value, Tensor) and value.shape == weight.shape:
                        value.mul_(self.masks[name])
            for average in averages:
                for name, weight in average.named_parameters():
                    if name in self.masks:
                        weight.mul_(self.masks[name])
        for name, weight in self.weights.items():
            if weight.grad is not None:
                weight.grad.masked_fill_(~self.masks[name], 0)  # also what overflowed

    def rate(self, done: int) -> float:
        """The share of the kept weights that moves after `done` updates."""
        least = min(LEAST_PRUNE_RATE, self.prune_rate)
        cosine = math.cos(math.pi * min(done / self.total_updates, 1))
        return least + (self.prune_rate - least) * (1 + cosine) / 2

    def state_dict(self) -> dict[str, Any]:
        """The masks; with the weights and the number of updates done, all there is to go on."""
        return {"kept": self.kept, "masks": {name: mask.cpu() for name, mask in self.masks.items()}}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up the masks of a checkpoint; the weights come with the model's own state.

        Raises:
            InputError: masks of another network or another sparsity. Nothing is changed then.
        """
        masks = state["masks"]
        shapes = {name: weight.shape for name, weight in self.weights.items()}
        if {name: mask.shape for name, mask in masks.items()} != shapes:
            raise InputError("the masks of the checkpoint are those of another network")
        if state["kept"] != self.kept:
            raise InputError(
                f"the masks of the checkpoint keep {state['kept']:,} weights, and a sparsity of "
                f"{self.sparsity:g} keeps {self.kept:,}"
            )
        for name, mask in masks.items():
            self.masks[name].copy_(mask)

    def _saliencies(self, loss: Callable[[], Tensor]) -> list[Tensor]:
        """|weight x gradient| of one batch, tensor by tensor."""
        before = {name: buffer.clone() for name, buffer in self.model.named_buffers()}
        weights = list(self.weights.values())
        with seeded(self.seed):
            gradients = torch.autograd.grad(loss(), weights, allow_unused=True)
        with torch.no_grad():
            for name, buffer in self.model.named_buffers():
                buffer.copy_(before[name])
        scores = []
        for name, weight, gradient in zip(self.weights, weights, gradients, strict=True):
            if gradient is None:  # an output that the loss does not use
                gradient = torch.zeros_like(weight)
            elif distributed.is_available() and distributed.is_initialized():
                distributed.all_reduce(gradient)
            if not gradient.isfinite().all():
                raise InputError(f"SNIP needs finite gradients; those of {name} are not")
            scores.append((weight.detach() * gradient).abs())
        return scores

    def _keep_best(self, scores: list[Tensor]) -> None:
        """Masks that keep the `kept` largest scores of all."""
        keep = _largest(torch.cat([score.flatten() for score in scores]), self.kept)
        parts = keep.split([score.numel() for score in scores])
        for mask, part in zip(self.masks.values(), parts, strict=True):
            mask.copy_(part.view_as(mask))

    def _keep_at_random(self) -> None:
        """Masks of the same density, give or take a weight so that the sum is `kept`."""
        seen = kept = 0
        for index, mask in enumerate(self.masks.values()):
            seen += mask.numel()
            count = seen * self.kept // self.total - kept
            kept += count
            mask.copy_(_largest(self._chances(mask, 0, index), count))

    def _move(self, done: int) -> None:
        """In each tensor, take the places of the smallest weights and give as many others.

        A place taken can be given again, as in SET and RigL; that weight then goes on as it was.
        """
        rate = self.rate(done)
        for index, (name, weight) in enumerate(self.weights.items()):
            mask = self.masks[name]
            kept = int(mask.sum())
            count = min(round(rate * kept), mask.numel() - kept)  # a dense tensor stays as it is
            stays = _largest(weight.abs().masked_fill(~mask, -1), kept - count)
            if self.growth == "random":
                scores = self._chances(mask, done, index)
            elif weight.grad is None:
                scores = torch.zeros_like(weight)
            else:  # a gradient that overflowed says nothing
                scores = weight.grad.abs().nan_to_num(0.0, posinf=0.0)
            grows = _largest(scores.masked_fill(stays, -1), count)
            mask.copy_(stays | grows)

    def _chances(self, mask: Tensor, done: int, index: int) -> Tensor:
        """Numbers within 0..1 that follow from (seed, update, tensor), on any device."""
        with seeded(self.seed, done, index):
            return torch.rand(mask.shape).to(mask.device)


def _largest(scores: Tensor, count: int) -> Tensor:
    """Where the `count` largest are; among equals, the first."""
    flat = scores.flatten()
    if not count:
        return torch.zeros_like(scores, dtype=torch.bool)
    least = flat.kthvalue(flat.numel() - count + 1).values
    chosen = flat > least
    equals = (flat == least).nonzero().flatten()
    chosen[equals[: count - int(chosen.sum())]] = True
    return chosen.view_as(scores)


def _chosen(model: nn.Module, only: Sequence[str]) -> Iterator[tuple[str, nn.Parameter]]:
    """Weights of convolutions and linear layers whose names fit a pattern; each must fit some."""
    weights = {}
    for prefix, module in model.named_modules():
        weight = getattr(module, "weight", None)
        if not isinstance(weight, nn.Parameter) or isinstance(module, NOT_MULTIPLIED):
            continue
        if weight.requires_grad and weight.ndim >= 2 and max(weight.shape) < weight.numel():
            weights[f"{prefix}.weight" if prefix else "weight"] = weight
    for pattern in only:
        if not any(fnmatchcase(name, pattern) for name in weights):
            raise unknown("pattern of sparse weights", pattern, weights)
    for name, weight in weights.items():
        if not only or any(fnmatchcase(name, pattern) for pattern in only):
            yield name, weight
