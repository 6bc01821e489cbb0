"""Pictures and their labels: the built-in digits, or a folder with one folder per class.

Every picture is checked before training begins, so a truncated file costs seconds, not epochs.
Splits that are not given are drawn once, class by class, with a fixed seed of their own: the
training seed changes the training, never the question.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from timm.data import create_transform
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from seewide.errors import InputError, require
from seewide.recipes import Recipe
from seewide.train.seeding import seeded

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".ppm", ".tif", ".tiff")
SPLIT_SEED = 0
HELD_OUT = 0.2
# Beyond this, reading everything twice costs more than a late error; it takes about a minute.
CHECK_AT_MOST = 100_000

Picture = Path | Image.Image


@dataclass(frozen=True)
class Split:
    """Pictures, as files or in memory, and the index of the class of each."""

    pictures: Sequence[Picture]
    labels: Sequence[int]

    def __len__(self) -> int:
        return len(self.pictures)

    def take(self, indices: Sequence[int]) -> Split:
        return Split([self.pictures[i] for i in indices], [self.labels[i] for i in indices])

    def limited(self, count: int) -> Split:
        """At most `count` pictures, evenly from first to last, so from all classes; 0: all."""
        if not count or count >= len(self):
            return self
        return self.take(np.linspace(0, len(self) - 1, count).round().astype(int))


@dataclass(frozen=True)
class Source:
    """What `--data` names. `name` is "digits" or the absolute folder."""

    name: str
    class_names: tuple[str, ...]
    train: Split
    val: Split
    split: str  # in words: where the held-out pictures come from


def open_source(data: str | Path) -> Source:
    """`digits`, a folder with `train/` and `val/`, or a folder of classes that is split here.

    Raises:
        InputError: no such folder, no pictures, one class, classes that differ between the two.
    """
    if str(data) == "digits":
        return _digits()
    folder = Path(data).expanduser().resolve()
    if not folder.is_dir():
        raise InputError(
            f"there is no folder {data}; --data is `digits`, a folder with train/ and val/, or a "
            "folder with one folder per class"
        )
    if (folder / "train").is_dir() != (folder / "val").is_dir():
        have, lack = ("train", "val") if (folder / "train").is_dir() else ("val", "train")
        raise InputError(f"{folder} has {have}/ but no {lack}/")
    if (folder / "train").is_dir():
        class_names = classes_of(folder / "train")
        train = list_folder(folder / "train", class_names)
        val = list_folder(folder / "val", class_names)
        return Source(str(folder), class_names, train, val, "train/ and val/ of the folder")
    class_names = classes_of(folder)
    train, val = _hold_out(list_folder(folder, class_names), class_names)
    return Source(str(folder), class_names, train, val, _SPLIT_IN_WORDS)


def classes_of(folder: Path) -> tuple[str, ...]:
    """The names of the class folders, sorted; at least two."""
    names = sorted(
        entry.name for entry in folder.iterdir() if entry.is_dir() and entry.name[0] != "."
    )
    if not names:
        raise InputError(f"{folder} is empty: it should hold one folder of pictures per class")
    if len(names) == 1:
        raise InputError(f"{folder} holds one class, {names[0]}; telling apart needs two or more")
    return tuple(names)


def list_folder(folder: Path, class_names: Sequence[str]) -> Split:
    """All pictures of the class folders, whose names must be among `class_names`."""
    strange = [name for name in classes_of(folder) if name not in class_names]
    if strange:
        raise InputError(
            f"{folder} has a class {strange[0]} that the training classes do not have: "
            f"{_shortened(class_names)}"
        )
    pictures: list[Path] = []
    labels: list[int] = []
    for label, name in enumerate(class_names):
        found = [p for p in sorted((folder / name).rglob("*")) if p.suffix.lower() in SUFFIXES]
        if not found and (folder / name).is_dir():
            raise InputError(f"{folder / name} holds no pictures ({', '.join(SUFFIXES)})")
        pictures += found
        labels += [label] * len(found)
    return Split(pictures, labels)


def _digits() -> Source:
    """scikit-learn's copy of the UCI optical digits: 1797 of 8x8 px, 17 levels of grey.

    Grey becomes three equal channels, so that the network also takes any other picture.
    """
    require("sklearn", extra="digits")
    from sklearn.datasets import load_digits

    content = load_digits()
    grey_NHW = np.rint(content.images * (255 / 16)).astype(np.uint8)
    pictures = [Image.fromarray(grey_HW).convert("RGB") for grey_HW in grey_NHW]
    class_names = tuple(str(name) for name in content.target_names)
    train, val = _hold_out(Split(pictures, content.target.tolist()), class_names)
    return Source("digits", class_names, train, val, _SPLIT_IN_WORDS)


_SPLIT_IN_WORDS = f"{HELD_OUT:.0%} of every class held out, seed {SPLIT_SEED}"


def _hold_out(split: Split, class_names: Sequence[str]) -> tuple[Split, Split]:
    """The same share of every class, at least one picture."""
    labels_N = np.asarray(split.labels)
    chance = np.random.default_rng(SPLIT_SEED)
    train: list[int] = []
    val: list[int] = []
    for label, name in enumerate(class_names):
        members = chance.permutation(np.flatnonzero(labels_N == label)).tolist()
        if len(members) < 2:
            raise InputError(f"class {name} has one picture; holding some out needs two or more")
        count = max(1, round(HELD_OUT * len(members)))
        val += members[:count]
        train += members[count:]
    return split.take(sorted(train)), split.take(sorted(val))


def read_picture(picture: Picture) -> Image.Image:
    """The decoded picture in RGB.

    Raises:
        InputError: the file is missing, truncated or no picture; the sentence names it.
    """
    if isinstance(picture, Image.Image):
        return picture
    try:
        with Image.open(picture) as image:
            return image.convert("RGB")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise _broken(picture, error) from None


def check_pictures(split: Split, step: Callable[[], object] = lambda: None) -> None:
    """Decode every file once, small; raise read_picture's InputError for the first bad one."""
    for picture in split.pictures:
        if isinstance(picture, Path):
            try:
                with Image.open(picture) as image:
                    image.draft("RGB", (1, 1))  # JPEG: all bytes, an eighth of the pixels
                    image.load()
            except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
                raise _broken(picture, error) from None
        step()


