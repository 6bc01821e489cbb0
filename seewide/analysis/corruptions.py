"""ImageNet-C's fifteen corruptions at five severities, for any image.

Hendrycks and Dietterich, "Benchmarking Neural Network Robustness to Common Corruptions and
Perturbations" (arXiv 1903.12261). The strengths and the order of steps are those of the authors'
code (github.com/hendrycks/robustness), with which the published images were made. The libraries
with this code, `imagenet_c` and `imagecorruptions`, do not run with NumPy 2 or scikit-image 0.20.

Differences to the published images:

* They were stored as JPEG of quality 85 after the corruption; here there is no such step.
* Their motion blur, also in snow, is ImageMagick's. Here it is computed by its definition: a mean
  over a line of pixels behind each pixel, weighted by half a Gaussian, with a replicated border.
* Any size is possible. The authors' constants 224 (244 in the elastic transform) are the size here.
* Frost is blended with images of frost, which are not part of this package (`frost_folder`).

As in the authors' code, results are truncated, not rounded, to integers.
"""

from __future__ import annotations

import importlib.util
import io
import os
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image

from seewide.analysis.images import list_images, load_image
from seewide.errors import InputError, require, unknown

Random = np.random.Generator
ImageArray = np.ndarray  # (H, W, 3) float64, 0 to 1


def corrupt(image: Image.Image, name: str, severity: int, rng: Random) -> Image.Image:
    """A corrupted copy of an RGB image, of the same size.

    Args:
        image: at least 32 x 32 pixels; those of ImageNet-C were cropped to 224 x 224 first.
        name: one of CORRUPTIONS.
        severity: 1 to 5.
        rng: random generator.

    Raises:
        InputError: an unknown corruption or severity, or an image that is too small.
    """
    if name not in CORRUPTIONS:
        raise unknown("corruption", name, CORRUPTIONS)
    if severity not in range(1, 6):
        raise InputError(f"severity must be 1, 2, 3, 4 or 5, got {severity}")
    if min(image.size) < 32:
        raise InputError(f"corruptions need at least 32 x 32 pixels, got {image.size}")
    function, strengths = CORRUPTIONS[name]
    x = np.asarray(image.convert("RGB"), dtype=float) / 255
    y = function(x, strengths[severity - 1], rng)
    # 1e-9: an integer that was divided by 255 must not be truncated to the one below.
    return Image.fromarray((np.clip(y, 0, 1) * 255 + 1e-9).astype(np.uint8))


def gaussian_noise(x: ImageArray, deviation: float, rng: Random) -> ImageArray:
    return x + rng.normal(size=x.shape, scale=deviation)


def shot_noise(x: ImageArray, photons: float, rng: Random) -> ImageArray:
    """Poisson noise of a sensor that counts `photons` for white."""
    return rng.poisson(x * photons) / photons


def impulse_noise(x: ImageArray, share: float, rng: Random) -> ImageArray:
    """Set a share of the values to 0 or 1 with equal probability."""
    hit = rng.random(x.shape) <= share
    return np.where(hit, rng.random(x.shape) <= 0.5, x)


def defocus_blur(x: ImageArray, strength: tuple[int, float], rng: Random) -> ImageArray:
    """Blur with a disc that is smoothed by a small Gaussian (anti-aliasing)."""
    radius, softness = strength
    reach = max(radius, 8)
    line = np.arange(-reach, reach + 1)
    disc = (line[:, None] ** 2 + line**2 <= radius**2).astype(float)
    taps = np.arange(-1, 2) if radius <= 8 else np.arange(-2, 3)
    soft = np.exp(-(taps**2) / (2 * softness**2))
    kernel = disc / disc.sum()
    for axis in (0, 1):
        kernel = _ndimage().correlate1d(kernel, soft / soft.sum(), axis, mode="mirror")
    return _ndimage().correlate(x, kernel[..., None], mode="mirror")


