"""Predictors whose errors are known before they are measured."""

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms.functional import pil_to_tensor

from seewide.analysis.images import open_picture
from seewide.analysis.robustness import (
    ALEXNET,
    CorruptionErrors,
    corruption_errors,
    draw_corruptions,
    evenly,
    imagenet_c_errors,
    imagenet_index,
    list_imagenet_c,
    list_labelled,
    subset_error,
    subset_indices,
)
from seewide.errors import InputError

FAST = ("gaussian_noise", "brightness", "contrast", "pixelate")


def transform(picture):
    return pil_to_tensor(picture) / 255


def unchanged(picture):
    return picture


@pytest.fixture
def pictures(tmp_path):
    """Ten dark and ten bright pictures of 40 x 40, classes 0 and 1."""
    found = []
    for number in range(20):
        path = tmp_path / f"{number}.png"
        level = 40 if number < 10 else 180
        Image.fromarray(
            np.random.default_rng(number).integers(level - 30, level + 30, (40, 40, 3), np.uint8)
        ).save(path)
        found.append((path, int(number >= 10)))
    return found


def test_a_perfect_predictor_has_no_error_and_a_wrong_one_alexnet_s_inverse():
    perfect = CorruptionErrors({name: [0.0] * 5 for name in ALEXNET})
    assert perfect.mce == 0
    alexnet = CorruptionErrors({name: [error] * 5 for name, error in ALEXNET.items()})
    assert alexnet.mce == pytest.approx(100)
    constant = CorruptionErrors({name: [99.9] * 5 for name in ALEXNET})  # one of 1000 classes
    expected = np.mean([9990 / error for error in ALEXNET.values()])
    assert constant.mce == pytest.approx(expected)
    assert expected == pytest.approx(129.2, abs=0.01)


def test_ce_is_of_the_mean_over_severities():
    result = CorruptionErrors({"fog": [10, 20, 30, 40, 50]})
    assert result.error("fog") == 30
    assert result.corruption_error("fog") == pytest.approx(100 * 30 / 81.9)
    assert result.rows() == [("fog", 10, 20, 30, 40, 50, 30, pytest.approx(36.63, abs=0.01))]
    with pytest.raises(InputError, match="mCE is of fifteen corruptions, gaussian_noise, shot"):
        _ = result.mce
    assert str(result).startswith("mean CE 36.6% over 1 of 15 corruptions, without gauss")
    assert str(CorruptionErrors({name: [0.0] * 5 for name in ALEXNET})) == "mCE 0.0%"


def test_measured_errors_of_known_predictors(pictures):
    def constant(x):
        return torch.tensor([[1.0, 0.0]]).expand(len(x), 2)

    def by_brightness(x):
        bright = (x.mean((1, 2, 3)) > 0.4).float()
        return torch.stack([1 - bright, bright], 1)

    chance = corruption_errors(constant, pictures, unchanged, transform, FAST, (1, 5))
    assert chance.clean == 50
    assert all(errors == [50, 50] for errors in chance.errors.values())
    seen = corruption_errors(by_brightness, pictures, unchanged, transform, FAST, (1, 5))
    assert seen.clean == 0
    assert seen.errors["pixelate"] == [0, 0]
    assert seen.errors["brightness"] == [0, 50], "0.5 added: the dark ones are bright"


def test_neither_batches_nor_company_change_the_result(pictures):
    def fragile(x):
        return torch.stack([x[:, 0, 5, 5], x[:, 1, 9, 9]], 1)

    arguments = fragile, pictures, unchanged, transform
    together = corruption_errors(*arguments, FAST, (1, 2, 3), batch=7)
    alone = corruption_errors(*arguments, ["gaussian_noise"], (2,), batch=1)
    assert alone.errors["gaussian_noise"] == [together.errors["gaussian_noise"][1]]
    other = corruption_errors(*arguments, ["gaussian_noise"], (1, 2, 3), seed=1)
    assert other.errors != {"gaussian_noise": together.errors["gaussian_noise"]}


def test_subsets_are_the_published_ones():
    a, r, sketch = (subset_indices(f"imagenet-{name}") for name in ("a", "r", "sketch"))
    assert (len(a), len(r), len(sketch)) == (200, 200, 1000)
    assert a[:3] == (6, 11, 13)
    assert r[:3] == (1, 2, 4)
    assert sketch == tuple(range(1000))
    with pytest.raises(InputError, match="unknown set of pictures 'imagenet-q'"):
        subset_indices("imagenet-q")


