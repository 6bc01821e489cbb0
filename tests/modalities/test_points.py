"""Neighbours, sampling and splatting against definitions; the projection and the classifier."""

import math

import pytest
import timm
import torch
from modality_figures import Figures, normal

import seewide
from seewide.errors import InputError
from seewide.modalities import PointClassifier, PointsToViews
from seewide.modalities import point_sets as sets
from seewide.modalities.points import DepthViews, ViewFusion
from seewide.testing import assert_matches_reference, deviation


@pytest.mark.parametrize(("N", "k"), [(1, 1), (7, 3), (50, 50), (1500, 8)])
def test_neighbours_match_the_definition(N, k):
    points = torch.randn(2, N, 3, dtype=torch.float64)
    got = sets.nearest_neighbours(points, k)
    assert torch.equal(got, sets.nearest_neighbours_reference(points, k))
    assert torch.equal(got[:, :, 0], torch.arange(N).expand(2, N))
    with pytest.raises(InputError, match=f"the number of points, {N}, got k={N + 1}"):
        sets.nearest_neighbours(points, N + 1)


@pytest.mark.parametrize(("N", "count"), [(1, 1), (20, 7), (64, 64)])
def test_farthest_points_match_the_definition(N, count):
    points = torch.randn(3, N, 3, dtype=torch.float64)
    got = sets.farthest_point_sampling(points, count)
    assert torch.equal(got, sets.farthest_point_sampling_reference(points, count))
    assert all(len(set(row.tolist())) == count for row in got)
    with pytest.raises(InputError, match=f"number of points, {N}, got count={N + 1}"):
        sets.farthest_point_sampling(points, N + 1)


def test_splat_matches_the_definition():
    features = torch.randn(2, 30, 4)
    pixels = torch.randint(0, 9, (2, 30, 2))  # on the border too: neighbours outside are dropped
    assert_matches_reference(
        lambda f: sets.splat(f, pixels, 9, 11),
        lambda f: sets.splat_reference(f, pixels, 9, 11),
        (features,),
    )
    inside = torch.randint(1, 8, (2, 30, 2))
    total = sets.splat(features, inside, 9, 9).sum((2, 3))
    assert torch.allclose(total, 9 * features.sum(1), atol=1e-4)


def test_rotations_are_rotations_about_their_axis():
    axis = torch.nn.functional.normalize(torch.randn(5, 3, dtype=torch.float64), dim=1)
    angle = torch.rand(5, dtype=torch.float64) * 6
    turn = sets.axis_rotation(angle, axis)
    assert torch.allclose(turn @ turn.mT, torch.eye(3, dtype=torch.float64).expand(5, 3, 3))
    assert torch.allclose(torch.linalg.det(turn), torch.ones(5, dtype=torch.float64))
    assert torch.allclose((turn @ axis[..., None])[..., 0], axis)
    quarter = sets.axis_rotation(torch.tensor(math.pi / 2), torch.tensor([0.0, 0.0, 1.0]))
    assert torch.allclose(quarter @ torch.tensor([1.0, 0, 0]), torch.tensor([0.0, 1, 0]), atol=1e-6)


def test_normalized_clouds_fit_the_unit_sphere():
    points = 5 * torch.randn(3, 40, 3) + 2
    unit = sets.normalize_cloud(points)
    assert torch.allclose(unit.mean(1), torch.zeros(3, 3), atol=1e-5)
    assert torch.allclose(unit.norm(dim=2).amax(1), torch.ones(3))
    same = torch.ones(1, 40, 3)
    assert sets.normalize_cloud(same).eq(0).all()
    axes = sets.normalize_cloud(points, authors_axes=True)
    assert torch.allclose(axes, torch.stack([-unit[..., 2], -unit[..., 0], unit[..., 1]], -1))


CASES = {"points_plain": ("one", False), "points_small": ("authors", True)}
CASES["points_official"] = ("authors", True)


def classifier(figures, name):
    """The model of a case; of `points_plain` only the front-end is compared."""
    config = figures.what["config"]
    views, fusion = CASES[name]
    frontend = PointsToViews(
        config["obj_size"], config["img_size"], config["local_size"], views, fusion
    )
    full = config.get("full", {"depths": [1, 1, 1, 1], "dims": [8, 8, 8, 8]})
    small = "unireplknet_a" if name == "points_small" else "unireplknet_s"
    backbone = timm.create_model(small, **{k: tuple(v) for k, v in full.items()})
    return PointClassifier(backbone, config["classes"], frontend)


