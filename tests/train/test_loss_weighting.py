"""The engine divides by the global weight: of all micro-batches and of all processes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import nn

from seewide.errors import InputError
from seewide.recipes import Recipe
from seewide.tasks import Score, Task
from seewide.train.processes import BatchShape, Processes
from seewide.train.runtime import Runtime
from seewide.train.step import Trainer


@dataclass(frozen=True)
class NoOptions:
    pass


class Regression(Task):
    """A linear regression whose samples weigh differently, as pixels or boxes do."""

    name = "regression"
    Options = NoOptions
    score = Score("loss", "min")

    def loss(self, model, batch):
        error_N = (model(batch["x"])[:, 0] - batch["y"]) ** 2
        return {
            "loss": (batch["weight"] * error_N).sum(),
            "weight": batch["weight"].sum(),
            "bias": batch["weight"].sum() * 2,
        }


def batch(start: int, stop: int) -> dict:
    index = torch.arange(start, stop)
    x = torch.stack([index.float().sin(), index.float().cos()], 1)
    return {"x": x, "y": index.float() / 4, "weight": torch.tensor([3.0, 0.0, 1.0, 5.0] * 4)[index]}


def trainer(device_batch: int, **settings) -> Trainer:
    torch.manual_seed(0)
    recipe = Recipe(
        batch_size=8, device_batch=device_batch, optimizer="momentum", momentum=0.0,
        weight_decay=0.0, lr=0.1, warmup_epochs=0.0, schedule="constant", epochs=1, **settings,
    )  # fmt: skip
    return Trainer(nn.Linear(2, 1), Regression(), recipe, Runtime(), Processes("cpu"), 4, 4)


def expected_gradient(parameters) -> list[torch.Tensor]:
    """That of the weighted mean over all eight samples."""
    torch.manual_seed(0)
    model = nn.Linear(2, 1)
    all_samples = batch(0, 8)
    error_N = (model(all_samples["x"])[:, 0] - all_samples["y"]) ** 2
    loss = (all_samples["weight"] * error_N).sum() / all_samples["weight"].sum()
    return list(torch.autograd.grad(loss, model.parameters()))


@pytest.mark.parametrize("device_batch", [8, 4, 2, 1])
def test_micro_batches_of_unequal_weight_equal_one_batch(device_batch):
    """The mean of means would differ: micro-batches of one sample weigh 3, 0, 1, 5."""
    learner = trainer(device_batch)
    before = [p.detach().clone() for p in learner.model.parameters()]
    parts = [batch(i, i + device_batch) for i in range(0, 8, device_batch)]
    result = learner.step(1, 0, iter(parts))
    moved = [
        (b - p.detach()) / 0.1 for b, p in zip(before, learner.model.parameters(), strict=True)
    ]
    torch.testing.assert_close(moved, expected_gradient(before))
    assert result.parts == {"bias": 2.0}
    total = batch(0, 8)
    torch.manual_seed(0)
    error_N = (nn.Linear(2, 1)(total["x"])[:, 0] - total["y"]) ** 2
    mean = (total["weight"] * error_N).sum() / total["weight"].sum()
    assert result.loss == pytest.approx(mean.item())


def test_a_batch_without_any_weight_changes_nothing():
    learner = trainer(8)
    before = [p.detach().clone() for p in learner.model.parameters()]
    empty = batch(0, 8) | {"weight": torch.zeros(8)}
    result = learner.step(1, 0, iter([empty]))
    assert (result.loss, result.norm, result.finite) == (0.0, 0.0, True)
    assert all(map(torch.equal, before, learner.model.parameters()))


def test_a_task_that_cannot_accumulate():
    recipe = Recipe(task="contrast", batch_size=8, device_batch=4)
    with pytest.raises(InputError, match="needs all samples of a step at once"):
        BatchShape.of(recipe, 1, accumulates=False)
    assert BatchShape.of(recipe, 2, accumulates=False).micro_batches == 1


@pytest.mark.parametrize(
    ("settings", "rates"),
    [
        ({"schedule": "constant"}, [0.1] * 8),
        ({"schedule": "step", "decay_at": (1,)}, [0.1] * 4 + [0.01] * 4),
        ({"schedule": "step", "steps": 8, "decay_at": (2, 6)},
         [0.1] * 2 + [0.01] * 4 + [0.001] * 2),
        ({"schedule": "poly", "poly_power": 1.0, "min_lr": 0.0},
         [0.1 * (1 - done / 8) for done in range(8)]),
        ({"schedule": "constant", "warmup_steps": 4, "warmup_lr": 0.02},
         [0.02, 0.04, 0.06, 0.08] + [0.1] * 4),
    ],
)  # fmt: skip
def test_schedules(settings, rates):
    from seewide.train.optim import Schedule, make_optimizer

    recipe = Recipe(lr=0.1, **{"warmup_epochs": 0.0, **settings})
    optimizer = make_optimizer(nn.Linear(2, 2), recipe)
    schedule = Schedule(optimizer, recipe, total=8, steps_per_epoch=4)
    assert [schedule.set(done) for done in range(8)] == pytest.approx(rates)


def test_multipliers_and_frozen_parameters():
    from seewide.train.optim import parameter_groups

    model = nn.ModuleDict(
        {"backbone": nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)), "head": nn.Linear(2, 2)}
    )
    recipe = Recipe(
        weight_decay=0.1,
        lr_multipliers={"head": 10.0, "backbone": 0.5, "backbone.1": 0.1},
        weight_decay_multipliers={"head": 0.0},
        freeze=("backbone.0.bias",),
    )
    found = {
        id(p): (group.get("lr_scale", 1.0), group["weight_decay"])
        for group in parameter_groups(model, recipe)
        for p in group["params"]
    }
    assert found[id(model["head"].weight)] == (10.0, 0.0)
    assert found[id(model["backbone"][0].weight)] == (0.5, 0.1)
    assert found[id(model["backbone"][1].weight)] == (0.1, 0.1)
    assert id(model["backbone"][0].bias) not in found
    with pytest.raises(InputError, match="unknown prefix to freeze 'stem'"):
        parameter_groups(model, Recipe(freeze=("stem",)))


@pytest.mark.parametrize(("warmup", "decay"), [(False, 0.9999), (True, 0.978)])
def test_the_decay_of_the_average_at_the_end(warmup, decay):
    """Without a warm-up it is the recipe's from the first step on, as in the authors' scripts."""
    learner = trainer(8, ema_decay=0.9999, ema_warmup=warmup)
    learner.total = 300
    assert learner.final_ema_decay() == pytest.approx(decay, abs=1e-3)


def test_two_processes_with_unequal_weights(tmp_path):
    """DDP means the gradients; the result is still that of the weighted mean."""
    from launch import finish, start

    done = finish(start(2, [Path(__file__), tmp_path]))
    for code, _, complaint in done:
        assert code == 0, complaint
    weights = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1)]
    learner = trainer(8)
    learner.step(1, 0, iter([batch(0, 8)]))
    for one, two, expected in zip(*weights, learner.model.parameters(), strict=True):
        assert torch.equal(one, two)
        torch.testing.assert_close(one, expected.detach())


if __name__ == "__main__":
    import sys

    run = trainer(2)
    rank = run.processes.rank
    parts = [batch(i, i + 2) for i in range(0, 8, 2)][rank::2]
    run.step(1, 0, iter(parts))
    torch.save([p.detach() for p in run.model.parameters()], f"{sys.argv[1]}/{rank}.pt")
