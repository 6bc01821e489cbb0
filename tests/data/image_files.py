"""Folders of small colored images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

COLORS = {"blue": (40, 60, 200), "green": (40, 180, 60), "red": (200, 50, 40)}
CLASSES = tuple(COLORS)
AUGMENT = {"min_crop": 0.5, "rand_augment": "rand-m5-mstd0.5-inc1", "erase": 0.5}


def paint(folder: Path, classes=CLASSES, count: int = 8, size: int = 40) -> Path:
    """`count` noisy images per class, as JPEG."""
    generator = np.random.default_rng(0)
    for name in classes:
        (folder / name).mkdir(parents=True)
        for index in range(count):
            pixels = np.array(COLORS[name]) + generator.normal(0, 25, (size, size, 3))
            image = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
            image.save(folder / name / f"{index}.jpg")
    return folder


def truncate(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
