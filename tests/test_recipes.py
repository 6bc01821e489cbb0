"""Recipes as data: what a setting may be, how text becomes one, and what the papers print.

`papers/recipes.csv` holds what the papers' tables and the authors' commands say, by name patterns
of recipes; it was taken from them, not from our recipes.
"""

from __future__ import annotations

import csv
import json
import math
import re
from dataclasses import asdict, dataclass, replace
from fnmatch import fnmatchcase
from math import prod
from pathlib import Path

import pytest
import timm

import seewide
from seewide.errors import InputError
from seewide.options import option
from seewide.options import replace as replace_options
from seewide.recipes import FAMILIES, RECIPES, Recipe, get, override
from seewide.tasks import get_task
from seewide.train.checkpoint import make_options
from seewide.train.optim import parameter_groups

CLASSIFICATION = get_task("classification").Options
PAPERS = [name for name, recipe in RECIPES.items() if recipe.dataset.startswith("ImageNet")]
DISCREPANCIES = Path(__file__).parents[1] / "docs" / "discrepancies.md"
with (Path(__file__).parent / "papers" / "recipes.csv").open(newline="") as file:
    FACTS = list(csv.DictReader(file))


def setting(recipe: Recipe, name: str):
    """A setting of the recipe or of its task, or its expected top-1."""
    if name == "top1":
        return recipe.expected["top1"]
    if hasattr(recipe, name):
        return getattr(recipe, name)
    return getattr(get_task(recipe.task).Options(**recipe.options), name)


def matches(text: str, value) -> bool:
    if isinstance(value, bool):
        return text == str(value).lower()
    if isinstance(value, int | float):
        return float(text) == pytest.approx(value)
    return text == value


def named(patterns: str) -> list[str]:
    return [n for n in PAPERS if any(fnmatchcase(n, pattern) for pattern in patterns.split())]


@pytest.mark.parametrize("fact", FACTS, ids=lambda f: f"{f['recipes']}:{f['setting']}")
def test_a_recipe_agrees_with_the_paper(fact):
    names = named(fact["recipes"])
    assert names
    for name in names:
        value = setting(RECIPES[name], fact["setting"])
        assert matches(fact["value"], value), f"{name}: {value!r}, {fact['source']} has {fact}"


@pytest.mark.parametrize("name", PAPERS)
def test_what_the_paper_says_of_a_recipe_is_compared(name):
    """A recipe is not compared by its name alone: length, rate and regularization have a source."""
    compared = {fact["setting"] for fact in FACTS if name in named(fact["recipes"])}
    wanted = {"epochs", "drop_path", "scaled_lr"}
    if name.startswith(
        ("resnet", "deit", "mobilenet", "unireplknet_ablation", "pelk_b_ft", "pelk101")
    ):
        wanted = {"epochs"} if "pelk" not in name else set()
    assert wanted <= compared
    assert RECIPES[name].source


def test_override_reads_text_by_the_type_of_the_option():
    settings = {
        "lr": "1e-4", "epochs": "7", "rand_augment": "rand-m3", "task.mixup": "0.2",
        "fan_in_init": "yes", "betas": "0.9,0.95", "lr_multipliers": "head:10", "freeze": "stem",
        "model_options": "base:1",
    }  # fmt: skip
    recipe = override(Recipe(), settings, CLASSIFICATION)
    assert recipe == replace(
        Recipe(), lr=1e-4, epochs=7, fan_in_init=True, betas=(0.9, 0.95), freeze=("stem",),
        lr_multipliers={"head": 10.0}, options={"rand_augment": "rand-m3", "mixup": 0.2},
        model_options={"base": 1},
    )  # fmt: skip


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"learning_rate": "1"}, "unknown setting 'learning_rate'"),
        ({"mixpu": "1"}, "did you mean mixup"),
        ({"epochs": "2.5"}, "epochs must be a whole number, got '2.5'"),
        ({"lr": "fast"}, "lr must be a number, got 'fast'"),
        ({"lr": "0"}, "lr must be above 0, got 0.0"),
        ({"drop_path": "1.5"}, "drop_path must be at least 0 and at most 1, got 1.5"),
        ({"interpolation": "cubic"}, "must be bilinear, bicubic or nearest, got 'cubic'"),
        ({"crop_mode": "middle"}, "must be center, squash or border, got 'middle'"),
        ({"batch_size": "10", "device_batch": "4"}, "device_batch must be a divisor"),
        ({"sparsity": "1"}, "sparsity must be at least 0 and below 1, got 1.0"),
        ({"lr": "inf"}, "lr must be finite, got inf"),
        ({"weight_decay": "nan"}, "weight_decay must be finite, got nan"),
        ({"layer_groups": "3"}, "layer_groups must be 0, or 4 or more, got 3"),
        ({"growth": "momentum"}, "growth must be random or gradient, got 'momentum'"),
        ({"schedule": "linear"}, "schedule must be cosine, poly, step or constant"),
        ({"decay_at": "9,4"}, "decay_at must be ascending"),
        ({"betas": "0.9,1"}, "betas must be at least 0 and below 1"),
        ({"lr_multipliers": "head:-1"}, "must be finite and at least 0"),
        ({"sync_batch_norm": "maybe"}, "must be true or false, got 'maybe'"),
        ({"repeated_augment": "0"}, "repeated_augment must be at least 1, got 0"),
        ({"clip_adaptive": "-1"}, "clip_adaptive must be at least 0, got -1.0"),
    ],
)
def test_wrong_settings(settings, sentence):
    with pytest.raises(InputError, match=sentence):
        override(Recipe(), settings, CLASSIFICATION)