def glass_blur(x: ImageArray, strength: tuple[float, int, int], rng: Random) -> ImageArray:
    """Blur, replace pixels by random neighbors, blur again.

    The authors' code intends to swap two pixels, but with NumPy's views it copies the neighbor.
    """
    sigma, reach, rounds = strength
    H, W = x.shape[:2]
    rows, columns = np.arange(H - reach, reach, -1), np.arange(W - reach, reach, -1)
    positions = (rows[:, None] * W + columns).ravel().tolist()
    source = list(range(H * W))
    for _ in range(rounds):
        dx, dy = np.moveaxis(rng.integers(-reach, reach, (len(positions), 2)), 1, 0)
        for position, step in zip(positions, (dy * W + dx).tolist(), strict=True):  # sequential
            source[position] = source[position + step]
    coarse = np.floor(_blur(x, sigma) * 255 + 1e-9) / 255
    return _blur(coarse.reshape(-1, 3)[source].reshape(x.shape), sigma)


def motion_blur(x: ImageArray, strength: tuple[int, float], rng: Random) -> ImageArray:
    return _along_a_line(x, *strength, rng.uniform(-45, 45))


def zoom_blur(x: ImageArray, zooms: np.ndarray, rng: Random) -> ImageArray:
    return (x + sum(_zoomed(x, zoom) for zoom in zooms)) / (len(zooms) + 1)


def snow(x: ImageArray, strength: tuple[float, ...], rng: Random) -> ImageArray:
    """Add enlarged, thresholded, motion-blurred noise, and whiten the image."""
    mean, deviation, zoom, threshold, radius, sigma, weight = strength
    flakes = _zoomed(rng.normal(mean, deviation, x.shape[:2])[..., None], zoom)
    flakes = np.clip(np.where(flakes < threshold, 0, flakes), 0, 1)
    flakes = _along_a_line(np.floor(flakes * 255) / 255, radius, sigma, rng.uniform(-135, -45))
    flakes = np.round(flakes * 255) / 255
    grey = (x @ [0.299, 0.587, 0.114])[..., None]
    white = weight * x + (1 - weight) * np.maximum(x, 1.5 * grey + 0.5)
    return white + flakes + np.rot90(flakes, 2)[: x.shape[0], : x.shape[1]]


def frost(x: ImageArray, strength: tuple[float, float], rng: Random) -> ImageArray:
    weight, frost_weight = strength
    plates = _frost_plates(str(frost_folder()))
    H, W = x.shape[:2]
    plate = plates[rng.integers(len(plates))]
    enlarge = max(H / (plate.height - 1), W / (plate.width - 1), 1.0)
    if enlarge > 1:
        size = (int(np.ceil(plate.width * enlarge)) + 1, int(np.ceil(plate.height * enlarge)) + 1)
        plate = plate.resize(size, Image.Resampling.BICUBIC)
    top, left = rng.integers(plate.height - H), rng.integers(plate.width - W)
    cut = plate.crop((left, top, left + W, top + H))
    return weight * x + frost_weight * np.asarray(cut, dtype=float) / 255


def fog(x: ImageArray, strength: tuple[float, float], rng: Random) -> ImageArray:
    """Add a fractal cloud, and rescale so that the maximum stays the same."""
    amount, decay = strength
    H, W = x.shape[:2]
    side = 1 << (max(H, W) - 1).bit_length()
    brightest = x.max()
    cloud = _cloud(side, decay, rng)[:H, :W, None]
    return (x + amount * cloud) * brightest / (brightest + amount)


def brightness(x: ImageArray, amount: float, rng: Random) -> ImageArray:
    """Add to the value channel of HSV."""
    from matplotlib.colors import hsv_to_rgb, rgb_to_hsv

    hsv = rgb_to_hsv(x)
    hsv[..., 2] = np.clip(hsv[..., 2] + amount, 0, 1)
    return hsv_to_rgb(hsv)


def contrast(x: ImageArray, factor: float, rng: Random) -> ImageArray:
    """Scale the differences from the mean of each channel."""
    mean = x.mean((0, 1))
    return mean + factor * (x - mean)


