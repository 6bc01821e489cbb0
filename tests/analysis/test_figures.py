"""Figures: files, errors, and that they show the data."""

import html

import numpy as np
import pytest
from PIL import Image

from seewide.analysis import figures
from seewide.analysis.erf import ERF, draw_erf
from seewide.analysis.figures import (
    Panel,
    draw_bars,
    draw_confusion,
    draw_curves,
    draw_lines,
    draw_samples,
    figure_path,
    points,
)
from seewide.analysis.internals import draw_maps
from seewide.errors import InputError, printable


def pixels(path):
    return np.asarray(Image.open(path).convert("RGB"), dtype=int)


EPOCHS = [{"epoch": e, "train_loss": 2 / e, "val_top1": 10.0 * e} for e in range(1, 6)]


def test_curves_show_the_metrics(tmp_path):
    path = draw_curves(EPOCHS, tmp_path / "curves.png")
    other = draw_curves([{**row, "train_loss": 3.0} for row in EPOCHS], tmp_path / "other.png")
    assert (pixels(path) != pixels(other)).any()
    loss_only = draw_curves([{"train_loss": 1.0}], tmp_path / "loss.png")
    assert pixels(loss_only).shape[1] < 0.6 * pixels(path).shape[1], "one panel instead of two"


@pytest.fixture
def saved(monkeypatch):
    """The figures that are saved."""
    found = []
    monkeypatch.setattr(figures, "save", lambda figure, path: found.append(figure) or path)
    return found


def test_nan_infinite_and_missing_values_are_left_out(saved):
    rows = [
        {"train_loss": float("nan")},
        {"train_loss": 1.0, "val_top1": 5.0},
        {"train_loss": float("inf"), "val_top1": None},
        {"epoch": 9, "train_loss": 0.5, "val_top1": 7.0},
    ]
    assert points(rows, "train_loss") == [(2, 1.0), (9, 0.5)]
    draw_curves(rows, "curves.svg")
    loss, accuracy = saved[0].axes
    assert [line.get_xydata().tolist() for line in loss.lines] == [[[2, 1], [9, 0.5]]]
    assert [line.get_xydata().tolist() for line in accuracy.lines] == [[[2, 5], [9, 7]]]
    assert [text.get_text() for text in loss.get_legend().get_texts()] == ["train loss  0.500"]


def test_confusion_matrix_of_asymmetric_counts(saved):
    """Rows are true classes and normalized; columns are predictions; the diagonal is correct."""
    counts = [[8, 2, 0], [0, 1, 0], [3, 0, 1]]
    draw_confusion(counts, ["a", "$b$", "c"], "confusion.png")
    axis = saved[0].axes[0]
    expected = [[0.8, 0.2, 0], [0, 1, 0], [0.75, 0, 0.25]]
    np.testing.assert_allclose(axis.images[0].get_array(), expected)
    shown = {(text.get_position()[::-1], text.get_text()) for text in axis.texts}
    assert shown == {
        ((0, 0), "8"), ((0, 1), "2"), ((1, 1), "1"), ((2, 0), "3"), ((2, 2), "1"),
    }  # fmt: skip
    assert axis.get_title(loc="left") == "15 images, accuracy 66.7%"
    assert (axis.get_xlabel(), axis.get_ylabel()) == ("predicted", "true")
    for labels in (axis.get_xticklabels(), axis.get_yticklabels()):
        assert [label.get_text() for label in labels] == ["a", r"\$b\$", "c"]
    norm, cmap = axis.images[0].norm, axis.images[0].cmap
    brightness = [sum(cmap(norm(value))[:3]) for value in (0, 0.2, 0.6, 1)]
    assert brightness == sorted(brightness, reverse=True), "a large share is dark"


NAMES = ("$\\frac$", "$", "a$b$c$", "[red]", "a\x1b[31m", "a\nb", "\udcff", "_private", "x\\$")


