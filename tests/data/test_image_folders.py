"""Images in class folders, the digits, and which images are held out."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from image_files import CLASSES, paint
from PIL import Image

from seewide.data import (
    classification_to_evaluate,
    describe_classification,
    fingerprint,
    open_classification,
)
from seewide.data.folders import list_class_folders
from seewide.errors import InputError


def test_digits_are_held_out_class_by_class_and_always_the_same():
    data = open_classification("digits")
    assert (len(data.train), len(data.val)) == (1438, 359)
    assert data.class_names == tuple("0123456789")
    shares = Counter(data.val.labels.tolist())
    assert set(shares) == set(range(10))
    assert max(shares.values()) - min(shares.values()) <= 3
    again = open_classification("digits")
    for one, other in zip(data.val, again.val, strict=True):
        assert np.array_equal(one["image"], other["image"])
    # The smallest and largest of the 17 levels of grey become black and white.
    pixels = np.stack([np.asarray(sample["image"]) for sample in data.train])
    assert pixels.shape == (1438, 8, 8, 3)
    assert (pixels.min(), pixels.max()) == (0, 255)


def test_held_out_images_are_those_of_the_first_release():
    """Runs of earlier versions are evaluated on the images that they held out."""
    val = open_classification("digits").val
    assert list(val.names())[:5] == ["digits/5", "digits/9", "digits/12", "digits/14", "digits/16"]
    assert fingerprint(val) == "e2daeb2de6bae12b1820495bdd0ea67a"


def test_a_folder_of_classes_is_split_without_overlap(images):
    data = open_classification(images)
    assert data.class_names == CLASSES
    assert len(data.train) + len(data.val) == 24
    assert not set(data.train.names()) & set(data.val.names())
    assert Counter(data.val.labels.tolist()) == {0: 2, 1: 2, 2: 2}
    for samples in (data.train, data.val):
        for name, sample in zip(samples.names(), samples, strict=True):
            assert name.startswith(CLASSES[sample["label"]] + "/")


@pytest.mark.parametrize("name", ["val", "valid", "validation", "test"])
def test_train_and_held_out_folders(tmp_path, name):
    paint(tmp_path / "train", count=3)
    paint(tmp_path / name, count=2)
    data = open_classification(tmp_path)
    assert (len(data.train), len(data.val)) == (9, 6)
    assert data.held_out == f"train/ and {name}/ of the folder"
    assert describe_classification(str(tmp_path)) == "3 folders of images"
    samples, words = classification_to_evaluate(tmp_path, CLASSES, trained_on="")
    assert len(samples) == 6
    assert words == f"all of {tmp_path / name}"


def test_val_comes_before_test(tmp_path):
    for name, count in (("train", 3), ("val", 2), ("test", 1)):
        paint(tmp_path / name, count=count)
    assert len(open_classification(tmp_path).val) == 6


def test_hidden_files_are_left_out(images):
    expected = list(list_class_folders(images, CLASSES).names())
    for name in ("._0.jpg", ".thumbnails/0.jpg", "__MACOSX/0.jpg"):
        (images / "red" / name).parent.mkdir(exist_ok=True)
        (images / "red" / name).write_bytes(b"Mac OS X")
    (images / "red" / "folder.jpg").mkdir()
    assert list(list_class_folders(images, CLASSES).names()) == expected


def test_limited_takes_all_classes(images):
    train = open_classification(images).train
    assert set(train.limited(3).labels.tolist()) == {0, 1, 2}
    assert train.limited(0) is train
    assert train.limited(1000) is train


def test_a_subset_of_a_subset(images):
    samples = list_class_folders(images, CLASSES)
    part = samples.take([3, 9, 20]).take([2, 0])
    assert list(part.labels) == [2, 0]
    assert part.base is samples
    assert list(part.names()) == ["red/4.jpg", "blue/3.jpg"]
    assert list(part.sizes()) == [(images / name).stat().st_size for name in part.names()]


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda d: None, "is empty"),
        (lambda d: paint(d, classes=["red"]), "has one class, red; classification needs at least"),
        (lambda d: (paint(d), (d / "void").mkdir()), "void holds no images"),
        (lambda d: paint(d / "train"), "has train/ but no val, valid, validation or test"),
        (lambda d: paint(d / "val"), "has val/ but no train/"),
        (lambda d: paint(d, count=1), "class blue has 1 samples"),
        (
            lambda d: (paint(d / "train", classes=["red", "blue"]), paint(d / "val")),
            "class green that the training classes do not have: blue, red",
        ),
    ],
)
def test_folders_that_cannot_be_trained_on(tmp_path, make, sentence):
    make(tmp_path)
    with pytest.raises(InputError, match=sentence):
        open_classification(tmp_path)


@pytest.mark.parametrize("data", ["digitz", "a" * 300, "nul\0byte"])
def test_a_folder_that_is_not_there(data):
    with pytest.raises(InputError, match=r"there is no folder .*; --data is `digits`"):
        open_classification(data)
    with pytest.raises(InputError, match=r"there is no folder .*; --data is `digits`"):
        classification_to_evaluate(data, CLASSES)
    assert describe_classification(data) is None


def test_links_in_a_circle(tmp_path):
    (tmp_path / "a").symlink_to(tmp_path / "b")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    with pytest.raises(InputError, match="there is no folder"):
        open_classification(tmp_path / "a")


def test_data_of_other_tasks_is_not_recognized(tmp_path):
    image = Image.new("RGB", (8, 8))
    for name in ("images", "masks"):
        (tmp_path / "masks_too" / name).mkdir(parents=True)
        image.save(tmp_path / "masks_too" / name / "0.png")
    for name in ("zero", "one"):
        (tmp_path / "sounds" / name).mkdir(parents=True)
        (tmp_path / "sounds" / name / "0.wav").write_bytes(b"RIFF")
    assert describe_classification(str(tmp_path / "masks_too")) is None
    assert describe_classification(str(tmp_path / "sounds")) is None


def test_what_a_model_is_evaluated_on(images):
    own = str(images.resolve())
    held_out = list(open_classification(images).val.names())
    for trained_on in (own, None):
        samples, words = classification_to_evaluate(images, CLASSES, trained_on=trained_on)
        assert list(samples.names()) == held_out
        assert words.startswith("20% of every class held out")
    samples, words = classification_to_evaluate(images, CLASSES, trained_on="")
    assert len(samples) == 24
    assert words == f"all of {images}"
    # Published weights have numbers for names: classes are matched by order.
    samples, _ = classification_to_evaluate(images, ("0", "1", "2"), trained_on="")
    assert Counter(samples.labels.tolist()) == {0: 8, 1: 8, 2: 8}
    with pytest.raises(InputError, match="has 3 classes, the model has 4"):
        classification_to_evaluate(images, tuple("0123"), trained_on="")
    with pytest.raises(InputError, match="class blue that the training classes do not have"):
        classification_to_evaluate(images, ("a", "b"), trained_on="")
    with pytest.raises(InputError, match="are not those that the model was trained for"):
        classification_to_evaluate(images, ("a", "b"))


def test_fingerprint_shows_names_labels_and_contents(images):
    def current() -> str:
        return fingerprint(list_class_folders(images, CLASSES))

    first = current()
    assert current() == first
    assert len(first) == 32
    seen = {first}
    (images / "red" / "0.jpg").rename(images / "red" / "9.jpg")  # same number of files
    seen.add(current())
    (images / "red" / "9.jpg").rename(images / "green" / "9.jpg")  # labelled anew
    seen.add(current())
    with (images / "red" / "1.jpg").open("ab") as file:  # replaced under its name
        file.write(b"\0")
    seen.add(current())
    assert len(seen) == 4
    samples = list_class_folders(images, CLASSES)
    labels = samples.labels.copy()
    labels[0], labels[-1] = labels[-1], labels[0]
    swapped = list_class_folders(images, CLASSES)
    swapped.labels = labels
    assert fingerprint(swapped) != fingerprint(samples)


def test_names_with_control_characters_are_escaped(images):
    (images / "red" / "a\x1b[31m\nb.jpg").write_bytes(b"")
    (images / "red" / "\udcff.jpg").write_bytes(b"")
    samples = list_class_folders(images, CLASSES)
    sentences = []
    for index in range(len(samples)):
        try:
            samples.verify(index)
        except InputError as error:
            sentences.append(str(error))
    assert len(sentences) == 2
    assert all(sentence.isprintable() for sentence in sentences)
    assert any(r"a\x1b[31m\nb.jpg" in sentence for sentence in sentences)
    assert any(r"red/\xff.jpg" in sentence for sentence in sentences)
