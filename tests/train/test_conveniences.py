"""Class weights, binary cross-entropy, mirrored evaluation, averaged epochs, trackers."""

from __future__ import annotations

import json

import pytest
import torch
from timm.loss import BinaryCrossEntropy
from tiny import NAME, change, paint

from seewide.checkpoints import read_state_dict
from seewide.errors import InputError
from seewide.tasks import get_task
from seewide.train import evaluate, fit, load_run
from seewide.train.averaging import average_checkpoints
from seewide.train.evaluate import make_task


def classification(**options):
    kind = get_task("classification")
    return kind(kind.Options(**options))


def test_balanced_weights_make_each_class_count_the_same(tmp_path):
    paint(tmp_path / "data", ("blue", "green"), count=12)
    for path in list((tmp_path / "data" / "green").iterdir())[4:]:
        path.unlink()
    task = classification(class_weights="balanced", image_size=32)
    splits = task.open(str(tmp_path / "data"))
    counts = torch.bincount(torch.as_tensor(splits.train.labels))
    weights = task.sample_weights(torch.as_tensor(splits.train.labels))
    for label in (0, 1):
        total = weights[torch.as_tensor(splits.train.labels) == label].sum()
        assert float(total) == pytest.approx(float(counts.sum()) / 2)
    mixed = torch.tensor([[0.25, 0.75]])
    pure = task.sample_weights(torch.tensor([0, 1]))
    assert float(task.sample_weights(mixed)) == pytest.approx(
        float(0.25 * pure[0] + 0.75 * pure[1])
    )
    model = task.build(torch.nn.Linear(1, 2), splits.facts)
    batch = {"image": torch.randn(2, 1), "label": torch.tensor([0, 1])}
    result = task.loss(model, batch)
    result["loss"] = result["loss"].detach()
    each = torch.nn.CrossEntropyLoss(label_smoothing=0.1, reduction="none")(
        model(batch["image"]), batch["label"]
    )
    assert float(result["loss"]) == pytest.approx(float((each * pure).sum().detach()), rel=1e-6)
    assert result["weight"] == pytest.approx(float(pure.sum()))


@pytest.mark.parametrize("soft", [False, True])
def test_binary_cross_entropy_is_timms(soft):
    task = classification(loss="bce", label_smoothing=0.1)
    task.build(torch.nn.Identity(), {"class_names": list("abcd")})
    x = torch.randn(6, 4)
    y = torch.randint(0, 4, (6,))
    target = torch.rand(6, 4) if soft else y
    want = BinaryCrossEntropy(smoothing=0.1)(x, target)
    assert float(task._criterion(x, target).mean()) == pytest.approx(float(want), rel=1e-5)


def test_mirrored_evaluation_averages_both_images():
    task = classification(tta=True)
    x = torch.randn(2, 3, 4, 4)

    def model(image):
        return image[:, :, :, 0].mean(2)

    want = (x[:, :, :, 0].mean(2) + x[:, :, :, -1].mean(2)) / 2
    assert torch.allclose(task.predict(model, {"image": x}), want)


def test_the_average_of_epochs_is_a_model(images, small, quiet, tmp_path):
    out = tmp_path / "run"
    fit(NAME, images, change(small, epochs=2), out, console=quiet, keep_every=1)
    path, epochs = average_checkpoints(out)
    assert epochs == [1, 2]
    states = [read_state_dict(out / f"epoch-{epoch}.safetensors") for epoch in epochs]
    average = read_state_dict(path)
    for key, value in average.items():
        if value.is_floating_point():
            want = (states[0][key].double() + states[1][key].double()) / 2
            assert torch.equal(value, want.to(value.dtype))
    load_run(path)
    settings = {"tta": "true"}
    scores = evaluate(str(path), console=quiet, settings=settings).models[-1].scores
    assert 0 <= scores["top1"] <= 100
    (out / "epoch-1.safetensors").unlink()
    with pytest.raises(InputError, match="an average needs two"):
        average_checkpoints(out)


def test_numbers_reach_a_tracker_of_accelerate(images, small, quiet, tmp_path, monkeypatch):
    from accelerate import tracking

    sent = []

    class Recorder:
        requires_logging_directory = True

        def __init__(self, project, logging_dir):
            sent.append(("start", project, logging_dir))

        def log(self, values, step):
            json.dumps(values)
            sent.append(("log", values, step))

        def finish(self):
            sent.append(("finish",))

    monkeypatch.setitem(tracking.LOGGER_TYPE_TO_CLASS, "recorder", Recorder)
    out = tmp_path / "run"
    fit(NAME, images, change(small, epochs=1), out, console=quiet, tracker="recorder")
    assert sent[0] == ("start", "seewide", str(out / "recorder"))
    assert sent[-1] == ("finish",)
    logged = {key for entry in sent if entry[0] == "log" for key in entry[1]}
    assert {"step/loss", "step/lr", "epoch/val_top1"} <= logged
    with pytest.raises(InputError, match="unknown tracker 'wanda'; did you mean wandb"):
        fit(NAME, images, change(small, epochs=1), tmp_path / "b", console=quiet, tracker="wanda")


def test_options_are_of_the_recipe(small):
    task = make_task(change(small, class_weights="balanced", loss="bce"))
    assert (task.options.class_weights, task.options.loss) == ("balanced", "bce")
