"""Images with masks: layouts, palettes, damage, and joint transforms."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from seewide.data import check_samples, fingerprint
from seewide.data.augment_masks import ScaleCropFlip, ToLabels
from seewide.data.masks import IGNORE, describe_masks, open_masks, palette
from seewide.errors import InputError
from seewide.seeding import seeded

MEAN = STD = (0.5, 0.5, 0.5)
SHARED = Path(__file__).resolve().parents[3] / "shared"


def write(images: Path, masks: Path, count: int = 4, palette: bool = False) -> None:
    """Images whose red value is 40 times the class of the pixel; 255 at class 255."""
    images.mkdir(parents=True)
    masks.mkdir(parents=True)
    generator = np.random.default_rng(0)
    for index in range(count):
        mask_HW = np.kron(generator.choice([0, 1, 2, 255], (3, 4)), np.ones((8, 8))).astype(
            np.uint8
        )
        red_HW = np.where(mask_HW == 255, 255, 40 * mask_HW).astype(np.uint8)
        image = Image.fromarray(np.stack([red_HW, red_HW * 0, red_HW * 0], -1))
        image.save(images / f"{index}.png")
        mask = Image.fromarray(mask_HW)
        if palette:
            mask.putpalette([v for i in range(256) for v in (i, 255 - i, 7)])
        mask.save(masks / f"{index}.png")


LAYOUTS = {
    "inside": ("images/train", "masks/train", "images/val", "masks/val"),
    "outside": ("train/images", "train/masks", "valid/images", "valid/masks"),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("palette", [False, True])
def test_layouts(tmp_path, layout, palette):
    images, masks, val_images, val_masks = (tmp_path / name for name in LAYOUTS[layout])
    write(images, masks, 4, palette)
    write(val_images, val_masks, 2, palette)
    data = open_masks(tmp_path)
    assert (len(data.train), len(data.val)) == (4, 2)
    assert data.class_names == ("0", "1", "2")
    assert data.held_out == f"{LAYOUTS[layout][2]}/ of the folder"
    assert describe_masks(str(tmp_path)) == "images with masks"
    for sample in data.train:
        red_HW, mask_HW = np.asarray(sample["image"])[..., 0], np.asarray(sample["mask"])
        assert (np.where(mask_HW == IGNORE, 255, 40 * mask_HW) == red_HW).all()
    (tmp_path / "classes.txt").write_text("sky\nroad\ntree\n")
    assert open_masks(tmp_path).class_names == ("sky", "road", "tree")


def test_one_folder_is_split(tmp_path):
    write(tmp_path / "images", tmp_path / "masks", 10)
    data = open_masks(tmp_path)
    assert (len(data.train), len(data.val)) == (8, 2)
    assert not set(data.train.names()) & set(data.val.names())
    assert list(data.val.names()) == list(open_masks(tmp_path).val.names())
    assert data.held_out == "20% held out, seed 0"
    before = fingerprint(data.train)
    mask = tmp_path / "masks" / next(iter(data.train.names()))
    mask.write_bytes(mask.read_bytes() + b"\0")
    assert fingerprint(open_masks(tmp_path).train) != before


def test_another_value_can_be_ignored(tmp_path):
    write(tmp_path / "images", tmp_path / "masks")
    data = open_masks(tmp_path, ignore=2)
    assert data.class_names == ("0", "1")
    values = set(np.unique([np.asarray(sample["mask"]) for sample in data.train]).tolist())
    assert values == {0, 1, IGNORE}
    (tmp_path / "classes.txt").write_text("sky\nroad\nvoid\n")
    assert open_masks(tmp_path, ignore=2).class_names == ("sky", "road")


def test_masks_that_do_not_fit_are_named(tmp_path):
    images, masks = tmp_path / "images", tmp_path / "masks"
    write(images, masks, 6)
    (tmp_path / "classes.txt").write_text("sky\nroad\ntree\n")
    Image.new("L", (5, 7)).save(masks / "0.png")
    Image.new("L", (32, 24), 9).save(masks / "1.png")
    Image.new("RGB", (32, 24)).save(masks / "2.png")
    (masks / "3.png").write_bytes(b"torn")
    data = open_masks(tmp_path)
    sentences = sorted(check_samples(data.train) + check_samples(data.val))
    assert [sentence.partition("masks/")[2] for sentence in sentences] == [
        "0.png is 5 x 7 pixels, its image 0.png is 32 x 24",
        "1.png has a value 9; classes are 0 to 2, and 255 is ignored",
        "2.png is damaged: a mask has one channel of 8 bits or a palette, this is RGB",
        "3.png is not an image that can be read",
    ]
    (masks / "4.png").unlink()
    with pytest.raises(InputError, match=r"1 of 6 images of .* have no mask; the first is 4\.png"):
        open_masks(tmp_path)


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda d: None, "has no images/ and masks/"),
        (lambda d: write(d / "images", d / "labels"), "has no images/ and masks/"),
        (lambda d: [(d / n).mkdir() for n in ("images", "masks")], "holds no images"),
        (lambda d: write(d / "images", d / "masks", 1), "needs at least two, there are 1"),
        (
            lambda d: (
                write(d / "train/images", d / "train/masks"),
                (d / "val/images").mkdir(parents=True),
            ),
            "there is no folder .*val/masks",
        ),
    ],
)
def test_folders_that_cannot_be_trained_on(tmp_path, make, sentence):
    make(tmp_path)
    with pytest.raises(InputError, match=sentence):
        open_masks(tmp_path)
    with pytest.raises(InputError, match="there is no folder nowhere"):
        open_masks("nowhere")
    with pytest.raises(InputError, match=r"must be in 0\.\.255, got 256"):
        open_masks(tmp_path, ignore=256)


def training(crop: int, factors=(1.0, 1.0), flip=0.5, photometric=False) -> ToLabels:
    return ToLabels(MEAN, STD, ScaleCropFlip((crop, 999), crop, factors, flip, photometric))


def test_image_and_mask_are_transformed_alike(tmp_path):
    """Each pixel's red value says its class, so any disagreement of the two would show."""
    write(tmp_path / "images", tmp_path / "masks")
    transform = training(24, (0.5, 3.0))
    sample, ignored = open_masks(tmp_path).train[0], 0
    seen = set()
    for seed in range(40):
        with seeded(seed):
            result = transform(sample)
        x_CHW, mask_HW = result["image"], result["mask"]
        assert (x_CHW.shape, x_CHW.dtype) == ((3, 24, 24), torch.float32)
        assert (mask_HW.shape, mask_HW.dtype) == ((24, 24), torch.int64)
        assert type(x_CHW) is type(mask_HW) is torch.Tensor
        red_HW, green_HW = (((x * 0.5 + 0.5) * 255).round() for x in x_CHW[:2])
        expected_HW = torch.where(mask_HW == IGNORE, 255, 40 * mask_HW)
        padded_HW = (red_HW == 124) & (green_HW == 116)
        assert (mask_HW[padded_HW] == IGNORE).all()
        ignored += int(padded_HW.sum())
        # Only near borders between classes does the bilinear interpolation differ.
        assert ((red_HW - expected_HW).abs() < 3)[~padded_HW].float().mean() > 0.5
        seen.add(mask_HW.numpy().tobytes())
    assert len(seen) > 35
    assert ignored
    with seeded(0):
        first = transform(sample)
    with seeded(0):
        assert torch.equal(transform(sample)["image"], first["image"])


