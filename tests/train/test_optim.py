"""Groups of parameters: timm's for timm's networks, the authors' where a recipe asks for them."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
import timm
import torch
from timm.optim import create_optimizer_v2

from seewide.errors import InputError
from seewide.recipes import Recipe
from seewide.train.optim import authors_group, make_optimizer, parameter_groups


def settings(optimizer) -> dict[int, tuple[float, float]]:
    """Scale of the rate and weight decay of each parameter."""
    return {
        id(parameter): (round(group.get("lr_scale", 1.0), 12), group["weight_decay"])
        for group in optimizer.param_groups
        for parameter in group["params"]
    }


@pytest.mark.parametrize("name", ["test_convnext", "test_vit", "test_efficientnet", "lsnet_t"])
@pytest.mark.parametrize("layer_decay", [1.0, 0.7])
def test_the_groups_are_timms(name, layer_decay):
    model = timm.create_model(name)
    expected = create_optimizer_v2(
        model, "adamw", lr=1e-3, weight_decay=0.05,
        layer_decay=layer_decay if layer_decay < 1 else None,
    )  # fmt: skip
    ours = make_optimizer(model, Recipe(lr=1e-3, layer_decay=layer_decay))
    assert settings(ours) == settings(expected)


def test_the_authors_twelve_groups():
    """27 blocks: stem, two stages, nine parts of the third, the fourth, the classifier."""
    with torch.device("meta"):
        model = timm.create_model("unireplknet_s")
    depth = {name: authors_group(name, 12) for name, _ in model.named_parameters()}
    assert {d for name, d in depth.items() if name.startswith("stem")} == {0}
    assert {d for name, d in depth.items() if name.startswith("stages.0")} == {1}
    assert {d for name, d in depth.items() if name.startswith("stages.1")} == {2}
    third = {
        (int(found[1]), d)
        for name, d in depth.items()
        if (found := re.match(r"stages\.2\.blocks\.(\d+)\.", name))
    }
    assert third == {(block, 3 + block // 3) for block in range(27)}
    assert {d for name, d in depth.items() if name.startswith("stages.2.down")} == {3}
    assert {d for name, d in depth.items() if name.startswith("stages.3")} == {12}
    assert {d for name, d in depth.items() if name.startswith("head")} == {13}
    groups = parameter_groups(model, Recipe(layer_decay=0.8, layer_groups=12))
    assert len({group.get("lr_scale", 1.0) for group in groups}) == 14
    assert min(group.get("lr_scale", 1.0) for group in groups) == pytest.approx(0.8**13)


def test_a_response_norm_is_decayed_and_other_vectors_are_not():
    """The authors keep its scale and shift as 4-D tensors, which their optimizer decays."""
    with torch.device("meta"):
        models = timm.create_model("unireplknet_a"), timm.create_model("convnextv2_atto")
    for model in models:
        names = {id(parameter): name for name, parameter in model.named_parameters()}
        for group in parameter_groups(model, Recipe(weight_decay=0.05)):
            for parameter in group["params"]:
                decayed = parameter.ndim > 1 or ".grn." in names[id(parameter)]
                assert (group["weight_decay"] > 0) == decayed, names[id(parameter)]


def test_a_rate_for_so_many_images_scales_with_the_batch():
    recipe = Recipe(lr=1e-3, lr_batch=1024, batch_size=256)
    assert make_optimizer(torch.nn.Linear(2, 2), recipe).defaults["lr"] == 2.5e-4
    assert make_optimizer(torch.nn.Linear(2, 2), replace(recipe, lr_batch=0)).defaults["lr"] == 1e-3


def test_layer_decay_needs_to_know_the_layers():
    with pytest.raises(InputError, match="Linear has no group_matcher, so layer_decay must be 1"):
        make_optimizer(torch.nn.Linear(2, 2), Recipe(layer_decay=0.5))
