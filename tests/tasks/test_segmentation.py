"""Semantic segmentation: metric, loss weighting, and a run that learns and resumes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
import torch.nn.functional as F
from PIL import Image
from rich.console import Console

from seewide.errors import InputError
from seewide.recipes import Recipe
from seewide.tasks import find_backbone, guess_task
from seewide.tasks.segmentation import Segmentation, SegmentationMetric, SegmentationOptions
from seewide.train import Predictor, evaluate, fit, load_run, resume, step
from seewide.train.checkpoint import load_state

QUIET = Console(quiet=True)
FACTS = {"class_names": ["grass", "sky", "wall"]}


def draw_scenes(folder: Path, count: int = 12) -> Path:
    """Images of 48 px: sky above, grass below, with a wall in some; the left edge is ignored."""
    random = np.random.default_rng(0)
    for part in ("train", "val"):
        for kind in ("images", "masks"):
            (folder / kind / part).mkdir(parents=True)
        for index in range(count):
            mask_HW = np.zeros((48, 48), np.uint8)
            mask_HW[: random.integers(12, 36)] = 1
            if index % 2:
                left = random.integers(8, 28)
                mask_HW[16:40, left : left + 12] = 2
            colors_K3 = np.array([[40, 160, 40], [90, 140, 230], [150, 110, 90]])
            image_HW3 = colors_K3[mask_HW] + random.normal(0, 20, (48, 48, 3))
            mask_HW[:, 0] = 255
            image = Image.fromarray(image_HW3.clip(0, 255).astype(np.uint8))
            image.save(folder / "images" / part / f"{index}.png")
            Image.fromarray(mask_HW).save(folder / "masks" / part / f"{index}.png")
    (folder / "classes.txt").write_text("grass\nsky\nwall\n")
    return folder


def recipe(**settings) -> Recipe:
    options = {
        "system": "semantic_fpn", "short": 48, "crop": 48, "scale": [1.0, 1.5],
        "photometric": False,
    }  # fmt: skip
    common = {"epochs": 4, "batch_size": 4, "lr": 5e-3, "warmup_epochs": 0.5}
    return Recipe(task="segmentation", options=options, **{**common, **settings})


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run of four epochs."""
    folder = tmp_path_factory.mktemp("segmentation")
    data = draw_scenes(folder / "scenes")
    fit("test_convnext", data, recipe(), folder / "run", workers=0, console=QUIET)
    return folder


def test_a_run_learns_and_restores(finished):
    scores = json.loads((finished / "run" / "metrics.jsonl").read_text().splitlines()[-1])
    assert scores["val_miou"] > 40  # a constant prediction of any class is below 25
    model, task, info = load_run(finished / "run")
    assert (task.name, info.facts) == ("segmentation", FACTS)
    assert find_backbone(model).feature_info.channels() == [24, 32, 48, 64]
    result = evaluate(str(finished / "run"), console=QUIET)
    assert result.models[0].scores["miou"] == pytest.approx(info.score)
    assert result.deviation < 1e-5


def test_predictions_of_files(finished):
    predictor = Predictor(finished / "run")
    (prediction,) = predictor(finished / "scenes" / "images" / "val" / "0.png")
    assert {entry["name"] for entry in prediction.description["classes"]} <= {*FACTS["class_names"]}
    assert sum(e["share"] for e in prediction.description["classes"]) == pytest.approx(1)
    figure = predictor.task.draw(prediction.sample, prediction.description)
    assert figure.axes[0].get_images()


def test_a_stopped_run_resumes_to_the_same_bits(finished, tmp_path, monkeypatch):
    original = step.Trainer.step

    def fail(self, epoch, number, batches, stop):
        if (epoch, number) == (3, 1):
            raise RuntimeError("power failure")
        return original(self, epoch, number, batches, stop)

    with monkeypatch.context() as patch:
        patch.setattr(step.Trainer, "step", fail)
        with pytest.raises(RuntimeError, match="power"):
            fit("test_convnext", finished / "scenes", recipe(), tmp_path / "run", workers=0,
                console=QUIET)  # fmt: skip
    resume(tmp_path / "run", console=QUIET)
    ours, theirs = (
        load_state(folder)[0]["model"] for folder in (tmp_path / "run", finished / "run")
    )
    assert all(torch.equal(value, theirs[key]) for key, value in ours.items())


def test_layer_decay_of_a_backbone_inside_the_model():
    """Everything around the backbone learns at the full rate, its stem at the lowest."""
    from seewide.train.optim import parameter_groups

    task = Segmentation(SegmentationOptions(system="semantic_fpn"))
    model = task.build(timm.create_model("convnext_atto", features_only=True), FACTS)
    groups = parameter_groups(model, recipe(layer_decay=0.8, layer_groups=12))
    scale = {id(p): group.get("lr_scale", 1.0) for group in groups for p in group["params"]}
    assert scale[id(model.decode_head.conv_seg.weight)] == 1.0
    rates = {n: scale[id(p)] for n, p in model.backbone.named_parameters()}
    assert max(rates.values()) < 1.0
    assert min(rates.values()) == rates["stem_0.weight"] == pytest.approx(0.8**13)


def test_ignored_pixels_count_in_the_weight_only():
    task = Segmentation(SegmentationOptions(system="semantic_fpn"))
    model = task.build(timm.create_model("test_convnext", features_only=True), FACTS).eval()
    x_NCHW, mask_NHW = torch.randn(2, 3, 32, 32), torch.randint(0, 3, (2, 32, 32))
    mask_NHW[0] = 255
    result = task.loss(model, {"image": x_NCHW, "mask": mask_NHW})
    logits = model(x_NCHW)["out"]
    expected = F.cross_entropy(logits[1:], mask_NHW[1:], reduction="sum")
    torch.testing.assert_close(result["loss"], expected)
    assert result["weight"] == 2 * 32 * 32


def test_metric_by_hand():
    metric = SegmentationMetric(3)
    mask_NHW = torch.tensor([[[0, 0, 1, 1, 255]]])
    predicted = torch.tensor([[[0, 1, 1, 1, 2]]])
    metric.update(predicted, {"mask": mask_NHW})
    scores = metric.compute()
    assert metric.confusion_KK.tolist() == [[1, 1, 0], [0, 2, 0], [0, 0, 0]]
    assert scores["aacc"] == pytest.approx(75)
    assert scores["macc"] == pytest.approx((50 + 100) / 2)
    assert scores["miou"] == pytest.approx((100 / 2 + 200 / 3) / 2)


def test_the_task_is_guessed_from_the_data(finished):
    assert guess_task(str(finished / "scenes"))[0] == "segmentation"


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"system": "unet"}, "system must be .*, got 'unet'"),
        ({"scale": (2.0, 1.0)}, "scale must be two numbers in ascending order"),
    ],
)
def test_refused_options(options, sentence):
    with pytest.raises(InputError, match=sentence):
        SegmentationOptions(**options)
