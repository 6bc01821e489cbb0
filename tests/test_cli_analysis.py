"""`seewide erf`, `analyze` and `report`: tables, files, and one sentence for what cannot be."""

import json

import numpy as np
import pytest
from PIL import Image

from seewide.errors import InputError


@pytest.fixture(scope="module")
def refused(command):
    """The one sentence of a command that ends with exit code 2."""

    def call(*words) -> str:
        result = command(*words)
        assert result.exit_code == 2, result.output
        sentence = result.stderr.strip()
        assert sentence.startswith("seewide: ")
        assert "\n" not in sentence
        return sentence

    return call


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(3):
        pixels = np.random.default_rng(number).integers(0, 255, (48, 64, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.jpg")
    return folder


def test_erf_writes_a_figure_and_its_values(command, photos, tmp_path):
    result = command(
        "erf", "test_convnext", "test_resnet", "--data", photos, "--images", 2, "--side", 64,
        "--layer", "stages.1", "--random-weights", "--out", tmp_path / "out" / "erf.png",
    )  # fmt: skip
    assert "unknown layer of ResNet 'stages.1'" in result.stderr
    result = command(
        "erf", "test_convnext", "test_resnet", "--data", photos, "--images", 2, "--side", 64,
        "--random-weights", "--out", tmp_path / "out" / "erf.png",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "920 x 920 px" in result.output
    numbers = json.loads((tmp_path / "out" / "erf.json").read_text())
    assert set(numbers) == {"test_convnext", "test_resnet"}
    one = numbers["test_convnext"]
    assert (one["images"], one["side"]) == (2, 64)
    assert 0 < one["area_ratio"]["0.2"] <= one["area_ratio"]["0.99"] <= 1
    assert (tmp_path / "out" / "erf.png").stat().st_size > 1000


def test_erf_refuses_in_one_sentence(refused, photos, tmp_path):
    random = "--random-weights"
    assert "--data DIR is required: a folder of images" in refused("erf", "test_convnext", random)
    assert "contains 3 images, got count=50" in refused(
        "erf", "test_convnext", "--data", photos, "--protocol", "replknet", random
    )
    assert "unknown ERF protocol 'repl'" in refused(
        "erf", "test_convnext", "--data", photos, "--protocol", "repl", random
    )
    one = ("--images", 1, "--side", 160, random)
    assert "a figure ends in" in refused(
        "erf", "test_convnext", "--data", photos, *one, "--out", tmp_path / "fields.txt"
    )
    assert not (tmp_path / "fields.txt").exists()
    assert "for tokens" in refused("erf", "test_vit", "--data", photos, *one)
    for path in photos.iterdir():
        path.write_bytes(b"broken")
    assert "is not an image that can be read" in refused(
        "erf", "test_convnext", "--data", photos, *one
    )


def test_cost_for_any_image_size(command):
    small, large = (
        command("analyze", "cost", "test_convnext", "--image-size", side) for side in (64, 128)
    )
    assert small.exit_code == large.exit_code == 0, small.output
    assert "large kernel" in small.output

    def total(result):
        (row,) = [line for line in result.output.splitlines() if line.startswith("all")]
        return float(row.split()[2])

    assert total(large) == pytest.approx(4 * total(small), rel=0.02)


def test_shape_and_corruptions_of_networks_with_random_weights(command, refused, photos, tmp_path):
    (photos / "cat").mkdir()
    for texture in ("dog", "oven"):
        Image.new("RGB", (40, 40)).save(photos / "cat" / f"cat1-{texture}1.png")
    result = command(
        "analyze", "shape", "test_convnext", "--data", photos, "--random-weights",
        "--image-size", 64,
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "Shape bias of test_convnext" in result.output
    assert "n01440764, got" in refused(
        "analyze", "corruptions", "test_convnext", "--data", photos, "--random-weights"
    )
    assert "unknown measurement 'speed'" in refused("analyze", "speed", "test_convnext")


def test_imagenet_a_is_decided_among_its_classes(command, tmp_path):
    for wnid in ("n01498041", "n01531178"):  # of ImageNet-A
        (tmp_path / wnid).mkdir()
        Image.new("RGB", (40, 40)).save(tmp_path / wnid / "0.png")
    result = command(
        "analyze", "imagenet-a", "test_convnext", "--data", tmp_path, "--random-weights",
        "--image-size", 64,
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "200" in result.output


def test_corruptions_made_here_and_downloaded_ones(command, refused, tmp_path, monkeypatch):
    def no_frost():
        raise InputError("SEEWIDE_FROST names no folder")

    monkeypatch.setattr("seewide.analysis.corruptions.frost_folder", no_frost)
    folder = tmp_path / "clean" / "n01498041"
    folder.mkdir(parents=True)
    Image.new("RGB", (40, 40), "red").save(folder / "0.png")
    for severity in range(1, 6):
        place = tmp_path / "c" / "fog" / str(severity) / "n01498041"
        place.mkdir(parents=True)
        Image.new("RGB", (40, 40)).save(place / "0.png")
    small = ("--random-weights", "--image-size", 32)
    made = command("analyze", "corruptions", "test_convnext", "--data", folder.parent, *small)
    assert made.exit_code == 0, made.output
    assert "over 14 of 15 corruptions, without frost" in " ".join(made.output.split())
    assert "SEEWIDE_FROST" in made.output
    found = command("analyze", "imagenet-c", "test_convnext", "--data", tmp_path / "c", *small)
    assert found.exit_code == 0, found.output
    assert "over 1 of 15 corruptions, without gauss" in " ".join(found.output.split())
    assert "gaussian_noise/1" in refused("analyze", "imagenet-c", "test_convnext", "--data",
                                         tmp_path / "clean", *small)  # fmt: skip


def test_report_writes_a_page(command, refused, photos, tmp_path):
    result = command(
        "report", "test_convnext", "--data", photos, "--images", 1, "--side", 64, "--image-size",
        64, "--random-weights", "--out", tmp_path / "report",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "index.html" in result.output
    page = (tmp_path / "report" / "index.html").read_text("utf-8")
    assert "its weights are random" in page
    assert "there is no folder" in refused("report", "test_convnext", "--data", tmp_path / "none")
    empty = tmp_path / "empty"
    empty.mkdir()
    assert "contains no image" in refused("report", "test_convnext", "--data", empty)


@pytest.mark.parametrize("name", ["erf", "analyze", "report"])
def test_help_shows_examples(command, name):
    assert f"  seewide {name} " in command(name, "--help").output
