"""A broken picture is skipped, counted and named; too many of them stop the run."""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
import pytest
from rich.console import Console
from seewide.train.data import (
    BROKEN,
    Broken,
    Order,
    Pictures,
    batches,
    list_folder,
    make_loader,
    open_source,
    read_picture,
)
from tiny import COLOURS, NAME, paint

from seewide.errors import InputError
from seewide.train import fit

CLASSES = tuple(COLOURS)


def tear(path):
    path.write_bytes(path.read_bytes()[:300])


def first_pixel(image) -> list[int]:
    return np.asarray(image)[0, 0].tolist()


@pytest.fixture
def torn(pictures):
    """24 pictures, of which blue 2, green 7 and red 0 cannot be read: numbers 2, 15 and 16."""
    for name in ("blue/2.jpg", "green/7.jpg", "red/0.jpg"):
        tear(pictures / name)
    return pictures


def test_the_next_good_picture_takes_the_place(torn):
    split = list_folder(torn, CLASSES)
    dataset = Pictures(split, first_pixel, skip=True)
    for index, taken in ((1, 1), (2, 3), (15, 17), (16, 17)):
        pixel, label, sentences = dataset[1, index]
        assert pixel == first_pixel(read_picture(split.pictures[taken]))
        assert label == split.labels[taken]
        assert len(sentences.splitlines()) == taken - index
    assert dataset[1, 15] == dataset[1, 15]
    with pytest.raises(InputError, match=r"^[^ ]*blue/2\.jpg is "):
        Pictures(split, first_pixel)[1, 2]


def test_nothing_but_broken_pictures(pictures):
    for path in pictures.rglob("*.jpg"):
        tear(path)
    dataset = Pictures(list_folder(pictures, CLASSES), first_pixel, skip=True)
    with pytest.raises(InputError, match=r"^24 pictures in a row cannot be read; "):
        dataset[1, 0]


@pytest.mark.parametrize("workers", [0, 2])
def test_counted_once_and_named(torn, tmp_path, workers):
    split, heard = list_folder(torn, CLASSES), []
    broken = Broken(tmp_path / "run" / BROKEN, len(split), 0.2, heard.append)
    order = Order(24, seed=0)
    loader = make_loader(split, lambda image: 0, order, 4, workers, broken=broken)
    for order.epoch in (1, 2):
        assert sum(len(y_N) for _, y_N in batches(loader)) == 24
    named = broken.file.read_text().splitlines()
    assert len(named) == len(heard) == 3
    for name in ("blue/2.jpg", "green/7.jpg", "red/0.jpg"):
        assert sum(f"{torn / name} is " in line for line in named) == 1
    assert heard == [f"skipped: {line}" for line in named]


def test_more_than_the_share_stops(torn, tmp_path):
    split = list_folder(torn, CLASSES)
    broken = Broken(tmp_path / BROKEN, len(split), 2 / 24)
    loader = make_loader(split, lambda image: 0, Order(24), 4, 1, broken=broken)
    with pytest.raises(
        InputError, match=r"^3 of 24 pictures cannot be read, more than 8\.33%; the"
    ):
        list(batches(loader))
    assert len(broken.sentences) == 1  # the second and the third come in one batch


def test_all_processes_count_together(tmp_path):
    one, other = (Broken(tmp_path / BROKEN, 200) for _ in range(2))
    one.add(["a is damaged"])
    other.add(["a is damaged", "b is damaged"])
    assert one.sentences == ["a is damaged", "b is damaged"]
    with pytest.raises(InputError, match=r"3 of 200 .* more than 1\.00%; the latest: c is damaged"):
        one.add(["b is damaged", "c is damaged"])


@pytest.mark.parametrize("share", [-0.1, 1.5])
def test_shares_that_are_none(tmp_path, share):
    with pytest.raises(InputError, match=r"must be within 0\.\.1, got"):
        Broken(tmp_path / BROKEN, 10, share)


def test_a_run_names_the_broken_at_its_start_and_goes_on(torn, tmp_path, small):
    console = Console(record=True, width=300, file=io.StringIO())
    recipe = replace(small, epochs=1)
    result = fit(NAME, torn, recipe, tmp_path / "run", broken=0.2, workers=0, console=console)
    assert len(result.history) == 1
    named = (tmp_path / "run" / BROKEN).read_text().splitlines()
    assert len(named) == 3
    assert all(f"skipped: {line}" in console.export_text(clear=False) for line in named)


def test_a_run_with_too_many_does_not_begin(torn, tmp_path, small, quiet):
    with pytest.raises(InputError, match=r"^3 of 24 pictures cannot be read, more than 1\.00%"):
        fit(NAME, torn, small, tmp_path / "run", console=quiet)
    assert not (tmp_path / "run").exists()


def test_a_picture_that_breaks_later(tmp_path, small, quiet):
    """After the check at the start, so in a worker, and also among the held-out ones."""
    folder = paint(tmp_path / "pictures")
    recipe = replace(small, epochs=1)
    whole = fit(NAME, folder, recipe, tmp_path / "whole", workers=0, console=quiet)
    source = open_source(folder)
    for split in (source.train, source.val):
        tear(split.pictures[0])
    again = replace(recipe, epochs=2)
    # The check is what is left out here: sets of more than 100,000 pictures go without.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("seewide.train.feed.CHECK_AT_MOST", 0)
        torn = fit(NAME, folder, again, tmp_path / "torn", broken=0.1, workers=0, console=quiet)
    assert len(torn.history) == 2
    assert len((tmp_path / "torn" / BROKEN).read_text().splitlines()) == 2
    assert not (whole.folder / BROKEN).exists()
