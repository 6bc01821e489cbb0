"""Tar shards as webdataset writes them, read by random access."""

from __future__ import annotations

import contextlib
import io
import json
import random
import tarfile

import numpy as np
import pytest
import webdataset
from image_files import CLASSES
from PIL import Image
from webdataset.tariterators import group_by_keys, tar_file_expander

from seewide.data import (
    ImageSamples,
    Order,
    batches,
    classification_to_evaluate,
    make_loader,
    open_classification,
)
from seewide.data.shards import open_shards
from seewide.errors import InputError


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "seewide" / "shards"


def samples(count: int = 12, label="cls", first: int = 0):
    """Uniform images whose blue value is the number."""
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


def numbers(samples) -> list[int]:
    return [sample["image"].getpixel((0, 0))[2] for sample in samples]


def train_samples(data) -> ImageSamples:
    return open_shards(str(data))[2]


def test_a_folder_of_shards(folder):
    data = open_classification(folder)
    assert data.class_names == ("0", "1", "2")
    assert numbers(data.train) == list(range(24))
    assert numbers(data.val) == list(range(100, 106))
    assert list(data.train.labels) == [n % 3 for n in range(24)]
    assert list(data.train.shards) == [0] * 12 + [1] * 12
    assert str(data.train.images[12]) == f"{folder}/train-001.tar/0012.png"
    assert (data.name, data.short) == (str(folder), "shards")


def test_the_same_as_webdataset_reads(folder):
    path = folder / "train-001.tar"
    with path.open("rb") as file:
        theirs = list(group_by_keys(tar_file_expander([{"url": "", "stream": file}])))
    ours = train_samples(path)
    for sample, image, label in zip(theirs, ours.images, ours.labels, strict=True):
        assert sample["png"] == image.open().read()
        assert int(sample["cls"]) == label


@pytest.mark.parametrize(
    "pattern", ["*.tar", "{train,val}-*.tar", "{train-{000..001},val-000}.tar"]
)
def test_patterns(folder, pattern):
    data = open_classification(f"{folder}/{pattern}")
    assert (len(data.train), len(data.val)) == (24, 6)
    assert data.short == "shards"
    assert len(open_classification(data.name).train) == 24  # the name opens it again


def test_train_shards_alone_are_split(folder):
    data = open_classification(f"{folder}/train-*.tar")
    assert (len(data.train), len(data.val)) == (18, 6)
    assert {*numbers(data.train), *numbers(data.val)} == set(range(24))
    samples, words = classification_to_evaluate(
        f"{folder}/train-001.tar", ("0", "1", "2"), trained_on=""
    )
    assert len(samples) == 12
    assert words.startswith("all of")


def test_splits_in_folders(tmp_path):
    write(tmp_path / "set" / "train" / "0.tar", samples(12))
    write(tmp_path / "set" / "val" / "0.tar", samples(6))
    data = open_classification(tmp_path / "set")
    assert (len(data.train), len(data.val)) == (12, 6)


def test_names_of_classes(folder):
    (folder / "classes.txt").write_text("\n".join(CLASSES) + "\n")
    assert open_classification(folder).class_names == CLASSES
    (folder / "classes.txt").unlink()
    (folder / "classes.json").write_text(json.dumps(CLASSES))
    assert open_classification(folder).class_names == CLASSES


@pytest.mark.parametrize(
    "label", [lambda n: json.dumps(CLASSES[n]), lambda n: {"label": CLASSES[n], "id": 7}]
)
def test_labels_that_are_names(tmp_path, label):
    some = [{"json": label(s.pop("cls")), **s} for s in samples()]
    write(tmp_path / "set" / "0.tar", some)
    data = open_shards(str(tmp_path / "set"))
    assert data[1] == CLASSES
    assert list(data[2].labels) == [n % 3 for n in range(12)]


def test_the_index_is_cached_and_built_again(folder, cache, monkeypatch):
    open_classification(folder)
    assert len(list(cache.iterdir())) == 2
    with monkeypatch.context() as without:
        without.setattr(tarfile, "open", None)  # headers are not read again
        assert numbers(open_classification(folder).train) == list(range(24))
    write(folder / "train-001.tar", samples(3, first=12))
    assert len(open_classification(folder).train) == 15
    for file in cache.iterdir():
        file.write_bytes(b"not an index")
    assert len(open_classification(folder).train) == 15


def numbers_and_labels(samples):
    labels = [sample["label"] for sample in samples]
    return {"pairs": list(zip(numbers(samples), labels, strict=True))}


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_of_shards(folder, workers):
    samples = open_classification(folder).train
    order = Order(24, seed=0, shards=samples.shards)
    loader = make_loader(samples, lambda sample: sample, numbers_and_labels, order, 8, workers)
    found = [pair for batch in batches(loader) for pair in batch["pairs"]]
    assert sorted(x for x, _ in found) == list(range(24))
    assert all(x % 3 == y for x, y in found)


def test_members_that_are_no_samples(tmp_path):
    """Folders, notes and other files of images are ignored; the key ends at the first dot."""
    path = tmp_path / "set" / "0.tar"
    write(path, [{**s, "__key__": f"some/{s['__key__']}", "seg.png": b"?"} for s in samples()])
    with tarfile.open(path, "a") as shard:
        folder = tarfile.TarInfo("folder")
        folder.type = tarfile.DIRTYPE
        shard.addfile(folder)
        shard.addfile(tarfile.TarInfo("__note__"))
    assert numbers(train_samples(path)) == list(range(12))


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
        (
            lambda p: cut(p, 0.5),
            r"train-001\.tar is (damaged or cut off|not a complete tar)",
        ),
        (lambda p: cut(p, 1e-3), r"train-001\.tar is not a complete tar file"),
        (damage_header, r"train-001\.tar is damaged or cut off at byte"),
        (lambda p: p.write_text("text"), r"train-001\.tar is not a complete tar file"),
        (lambda p: p.write_bytes(b""), r"train-001\.tar is not a complete tar file: empty file"),
        (lambda p: write(p, []), r"train-001\.tar holds no images"),
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
        assert len(open_classification(folder).train) == 13
        return
    with pytest.raises(InputError, match=sentence):
        open_classification(folder)


