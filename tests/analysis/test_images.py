"""Folders as users have them: nested, mixed, empty, broken."""

import numpy as np
import pytest
import torch
from PIL import Image

from seewide.analysis.images import list_pictures, normalized, open_picture, stream
from seewide.errors import InputError


@pytest.fixture
def folder(tmp_path):
    for label in ("a", "b"):
        (tmp_path / label).mkdir()
        for index in range(4):
            Image.new("RGB", (20, 10), (40 * index, 0, 255)).save(tmp_path / label / f"{index}.png")
    (tmp_path / "notes.txt").write_text("no picture")
    return tmp_path


def test_folders_are_searched_and_shared_out(folder):
    assert len(list_pictures(folder)) == 8
    assert [f"{p.parent.name}{p.stem}" for p in list_pictures(folder, 4)] == [
        "a0",
        "a2",
        "b0",
        "b2",
    ]


def test_pictures_are_normalized_and_resized(folder):
    first, *others = stream(list_pictures(folder), side=32, mean=(0.5, 0.5, 0.0), std=(0.5, 1, 2))
    assert first.shape == (3, 32, 32)
    assert len(others) == 7
    np.testing.assert_allclose(first.mean((1, 2)), [-1, -0.5, 0.5], atol=1e-6)
    assert normalized(open_picture(folder / "a" / "0.png")).shape == (3, 10, 20)


def test_they_are_read_one_at_a_time(folder):
    (folder / "b" / "3.png").write_bytes(b"nothing")
    steps = []
    pictures = stream(list_pictures(folder), progress=lambda: steps.append(1))
    for number in range(7):
        assert torch.is_tensor(next(pictures))
        assert len(steps) == number + 1
    with pytest.raises(InputError, match=r"b.3\.png is not an image that can be read"):
        next(pictures)


def test_bad_input_is_one_sentence(folder, tmp_path):
    with pytest.raises(InputError, match="there is no folder nowhere"):
        list_pictures("nowhere")
    with pytest.raises(InputError, match="holds 8 pictures, asked for were 9"):
        list_pictures(folder, 9)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"empty holds no picture \(\.bmp"):
        list_pictures(tmp_path / "empty")
    whole = (folder / "a" / "1.png").read_bytes()
    (folder / "a" / "1.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=r"a.1\.png is "):
        open_picture(folder / "a" / "1.png")
