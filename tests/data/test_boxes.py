"""Readers of boxes and masks: COCO, VOC, YOLO; what is clipped, left out and refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from seewide.data import fingerprint
from seewide.data.augment_boxes import AUGMENTATIONS, ToTarget, box_augmentation
from seewide.data.boxes import Annotations, BoxSamples
from seewide.data.coco import category_names, decode_mask, find_coco, open_coco, read_json
from seewide.data.voc import find_voc, open_voc
from seewide.data.yolo import class_names, find_yolo, open_yolo
from seewide.errors import InputError

NAMES = {3: "cat", 7: "dog"}


def write_coco(folder: Path, change=lambda content: None, split: str = "train") -> Path:
    """Two images of 60 x 40 pixels, the second without an object."""
    (folder / "images").mkdir(parents=True, exist_ok=True)
    for name in ("a.png", "b.png"):
        Image.new("RGB", (60, 40), (10, 200, 30)).save(folder / "images" / name)
    content = {
        "images": [
            {"id": 11, "file_name": "a.png", "height": 40, "width": 60},
            {"id": 12, "file_name": "b.png", "height": 40, "width": 60},
        ],
        "categories": [{"id": key, "name": name} for key, name in NAMES.items()],
        "annotations": [
            {"id": 1, "image_id": 11, "category_id": 7, "bbox": [10, 5, 20, 10]},
            {"id": 2, "image_id": 11, "category_id": 3, "bbox": [0, 0, 8, 8], "iscrowd": 1},
        ],
    }
    change(content)
    path = folder / f"{split}.json"
    path.write_text(json.dumps(content))
    return path


def opened(path: Path) -> BoxSamples:
    return open_coco(path, category_names(path, read_json(path)))


def test_coco(tmp_path):
    samples = opened(write_coco(tmp_path))
    first, second = samples[0], samples[1]
    assert first["boxes"].tolist() == [[10, 5, 30, 15], [0, 0, 8, 8]]
    assert first["labels"].tolist() == [1, 0]  # in the order of the category ids
    assert first["crowd"].tolist() == [False, True]
    assert first["image_id"] == 11
    assert second["boxes"].shape == (0, 4)
    assert str(samples.counts) == "2 images, 2 boxes, 1 crowds, 1 images without a box"
    assert len(samples.with_objects()) == 1
    assert "masks" not in first


def test_fingerprint_sees_a_moved_box(tmp_path):
    before = fingerprint(opened(write_coco(tmp_path)))

    def move(content):
        content["annotations"][0]["bbox"][0] += 1

    assert fingerprint(opened(write_coco(tmp_path, move))) != before


def test_boxes_outside_or_without_area(tmp_path):
    def change(content):
        boxes = ([50, 30, 30, 30], [70, 0, 5, 5], [5, 5, 0, 9], [2, 2, 0.4, 9])
        content["annotations"] = [
            {"image_id": 11, "category_id": 3, "bbox": list(box)} for box in boxes
        ]

    samples = opened(write_coco(tmp_path, change))
    assert samples[0]["boxes"].tolist() == [[50, 30, 60, 40]]
    assert samples.counts.clipped == 1
    assert samples.counts.dropped == 3
    assert "3 boxes left out since they have no area inside their image" in str(samples.counts)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda c: c.pop("annotations"), "has no list 'annotations'"),
        (lambda c: c["annotations"][0].update(category_id=5), "category 5, which is not among"),
        (lambda c: c["annotations"][0].update(image_id=99), "an annotation of image 99"),
        (lambda c: c["annotations"][0].update(bbox=[1, 1, float("nan"), 3]), "is not finite"),
        (lambda c: c.update(images=[]), "lists no images"),
        (lambda c: c["images"][0].update(file_name="z.png"), "there is no image z.png"),
    ],
)
def test_bad_coco_files(tmp_path, change, sentence):
    with pytest.raises(InputError, match=sentence):
        opened(write_coco(tmp_path, change))


def test_file_that_is_no_json(tmp_path):
    (tmp_path / "train.json").write_text("{")
    with pytest.raises(InputError, match="is not a json file"):
        read_json(tmp_path / "train.json")


def test_missing_image_and_wrong_size(tmp_path):
    samples = opened(write_coco(tmp_path))
    (tmp_path / "images" / "b.png").unlink()
    with pytest.raises(InputError, match=r"there is no image .*b\.png"):
        samples.verify(1)
    Image.new("RGB", (50, 40)).save(tmp_path / "images" / "a.png")
    with pytest.raises(InputError, match="has 50 x 40 pixels, its annotations are for 60 x 40"):
        samples[0]


SQUARE = [[10, 5, 30, 5, 30, 15, 10, 15]]


def with_mask(segmentation):
    def change(content):
        content["annotations"] = content["annotations"][:1]
        content["annotations"][0]["segmentation"] = segmentation

    return change


def test_polygons_and_run_lengths_are_the_same_mask(tmp_path):
    pytest.importorskip("faster_coco_eval")
    from seewide.tasks.detection import encode_mask

    mask = opened(write_coco(tmp_path, with_mask(SQUARE)))[0]["masks"]
    assert mask.shape == (1, 40, 60)
    assert mask[0, 5:15, 10:30].all()
    assert mask.sum() == 200
    columns = mask[0].T.reshape(-1)
    changes = np.flatnonzero(np.diff(np.concatenate([[0], columns, [2]])))
    counts = np.diff(np.concatenate([[0], changes])).tolist()
    plain = {"size": [40, 60], "counts": counts}
    compressed = encode_mask(torch.from_numpy(mask[0]))
    for runs in (plain, compressed):
        again = opened(write_coco(tmp_path, with_mask(runs)))[0]["masks"]
        assert np.array_equal(again, mask)


@pytest.mark.parametrize(
    ("segmentation", "sentence"),
    [
        ({"size": [40, 60], "counts": [5, 7]}, "do not add up to its size"),
        ({"size": [4, 6], "counts": [24]}, "has 6 x 4 pixels, the image 60 x 40"),
        ("nonsense", "cannot be decoded"),
    ],
)
def test_masks_that_cannot_be_decoded(tmp_path, segmentation, sentence):
    pytest.importorskip("faster_coco_eval")
    samples = opened(write_coco(tmp_path, with_mask(segmentation)))
    with pytest.raises(InputError, match=sentence):
        samples.verify(0)


def test_object_without_mask(tmp_path):
    pytest.importorskip("faster_coco_eval")
    with pytest.raises(InputError, match="has no segmentation although others have"):
        decode_mask(None, 4, 6)


def test_layouts_of_coco(tmp_path):
    assert find_coco(tmp_path) is None
    paths = [write_coco(tmp_path, split=split) for split in ("train", "val")]
    assert find_coco(tmp_path) == tuple(paths)
    other = tmp_path / "other"
    (other / "annotations").mkdir(parents=True)
    for split in ("train", "val"):
        (other / f"{split}2017").mkdir()
        path = write_coco(other / "x", split=split)
        path.rename(other / "annotations" / f"instances_{split}2017.json")
        for image in (other / "x" / "images").iterdir():
            image.rename(other / f"{split}2017" / image.name)
    found = find_coco(other)
    assert [path.name for path in found] == ["instances_train2017.json", "instances_val2017.json"]
    assert len(opened(found[0])[0]["boxes"]) == 2


XML = """<annotation><filename>a.jpg</filename><size><width>60</width><height>40</height></size>
<object><name>dog</name><bndbox><xmin>11</xmin><ymin>6</ymin><xmax>30</xmax><ymax>15</ymax></bndbox>
</object></annotation>"""


def write_voc(folder: Path, xml: str = XML) -> Path:
    for name in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (folder / name).mkdir(parents=True)
    Image.new("RGB", (60, 40)).save(folder / "JPEGImages" / "a.jpg")
    (folder / "Annotations" / "a.xml").write_text(xml)
    for split in ("train", "val"):
        (folder / "ImageSets" / "Main" / f"{split}.txt").write_text("a\n")
    return folder


def test_voc(tmp_path):
    train, _ = find_voc(write_voc(tmp_path))
    samples, names = open_voc(train)
    assert names == ["dog"]
    assert samples[0]["boxes"].tolist() == [[10, 5, 30, 15]]
    with pytest.raises(InputError, match="has class 'dog', which the training data do not have"):
        open_voc(train, ["cat"])


def test_voc_annotation_that_is_none(tmp_path):
    train, _ = find_voc(write_voc(tmp_path, "<annotation></annotation>"))
    with pytest.raises(InputError, match=r"a\.xml is not an annotation of VOC"):
        open_voc(train)


def write_yolo(folder: Path, lines: str) -> Path:
    for split in ("train", "val"):
        for kind in ("images", "labels"):
            (folder / kind / split).mkdir(parents=True)
        Image.new("RGB", (60, 40)).save(folder / "images" / split / "a.png")
        (folder / "labels" / split / "a.txt").write_text(lines)
    (folder / "classes.txt").write_text("cat\ndog\n")
    return folder


def test_yolo(tmp_path):
    train, _ = find_yolo(write_yolo(tmp_path, f"1 {20 / 60} 0.25 {20 / 60} 0.25\n"))
    samples = open_yolo(train, class_names(tmp_path))
    np.testing.assert_allclose(samples[0]["boxes"], [[10, 5, 30, 15]], atol=1e-4)
    assert samples[0]["labels"].tolist() == [1]


@pytest.mark.parametrize(
    ("line", "sentence"),
    [("2 0.5 0.5 0.1 0.1", "has class 2, there are 0 to 1"), ("1 0.5 0.5", "got '1 0.5 0.5'")],
)
def test_bad_yolo_lines(tmp_path, line, sentence):
    train, _ = find_yolo(write_yolo(tmp_path, line))
    with pytest.raises(InputError, match=sentence):
        open_yolo(train, ["cat", "dog"])


def many(count: int, folder: Path) -> BoxSamples:
    random = np.random.default_rng(0)
    low = random.uniform(0, 40, (count, 2))
    boxes = np.concatenate([low, low + random.uniform(2, 20, (count, 2))], 1)
    path = folder / "a.png"
    Image.new("RGB", (64, 64)).save(path)
    return BoxSamples([Annotations(path, 1, list(boxes), [0] * count, [False] * count)], folder)


@pytest.mark.parametrize("kind", AUGMENTATIONS)
def test_augmentation_moves_boxes_and_masks_together(kind):
    """The mask of each object fills its box, before and after."""
    pixels = np.zeros((96, 128, 3), np.uint8)
    mask = np.zeros((1, 96, 128), np.uint8)
    mask[0, 20:60, 30:90] = 1
    sample = {
        "image": Image.fromarray(pixels), "boxes": np.array([[30, 20, 90, 60]], np.float32),
        "labels": np.array([0]), "crowd": np.array([False]), "masks": mask,
    }  # fmt: skip
    transform = ToTarget(box_augmentation(kind, 64, 96, (56, 64)), masks=True)
    seen = 0
    for _ in range(12):
        out = transform(sample)
        height, width = out["image"].shape[-2:]
        assert out["image"].dtype == torch.uint8
        assert out["target"]["masks"].shape[1:] == (height, width)
        for box, shape in zip(out["target"]["boxes"], out["target"]["masks"], strict=True):
            rows, columns = shape.nonzero(as_tuple=True)
            if len(rows):
                around = torch.stack([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
                assert (around - box).abs().max() <= 2.5
                seen += 1
        assert (out["target"]["boxes"][:, 2:] > out["target"]["boxes"][:, :2]).all()
    assert seen >= 6


def test_crowds_are_not_trained_and_are_marked_in_evaluation(tmp_path):
    samples = many(3, tmp_path)
    samples.annotations[0].crowd[1] = True
    train = ToTarget(box_augmentation("resize", 64, 64))(samples[0])
    assert len(train["target"]["labels"]) == 2
    evaluation = ToTarget()(samples[0])
    assert evaluation["target"]["iscrowd"].tolist() == [False, True, False]


def test_ten_thousand_boxes_in_an_image(tmp_path):
    from seewide import create_detector
    from seewide.dense import BatchImages

    out = ToTarget(box_augmentation("resize", 64, 64))(many(10_000, tmp_path)[0])
    assert len(out["target"]["boxes"]) == 10_000
    model = create_detector("retinanet", "lsnet_t", 2, images=BatchImages(64, 64)).eval()
    terms = model.loss_terms([out["image"]], [out["target"]])
    assert all(term.total.isfinite() for term in terms.values())


def test_unknown_augmentation():
    with pytest.raises(InputError, match="augment must be one of resize, detr, lsj, ssd, got 'x'"):
        box_augmentation("x", 64, 64)
