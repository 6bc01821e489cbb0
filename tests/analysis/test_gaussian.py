"""The Gaussian fit of known fields."""

import numpy as np
import pytest
from matplotlib.image import imread

from seewide.analysis.erf import ERF
from seewide.analysis.gaussian import draw_profiles, gaussian_shape
from seewide.errors import InputError


def field(function, side=101):
    y, x = np.indices((side, side)) - side // 2
    return ERF(function(np.hypot(y, x)).astype(float), images=1)


def gaussian(sigma):
    return lambda r: np.exp(-(r**2) / (2 * sigma**2))


@pytest.mark.parametrize("sigma", [1.5, 8.0, 20.0])
def test_sigma_of_a_gaussian_is_found(sigma):
    shape = gaussian_shape(field(gaussian(sigma)), cell=1)
    assert shape.sigma == pytest.approx(sigma, rel=1e-3)
    assert shape.residual < 1e-3
    assert shape.gaussianity == pytest.approx(1, abs=1e-3)
    assert shape.monotonicity == 1
    np.testing.assert_allclose(shape.profile[:3], shape.gaussian()[:3], atol=0.15)


def test_residual_of_a_disc():
    """It is large and does not depend on the radius."""
    residuals = [gaussian_shape(field(lambda r, R=R: r <= R)).residual for R in (15, 30)]
    assert residuals[0] == pytest.approx(residuals[1], abs=0.02)
    assert residuals[0] > 0.2


def test_two_peaks_are_not_monotonic():
    ring = gaussian_shape(field(lambda r: gaussian(3)(r) + gaussian(3)(r - 30)))
    assert ring.monotonicity == pytest.approx(2 / 3, abs=0.03)  # decreases twice, increases once
    assert ring.residual > 0.5


def test_cells_remove_the_grid_of_a_strided_stem():
    """Every fourth pixel contributes, as with a 1x1 stem of stride 4."""
    y, x = np.indices((128, 128)) - 64
    mass = gaussian(14)(np.hypot(y, x)) * (y % 4 == 0) * (x % 4 == 0)
    assert gaussian_shape(ERF(mass, 1), cell=1).residual > 0.8
    smooth = gaussian_shape(ERF(mass, 1), cell=4)
    assert smooth.residual < 0.01
    assert smooth.sigma == pytest.approx(14, rel=0.01)


def test_gaussian_off_the_center():
    moved = ERF(np.roll(field(gaussian(8)).contribution, (9, -12), (0, 1)), images=1)
    shape = gaussian_shape(moved)
    assert shape.sigma == pytest.approx(8, rel=0.01)
    assert shape.gaussianity > 0.99
    assert shape.radii[-1] == pytest.approx(38, abs=1), "complete rings only"


def test_the_logarithm_widens_a_gaussian():
    erf = field(lambda r: 1e3 * gaussian(6)(r))
    assert gaussian_shape(erf, of="scores").sigma > 1.3 * gaussian_shape(erf).sigma


def test_figure_of_profiles(tmp_path):
    shape = gaussian_shape(field(gaussian(9)))
    one = imread(draw_profiles({"a": shape}, tmp_path / "one.png"))
    two = draw_profiles({"a": shape, "b": gaussian_shape(field(gaussian(3)))}, tmp_path / "b.png")
    assert (imread(two)[:, :, 0] != one[:, :, 0]).any()


def test_bad_input(tmp_path):
    with pytest.raises(InputError, match="the receptive field is empty"):
        gaussian_shape(ERF(np.zeros((9, 9)), 1))
    with pytest.raises(InputError, match="cell must be 1 to 4 for this image, got cell=5"):
        gaussian_shape(ERF(np.ones((9, 9)), 1), cell=5)
    with pytest.raises(InputError, match="of must be 'contribution' or 'scores', got 'log'"):
        gaussian_shape(ERF(np.ones((9, 9)), 1), of="log")
    with pytest.raises(InputError, match="no profile to draw"):
        draw_profiles({}, tmp_path / "a.png")