def _broken(path: Path, error: Exception) -> InputError:
    if not Path(path).is_file():
        return InputError(f"there is no picture {path}")
    if isinstance(error, UnidentifiedImageError):
        return InputError(f"{path} is no picture that can be read")
    return InputError(f"{path} is damaged: {error}")


def _shortened(names: Sequence[str], limit: int = 10) -> str:
    rest = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + rest


def train_transform(recipe: Recipe, mean: Sequence[float], std: Sequence[float]) -> Callable:
    """timm's training transform: crop, flip, RandAugment, erasing; PIL in, (3, H, W) out."""
    return create_transform(
        input_size=recipe.image_size,
        is_training=True,
        scale=(recipe.min_crop, 1.0),
        hflip=recipe.flip,
        color_jitter=recipe.color_jitter or None,
        auto_augment=recipe.rand_augment or None,
        interpolation=recipe.interpolation,
        mean=tuple(mean),
        std=tuple(std),
        re_prob=recipe.erase,
        re_mode="pixel",
    )


class Pictures(Dataset):
    """Reads, transforms, and draws the chance of a picture from (seed, epoch, index) alone."""

    def __init__(self, split: Split, transform: Callable, seed: int = 0) -> None:
        self.split = split
        self.transform = transform
        self.seed = seed

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, key: tuple[int, int]) -> tuple[Tensor, int]:
        epoch, index = key
        with seeded(self.seed, epoch, index):
            x_CHW = self.transform(read_picture(self.split.pictures[index]))
        return x_CHW, self.split.labels[index]


class Order(Sampler[tuple[int, int]]):
    """Keys (epoch, index) of one epoch; shuffled by (seed, epoch), or as they come."""

    def __init__(self, images: int, *, seed: int | None = None, take: int | None = None) -> None:
        self.images = images
        self.seed = seed
        self.take = images if take is None else take
        self.epoch = 0

    def __len__(self) -> int:
        return self.take

    def __iter__(self) -> Iterator[tuple[int, int]]:
        order = np.arange(self.images)
        if self.seed is not None:
            order = np.random.default_rng((self.seed, self.epoch)).permutation(self.images)
        return ((self.epoch, int(index)) for index in order[: self.take])


def make_loader(
    split: Split, transform: Callable, order: Order, batch_size: int, workers: int, *, seed: int = 0
) -> DataLoader:
    """Batches (N, 3, H, W), (N,). Workers stay between epochs."""
    return DataLoader(
        Pictures(split, transform, seed),
        batch_size=batch_size,
        sampler=order,
        num_workers=workers,
        persistent_workers=workers > 0,
        pin_memory=torch.cuda.is_available(),
        # The loader draws a number per epoch; from here, so that it takes none of the training's.
        generator=torch.Generator(),
        worker_init_fn=_ignore_ctrl_c,
    )


def _ignore_ctrl_c(_worker: int) -> None:
    """A terminal sends Ctrl-C to workers too; the training process is the one to answer."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def batches(loader: DataLoader) -> Iterator[tuple[Tensor, Tensor]]:
    """Iterate; a worker's InputError, which arrives as a page of traceback, is one line again."""
    try:
        yield from loader
    except InputError as error:
        raise InputError(str(error).strip().rpartition("InputError: ")[2]) from None
