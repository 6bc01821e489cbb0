"""Tables of Hugging Face `datasets`, from disk; the hub gives the same objects."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image
from seewide.train.data import (
    Order,
    batches,
    check_pictures,
    make_loader,
    open_source,
    open_unsplit,
    read_picture,
)
from tiny import COLOURS

from seewide.errors import InputError

datasets = pytest.importorskip("datasets")
CLASSES = list(COLOURS)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """Where parquet is unpacked, and nobody is asked over the network."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    datasets.disable_progress_bars()


def png(number: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (8, 8), (0, 0, number)).save(file, "png")
    return file.getvalue()


def table(count: int = 12, first: int = 0, names=CLASSES, **columns):
    """Uniform pictures, of which the blue value is the number."""
    numbers = range(first, first + count)
    content = {
        "image": [{"bytes": png(number), "path": None} for number in numbers],
        "label": [number % 3 for number in numbers],
        "id": [f"x{number}" for number in numbers],
    }
    kinds = {
        "image": datasets.Image(),
        "label": datasets.ClassLabel(names=list(names)),
        "id": datasets.Value("string"),
    }
    renamed = {columns.get(name, name): values for name, values in content.items()}
    return datasets.Dataset.from_dict(
        renamed, datasets.Features({columns.get(name, name): kinds[name] for name in kinds})
    )


def number(picture) -> int:
    return read_picture(picture).getpixel((0, 0))[2]


def as_saved(folder, train, val):
    datasets.DatasetDict({"train": train, "validation": val}).save_to_disk(folder)


def as_parquet(folder, train, val):
    (folder / "data").mkdir(parents=True)
    train.select(range(6)).to_parquet(folder / "data" / "train-00000-of-00002.parquet")
    train.select(range(6, 12)).to_parquet(folder / "data" / "train-00001-of-00002.parquet")
    val.to_parquet(folder / "data" / "validation-00000-of-00001.parquet")


def as_arrow(folder, train, val):
    folder.mkdir()
    for name, part in (("train", train), ("val", val)):
        part.save_to_disk(folder.parent / name)
        (next((folder.parent / name).glob("*.arrow"))).rename(folder / f"{name}.arrow")


@pytest.mark.parametrize("kind", [as_saved, as_parquet, as_arrow])
@pytest.mark.parametrize("prefix", ["", "hf:"])
def test_a_folder_of_datasets(tmp_path, kind, prefix):
    folder = tmp_path / "set"
    kind(folder, table(), table(6, first=100))
    source = open_source(f"{prefix}{folder}")
    assert source.class_names == tuple(CLASSES)
    assert [number(p) for p in source.train.pictures] == list(range(12))
    assert [number(p) for p in source.val.pictures] == list(range(100, 106))
    assert list(source.train.labels) == [n % 3 for n in range(12)]
    assert source.name == f"{prefix}{folder}"
    assert source.short == "set"


def test_one_table_is_split(tmp_path):
    table().save_to_disk(tmp_path / "set")
    source = open_source(tmp_path / "set")
    assert (len(source.train), len(source.val)) == (9, 3)
    table().to_parquet(tmp_path / "one.parquet")
    assert len(open_unsplit(tmp_path / "one.parquet").train) == 12


