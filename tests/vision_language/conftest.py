"""Tiny images with captions: coloured squares, named by their colour."""

from __future__ import annotations

import logging
from importlib.util import find_spec

import pytest
from coloured_squares import COLOURS, square, write_table

NEEDED = ("open_clip", "transformers", "pandas", "webdataset", "braceexpand")
if not all(find_spec(name) for name in NEEDED):
    collect_ignore_glob = ["test_*.py"]


@pytest.fixture(scope="session")
def squares(tmp_path_factory):
    """A folder with train.csv (24 images) and val.csv (6 images, two captions each)."""
    folder = tmp_path_factory.mktemp("squares")
    for split, count in (("train", 8), ("val", 2)):
        rows = []
        for colour in COLOURS:
            for number in range(count):
                name = f"{split}-{colour}-{number}.png"
                square(folder / "images" / name, colour, 6 * number)
                rows.append((name, f"a {colour} square"))
                if split == "val":
                    rows.append((name, f"the square is {colour}"))
        write_table(folder / f"{split}.csv", rows)
    return folder


@pytest.fixture(scope="session")
def classes(tmp_path_factory):
    """A folder of classes with two images each."""
    folder = tmp_path_factory.mktemp("classes")
    for colour in COLOURS:
        for number in range(2):
            square(folder / "val" / colour / f"{number}.png", colour, 9 * number)
    return folder


@pytest.fixture(autouse=True)
def quiet_log():
    """open_clip logs a line for each step of building a model."""
    before = logging.root.level
    logging.root.setLevel(logging.ERROR)
    yield
    logging.root.setLevel(before)
