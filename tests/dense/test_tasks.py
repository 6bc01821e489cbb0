"""Detection and segmentation on the engine: training, resuming, prediction, metrics."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console
from safetensors.torch import load_file
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model

from seewide.data.label_maps import describe_label_maps, open_label_maps
from seewide.errors import InputError
from seewide.models import UniRepLKNet
from seewide.recipes import Recipe
from seewide.tasks import get_task, guess_task
from seewide.tasks.segmentation import SegmentationMetric
from seewide.train import evaluate, fit, predict, resume, step
from seewide.train.pages import draw_worst

NAME = "dense_unireplknet"
default_cfgs = generate_default_cfgs(
    {NAME: {"url": "", "num_classes": 10, "input_size": (3, 32, 32), "first_conv": "stem.0",
            "classifier": "head.fc"}}
)  # fmt: skip


@register_model
def dense_unireplknet(pretrained: bool = False, **kwargs) -> UniRepLKNet:
    sizes = {"depths": (1, 1, 1, 1), "dims": (8, 12, 16, 24), "kernel_sizes": (3, 7, 7, 7)}
    four = {"out_indices": (0, 1, 2, 3), "flatten_sequential": True}
    return build_model_with_cfg(
        UniRepLKNet, NAME, pretrained, feature_cfg=four, **{**sizes, **kwargs}
    )


QUIET = Console(quiet=True)


def paint(folder: Path, count: int = 6) -> Path:
    """Images with one bright rectangle, as boxes in COCO's layout and as masks."""
    random = np.random.default_rng(0)
    for split in ("train", "val"):
        (folder / "boxes" / "images").mkdir(parents=True, exist_ok=True)
        for kind in ("images", "masks"):
            (folder / "pixels" / kind / split).mkdir(parents=True)
        content = {"images": [], "annotations": [], "categories": [{"id": 1, "name": "thing"}]}
        for i in range(count):
            pixels = random.integers(0, 60, (64, 80, 3)).astype(np.uint8)
            x, y = random.integers(0, 40, 2)
            mask = np.zeros((64, 80), np.uint8)
            mask[y : y + 24, x : x + 30] = 1
            pixels[mask > 0] = 220
            height, width = min(24, 64 - int(y)), 30
            name = f"{split}{i}.png"
            Image.fromarray(pixels).save(folder / "boxes" / "images" / name)
            Image.fromarray(pixels).save(folder / "pixels" / "images" / split / name)
            Image.fromarray(mask).save(folder / "pixels" / "masks" / split / name)
            content["images"].append({"id": i, "file_name": name, "height": 64, "width": 80})
            corners = [x, y, x + width, y, x + width, y + height, x, y + height]
            content["annotations"].append(
                {"id": i, "image_id": i, "category_id": 1,
                 "bbox": [int(x), int(y), width, height], "segmentation": [list(map(int, corners))]}
            )  # fmt: skip
        (folder / "boxes" / f"{split}.json").write_text(json.dumps(content))
    (folder / "pixels" / "classes.txt").write_text("ground\nthing\n")
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return paint(tmp_path_factory.mktemp("data"))


BASE = {"epochs": 2, "batch_size": 2, "device_batch": 1, "lr": 1e-3, "warmup_epochs": 0.0}
RECIPES = {
    "detection": Recipe(
        task="detection", **BASE, options={"system": "retinanet", "short": 64, "long": 96}
    ),
    "segmentation": Recipe(
        task="segmentation",
        **BASE,
        options={"system": "semantic_fpn", "short": 64, "long": 96, "crop": 64},
    ),
}
FOLDERS = {"detection": "boxes", "segmentation": "pixels"}


@pytest.fixture(scope="module", params=list(RECIPES))
def run(request, data, tmp_path_factory):
    """(task, data, folder) of a finished run."""
    if request.param == "detection":
        pytest.importorskip("torchmetrics")
        pytest.importorskip("faster_coco_eval")
    folder = tmp_path_factory.mktemp(request.param) / "run"
    place = data / FOLDERS[request.param]
    fit(NAME, place, RECIPES[request.param], folder, seed=3, workers=0, console=QUIET)
    return request.param, place, folder


def test_run_is_evaluated_and_predicts(run):
    task, place, folder = run
    result = evaluate(str(folder), console=QUIET)
    assert result.deviation < 1e-4
    score = {"detection": "map", "segmentation": "miou"}[task]
    for model in result.models:
        assert 0 <= model.scores[score] <= 100
    tables = result.task.tables(result.models[0].metric, result.info.facts)
    assert len(tables) == 2
    for name, draw in result.task.figures(result.models[0].metric, result.info.facts).items():
        assert draw(folder / name).stat().st_size > 1000
    assert (folder / "samples.png").stat().st_size > 2000
    assert len(result.worst) == 6
    assert result.worst[0].name.startswith("val")
    page = draw_worst(result.task, result.worst, result.info.facts, folder / "worst.png")
    assert page.stat().st_size > 2000
    image = next((place / "images").rglob("val*.png"))
    (prediction,) = predict(folder, [image])
    assert prediction.error is None
    json.dumps(prediction.description)
    assert result.task.draw(prediction.sample, prediction.description) is not None
    (missing,) = predict(folder, [folder / "no.png"])
    assert "there is no image" in missing.error


