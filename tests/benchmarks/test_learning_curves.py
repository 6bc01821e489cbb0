"""Learning curves: the baseline of colors alone, and the figure."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from benchmarks.learning_curves import accuracy_by_color, draw, histograms
from seewide.data import ImageSamples

COLORS = {0: (200, 40, 40), 1: (40, 40, 200)}


def paint(labels, seed: int) -> ImageSamples:
    """Noisy images of one color per class."""
    random = np.random.default_rng(seed)
    pixels = [np.array(COLORS[y]) + random.normal(0, 30, (12, 10, 3)) for y in labels]
    return ImageSamples([Image.fromarray(p.clip(0, 255).astype(np.uint8)) for p in pixels], labels)


def test_accuracy_by_color():
    train = paint([0, 1] * 20, seed=0)
    assert accuracy_by_color(train, paint([0, 1, 1, 0], seed=1)) == 100
    swapped = ImageSamples(train.images, [1 - y for y in train.labels])
    assert accuracy_by_color(swapped, paint([0, 1, 1, 0], seed=1)) == 0


def test_histograms_count_each_pixel_once():
    image = Image.fromarray(np.array([[[0, 0, 31], [255, 255, 255]]], dtype=np.uint8))
    (histogram,) = histograms(ImageSamples([image], [0]))
    assert histogram.sum() == pytest.approx(1)
    assert histogram[0] == histogram[511] == 0.5


def test_the_figure_is_drawn(tmp_path):
    rows = [{"epoch": e, "val_top1": 10.0 * e} for e in (1, 2, 3)]
    path = tmp_path / "curves.png"
    draw({"lsnet_t": rows, "convnext_atto": rows}, 20.0, path)
    with Image.open(path) as image:
        assert image.width > 300
