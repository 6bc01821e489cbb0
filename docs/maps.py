"""Figures of what each front-end makes of a signal: `python docs/maps.py` draws docs/figures/map-*.

The signals are synthetic, so the figures can be drawn anywhere.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure

from seewide.modalities import FramesToMap, LogMel, PointsToViews, SeriesToMap, SpecAugment
from seewide.modalities.points import DepthViews

FIGURES = Path(__file__).parent / "figures"


def _save(figure: Figure, name: str) -> None:
    figure.savefig(FIGURES / f"map-{name}.png", dpi=110)


def audio() -> None:
    """A rising tone with an overtone: its log-mel map, and the same with masks."""
    t = torch.arange(16000) / 16000
    wave = torch.sin(2 * torch.pi * (200 * t + 900 * t**2)) + 0.05 * torch.randn(16000)
    map_11MT = LogMel()(wave[None])
    figure = Figure(figsize=(9, 3), layout="constrained")
    masked = SpecAugment()(map_11MT)
    titles = ("log-mel map, 128 bins x 128 frames", "with one band and one span masked")
    for axis, image, title in zip(figure.subplots(1, 2), (map_11MT, masked), titles, strict=True):
        axis.imshow(image[0, 0].numpy(), origin="lower", aspect="auto")
        axis.set(title=title, xlabel="frame (10 ms)", ylabel="mel bin")
    _save(figure, "audio")


def video() -> None:
    """A disk that crosses the image, in both layouts."""
    rows, columns = np.mgrid[:32, :48]
    frames = [((rows - 16) ** 2 + (columns - 3 * i) ** 2 < 60) * 1.0 for i in range(16)]
    clip = torch.tensor(np.stack(frames), dtype=torch.float32)[None, None]
    figure = Figure(figsize=(9, 3), layout="constrained")
    for axis, layout in zip(figure.subplots(1, 2), ("tile", "official"), strict=True):
        axis.imshow(FramesToMap(layout)(clip)[0, 0].numpy(), cmap="gray")
        axis.set(title=f"layout={layout!r}", xticks=[], yticks=[])
    _save(figure, "video")


def points() -> None:
    """A torus: depth views of three planes, and a learned view before any training."""
    u, v = 2 * torch.pi * torch.rand(2, 2048)
    ring = 0.7 + 0.25 * v.cos()
    cloud = torch.stack([ring * u.cos(), ring * u.sin(), 0.25 * v.sin()], 1)[None]
    depth = DepthViews(64)(cloud)[0]
    with torch.no_grad():
        learned = PointsToViews(64, views="one", fusion=False, robust_floor=True).eval()(cloud)[0]
    learned = (learned - learned.amin()) / (learned.amax() - learned.amin())
    images = [*depth, learned.permute(1, 2, 0)]
    figure = Figure(figsize=(9, 2.6), layout="constrained")
    titles = ("depth xy", "depth yz", "depth zx", "learned, untrained")
    for axis, image, title in zip(figure.subplots(1, 4), images, titles, strict=True):
        axis.imshow(image.numpy(), cmap="gray")
        axis.set(title=title, xticks=[], yticks=[])
    _save(figure, "points")


def series() -> None:
    """A daily wave of 96 steps, embedded in 24 channels: each step fills half a row."""
    t = torch.arange(96.0)
    wave = torch.sin(2 * torch.pi * t / 24)
    mixing = torch.randn(24, generator=torch.Generator().manual_seed(0))
    image = SeriesToMap()((wave[:, None] * mixing)[None])[0, 0]
    figure = Figure(figsize=(9, 3), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(2, 1))
    left.plot(t, wave)
    left.set(xlabel="hour", title="96 steps")
    right.imshow(image.numpy())
    right.set(title="96 steps x 24 channels = 48 x 48", xticks=[], yticks=[])
    _save(figure, "series")


if __name__ == "__main__":
    torch.manual_seed(0)
    for draw in (audio, video, points, series):
        draw()
