"""Dynamic sparsity: a constant number of non-zero weights, none outside the masks, repeatable."""

from __future__ import annotations

import io
import json
import socket
from dataclasses import replace

import pytest
import tiny
import torch
import torch.nn.functional as F
from rich.console import Console
from timm.utils import ModelEmaV3
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from seewide import InputError
from seewide.models import PeLK
from seewide.recipes import get
from seewide.train import Interrupted, fit, load_run, resume
from seewide.train.checkpoint import load_state
from seewide.train.density import density_of, report_density
from seewide.train.sparsity import DynamicSparsity
from seewide.train.step import Trainer

STEPS = 12


def pelk() -> PeLK:
    """A PeLK of 40 thousand parameters, its layers at work from the first update."""
    torch.manual_seed(0)
    return PeLK(
        num_classes=5,
        depths=(1, 1, 1, 1),
        dims=(8, 12, 16, 24),
        kernel_sizes=(13, 13, 7, 7),
        ls_init_value=0.5,
        drop_path_rate=0.2,
    )


def batch(number: int):
    chance = torch.Generator().manual_seed(number)
    x_NCHW = torch.randn(4, 3, 32, 32, generator=chance)
    return x_NCHW, torch.randint(0, 5, (4,), generator=chance)


def loss_of(model: nn.Module, number: int) -> torch.Tensor:
    x_NCHW, y_N = batch(number)
    return F.cross_entropy(model(x_NCHW), y_N)


class Training:
    """A loop of a dozen lines around dynamic sparsity."""

    def __init__(self, growth: str = "random", every: int = 2, seed: int = 3):
        self.model = pelk()
        self.sparsity = DynamicSparsity(
            self.model, 0.4, total_steps=STEPS, prune_rate=0.5, prune_every=every,
            growth=growth, seed=seed,
        )  # fmt: skip
        self.sparsity.start(lambda: loss_of(self.model, 99))
        self.average = ModelEmaV3(self.model, decay=0.8)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-2, weight_decay=0.1)

    def step(self, done: int) -> None:
        torch.manual_seed(done)
        self.optimizer.zero_grad()
        loss_of(self.model, done).backward()
        self.sparsity.before_step(done, self.optimizer, [self.average.module])
        self.optimizer.step()
        self.average.update(self.model, step=done)

    def dead(self):
        """Everything that has no place in the masks: weights, gradients, state, average."""
        averaged = dict(self.average.module.named_parameters())
        for name, weight in self.sparsity.weights.items():
            outside = ~self.sparsity.masks[name]
            state = self.optimizer.state[weight]
            for tensor in (weight, weight.grad, state["exp_avg"], state["exp_avg_sq"]):
                yield tensor[outside]
            yield averaged[name][outside]


def counts(sparsity: DynamicSparsity) -> dict[str, int]:
    return {name: int(mask.sum()) for name, mask in sparsity.masks.items()}


@pytest.mark.parametrize("growth", ["random", "gradient"])
def test_every_step_keeps_the_count_and_nothing_leaks(growth):
    run = Training(growth)
    first, before = counts(run.sparsity), run.sparsity.state_dict()["masks"]
    before = {name: mask.clone() for name, mask in before.items()}
    total = sum(weight.numel() for weight in run.sparsity.weights.values())
    assert sum(first.values()) == run.sparsity.nonzero == total - round(0.4 * total)
    moved = []
    for done in range(STEPS):
        run.step(done)
        assert counts(run.sparsity) == first
        assert all(not tensor.any() for tensor in run.dead())
        moved.append(any((run.sparsity.masks[name] != mask).any() for name, mask in before.items()))
    assert moved == [False, False] + [True] * (STEPS - 2)
    grown = run.sparsity.masks["stages.2.blocks.0.fc1.weight"]
    grown = grown & ~before["stages.2.blocks.0.fc1.weight"]
    weight = run.sparsity.weights["stages.2.blocks.0.fc1.weight"]
    assert grown.any()
    assert weight[grown].count_nonzero() > 0.9 * int(grown.sum())