def test_names_are_drawn_literally(tmp_path):
    """Formulas, markup and control characters in names of classes and models."""
    draw_confusion(np.eye(len(NAMES)), NAMES, tmp_path / "confusion.png")
    draw_bars(dict.fromkeys(NAMES, (1, 1, 1)), "$s$", tmp_path / "bars.svg")
    draw_samples(np.zeros((len(NAMES), 4, 4)), NAMES, tmp_path / "samples.png")
    panels = [Panel("$\\frac$", {name: [(1, 1.0)] for name in NAMES})]
    draw_lines(panels, tmp_path / "lines.svg")
    draw_erf({name: ERF(np.ones((8, 8)), 1) for name in NAMES}, tmp_path / "erf.png")
    draw_maps({name: np.eye(3) for name in NAMES}, tmp_path / "maps.png")
    text = (tmp_path / "lines.svg").read_text("utf-8")
    for name in NAMES:
        shown = html.escape(printable(name), quote=False)
        assert f"<!-- {shown}" in text or f"<!--  {shown}" in text or "--" in shown, name
    assert "\x1b" not in text


def test_the_suffix_selects_the_format(tmp_path):
    path = draw_bars({"a": (1, 1, 1)}, "s", tmp_path / "fields")
    assert path == tmp_path / "fields.png"
    assert path.read_bytes().startswith(b"\x89PNG")
    assert draw_bars({"a": (1, 1, 1)}, "s", tmp_path / "b.SVG").read_text().startswith("<?xml")
    for name in ("a.jpeg2", "v1.2", "a.txt"):
        with pytest.raises(InputError, match=rf"a figure ends in .*\.png.*got .*{name}"):
            figure_path(tmp_path / name)
        with pytest.raises(InputError, match="a figure ends in"):
            draw_bars({"a": (1, 1, 1)}, "s", tmp_path / name)
    assert {path.name for path in tmp_path.iterdir()} == {"fields.png", "b.SVG"}


@pytest.mark.parametrize("classes", [2, 30, 102])
def test_confusion_matrices_of_any_size(tmp_path, classes):
    names = [f"flower number {index}" for index in range(classes)]
    matrix = np.random.default_rng(0).poisson(1, (classes, classes))
    matrix[0] = 0  # a class without images
    image = pixels(draw_confusion(matrix, names, tmp_path / "confusion.png"))
    assert image.shape[0] > 400


def test_marked_captions_are_orange(tmp_path):
    images = np.random.default_rng(0).random((10, 8, 8))
    plain = draw_samples(images, ["7"] * 10, tmp_path / "plain.png")
    marked = draw_samples(images, ["7"] * 10, tmp_path / "marked.png", marked=[True] * 10)
    orange = [
        ((image[..., 0] > 200) & (image[..., 2] < 100)).sum()
        for image in (pixels(plain), pixels(marked))
    ]
    assert orange[0] == 0 < orange[1]


def test_lengths_of_bars(tmp_path):
    path = draw_bars({"one": (1, 1, 1), "four": (4, 3.5, 5)}, "seconds", tmp_path / "bars.png")
    image = pixels(path)
    lengths = [
        (abs(image - np.array(color)).sum(-1) < 30).sum(axis=1).max()
        for color in ((31, 111, 178), (224, 123, 57))
    ]
    assert lengths[1] == pytest.approx(4 * lengths[0], rel=0.1)


def test_bad_input_writes_no_file(tmp_path):
    with pytest.raises(InputError, match="no key with `loss` or `top`"):
        draw_curves([{"epoch": 1}], tmp_path / "a.png")
    with pytest.raises(InputError, match=r"3 classes is \(3, 3\), got \(2, 2\)"):
        draw_confusion(np.eye(2), list("abc"), tmp_path / "a.png")
    with pytest.raises(InputError, match="no bars"):
        draw_bars({}, "s", tmp_path / "a.png")
    with pytest.raises(InputError, match="got 1 and 2"):
        draw_samples(np.zeros((2, 4, 4)), ["a"], tmp_path / "a.png")
    assert list(tmp_path.iterdir()) == []
