"""Tables of Hugging Face `datasets`, from disk; the hub gives the same objects."""

from __future__ import annotations

import io
import random

import pytest
from image_files import CLASSES
from PIL import Image

from seewide.data import (
    Order,
    batches,
    check_samples,
    fingerprint,
    make_loader,
    open_classification,
)
from seewide.data.tables import open_table
from seewide.errors import InputError

datasets = pytest.importorskip("datasets")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """Where parquet is unpacked, and the network is not used."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    datasets.disable_progress_bars()


def png(number: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (8, 8), (0, 0, number)).save(file, "png")
    return file.getvalue()


def table(count: int = 12, first: int = 0, names=CLASSES, **columns):
    """Uniform images whose blue value is the number."""
    values = range(first, first + count)
    content = {
        "image": [{"bytes": png(number), "path": None} for number in values],
        "label": [number % 3 for number in values],
        "id": [f"x{number}" for number in values],
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


def numbers(samples) -> list[int]:
    return [sample["image"].getpixel((0, 0))[2] for sample in samples]


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
    data = open_classification(f"{prefix}{folder}")
    assert data.class_names == tuple(CLASSES)
    assert numbers(data.train) == list(range(12))
    assert numbers(data.val) == list(range(100, 106))
    assert list(data.train.labels) == [n % 3 for n in range(12)]
    assert data.name == f"{prefix}{folder}"
    assert data.short == "set"


def test_one_table_is_split(tmp_path):
    table().save_to_disk(tmp_path / "set")
    data = open_classification(tmp_path / "set")
    assert (len(data.train), len(data.val)) == (9, 3)
    table().to_parquet(tmp_path / "one.parquet")
    assert len(open_table(str(tmp_path / "one.parquet"))[2]) == 12


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
    data = open_classification(many + ending)
    assert (len(data.train), len(data.val)) == sizes
    assert len(open_classification(data.name).train) == sizes[0]


def test_columns_by_name(many):
    data = open_classification(f"{many}?label=coarse")
    assert data.class_names == ("0", "1")
    assert list(data.train.labels) == [0, 1, 1] * 4
    assert open_table(str(f"{many}?image=img&label=id"))[1][:2] == ("x0", "x1")


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
        open_classification(many + ending)


def test_columns_that_cannot_be_told(tmp_path):
    table().remove_columns(["image"]).save_to_disk(tmp_path / "blind")
    with pytest.raises(InputError, match="no image column among label, id; name it: "):
        open_classification(tmp_path / "blind")
    two = table().rename_column("label", "fine")
    two = two.add_column("coarse", two["fine"], feature=datasets.ClassLabel(names=CLASSES))
    two.save_to_disk(tmp_path / "two")
    with pytest.raises(InputError, match=r"label columns are fine, coarse; say \?label= which"):
        open_classification(tmp_path / "two")


def test_class_lists_that_differ(tmp_path):
    as_saved(tmp_path / "set", table(), table(6, names=CLASSES[::-1]))
    with pytest.raises(InputError, match="train and validation have different lists of classes"):
        open_classification(tmp_path / "set")


def test_no_such_data_set(tmp_path, monkeypatch):
    def load(name):
        raise FileNotFoundError(f"Couldn't find {name}\nand so on")

    monkeypatch.setattr(datasets, "load_dataset", load)
    with pytest.raises(InputError, match=r"there is no data set nobody/none on the hub or on disk"):
        open_classification("hf:nobody/none")
    monkeypatch.setattr(datasets, "load_dataset", lambda name: {"train": table()})
    assert len(open_table("hf:somebody/some")[2]) == 12


def test_damaged_files(tmp_path):
    table().to_parquet(tmp_path / "train.parquet")
    (tmp_path / "train.parquet").write_bytes(b"not a table")
    with pytest.raises(InputError, match="cannot be read as a table"):
        open_classification(tmp_path)


def test_without_the_library(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "datasets", None)
    with pytest.raises(InputError, match=r"datasets is not installed; `pip install seewide\[data"):
        open_classification("hf:some")


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_and_broken_rows(tmp_path, workers):
    table().save_to_disk(tmp_path / "set")
    samples = open_table(str(tmp_path / "set"))[2]
    loader = make_loader(
        samples, lambda sample: sample, numbers_and_labels, Order(12, seed=0), 6, workers
    )
    found = [pair for batch in batches(loader) for pair in batch["pairs"]]
    assert sorted(x for x, _ in found) == list(range(12))
    assert all(x % 3 == y for x, y in found)
    assert check_samples(samples) == []

    cells = [{"bytes": png(1), "path": None}, {"bytes": b"torn", "path": None}] * 3
    broken = datasets.Dataset.from_dict(
        {"image": cells, "label": [0, 1, 2] * 2},
        datasets.Features({"image": datasets.Image(), "label": datasets.Value("int64")}),
    )
    broken.save_to_disk(tmp_path / "torn")
    sentences = check_samples(open_table(str(tmp_path / "torn"))[2])
    assert [sentence.partition("torn:train, ")[2] for sentence in sentences] == [
        f"row {row} is not an image that can be read" for row in (1, 3, 5)
    ]


def numbers_and_labels(samples):
    labels = [sample["label"] for sample in samples]
    return {"pairs": list(zip(numbers(samples), labels, strict=True))}


def test_fingerprints_of_tables(tmp_path):
    found = []
    for name, first in (("one", 0), ("same", 0)):
        table(first=first).save_to_disk(tmp_path / name)
        found.append(fingerprint(open_table(str(tmp_path / name))[2]))
    assert found[0] == found[1]
    other = table().map(lambda row: {"label": (row["label"] + 1) % 3})
    other.save_to_disk(tmp_path / "other")
    assert fingerprint(open_table(str(tmp_path / "other"))[2]) != found[0]


def test_mutated_parquet_is_one_sentence(tmp_path, caplog):
    table().to_parquet(tmp_path / "train.parquet")
    content = (tmp_path / "train.parquet").read_bytes()
    generator = random.Random(0)
    sentences = []
    for number in range(12):
        data = bytearray(content)
        for _ in range(20):
            data[generator.randrange(len(data))] = generator.randrange(256)
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / "train.parquet").write_bytes(bytes(data[: generator.choice((len(data), 900))]))
        try:
            check_samples(open_table(str(folder))[2])
        except InputError as error:
            sentences.append(str(error))
    assert len(sentences) > 6
    assert all(sentence.isprintable() for sentence in sentences)
    assert not caplog.records  # of the library, above our sentence
