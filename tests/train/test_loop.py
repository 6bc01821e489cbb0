"""What a run does epoch by epoch, and what it refuses before or during."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import pytest
import tiny
import torch
from tiny import change, make_recipe

from seewide.errors import InputError
from seewide.train import Interrupted, Runtime, evaluate, fit, load_run, resume, run, step
from seewide.train.build import Precision, build_backbone, resolve_device
from seewide.train.checkpoint import load_state
from seewide.train.evaluate import make_task
from seewide.train.optim import Schedule, make_optimizer
from seewide.train.run import default_recipe

# No random operations, and none that depend on the other images of a batch.
PLAIN = make_recipe(
    image_size=32, min_crop=1.0, flip=0.0, epochs=1, batch_size=8, lr=1e-2, warmup_epochs=0.0
)


def initial_model(name: str, recipe, **runtime):
    """The model before the first epoch, for two classes."""
    facts = {"class_names": ["blue", "red"]}
    return run._initial_model(name, make_task(recipe), facts, recipe, Runtime(**runtime))


def test_a_run_learns_and_keeps_its_best(tmp_path, images, quiet):
    recipe = change(PLAIN, epochs=8, crop_pct=1.0, ema_decay=0.5)
    result = fit("test_convnext", images, recipe, tmp_path / "run", workers=0, console=quiet)
    assert result.scores["top1"] == 100.0  # three colours
    assert result.best == tmp_path / "run" / "best.safetensors"
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    assert all(row.pop("crc") for row in rows)
    assert rows == result.history
    assert [row["epoch"] for row in rows] == list(range(1, 9))
    assert rows[-1]["train_loss"] < rows[0]["train_loss"]
    best = max(rows, key=lambda row: (row["val_top1"], -row["val_loss"]))
    assert result.epoch == best["epoch"]
    assert (tmp_path / "run" / "curves.png").read_bytes()[:4] == b"\x89PNG"

    model, task, info = load_run(tmp_path / "run")
    assert not model.training
    assert task.name == "classification"
    assert info.facts == {"class_names": ["blue", "green", "red"]}
    assert (info.epoch, info.score) == (best["epoch"], 100)
    again = evaluate(str(tmp_path / "run"), console=quiet)
    assert [model.scores["top1"] for model in again.models] == [100.0, 100.0]
    assert again.models[0].scores["loss"] == pytest.approx(best["val_loss"], rel=1e-5)


def test_accumulated_micro_batches_equal_one_batch(tmp_path, images, quiet):
    """Without batch norm, four micro-batches of two images give the step of one of eight."""
    states = []
    for device_batch in (0, 2):
        folder = tmp_path / str(device_batch)
        recipe = change(PLAIN, device_batch=device_batch)
        fit("test_convnext", images, recipe, folder, workers=0, console=quiet)
        states.append(load_state(folder)[0]["model"])
    fresh = {k: v for k, v in states[0].items() if v.is_floating_point()}
    for key in fresh:
        torch.testing.assert_close(states[1][key], fresh[key], rtol=1e-3, atol=2e-4)


def test_fine_tuning_starts_from_the_weights_and_makes_a_new_head(tmp_path, images, quiet):
    folder = tmp_path / "run"
    fit(tiny.NAME, images, PLAIN, folder, workers=0, console=quiet)
    trained, *_ = load_run(folder)
    for origin in (folder, folder / "best.safetensors"):
        recipe = change(PLAIN, head_init_scale=0.5)
        model = initial_model(tiny.NAME, recipe, checkpoint=str(origin))
        assert model.get_classifier().out_features == 2
        for key, value in trained.state_dict().items():
            if not key.startswith("head.fc"):
                assert torch.equal(model.state_dict()[key], value), key
    with pytest.raises(InputError, match="does not fit"):
        initial_model("test_convnext", PLAIN, checkpoint=str(folder))


def test_head_init_scale():
    weights = []
    for scale in (1.0, 0.001):
        torch.manual_seed(0)
        model = initial_model(tiny.NAME, change(PLAIN, head_init_scale=scale))
        weights.append(model.get_classifier().weight)
    torch.testing.assert_close(weights[0] * 0.001, weights[1])


def test_ctrl_c_says_how_to_resume(tmp_path, images, quiet, monkeypatch):
    original = step.Trainer.step

    def interrupt(self, epoch, number, batches, stop):
        if (epoch, number) == (2, 1):
            raise KeyboardInterrupt
        return original(self, epoch, number, batches, stop)

    monkeypatch.setattr(step.Trainer, "step", interrupt)
    folder = tmp_path / "run"
    recipe = change(PLAIN, epochs=3)
    with pytest.raises(Interrupted, match=rf"1 of 3 epochs .* --resume {folder}"):
        fit("test_convnext", images, recipe, folder, workers=0, console=quiet)
    monkeypatch.undo()
    assert len(resume(folder, console=quiet).history) == 3


def test_a_loss_that_explodes_ends_the_run(tmp_path, images, quiet):
    with pytest.raises(InputError, match=r"became (nan|inf) in epoch \d+, step \d+: try a learn"):
        fit(
            "test_convnext", images, change(PLAIN, lr=1e30, epochs=4), tmp_path / "run",
            workers=0, console=quiet,
        )  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"model": "unirepknet_a"}, "unknown model 'unirepknet_a'; did you mean unireplknet_a"),
        ({"model": "unireplknet_t.in2k"}, "unknown weight tag of unireplknet_t 'in2k'"),
        ({"model": "test_convnext", "pretrained": True, "checkpoint": "x"}, "give one"),
        ({"model": "unireplknet_h", "pretrained": True}, "no pretrained weights for unireplknet_h"),
        ({"checkpoint": "nowhere"}, "there is no run nowhere"),
        ({"device": "tpu"}, "device 'tpu' is not available; auto, cpu"),
        ({"amp": "fp8"}, "amp must be auto, bf16, fp16 or off, got 'fp8'"),
        ({"recipe": "dgits"}, "unknown recipe 'dgits'; did you mean digits"),
        ({"recipe": change(PLAIN, batch_size=500)}, "batch size 500 is more than the 18 samples"),
        ({"recipe": change(PLAIN, batch_size=9, mixup=0.1)}, "must be even, got 9"),
    ],
)
def test_refusals_come_before_anything_is_written(tmp_path, images, quiet, arguments, sentence):
    arguments = {"model": "test_convnext", "recipe": PLAIN, **arguments}
    with pytest.raises(InputError, match=sentence):
        fit(data=images, out=tmp_path / "run", workers=0, console=quiet, **arguments)
    assert not (tmp_path / "run").exists()


def test_the_same_call_resumes_and_another_is_refused(tmp_path, images, quiet, monkeypatch):
    folder = tmp_path / "run"
    arguments = "test_convnext", images, change(PLAIN, epochs=2), folder
    first = fit(*arguments, workers=0, console=quiet)
    monkeypatch.setattr(step.Trainer, "step", None)  # nothing is left to train
    assert fit(*arguments, workers=1, console=quiet).history == first.history
    with pytest.raises(InputError, match=r"already holds a run with lr=0.01, not 0.1: `--resume"):
        fit(*arguments[:2], change(PLAIN, epochs=2, lr=0.1), folder, workers=0, console=quiet)
    with pytest.raises(InputError, match="with model='test_convnext', not 'test_resnet'"):
        fit("test_resnet", *arguments[1:], workers=0, console=quiet)
    with pytest.raises(InputError, match="with seed=0, not 1"):
        fit(*arguments, seed=1, workers=0, console=quiet)


def test_default_folders_count_up(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run._folder(None, "a-digits") == (Path("runs/a-digits"), False)
    (tmp_path / "runs" / "a-digits").mkdir(parents=True)
    assert run._folder(None, "a-digits") == (Path("runs/a-digits-2"), False)


def test_default_recipe_has_layer_scale_where_the_model_has_one():
    for model, expected in (("unireplknet_a", 0.1), ("convnext_atto", 0.1), ("lsnet_t", 0.0)):
        name, chosen = default_recipe("detection", "anywhere", model)
        assert (name, chosen.layer_scale) == ("small_detection", expected)
    assert default_recipe("detection", "anywhere", "no_such_network")[1].layer_scale == 0.1


def test_layer_scale_is_set_where_the_model_has_one():
    assert build_backbone(tiny.NAME, {"num_classes": 3}).stages[0].blocks[0].gamma.max() < 1e-5
    assert (
        build_backbone(tiny.NAME, {"num_classes": 3}, layer_scale=0.5)
        .stages[0]
        .blocks[0]
        .gamma.min()
        == 0.5
    )
    with pytest.raises(InputError, match="test_efficientnet has no layer_scale; set it to 0"):
        build_backbone("test_efficientnet", {}, layer_scale=0.5)


def test_the_schedule_warms_up_and_ends_at_the_least_rate():
    model = torch.nn.Linear(2, 2)
    recipe = change(PLAIN, epochs=10, lr=1e-2, min_lr=1e-5, warmup_lr=1e-6, warmup_epochs=2.0)
    schedule = Schedule(make_optimizer(model, recipe), recipe, total=50, steps_per_epoch=5)
    rates = [schedule.set(done) for done in range(51)]
    assert rates[0] == pytest.approx(1e-6)
    assert max(rates) == rates[10] == pytest.approx(1e-2, rel=0.1)  # cosine has begun by then
    assert rates[5] == pytest.approx(0.5e-2, rel=0.01)
    assert all(a > b for a, b in itertools.pairwise(rates[10:]))
    assert rates[-1] == pytest.approx(1e-5)
    assert schedule.set(7) == rates[7]  # depends on the number of steps alone


def test_layer_decay_and_what_is_not_decayed():
    model = build_backbone(tiny.NAME, {"num_classes": 3})
    optimizer = make_optimizer(model, change(PLAIN, layer_decay=0.5, weight_decay=0.05))
    scale, decay = {}, {}
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            scale[parameter] = group.get("lr_scale", 1.0)
            decay[parameter] = group["weight_decay"]
    head, stem = model.head.fc, model.stem[0]
    assert scale[head.weight] == 1.0
    assert scale[stem.weight] < 0.5
    assert (decay[head.weight], decay[head.bias]) == (0.05, 0.0)
    assert {id(p) for p in scale} == {id(p) for p in model.parameters()}


def test_precision_on_the_cpu_is_float32():
    precision = Precision.of(resolve_device("cpu"), "auto")
    assert precision.dtype is None
    assert precision.name == "no"
