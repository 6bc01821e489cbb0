"""Each recipe's smoke twin trains, with a narrow network of its family; the real twins are slow."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model

from seewide.models import LSNet, PeLK, RepLKNet, SLaK, UniConvNet, UniRepLKNet, list_models
from seewide.recipes import RECIPES, Recipe, get
from seewide.train import fit

FEW = {"depths": (1, 1, 2, 1), "dims": (8, 16, 16, 24)}
NARROW = {
    "unireplknet": (UniRepLKNet, {**FEW, "kernel_sizes": (3, 7, 7, 7)}),
    "lsnet": (LSNet, {"depths": (0, 1, 2, 1), "dims": (16, 16, 16, 24), "num_heads": 2}),
    "lsnet_distill": (LSNet, {"depths": (0, 1, 2, 1), "dims": (16, 16, 16, 24), "distilled": True}),
    "uniconvnet": (UniConvNet, {**FEW, "group_channels": 4}),
    "replknet": (RepLKNet, {**FEW, "kernel_sizes": (7, 7, 7, 5)}),
    "slak": (SLaK, {**FEW, "kernel_sizes": (11, 9, 9, 7)}),
    "pelk": (PeLK, {**FEW, "kernel_sizes": (13, 11, 9, 7), "partial": 1.0}),
}
default_cfgs = generate_default_cfgs(
    {
        f"narrow_{family}": {
            "input_size": (3, 32, 32),
            "mean": (0.5, 0.5, 0.5),
            "std": (0.25, 0.25, 0.25),
            "fixed_input_size": kind is LSNet,
            "classifier": "head.fc",
        }
        for family, (kind, _) in NARROW.items()
    }
)


def register(family: str) -> None:
    kind, sizes = NARROW[family]

    def build(pretrained: bool = False, **kwargs):
        return build_model_with_cfg(kind, f"narrow_{family}", pretrained, **{**sizes, **kwargs})

    build.__name__ = f"narrow_{family}"
    register_model(build)


for each in NARROW:
    register(each)


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Tensors this small only lose time to threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def train(recipe: Recipe, folder) -> None:
    result = fit(recipe.model, "digits", recipe, folder, console=Console(quiet=True))
    assert (folder / "best.safetensors").is_file()
    row = json.loads((folder / "metrics.jsonl").read_text().splitlines()[-1])
    assert row["epoch"] == result.epoch == 1
    assert 0 < row["train_loss"] < 10


def narrow_twin(name: str) -> Recipe:
    recipe = get(name)
    family = re.sub(r"(\d+)?_.*", "", recipe.model)
    narrow = f"narrow_{family if family in NARROW else 'unireplknet'}"
    narrow += "_distill" * (recipe.task == "distillation")
    same = {
        "dataset": "",
        "source": "",
        "expected": {},
        "hardware": "",
        "note": "",
        "options": {**recipe.smoke().options, "image_size": 32},
    }
    return replace(recipe.smoke(), model=narrow, smoke_model=narrow, start_from="random", **same)


# Smoke tests of recipes that differ in size only are the same, and run once.
CLASSIFIERS = [name for name in RECIPES if RECIPES[name].task in ("classification", "distillation")]
DISTINCT = {str(narrow_twin(name)): name for name in reversed(CLASSIFIERS)}


@pytest.mark.parametrize("name", DISTINCT.values())
def test_the_smoke_test_trains(name, tmp_path):
    twin = narrow_twin(name)
    train(twin, tmp_path)
    if twin.sparsity:  # of convolutions and linear layers, but not of position embeddings
        weights = load_file(tmp_path / "best.safetensors")
        matrices = [w for name, w in weights.items() if name.endswith("weight") and w.ndim > 1]
        zeros = sum((w == 0).sum().item() for w in matrices)
        share = zeros / sum(w.numel() for w in matrices)
        assert share == pytest.approx(twin.sparsity, abs=0.01)


# The smallest network of each family, with the recipe that uses most options.
TWINS = ["unireplknet_xl_ft384", "lsnet_t_in1k", "lsnet_b_distill_in1k", "uniconvnet_xl_ft384",
         "replknet_31b_ft384", "slak_t_in1k", "pelk_b_ft384"]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", TWINS)
def test_the_smoke_test_trains_as_users_run_it(name, tmp_path):
    train(get(name).smoke(), tmp_path)


def test_the_slow_tests_cover_every_network_of_ours():
    models = {get(name).smoke().model for name in CLASSIFIERS} & set(list_models())
    assert {get(name).smoke().model for name in TWINS} == models


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_the_smoke_test_is_small_and_uses_what_the_recipe_uses(name):
    recipe, twin = get(name), get(name).smoke()
    assert (twin.epochs, twin.limit_samples, twin.micro_batches) == (1, 16, 2)
    assert twin.options["image_size"] == 32
    assert twin.scaled_lr == recipe.lr
    same = ("drop_path", "layer_decay", "clip_adaptive", "repeated_augment", "sparsity",
            "ema_decay", "weight_decay", "optimizer", "schedule", "task")  # fmt: skip
    assert [getattr(twin, key) for key in same] == [getattr(recipe, key) for key in same]
    changed = {**recipe.options, **recipe.smoke_options}
    assert twin.options == changed


def test_the_example_of_the_page_runs(tmp_path, monkeypatch):
    page = (Path(__file__).parents[1] / "docs" / "recipes.md").read_text()
    (example,) = re.findall(r"```python\n(.*?)```", page, re.S)
    monkeypatch.chdir(tmp_path)
    exec(compile(example, "recipes.md", "exec"), {})
    lines = (tmp_path / "runs" / "mine" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["epoch"] for line in lines] == [1, 2]
