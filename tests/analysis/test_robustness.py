"""Errors of classifiers with known predictions."""

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms.functional import pil_to_tensor

from seewide.analysis.images import load_image
from seewide.analysis.robustness import (
    ALEXNET,
    CorruptionErrors,
    corruption_errors,
    draw_corruptions,
    imagenet_c_errors,
    imagenet_index,
    list_imagenet_c,
    list_labeled_images,
    subset_error,
    subset_indices,
    take_evenly,
)
from seewide.errors import InputError

FAST = ("gaussian_noise", "brightness", "contrast", "pixelate")


def transform(image):
    return pil_to_tensor(image) / 255


def unchanged(image):
    return image


@pytest.fixture
def images(tmp_path):
    """Ten dark and ten bright images of 40 x 40 pixels, classes 0 and 1."""
    found = []
    for number in range(20):
        path = tmp_path / f"{number}.png"
        level = 40 if number < 10 else 180
        Image.fromarray(
            np.random.default_rng(number).integers(level - 30, level + 30, (40, 40, 3), np.uint8)
        ).save(path)
        found.append((path, int(number >= 10)))
    return found


def test_mce_of_known_errors():
    perfect = CorruptionErrors({name: [0.0] * 5 for name in ALEXNET})
    assert perfect.mce == 0
    alexnet = CorruptionErrors({name: [error] * 5 for name, error in ALEXNET.items()})
    assert alexnet.mce == pytest.approx(100)
    constant = CorruptionErrors({name: [99.9] * 5 for name in ALEXNET})  # one of 1000 classes
    expected = np.mean([9990 / error for error in ALEXNET.values()])
    assert constant.mce == pytest.approx(expected)
    assert expected == pytest.approx(129.2, abs=0.01)


def test_ce_averages_over_severities():
    result = CorruptionErrors({"fog": [10, 20, 30, 40, 50]})
    assert result.error("fog") == 30
    assert result.corruption_error("fog") == pytest.approx(100 * 30 / 81.9)
    assert result.rows() == [("fog", 10, 20, 30, 40, 50, 30, pytest.approx(36.63, abs=0.01))]
    with pytest.raises(InputError, match="fifteen corruptions, missing: gaussian_noise, shot"):
        _ = result.mce
    assert str(result).startswith("mean CE 36.6% over 1 of 15 corruptions, without gauss")
    assert str(CorruptionErrors({name: [0.0] * 5 for name in ALEXNET})) == "mCE 0.0%"


def test_errors_of_known_classifiers(images):
    def constant(x):
        return torch.tensor([[1.0, 0.0]]).expand(len(x), 2)

    def by_brightness(x):
        bright = (x.mean((1, 2, 3)) > 0.4).float()
        return torch.stack([1 - bright, bright], 1)

    chance = corruption_errors(constant, images, unchanged, transform, FAST, (1, 5))
    assert chance.clean == 50
    assert all(errors == [50, 50] for errors in chance.errors.values())
    seen = corruption_errors(by_brightness, images, unchanged, transform, FAST, (1, 5))
    assert seen.clean == 0
    assert seen.errors["pixelate"] == [0, 0]
    assert seen.errors["brightness"] == [0, 50], "0.5 added: the dark ones are bright"


def test_the_noise_depends_on_seed_corruption_severity_and_image_only(images):
    """Pixels, not errors, are compared: errors of 20 images are often equal by chance."""

    def tensors(corruptions, severities, **options):
        """(corruption, severity) -> the tensors that the classifier was given."""
        seen = []

        def classify(x):
            seen.extend(x)
            return torch.zeros(len(x), 2)

        corruption_errors(
            classify, images, unchanged, transform, corruptions, severities, **options
        )
        kinds = [None, *((name, s) for name in corruptions for s in severities)]
        assert len(seen) == len(kinds) * len(images)
        tensors = iter(seen)
        return {kind: torch.stack([next(tensors) for _ in images]) for kind in kinds}

    noises = ("gaussian_noise", "impulse_noise")
    first = tensors(noises, (1, 2, 3), batch=7)
    alone = tensors(noises[:1], (2,), batch=1)
    assert torch.equal(alone[noises[0], 2], first[noises[0], 2])
    reversed_ = tensors(noises[::-1], (3, 1), batch=32)
    for kind, expected in first.items():
        if kind in reversed_:
            assert torch.equal(reversed_[kind], expected), kind
    other = tensors(noises[:1], (2,), seed=1)
    assert not torch.equal(other[noises[0], 2], alone[noises[0], 2])
    assert torch.equal(other[None], alone[None])


def test_the_noise_of_two_images_and_of_two_severities_differs(tmp_path):
    """Equal images get different noise, and impulse noise of 2 severities other positions."""
    for name in "ab":
        Image.new("RGB", (40, 40), (128, 128, 128)).save(tmp_path / f"{name}.png")
    seen = []

    def classify(x):
        seen.append(x)
        return torch.zeros(len(x), 2)

    equal = [(tmp_path / "a.png", 0), (tmp_path / "b.png", 0)]
    corruption_errors(classify, equal, unchanged, transform, ["impulse_noise"], (1, 5))
    clean, weak, strong = seen
    assert torch.equal(clean[0], clean[1])
    assert not torch.equal(weak[0], weak[1])
    hit = [(x[0] != clean[0]).flatten() for x in (weak, strong)]
    assert (hit[0] & ~hit[1]).any(), "with one seed for all, weak noise would be part of strong"


