"""Shape bias of known decisions."""

import math

import pytest
import torch
from PIL import Image

from seewide.analysis import figures
from seewide.analysis.shape_bias import (
    CLASSES,
    Decisions,
    decide,
    draw_shape_bias,
    imagenet_to_16,
    list_cue_conflicts,
    measure_shape_bias,
    shape_bias,
)
from seewide.errors import InputError
from seewide.preprocess import Preprocess


def test_counts_of_known_decisions():
    decisions = ["cat", "cat", "dog", "car", "bird", "cat", "oven"]
    shapes = ["cat", "cat", "cat", "bird", "bird", "dog", "cat"]
    textures = [
        "dog",
        "bird",
        "dog",
        "car",
        "car",
        "dog",
        "oven",
    ]  # the sixth has no conflict and is ignored
    result = shape_bias(decisions, shapes, textures)
    assert result.classes["cat"] == Decisions(shape=2, texture=2, neither=0)
    assert result.classes["bird"] == Decisions(shape=1, texture=1, neither=0)
    assert "dog" not in result.classes
    assert result.total == Decisions(shape=3, texture=3, neither=0)
    assert result.total.bias == 0.5
    assert result.rows()[-1][:4] == ("all", 3, 3, 0)


def test_decisions_for_neither_are_ignored():
    result = shape_bias(["oven"] * 3 + ["cat"], ["cat"] * 4, ["dog"] * 4)
    assert result.total == Decisions(1, 0, 3)
    assert result.total.bias == 1
    assert result.total.decided == 0.25
    none = shape_bias(["oven"], ["cat"], ["dog"]).total
    assert math.isnan(none.bias)
    assert none.interval == (0, 1)


def test_wilson_interval():
    """22.1% of 1000, computed by hand."""
    low, high = Decisions(221, 779).interval
    assert (low, high) == pytest.approx((0.19634, 0.24775), abs=2e-4)
    assert Decisions(0, 10).interval == pytest.approx((0, 0.2775), abs=1e-3)
    wide, narrow = Decisions(5, 5).interval, Decisions(500, 500).interval
    assert wide[1] - wide[0] > 5 * (narrow[1] - narrow[0])


def test_mapping_of_imagenet_classes():
    members = dict(zip(CLASSES, imagenet_to_16(), strict=True))
    counts = [1, 4, 2, 49, 5, 7, 3, 6, 4, 3, 109, 2, 2, 1, 1, 8]
    assert [len(m) for m in members.values()] == counts
    assert members["cat"] == tuple(range(281, 287))
    assert members["truck"] == (555, 569, 656, 675, 717, 734, 864, 867)
    assert members["airplane"] == (404,)
    everything = [i for m in members.values() for i in m]
    assert len(set(everything)) == len(everything)
    assert {134, 192, 204, 227, 242, 251, 258, 260, 264}.isdisjoint(everything), "the gaps"


def test_1000_classes_are_averaged():
    """A sum would choose the 109 dogs (0.218 and 0.654) in both rows."""
    shares = torch.full((2, 1000), 1e-6)
    dogs = list(imagenet_to_16()[10])
    shares[0, 385], shares[0, dogs] = 0.1, 0.002
    shares[1, 385], shares[1, dogs] = 0.01, 0.006
    assert decide(shares.log()) == ["elephant", "dog"]


def test_16_classes_are_compared_directly():
    logits = torch.zeros(3, 16)
    logits[0, 0] = logits[1, 15] = logits[2, 3] = 2
    assert decide(logits) == ["airplane", "truck", "bird"]


def test_listing_with_and_without_a_table(tmp_path):
    for name in ("cat/cat1-dog2", "cat/cat2-cat3", "car/car10-knife1", "car/my-photo"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (8, 8)).save(tmp_path / f"{name}.png")
    found = list_cue_conflicts(tmp_path)
    assert [(c.shape, c.texture) for c in found] == [("car", "knife"), ("cat", "dog")]
    (tmp_path / "labels.csv").write_text("file,shape,texture\ncar/my-photo.png,car,oven\n")
    (only,) = list_cue_conflicts(tmp_path)
    assert (only.path, only.texture) == (tmp_path / "car/my-photo.png", "oven")


