"""How close a receptive field is to a Gaussian (UniConvNet, arXiv 2508.09000, section 3).

Luo et al. (arXiv 1701.04128) showed that the receptive field of a deep stack of small kernels tends
to a Gaussian. UniConvNet claims an "asymptotically Gaussian" field of a larger size, and shows it
in figures only. The measures here, with P the contributions of an `ERF` scaled to a sum of 1:

* center: the center of mass, since the feature at h // 2 of a map of even size is half a stride off
  the center of the image;
* radial profile: p(r), the mean of P over the pixels whose distance from the center rounds to r;
* best Gaussian: G(sigma), the isotropic Gaussian around the center, scaled to a sum of 1 over the
  same pixels, with the sigma of the smallest residual;
* residual: the total variation distance sum |P - G| / 2: 0 for a Gaussian, 1 for no overlap.
  `gaussianity` is 1 - residual;
* monotonicity: the share of the total variation of p(r) that is decrease: 1 for a profile that
  never increases.

Strides cause a grid pattern in P, so P is first averaged over square cells with a side of 1/64 of
the image, unless `cell` says otherwise.
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
    """The measures above.

    Attributes:
        sigma: of the best Gaussian, in pixels.
        residual: 0 to 1.
        monotonicity: 0 to 1.
        radii: in pixels.
        profile: p at `radii`, relative to its maximum.
    """

    sigma: float
    residual: float
    monotonicity: float
    radii: np.ndarray
    profile: np.ndarray

    @property
    def gaussianity(self) -> float:
        """1 - residual."""
        return 1 - self.residual

    def gaussian(self) -> np.ndarray:
        """The best Gaussian at `radii`, relative to its maximum."""
        return np.exp(-(self.radii**2) / (2 * self.sigma**2))


def gaussian_shape(erf: ERF, cell: int | None = None, of: str = "contribution") -> GaussianShape:
    """Compare an effective receptive field with the closest Gaussian.

    Args:
        erf: of `effective_receptive_field`.
        cell: side in pixels of the cells that are averaged first; default: 1/64 of the image.
        of: "contribution" for P, or "scores" for the logarithm in the papers' figures, which
            widens a Gaussian.

    Raises:
        InputError: a field without contributions, an unknown `of`, or cells that are too large.
    """
    if of not in ("contribution", "scores"):
        raise InputError(f"of must be 'contribution' or 'scores', got {of!r}")
    mass = erf.contribution if of == "contribution" else erf.scores
    cell = max(min(mass.shape) // 64, 1) if cell is None else cell
    if not 1 <= cell <= min(mass.shape) // 2:
        raise InputError(f"cell must be 1 to {min(mass.shape) // 2} for this image, got {cell=}")
    if not mass.sum() > 0:
        raise InputError("the receptive field is empty: no pixel contributes")
    H, W = (side // cell for side in mass.shape)
    mass = mass[: H * cell, : W * cell].reshape(H, cell, W, cell).sum((1, 3))
    mass = mass / mass.sum()
    y, x = np.arange(H), np.arange(W)
    distance = cell * np.hypot((y - mass.sum(1) @ y)[:, None], x - mass.sum(0) @ x)

    def residual(sigma: float) -> float:
        gaussian = np.exp(-(distance**2) / (2 * sigma**2))
        return np.abs(mass - gaussian / gaussian.sum()).sum() / 2

    sigma = _minimize(residual, cell / 2, 2 * distance.max())
    rings = np.round(distance / cell).astype(int).ravel()
    counts = np.bincount(rings)
    # Rings that are cut by the border would show some directions only.
    complete = 1 + int(min(distance[0].min(), distance[-1].min(), distance[:, 0].min(),
                        distance[:, -1].min()) / cell)  # fmt: skip
    radii = np.flatnonzero(counts[:complete])  # a center between cells has none at radius 0
    profile = np.bincount(rings, mass.ravel())[radii] / counts[radii]
    steps = np.diff(profile)
    variation = np.abs(steps).sum()
    return GaussianShape(
        sigma=sigma,
        residual=residual(sigma),
        monotonicity=float(-steps[steps < 0].sum() / variation) if variation else 1.0,
        radii=cell * radii.astype(float),
        profile=profile / profile.max(),
    )


def draw_profiles(shapes: Mapping[str, GaussianShape], path: str | os.PathLike) -> Path:
    """Radial profiles and their best Gaussians (dashed) on a logarithmic scale.

    Raises:
        InputError: no profiles.
    """
    from seewide.analysis import figures

    if not shapes:
        raise InputError("no profile to draw")
    with figures.style():
        figure, (axis,) = figures.canvas(1, 1, 7.2, 4.2)
        for color, (name, shape) in zip(figures.colors(len(shapes)), shapes.items(), strict=True):
            inside = shape.profile > 0
            label = figures.plain(f"{name}  ({shape.gaussianity:.0%} Gaussian)")
            axis.semilogy(shape.radii[inside], shape.profile[inside], color=color, label=label)
            axis.semilogy(shape.radii, shape.gaussian(), color=color, linestyle="--", linewidth=1)
        axis.set_ylim(1e-5, 1.5)
        axis.set_xlabel("distance from the center in pixels (dashed: best Gaussian)")
        axis.set_ylabel("contribution relative to the maximum")
        axis.grid(axis="y")
        axis.legend(fontsize=9)
        return figures.save(figure, path)


def _minimize(function, low: float, high: float) -> float:
    """The minimizer of `function`: best of a coarse grid, then a golden-section search around it.

    The grid is needed since the residual may have several local minima.
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