@pytest.mark.parametrize(
    "name",
    ["points_plain", "points_small", pytest.param("points_official", marks=pytest.mark.slow)],
)
def test_projection_and_classifier_equal_the_authors(name):
    figures = Figures(name)
    model = classifier(figures, name).eval()
    if name == "points_plain":
        model.enc.load_state_dict(figures.weights())
    else:
        seewide.load_checkpoint(model, figures.weights())
    enc, plain = model.enc, name == "points_plain"
    stride, step = figures.what["sample_stride"], figures.what["point_stride"]

    angles = figures["angles"]
    rotation = sets.view_rotation(angles[:, 0], angles[:, 1])
    assert deviation(rotation, figures["rotation"]) < 1e-5
    points = figures["points"].requires_grad_()
    rotated = figures["rotated"]
    assert deviation(points @ rotation.mT, rotated) < 1e-5
    projected = rotated if plain else figures["projected_points"]
    assert deviation(enc.project(rotated), figures["projected_points"]) < 1e-5 or plain
    features = enc.point_features(points)
    every = features.repeat_interleave(enc.views, 0)
    assert deviation(every[:, ::step], figures["point_features"]) < 1e-5
    canvas = sets.splat(every, enc.pixels(projected), enc.image_side, enc.image_side)
    coarse = canvas.sum(1)[:, ::stride, ::stride]
    assert deviation(coarse, figures["splat_sum_over_channels"]) < 1e-5
    image = enc.draw(features, projected)
    assert deviation(image[:, :, ::stride, ::stride], figures["image"]) < 1e-4
    assert deviation(image.mean((2, 3)), figures["image_mean"]) < 1e-4

    if "loss" in figures:
        seed = int(figures.what["cotangent"].split("seed=")[1].split(")")[0])
        dy = normal(*image.shape, seed=seed) / math.sqrt(image.numel())
        loss = (image * dy).sum()
        assert deviation(loss, figures["loss"]) < 1e-3
        loss.backward()
        assert deviation(points.grad, figures["grad_points"]) < 1e-3
        gradients = {k: p.grad for k, p in enc.named_parameters()}
        for key, want in figures.named("grad.").items():
            assert deviation(gradients[key], want) < 1e-3, key
        for key, want in figures.named("gradnorm.").items():
            assert deviation(gradients[key].norm(), want) < 1e-3, key
    if not plain:
        with torch.no_grad():
            maps = model.backbone(image)
            feature = maps if figures["feature"].ndim == 4 else maps.mean((2, 3))
            assert deviation(feature, figures["feature"]) < 1e-4
            assert deviation(model.classify(maps), figures["logits"]) < 1e-4


def test_the_authors_views_see_each_cloud_twice_mirrored():
    """Views 2 and 3 are the mirror images of 0 and 1 along the second axis of the image."""
    points = torch.rand(1, 50, 3) - 0.5
    one, two, three, four = PointsToViews(side=32, neighbours=4).project(points)
    for first, second in ((one, three), (two, four)):
        assert torch.allclose(first[:, 0], second[:, 0], atol=1e-6)
        assert torch.allclose(first[:, 1], -second[:, 1], atol=1e-6)
    planes = PointsToViews(side=32, neighbours=4, views="three").project(points)[..., :2]
    assert torch.allclose(planes[1], points[0][:, [1, 2]])


@pytest.mark.parametrize("views", ["authors", "three", "one"])
def test_every_point_lands_inside_the_image(views):
    for side, image_side in ((32, 32), (24, 32)):
        frontend = PointsToViews(side, image_side, 4, views, robust_floor=True)
        pixels = frontend.pixels(frontend.project(torch.randn(3, 80, 3)))
        border = (image_side - side) // 2
        assert pixels.min() >= border + 1 - (border > 0)
        assert pixels.max() <= image_side - border - 2 + (border > 0)
        flat = frontend.pixels(frontend.project(torch.ones(1, 80, 3)))  # all points equal
        assert flat.unique().numel() == 1


def test_attention_equals_its_formula():
    fusion = ViewFusion(2).double()
    attention = fusion.transformer.layers[0][0].fn
    x = torch.randn(2, 12, 128, dtype=torch.float64)
    q, k, v = (t.unflatten(2, (8, 128)).transpose(1, 2) for t in attention.to_qkv(x).chunk(3, 2))
    scores = (q @ k.mT / 128**0.5).softmax(-1)
    want = attention.to_out((scores @ v).transpose(1, 2).flatten(2))
    assert deviation(attention(x), want) < 1e-9


def test_depth_views_show_the_nearest_point():
    points = torch.tensor([[[0.0, 0, 0], [1, 1, 1], [0, 0, 0.5]]])
    image = DepthViews(16)(points)
    assert image.shape == (1, 3, 16, 16)
    assert image[0, 0, 1, 1] == pytest.approx(0.2 + 0.8 * 0.5)
    assert image[0, 0].max() == 1
    assert (image[0, 0] > 0).sum() == 2 * 9


def test_classifier_fuses_and_trains():
    backbone = timm.create_model("unireplknet_a", dims=(8, 12, 16, 20))
    model = PointClassifier(backbone, 5, PointsToViews(32, neighbours=8, views="three"))
    logits = model(torch.randn(2, 60, 3))
    assert logits.shape == (2, 5)
    logits.square().sum().backward()
    assert all(p.grad is not None for p in model.parameters())
    fused = seewide.fuse(model)
    x = torch.randn(2, 60, 3)
    with torch.no_grad():
        assert deviation(fused(x), model.eval()(x)) < 1e-4
    other = PointClassifier(timm.create_model("convnext_atto"), 5, DepthViews(32))
    assert other(torch.randn(2, 60, 3)).shape == (2, 5)


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: PointsToViews(views="five"), "unknown views 'five'"),
        (lambda: PointsToViews(side=5), "at least 7 .* got side=5"),
        (lambda: PointsToViews(side=30, image_side=33), "side=30, image_side=33"),
        (lambda: PointsToViews(side=32)(torch.zeros(1, 5, 3)), "points, 5, got k=32"),
        (lambda: PointsToViews(side=32)(torch.zeros(1, 50, 4)), r"got shape \(1, 50, 4\)"),
    ],
)
def test_bad_input_is_one_sentence(call, sentence):
    with pytest.raises(InputError, match=sentence):
        call()