def test_snip_keeps_the_largest_weight_times_gradient_of_the_network():
    model = pelk()
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    chance = torch.get_rng_state()
    dense = {name: p.detach().clone() for name, p in model.named_parameters()}
    sparsity = DynamicSparsity(model.eval(), 0.7, total_steps=1)
    sparsity.start(lambda: loss_of(model, 0))
    assert torch.equal(torch.get_rng_state(), chance)
    for name, buffer in model.named_buffers():
        assert torch.equal(buffer, buffers[name])
    twin = pelk().eval()
    loss_of(twin, 0).backward()
    scores = {n: (p * p.grad).abs().detach() for n, p in twin.named_parameters()}
    kept = torch.cat([scores[name][mask] for name, mask in sparsity.masks.items()])
    left = torch.cat([scores[name][~mask] for name, mask in sparsity.masks.items()])
    assert kept.min() >= left.max()
    assert len({round(float(m.float().mean()), 2) for m in sparsity.masks.values()}) > 3
    for name, mask in sparsity.masks.items():
        assert torch.equal(sparsity.weights[name], dense[name] * mask)


def test_batch_statistics_do_not_learn_from_snip():
    model = pelk().train()
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    DynamicSparsity(model, 0.4, total_steps=1).start(lambda: loss_of(model, 0))
    assert all(torch.equal(buffer, before[name]) for name, buffer in model.named_buffers())


def test_without_a_batch_every_tensor_gets_the_same_share():
    sparsity = DynamicSparsity(pelk(), 0.4, total_steps=1)
    sparsity.start(None)
    assert sum(counts(sparsity).values()) == sparsity.nonzero
    for mask in sparsity.masks.values():
        assert abs(int(mask.sum()) - 0.6 * mask.numel()) <= 1


def one_layer(growth: str, rate: float = 0.5) -> tuple[nn.Linear, DynamicSparsity]:
    """Ten weights, six of them kept: 1, -2, 3, -4, 5, -6."""
    layer = nn.Linear(5, 2, bias=False)
    sparsity = DynamicSparsity(
        layer, 0.4, total_steps=10, prune_rate=rate, prune_every=1, growth=growth
    )
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[1.0, -2, 3, -4, 5], [-6, 0, 0, 0, 0]]))
    sparsity.load_state_dict({"nonzero": 6, "masks": {"weight": layer.weight != 0}})
    return layer, sparsity


def test_the_smallest_leave_and_the_steepest_arrive():
    layer, sparsity = one_layer("gradient")
    layer.weight.grad = torch.tensor([[0.0, 0, 9, 0, 0], [0, 1, -7, float("inf"), 4]])
    sparsity.before_step(1, torch.optim.SGD(layer.parameters(), lr=1.0))
    # 3 of 6 leave: 1, -2, 3. By gradient arrive 9 (the 3 again, as it was), -7 and 4.
    assert layer.weight.tolist() == [[0, 0, 3, -4, 5], [-6, 0, 0, 0, 0]]
    assert sparsity.masks["weight"].int().tolist() == [[0, 0, 1, 1, 1], [1, 0, 1, 0, 1]]
    assert layer.weight.grad.tolist() == [[0, 0, 9, 0, 0], [0, 0, -7, 0, 4]]


def test_the_share_that_moves_falls_with_a_cosine():
    _, sparsity = one_layer("random")
    assert sparsity.rate(0) == 0.5
    assert sparsity.rate(5) == pytest.approx((0.5 + 0.005) / 2)
    assert sparsity.rate(10) == pytest.approx(0.005)


def test_no_prune_rate_keeps_the_first_masks():
    layer, sparsity = one_layer("random", rate=0.0)
    before = sparsity.masks["weight"].clone()
    for done in range(1, 10):
        sparsity.before_step(done, torch.optim.SGD(layer.parameters(), lr=1.0))
    assert torch.equal(sparsity.masks["weight"], before)


def test_a_resumed_run_ends_as_an_unbroken_one():
    unbroken = Training()
    for done in range(STEPS):
        unbroken.step(done)

    first = Training()
    for done in range(7):
        first.step(done)
    file = io.BytesIO()
    torch.save(
        [x.state_dict() for x in (first.sparsity, first.model, first.average, first.optimizer)],
        file,
    )
    file.seek(0)
    resumed = Training(seed=3)
    parts = resumed.sparsity, resumed.model, resumed.average, resumed.optimizer
    for part, state in zip(parts, torch.load(file, weights_only=True), strict=True):
        part.load_state_dict(state)
    for done in range(7, STEPS):
        resumed.step(done)

    for name, mask in unbroken.sparsity.masks.items():
        assert torch.equal(mask, resumed.sparsity.masks[name])
    for old, new in zip(unbroken.model.parameters(), resumed.model.parameters(), strict=True):
        assert torch.equal(old, new)

    other = Training(seed=4)
    for done in range(3):
        other.step(done)
    assert any((m != unbroken.sparsity.masks[n]).any() for n, m in other.sparsity.masks.items())


