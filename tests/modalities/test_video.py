"""Frames as one image, which frames are read, and the video classifier."""

import numpy as np
import pytest
import timm
import torch
from modality_figures import Figures, assert_features, normal

import seewide
from seewide.errors import InputError
from seewide.modalities import FramesToMap, VideoClassifier
from seewide.modalities.video import (
    clip_indices,
    evaluation_clip_indices,
    random_clip_indices,
    three_crops,
)
from seewide.testing import deviation


def test_official_layout_equals_the_authors():
    figures = Figures("video_reshape")
    x = torch.arange(3 * 16 * 8 * 12, dtype=torch.float32).reshape(1, 3, 16, 8, 12)
    image = FramesToMap("official")(x)
    assert torch.equal(image, figures["image"])
    k, H, W = 4, 8, 12
    for r in range(k * H):
        for c in range(k * W):
            row, frame = k * (r % (H // k)) + c // W, r // (H // k)
            assert torch.equal(image[0, :, r, c], x[0, :, frame, row, c % W])


def test_tiles_are_whole_frames_in_reading_order():
    x = torch.rand(2, 3, 9, 5, 7)
    image = FramesToMap()(x)
    assert image.shape == (2, 3, 15, 21)
    for t in range(9):
        i, j = divmod(t, 3)
        assert torch.equal(image[:, :, 5 * i : 5 * i + 5, 7 * j : 7 * j + 7], x[:, :, t])


def test_differences_keep_the_first_frame_and_add_up():
    x = torch.rand(1, 1, 4, 2, 2)
    d = FramesToMap(difference=True)(x).reshape(1, 1, 2, 2, 2, 2).transpose(3, 4).reshape(x.shape)
    assert torch.allclose(d.cumsum(2), x)


@pytest.mark.parametrize(
    ("layout", "shape", "sentence"),
    [
        ("tile", (1, 3, 10, 8, 8), "must be a square .* got 10"),
        ("official", (1, 3, 16, 6, 8), "divisible by 4 for 16 frames, got 6"),
        ("tile", (3, 16, 8, 8), r"\(B, C, T, H, W\), got \(3, 16, 8, 8\)"),
    ],
)
def test_bad_frames_are_one_sentence(layout, shape, sentence):
    with pytest.raises(InputError, match=sentence):
        FramesToMap(layout)(torch.zeros(shape))


def test_frame_indices_equal_the_authors():
    figures = Figures("video_frames")
    for i, case in enumerate(figures.what["cases"]):
        n, want = case["video_frames"], figures[f"index{i}"].numpy()
        if case["mode"] == "test":
            every = np.array([min(j, (n - 1) // 4 * 4) for j in range(0, max(n, 61), 4)])
            assert np.array_equal(every[: len(want)], want)
            clips = evaluation_clip_indices(n, segments=5)
            assert np.array_equal(clips, figures[f"clips{i}"].numpy())
        elif case["mode"] == "train":
            random = np.random.RandomState(case["np.random.seed"])
            assert np.array_equal(random_clip_indices(n, random=random), want)
        else:
            assert np.array_equal(clip_indices(n), want)


@pytest.mark.parametrize("frames", [1, 3, 4, 15, 63, 64, 65, 200])
def test_indices_are_sorted_and_inside_the_video(frames):
    for indices in (
        clip_indices(frames),
        random_clip_indices(frames),
        *evaluation_clip_indices(frames),
    ):
        assert indices.shape == (16,)
        assert (np.diff(indices) >= 0).all()
        assert indices[0] >= 0
        assert indices[-1] < frames
    with pytest.raises(InputError, match="at least one frame, got 0"):
        clip_indices(0)
    with pytest.raises(InputError, match=r"\[0, 36\] for 100 frames, got 37"):
        clip_indices(100, start=37)


def test_three_crops_span_the_longer_side():
    x = torch.arange(10.0).expand(1, 2, 4, 10)
    crops = three_crops(x)
    assert crops.shape == (3, 1, 2, 4, 4)
    assert crops[:, 0, 0, 0, 0].tolist() == [0, 3, 6]
    assert torch.equal(three_crops(x.transpose(2, 3)), crops.transpose(3, 4))


@pytest.mark.parametrize(
    "case", ["video_small", pytest.param("video_official", marks=pytest.mark.slow)]
)
def test_classifier_equals_the_authors(case):
    figures = Figures(case)
    small = case == "video_small"
    backbone = timm.create_model(
        "unireplknet_a" if small else "unireplknet_b",
        num_classes=figures.what["classes"],
        kernel_sizes=(3, 13, 13, 11) if small else (3, 13, (13, 3, 3), 11),
    )
    model = VideoClassifier(backbone, figures.what["classes"], FramesToMap("official"))
    seewide.load_checkpoint(model, figures.weights())
    assert sum(p.numel() for p in model.parameters()) == figures.what["parameters"]
    x = normal(2, 3, 16, 32, 32, seed=0) if small else normal(1, 3, 16, 56, 56, seed=1)
    fused = seewide.fuse(model)
    for each in (model.eval(), fused):
        with torch.no_grad():
            image = each.frontend(x)
            stages = each.backbone.forward_intermediates(image)[1]
            logits = each(x)
        assert deviation(image.mean((1, 3)), figures["image_mean_rows"]) < 1e-5
        assert_features(figures, stages, 1e-4)
        assert deviation(logits, figures["logits"]) < 1e-4


def test_views_are_averaged_as_probabilities():
    backbone = timm.create_model("unireplknet_a", dims=(8, 12, 16, 20))
    model = VideoClassifier(backbone, 5).eval()
    with torch.no_grad():
        model.backbone.head.fc.weight.normal_()
        views = torch.randn(2, 3, 3, 4, 16, 16)
        each = torch.stack([model(views[:, v]).softmax(1) for v in range(3)]).mean(0)
        assert deviation(model(views).exp(), each) < 1e-5
