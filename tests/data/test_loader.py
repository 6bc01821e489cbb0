"""Loading and augmentation: random numbers follow from (seed, epoch, index) and nothing else."""

from __future__ import annotations

import multiprocessing
import pickle
import random
import re

import numpy as np
import pytest
import torch
from image_files import AUGMENT, CLASSES, truncate
from PIL import Image
from timm.data import create_transform
from torch.utils.data import default_collate
from torchvision.transforms.functional import normalize, to_tensor

from seewide.data import ImageSamples, Order, SampleReader, batches, check_samples, make_loader
from seewide.data.augment import OnImage, ToNormalized, train_transform
from seewide.data.folders import list_class_folders
from seewide.errors import InputError
from seewide.seeding import seed_all, seeded

MEAN = STD = (0.5, 0.5, 0.5)


def augment(**changes) -> OnImage:
    return OnImage(train_transform(32, MEAN, STD, **{**AUGMENT, **changes}))


def draw() -> tuple:
    return random.random(), np.random.rand(), torch.rand(1).item()


@pytest.mark.parametrize("workers", [0, 1])
def test_random_numbers_follow_from_seed_epoch_and_index(images, workers):
    samples = list_class_folders(images, CLASSES)

    def epoch(number: int, seed: int, workers: int) -> torch.Tensor:
        order = Order(len(samples), seed=seed)
        order.epoch = number
        loader = make_loader(samples, augment(), default_collate, order, 6, workers, seed=seed)
        return torch.cat([batch["image"] for batch in batches(loader)])

    first = epoch(1, 0, 0)
    assert torch.equal(epoch(1, 0, workers), first)
    assert not torch.equal(epoch(2, 0, workers), first)
    assert not torch.equal(epoch(1, 1, workers), first)


def test_batches_of_the_first_release(images):
    """Augmented images to the bit, and labels: a run is repeated by later versions.

    The expected images are computed here as version 0.1.0 did, by timm's own transform.
    """
    samples = list_class_folders(images, CLASSES)
    order = Order(24, seed=3, per_epoch=16, batch_size=8)
    order.epoch = 2
    loader = make_loader(samples, augment(), default_collate, order, 8, 0, seed=3)
    timms = create_transform(
        32, is_training=True, scale=(0.5, 1.0), auto_augment=AUGMENT["rand_augment"], mean=MEAN,
        std=STD, re_prob=0.5, re_mode="pixel", color_jitter=None, interpolation="bicubic",
    )  # fmt: skip
    permutation = np.random.default_rng((3, 2)).permutation(24)[:16]
    for batch, indices in zip(batches(loader), permutation.reshape(2, 8), strict=True):
        assert batch["label"].tolist() == [index // 8 for index in indices]
        for x_CHW, index in zip(batch["image"], indices, strict=True):
            number = int(np.random.SeedSequence((3, 2, int(index))).generate_state(1)[0])
            random.seed(number)
            np.random.seed(number)
            torch.manual_seed(number)
            path = images / CLASSES[index // 8] / f"{index % 8}.jpg"
            assert torch.equal(x_CHW, timms(Image.open(path).convert("RGB")))


def test_augmentation_leaves_the_generators_alone(images):
    reader = SampleReader(list_class_folders(images, CLASSES), augment())
    seed_all(5)
    expected = draw()
    seed_all(5)
    reader[1, 0]
    assert draw() == expected


def test_loaders_work_where_workers_are_spawned(images):
    """As on macOS and Windows: everything that a worker needs can be pickled."""
    samples = list_class_folders(images, CLASSES)
    loader = make_loader(samples, augment(), default_collate, Order(24), 12, 0)
    copy = pickle.loads(pickle.dumps((loader.dataset, loader.collate_fn)))
    assert torch.equal(copy[0][1, 0][0]["image"], loader.dataset[1, 0][0]["image"])
    assert "fork" in multiprocessing.get_all_start_methods()


@pytest.mark.parametrize("size", [(32, 32), (20, 45)])
def test_pixels_are_normalized_as_by_torchvision(size):
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8))
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    assert torch.equal(ToNormalized(mean, std)(image), normalize(to_tensor(image), mean, std))


def test_posterizing_to_no_bits_is_black():
    """Which Pillow refuses from version 13 on, and RandAugment at magnitude 10 asks for."""
    transforms = train_transform(32, MEAN, STD, rand_augment="rand-m10-n2-inc1").transforms
    (chosen,) = (step for step in transforms if hasattr(step, "ops"))
    (op,) = (op for op in chosen.ops if op.name == "PosterizeIncreasing")
    op.prob = 1.0
    image = Image.new("RGB", (4, 4), (201, 202, 203))
    assert op(image).getcolors() == [(16, (0, 0, 0))]
    op.magnitude = 5
    assert op(image).getcolors() == [(16, (192, 192, 192))]


@pytest.mark.parametrize("words", ["nosuch", "rand-q9"])
def test_augmentations_that_timm_does_not_know(words):
    with pytest.raises(InputError, match=f"timm does not take .*{words}"):
        train_transform(32, MEAN, STD, rand_augment=words)


def test_flip_zero_and_full_crop_only_resize():
    half = Image.new("RGB", (64, 64))
    half.paste((255, 255, 255), (0, 0, 32, 64))
    still = augment(rand_augment="", erase=0.0, flip=0.0, min_crop=1.0)
    reader = SampleReader(ImageSamples([half], [0]), still)
    for epoch in range(8):
        x_CHW = reader[epoch, 0][0]["image"]
        assert x_CHW[:, :, 2].mean() > 0.9  # left is white, in every epoch
        assert x_CHW[:, :, -3].mean() < -0.9


def test_seeded_within_seeded():
    def twice(between) -> tuple:
        with seeded(1):
            first = draw()
            between()
            return first, draw()

    def inner() -> None:
        with seeded(2):
            draw()

    assert twice(inner) == twice(lambda: None)


def test_keys_of_seeds_are_ordered():
    with seeded(1, 2):
        one = torch.rand(3)
    with seeded(1, 2):
        assert torch.equal(torch.rand(3), one)
    with seeded(2, 1):
        assert not torch.equal(torch.rand(3), one)


def test_a_truncated_image_is_named_before_training(images):
    truncate(images / "green" / "3.jpg")
    steps = []
    (sentence,) = check_samples(list_class_folders(images, CLASSES), lambda: steps.append(1))
    assert re.search(r"green/3\.jpg is damaged: (?i:.*truncated)", sentence)
    assert len(steps) == 24


@pytest.mark.parametrize("workers", [0, 1])
def test_an_error_of_a_worker_is_one_sentence(images, workers):
    samples = list_class_folders(images, CLASSES)
    loader = make_loader(samples, augment(), default_collate, Order(24), 4, workers)
    truncate(images / "blue" / "0.jpg")
    with pytest.raises(InputError, match=r"^/[^ ]*blue/0\.jpg is damaged: [^\\]*$"):
        list(batches(loader))