def test_measurement_of_a_known_classifier(tmp_path):
    """It predicts airplane for red images, else bear: shape, texture and neither once each."""
    for name, color in (("airplane1-dog1", "red"), ("car1-bear1", "blue"), ("cat1-dog1", "red")):
        Image.new("RGB", (8, 8), color).save(tmp_path / f"{name}.png")
    steps = []

    def by_color(x):
        red = (x[:, 0].mean((1, 2)) > x[:, 2].mean((1, 2))).float()
        return torch.cat([red[:, None], 1 - red[:, None], torch.zeros(len(x), 14)], 1)

    for batch in (1, 2, 8):
        result = measure_shape_bias(
            by_color,
            list_cue_conflicts(tmp_path),
            Preprocess(8).transform(),
            batch,
            lambda: steps.append(1),
        )
        assert result.total == Decisions(1, 1, 1)
        assert result.classes["airplane"] == Decisions(shape=1)
    assert len(steps) == 9


def test_published_stimuli(shared):
    conflicts = list_cue_conflicts(shared / "data" / "cue_conflict")
    assert len(conflicts) == 416
    assert {c.shape for c in conflicts} == set(CLASSES)


def test_the_figure_shows_totals_intervals_classes_and_published_values(tmp_path, monkeypatch):
    saved = []
    monkeypatch.setattr(figures, "save", lambda figure, path: saved.append(figure) or path)
    one = shape_bias(["cat", "dog", "car"], ["cat", "cat", "car"], ["dog", "dog", "oven"])
    two = shape_bias(["dog", "dog", "oven"], ["cat", "cat", "car"], ["dog", "dog", "oven"])
    draw_shape_bias({"one": one, "$two$": two}, tmp_path / "a.png", published={"humans": 95.9})
    (axis,) = saved[0].axes
    first, second, humans = axis.lines
    assert [line.get_xdata()[0] for line in axis.lines] == pytest.approx([200 / 3, 0, 95.9])
    assert first.get_linestyle() == second.get_linestyle() != humans.get_linestyle()
    assert [text.get_text() for text in axis.texts] == ["humans"]
    # rows: car, cat in the order of CLASSES
    assert [label.get_text() for label in axis.get_yticklabels()] == ["car", "cat"]
    clouds = [cloud.get_offsets().tolist() for cloud in axis.collections]
    assert clouds == [[[100, 0], [50, 1]], [[0, 0], [0, 1]]]
    spans = [patch.get_extents().transformed(axis.transData.inverted()) for patch in axis.patches]
    for span, result in zip(spans, (one, two), strict=True):
        low, high = result.total.interval
        assert sorted((span.x0, span.x1)) == pytest.approx([100 * low, 100 * high], abs=0.01)
    left, right = axis.get_xlim()
    assert left > right, "shape is on the left"
    bottom, top = axis.get_ylim()
    assert bottom > top, "the first class is at the top"
    labels = [text.get_text() for text in saved[0].legends[0].get_texts()]
    assert labels == ["one: 66.7%", r"\$two\$: 0.0%"]


def test_bad_input(tmp_path):
    with pytest.raises(InputError, match=r"the classes are airplane, .* truck, got 'horse'"):
        shape_bias(["horse"], ["cat"], ["dog"])
    with pytest.raises(InputError, match="must have the same length"):
        shape_bias(["cat"], ["cat", "cat"], ["dog", "dog"])
    with pytest.raises(InputError, match=r"1000 classes or the 16, got outputs of shape \(2, 5\)"):
        decide(torch.zeros(2, 5))
    with pytest.raises(InputError, match="there is no folder nowhere"):
        list_cue_conflicts("nowhere")
    with pytest.raises(InputError, match=r"no cue-conflict image; .*cat7-elephant1\.png"):
        list_cue_conflicts(tmp_path)
    (tmp_path / "labels.csv").write_text("file,shape\na.png,cat\n")
    with pytest.raises(InputError, match=r"labels\.csv has no column texture"):
        list_cue_conflicts(tmp_path)
    with pytest.raises(InputError, match="no shape bias to draw"):
        draw_shape_bias({}, tmp_path / "a.png")