def test_flips_turn_both():
    image = np.zeros((8, 8, 3), np.uint8)
    image[:, :4] = 255
    sample = {"image": Image.fromarray(image), "mask": Image.fromarray(image[..., 0] // 255)}
    plain, turned = training(8, flip=0.0)(sample), training(8, flip=1.0)(sample)
    for key in ("image", "mask"):
        assert torch.equal(turned[key], plain[key].flip(-1))
    assert plain["mask"][:, :4].eq(1).all()


def test_photometric_distortions_change_the_image_alone():
    sample = {"image": Image.new("RGB", (8, 8), (90, 120, 60)), "mask": Image.new("L", (8, 8), 2)}
    transform, colors = training(8, photometric=True), set()
    for seed in range(12):
        with seeded(seed):
            result = transform(sample)
        colors.add(tuple(result["image"][:, 0, 0].tolist()))
        assert (result["mask"] == 2).all()
    assert len(colors) > 4


def test_a_crop_holds_several_classes_where_it_can():
    """A small object in a corner of one class: crops without it are drawn again."""
    mask = np.zeros((32, 32), np.uint8)
    mask[:12, :12] = 1
    sample = {"image": Image.new("RGB", (32, 32)), "mask": Image.fromarray(mask)}
    crop = ScaleCropFlip((32, 999), 16, (1.0, 1.0), photometric=False)
    any_crop = ScaleCropFlip((32, 999), 16, (1.0, 1.0), photometric=False, most=2.0)
    found = {}
    for name, augmentation in (("limited", crop), ("any", any_crop)):
        shares = []
        for seed in range(60):
            with seeded(seed):
                shares.append(float((ToLabels(MEAN, STD, augmentation)(sample)["mask"] == 1)
                                    .float().mean()))  # fmt: skip
        found[name] = sum(0.25 < share < 0.75 for share in shares)
    assert found["limited"] > found["any"]


def test_evaluation_leaves_the_size():
    sample = {"image": Image.new("RGB", (9, 5)), "mask": Image.new("L", (9, 5), 3)}
    result = ToLabels(MEAN, STD)(sample)
    assert (result["image"].shape, result["mask"].shape) == ((3, 5, 9), (5, 9))
    assert (result["image"] == -1).all()
    assert (result["mask"] == 3).all()


def test_colors_are_those_of_pascal_voc():
    colors = np.reshape(palette(), (256, 3))
    assert colors[[0, 1, 2, 3, 15, 20, 255]].tolist() == [
        [0, 0, 0], [128, 0, 0], [0, 128, 0], [128, 128, 0], [192, 128, 128], [0, 64, 128],
        [224, 224, 192],
    ]  # fmt: skip


@pytest.mark.skipif(not SHARED.is_dir(), reason="CamVid is not on this machine (../shared)")
def test_camvid():
    data = open_masks(SHARED / "data" / "semantic_segmentation" / "camvid", ignore=11)
    assert (len(data.train), len(data.val)) == (184, 51)
    assert data.class_names == tuple(map(str, range(11)))
    sample = data.val[0]
    assert sample["image"].size == sample["mask"].size == (480, 360)
    assert set(np.unique(sample["mask"])) <= {*range(11), IGNORE}
