"""Learning curves: the floor of colours alone, and what the picture and the table are made of."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image
from seewide.train.data import Split

from benchmarks.learning_curves import colours_alone, draw, histograms

COLOURS = {0: (200, 40, 40), 1: (40, 40, 200)}


def painted(labels, seed: int) -> Split:
    """Noisy pictures of one colour per class."""
    chance = np.random.default_rng(seed)
    pixels = [np.array(COLOURS[y]) + chance.normal(0, 30, (12, 10, 3)) for y in labels]
    return Split([Image.fromarray(p.clip(0, 255).astype(np.uint8)) for p in pixels], labels)


def test_colours_alone_tell_what_colours_tell():
    train = painted([0, 1] * 20, seed=0)
    assert colours_alone(train, painted([0, 1, 1, 0], seed=1)) == 100
    swapped = Split(train.pictures, [1 - y for y in train.labels])
    assert colours_alone(swapped, painted([0, 1, 1, 0], seed=1)) == 0


def test_histograms_count_each_pixel_once():
    picture = Image.fromarray(np.array([[[0, 0, 31], [255, 255, 255]]], dtype=np.uint8))
    (histogram,) = histograms(Split([picture], [0]))
    assert histogram.sum() == pytest.approx(1)
    assert histogram[0] == histogram[511] == 0.5


def test_the_picture_is_drawn(tmp_path):
    rows = [{"epoch": e, "val_top1": 10.0 * e} for e in (1, 2, 3)]
    path = tmp_path / "curves.png"
    draw({"lsnet_t": rows, "convnext_atto": rows}, 20.0, path)
    with Image.open(path) as picture:
        assert picture.width > 300