class Killed(Exception):
    pass


def test_interrupted_run_resumes_to_the_same_bits(run, tmp_path, monkeypatch):
    task, place, folder = run
    original = step.Trainer.step

    def kill(self, epoch, number, batches, stop=False):
        if epoch == 2 and number == 1:
            raise Killed
        return original(self, epoch, number, batches, stop)

    monkeypatch.setattr(step.Trainer, "step", kill)
    with pytest.raises(Killed):
        fit(NAME, place, RECIPES[task], tmp_path / "r", seed=3, workers=0, console=QUIET)
    monkeypatch.setattr(step.Trainer, "step", original)
    resume(tmp_path / "r", console=QUIET)
    one, other = (load_file(f / "best.safetensors") for f in (folder, tmp_path / "r"))
    assert one.keys() == other.keys()
    assert all(torch.equal(one[key], other[key]) for key in one)


def test_nan_loss_is_left_out(run, tmp_path, monkeypatch):
    task, place, _ = run
    kind = get_task(task)
    original, calls = kind.loss, []

    def loss(self, model, batch):
        result = original(self, model, batch)
        calls.append(1)
        if len(calls) == 2:
            result["loss"] = result["loss"] * float("nan")
        return result

    monkeypatch.setattr(kind, "loss", loss)
    result = fit(
        NAME, place, RECIPES[task], tmp_path / "r", seed=3, workers=0, nan="skip", console=QUIET
    )
    assert result.history[0]["skipped"] == 1
    weights = load_file(tmp_path / "r" / "best.safetensors")
    assert all(value.isfinite().all() for value in weights.values())


def test_micro_batches_of_segmentation_add_up(data, tmp_path):
    """Two micro-batches of one image, of different numbers of ignored pixels, as one of two."""
    from dataclasses import replace

    kind = get_task("segmentation")
    task = kind(kind.Options(**RECIPES["segmentation"].options))
    splits = task.open(str(data / "pixels"))
    import timm

    model = task.build(timm.create_model(NAME, features_only=True), splits.facts).eval()
    transform = task.transform(True, task.preprocess(model.backbone))
    batch = task.collate([transform(splits.train[i]) for i in range(2)])
    batch["mask"][0, :40] = 255
    both = task.loss(model, batch)
    parts = [task.loss(model, {k: v[i : i + 1] for k, v in batch.items()}) for i in range(2)]
    total = sum(part["loss"] for part in parts)
    torch.testing.assert_close(both["loss"], total, rtol=1e-4, atol=1e-4)
    assert both["weight"] == sum(part["weight"] for part in parts)
    assert replace(RECIPES["segmentation"], epochs=1).epochs == 1


def test_tasks_recognize_their_data(data):
    assert guess_task(str(data / "boxes"))[0] == "detection"
    assert guess_task(str(data / "pixels"))[0] == "segmentation"


def test_masks_without_masks_are_refused(data, tmp_path):
    content = json.loads((data / "boxes" / "train.json").read_text())
    for annotation in content["annotations"]:
        del annotation["segmentation"]
    for split in ("train", "val"):
        (tmp_path / f"{split}.json").write_text(json.dumps(content))
    (tmp_path / "images").symlink_to(data / "boxes" / "images")
    kind = get_task("detection")
    with pytest.raises(InputError, match="has no masks, which mask_rcnn learns; take faster_rcnn"):
        kind(kind.Options(system="mask_rcnn")).open(str(tmp_path))


def test_perfect_detections_have_full_precision(data):
    pytest.importorskip("torchmetrics")
    pytest.importorskip("faster_coco_eval")
    kind = get_task("detection")
    task = kind(kind.Options(system="mask_rcnn", short=64))
    splits = task.open(str(data / "boxes"))
    transform = task.transform(False, {})
    batch = task.collate([transform(splits.val[i]) for i in range(4)])
    found = [
        {**target, "scores": torch.linspace(1, 0.5, len(target["labels"]))}
        for target in batch["target"]
    ]
    metrics = [task.metric(splits.facts) for _ in range(3)]
    metrics[0].update(found, batch)
    for metric, part in zip(metrics[1:], (slice(0, 2), slice(2, 4)), strict=True):
        metric.update(found[part], {k: v[part] for k, v in batch.items()})
    metrics[1].merge([metrics[2]])
    for metric in metrics[:2]:
        scores = metric.compute()
        assert scores["map"] == pytest.approx(100)
        assert scores["mask_map"] == pytest.approx(100)
    wrong = [{**f, "boxes": f["boxes"] + 40} for f in found]
    metric = task.metric(splits.facts)
    metric.update(wrong, batch)
    assert metric.compute()["map"] < 20
    assert metric.worst_images().rows[0][2] == 1


