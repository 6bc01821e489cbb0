"""Images per second of the loader for every kind of source, beside torchvision and a network.

    python -m benchmarks.loader ../shared/data/classification/flowers128

The same images as files, as webdataset shards and as a table of `datasets`, through our loader, in
turns with torchvision's ImageFolder in torch's DataLoader; the same augmentation, batch size and
workers. Without a folder, images of noise of the size of ImageNet's are written.
"""

from __future__ import annotations

import argparse
import gc
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import datasets
import numpy as np
import torch
import webdataset
from PIL import Image
from rich.console import Console
from timm.data import create_transform
from torch import nn
from torch.utils.data import DataLoader, RandomSampler, default_collate
from torchvision.datasets import ImageFolder

from benchmarks.conditions import Settings, describe, write_csv
from benchmarks.timing import Rounds, take_turns
from seewide.data import Order, Samples, Subset, batches, make_loader, open_classification
from seewide.data.augment import OnImage, allow_posterizing_to_no_bits, train_transform
from seewide.recipes import Recipe, get, override
from seewide.tasks.classification import ClassificationOptions
from seewide.train.build import build_backbone

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
BATCH = 32
NETWORK = "unireplknet_a"
PLAIN = "torchvision ImageFolder"
PER_SHARD = 500
RECIPES = ("small_folder", "unireplknet_t_in1k")  # flips and crops; RandAugment and erasing too


def noise(folder: Path, count: int = 512) -> Path:
    """JPEGs of the size of ImageNet's images, 500 x 375, about 100 kB."""
    random = np.random.default_rng(0)
    for index in range(count):
        place = folder / f"class{index % 2}" / f"{index}.jpg"
        place.parent.mkdir(parents=True, exist_ok=True)
        coarse = random.integers(0, 256, (94, 125, 3), np.uint8)
        Image.fromarray(coarse).resize((500, 375), Image.Resampling.BICUBIC).save(place, quality=95)
    return folder


def files(samples: Samples) -> list[Path]:
    """The image files of a part of a folder."""
    if isinstance(samples, Subset):
        return [samples.base.images[index] for index in samples.indices]
    return list(samples.images)


def as_shards(samples: Samples, folder: Path) -> Path:
    """The files as they are, in webdataset's tars."""
    folder.mkdir()
    pattern = str(folder / "train-%04d.tar")
    with webdataset.ShardWriter(pattern, maxcount=PER_SHARD, verbose=0) as shards:
        for number, (path, label) in enumerate(zip(files(samples), samples.labels, strict=True)):
            kind = path.suffix.lstrip(".").lower()
            shards.write({"__key__": f"{number:07d}", kind: path.read_bytes(), "cls": int(label)})
    return folder


def as_table(samples: Samples, folder: Path, class_names: Sequence[str]) -> Path:
    """The files as they are, in an arrow table as save_to_disk leaves it."""
    datasets.disable_progress_bars()
    kinds = {"image": datasets.Image(), "label": datasets.ClassLabel(names=list(class_names))}
    content = {
        "image": [{"bytes": path.read_bytes(), "path": None} for path in files(samples)],
        "label": np.asarray(samples.labels).tolist(),
    }
    datasets.Dataset.from_dict(content, datasets.Features(kinds)).save_to_disk(folder)
    return folder


def plain_loader(folder: Path, recipe: Recipe, count: int, workers: int) -> DataLoader:
    """The baseline: torchvision's dataset and timm's transform in torch's loader."""
    options = ClassificationOptions(**recipe.options)
    transform = create_transform(
        options.image_size, is_training=True, scale=(options.min_crop, 1.0), hflip=options.flip,
        color_jitter=options.color_jitter or None, auto_augment=options.rand_augment or None,
        interpolation=options.interpolation, mean=MEAN, std=STD, re_prob=options.erase,
        re_mode="pixel",
    )  # fmt: skip
    allow_posterizing_to_no_bits(transform.transforms)  # fails with Pillow 13 otherwise
    images = ImageFolder(str(folder), transform)
    chosen = np.linspace(0, len(images) - 1, min(count, len(images))).round().astype(int)
    part = torch.utils.data.Subset(images, chosen.tolist())
    return DataLoader(
        part, BATCH, sampler=RandomSampler(part), num_workers=workers, drop_last=True,
        persistent_workers=workers > 0,
    )  # fmt: skip


