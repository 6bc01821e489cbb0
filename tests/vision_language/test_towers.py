"""Configurations: what open_clip and timm build from them, on the meta device."""

import json

import pytest
import torch

from seewide.errors import InputError
from seewide.vision_language.clip import towers
from seewide.vision_language.clip.recipes import RECIPES, ClipRecipe
from seewide.vision_language.clip.run import run_config

# Millions of parameters of image tower, text tower, all; UniRepLKNet-L's are those of docs/clip.md.
SIZES = {
    "clip_unireplknet_l": (220.1, 354.0, 574.1),
    "clip_unireplknet_l_base": (220.1, 123.8, 344.0),
    "clip_unireplknet_t": (31.4, 63.4, 94.8),
    "clip_lsnet_t": (11.2, 63.4, 74.6),
    "clip_uniconvnet_t": (30.1, 63.4, 93.5),
    "clip_pelk_t": (48.2, 63.4, 111.7),
    "clip_unireplknet_a": (4.4, 6.5, 10.9),
}


@pytest.mark.parametrize("name", SIZES)
def test_parameters(name):
    with torch.device("meta"):
        model = towers.create(name, load_weights=False, device="meta")
    found = towers.count_parameters(model)
    millions = tuple(round(found[part] / 1e6, 1) for part in ("image", "text", "total"))
    assert millions == SIZES[name]


def test_every_configuration_has_towers_that_exist():
    names = towers.config_names()
    assert len(names) >= 15
    for name in names:
        towers.check_config(name, towers.get_config(name))
        assert not any(word in name for word in ("coca", "siglip", "vit"))  # open_clip reads these


def test_tower_in_open_clip_as_its_own_tests_have_it():
    """Shapes in training and evaluation, gradient checkpointing, and bfloat16."""
    model = towers.create("clip_unireplknet_a").train()
    images, texts = torch.randn(2, 3, 64, 64), torch.randint(1, 99, (2, 32))
    image, text, scale = model(images, texts)
    assert image.shape == text.shape == (2, 128)
    model.set_grad_checkpointing()
    (scale * (model.encode_image(images) * text).sum()).backward()
    grads = [p.grad is not None for p in model.visual.parameters()]
    assert all(grads)
    half = towers.create("clip_unireplknet_a", precision="bf16").eval()
    with torch.no_grad():
        assert half.encode_image(images.bfloat16()).isfinite().all()


def test_locked_tower_keeps_its_batch_norm_statistics():
    model = towers.create("clip_unireplknet_a")
    model.lock_image_tower(freeze_bn_stats=True)
    model.train()
    trunk = model.visual.trunk
    before = {name: value.clone() for name, value in trunk.state_dict().items()}
    model.encode_image(3 + torch.randn(4, 3, 64, 64)).sum().backward()
    assert all(torch.equal(before[n], v) for n, v in trunk.state_dict().items())
    trained = [name for name, p in model.visual.named_parameters() if p.requires_grad]
    assert trained == ["head.proj.weight"]


def test_recipes_build_their_configurations():
    for recipe in RECIPES.values():
        run_config(recipe)
    config = run_config(ClipRecipe(config="clip_unireplknet_a", text_width=192, drop_path=0.1))
    assert config["text_cfg"]["heads"] == 3
    assert config["vision_cfg"]["timm_drop_path"] == 0.1
    json.dumps(config)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"config": "clip_unirepknet_t"}, "did you mean clip_unireplknet_t"),
        ({"tower": "unirepknet_a"}, "unknown image tower 'unirepknet_a'"),
        ({"config": "clip_unireplknet_a", "text_width": 129}, "129 wide, which its 2 heads"),
    ],
)
def test_wrong_configurations(settings, sentence):
    with pytest.raises(InputError, match=sentence):
        run_config(ClipRecipe(**settings))


def test_wrong_recipes():
    with pytest.raises(InputError, match="needs lock_image"):
        ClipRecipe(unlocked_groups=2)
    with pytest.raises(InputError, match="optimizer must be adamw or timm/NAME, got 'sgd'"):
        ClipRecipe(optimizer="sgd")
