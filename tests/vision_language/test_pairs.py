"""Reading images with captions from every format, and what is left out."""

import json

import pytest
from coloured_squares import square, write_table

from seewide.errors import InputError
from seewide.vision_language.pairs import read_pairs, sniff_separator


@pytest.mark.parametrize("separator", [",", "\t", ";", "|"])
def test_tables_with_any_separator(tmp_path, separator):
    square(tmp_path / "images" / "a.png", "red")
    rows = [("a.png", "a red square"), ("a.png", "red")]
    path = write_table(tmp_path / "pairs.csv", rows, ("File", "Title"), separator)
    pairs = read_pairs(path)
    assert pairs.captions == (("a red square", "red"),)
    assert pairs.images[0].name == "a.png"
    assert sniff_separator(path.read_text().splitlines()[0]) == separator


def test_a_folder_with_text_files(tmp_path):
    square(tmp_path / "a" / "0.png", "red")
    square(tmp_path / "1.png", "blue")
    (tmp_path / "a" / "0.txt").write_text("red\n\nvery  red\n")
    pairs = read_pairs(tmp_path)
    assert pairs.captions == (("red", "very red"),)
    assert pairs.skipped.lines() == ["image without a text file: 1.png"]


def test_flickr_json(tmp_path):
    for name in ("0.png", "1.png"):
        square(tmp_path / "images" / name, "red")
    entries = [
        {"filename": "0.png", "split": "train", "sentences": [{"raw": "one"}, {"raw": "two"}]},
        {"filename": "1.png", "split": "test", "sentences": [{"raw": "three"}]},
    ]
    path = tmp_path / "dataset_flickr8k.json"
    path.write_text(json.dumps({"images": entries}))
    assert len(read_pairs(path)) == 3
    assert read_pairs(path, "train").captions == (("one", "two"),)
    assert read_pairs(path, "val").captions == (("three",),)


def test_coco_json(tmp_path):
    square(tmp_path / "val2017" / "7.png", "red")
    content = {
        "images": [{"id": 7, "file_name": "7.png"}],
        "annotations": [{"image_id": 7, "caption": "one"}, {"image_id": 9, "caption": "two"}],
    }
    path = tmp_path / "annotations" / "captions_val2017.json"
    path.parent.mkdir()
    path.write_text(json.dumps(content))
    pairs = read_pairs(path)
    assert pairs.captions == (("one",),)
    assert pairs.skipped.lines() == ["missing image: image 9"]


def test_broken_pairs_are_counted_and_named(tmp_path):
    square(tmp_path / "good.png", "red")
    (tmp_path / "broken.png").write_bytes(b"no image")
    rows = [
        ("good.png", "red"), ("broken.png", "x"), ("gone.png", "x"), ("gone.png", "y"),
        ("good.png", "  "),
    ]  # fmt: skip
    pairs = read_pairs(write_table(tmp_path / "pairs.csv", rows))
    assert len(pairs) == 1
    assert len(pairs.skipped) == 4
    assert str(pairs.skipped) == (
        "1 broken image (broken.png), 2 missing image (gone.png, gone.png), "
        "1 empty caption (good.png)"
    )


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("a.csv", "thing,caption\n", "no column of images: its columns are thing, caption"),
        ("a.csv", "image,label\n", "no column of captions"),
        ("a.csv", "image,caption\ngone.png,x\n", r"no image with a caption.*1 missing image"),
        ("a.csv", "image,caption\n", "there is no image with a caption"),
        ("a.json", "{", "is no JSON file"),
        ("a.json", "[]", "neither Flickr's nor COCO's JSON"),
        ("a.json", '{"images": [{"filename": "0.png"}]}', "an entry without 'sentences'"),
    ],
)
def test_wrong_data(tmp_path, name, content, sentence):
    (tmp_path / name).write_text(content)
    with pytest.raises(InputError, match=sentence):
        read_pairs(tmp_path / name)


def test_no_such_data(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        read_pairs(tmp_path / "gone.csv")
