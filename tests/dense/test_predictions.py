"""Predictions as files: what is written is read again by the same readers."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from seewide.data.coco import category_names, encode_mask, open_coco, read_json
from seewide.data.masks import open_masks
from seewide.data.predictions import decode_png, decode_runs
from seewide.data.yolo import open_yolo
from seewide.errors import InputError
from seewide.tasks import FilePrediction, get_task

FACTS = {"class_names": ["cat", "dog"]}


@pytest.fixture
def found(tmp_path):
    """Two images of one name in two folders, with one detection and with none."""
    pytest.importorskip("faster_coco_eval")
    task = get_task("detection")()
    mask = torch.zeros(2, 20, 30, dtype=torch.bool)
    mask[0, 4:12, 5:15] = True
    prediction = {
        "boxes": torch.tensor([[5.0, 4, 15, 12], [0, 0, 9, 9]]),
        "scores": torch.tensor([0.9, 0.1]),
        "labels": torch.tensor([1, 0]),
        "masks": mask,
    }
    empty = {key: value[:0] for key, value in prediction.items()}
    entries = []
    for place, one in (("a", prediction), ("b", empty)):
        path = tmp_path / place / "0.png"
        path.parent.mkdir()
        Image.new("RGB", (30, 20)).save(path)
        entries.append(FilePrediction(path, (30, 20), task.describe([one], 0, FACTS)))
    return task, entries


def test_coco_is_read_again(found, tmp_path):
    task, entries = found
    (path,) = task.write_files("coco", entries, tmp_path / "out", FACTS)
    content = read_json(path)
    assert content["annotations"][0]["score"] == pytest.approx(0.9)
    assert content["annotations"][0]["area"] == 80
    samples = open_coco(path, category_names(path, content))
    assert samples[0]["boxes"].tolist() == [[5, 4, 15, 12]]
    assert samples[0]["labels"].tolist() == [1]
    assert samples[0]["masks"].sum() == 80
    assert len(samples[1]["boxes"]) == 0


def test_yolo_is_read_again(found, tmp_path):
    task, entries = found
    written = task.write_files("yolo", entries, tmp_path / "y", FACTS)
    assert [path.name for path in written] == ["0.txt", "0-2.txt", "classes.txt"]
    words = written[0].read_text().split()
    assert words[-1] == "0.90000"
    assert not written[1].read_text()
    written[0].write_text(" ".join(words[:-1]))  # the data sets have no score
    (tmp_path / "y" / "images").mkdir()
    Image.new("RGB", (30, 20)).save(tmp_path / "y" / "images" / "0.png")
    sample = open_yolo(tmp_path / "y" / "images", FACTS["class_names"])[0]
    np.testing.assert_allclose(sample["boxes"], [[5, 4, 15, 12]], atol=1e-3)


def test_masks_of_objects_are_numbered(found, tmp_path):
    task, entries = found
    first, second, _ = task.write_files("masks", entries, tmp_path / "m", FACTS)
    index_HW = np.asarray(Image.open(first))
    assert (index_HW == 1).sum() == 80
    assert not np.asarray(Image.open(second)).any()
    del entries[0].description["objects"][0]["mask"]
    with pytest.raises(InputError, match="have no masks; take coco or yolo"):
        task.write_files("masks", entries, tmp_path / "n", FACTS)


def test_runs_and_maps_survive_the_way_through_json():
    pytest.importorskip("faster_coco_eval")
    mask_HW = np.random.default_rng(0).integers(0, 2, (7, 9)).astype(np.uint8)
    runs = json.loads(json.dumps(encode_mask(mask_HW)))
    assert np.array_equal(decode_runs(runs), mask_HW)
    task = get_task("segmentation")()
    label_HW = torch.tensor([[0, 1], [1, 1], [1, 255]])
    description = json.loads(json.dumps(task.describe([label_HW], 0, FACTS)))
    assert np.array_equal(decode_png(description["label_map"]), label_HW)
    assert description["classes"][0] == {"name": "dog", "index": 1, "share": 4 / 6}
    assert task.rows(description)[1] == {"class": "cat", "share %": 16.67}
    assert task.summary(description) == {"classes": "dog 67%, cat 17%"}


def test_label_maps_are_read_again(tmp_path):
    task = get_task("segmentation")()
    label_HW = torch.tensor([[0, 1], [1, 1], [0, 1]])
    entry = FilePrediction(Path("x.jpg"), (2, 3), task.describe([label_HW], 0, FACTS))
    written = task.write_files("png", [entry], tmp_path / "masks", FACTS)
    assert [path.name for path in written] == ["x.png", "classes.txt"]
    (tmp_path / "images").mkdir()
    for number in range(4):
        Image.new("RGB", (2, 3)).save(tmp_path / "images" / f"{number}.png")
        (tmp_path / "masks" / f"{number}.png").write_bytes(written[0].read_bytes())
    written[1].rename(tmp_path / "classes.txt")
    data = open_masks(tmp_path)
    assert data.class_names == ("cat", "dog")
    assert np.array_equal(np.asarray(data.train[0]["mask"]), label_HW)


def test_table_of_objects(found):
    task, entries = found
    description = entries[0].description
    assert task.summary(description) == {"objects": "1 dog"}
    assert task.summary(entries[1].description) == {"objects": "none"}
    assert task.rows(description) == [
        {"name": "dog", "score": 0.9, "x1": 5.0, "y1": 4.0, "x2": 15.0, "y2": 12.0}
    ]


def test_labels_have_the_same_format_as_predictions(tmp_path):
    pytest.importorskip("faster_coco_eval")
    task = get_task("detection")()
    sample = {
        "image": Image.new("RGB", (30, 20)),
        "boxes": np.array([[5, 4, 15, 12]], np.float32),
        "labels": np.array([0]),
        "crowd": np.array([False]),
        "masks": np.ones((1, 20, 30), np.uint8),
    }
    labels = task.labels(sample, FACTS)
    assert labels["objects"][0]["name"] == "cat"
    assert "score" not in labels["objects"][0]
    page = task.draw_page([("one", sample, labels)] * 5, tmp_path / "page.png")
    assert page.stat().st_size > 2000
