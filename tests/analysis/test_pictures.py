"""Pictures are read back: their format, what they refuse, and that the data reach the pixels."""

import numpy as np
import pytest
from PIL import Image

from seewide.analysis.pictures import draw_bars, draw_confusion, draw_curves, draw_samples
from seewide.errors import InputError


def pixels(path):
    return np.asarray(Image.open(path).convert("RGB"), dtype=int)


EPOCHS = [{"epoch": e, "train_loss": 2 / e, "val_top1": 10.0 * e} for e in range(1, 6)]


def test_curves_follow_the_metrics(tmp_path):
    path = draw_curves(EPOCHS, tmp_path / "curves.png")
    other = draw_curves([{**row, "train_loss": 3.0} for row in EPOCHS], tmp_path / "other.png")
    assert (pixels(path) != pixels(other)).any()
    loss_only = draw_curves([{"train_loss": 1.0}], tmp_path / "loss.png")
    assert pixels(loss_only).shape[1] < 0.6 * pixels(path).shape[1], "one panel instead of two"


def test_curves_survive_nan_and_missing_keys(tmp_path):
    rows = [{"train_loss": float("nan")}, {"train_loss": 1.0, "val_top1": 5.0}, {"val_top1": None}]
    draw_curves(rows, tmp_path / "curves.svg")
    assert (tmp_path / "curves.svg").read_text().lstrip().startswith("<?xml")


def test_the_diagonal_of_a_good_confusion_matrix_is_dark(tmp_path):
    dark = {}
    for name, matrix in (("good", np.eye(4) * 9), ("bad", np.ones((4, 4)))):
        image = pixels(draw_confusion(matrix, list("abcd"), tmp_path / f"{name}.png"))
        dark[name] = (image.sum(-1) < 200).sum()
    assert dark["good"] > 3 * dark["bad"]


@pytest.mark.parametrize("classes", [2, 30, 102])
def test_confusion_of_few_and_many_classes(tmp_path, classes):
    names = [f"flower number {index}" for index in range(classes)]
    matrix = np.random.default_rng(0).poisson(1, (classes, classes))
    matrix[0] = 0  # a class without images
    image = pixels(draw_confusion(matrix, names, tmp_path / "confusion.png"))
    assert image.shape[0] > 400


def test_mistakes_are_marked(tmp_path):
    images = np.random.default_rng(0).random((10, 8, 8))
    plain = draw_samples(images, ["7"] * 10, tmp_path / "plain.png")
    marked = draw_samples(images, ["7"] * 10, tmp_path / "marked.png", marked=[True] * 10)
    orange = [
        ((image[..., 0] > 200) & (image[..., 2] < 100)).sum()
        for image in (pixels(plain), pixels(marked))
    ]
    assert orange[0] == 0 < orange[1]


def test_bars_are_as_long_as_their_values(tmp_path):
    path = draw_bars({"one": (1, 1, 1), "four": (4, 3.5, 5)}, "seconds", tmp_path / "bars.png")
    image = pixels(path)
    lengths = [
        (abs(image - np.array(colour)).sum(-1) < 30).sum(axis=1).max()
        for colour in ((31, 111, 178), (224, 123, 57))
    ]
    assert lengths[1] == pytest.approx(4 * lengths[0], rel=0.1)


def test_refusals_leave_no_file(tmp_path):
    with pytest.raises(InputError, match="no key with `loss` or `top`"):
        draw_curves([{"epoch": 1}], tmp_path / "a.png")
    with pytest.raises(InputError, match=r"3 classes is \(3, 3\), got \(2, 2\)"):
        draw_confusion(np.eye(2), list("abc"), tmp_path / "a.png")
    with pytest.raises(InputError, match="no bars"):
        draw_bars({}, "s", tmp_path / "a.png")
    with pytest.raises(InputError, match="got 1 and 2"):
        draw_samples(np.zeros((2, 4, 4)), ["a"], tmp_path / "a.png")
    assert list(tmp_path.iterdir()) == []
