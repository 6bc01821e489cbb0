"""Labels in CSV files."""

from __future__ import annotations

import numpy as np
import pytest
from image_files import CLASSES

from seewide.data import describe_classification, fingerprint, open_classification
from seewide.errors import InputError


@pytest.fixture
def write(images):
    def write(*rows: str, name: str = "labels.csv") -> str:
        (images / name).write_text("\n".join(rows) + "\n")
        return str(images / name)

    return write


def rows_of_all(images) -> list[str]:
    return [f"{c}/{n}.jpg,{c}" for c in CLASSES for n in range(8)]


def test_the_same_as_from_folders(images, write):
    data = open_classification(write("image,label", *rows_of_all(images)))
    folders = open_classification(images)
    assert data.class_names == folders.class_names
    assert data.held_out == folders.held_out
    for samples, same in ((data.train, folders.train), (data.val, folders.val)):
        assert fingerprint(samples) == fingerprint(same)
        assert np.array_equal(samples[3]["image"], same[3]["image"])
    assert describe_classification(data.name) == "a CSV file of labelled images"
    assert describe_classification("none.csv") is None


def test_numbers_and_splits(write):
    rows = ("Filename,Class,split", "red/0.jpg,2,train", "blue/0.jpg,0,", "red/1.jpg,2,valid")
    data = open_classification(write(*rows, "red/2.jpg,1,other"))
    assert data.class_names == ("0", "1", "2")
    assert list(data.train.labels) == [2, 0]
    assert list(data.val.names()) == ["red/1.jpg"]
    assert data.held_out == "the rows of split valid"
    tabs = write("image\tlabel", "red/0.jpg\ta", "red/1.jpg\tb", "red/2.jpg\tb", name="x.tsv")
    with pytest.raises(InputError, match="class a has 1 samples"):
        open_classification(tabs)


def test_several_labels_of_an_image(write):
    file = write("image,label", "red/0.jpg,warm;bright", "blue/0.jpg,cold", "red/1.jpg, warm ;")
    with pytest.raises(InputError, match=r"red/0\.jpg several labels \(warm;bright\), which needs"):
        open_classification(file)
    data = open_classification(file, multi_label=True)
    assert data.class_names == ("bright", "cold", "warm")
    assert (len(data.train), len(data.val)) == (2, 1)
    targets = {
        name: sample["label"].tolist()
        for samples in (data.train, data.val)
        for name, sample in zip(samples.names(), samples, strict=True)
    }
    assert targets == {
        "red/0.jpg": [1, 0, 1], "blue/0.jpg": [0, 1, 0], "red/1.jpg": [0, 0, 1]
    }  # fmt: skip
    other = write("image,label", "red/0.jpg,warm;cold", "blue/0.jpg,bright", "red/1.jpg,warm")
    assert fingerprint(open_classification(other, multi_label=True).train) != fingerprint(
        data.train
    )
    with pytest.raises(InputError, match="multi-label data is a CSV file"):
        open_classification("digits", multi_label=True)


@pytest.mark.parametrize(
    ("rows", "sentence"),
    [
        (("a,b", "x,y"), "has no column image or filename or file or path; its columns are a, b"),
        (("image,b", "x,y"), "has no column label or labels or class"),
        (("image,label",), "has no rows"),
        (("image,label", "red/0.jpg,"), "has no image or no label in line 2"),
        (("image,label", "red/0.jpg"), "has no image or no label in line 2"),
        (("image,label", 'x,"a'), "is not a CSV file"),
        (("image,label", "x,a"), "has one class, a; classification needs"),
        (("image,label,split", "x,a,val"), "has no row to train on"),
        (("image,label,split", "x,a,train", "y,b,", "y,c,val"), "has a class c that the training"),
        (("image,label", "x,999999999", "y,0"), "has a label 999999999; labels that are numbers"),
        (("",), "has no column image"),
    ],
)
def test_files_that_cannot_be_trained_on(write, rows, sentence):
    with pytest.raises(InputError, match=sentence):
        open_classification(write(*rows))


def test_files_that_are_not_there(tmp_path, write):
    with pytest.raises(InputError, match=r"none\.csv cannot be read: No such file"):
        open_classification(tmp_path / "none.csv")
    data = open_classification(
        write("image,label,split", "none.jpg,a,train", "x.jpg,b,train", "y.jpg,a,val")
    )
    with pytest.raises(InputError, match=r"there is no image .*none\.jpg"):
        data.train[0]