def test_which_weights():
    names = set(DynamicSparsity(pelk(), 0.4, total_steps=1).weights)
    assert {"stem.0.weight", "head.fc.weight", "stages.0.blocks.0.fc2.weight"} <= names
    assert "stages.0.blocks.0.mixer.mixer.large.conv.weight" in names
    assert not any("pos_embed" in name or "norm" in name for name in names)
    unireplknet = tiny.tiny_unireplknet()
    names = set(DynamicSparsity(unireplknet, 0.4, total_steps=1).weights)
    assert not any("grn" in name for name in names)  # 1 x 1 x 1 x C: scales channels
    only = DynamicSparsity(pelk(), 0.4, total_steps=1, only=["*.large.conv.weight"])
    assert len(only.weights) == 4
    assert all("large" in name for name in only.weights)


def test_of_a_recipe():
    recipe = get("slak_t_in1k")
    sparsity = DynamicSparsity.of(pelk(), recipe, total_steps=9, seed=1)
    assert (sparsity.sparsity, sparsity.prune_rate, sparsity.prune_every) == (0.4, 0.5, 2000)


@pytest.mark.parametrize(
    ("setting", "sentence"),
    [
        ({"sparsity": 1.0}, "sparsity must be 0 or more and below 1, got 1.0"),
        ({"prune_rate": 1.5}, "prune_rate must be within 0..1, got 1.5"),
        ({"prune_every": 0}, "prune_every and total_steps are at least 1, got 0 and 5"),
        ({"growth": "momentum"}, "unknown growth 'momentum'"),
        ({"only": ["*.larg.conv.weight"]}, "unknown pattern of sparse weights '*.larg.conv"),
    ],
)
def test_settings_that_cannot_work(setting, sentence):
    with pytest.raises(InputError) as error:
        DynamicSparsity(pelk(), **{"sparsity": 0.4, "total_steps": 5, **setting})
    assert str(error.value).startswith(sentence)


def test_masks_of_something_else_are_refused():
    sparsity = DynamicSparsity(pelk(), 0.4, total_steps=1)
    with pytest.raises(InputError, match="another network"):
        sparsity.load_state_dict(one_layer("random")[1].state_dict())
    other = DynamicSparsity(pelk(), 0.5, total_steps=1)
    with pytest.raises(InputError, match=r"a sparsity of 0\.4 has"):
        sparsity.load_state_dict(other.state_dict())


def test_non_finite_gradients_are_refused():
    model = pelk()
    with pytest.raises(InputError, match=r"finite gradients; those of .*weight are not"):
        DynamicSparsity(model, 0.4, total_steps=1).start(lambda: loss_of(model, 0) * float("inf"))


def test_the_report_counts_the_multiply_adds_that_are_left(tmp_path):
    model = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.Flatten(), nn.Linear(4 * 36, 5))
    sparsity = DynamicSparsity(model, 0.5, total_steps=1)
    sparsity.start(None)
    report = report_density(sparsity, (1, 3, 6, 6))
    assert report.dense_macs == 36 * 4 * 27 + 144 * 5
    left = sparsity.masks["0.weight"].sum() * 36 + sparsity.masks["2.weight"].sum()
    assert report.macs == left
    assert report.parameters == sparsity.nonzero + 4 + 5
    saved = json.loads(report.save(tmp_path / "density.json").read_text())
    assert saved["macs"] == report.macs
    assert [layer["nonzero"] for layer in saved["layers"]] == list(counts(sparsity).values())
    console = Console(width=120, record=True, quiet=False, file=io.StringIO())
    console.print(report.table())
    assert "50.0% of 828 weights are zero" in console.export_text()


