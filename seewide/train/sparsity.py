"""Dynamic sparsity: a fraction of the weights is zero, and which ones changes during training.

SLaK (arXiv 2207.03620, section 3.3), whose settings PeLK uses too. SNIP (arXiv 1810.02340) selects
the non-zero weights before the first optimizer step. Then, every `prune_every` steps, in each
tensor the smallest non-zero weights are pruned and as many zeros grow, selected at random (SET, as
in SLaK) or by their gradient (RigL, arXiv 1911.11134). So every tensor has a constant number of
non-zero weights, and so has the network.

    sparsity = DynamicSparsity(model, 0.4, total_steps=30_000, prune_every=100)
    sparsity.start(lambda: loss_of_one_batch())    # once, before the first step of a new run
    for step in range(30_000):
        ...                                        # backward of all micro-batches; unscale; reduce
        sparsity.before_step(step, optimizer, [ema.module])
        ...                                        # clip gradients, optimizer step, average

Processes of one run need not communicate for this: their weights and averaged gradients are the
same, and random numbers follow from (seed, step, tensor).
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
from seewide.seeding import seeded

GROWTH = ("random", "gradient")
# Their weights are looked up or scale a channel. A 1 x 1 x 1 x C tensor, as of a global response
# norm, is recognized by its shape.
NOT_MULTIPLIED = (nn.Embedding, nn.LayerNorm, nn.GroupNorm)
LEAST_PRUNE_RATE = 0.005  # at the end of the cosine, as in SLaK's code


class DynamicSparsity:
    """Masks over a model's weights with an exactly constant number of non-zero entries.

    Args:
        model: the module itself, not DDP around it, whose parameter names differ.
        sparsity: fraction of all masked weights that is zero, at least 0 and below 1.
        total_steps: optimizer steps of the run, over which the pruning rate decreases.
        prune_rate: initial fraction of a tensor's non-zero weights that is pruned at a time; 0:
            fixed masks.
        prune_every: optimizer steps between changes of the masks.
        growth: `random` or `gradient`.
        only: patterns of parameter names, as `*.large.conv.weight`; empty: all weights of
            convolutions and linear layers, the classifier included, as in SLaK's code.
        seed: of the random choices.

    Raises:
        InputError: a value out of range, a pattern that matches no weight, or weights that FSDP
            has sharded.
    """

    def __init__(
        self,
        model: nn.Module,
        sparsity: float,
        *,
        total_steps: int,
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
        if prune_every < 1 or total_steps < 1:
            raise InputError(
                f"prune_every and total_steps are at least 1, got {prune_every} and {total_steps}"
            )
        if growth not in GROWTH:
            raise unknown("growth", growth, GROWTH)
        self.sparsity, self.seed, self.growth = sparsity, seed, growth
        self.prune_rate, self.prune_every = prune_rate, prune_every
        self.total_steps = total_steps
        self.model = model
        self.weights = dict(_chosen(model, only))
        sharded = [name for name, weight in self.weights.items() if isinstance(weight, DTensor)]
        if sharded:
            raise InputError(
                "dynamic sparsity needs the full weights, and FSDP has sharded "
                f"{sharded[0]}; train without --shard"
            )
        self.masks = {
            name: torch.ones_like(w, dtype=torch.bool) for name, w in self.weights.items()
        }
        self.total = sum(weight.numel() for weight in self.weights.values())
        self.nonzero = self.total - round(sparsity * self.total)

    @classmethod
    def of(
        cls, model: nn.Module, recipe: Recipe, *, total_steps: int, seed: int
    ) -> DynamicSparsity:
        """With the settings of a recipe."""
        return cls(
            model,
            recipe.sparsity,
            total_steps=total_steps,
            prune_rate=recipe.prune_rate,
            prune_every=recipe.prune_every,
            growth=recipe.growth,
            seed=seed,
        )

    def start(self, loss: Callable[[], Tensor] | None) -> None:
        """Choose the initial masks and set all masked weights to zero.

        Args:
            loss: returns the loss of one batch, of the model itself (not of DDP around it): SNIP
                selects the weights with the largest |weight x gradient| of the whole network. The
                gradients of several processes are averaged. None: the same fraction of each
                tensor, at random. Batch-norm statistics and random generators are restored.
        """
        if loss is None:
            self._select_at_random()
        else:
            self._select_best(self._saliencies(loss))
        self.apply()

    @torch.no_grad()
    def apply(self) -> None:
        """Set every masked weight to zero."""
        for name, weight in self.weights.items():
            weight.mul_(self.masks[name])

    @torch.no_grad()
    def before_step(
        self, done: int, optimizer: Optimizer, averages: Iterable[nn.Module] = ()
    ) -> None:
        """Between backward and the optimizer's step: change the masks if due, mask the gradients.

        Gradients of masked weights become zero, before the gradient norm is computed. With zero
        gradient and initial state, AdamW and SGD leave a zero weight at zero, with or without
        weight decay. A weight that grows starts at zero with initial state, since it was masked.

        Args:
            done: optimizer steps of the run before this one.
            optimizer: of the model; the state of pruned weights is set to zero.
            averages: modules with the same parameter names, such as an exponential moving average,
                which get the same masks.
        """
        if self.prune_rate and done and done % self.prune_every == 0:
            self._exchange(done)
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
        """The fraction of the non-zero weights that is pruned after `done` optimizer steps."""
        least = min(LEAST_PRUNE_RATE, self.prune_rate)
        cosine = math.cos(math.pi * min(done / self.total_steps, 1))
        return least + (self.prune_rate - least) * (1 + cosine) / 2

    def state_dict(self) -> dict[str, Any]:
        """The masks; with the weights and the number of steps done, all that resuming needs."""
        return {
            "nonzero": self.nonzero,
            "masks": {name: mask.cpu() for name, mask in self.masks.items()},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Load the masks of a checkpoint; the weights are part of the model's state.

        Raises:
            InputError: masks of another network or another sparsity; nothing is changed.
        """
        masks = state["masks"]
        shapes = {name: weight.shape for name, weight in self.weights.items()}
        if {name: mask.shape for name, mask in masks.items()} != shapes:
            raise InputError("the masks of the checkpoint are those of another network")
        if state["nonzero"] != self.nonzero:
            raise InputError(
                f"the checkpoint's masks have {state['nonzero']:,} non-zero weights, and a "
                f"sparsity of {self.sparsity:g} has {self.nonzero:,}"
            )
        for name, mask in masks.items():
            self.masks[name].copy_(mask)

    def _saliencies(self, loss: Callable[[], Tensor]) -> list[Tensor]:
        """|weight x gradient| of one batch, per tensor."""
        before = {name: buffer.clone() for name, buffer in self.model.named_buffers()}
        weights = list(self.weights.values())
        with seeded(self.seed):
            gradients = torch.autograd.grad(loss(), weights, allow_unused=True)
        with torch.no_grad():
            for name, buffer in self.model.named_buffers():
                buffer.copy_(before[name])
        scores = []
        for name, weight, gradient in zip(self.weights, weights, gradients, strict=True):
            if gradient is None:  # of an output that the loss does not use
                gradient = torch.zeros_like(weight)
            elif distributed.is_available() and distributed.is_initialized():
                distributed.all_reduce(gradient)
            if not gradient.isfinite().all():
                raise InputError(f"SNIP needs finite gradients; those of {name} are not")
            scores.append((weight.detach() * gradient).abs())
        return scores

    def _select_best(self, scores: list[Tensor]) -> None:
        """Masks of the `nonzero` largest scores of all tensors."""
        keep = _largest(torch.cat([score.flatten() for score in scores]), self.nonzero)
        parts = keep.split([score.numel() for score in scores])
        for mask, part in zip(self.masks.values(), parts, strict=True):
            mask.copy_(part.view_as(mask))

    def _select_at_random(self) -> None:
        """Masks of equal density, up to one weight, so that the sum is `nonzero`."""
        seen = chosen = 0
        for index, mask in enumerate(self.masks.values()):
            seen += mask.numel()
            count = seen * self.nonzero // self.total - chosen
            chosen += count
            mask.copy_(_largest(self._random(mask, 0, index), count))

    def _exchange(self, done: int) -> None:
        """In each tensor, prune the smallest weights and grow as many others.

        A pruned weight can grow again at once, as in SET and RigL, and then retains its value.
        """
        rate = self.rate(done)
        for index, (name, weight) in enumerate(self.weights.items()):
            mask = self.masks[name]
            nonzero = int(mask.sum())
            count = min(
                round(rate * nonzero), mask.numel() - nonzero
            )  # a dense tensor does not change
            stays = _largest(weight.abs().masked_fill(~mask, -1), nonzero - count)
            if self.growth == "random":
                scores = self._random(mask, done, index)
            elif weight.grad is None:
                scores = torch.zeros_like(weight)
            else:  # ignore gradients that overflowed
                scores = weight.grad.abs().nan_to_num(0.0, posinf=0.0)
            grows = _largest(scores.masked_fill(stays, -1), count)
            mask.copy_(stays | grows)

    def _random(self, mask: Tensor, done: int, index: int) -> Tensor:
        """Random numbers in 0..1 that follow from (seed, step, tensor), on any device."""
        with seeded(self.seed, done, index):
            return torch.rand(mask.shape).to(mask.device)


def _largest(scores: Tensor, count: int) -> Tensor:
    """A mask of the `count` largest; among equals, the first."""
    flat = scores.flatten()
    if not count:
        return torch.zeros_like(scores, dtype=torch.bool)
    least = flat.kthvalue(flat.numel() - count + 1).values
    chosen = flat > least
    equals = (flat == least).nonzero().flatten()
    chosen[equals[: count - int(chosen.sum())]] = True
    return chosen.view_as(scores)


def _chosen(model: nn.Module, only: Sequence[str]) -> Iterator[tuple[str, nn.Parameter]]:
    """Weights of convolutions and linear layers that match a pattern; each must match some."""
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
