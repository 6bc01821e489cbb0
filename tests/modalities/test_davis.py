"""J, F and both evaluators of DAVIS, and the scores of referring segmentation."""

import numpy as np
import pytest
import torch
from modality_figures import Figures, masks

from seewide.errors import InputError
from seewide.modalities.davis import (
    boundary,
    boundary_measure,
    evaluate_davis,
    region_similarity,
)
from seewide.modalities.referring_scores import ReferringScores


@pytest.mark.parametrize("case", [0, 1, 2])
def test_j_and_f_equal_the_authors(case):
    figures = Figures("davis_jf")
    frames, height, width = [(6, 120, 160), (4, 97, 131), (4, 480, 854)][case]
    truth, guess = map(torch.from_numpy, masks(frames, height, width, seed=case))
    assert torch.equal(region_similarity(truth, guess), figures[f"J{case}"])
    assert torch.equal(boundary_measure(truth, guess), figures[f"F{case}"])
    edge = boundary(truth)[2].numpy().astype(np.uint8)
    if f"boundary{case}" in figures:
        assert np.array_equal(np.packbits(edge), figures[f"boundary{case}"].numpy())


def test_equal_masks_have_full_scores_and_disjoint_ones_none():
    truth = torch.zeros(2, 60, 80, dtype=torch.bool)
    truth[:, 10:20, 10:20] = True
    assert region_similarity(truth, truth).tolist() == [1, 1]
    assert boundary_measure(truth, truth).tolist() == [1, 1]
    far = truth.roll(40, 2)
    assert region_similarity(truth, far).tolist() == [0, 0]
    assert boundary_measure(truth, far).tolist() == [0, 0]
    near = truth.roll(1, 2)  # within the tolerance of one pixel
    assert boundary_measure(truth, near, tolerance=1).tolist() == [1, 1]


@pytest.mark.parametrize(("truth", "guess", "j", "f"), [(0, 0, 1, 1), (1, 0, 0, 0), (0, 1, 0, 0)])
def test_empty_masks(truth, guess, j, f):
    full = torch.zeros(1, 30, 30, dtype=torch.bool)
    full[:, 5:15, 5:15] = True
    truth, guess = full & bool(truth), full & bool(guess)
    assert region_similarity(truth, guess).item() == j
    assert boundary_measure(truth, guess).item() == f


def two_objects():
    truth = torch.zeros(5, 40, 50, dtype=torch.long)
    truth[:, 5:15, 5:15], truth[:, 20:30, 20:40] = 1, 2
    return truth


def test_semi_supervised_needs_the_same_numbers():
    truth = two_objects()
    scores = evaluate_davis({"v": truth}, {"v": truth})
    assert (scores.j, scores.f, scores.j_and_f) == (1, 1, 1)
    swapped = torch.where(truth == 0, 0, 3 - truth)
    assert evaluate_davis({"v": truth}, {"v": swapped}).j_and_f == 0
    assert evaluate_davis({"v": truth}, {"v": swapped}, "unsupervised").j_and_f == 1


def test_first_and_last_frame_count_only_where_the_protocol_says():
    truth = two_objects()
    guess = truth.clone()
    guess[[0, -1]] = 0
    assert evaluate_davis({"v": truth}, {"v": guess}).j == 1
    assert evaluate_davis({"v": truth}, {"v": guess}, all_frames=True).j == pytest.approx(0.6)
    assert evaluate_davis({"v": truth}, {"v": guess}, "unsupervised").j == pytest.approx(0.6)


def test_means_are_over_objects_not_videos():
    truth = {"a": two_objects(), "b": (two_objects() == 1).long()}
    guess = {"a": truth["a"], "b": torch.zeros_like(truth["b"])}
    scores = evaluate_davis(truth, guess)
    assert scores.j == pytest.approx(2 / 3)
    assert scores.per_object["b", 1] == (0, 0)


def test_ignored_pixels_change_nothing():
    truth = two_objects()
    truth[:, 35:] = 255
    guess = two_objects()
    guess[:, 35:] = 1
    assert evaluate_davis({"v": truth}, {"v": guess}).j == 1


@pytest.mark.parametrize(
    ("truth", "guess", "protocol", "sentence"),
    [
        ({"v": two_objects()}, {}, "unsupervised", "no segmentations of v"),
        ({"v": two_objects()}, {"v": two_objects()[1:]}, "unsupervised", "agree, got"),
        ({"v": two_objects()}, {"v": two_objects()}, "best", "unknown protocol 'best'"),
        ({"v": two_objects()[:2]}, {"v": two_objects()[:2]}, "semi-supervised", "v has 2 frames"),
        ({"v": 0 * two_objects()}, {"v": two_objects()}, "unsupervised", "no objects"),
    ],
)
def test_bad_input_is_one_sentence(truth, guess, protocol, sentence):
    with pytest.raises(InputError, match=sentence):
        evaluate_davis(truth, guess, protocol)


def test_referring_scores_by_hand():
    scores = ReferringScores()
    one = torch.zeros(10, 10, dtype=torch.bool)
    one[:5] = True
    assert scores.add(one, one) == 1
    half = one.clone()
    half[:, 5:] = False
    assert scores.add(one, half) == 0.5
    assert scores.add(torch.zeros(4), torch.zeros(4)) == 1
    got = scores.compute()
    assert got["miou"] == pytest.approx(2.5 / 3)
    assert got["oiou"] == pytest.approx(75 / 100)
    assert got["p@0.5"] == pytest.approx(2 / 3)
    with pytest.raises(InputError, match="agree in shape"):
        scores.add(one, half[:5])
