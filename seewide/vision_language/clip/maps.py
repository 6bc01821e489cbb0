"""Where an image resembles a text, and images against captions, as figures.

With average pooling and a linear projection, projecting each cell of the last feature map gives
the image's embedding on average, up to the norm between pooling and projection: the cosine of a
projected cell with a text says how much that cell speaks for the text.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from seewide.errors import InputError, require, write_atomically

from .model import Clip


@torch.no_grad()
def similarity_maps(clip: Clip, image: Image.Image, texts: Sequence[str]) -> Tensor:
    """(T, h, w): cosine of each projected cell of the last feature map with each text.

    Raises:
        InputError: an image tower without a feature map, such as a vision transformer.
    """
    visual = clip.model.visual
    x_NCHW = clip.transform(image)[None].to(clip.device)
    trunk = getattr(visual, "trunk", None)
    map_NCHW = trunk.forward_features(x_NCHW) if trunk is not None else None
    if map_NCHW is None or map_NCHW.ndim != 4:
        raise InputError(f"{clip.name} has no convolutional image tower of timm")
    _, C, h, w = map_NCHW.shape
    cells = map_NCHW.permute(0, 2, 3, 1).reshape(h * w, C, 1, 1)
    projected = visual.head(trunk.forward_head(cells))
    cosine = torch.nn.functional.normalize(projected, dim=-1).cpu() @ clip.encode_texts(texts).T
    return cosine.T.reshape(len(texts), h, w)


def draw_maps(clip: Clip, image: Image.Image, texts: Sequence[str], path: Path) -> Path:
    """Draw the image, and a map over it for each text.

    Raises:
        InputError: as `similarity_maps`.
    """
    figure_module = require("matplotlib.figure", "clip")
    maps = similarity_maps(clip, image, texts)
    figure = figure_module.Figure(figsize=(3 * (len(texts) + 1), 3.4))
    axes = figure.subplots(1, len(texts) + 1)
    axes[0].imshow(image)
    axes[0].set_title("image", fontsize=9)
    limit = float(maps.abs().max())
    for axis, text, cosine in zip(axes[1:], texts, maps, strict=True):
        smooth = torch.nn.functional.interpolate(
            cosine[None, None], size=(image.height, image.width), mode="bicubic"
        )[0, 0]
        axis.imshow(image.convert("L"), cmap="gray", alpha=0.6)
        axis.imshow(smooth.numpy(), cmap="RdBu_r", vmin=-limit, vmax=limit, alpha=0.6)
        axis.set_title(_plain(text), fontsize=9)
    for axis in axes:
        axis.axis("off")
    return write_atomically(path, lambda scratch: figure.savefig(scratch, bbox_inches="tight"))


def draw_matrix(
    clip: Clip, images: Sequence[Image.Image], texts: Sequence[str], path: Path
) -> Path:  # fmt: skip
    """Draw the cosine of every image with every caption; the largest of a row has a frame."""
    figure_module = require("matplotlib.figure", "clip")
    patches = require("matplotlib.patches", "clip")
    scores = (clip.encode_images(images) @ clip.encode_texts(texts).T).tolist()
    rows, columns = len(images), len(texts)
    figure = figure_module.Figure(figsize=(2 + 0.8 * columns, 1.5 + 0.8 * rows))
    grid = figure.add_gridspec(rows, 2, width_ratios=(1, columns), wspace=0.02)
    for row, image in enumerate(images):
        axis = figure.add_subplot(grid[row, 0])
        axis.imshow(image)
        axis.axis("off")
    axis = figure.add_subplot(grid[:, 1])
    axis.imshow(scores, cmap="viridis", aspect="auto")
    for row, values in enumerate(scores):
        for column, value in enumerate(values):
            axis.text(column, row, f"{value:.2f}", ha="center", va="center", color="w", fontsize=8)
        best = values.index(max(values))
        axis.add_patch(patches.Rectangle((best - 0.5, row - 0.5), 1, 1, fill=False, ec="w", lw=2))
    axis.set_yticks([])
    axis.set_xticks(range(columns), [_plain(t)[:40] for t in texts], rotation=40, ha="right")
    return write_atomically(path, lambda scratch: figure.savefig(scratch, bbox_inches="tight"))


def _plain(text: str) -> str:
    return text.replace("$", r"\$")
