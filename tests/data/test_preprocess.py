"""The evaluation preprocessing, which all commands share."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from timm.data import create_transform

from seewide.analysis.analyzed_model import AnalyzedModel
from seewide.errors import InputError
from seewide.preprocess import Preprocess

PLAIN = Preprocess(32, mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4))


@pytest.fixture
def image():
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (50, 70, 3), np.uint8))


@pytest.mark.parametrize("mode", ["center", "squash", "border"])
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear", "nearest"])
@pytest.mark.parametrize("crop_pct", [0.875, 1.0])
def test_analyses_see_what_evaluation_sees(image, mode, interpolation, crop_pct):
    """`analyze` once cropped by itself: bicubic, center, whatever the weights were made for."""
    preprocess = replace(PLAIN, crop_mode=mode, interpolation=interpolation, crop_pct=crop_pct)
    expected_CHW = create_transform(
        32, is_training=False, interpolation=interpolation, crop_pct=crop_pct, crop_mode=mode,
        mean=preprocess.mean, std=preprocess.std,
    )(image)  # fmt: skip
    assert expected_CHW.shape == (3, 32, 32)
    assert torch.equal(preprocess.transform()(image), expected_CHW)
    subject = AnalyzedModel("a", timm.create_model("test_convnext"), preprocess)
    assert torch.equal(subject.prepare(image), expected_CHW)
    assert torch.equal(subject.normalize(subject.crop(image)), expected_CHW)


def test_the_settings_of_weights():
    model = timm.create_model("test_convnext")
    model.pretrained_cfg = {
        "input_size": (3, 96, 96), "crop_pct": 1.0, "crop_mode": "squash",
        "interpolation": "bilinear", "mean": (0.1, 0.2, 0.3), "std": (1.0, 2.0, 3.0),
    }  # fmt: skip
    expected = Preprocess(96, "bilinear", 1.0, "squash", (0.1, 0.2, 0.3), (1.0, 2.0, 3.0))
    assert Preprocess.of(model) == expected
    assert Preprocess.of(model, 64) == replace(expected, image_size=64)
    assert Preprocess.of(torch.nn.Identity()) == Preprocess()
    assert str(expected) == "96 px, bilinear, squash crop of 1, mean 0.1 0.2 0.3, std 1 2 3"


def test_json_and_back():
    content = json.loads(json.dumps(PLAIN.to_dict()))
    assert Preprocess.from_dict(content) == PLAIN
    assert isinstance(Preprocess.from_dict(content).mean, tuple)
    for wrong in (
        {**content, "mean": "x"}, {**content, "extra": 1}, {"image_size": 3}, {**content, "std": 1},
        {**content, "mean": [1, 2]}, {**content, "crop_pct": "1"},
    ):  # fmt: skip
        with pytest.raises(InputError):
            Preprocess.from_dict(wrong)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"image_size": 0}, "image_size must be at least 1, got 0"),
        ({"crop_pct": 1.5}, r"crop_pct must be above 0 and at most 1, got 1\.5"),
        ({"crop_mode": "middle"}, "crop_mode must be one of center, squash, border, got 'middle'"),
        ({"interpolation": "cubic"}, "interpolation must be one of nearest, .* got 'cubic'"),
        ({"std": (0.0, 1.0, 1.0)}, r"std must be above 0, got \(0\.0"),
        ({"mean": (float("nan"), 1.0, 1.0)}, "mean must be three finite numbers"),
    ],
)
def test_values_out_of_range(changes, sentence):
    with pytest.raises(InputError, match=sentence):
        replace(PLAIN, **changes)
