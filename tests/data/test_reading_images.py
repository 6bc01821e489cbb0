"""One image: all formats and modes, damage of every kind, orientation."""

from __future__ import annotations

import io
import random
import warnings

import numpy as np
import pytest
from image_files import truncate
from PIL import Image

from seewide.analysis.images import load_image
from seewide.data import read_image, verify_image
from seewide.errors import InputError

RAMP_HW = np.arange(256).reshape(16, 16)


def test_16_bit_grey_is_scaled(tmp_path):
    for name in ("ramp.png", "ramp.tif", "ramp.ppm"):
        path = tmp_path / name
        Image.fromarray((RAMP_HW * 257).astype(np.uint16)).save(path)
        for read in (read_image, load_image):
            pixels_HW3 = np.asarray(read(path))
            assert pixels_HW3.shape == (16, 16, 3)
            assert (pixels_HW3 == RAMP_HW[..., None]).all()
        verify_image(path)


def test_float_images_are_scaled_or_refused(tmp_path):
    path = tmp_path / "ramp.tif"
    Image.fromarray((RAMP_HW / 255).astype(np.float32)).save(path)
    assert (np.asarray(read_image(path)) == RAMP_HW[..., None]).all()
    for wrong in (RAMP_HW.astype(np.float32), np.full((4, 4), np.nan, np.float32)):
        Image.fromarray(wrong).save(path)
        for read in (read_image, verify_image, load_image):
            with pytest.raises(InputError, match=r"ramp\.tif .* values are in .*, not in 0\.\.1"):
                read(path)


def test_32_bit_integers_beyond_16_bits_are_refused(tmp_path):
    path = tmp_path / "large.tif"
    Image.fromarray((RAMP_HW * 1000).astype(np.int32)).save(path)
    with pytest.raises(InputError, match=r"values are in 0\.\.255000, not in 0\.\.65535"):
        read_image(path)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr"])
def test_modes_become_rgb(tmp_path, mode):
    kind = "tif" if mode in ("CMYK", "YCbCr") else "png"
    Image.new("RGB", (6, 4), (255, 255, 255)).convert(mode).save(tmp_path / f"x.{kind}")
    image = read_image(tmp_path / f"x.{kind}")
    assert image.mode == "RGB"
    assert image.getextrema() == ((255, 255),) * 3


@pytest.mark.parametrize("kind", ["jpg", "png", "webp", "tif"])
def test_exif_orientation_is_applied(tmp_path, kind):
    upright = Image.new("RGB", (16, 8))
    upright.paste((255, 255, 255), (0, 0, 8, 8))  # left half white
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise for display
    path = tmp_path / f"x.{kind}"
    upright.transpose(Image.Transpose.ROTATE_90).save(path, exif=exif)
    for read in (read_image, load_image):
        image = read(path)
        assert image.size == (16, 8)
        assert image.getpixel((1, 4))[0] > 250
        assert image.getpixel((14, 4))[0] < 5


def test_postscript_under_another_name_is_not_run(tmp_path, monkeypatch):
    from PIL import EpsImagePlugin

    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *a, **k: pytest.fail("it was run"))
    (tmp_path / "x.jpg").write_bytes(
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n%%EOF\n"
    )
    for read in (read_image, verify_image, load_image):
        with pytest.raises(InputError, match=r"x\.jpg is not an image that can be read"):
            read(tmp_path / "x.jpg")


def test_sentences_for_files_that_cannot_be_read(tmp_path):
    (tmp_path / "text.png").write_text("no image")
    with pytest.raises(InputError, match=r"text\.png is not an image that can be read"):
        read_image(tmp_path / "text.png")
    with pytest.raises(InputError, match=r"there is no image .*none\.png"):
        read_image(tmp_path / "none.png")
    noise_HW3 = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    Image.fromarray(noise_HW3).save(tmp_path / "x.jpg")
    truncate(tmp_path / "x.jpg")
    for read in (read_image, verify_image):
        with pytest.raises(InputError, match=r"x\.jpg is damaged: (?i:.*truncated)"):
            read(tmp_path / "x.jpg")


def mutated(content: bytes, generator: random.Random) -> bytes:
    """Bytes changed, inserted, removed or cut off."""
    data = bytearray(content)
    for _ in range(generator.choice((1, 3, 10))):
        at = generator.randrange(len(data))
        action = generator.randrange(4)
        if action == 0:
            data[at] = generator.randrange(256)
        elif action == 1:
            data[at : at + 4] = generator.choice((b"\xff" * 4, b"\0" * 4, b"\x7f\xff\xff\xff"))
        elif action == 2:
            del data[at : at + generator.randrange(1, 5)]
        elif at > 20:
            del data[at:]
    return bytes(data)


@pytest.mark.parametrize("kind", ["jpeg", "png", "webp", "bmp", "ppm", "tiff", "gif"])
def test_mutated_images_give_an_image_or_a_sentence(tmp_path, kind):
    pixels_HW3 = np.random.default_rng(0).integers(0, 256, (12, 12, 3), np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6
    file = io.BytesIO()
    options = {"exif": exif} if kind in ("jpeg", "png", "webp", "tiff") else {}
    Image.fromarray(pixels_HW3).save(file, kind, **options)
    generator = random.Random(kind)
    sentences = []
    path = tmp_path / f"x.{kind}"
    for _ in range(60):
        path.write_bytes(mutated(file.getvalue(), generator))
        for read in (read_image, verify_image):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of Pillow, of which some are meant to be seen
                try:
                    image = read(path)
                except InputError as error:
                    sentences.append(str(error))
                else:
                    assert image is None or image.mode == "RGB"
    assert sentences
    assert all(str(path) in sentence and sentence.isprintable() for sentence in sentences)