def test_a_shared_weight_counts_for_each_tap_of_its_cell():
    model = pelk()
    name = "stages.0.blocks.0.mixer.mixer.large.conv.weight"
    sparsity = DynamicSparsity(model, 0.0, total_steps=1, only=[name])
    dense = report_density(sparsity, (1, 3, 32, 32))
    assert dense.macs == dense.dense_macs
    sparsity.masks[name][:, 0, 0] = False  # the corner: a cell of 4 x 4 taps of 13 x 13
    layer = model.get_submodule(name.removesuffix(".weight"))
    report = report_density(sparsity, (1, 3, 32, 32))
    lost = report.layers[0].dense_macs * (layer.grid[0] / 13) ** 2
    assert report.dense_macs - report.macs == pytest.approx(lost, abs=1)
    model.compile(backend="eager")
    assert report_density(sparsity, (1, 3, 32, 32)) == report
    assert layer.grid[0] > 1


def test_a_sparse_run_has_the_density_of_its_recipe_and_resumes_with_it(
    images, small, quiet, tmp_path, monkeypatch
):
    recipe = replace(small, epochs=2, sparsity=0.4, prune_every=1, growth="gradient")
    unbroken = fit(tiny.NAME, images, recipe, tmp_path / "unbroken", console=quiet).folder
    average, *_ = load_run(unbroken)
    sparsity = DynamicSparsity(average, 0.4, total_steps=1)
    sparsity.load_state_dict(load_state(unbroken)[0]["sparsity"])
    assert sum(counts(sparsity).values()) == sparsity.nonzero < sparsity.total
    for name, weight in sparsity.weights.items():
        assert not weight[~sparsity.masks[name]].any()
    assert density_of(unbroken) == report_density(sparsity, (1, 3, 32, 32))

    original = Trainer.step

    def until_the_fourth(self, epoch, number, batches, stop):
        if (epoch, number) == (2, 1):
            raise KeyboardInterrupt
        return original(self, epoch, number, batches, stop)

    with monkeypatch.context() as patched:
        patched.setattr(Trainer, "step", until_the_fourth)
        with pytest.raises(Interrupted):
            fit(tiny.NAME, images, recipe, tmp_path / "run", save_every=1, console=quiet)
    assert load_state(tmp_path / "run")[0]["position"]["step"] == 1
    resume(tmp_path / "run", console=quiet)

    one, two = load_state(unbroken)[0], load_state(tmp_path / "run")[0]
    for name, mask in one["sparsity"]["masks"].items():
        assert torch.equal(mask, two["sparsity"]["masks"][name])
    for name, weight in one["model"].items():
        assert torch.equal(weight, two["model"][name])


def _rank(rank: int, port: int, folder: str) -> None:
    torch.distributed.init_process_group(
        "gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2
    )
    model = pelk()
    sparsity = DynamicSparsity(model, 0.4, total_steps=4, prune_every=1, growth="gradient")
    sparsity.start(lambda: loss_of(model, 50 + rank))  # each rank has its own images
    parallel = nn.parallel.DistributedDataParallel(model, broadcast_buffers=False)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for done in range(3):
        torch.manual_seed(done)
        optimizer.zero_grad()
        loss_of(parallel, 10 * done + rank).backward()
        sparsity.before_step(done, optimizer)
        optimizer.step()
    state = sparsity.state_dict() | {"model": dict(model.named_parameters())}
    torch.save(state, f"{folder}/{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.mark.skipif(not torch.distributed.is_gloo_available(), reason="torch without gloo")
def test_sharded_weights_are_refused():
    store = torch.distributed.HashStore()
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    try:
        model = nn.Sequential(nn.Linear(4, 4))
        fully_shard(model, mesh=init_device_mesh("cpu", (1,)))
        with pytest.raises(InputError, match=r"FSDP has sharded 0\.weight; train without --shard"):
            DynamicSparsity(model, 0.4, total_steps=1)
    finally:
        torch.distributed.destroy_process_group()


@pytest.mark.slow  # 5 to 20 seconds for two processes to import torch
@pytest.mark.skipif(not torch.distributed.is_gloo_available(), reason="torch without gloo")
def test_ranks_agree_on_the_masks(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    torch.multiprocessing.spawn(_rank, (port, str(tmp_path)), nprocs=2)
    one, two = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1))
    assert sum(int(mask.sum()) for mask in one["masks"].values()) == one["nonzero"]
    for part in ("masks", "model"):
        assert all(torch.equal(one[part][name], two[part][name]) for name in one[part])
