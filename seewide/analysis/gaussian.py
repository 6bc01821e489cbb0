"""How Gaussian is a receptive field? UniConvNet's claim (arXiv 2508.09000, section 3) as numbers.

Luo et al. (arXiv 1701.04128) showed that the field of a deep stack of small kernels tends to a
Gaussian; UniConvNet keeps that shape ("asymptotically Gaussian") while the field grows. The paper
judges by eye. Here, with P the contributions of an `ERF`, scaled to a sum of 1:

* centre: that of mass. The feature at h // 2 of an even map lies half a stride from the middle of
  the image;
* radial profile: p(r), the mean of P over the pixels whose distance to the centre rounds to r;
* best Gaussian: G(sigma), the isotropic Gaussian around the centre on the same pixels, scaled to a
  sum of 1, of the sigma that makes the residual least;
* residual: half the sum of |P - G|, the share of the contribution that lies elsewhere than in the
  Gaussian: 0 for a Gaussian, 1 for fields without overlap. `gaussianity` is 1 minus that;
* monotonicity: of all that the profile falls and rises on its way out, the share that it falls:
  1 if no ring counts more than the ring inside it.

Strides show in P as a checkered pattern that no smooth curve follows, so P is first averaged over
square cells: a 64th of the image a side, unless said otherwise.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from seewide.analysis.erf import ERF
from seewide.errors import InputError


@dataclass(frozen=True)
class GaussianShape:
    """The numbers above.

    `sigma` in pixels; `residual`, `monotonicity` and `gaussianity` from 0 to 1; `radii` in pixels
    and `profile`, p at each of them, relative to its largest value.
    """

    sigma: float
    residual: float
    monotonicity: float
    radii: np.ndarray
    profile: np.ndarray

    @property
    def gaussianity(self) -> float:
        return 1 - self.residual

    def gaussian(self) -> np.ndarray:
        """The best Gaussian at `radii`, relative to its largest value."""
        return np.exp(-(self.radii**2) / (2 * self.sigma**2))


def gaussian_shape(erf: ERF, cell: int | None = None, of: str = "contribution") -> GaussianShape:
    """Compare a field with the Gaussian nearest to it.

    Args:
        erf: what `effective_receptive_field` returned.
        cell: side in pixels of the cells that are averaged first; default: a 64th of the image.
        of: "contribution" for P itself, or "scores" for its logarithm, which the papers draw and
            in which a Gaussian looks wider than it is.

    Raises:
        InputError: an empty field, an unknown `of`, or cells larger than the image.
    """
    if of not in ("contribution", "scores"):
        raise InputError(f"of is 'contribution' or 'scores', got {of!r}")
    mass = erf.contribution if of == "contribution" else erf.scores
    cell = max(min(mass.shape) // 64, 1) if cell is None else cell
    if not 1 <= cell <= min(mass.shape) // 2:
        raise InputError(f"cells have 1 to {min(mass.shape) // 2} pixels a side here, got {cell=}")
    if not mass.sum() > 0:
        raise InputError("the field is empty: no pixel contributes")
    H, W = (side // cell for side in mass.shape)
    mass = mass[: H * cell, : W * cell].reshape(H, cell, W, cell).sum((1, 3))
    mass = mass / mass.sum()
    y, x = np.arange(H), np.arange(W)
    distance = cell * np.hypot((y - mass.sum(1) @ y)[:, None], x - mass.sum(0) @ x)

    def residual(sigma: float) -> float:
        gaussian = np.exp(-(distance**2) / (2 * sigma**2))
        return np.abs(mass - gaussian / gaussian.sum()).sum() / 2

    sigma = _least(residual, cell / 2, 2 * distance.max())
    rings = np.round(distance / cell).astype(int).ravel()
    counts = np.bincount(rings)
    # Rings that the border cuts would tell of one side only.
    whole = 1 + int(min(distance[0].min(), distance[-1].min(), distance[:, 0].min(),
                        distance[:, -1].min()) / cell)  # fmt: skip
    radii = np.flatnonzero(counts[:whole])  # a centre between cells has no cell at radius 0
    profile = np.bincount(rings, mass.ravel())[radii] / counts[radii]
    steps = np.diff(profile)
    travelled = np.abs(steps).sum()
    return GaussianShape(
        sigma=sigma,
        residual=residual(sigma),
        monotonicity=float(-steps[steps < 0].sum() / travelled) if travelled else 1.0,
        radii=cell * radii.astype(float),
        profile=profile / profile.max(),
    )


def draw_profiles(shapes: Mapping[str, GaussianShape], path: str | os.PathLike) -> Path:
    """Radial profiles, each over its best Gaussian (dashed), on a logarithmic scale."""
    from seewide.analysis import pictures

    if not shapes:
        raise InputError("no profile to draw")
    with pictures.style():
        figure, (axis,) = pictures.canvas(1, 1, 7.2, 4.2)
        for colour, (name, shape) in zip(
            pictures.colours(len(shapes)), shapes.items(), strict=True
        ):
            inside = shape.profile > 0
            axis.semilogy(shape.radii[inside], shape.profile[inside], color=colour,
                          label=f"{name}  ({shape.gaussianity:.0%} Gaussian)")  # fmt: skip
            axis.semilogy(shape.radii, shape.gaussian(), color=colour, linestyle="--", linewidth=1)
        axis.set_ylim(1e-5, 1.5)
        axis.set_xlabel("pixels from the centre; dashed: the best Gaussian")
        axis.set_ylabel("contribution, of the largest")
        axis.grid(axis="y")
        axis.legend(fontsize=9)
        return pictures.save(figure, path)


def _least(function, low: float, high: float) -> float:
    """Where `function` is least: the best of a coarse grid, then golden sections around it.

    The grid, as the residual need not have one valley only.
    """
    grid = np.geomspace(low, high, 60)
    best = int(np.argmin([function(value) for value in grid]))
    low, high = grid[max(best - 1, 0)], grid[min(best + 1, len(grid) - 1)]
    golden = (5**0.5 - 1) / 2
    while high - low > 1e-4 * high:
        left, right = high - golden * (high - low), low + golden * (high - low)
        if function(left) < function(right):
            high = right
        else:
            low = left
    return float((low + high) / 2)
