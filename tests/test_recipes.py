"""Recipes as data: what a setting may be, how text becomes one, what a table says of a recipe."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from math import prod

import pytest
import timm

import seewide
from seewide.errors import InputError
from seewide.recipes import RECIPES, Recipe, card, get, override

PAPERS = [name for name in RECIPES if get(name).model]


def test_override_reads_text_by_the_type_of_the_field():
    recipe = override(Recipe(), {"lr": "1e-4", "epochs": "7", "rand_augment": "rand-m3"})
    assert recipe == replace(Recipe(), lr=1e-4, epochs=7, rand_augment="rand-m3")


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"learning_rate": "1"}, "unknown recipe key 'learning_rate'"),
        ({"mixpu": "1"}, "did you mean mixup"),
        ({"xyzzy": "1"}, "known are batch_size, clip_adaptive, .*, warmup_lr, weight_decay$"),
        ({"epochs": "2.5"}, "epochs is a whole number, got '2.5'"),
        ({"lr": "fast"}, "lr is a number, got 'fast'"),
        ({"lr": "0"}, "lr must be above 0, got 0.0"),
        ({"drop_path": "1.5"}, r"drop_path must be within 0\.\.1, got 1.5"),
        ({"interpolation": "cubic"}, "must be bilinear, bicubic or nearest, got 'cubic'"),
        ({"crop_mode": "middle"}, "must be center, squash or border, got 'middle'"),
        ({"batch_size": "10", "device_batch": "4"}, "device_batch must be a divisor"),
        ({"sparsity": "1"}, "sparsity must be 0 or more and below 1, got 1.0"),
        ({"lr": "inf"}, "lr must be finite, got inf"),
        ({"weight_decay": "nan"}, "weight_decay must be finite, got nan"),
        ({"layer_groups": "3"}, "layer_groups must be 0, or 4 or more, got 3"),
        ({"growth": "momentum"}, "growth must be random or gradient, got 'momentum'"),
        ({"distill": "firm"}, "distill must be hard or soft, got 'firm'"),
        ({"repeated_augment": "0"}, "repeated_augment must be at least 1, got 0"),
        ({"clip_adaptive": "-1"}, "clip_adaptive must be 0 or more, got -1.0"),
    ],
)
def test_wrong_settings(settings, sentence):
    with pytest.raises(InputError, match=sentence):
        override(Recipe(), settings)


def test_an_unknown_recipe_names_the_nearest():
    for ask in (get, card):
        with pytest.raises(InputError, match="did you mean unireplknet_t_in1k"):
            ask("unireplknet_t_1k")


@pytest.mark.parametrize(("batch", "passes"), [(4096, 128), (64, 64), (100, 100), (300, 100)])
def test_with_batch_size_keeps_the_passes_small_and_scales_the_rate(batch, passes):
    recipe = get("unireplknet_a_in1k").with_batch_size(batch)
    assert (recipe.batch_size, recipe.device_batch) == (batch, passes)
    assert recipe.scaled_lr == pytest.approx(4e-3 * batch / 4096)
    assert recipe.lr == get("unireplknet_a_in1k").lr


def test_the_rate_stays_where_nothing_says_what_it_is_for():
    assert get("digits").with_batch_size(8).scaled_lr == get("digits").lr


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_is_json_and_comes_back(name):
    assert override(Recipe(), json.loads(json.dumps(asdict(get(name))))) == get(name)


@pytest.mark.parametrize("name", PAPERS)
def test_a_docstring_says_all_that_the_settings_do_not(name):
    words = card(name)
    assert f"seewide train {name} --data IMAGENET" in words.text
    if "_ft" in name:  # from published weights where a tag leads to them, else from a file
        assert ("--pretrained" in words.text) == ("." in words.recipe.model)
        assert ("--checkpoint" in words.text) != ("--pretrained" in words.text)
    if words.hardware:
        gpus, rest = words.hardware.split(" GPUs x ")
        factors = [int(gpus), *map(int, rest.split(" x "))]
        assert prod(factors) == words.recipe.batch_size
        assert factors[1] == words.recipe.device_batch
    assert (
        words.top1
        or "Judged after fine-tuning" in words.text
        or "120e" in name
        or ("ablation" in name)
    )
    assert "arXiv" in words.source
    assert len(words.text.partition("\n")[0]) <= 100


@pytest.mark.parametrize("name", PAPERS)
def test_a_recipe_names_a_network_of_ours_and_weights_there_are(name):
    model = get(name).model
    assert model.partition(".")[0] in seewide.list_models()
    if "." in model:
        assert model in seewide.list_models(pretrained=True)


def test_the_teacher_has_weights():
    (teacher,) = {get(name).teacher for name in RECIPES} - {""}
    assert teacher in timm.list_pretrained()


def test_cards():
    words = card("lsnet_b_distill_in1k")
    assert (words.what, words.top1, words.hardware, words.family) == (
        "LSNet-B, taught by RegNetY-16GF", "81.6", "8 GPUs x 256", "lsnet"
    )  # fmt: skip
    assert words.special == "AGC 0.02, repeat 3, hard labels of regnety_160, EMA"
    assert card("pelk101_b_ft384").family == "pelk"
    assert card("pelk101_b_ft384").special == "layer decay 0.7, 40% sparse, fixed"
    assert card("uniconvnet_a_in1k").special == "no mixing, no erasing, EMA"
    assert card("unireplknet_xl_ft384").special == "layer decay 0.8, smoothing 0.3, EMA"
    assert card("digits").family == card("digits").top1 == ""
    assert "2503.23135" in words.source
