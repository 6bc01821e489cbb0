"""Where pictures come from, and that their chance depends on nothing but (seed, epoch, index)."""

from __future__ import annotations

import random
import re
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from seewide.train.data import (
    Order,
    Pictures,
    Split,
    batches,
    check_pictures,
    list_folder,
    make_loader,
    on_device,
    open_source,
    read_picture,
    train_transform,
)
from seewide.train.data.transform import ToNormalized
from seewide.train.seeding import seed_all, seeded
from timm.data import create_transform
from tiny import COLOURS, SMALL, paint
from torchvision.transforms.functional import normalize, to_tensor

from seewide.errors import InputError

MEAN = STD = (0.5, 0.5, 0.5)


def truncate(path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def test_digits_are_split_class_by_class_and_always_the_same():
    source = open_source("digits")
    assert (len(source.train), len(source.val)) == (1438, 359)
    assert source.class_names == tuple("0123456789")
    shares = Counter(source.val.labels)
    assert set(shares) == set(range(10))
    assert max(shares.values()) - min(shares.values()) <= 3
    again = open_source("digits")
    for one, other in zip(source.val.pictures, again.val.pictures, strict=True):
        assert np.array_equal(one, other)
    # The smallest and largest grey of the 17 levels arrive as black and white.
    pixels = np.stack([np.asarray(picture) for picture in source.train.pictures])
    assert pixels.shape == (1438, 8, 8, 3)
    assert (pixels.min(), pixels.max()) == (0, 255)


def test_a_folder_of_classes_is_split_without_overlap(pictures):
    source = open_source(pictures)
    assert source.class_names == ("blue", "green", "red")
    assert len(source.train) + len(source.val) == 24
    assert not set(source.train.pictures) & set(source.val.pictures)
    assert Counter(source.val.labels) == {0: 2, 1: 2, 2: 2}
    for split in (source.train, source.val):
        for path, label in zip(split.pictures, split.labels, strict=True):
            assert path.parent.name == source.class_names[label]


def test_train_and_val_are_taken_as_they_are(tmp_path):
    paint(tmp_path / "train", count=3)
    paint(tmp_path / "val", count=2)
    source = open_source(tmp_path)
    assert (len(source.train), len(source.val)) == (9, 6)


def test_limited_takes_all_classes(pictures):
    source = open_source(pictures)
    assert set(source.train.limited(3).labels) == {0, 1, 2}
    assert source.train.limited(0) is source.train
    assert source.train.limited(1000) is source.train


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda d: None, "is empty"),
        (lambda d: paint(d, classes=["red"]), "holds one class, red"),
        (lambda d: (paint(d), (d / "void").mkdir()), "void holds no pictures"),
        (lambda d: paint(d / "train"), "has train/ but no val/"),
        (lambda d: paint(d, count=1), "class blue has one picture"),
        (
            lambda d: (paint(d / "train", classes=["red", "blue"]), paint(d / "val")),
            "class green that the training classes do not have: blue, red",
        ),
    ],
)
def test_folders_that_cannot_be_trained_on(tmp_path, make, sentence):
    make(tmp_path)
    with pytest.raises(InputError, match=sentence):
        open_source(tmp_path)


def test_a_folder_that_is_not_there():
    with pytest.raises(InputError, match="there is no folder digitz; --data is `digits`"):
        open_source("digitz")


def test_a_truncated_picture_is_named_before_training(pictures):
    victim = pictures / "green" / "3.jpg"
    truncate(victim)
    (sentence,) = check_pictures(list_folder(pictures, tuple(COLOURS)))
    assert re.search(r"green/3\.jpg is damaged: (?i:.*truncated)", sentence)
    with pytest.raises(InputError, match=r"green/3\.jpg is damaged"):
        read_picture(victim)


def test_check_pictures_reads_each_once(pictures):
    steps = []
    check_pictures(list_folder(pictures, tuple(COLOURS)), lambda: steps.append(1))
    assert len(steps) == 24


def test_other_broken_files(tmp_path):
    (tmp_path / "text.png").write_text("no picture")
    with pytest.raises(InputError, match=r"text\.png is no picture"):
        read_picture(tmp_path / "text.png")
    with pytest.raises(InputError, match=r"there is no picture .*none\.png"):
        read_picture(tmp_path / "none.png")


