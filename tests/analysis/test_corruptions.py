"""Corruptions against the authors' code and against their definitions.

data/corruptions.npz contains an image and the outputs of the published implementations (functions
of `imagecorruptions` 1.1.2 and, where it differs, of `imagenet_c`, run once with NumPy's old
generator seeded with the severity). Given the same draws, ours must give the same pixels.
"""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from seewide.analysis.corruptions import CORRUPTIONS, corrupt, frost_folder
from seewide.errors import InputError

pytest.importorskip("scipy")
GOLDEN = np.load(Path(__file__).parent / "data" / "corruptions.npz")
IMAGE = Image.fromarray(GOLDEN["picture"])


class OldGenerator:
    """`np.random.RandomState` with the interface of the new generator."""

    def __init__(self, seed):
        self.state = np.random.RandomState(seed)
        self.normal, self.uniform = self.state.normal, self.state.uniform
        self.poisson, self.integers = self.state.poisson, self.state.randint


@pytest.mark.parametrize("key", [key for key in GOLDEN.files if key != "picture"])
def test_pixels_equal_those_of_the_reference(key):
    name, severity = key.split("-")
    ours = np.asarray(corrupt(IMAGE, name, int(severity), OldGenerator(int(severity))), dtype=int)
    difference = np.abs(ours - GOLDEN[key].astype(int))
    assert difference.max() <= 1  # values are truncated, so rounding errors can cause 1
    assert difference.mean() < 0.05


def test_fifteen_corruptions_with_five_strengths():
    assert len(CORRUPTIONS) == 15
    assert all(len(strengths) == 5 for _, strengths in CORRUPTIONS.values())


def test_impulse_noise_is_salt_and_pepper():
    grey = Image.new("RGB", (200, 200), (100, 100, 100))
    shares = (0.03, 0.06, 0.09, 0.17, 0.27)
    for severity, share in enumerate(shares, start=1):
        y = np.asarray(corrupt(grey, "impulse_noise", severity, np.random.default_rng(0)))
        assert set(np.unique(y)) == {0, 100, 255}
        assert (y != 100).mean() == pytest.approx(share, abs=0.005)
        assert (y == 0).sum() == pytest.approx((y == 255).sum(), rel=0.1)


def test_frost_is_the_published_blend(tmp_path, monkeypatch):
    Image.new("RGB", (300, 200), (200, 100, 50)).save(tmp_path / "frost.png")
    monkeypatch.setenv("SEEWIDE_FROST", str(tmp_path))
    blends = ((1, 0.4), (0.8, 0.6), (0.7, 0.7), (0.65, 0.7), (0.6, 0.75))
    for severity, (weight, frost) in enumerate(blends, start=1):
        y = np.asarray(corrupt(IMAGE, "frost", severity, np.random.default_rng(0)), dtype=float)
        expected = np.clip(weight * GOLDEN["picture"] + frost * np.array([200, 100, 50]), 0, 255)
        np.testing.assert_allclose(y, expected, atol=1)
    large = Image.new("RGB", (400, 300))
    assert corrupt(large, "frost", 3, np.random.default_rng(0)).size == (400, 300), "enlarged"


def test_frost_without_texture_images(monkeypatch):
    monkeypatch.delenv("SEEWIDE_FROST", raising=False)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"install --no-deps imagecorruptions.*SEEWIDE_FROST"):
        frost_folder()


@pytest.mark.parametrize("name", [name for name in CORRUPTIONS if name != "frost"])
def test_any_size_and_reproducible(name):
    tall = IMAGE.resize((37, 64))
    once, again, other = (
        np.asarray(corrupt(tall, name, 3, np.random.default_rng(seed))) for seed in (1, 1, 2)
    )
    assert once.shape == (64, 37, 3)
    assert (once == again).all()
    deterministic = {
        "defocus_blur", "zoom_blur", "brightness", "contrast", "pixelate", "jpeg_compression",
    }  # fmt: skip
    assert (once == other).all() == (name in deterministic)


def test_differences_grow_with_severity():
    for name in ("gaussian_noise", "defocus_blur", "contrast", "pixelate", "fog"):
        moved = [
            np.abs(
                np.asarray(corrupt(IMAGE, name, s, np.random.default_rng(0)), dtype=float)
                - GOLDEN["picture"]
            ).mean()
            for s in (1, 3, 5)
        ]
        assert moved == sorted(moved), name


def test_bad_input():
    rng = np.random.default_rng(0)
    with pytest.raises(InputError, match="unknown corruption 'fogg'; did you mean fog"):
        corrupt(IMAGE, "fogg", 1, rng)
    with pytest.raises(InputError, match="severity must be 1, 2, 3, 4 or 5, got 6"):
        corrupt(IMAGE, "fog", 6, rng)
    with pytest.raises(InputError, match=r"need at least 32 x 32 pixels, got \(31, 40\)"):
        corrupt(Image.new("RGB", (31, 40)), "fog", 1, rng)
