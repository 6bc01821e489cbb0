"""Referring segmentation: layouts on disk, generated shapes, scores, training and prediction."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from task_runs import (
    TINY,
    assert_a_killed_run_resumes_to_the_same_bits,
    assert_two_processes_learn_what_one_does,
    train,
)

from seewide.data.referring import describe_referring, open_referring, read_mask
from seewide.data.shapes import UNSEEN, generate_shapes
from seewide.errors import InputError
from seewide.modalities.referring_metric import ReferringMetric
from seewide.recipes import get
from seewide.tasks import guess_task
from seewide.tasks.referring import Referring, ReferringOptions, run_lengths
from seewide.train import Predictor, evaluate, fit, load_run


def write_refs(folder: Path, count: int = 8) -> Path:
    """A bright square on the left or on the right of gray images of two sizes."""
    (folder / "images").mkdir(parents=True)
    (folder / "masks").mkdir()
    for part in ("train", "val"):
        refs = []
        for i in range(count):
            width, left = 40 + 8 * (i % 2), i % 3 == 0
            pixels = np.full((32, width, 3), 90, np.uint8)
            mask = np.zeros((32, width), bool)
            mask[8:20, (2 if left else width - 14) : (14 if left else width - 2)] = True
            pixels[:, :14][8:20, 2:14] = 220
            pixels[8:20, width - 14 : width - 2] = 220
            Image.fromarray(pixels).save(folder / "images" / f"{part}{i}.png")
            Image.fromarray(mask).save(folder / "masks" / f"{part}{i}.png")
            name = f"{part}{i}.png"
            sentence = f"the {'left' if left else 'right'} square"
            refs.append({"image": name, "mask": name, "expression": sentence, "kind": "place"})
        (folder / f"{part}.json").write_text(json.dumps({"images": [], "refs": refs}))
    return folder


def write_davis(folder: Path, frames: int = 4) -> Path:
    """Two videos of two objects each, of one annotator, and of a second in Latin-1."""
    for video, part in (("bear", "train"), ("goat", "val")):
        images = folder / "JPEGImages" / "480p" / video
        masks = folder / "Annotations" / "480p" / video
        images.mkdir(parents=True), masks.mkdir(parents=True)
        for t in range(frames):
            Image.new("RGB", (48, 32), (90, 90, 90)).save(images / f"{t:05}.jpg")
            numbers = np.zeros((32, 48), np.uint8)
            numbers[4:16, 4 + t : 16 + t], numbers[20:30, 30:44] = 1, 2
            mask = Image.fromarray(numbers).convert("P")
            mask.putpalette([0, 0, 0, 200, 0, 0, 0, 200, 0])
            mask.save(masks / f"{t:05}.png")
        sets = folder / "ImageSets" / "2017"
        sets.mkdir(parents=True, exist_ok=True)
        (sets / f"{part}.txt").write_text(f"{video}\n")
    texts = folder / "davis_text_annotations"
    texts.mkdir()
    lines = [
        f'{v} {n} "the {w} one"' for v in ("bear", "goat") for n, w in ((1, "top"), (2, "low"))
    ]
    (texts / "Davis17_annot1_full_video.txt").write_text("\n".join(lines))
    (texts / "Davis17_annot2_full_video.txt").write_bytes("\n".join(lines).encode() + b" \xe9")
    (texts / "Davis17_annot1.txt").write_text('bear 1 "a bear"\ngoat 1 "a goat"\n')
    return folder


RECIPE = replace(
    get("small_referring"),
    options={"side": 32, "channels": 16, "word_dim": 16, "words": 8, "crop": 0.3, "forget": 0.1},
    epochs=2,
    batch_size=8,
    device_batch=4,
    drop_path=0.1,
    lr=5e-3,
    **TINY,
)


def test_images_with_expressions(tmp_path):
    write_refs(tmp_path)
    assert guess_task(str(tmp_path)) == ("referring", "images with 8 expressions")
    found = open_referring(tmp_path)
    assert (len(found.train), len(found.val), found.videos) == (8, 8, False)
    sample = found.train[0]
    assert sample["mask"].sum() == 12 * 12
    assert (sample["expression"], sample["kind"]) == ("the left square", "place")
    assert Referring().open(str(tmp_path)).facts["words"][2:] == ["left", "right", "square", "the"]


def test_damaged_lists_are_one_sentence(tmp_path):
    write_refs(tmp_path)
    refs = json.loads((tmp_path / "train.json").read_text())
    refs["refs"][2]["expression"] = " "
    (tmp_path / "train.json").write_text(json.dumps(refs))
    with pytest.raises(InputError, match=r"train.json has an empty expression for train2.png"):
        open_referring(tmp_path)
    (tmp_path / "train.json").write_text('{"refs": [{"image": "a"}]}')
    assert describe_referring(str(tmp_path)) is None
    with pytest.raises(InputError, match=r"train.json is not a list of expressions"):
        open_referring(tmp_path)
    with pytest.raises(InputError, match=r"there is no .*train.json"):
        open_referring(tmp_path / "images")
    Image.new("L", (7, 5)).save(tmp_path / "masks" / "val0.png")
    with pytest.raises(InputError, match=r"val0.png has 7 x 5 pixels, its image 40 x 32"):
        open_referring(write_refs(tmp_path / "new")).val.__class__(
            [replace(r, mask=tmp_path / "masks" / "val0.png")
             for r in open_referring(tmp_path / "new").val.references], tmp_path
        )[0]  # fmt: skip
    Image.new("RGB", (7, 5)).save(tmp_path / "rgb.png")
    with pytest.raises(InputError, match=r"rgb.png is damaged: a mask has one channel"):
        read_mask(tmp_path / "rgb.png")


def test_refer_davis(tmp_path):
    write_davis(tmp_path)
    assert guess_task(str(tmp_path))[0] == "referring"
    found = open_referring(tmp_path)
    assert found.videos
    assert len(found.val) == 2 * 2 * 4  # annotators, objects, frames
    sample = found.val[5]
    assert sample["group"] == ("goat", "2", "Davis17_annot1_full_video")
    assert sample["mask"].sum() == 10 * 14
    first = open_referring(tmp_path, "first_frame")
    assert {s["expression"] for s in first.val} == {"a goat"}
    (tmp_path / "davis_text_annotations" / "Davis17_annot1.txt").write_text("goat one a goat\n")
    with pytest.raises(InputError, match=r"Davis17_annot1.txt, line 1 is not `video object"):
        open_referring(tmp_path, "first_frame")


def test_expressions_in_referformers_files(tmp_path):
    write_davis(tmp_path)
    for path in tmp_path.glob("davis_text_annotations/*"):
        path.unlink()
    for part, video in (("train", "bear"), ("valid", "goat")):
        folder = tmp_path / "meta_expressions" / part
        folder.mkdir(parents=True)
        expressions = {str(i): {"exp": f"number {i}", "obj_id": str(i // 2 + 1)} for i in range(4)}
        content = {"videos": {video: {"frames": [], "expressions": expressions}}}
        (folder / "meta_expressions.json").write_text(json.dumps(content))
    found = open_referring(tmp_path)
    assert len(found.val) == 4 * 4
    assert found.val[4]["group"] == ("goat", "1", "annotator 1")


def test_generated_shapes_are_named_unambiguously():
    train, val = generate_shapes(60, 0), generate_shapes(40, 1, unseen=True)
    assert len(train) == len(list(train.names()))
    for samples, unseen in ((train, False), (val, True)):
        pairs = set()
        for shapes, wanted, sentence, kind in samples.scenes:
            words = sentence.split()
            if kind == "color and shape":
                matching = [s for s in shapes if [s.color, s.kind] == words[1:]]
                assert matching == [shapes[wanted]]
                pairs.add((words[1], words[2]))
            if kind == "color":
                assert [s for s in shapes if s.color == words[1]] == [shapes[wanted]]
        assert bool(pairs & UNSEEN) == unseen
    sample = train[3]
    assert sample["image"].size == (64, 64)
    assert 20 < sample["mask"].sum() < 500
    assert np.array_equal(np.asarray(train[3]["image"]), np.asarray(sample["image"]))


def test_mirroring_exchanges_left_and_right(tmp_path):
    write_refs(tmp_path)
    task = Referring(ReferringOptions(side=32, mirror=1.0, crop=0.0, words=4))
    splits = task.open(str(tmp_path))
    task._vocabulary = {word: i for i, word in enumerate(splits.facts["words"])}
    preprocess = {"mean": [0.0] * 3, "std": [1.0] * 3}
    sample = splits.train[0]
    mirrored, plain = (task.transform(t, preprocess)(sample) for t in (True, False))
    words = splits.facts["words"]
    assert [words[i] for i in mirrored["words"]] == ["the", "right", "square", "<padding>"]
    assert [words[i] for i in plain["words"]] == ["the", "left", "square", "<padding>"]
    assert mirrored["mask"][:, 16:].sum() > 50
    assert mirrored["mask"][:, :16].sum() == 0
    assert torch.allclose(mirrored["image"], plain["image"].flip(2), atol=2 / 255)


def test_scores_by_hand():
    metric = ReferringMetric()
    truth = torch.zeros(4, 4, dtype=torch.bool)
    truth[:2] = True
    half = torch.zeros(4, 4)
    half[0] = 0.9
    empty = torch.zeros(4, 4, dtype=torch.bool)
    metric.update(
        [half, truth.float(), half * 0],
        {"mask": [truth, truth, empty], "group": [("a",), ("a",), ("b",)],
         "kind": ["x", "x", "y"], "expression": ["1", "2", "3"]},
    )  # fmt: skip
    scores = metric.compute()
    assert scores["j"] == pytest.approx(100 * np.mean([np.mean([0.5, 1.0]), 1.0]))
    assert scores["miou"] == pytest.approx(100 * (0.5 + 1 + 1) / 3)
    assert scores["oiou"] == pytest.approx(100 * (4 + 8) / (8 + 8))
    assert scores["p@0.5"] == pytest.approx(100 * 2 / 3)
    assert metric.per_kind() == [("x", 2, 75.0), ("y", 1, 100.0)]
    assert metric.worst(1) == [("a", "1", 50.0)]
    other = ReferringMetric()
    other.merge([metric])
    assert other.compute() == scores
    with pytest.raises(InputError, match="groups of video, object number and annotator"):
        metric.davis()


def test_davis_evaluators_of_frames():
    metric = ReferringMetric(videos=True)
    for number, columns in ((1, slice(0, 3)), (2, slice(5, 9))):
        for t in range(4):
            truth = torch.zeros(10, 10, dtype=torch.bool)
            truth[2:8, columns] = True
            guess = truth.float() if (number, t) != (2, 0) else torch.zeros(10, 10)
            group = ("goat", str(number), "annotator")
            metric.update([guess], {"mask": [truth], "group": [group], "kind": [""],
                                    "expression": ["e"]})  # fmt: skip
    rows = {name: values for name, *values in metric.davis()}
    assert rows["semi-supervised"] == [100, 100, 100]  # the first frame does not count
    assert rows["semi-supervised, all frames"][0] == pytest.approx(100 * (1 + 0.75) / 2)
    assert rows["unsupervised"][0] == pytest.approx(100 * (1 + 0.75) / 2)


def test_run_lengths_are_cocos():
    mask = torch.tensor([[0, 1], [1, 1], [0, 0]], dtype=torch.bool)
    assert run_lengths(mask) == [1, 1, 1, 2, 1]
    assert run_lengths(~mask) == [0, 1, 1, 1, 2, 1]
    assert run_lengths(torch.zeros(2, 3, dtype=torch.bool)) == [6]


SMALL = replace(
    RECIPE,
    options={**RECIPE.options, "crop": 0.0, "forget": 0.0},
    drop_path=0.0,
    batch_size=4,
    stem_stride=2,
    layer_scale=0.0,
    model="test_convnext",
    model_options={},
)


@pytest.mark.slow
def test_left_and_right_are_learned(tmp_path):
    write_refs(tmp_path / "data", 24)
    result = train(tmp_path / "data", tmp_path / "run", replace(SMALL, epochs=24))
    assert result.scores["miou"] > 60  # both squares together have 50, either of them alone less
    predictor = Predictor(tmp_path / "run", device="cpu")
    path = tmp_path / "data" / "images" / "val0.png"
    (right,) = predictor(path, "the right square")
    (left,) = predictor(path, "the left square")
    assert left.description["box"][0] < right.description["box"][0]


def test_runs_are_evaluated_and_predict(tmp_path):
    write_refs(tmp_path / "data")
    train(tmp_path / "data", tmp_path / "run", replace(SMALL, epochs=1))
    judged = evaluate(str(tmp_path / "run"), settings={"threshold": 0.4})
    assert judged.deviation < 1e-3
    assert judged.task.options.threshold == 0.4
    predictor = Predictor(tmp_path / "run", device="cpu")
    path = tmp_path / "data" / "images" / "val0.png"
    (left,) = predictor(path, "the left square")
    assert sum(left.description["mask"]["counts"]) == 32 * 40
    predictor.task.draw(left.sample, left.description).savefig(tmp_path / "figure.png")
    (unknown,) = predictor(path, "une vache")
    assert "knows none of the words of 'une vache'; it knows 4" in unknown.error
    with pytest.raises(InputError, match="the task referring needs a text beside the file"):
        list(predictor(path))


def test_videos_are_trained_on_and_judged(tmp_path):
    write_davis(tmp_path / "data")
    fit(None, tmp_path / "data", replace(RECIPE, epochs=1), tmp_path / "run", workers=0)
    judged = evaluate(str(tmp_path / "run"))
    titles = [t.title for t in judged.task.tables(judged.models[0].metric, judged.info.facts)]
    assert titles == ["Per kind", "Worst expressions", "DAVIS evaluators"]
    assert load_run(tmp_path / "run")[2].facts["videos"]


@pytest.mark.slow
@pytest.mark.parametrize("fusion", ["asymmetric", "product", "acm"])
def test_a_killed_run_resumes_to_the_same_bits(tmp_path, fusion):
    write_refs(tmp_path / "data", 16)
    recipe = replace(RECIPE, options={**RECIPE.options, "fusion": fusion})
    assert_a_killed_run_resumes_to_the_same_bits(tmp_path / "data", tmp_path, recipe, 7)


@pytest.mark.slow
def test_bf16_and_worker_processes_train_too(tmp_path):
    write_refs(tmp_path / "data", 16)
    recipe = replace(RECIPE, epochs=1)
    result = fit(None, tmp_path / "data", recipe, tmp_path / "run", workers=2, amp="bf16")
    assert np.isfinite(result.scores["j"])


@pytest.mark.slow
def test_two_processes_learn_what_one_does(tmp_path):
    write_refs(tmp_path / "data", 16)
    options = {**RECIPE.options, "crop": 0.0, "forget": 0.0, "mirror": 0.0}
    recipe = replace(RECIPE, options=options, drop_path=0.0)
    assert_two_processes_learn_what_one_does(tmp_path / "data", tmp_path, recipe)
