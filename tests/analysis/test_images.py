"""Images of nested, mixed, empty and damaged folders."""

import numpy as np
import pytest
import torch
from PIL import Image

from seewide.analysis.analyzed_model import AnalyzedModel
from seewide.analysis.images import list_images, load_image, stream_images
from seewide.errors import InputError
from seewide.preprocess import Preprocess


@pytest.fixture
def folder(tmp_path):
    for label in ("a", "b"):
        (tmp_path / label).mkdir()
        for index in range(4):
            Image.new("RGB", (20, 10), (40 * index, 0, 255)).save(tmp_path / label / f"{index}.png")
    (tmp_path / "notes.txt").write_text("not an image")
    return tmp_path


def test_images_are_listed_and_evenly_spaced(folder):
    assert len(list_images(folder)) == 8
    assert [f"{p.parent.name}{p.stem}" for p in list_images(folder, 4)] == [
        "a0",
        "a2",
        "b0",
        "b2",
    ]


def test_images_are_resized_without_cropping_and_normalized(folder):
    preprocess = Preprocess(224, "bilinear", 0.5, mean=(0.5, 0.5, 0.0), std=(0.5, 1, 2))
    model = AnalyzedModel("a", torch.nn.Identity(), preprocess)
    first, *others = stream_images(list_images(folder), model.resizing(32))
    assert first.shape == (3, 32, 32)
    assert len(others) == 7
    np.testing.assert_allclose(first.mean((1, 2)), [-1, -0.5, 0.5], atol=1e-6)
    halves = Image.new("RGB", (20, 10))
    halves.paste((255, 255, 255), (0, 0, 2, 10))  # a center crop of 0.5 would remove it
    assert model.resizing()(halves)[0, :, :10].min() > model.resizing()(halves)[0, :, 100:].max()


def test_images_are_read_one_at_a_time(folder):
    (folder / "b" / "3.png").write_bytes(b"nothing")
    steps = []
    transform = AnalyzedModel("a", torch.nn.Identity()).resizing(8)
    images = stream_images(list_images(folder), transform, lambda: steps.append(1))
    for number in range(7):
        assert torch.is_tensor(next(images))
        assert len(steps) == number + 1
    with pytest.raises(InputError, match=r"b.3\.png is not an image that can be read"):
        next(images)


def test_bad_input(folder, tmp_path):
    with pytest.raises(InputError, match="there is no folder nowhere"):
        list_images("nowhere")
    with pytest.raises(InputError, match="contains 8 images, got count=9"):
        list_images(folder, 9)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"empty contains no image \(\.bmp"):
        list_images(tmp_path / "empty")
    content = (folder / "a" / "1.png").read_bytes()
    (folder / "a" / "1.png").write_bytes(content[: len(content) // 2])
    with pytest.raises(InputError, match=r"a.1\.png is "):
        load_image(folder / "a" / "1.png")