def test_segmentation_metric_is_mmsegmentations():
    stored = np.load(Path(__file__).parent / "data" / "seg_parts.npz")
    labels, found = (torch.from_numpy(stored[f"metric.{k}"]) for k in ("labels", "predictions"))
    metric, halves = SegmentationMetric(8), [SegmentationMetric(8) for _ in range(2)]
    metric.update(list(found), {"mask": labels})
    for half, part in zip(halves, (slice(1), slice(1, None)), strict=True):
        half.update(list(found[part]), {"mask": labels[part]})
    halves[0].merge([halves[1]])
    for each in (metric, halves[0]):
        scores = each.compute()
        for ours, theirs in (("miou", "mIoU"), ("macc", "mAcc"), ("aacc", "aAcc")):
            assert scores[ours] / 100 == pytest.approx(
                float(stored[f"metric.{theirs}"][0]), rel=1e-5
            )
        for ours, theirs in ((each.iou_K, "IoU"), (each.accuracy_K, "Acc")):
            np.testing.assert_allclose(ours / 100, stored[f"metric.{theirs}"], rtol=1e-5)


def write_masks(folder: Path, images: list[str], masks: list[str], values, suffix=".png") -> Path:
    for place, kind in [(p, "i") for p in images] + [(p, "m") for p in masks]:
        (folder / place).mkdir(parents=True, exist_ok=True)
        if kind == "i":
            Image.new("RGB", (6, 4)).save(folder / place / f"a{suffix}")
        else:
            Image.fromarray(np.array(values, np.uint8)).save(folder / place / "a.png")
    return folder


VALUES = [[0, 1, 2, 3, 255, 11]] * 4


def test_ade20k_layout(tmp_path):
    splits = ("training", "validation")
    write_masks(
        tmp_path, [f"images/{s}" for s in splits], [f"annotations/{s}" for s in splits], VALUES
    )
    found = open_label_maps(str(tmp_path))
    assert len(found.class_names) == 150
    mask = np.asarray(found.train[0]["mask"])[0]
    assert mask.tolist()[:4] == [255, 0, 1, 2]  # 0 is "other"
    assert "ADE20K" in describe_label_maps(str(tmp_path))


def test_voc_layout(tmp_path):
    write_masks(tmp_path, ["JPEGImages"], ["SegmentationClass"], VALUES, ".jpg")
    (tmp_path / "ImageSets" / "Segmentation").mkdir(parents=True)
    for split in ("train", "val"):
        (tmp_path / "ImageSets" / "Segmentation" / f"{split}.txt").write_text("a\n")
    found = open_label_maps(str(tmp_path))
    assert found.class_names[:2] == ("background", "aeroplane")
    assert np.asarray(found.val[0]["mask"])[0].tolist() == VALUES[0]


def test_camvid_layout(tmp_path):
    splits = ("train", "val")
    write_masks(tmp_path, list(splits), [f"{s}_labels" for s in splits], VALUES)
    found = open_label_maps(str(tmp_path))
    assert len(found.class_names) == 11
    assert np.asarray(found.train[0]["mask"])[0].tolist() == [0, 1, 2, 3, 255, 255]
    write_masks(tmp_path, [], ["train_labels"], [[0, 1, 2, 3, 12, 0]] * 4)
    with pytest.raises(InputError, match="12"):
        found.train[0]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"system": "x"}, "system must be"),
        ({"scale": (2.0, 0.5)}, "scale must be two numbers in ascending order"),
        ({"views": (0.0,)}, "views must be numbers above 0"),
    ],
)
def test_bad_options(options, sentence):
    with pytest.raises(InputError, match=sentence):
        get_task("segmentation").Options(**options)


def test_multi_scale_and_sliding_evaluation_of_a_constant(data):
    """A model that says the same everywhere says it in every view."""
    import timm

    kind = get_task("segmentation")
    task = kind(
        kind.Options(system="semantic_fpn", short=64, crop=64, window="slide", stride=40,
                     views=(0.5, 1.0), mirror=True)
    )  # fmt: skip
    model = task.build(timm.create_model(NAME, features_only=True), {"class_names": ["a", "b"]})
    torch.nn.init.zeros_(model.eval().decode_head.conv_seg.weight)
    model.decode_head.conv_seg.bias.data = torch.tensor([0.0, 1.0])
    with torch.no_grad():
        probabilities = task.probabilities(model, torch.rand(1, 3, 50, 70))
    expected = torch.tensor([0.0, 1.0]).softmax(0)[:, None, None].expand(2, 50, 70)
    torch.testing.assert_close(probabilities[0], expected)