@pytest.fixture
def many(tmp_path):
    """A data set of five splits, with names of its own."""
    names = {"image": "img", "label": "fine"}
    parts = {"train": 12, "test": 6, "extra": 9, "other": 3}
    content = {
        name: table(n, **names).add_column("coarse", [0, 1, 1] * (n // 3))
        for name, n in parts.items()
    }
    datasets.DatasetDict(content).save_to_disk(tmp_path / "many")
    return f"hf:{tmp_path / 'many'}"


@pytest.mark.parametrize(
    ("ending", "sizes"),
    [("", (12, 6)), (":extra", (6, 3)), (":extra:other", (9, 3)), (":train:extra", (12, 9))],
)
def test_splits_by_name(many, ending, sizes):
    source = open_source(many + ending)
    assert (len(source.train), len(source.val)) == sizes
    assert len(open_source(source.name).train) == sizes[0]


def test_columns_by_name(many):
    source = open_source(f"{many}?label=coarse")
    assert source.class_names == ("0", "1")
    assert list(source.train.labels) == [0, 1, 1] * 4
    assert open_unsplit(f"{many}?image=img&label=id").class_names[:2] == ("x0", "x1")


@pytest.mark.parametrize(
    ("ending", "sentence"),
    [
        (":trian", r"unknown split 'trian'; did you mean train"),
        (":train:test:other", "names 3 splits"),
        ("?label=klass", r"unknown label column 'klass'; known are coarse, fine, id, img"),
        ("?picture=img", r"unknown option of hf: 'picture'; "),
    ],
)
def test_splits_and_columns_that_are_not_there(many, ending, sentence):
    with pytest.raises(InputError, match=sentence):
        open_source(many + ending)


def test_columns_that_cannot_be_told(tmp_path):
    table().remove_columns(["image"]).save_to_disk(tmp_path / "blind")
    with pytest.raises(InputError, match="no image column among label, id; name it: "):
        open_source(tmp_path / "blind")
    two = table().rename_column("label", "fine")
    two = two.add_column("coarse", two["fine"], feature=datasets.ClassLabel(names=CLASSES))
    two.save_to_disk(tmp_path / "two")
    with pytest.raises(InputError, match=r"label columns are fine, coarse; say \?label= which"):
        open_source(tmp_path / "two")


def test_class_lists_that_differ(tmp_path):
    as_saved(tmp_path / "set", table(), table(6, names=CLASSES[::-1]))
    with pytest.raises(InputError, match="train and validation have different lists of classes"):
        open_source(tmp_path / "set")


def test_no_such_data_set(tmp_path, monkeypatch):
    def load(name):
        raise FileNotFoundError(f"Couldn't find {name}\nand so on")

    monkeypatch.setattr(datasets, "load_dataset", load)
    with pytest.raises(InputError, match=r"there is no data set nobody/none on the hub or on disk"):
        open_source("hf:nobody/none")
    monkeypatch.setattr(datasets, "load_dataset", lambda name: {"train": table()})
    assert len(open_unsplit("hf:somebody/some").train) == 12


def test_damaged_files(tmp_path):
    table().to_parquet(tmp_path / "train.parquet")
    (tmp_path / "train.parquet").write_bytes(b"not a table")
    with pytest.raises(InputError, match="cannot be read as a table"):
        open_source(tmp_path)


def test_without_the_library(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "datasets", None)
    with pytest.raises(InputError, match=r"datasets is not installed; `pip install seewide\[data"):
        open_source("hf:some")


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_and_broken_rows(tmp_path, workers):
    whole = table()
    whole.save_to_disk(tmp_path / "set")
    split = open_unsplit(tmp_path / "set").train
    loader = make_loader(
        split, lambda image: np.asarray(image)[0, 0, 2], Order(12, seed=0), 6, workers
    )
    found = [(x, y) for x_N, y_N in batches(loader) for x, y in zip(x_N.tolist(), y_N, strict=True)]
    assert sorted(x for x, _ in found) == list(range(12))
    assert all(x % 3 == y for x, y in found)
    assert check_pictures(split) == []

    cells = [{"bytes": png(1), "path": None}, {"bytes": b"torn", "path": None}] * 3
    broken = datasets.Dataset.from_dict(
        {"image": cells, "label": [0, 1, 2] * 2},
        datasets.Features({"image": datasets.Image(), "label": datasets.Value("int64")}),
    )
    broken.save_to_disk(tmp_path / "torn")
    sentences = check_pictures(open_unsplit(tmp_path / "torn").train)
    assert [sentence.partition("torn:train, ")[2] for sentence in sentences] == [
        f"row {row} is no picture that can be read" for row in (1, 3, 5)
    ]