def test_a_workers_complaint_is_still_one_sentence(pictures):
    split = list_folder(pictures, tuple(COLOURS))
    transform = train_transform(SMALL, MEAN, STD)
    loader = make_loader(split, transform, Order(len(split)), 4, workers=1)
    truncate(pictures / "blue" / "0.jpg")
    with pytest.raises(InputError) as caught:
        list(batches(loader))
    assert str(caught.value).startswith(str(pictures / "blue" / "0.jpg"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("workers", [0, 1])
def test_chance_follows_from_seed_epoch_and_index(pictures, workers):
    split = list_folder(pictures, tuple(COLOURS))
    transform = train_transform(SMALL, MEAN, STD)

    def epoch(number: int, seed: int, workers: int) -> torch.Tensor:
        order = Order(len(split), seed=seed)
        order.epoch = number
        loader = make_loader(split, transform, order, 6, workers, seed=seed)
        return torch.cat([x_NCHW for x_NCHW, _ in batches(loader)])

    first = epoch(1, 0, 0)
    assert torch.equal(epoch(1, 0, workers), first)
    assert not torch.equal(epoch(2, 0, workers), first)
    assert not torch.equal(epoch(1, 1, workers), first)


@pytest.mark.parametrize("size", [(32, 32), (20, 45)])
def test_pixels_are_normalized_as_by_torchvision(size):
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8))
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    assert torch.equal(ToNormalized(mean, std)(image), normalize(to_tensor(image), mean, std))


def test_the_same_pictures_as_by_timms_own_ending(pictures):
    """Erasing included, which comes last: our order of the steps is timm's."""
    split = list_folder(pictures, tuple(COLOURS))
    timms = create_transform(
        32, is_training=True, scale=(0.5, 1.0), auto_augment=SMALL.rand_augment, mean=MEAN, std=STD,
        re_prob=0.5, re_mode="pixel", color_jitter=None, interpolation=SMALL.interpolation,
    )  # fmt: skip
    ours = train_transform(SMALL, MEAN, STD)
    for index in range(len(split)):
        one, other = (Pictures(split, t)[1, index][0] for t in (ours, timms))
        assert torch.equal(one, other)


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_batches_travel_to_the_device(device):
    images = [(torch.rand(4, 3, 8, 8), torch.arange(4) + n) for n in range(5)]
    found = list(on_device(iter(images), torch.device(device), torch.channels_last))
    assert len(found) == 5
    for (x_NCHW, y_N), (ours_NCHW, our_N) in zip(images, found, strict=True):
        assert ours_NCHW.device.type == device
        assert ours_NCHW.is_contiguous(memory_format=torch.channels_last)
        assert torch.equal(ours_NCHW.cpu(), x_NCHW)
        assert torch.equal(our_N.cpu(), y_N)


def test_augmenting_a_picture_leaves_the_generators_alone(pictures):
    dataset = Pictures(list_folder(pictures, tuple(COLOURS)), train_transform(SMALL, MEAN, STD))

    def draw() -> tuple:
        return random.random(), np.random.rand(), torch.rand(1).item()

    seed_all(5)
    expected = draw()
    seed_all(5)
    dataset[1, 0]
    assert draw() == expected


def test_posterizing_to_no_bits_is_black():
    """Which Pillow refuses from version 13 on, and RandAugment at magnitude 10 asks."""
    recipe = replace(SMALL, rand_augment="rand-m10-n2-inc1")
    transforms = train_transform(recipe, MEAN, STD).transforms
    (chosen,) = (step for step in transforms if hasattr(step, "ops"))
    (op,) = (op for op in chosen.ops if op.name == "PosterizeIncreasing")
    op.prob = 1.0
    picture = Image.new("RGB", (4, 4), (201, 202, 203))
    assert op(picture).getcolors() == [(16, (0, 0, 0))]
    op.magnitude = 5
    assert op(picture).getcolors() == [(16, (192, 192, 192))]


def test_seeded_within_seeded():
    def draw() -> tuple:
        return random.random(), np.random.rand(), torch.rand(1).item()

    def twice(between) -> tuple:
        with seeded(1):
            first = draw()
            between()
            return first, draw()

    def inner() -> None:
        with seeded(2):
            draw()

    assert twice(inner) == twice(lambda: None)


def test_seeded_inside_and_outside():
    with seeded(1, 2):
        one = torch.rand(3)
    with seeded(1, 2):
        assert torch.equal(torch.rand(3), one)
    with seeded(2, 1):
        assert not torch.equal(torch.rand(3), one)


def test_order_is_a_permutation_that_changes_with_the_epoch():
    order = Order(20, seed=0, take=16)
    order.epoch = 1
    first = list(order)
    assert len(first) == len(order) == 16
    assert len({index for _, index in first}) == 16
    assert {epoch for epoch, _ in first} == {1}
    order.epoch = 2
    assert [i for _, i in order] != [i for _, i in first]
    assert [i for _, i in Order(5)] == [0, 1, 2, 3, 4]


def test_flip_zero_and_full_crop_only_resize():
    """A recipe without chance is a resize: the digits' `flip=0` means what it says."""
    still = replace(SMALL, rand_augment="", erase=0.0, flip=0.0, min_crop=1.0)
    half = Image.new("RGB", (64, 64))
    half.paste((255, 255, 255), (0, 0, 32, 64))
    dataset = Pictures(Split([half], [0]), train_transform(still, MEAN, STD))
    for epoch in range(8):
        x_CHW, *_ = dataset[epoch, 0]
        assert x_CHW[:, :, 2].mean() > 0.9  # left is white, in every epoch
        assert x_CHW[:, :, -3].mean() < -0.9
