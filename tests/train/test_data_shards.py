"""Tar shards as webdataset writes them, read at their places."""

from __future__ import annotations

import io
import json
import tarfile

import numpy as np
import pytest
import webdataset
from PIL import Image
from seewide.train.data import Order, batches, make_loader, open_source, open_unsplit, read_picture
from tiny import COLOURS
from webdataset.tariterators import group_by_keys, tar_file_expander

from seewide.errors import InputError

CLASSES = tuple(COLOURS)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "seewide" / "shards"


def samples(count: int = 12, label="cls", first: int = 0):
    """Uniform pictures, of which the blue value is the number."""
    for number in range(first, first + count):
        image = Image.new("RGB", (8, 8), (0, 0, number))
        yield {"__key__": f"{number:04d}", "png": image, label: number % 3}


def write(path, some) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with webdataset.TarWriter(str(path)) as shard:
        for sample in some:
            shard.write(sample)


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "shards"
    write(folder / "train-000.tar", samples(12))
    write(folder / "train-001.tar", samples(12, first=12))
    write(folder / "val-000.tar", samples(6, first=100))
    return folder


def number(picture) -> int:
    return read_picture(picture).getpixel((0, 0))[2]


def test_a_folder_of_shards(folder):
    source = open_source(folder)
    assert source.class_names == ("0", "1", "2")
    assert [number(p) for p in source.train.pictures] == list(range(24))
    assert [number(p) for p in source.val.pictures] == list(range(100, 106))
    assert list(source.train.labels) == [n % 3 for n in range(24)]
    assert list(source.train.shards) == [0] * 12 + [1] * 12
    assert str(source.train.pictures[12]) == f"{folder}/train-001.tar/0012.png"
    assert (source.name, source.short) == (str(folder), "shards")


def test_the_same_as_webdataset_reads(folder):
    path = folder / "train-001.tar"
    with path.open("rb") as file:
        theirs = list(group_by_keys(tar_file_expander([{"url": "", "stream": file}])))
    ours = open_unsplit(path).train
    for sample, picture, label in zip(theirs, ours.pictures, ours.labels, strict=True):
        assert sample["png"] == picture.open().read()
        assert int(sample["cls"]) == label


@pytest.mark.parametrize(
    "pattern", ["*.tar", "{train,val}-*.tar", "{train-{000..001},val-000}.tar"]
)
def test_patterns(folder, pattern):
    source = open_source(f"{folder}/{pattern}")
    assert (len(source.train), len(source.val)) == (24, 6)
    assert source.short == "shards"
    assert len(open_source(source.name).train) == 24  # the name opens it again


def test_train_shards_alone_are_split(folder):
    source = open_source(f"{folder}/train-*.tar")
    assert (len(source.train), len(source.val)) == (18, 6)
    numbers = {number(p) for split in (source.train, source.val) for p in split.pictures}
    assert numbers == set(range(24))
    split, words = open_unsplit(f"{folder}/train-001.tar").to_judge()
    assert len(split) == 12
    assert words.startswith("all of")


def test_splits_in_folders(tmp_path):
    write(tmp_path / "set" / "train" / "0.tar", samples(12))
    write(tmp_path / "set" / "val" / "0.tar", samples(6))
    source = open_source(tmp_path / "set")
    assert (len(source.train), len(source.val)) == (12, 6)


def test_names_of_classes(folder):
    (folder / "classes.txt").write_text("\n".join(CLASSES) + "\n")
    assert open_source(folder).class_names == CLASSES
    (folder / "classes.txt").unlink()
    (folder / "classes.json").write_text(json.dumps(CLASSES))
    assert open_source(folder).class_names == CLASSES


@pytest.mark.parametrize(
    "label", [lambda n: json.dumps(CLASSES[n]), lambda n: {"label": CLASSES[n], "id": 7}]
)
def test_labels_that_are_names(tmp_path, label):
    some = [{"json": label(s.pop("cls")), **s} for s in samples()]
    write(tmp_path / "set" / "0.tar", some)
    source = open_unsplit(tmp_path / "set")
    assert source.class_names == CLASSES
    assert list(source.train.labels) == [n % 3 for n in range(12)]