def our_loader(data: Path, recipe: Recipe, count: int, workers: int) -> DataLoader:
    samples = open_classification(data).train.limited(count)
    options = ClassificationOptions(**recipe.options)
    used = len(samples) // BATCH * BATCH
    order = Order(len(samples), seed=0, per_epoch=used, shards=samples.shards)
    transform = train_transform(
        options.image_size, MEAN, STD, interpolation=options.interpolation,
        min_crop=options.min_crop, flip=options.flip, rand_augment=options.rand_augment,
        color_jitter=options.color_jitter, erase=options.erase,
    )  # fmt: skip
    return make_loader(samples, OnImage(transform), default_collate, order, BATCH, workers)


def training_step(recipe: Recipe) -> Callable[[], None]:
    """Forward, backward and optimizer step for a batch in memory."""
    side = recipe.options["image_size"]
    model = build_backbone(NETWORK, {"num_classes": 10}).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    x_NCHW, y_N = torch.randn(BATCH, 3, side, side), torch.arange(BATCH)

    def step() -> None:
        loss = nn.functional.cross_entropy(model(x_NCHW), y_N % 10)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


def measure(
    places: dict[str, Path], recipe: Recipe, count: int, workers: int, rounds: int
) -> Rounds:
    """An epoch of each in turns, after one that starts the workers."""
    loaders = {PLAIN: plain_loader(places["ImageFolder"], recipe, count, workers)}
    loaders |= {name: our_loader(at, recipe, count, workers) for name, at in places.items()}
    calls = {name: partial(read_all, loader) for name, loader in loaders.items()}
    for call in calls.values():
        call()
    calls[NETWORK] = training_step(recipe)
    calls[NETWORK]()
    return take_turns(calls, rounds, budget=8.0)


def read_all(loader: DataLoader) -> None:
    for _ in batches(loader):
        pass


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path, nargs="?", help="of classes, or with train/ and val/")
    parser.add_argument("--size", type=int, default=128, help="image size in pixels")
    parser.add_argument("--count", type=int, default=1024, help="images per epoch")
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 2])
    parser.add_argument("--rounds", type=int, default=9)
    given = parser.parse_args()
    torch.set_num_threads(1)
    console, settings = Console(), Settings()
    describe(settings, console)
    with tempfile.TemporaryDirectory() as scratch:
        top = Path(scratch)
        folder = given.folder or noise(top / "noise")
        folder = folder / "train" if (folder / "train").is_dir() else folder
        source = open_classification(folder)
        samples = source.train.limited(given.count)
        places = {
            "ImageFolder": folder,
            "webdataset shards": as_shards(samples, top / "shards"),
            "datasets table": as_table(samples, top / "table", source.class_names),
        }
        rows = []
        for name in RECIPES:
            recipe = override(get(name), {"image_size": given.size}, ClassificationOptions)
            for workers in given.workers:
                rounds = measure(places, recipe, given.count, workers, given.rounds)
                images = len(samples) // BATCH * BATCH
                for label in rounds.rounds:
                    count = BATCH if label == NETWORK else images
                    low, high = rounds.spread(label)
                    row = (
                        name, workers, label, f"{count / rounds.median(label):.0f}",
                        f"{count / high:.0f}", f"{count / low:.0f}",
                        "" if label == NETWORK else f"{rounds.ratio(label, PLAIN):.2f}",
                    )  # fmt: skip
                    rows.append(row)
                    console.print("  ".join(map(str, row)), markup=False)
                gc.collect()
    header = (
        "augmentation", "workers", "loader", "images_per_second", "first_quartile",
        "third_quartile", "times_as_fast_as_torchvision",
    )  # fmt: skip
    console.print(f"wrote {write_csv(f'loader-{given.size}px', header, rows, settings)}")


if __name__ == "__main__":
    main()