def elastic_transform(
    x: ImageArray, strength: tuple[float, float, float], rng: Random
) -> ImageArray:
    """A random affine map and then smooth displacements, with a mirrored border."""
    ndimage = _ndimage()
    H, W = x.shape[:2]
    alpha, sigma, shift = (value * min(H, W) * 244 / 224 for value in strength)
    # Three corners of a square, a third of the size away from the center, are moved.
    third = min(H, W) // 3
    corners = np.array([(W // 2, H // 2)]) + third * np.array([(1, 1), (1, -1), (-1, -1)])
    moved = corners + rng.uniform(-shift, shift, (3, 2))
    back = np.linalg.solve(
        np.c_[moved, np.ones(3)], corners
    )  # (x, y, 1) @ back is the source position
    y_HW, x_HW = np.indices((H, W)).astype(float)
    source = np.stack([x_HW, y_HW, np.ones((H, W))], axis=-1) @ back
    x = _sampled(x, source[..., 1], source[..., 0], "mirror")

    def displacement() -> np.ndarray:
        noise = rng.uniform(-1, 1, (H, W))
        return alpha * ndimage.gaussian_filter(noise, sigma, mode="reflect", truncate=3)

    dx, dy = displacement(), displacement()
    return _sampled(x, y_HW + dy, x_HW + dx, "reflect")


def pixelate(x: ImageArray, scale: float, rng: Random) -> ImageArray:
    image = Image.fromarray(np.round(x * 255).astype(np.uint8))
    small = [int(side * scale) for side in image.size]
    box = Image.Resampling.BOX
    return np.asarray(image.resize(small, box).resize(image.size, box), dtype=float) / 255


def jpeg_compression(x: ImageArray, quality: int, rng: Random) -> ImageArray:
    file = io.BytesIO()
    Image.fromarray(np.round(x * 255).astype(np.uint8)).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file), dtype=float) / 255


# name -> (function, strengths at severity 1 to 5). Those of the elastic transform (alpha, sigma,
# shift) are relative to the size of the image: 488, 171 and 24 pixels at a size of 244, and so on.
CORRUPTIONS: dict[str, tuple[Callable[..., ImageArray], tuple]] = {
    "gaussian_noise": (gaussian_noise, (0.08, 0.12, 0.18, 0.26, 0.38)),
    "shot_noise": (shot_noise, (60, 25, 12, 5, 3)),
    "impulse_noise": (impulse_noise, (0.03, 0.06, 0.09, 0.17, 0.27)),
    "defocus_blur": (defocus_blur, ((3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5))),
    "glass_blur": (glass_blur, ((0.7, 1, 2), (0.9, 2, 1), (1, 2, 3), (1.1, 3, 2), (1.5, 4, 2))),
    "motion_blur": (motion_blur, ((10, 3), (15, 5), (15, 8), (15, 12), (20, 15))),
    "zoom_blur": (
        zoom_blur,
        tuple(
            np.arange(1, end, step)
            for end, step in ((1.11, 0.01), (1.16, 0.01), (1.21, 0.02), (1.26, 0.02), (1.31, 0.03))
        ),
    ),
    "snow": (
        snow,
        (
            (0.1, 0.3, 3, 0.5, 10, 4, 0.8),
            (0.2, 0.3, 2, 0.5, 12, 4, 0.7),
            (0.55, 0.3, 4, 0.9, 12, 8, 0.7),
            (0.55, 0.3, 4.5, 0.85, 12, 8, 0.65),
            (0.55, 0.3, 2.5, 0.85, 12, 12, 0.55),
        ),
    ),
    "frost": (frost, ((1, 0.4), (0.8, 0.6), (0.7, 0.7), (0.65, 0.7), (0.6, 0.75))),
    "fog": (fog, ((1.5, 2), (2, 2), (2.5, 1.7), (2.5, 1.5), (3, 1.4))),
    "brightness": (brightness, (0.1, 0.2, 0.3, 0.4, 0.5)),
    "contrast": (contrast, (0.4, 0.3, 0.2, 0.1, 0.05)),
    "elastic_transform": (
        elastic_transform,
        ((2, 0.7, 0.1), (2, 0.08, 0.2), (0.05, 0.01, 0.02), (0.07, 0.01, 0.02), (0.12, 0.01, 0.02)),
    ),
    "pixelate": (pixelate, (0.6, 0.5, 0.4, 0.3, 0.25)),
    "jpeg_compression": (jpeg_compression, (25, 18, 15, 10, 7)),
}


def available_corruptions() -> tuple[list[str], str]:
    """Names of the corruptions that this machine can compute, and why frost is missing, or ""."""
    try:
        frost_folder()
    except InputError as error:
        return [name for name in CORRUPTIONS if name != "frost"], str(error)
    return list(CORRUPTIONS), ""


def frost_folder() -> Path:
    """The folder of images of frost: $SEEWIDE_FROST, or that of package `imagecorruptions`.

    The first five are used, as in the authors' code.

    Raises:
        InputError: neither exists.
    """
    folder = os.environ.get("SEEWIDE_FROST")
    package = importlib.util.find_spec("imagecorruptions")
    if folder:
        return Path(folder)
    if package is not None and package.submodule_search_locations:
        return Path(package.submodule_search_locations[0]) / "frost"
    raise InputError(
        "frost needs images of frost: run `pip install --no-deps imagecorruptions` for the "
        "authors', or set SEEWIDE_FROST to a folder of others"
    )


@cache
def _frost_plates(folder: str) -> list[Image.Image]:
    return [load_image(path) for path in list_images(folder)[:5]]


def _ndimage():
    return require("scipy.ndimage", extra="robustness")


def _blur(x: ImageArray, sigma: float) -> ImageArray:
    return _ndimage().gaussian_filter(x, (sigma, sigma, 0), mode="nearest", truncate=4)


def _along_a_line(x: np.ndarray, radius: int, sigma: float, angle: float) -> np.ndarray:
    """Weighted mean of the 2 radius + 1 pixels behind each; `angle` in degrees from horizontal."""
    steps = np.arange(2 * radius + 1)
    weights = np.exp(-(steps**2) / (2 * sigma**2))
    dy, dx = (
        -np.ceil(steps * function(np.deg2rad(angle)) - 0.5).astype(int)
        for function in (np.sin, np.cos)
    )
    H, W = x.shape[:2]
    y = np.zeros_like(x)
    for weight, down, right in zip(weights / weights.sum(), dy, dx, strict=True):
        if abs(down) >= H or abs(right) >= W:
            break
        rows = np.clip(np.arange(H) - down, 0, H - 1)
        columns = np.clip(np.arange(W) - right, 0, W - 1)
        y += weight * x[rows][:, columns]
    return y


def _zoomed(x: np.ndarray, zoom: float) -> np.ndarray:
    """The center of (H, W, C), enlarged to (H, W, C)."""
    crop = [int(np.ceil(side / zoom)) for side in x.shape[:2]]
    top, left = ((side - part) // 2 for side, part in zip(x.shape, crop, strict=False))
    center = x[top : top + crop[0], left : left + crop[1]]
    large = _ndimage().zoom(center, (zoom, zoom, 1), order=1)
    top, left = ((a - b) // 2 for a, b in zip(large.shape[:2], x.shape, strict=False))
    large = large[max(top, 0) :, max(left, 0) :][: x.shape[0], : x.shape[1]]
    missing = [(0, side - size) for side, size in zip(x.shape[:2], large.shape, strict=False)]
    return np.pad(large, [*missing, (0, 0)], mode="edge")


def _sampled(x: ImageArray, rows: np.ndarray, columns: np.ndarray, border: str) -> ImageArray:
    """Bilinear interpolation of each channel at the given positions."""
    channels = [
        _ndimage().map_coordinates(x[..., c], [rows, columns], order=1, mode=border)
        for c in range(3)
    ]
    return np.stack(channels, axis=-1)


def _cloud(side: int, decay: float, rng: Random) -> np.ndarray:
    """(side, side), 0 to 1: the diamond-square algorithm on a torus; `side` is a power of two.

    The centers of squares and then of diamonds are set to the mean of their four corners plus a
    random displacement of up to the squared amplitude, at half the distance in each step. The
    amplitude starts at 100.
    """
    z = np.zeros((side, side))
    step, amplitude = side, 100.0

    def displaced(corners: np.ndarray) -> np.ndarray:
        return corners / 4 + amplitude * rng.uniform(-amplitude, amplitude, corners.shape)

    while step >= 2:
        half = step // 2
        corners = z[::step, ::step]
        pairs = corners + np.roll(corners, -1, 0)
        z[half::step, half::step] = displaced(pairs + np.roll(pairs, -1, 1))
        middles = z[half::step, half::step]
        vertical = middles + np.roll(middles, 1, 0)
        horizontal = corners + np.roll(corners, -1, 1)
        z[::step, half::step] = displaced(vertical + horizontal)
        vertical = middles + np.roll(middles, 1, 1)
        horizontal = corners + np.roll(corners, -1, 0)
        z[half::step, ::step] = displaced(vertical + horizontal)
        step, amplitude = half, amplitude / decay
    z -= z.min()
    return z / z.max()