def test_the_index_is_kept_and_made_anew(folder, cache, monkeypatch):
    open_source(folder)
    assert len(list(cache.iterdir())) == 2
    with monkeypatch.context() as without:
        without.setattr(tarfile, "open", None)  # headers are not read again
        assert [number(p) for p in open_source(folder).train.pictures] == list(range(24))
    write(folder / "train-001.tar", samples(3, first=12))
    assert len(open_source(folder).train) == 15
    for file in cache.iterdir():
        file.write_bytes(b"not an index")
    assert len(open_source(folder).train) == 15


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_of_shards(folder, workers):
    split = open_source(folder).train
    order = Order(24, seed=0, shards=split.shards)
    loader = make_loader(split, lambda image: np.asarray(image)[0, 0, 2], order, 8, workers)
    found = [(x, y) for x_N, y_N in batches(loader) for x, y in zip(x_N.tolist(), y_N, strict=True)]
    assert sorted(x for x, _ in found) == list(range(24))
    assert all(x % 3 == y for x, y in found)


def test_members_that_are_no_samples(tmp_path):
    """Folders, notes and pictures' other files are left alone; the key ends at the first dot."""
    path = tmp_path / "set" / "0.tar"
    write(path, [{**s, "__key__": f"some/{s['__key__']}", "seg.png": b"?"} for s in samples()])
    with tarfile.open(path, "a") as shard:
        folder = tarfile.TarInfo("folder")
        folder.type = tarfile.DIRTYPE
        shard.addfile(folder)
        shard.addfile(tarfile.TarInfo("__note__"))
    assert [number(p) for p in open_unsplit(path).train.pictures] == list(range(12))


def cut(path, share: float) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])


def damage_header(path) -> None:
    content = bytearray(path.read_bytes())
    with tarfile.open(path) as shard:
        at = shard.getmembers()[6].offset
    content[at : at + 200] = b"?" * 200
    path.write_bytes(content)


def without(path, ending: str) -> None:
    write(path, [{k: v for k, v in s.items() if k != ending} for s in samples()])


def twice(path) -> None:
    with tarfile.open(path, "w") as shard:
        for _ in range(2):
            shard.addfile(tarfile.TarInfo("1.png"), io.BytesIO())


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (lambda p: cut(p, 0.5), r"train-001\.tar is (damaged or cut off at byte|no whole tar)"),
        (lambda p: cut(p, 1e-3), r"train-001\.tar is no whole tar file"),
        (damage_header, r"train-001\.tar is damaged or cut off at byte"),
        (lambda p: p.write_text("text"), r"train-001\.tar is no whole tar file"),
        (lambda p: p.write_bytes(b""), r"train-001\.tar is no whole tar file: empty file"),
        (lambda p: write(p, []), r"train-001\.tar holds no pictures"),
        (lambda p: without(p, "cls"), r"train-001\.tar/0000\.png has no label"),
        (lambda p: without(p, "png"), r"sample 0000 of .*train-001\.tar has no \.jpg"),
        (lambda p: write(p, samples(label="json", count=1)), None),
        (
            lambda p: write(p, [{**next(samples(label="json")), "json": {"id": 1}}]),
            r"0000\.png has no label: no \.cls, and no \.json with one of label, cls",
        ),
        (twice, r"train-001\.tar holds 1\.png twice"),
    ],
)
def test_shards_that_cannot_be_trained_on(folder, damage, sentence):
    damage(folder / "train-001.tar")
    if sentence is None:
        assert len(open_source(folder).train) == 13
        return
    with pytest.raises(InputError, match=sentence):
        open_source(folder)


def test_classes_of_the_splits_differ(folder):
    write(folder / "val-000.tar", [{**next(samples(1)), "cls": 5}])
    with pytest.raises(InputError, match=r"has a class 5 that the training classes do not have"):
        open_source(folder)


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        ("https://somewhere.org/train-{00..10}.tar", "from disk, not https"),
        ("pipe:curl somewhere/0.tar", "from disk, not pipe"),
        ("none/train-*.tar", r"there is no shard .*none/train-\*\.tar"),
        ("none/train-{00..01}.tar", r"there is no shard .*none/train-00\.tar"),
        ("none/0.tar.gz", r"shards are plain \.tar files"),
    ],
)
def test_shards_that_are_not_there(tmp_path, monkeypatch, data, sentence):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=sentence):
        open_source(data)


def test_held_out_shards_alone(folder):
    with pytest.raises(InputError, match=r"has val-000\.tar but no train files"):
        open_source(f"{folder}/val-*.tar")
