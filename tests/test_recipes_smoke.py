"""Recipes are data that adds up to the papers' numbers, and each one's smoke twin trains."""

from __future__ import annotations

import json
from dataclasses import fields, replace

import pytest
import torch
from rich.console import Console

from seewide.errors import InputError
from seewide.recipes import RECIPES, Recipe, get, override
from seewide.train import fit


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Tensors this small only lose time to threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize("name", RECIPES)
def test_the_smoke_twin_trains(name, tmp_path):
    # timm's smallest ConvNeXt has everything a recipe asks for (drop path, layer groups).
    result = fit(
        "test_convnext", "digits", get(name).smoke(), tmp_path, console=Console(quiet=True)
    )
    assert (tmp_path / "best.safetensors").is_file()
    row = json.loads((tmp_path / "metrics.jsonl").read_text())
    assert row["epoch"] == result.epoch == 1
    assert 0 < row["train_loss"] < 10


@pytest.mark.parametrize("name", RECIPES)
def test_a_docstring_gives_the_command(name):
    assert "seewide train " in RECIPES[name].__doc__


def test_the_papers_table():
    """Table 16 and 17 of 2410.08049: drop path, mixup, GPUs x batch x accumulation."""
    paths = {"a": 0.0, "f": 0.0, "p": 0.1, "n": 0.1, "t": 0.2, "s": 0.4}
    mixes = {"a": 0.3, "f": 0.3, "p": 0.3, "n": 0.5, "t": 0.8, "s": 0.8}
    for size in paths:
        recipe = get(f"unireplknet_{size}_in1k")
        assert (recipe.drop_path, recipe.mixup) == (paths[size], mixes[size])
        assert recipe.cutmix == (1.0 if size in "ts" else mixes[size])
        assert (recipe.batch_size, recipe.lr, recipe.epochs) == (4096, 4e-3, 300)
        assert recipe.device_batch * recipe.accumulate == recipe.batch_size
    for name in RECIPES:
        if "in22k" in name:
            assert (get(name).epochs, get(name).batch_size) == (90, 4096)
        if "ft384" in name:
            assert (get(name).lr, get(name).batch_size, get(name).mixup) == (5e-5, 512, 0)


def test_override_reads_text_by_the_type_of_the_field():
    recipe = override(Recipe(), {"lr": "1e-4", "epochs": "7", "rand_augment": "rand-m3"})
    assert recipe == replace(Recipe(), lr=1e-4, epochs=7, rand_augment="rand-m3")


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"learning_rate": "1"}, "unknown recipe key 'learning_rate'"),
        ({"mixpu": "1"}, "did you mean mixup"),
        ({"epochs": "2.5"}, "epochs is a whole number, got '2.5'"),
        ({"lr": "fast"}, "lr is a number, got 'fast'"),
        ({"lr": "0"}, "lr must be above 0, got 0.0"),
        ({"drop_path": "1.5"}, r"drop_path must be within 0\.\.1, got 1.5"),
        ({"interpolation": "cubic"}, "must be bilinear, bicubic or nearest, got 'cubic'"),
        ({"crop_mode": "middle"}, "must be center, squash or border, got 'middle'"),
        ({"batch_size": "10", "device_batch": "4"}, "device_batch must be a divisor"),
    ],
)
def test_wrong_settings(settings, sentence):
    with pytest.raises(InputError, match=sentence):
        override(Recipe(), settings)


def test_an_unknown_recipe_names_the_nearest():
    with pytest.raises(InputError, match="did you mean unireplknet_t_in1k"):
        get("unireplknet_t_1k")


@pytest.mark.parametrize(("batch", "passes"), [(4096, 128), (64, 64), (100, 100), (300, 100)])
def test_with_batch_size_keeps_the_passes_small(batch, passes):
    recipe = get("unireplknet_a_in1k").with_batch_size(batch)
    assert (recipe.batch_size, recipe.device_batch) == (batch, passes)


def test_every_field_is_json():
    recipe = get("unireplknet_t_in1k")
    values = {field.name: getattr(recipe, field.name) for field in fields(recipe)}
    assert override(Recipe(), json.loads(json.dumps(values))) == recipe
