"""Folders of small coloured pictures: two or three classes that a network can tell apart."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from seewide.recipes import Recipe

COLOURS = {"blue": (40, 60, 200), "green": (40, 180, 60), "red": (200, 50, 40)}


def paint(folder: Path, classes=tuple(COLOURS), count: int = 8, size: int = 40) -> Path:
    """`count` noisy pictures per class, as JPEG."""
    chance = np.random.default_rng(0)
    for name in classes:
        (folder / name).mkdir(parents=True)
        for index in range(count):
            pixels = np.array(COLOURS[name]) + chance.normal(0, 25, (size, size, 3))
            image = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
            image.save(folder / name / f"{index}.jpg")
    return folder


@pytest.fixture
def pictures(tmp_path):
    return paint(tmp_path / "pictures")


@pytest.fixture
def quiet():
    return Console(quiet=True)


@pytest.fixture
def small():
    """Everything that draws chance, on 16 pictures of 32 px."""
    return Recipe(
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
        clip_grad=1.0,
    )
