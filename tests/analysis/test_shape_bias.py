"""Decisions made by hand, whose bias is arithmetic."""

import math

import pytest
import torch
from matplotlib.image import imread
from PIL import Image

from seewide.analysis.images import normalized
from seewide.analysis.shape_bias import (
    CLASSES,
    Decisions,
    decide,
    draw_shape_bias,
    imagenet_to_16,
    list_conflicts,
    measure_shape_bias,
    shape_bias,
)
from seewide.errors import InputError


def test_hand_made_decisions():
    said = ["cat", "cat", "dog", "car", "bird", "cat", "oven"]
    shapes = ["cat", "cat", "cat", "bird", "bird", "dog", "cat"]
    textures = ["dog", "bird", "dog", "car", "car", "dog", "oven"]  # the sixth agrees: left out
    result = shape_bias(said, shapes, textures)
    assert result.classes["cat"] == Decisions(shape=2, texture=2, neither=0)
    assert result.classes["bird"] == Decisions(shape=1, texture=1, neither=0)
    assert "dog" not in result.classes
    assert result.total == Decisions(shape=3, texture=3, neither=0)
    assert result.total.bias == 0.5
    assert result.rows()[-1][:4] == ("all", 3, 3, 0)


def test_neither_does_not_count():
    result = shape_bias(["oven"] * 3 + ["cat"], ["cat"] * 4, ["dog"] * 4)
    assert result.total == Decisions(1, 0, 3)
    assert result.total.bias == 1
    assert result.total.decided == 0.25
    none = shape_bias(["oven"], ["cat"], ["dog"]).total
    assert math.isnan(none.bias)
    assert none.interval == (0, 1)


def test_the_interval_is_wilson_s():
    """22.1% of 1000: textbook formula, worked out by hand."""
    low, high = Decisions(221, 779).interval
    assert (low, high) == pytest.approx((0.19634, 0.24775), abs=2e-4)
    assert Decisions(0, 10).interval == pytest.approx((0, 0.2775), abs=1e-3)
    wide, narrow = Decisions(5, 5).interval, Decisions(500, 500).interval
    assert wide[1] - wide[0] > 5 * (narrow[1] - narrow[0])


def test_the_mapping_is_geirhos_s():
    members = dict(zip(CLASSES, imagenet_to_16(), strict=True))
    counts = [1, 4, 2, 49, 5, 7, 3, 6, 4, 3, 109, 2, 2, 1, 1, 8]
    assert [len(m) for m in members.values()] == counts
    assert members["cat"] == tuple(range(281, 287))
    assert members["truck"] == (555, 569, 656, 675, 717, 734, 864, 867)
    assert members["airplane"] == (404,)
    everything = [i for m in members.values() for i in m]
    assert len(set(everything)) == len(everything)
    assert {134, 192, 204, 227, 242, 251, 258, 260, 264}.isdisjoint(everything), "the gaps"


def test_a_thousand_classes_decide_by_their_mean():
    """One of two elephants at 0.5 outweighs a hundred dogs at 0.002 each."""
    shares = torch.full((2, 1000), 1e-6)
    shares[0, 385], shares[0, list(imagenet_to_16()[10])] = 0.5, 0.002
    shares[1, list(imagenet_to_16()[10])] = 0.009
    assert decide(shares.log()) == ["elephant", "dog"]


def test_sixteen_classes_decide_directly():
    logits = torch.zeros(3, 16)
    logits[0, 0] = logits[1, 15] = logits[2, 3] = 2
    assert decide(logits) == ["airplane", "truck", "bird"]


def test_folders_with_and_without_a_table(tmp_path):
    for name in ("cat/cat1-dog2", "cat/cat2-cat3", "car/car10-knife1", "car/my-photo"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (8, 8)).save(tmp_path / f"{name}.png")
    found = list_conflicts(tmp_path)
    assert [(c.shape, c.texture) for c in found] == [("car", "knife"), ("cat", "dog")]
    (tmp_path / "labels.csv").write_text("file,shape,texture\ncar/my-photo.png,car,oven\n")
    (only,) = list_conflicts(tmp_path)
    assert (only.path, only.texture) == (tmp_path / "car/my-photo.png", "oven")


def test_a_network_is_measured_on_pictures(tmp_path):
    """It says airplane where red is most, else bear: once shape, once texture, once neither."""
    for name, colour in (("airplane1-dog1", "red"), ("car1-bear1", "blue"), ("cat1-dog1", "red")):
        Image.new("RGB", (8, 8), colour).save(tmp_path / f"{name}.png")
    steps = []

    def by_colour(x):
        red = (x[:, 0].mean((1, 2)) > x[:, 2].mean((1, 2))).float()
        return torch.cat([red[:, None], 1 - red[:, None], torch.zeros(len(x), 14)], 1)

    for batch in (1, 2, 8):
        result = measure_shape_bias(
            by_colour, list_conflicts(tmp_path), normalized, batch, lambda: steps.append(1)
        )
        assert result.total == Decisions(1, 1, 1)
        assert result.classes["airplane"] == Decisions(shape=1)
    assert len(steps) == 9


def test_the_stimuli_of_this_machine(shared):
    conflicts = list_conflicts(shared / "data" / "cue_conflict")
    assert len(conflicts) == 416
    assert {c.shape for c in conflicts} == set(CLASSES)


def test_the_figure(tmp_path):
    one = shape_bias(["cat", "dog", "car"], ["cat", "cat", "car"], ["dog", "dog", "oven"])
    two = shape_bias(["dog", "dog", "oven"], ["cat", "cat", "car"], ["dog", "dog", "oven"])
    picture = imread(draw_shape_bias({"one": one, "two": two}, tmp_path / "a.png"))
    plain = imread(draw_shape_bias({"one": one}, tmp_path / "b.png", published={}))
    assert (picture[:50] != plain[:50]).any(), "names of the published lines"


def test_bad_input_is_one_sentence(tmp_path):
    with pytest.raises(InputError, match=r"the classes are airplane, .* truck, got 'horse'"):
        shape_bias(["horse"], ["cat"], ["dog"])
    with pytest.raises(InputError, match="as many decisions as shapes and textures"):
        shape_bias(["cat"], ["cat", "cat"], ["dog", "dog"])
    with pytest.raises(InputError, match=r"1000 classes or the 16, got outputs of shape \(2, 5\)"):
        decide(torch.zeros(2, 5))
    with pytest.raises(InputError, match="there is no folder nowhere"):
        list_conflicts("nowhere")
    with pytest.raises(InputError, match=r"no cue-conflict picture; .*cat7-elephant1\.png"):
        list_conflicts(tmp_path)
    (tmp_path / "labels.csv").write_text("file,shape\na.png,cat\n")
    with pytest.raises(InputError, match=r"labels\.csv has no column texture"):
        list_conflicts(tmp_path)
    with pytest.raises(InputError, match="no shape bias to draw"):
        draw_shape_bias({}, tmp_path / "a.png")
