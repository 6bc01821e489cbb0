"""A broken sample is skipped, counted and named; too many of them are an error."""

from __future__ import annotations

import os
import signal

import numpy as np
import pytest
import torch
from image_files import CLASSES

from seewide.data import (
    BROKEN,
    BrokenSamples,
    Order,
    SampleReader,
    batches,
    make_loader,
    read_image,
)
from seewide.data.folders import list_class_folders
from seewide.errors import InputError


def tear(path):
    path.write_bytes(path.read_bytes()[:300])


def first_pixel(sample) -> dict:
    pixel = np.asarray(sample["image"])[0, 0].tolist()
    return {"pixel": pixel, "label": sample["label"]}


def labels(samples) -> dict:
    return {"label": [sample["label"] for sample in samples]}


@pytest.fixture
def torn(images):
    """24 images, of which blue 2, green 7 and red 0 cannot be read: numbers 2, 15 and 16."""
    for name in ("blue/2.jpg", "green/7.jpg", "red/0.jpg"):
        tear(images / name)
    return images


def test_the_next_readable_sample_is_read_instead(torn):
    samples = list_class_folders(torn, CLASSES)
    reader = SampleReader(samples, first_pixel, skip=True)
    for index, taken in ((1, 1), (2, 3), (15, 17), (16, 17)):
        sample, sentences = reader[1, index]
        assert sample["pixel"] == np.asarray(read_image(samples.images[taken]))[0, 0].tolist()
        assert sample["label"] == samples.labels[taken]
        assert len(sentences) == taken - index
    assert reader[1, 15] == reader[1, 15]
    with pytest.raises(InputError, match=r"^[^ ]*blue/2\.jpg is "):
        SampleReader(samples, first_pixel)[1, 2]


def test_a_sample_that_cannot_be_transformed_is_a_broken_one(images):
    def refuse_black(sample):
        if sample["label"] == 1:
            raise InputError("no sample of this class")
        return first_pixel(sample)

    samples = list_class_folders(images, CLASSES)
    second = samples.labels.tolist().index(1)
    sample, sentences = SampleReader(samples, refuse_black, skip=True)[1, second + 7]
    assert (sample["label"], sentences) == (2, ["no sample of this class"])
    with pytest.raises(InputError, match="no sample of this class"):
        SampleReader(samples, refuse_black)[1, second]


def test_only_broken_samples(images):
    for path in images.rglob("*.jpg"):
        tear(path)
    reader = SampleReader(list_class_folders(images, CLASSES), first_pixel, skip=True)
    with pytest.raises(InputError, match=r"^24 samples in a row cannot be read; "):
        reader[1, 0]


@pytest.mark.parametrize("workers", [0, 2])
def test_broken_samples_are_counted_once_and_named(torn, tmp_path, workers):
    samples, heard = list_class_folders(torn, CLASSES), []
    broken = BrokenSamples(tmp_path / "run" / BROKEN, len(samples), 0.2, heard.append)
    order = Order(24, seed=0)
    loader = make_loader(samples, lambda sample: sample, labels, order, 4, workers, broken=broken)
    for order.epoch in (1, 2):
        assert sum(len(batch["label"]) for batch in batches(loader)) == 24
    named = broken.file.read_text().splitlines()
    assert len(named) == len(heard) == 3
    for name in ("blue/2.jpg", "green/7.jpg", "red/0.jpg"):
        assert sum(f"{torn / name} is " in line for line in named) == 1
    assert heard == [f"skipped: {line}" for line in named]


def test_more_than_the_share_is_an_error(torn, tmp_path):
    samples = list_class_folders(torn, CLASSES)
    broken = BrokenSamples(tmp_path / BROKEN, len(samples), 2 / 24)
    loader = make_loader(samples, lambda sample: sample, labels, Order(24), 4, 1, broken=broken)
    with pytest.raises(InputError, match=r"^3 of 24 samples cannot be read, more than 8\.33%; the"):
        list(batches(loader))
    assert len(broken.sentences) == 1  # the second and the third come in one batch


def test_all_processes_count_together(tmp_path):
    one, other = (BrokenSamples(tmp_path / BROKEN, 200) for _ in range(2))
    one.add(["a is damaged"])
    other.add(["a is damaged", "b is damaged"])
    assert one.sentences == ["a is damaged", "b is damaged"]
    with pytest.raises(InputError, match=r"3 of 200 .* more than 1\.00%; the latest: c is damaged"):
        one.add(["b is damaged", "c is damaged"])


@pytest.mark.parametrize("share", [-0.1, 1.5])
def test_shares_out_of_range(tmp_path, share):
    with pytest.raises(InputError, match=r"must be within 0\.\.1, got"):
        BrokenSamples(tmp_path / BROKEN, 10, share)


@pytest.mark.parametrize("workers", [0, 1])
def test_errors_in_collate_and_of_killed_workers_are_one_sentence(images, workers):
    samples = list_class_folders(images, CLASSES)

    def refuse(samples):
        raise InputError("sizes differ")

    loader = make_loader(samples, lambda sample: sample, refuse, Order(24), 4, workers)
    with pytest.raises(InputError, match=r"^sizes differ$"):
        list(batches(loader))
    if workers:
        loader = make_loader(samples, kill, labels, Order(24), 4, workers)
        with pytest.raises(InputError, match=r"^DataLoader worker .*; --workers 0 reads without"):
            list(batches(loader))


def kill(sample):
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_batch_is_read_once_more_by_its_keys(torn):
    """For the file of a batch whose loss was NaN."""
    samples = list_class_folders(torn, CLASSES)
    order = Order(24, seed=0)
    loader = make_loader(
        samples, first_pixel, torch.utils.data.default_collate, order, 4, 0,
        broken=BrokenSamples(torn / BROKEN, 24, 0.5),
    )  # fmt: skip
    first = next(iter(loader))
    again = loader.read(list(order)[:4])
    assert torch.equal(torch.stack(first["pixel"]), torch.stack(again["pixel"]))
    assert torch.equal(first["label"], again["label"])
