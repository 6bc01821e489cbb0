"""What the training tests share: a UniRepLKNet of 20 thousand parameters, images, a recipe."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model

from seewide.models import UniRepLKNet
from seewide.recipes import Recipe, override
from seewide.tasks import get_task

COLOURS = {"blue": (40, 60, 200), "green": (40, 180, 60), "red": (200, 50, 40)}


def paint(folder: Path, classes=tuple(COLOURS), count: int = 8, size: int = 40) -> Path:
    """`count` noisy images per class, as JPEG."""
    random = np.random.default_rng(0)
    for name in classes:
        (folder / name).mkdir(parents=True)
        for index in range(count):
            pixels = np.array(COLOURS[name]) + random.normal(0, 25, (size, size, 3))
            image = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
            image.save(folder / name / f"{index}.jpg")
    return folder


def change(recipe: Recipe, **settings) -> Recipe:
    """A recipe with other settings, of its own or of its task."""
    return override(recipe, settings, get_task(settings.get("task", recipe.task)).Options)


def make_recipe(**settings) -> Recipe:
    return change(Recipe(), **settings)


# All random operations, on 18 images of 32 px: two optimizer steps of two micro-batches an epoch.
SMALL = make_recipe(
    image_size=32,
    crop_pct=1.0,
    min_crop=0.5,
    rand_augment="rand-m5-mstd0.5-inc1",
    erase=0.5,
    mixup=0.2,
    cutmix=0.5,
    epochs=3,
    batch_size=8,
    device_batch=4,
    lr=1e-3,
    warmup_epochs=1.0,
    drop_path=0.2,
    ema_decay=0.9,
    ema_warmup=True,
    clip_grad=1.0,
)


NAME = "tiny_unireplknet"
default_cfgs = generate_default_cfgs(
    {
        NAME: {
            "url": "",
            "num_classes": 10,
            "input_size": (3, 32, 32),
            "mean": (0.5, 0.5, 0.5),
            "std": (0.25, 0.25, 0.25),
            "interpolation": "bicubic",
            "first_conv": "stem.0",
            "classifier": "head.fc",
        }
    }
)


@register_model
def tiny_unireplknet(pretrained: bool = False, **kwargs) -> UniRepLKNet:
    sizes = {"depths": (1, 1, 1, 1), "dims": (8, 12, 16, 24), "kernel_sizes": (3, 7, 7, 7)}
    return build_model_with_cfg(UniRepLKNet, NAME, pretrained, **{**sizes, **kwargs})