def test_classes_of_the_data_sets():
    a, r, sketch = (subset_indices(f"imagenet-{name}") for name in ("a", "r", "sketch"))
    assert (len(a), len(r), len(sketch)) == (200, 200, 1000)
    assert a[:3] == (6, 11, 13)
    assert r[:3] == (1, 2, 4)
    assert sketch == tuple(range(1000))
    with pytest.raises(InputError, match="unknown data set 'imagenet-q'"):
        subset_indices("imagenet-q")


def test_only_classes_of_the_data_set_are_predicted(tmp_path):
    wnids = {v: k for k, v in imagenet_index().items()}
    for label in (6, 11):
        (tmp_path / wnids[label]).mkdir()
        Image.new("RGB", (32, 32), (label, 0, 0)).save(tmp_path / wnids[label] / "0.png")
    images = list_labeled_images(tmp_path)
    assert [label for _, label in images] == [6, 11]

    def distracted(x):
        """Predicts 0, which is no class of ImageNet-A; its second choice is correct."""
        logits = torch.zeros(len(x), 1000)
        logits[:, 0] = 9
        logits[range(len(x)), (x[:, 0, 0, 0] * 255).long()] = 5
        return logits

    among = subset_indices("imagenet-a")
    assert subset_error(distracted, images, transform, among) == 0
    assert subset_error(distracted, images, transform, subset_indices("imagenet-sketch")) == 100
    with pytest.raises(InputError, match="1000 classes is needed, this one has 10"):
        subset_error(lambda x: torch.zeros(len(x), 10), images, transform, among)
    with pytest.raises(InputError, match="has class 0, which is not one of the 200"):
        subset_error(distracted, [(images[0][0], 0)], transform, among)


def test_imagenet_c_is_listed(tmp_path):
    (tmp_path / "fog" / "3" / "n01440764").mkdir(parents=True)
    assert list_imagenet_c(tmp_path) == {("fog", 3): tmp_path / "fog" / "3"}
    with pytest.raises(InputError, match="no CORRUPTION/SEVERITY such as gaussian_noise/1"):
        list_imagenet_c(tmp_path / "fog")


def test_imagenet_c_is_measured(tmp_path):
    """The classifier predicts the value of the red channel: correct at severities 1 to 4."""
    wnids = {v: k for k, v in imagenet_index().items()}
    for severity in range(1, 6):
        for label in (3, 7):
            folder = tmp_path / "fog" / str(severity) / wnids[label]
            folder.mkdir(parents=True)
            Image.new("RGB", (8, 8), (label + (severity == 5), 0, 0)).save(folder / "0.png")
    reported = []

    def progress(what, steps):
        reported.append((what, steps))
        return lambda: None

    def reads_red(x):
        return torch.nn.functional.one_hot((x[:, 0, 0, 0] * 255).round().long(), 1000).float()

    folders = list_imagenet_c(tmp_path)
    result = imagenet_c_errors(reads_red, folders, transform, progress=progress)
    assert result.errors == {"fog": [0, 0, 0, 0, 100]}
    assert reported == [(f"fog {severity}", 2) for severity in range(1, 6)]
    with pytest.raises(InputError, match="1000 classes is needed, this one has 10"):
        imagenet_c_errors(lambda x: torch.zeros(len(x), 10), folders, transform)
    del folders["fog", 4]
    with pytest.raises(InputError, match="fog has no folder for severity 4"):
        imagenet_c_errors(reads_red, folders, transform)


def test_evenly_spaced_items():
    assert take_evenly(range(10), 4) == [0, 2, 5, 7]
    assert take_evenly([1, 2], 5) == take_evenly([1, 2], None) == [1, 2]


def test_bad_input(tmp_path, images):
    (tmp_path / "broken.png").write_bytes(b"not an image")
    with pytest.raises(InputError, match=r"broken\.png is not an image that can be read"):
        corruption_errors(
            lambda x: x, [*images, (tmp_path / "broken.png", 0)], unchanged, transform, ["fog"]
        )
    with pytest.raises(InputError, match=r"WordNet ids of ImageNet, such as n01440764, got 0\.png"):
        list_labeled_images(tmp_path)
    with pytest.raises(InputError, match="no images to classify"):
        subset_error(lambda x: x, [], transform, [1])
    with pytest.raises(InputError, match="unknown corruption 'rain'"):
        corruption_errors(lambda x: x, images, unchanged, transform, ["rain"])
    assert load_image(images[0][0]).size == (40, 40)


def test_figure(tmp_path):
    result = CorruptionErrors({"fog": [10, 20, 30, 40, 50], "snow": [5, 6, 7, 8, 9]}, clean=4)
    path = draw_corruptions({"one": result, "two": result}, tmp_path / "a.png")
    assert load_image(path).width > 400
    with pytest.raises(InputError, match="no corruption errors to draw"):
        draw_corruptions({}, tmp_path / "b.png")