def test_classes_of_the_splits_differ(folder):
    write(folder / "val-000.tar", [{**next(samples(1)), "cls": 5}])
    with pytest.raises(InputError, match=r"has a class 5 that the training classes do not have"):
        open_classification(folder)


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        ("https://somewhere.org/train-{00..10}.tar", "from disk, not https"),
        ("pipe:curl somewhere/0.tar", "from disk, not pipe"),
        ("none/train-*.tar", r"there is no shard .*none/train-\*\.tar"),
        ("none/train-{00..01}.tar", r"there is no shard .*none/train-00\.tar"),
        ("none/0.tar.gz", r"shards are uncompressed \.tar files"),
    ],
)
def test_shards_that_are_not_there(tmp_path, monkeypatch, data, sentence):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=sentence):
        open_classification(data)


def write_labels(path, label: bytes, kind: str = "cls") -> None:
    write(path, [{"__key__": f"{n:04d}", "png": b"?", kind: label} for n in range(4)])


@pytest.mark.parametrize(
    ("label", "kind", "sentence"),
    [
        (b"2000000000", "cls", "has a label 2000000000; labels that are numbers are class indices"),
        (b"9" * 15, "cls", r"0000\.cls has a label that is out of range: 9999"),
        (b'{"label": 1' + b"0" * 5000 + b"}", "json", "has no label"),
        (b"[" * 100_000, "json", "has no label"),
        (b"1e999", "json", "has no label"),
        (b"true", "json", "has no label"),
        (b'{"label": ["a"]}', "json", "has no label"),
        (b" ", "cls", "has no label"),
        (b"x" * 2_000_000, "cls", r"0000\.cls is no label: it has 2,000,000 bytes"),
        (b"-1", "cls", "has no class|has a class -1"),
    ],
)
def test_labels_that_are_none(tmp_path, label, kind, sentence):
    write_labels(tmp_path / "0.tar", label, kind)
    with pytest.raises(InputError, match=sentence) as caught:
        open_classification(tmp_path)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize("label", [b"--5", b"1" * 30, b"\xff\xfe"])
def test_odd_labels_are_names(tmp_path, label):
    write(tmp_path / "0.tar", [{"__key__": str(n), "png": b"?", "cls": some}
                               for n, some in enumerate((label, b"cat"))])  # fmt: skip
    assert "cat" in open_shards(str(tmp_path))[1]


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("classes.json", b"{", "cannot be read as a list of classes"),
        ("classes.json", b'{"a": 0}', "should be a list of the names"),
        ("classes.json", b"[1, 2, 3]", "should be a list of the names"),
        ("classes.json", b"[" * 100_000, "cannot be read as a list of classes"),
        ("classes.txt", b"\xff\xfe\xfd", "cannot be read as a list of classes"),
        ("classes.txt", b"a\n\nb", "none empty"),
        ("classes.txt", b"a\nb\na", "has class a twice"),
    ],
)
def test_class_lists_that_are_none(folder, name, content, sentence):
    (folder / name).write_bytes(content)
    with pytest.raises(InputError, match=sentence):
        open_classification(folder)


def test_any_damage_to_the_cached_index_is_repaired(folder, cache):
    expected = numbers(open_classification(folder).train)
    originals = {file: file.read_bytes() for file in cache.iterdir()}
    generator = random.Random(0)
    for _ in range(30):
        for file, content in originals.items():
            data = bytearray(content)
            for _ in range(generator.choice((1, 50))):
                data[generator.randrange(len(data))] = generator.randrange(256)
            file.write_bytes(bytes(data[: generator.choice((len(data), len(data) // 2))]))
        assert numbers(open_classification(folder).train) == expected


@pytest.mark.parametrize(
    "change",
    [
        lambda index: index["shards"].__iadd__(7),
        lambda index: index["offsets"].__iadd__(10**9),
        lambda index: index["ends"].__isub__(10**6),
        lambda index: index.update(labels=index["labels"][:3]),
    ],
)
def test_an_index_that_does_not_fit_is_built_again(folder, cache, change):
    expected = numbers(open_classification(folder).train)
    for file in cache.iterdir():
        with np.load(file) as content:
            index = dict(content)
        change(index)
        np.savez(file, **index)
    assert numbers(open_classification(folder).train) == expected


def test_mutated_tars_give_samples_or_a_sentence(tmp_path):
    write(tmp_path / "0.tar", samples(4))
    content = (tmp_path / "0.tar").read_bytes()
    generator = random.Random(0)
    for _ in range(60):
        data = bytearray(content)
        for _ in range(generator.choice((1, 5, 200))):
            data[generator.randrange(len(data))] = generator.choice((0, 48, 55, 255, 128))
        (tmp_path / "0.tar").write_bytes(bytes(data))
        with contextlib.suppress(InputError):
            open_classification(tmp_path)


def test_held_out_shards_alone(folder):
    with pytest.raises(InputError, match=r"has val-000\.tar but no train files"):
        open_classification(f"{folder}/val-*.tar")