def test_only_the_subset_s_classes_can_be_decided_for(tmp_path):
    wnids = {v: k for k, v in imagenet_index().items()}
    for label in (6, 11):
        (tmp_path / wnids[label]).mkdir()
        Image.new("RGB", (32, 32), (label, 0, 0)).save(tmp_path / wnids[label] / "0.png")
    pictures = list_labelled(tmp_path)
    assert [label for _, label in pictures] == [6, 11]

    def distracted(x):
        """Says 0, which is in no ImageNet-A class; second best is right."""
        logits = torch.zeros(len(x), 1000)
        logits[:, 0] = 9
        logits[range(len(x)), (x[:, 0, 0, 0] * 255).long()] = 5
        return logits

    among = subset_indices("imagenet-a")
    assert subset_error(distracted, pictures, transform, among) == 0
    assert subset_error(distracted, pictures, transform, subset_indices("imagenet-sketch")) == 100
    with pytest.raises(InputError, match="1000 classes is needed, this has 10"):
        subset_error(lambda x: torch.zeros(len(x), 10), pictures, transform, among)
    with pytest.raises(InputError, match="of class 0, which is none of the 200"):
        subset_error(distracted, [(pictures[0][0], 0)], transform, among)


def test_a_downloaded_imagenet_c_is_found(tmp_path):
    (tmp_path / "fog" / "3" / "n01440764").mkdir(parents=True)
    assert list_imagenet_c(tmp_path) == {("fog", 3): tmp_path / "fog" / "3"}
    with pytest.raises(InputError, match="holds no CORRUPTION/SEVERITY, such as gaussian_noise/1"):
        list_imagenet_c(tmp_path / "fog")


def test_a_downloaded_imagenet_c_is_measured(tmp_path):
    """The red channel is the class that this network says: right at severities 1 to 4."""
    wnids = {v: k for k, v in imagenet_index().items()}
    for severity in range(1, 6):
        for label in (3, 7):
            folder = tmp_path / "fog" / str(severity) / wnids[label]
            folder.mkdir(parents=True)
            Image.new("RGB", (8, 8), (label + (severity == 5), 0, 0)).save(folder / "0.png")
    heard = []

    def progress(what, steps):
        heard.append((what, steps))
        return lambda: None

    def reads_red(x):
        return torch.nn.functional.one_hot((x[:, 0, 0, 0] * 255).round().long(), 1000).float()

    folders = list_imagenet_c(tmp_path)
    result = imagenet_c_errors(reads_red, folders, transform, progress=progress)
    assert result.errors == {"fog": [0, 0, 0, 0, 100]}
    assert heard == [(f"fog {severity}", 2) for severity in range(1, 6)]
    with pytest.raises(InputError, match="1000 classes is needed, this has 10"):
        imagenet_c_errors(lambda x: torch.zeros(len(x), 10), folders, transform)
    del folders["fog", 4]
    with pytest.raises(InputError, match="fog has no folder for severity 4"):
        imagenet_c_errors(reads_red, folders, transform)


def test_so_many_at_even_distances():
    assert evenly(range(10), 4) == [0, 2, 5, 7]
    assert evenly([1, 2], 5) == evenly([1, 2], None) == [1, 2]


def test_broken_and_strange_folders_are_one_sentence(tmp_path, pictures):
    (tmp_path / "broken.png").write_bytes(b"not a picture")
    with pytest.raises(InputError, match=r"broken\.png is not an image that can be read"):
        corruption_errors(
            lambda x: x, [*pictures, (tmp_path / "broken.png", 0)], unchanged, transform, ["fog"]
        )
    with pytest.raises(InputError, match=r"WordNet ids, such as n01440764, got 0\.png"):
        list_labelled(tmp_path)
    with pytest.raises(InputError, match="no pictures to classify"):
        subset_error(lambda x: x, [], transform, [1])
    with pytest.raises(InputError, match="unknown corruption 'rain'"):
        corruption_errors(lambda x: x, pictures, unchanged, transform, ["rain"])
    assert open_picture(pictures[0][0]).size == (40, 40)


def test_the_figure(tmp_path):
    result = CorruptionErrors({"fog": [10, 20, 30, 40, 50], "snow": [5, 6, 7, 8, 9]}, clean=4)
    path = draw_corruptions({"one": result, "two": result}, tmp_path / "a.png")
    assert open_picture(path).width > 400
    with pytest.raises(InputError, match="no corruption errors to draw"):
        draw_corruptions({}, tmp_path / "b.png")