def test_an_unknown_recipe_names_the_nearest():
    with pytest.raises(InputError, match="did you mean unireplknet_t_in1k"):
        get("unireplknet_t_1k")


def test_the_prefix_tells_an_option_of_the_task_from_a_setting():
    """A name without it is the recipe's where both have it."""

    @dataclass(frozen=True)
    class Options:
        epochs: int = option(3, "Of something else.")

    recipe = override(Recipe(), {"task.epochs": "7", "epochs": "9"}, Options)
    assert (recipe.epochs, recipe.options) == (9, {"epochs": 7})


@pytest.mark.parametrize(("batch", "micro"), [(4096, 128), (64, 64), (100, 100), (300, 100)])
def test_with_batch_size_scales_the_rate_and_fits_micro_batches(batch, micro):
    recipe = get("unireplknet_a_in1k").with_batch_size(batch)
    assert (recipe.batch_size, recipe.device_batch) == (batch, micro)
    assert recipe.scaled_lr == pytest.approx(4e-3 * batch / 4096)
    assert recipe.lr == get("unireplknet_a_in1k").lr
    assert override(get("unireplknet_a_in1k"), {"batch_size": batch}) == recipe


def test_the_rate_does_not_scale_without_lr_batch():
    assert get("digits").with_batch_size(8).scaled_lr == get("digits").lr


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_survives_json_and_has_valid_options(name):
    content = json.loads(json.dumps(asdict(get(name))))
    assert replace_options(Recipe(), content) == get(name)
    for recipe in (get(name), get(name).smoke()):
        make_options(get_task(recipe.task), recipe.options)


@pytest.mark.parametrize("name", PAPERS)
def test_a_recipe_names_a_network_and_weights_that_exist(name):
    recipe = get(name)
    assert timm.is_model(recipe.model.partition(".")[0])
    if "." in recipe.model:
        assert recipe.model in seewide.list_models(pretrained=True)
    assert (recipe.start_from == "pretrained") == ("." in recipe.model)


@pytest.mark.parametrize("name", PAPERS)
def test_hardware_multiplies_to_the_batch(name):
    recipe = get(name)
    if recipe.hardware:
        gpus, rest = recipe.hardware.split(" GPUs x ")
        factors = [int(gpus), *map(int, rest.split(" x "))]
        assert prod(factors) == recipe.batch_size
        assert factors[1] == recipe.device_batch


def test_the_teacher_has_weights():
    (teacher,) = {r.options["teacher"] for r in RECIPES.values() if r.task == "distillation"}
    assert teacher in timm.list_pretrained()


def test_names_are_unique_over_the_families():
    assert sum(len(family.recipes) for family in FAMILIES.values()) == len(RECIPES)


def differences():
    """(pattern, setting, paper, authors' code, here) of the rows under "Recipes"."""
    section = DISCREPANCIES.read_text().partition("\n## Recipes\n")[2].partition("\n## ")[0]
    for line in section.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) == 5 and cells[0].startswith("`"):
            for pattern in re.findall(r"`([^`]+)`", cells[0]):
                yield pattern, cells[1].strip("`"), *cells[2:]


@pytest.mark.parametrize("difference", [*differences()], ids=lambda row: f"{row[0]}-{row[1]}")
def test_documented_differences_hold(difference):
    pattern, key, paper, code, here = difference
    names = named(pattern)
    assert names
    value, *reason = here.split(" ", 1)
    for name in names:
        assert matches(value, setting(get(name), key)), name
    assert paper.split()[0] != code.split()[0]
    if value != code.split()[0]:  # the code made the weights, unless a reason speaks for the paper
        assert value == paper.split()[0]
        assert reason


# Blocks of the third stage that share a group in the authors' code. Theirs of RepLKNet also puts
# the convolutions between two stages into the group before them; docs/discrepancies says so.
GROUPED = {"unireplknet_xl_ft384": 3, "uniconvnet_t_ft384": 3, "uniconvnet_xl_ft384": 3,
           "pelk_b_ft384": 3, "replknet_31l_in22k_ft384": 4}  # fmt: skip


@pytest.mark.parametrize("name", GROUPED)
def test_fine_tuning_slows_each_layer_as_the_authors_do(name):
    recipe = get(name)
    model = timm.create_model(recipe.model, device="meta")
    names = {id(parameter): path for path, parameter in model.named_parameters()}

    def depth(parameter: str) -> int:
        found = re.match(r"stages\.(\d)\.(?:blocks\.(\d+))?", parameter)
        if not found:
            return 0 if parameter.startswith("stem") else 13
        stage, block = int(found[1]), int(found[2] or 0)
        return {0: 1, 1: 2, 3: 12}.get(stage, 3 + block // GROUPED[name])

    further = 2 if GROUPED[name] == 4 else 0  # groups, at most, that we are nearer to the head
    for group in parameter_groups(model, recipe):
        for parameter in group["params"]:
            theirs = 13 - depth(names[id(parameter)])
            ours = math.log(group.get("lr_scale", 1)) / math.log(recipe.layer_decay)
            assert -1e-6 < theirs - ours < further + 1e-6, names[id(parameter)]
