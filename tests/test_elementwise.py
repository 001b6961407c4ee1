"""The error of the functions that the activations are made of, against mpmath."""

import mpmath
import numpy as np
import pytest
from numba import njit

from fastjac.kernels import elementwise

mpmath.mp.dps = 40
rng = np.random.default_rng(0)


def near_and_far(low, high):
    """Arguments between two limits, and small ones of both signs."""
    small = rng.normal(size=500) * np.logspace(-12, 0, 500)
    points = np.concatenate([rng.uniform(low, high, 1500), small])
    return points[(low <= points) & (points <= high)]


# Name -> compiled function, exact function, arguments, bound in units in the last place.
CASES = {
    "exp": (elementwise.exp, mpmath.exp, near_and_far(-700, 709), 1),
    "expm1": (elementwise.expm1, mpmath.expm1, near_and_far(-40, 44), 2),
    "log1p": (elementwise.log1p, mpmath.log1p, near_and_far(0, 1), 2),
    "normal_tail": (
        njit(lambda z: elementwise.normal_tail(z)[0]),
        lambda z: mpmath.erfc(abs(z) / mpmath.sqrt(2)) / 2,
        near_and_far(-37, 37),
        6,
    ),
    "normal density": (
        njit(lambda z: elementwise.normal_tail(z)[1]),
        mpmath.npdf,
        near_and_far(-37, 37),
        6,
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_error_in_units_in_the_last_place(name):
    function, exact, points, bound = CASES[name]
    worst = max(
        abs(mpmath.mpf(value) - exact(mpmath.mpf(point))) / mpmath.mpf(float(np.spacing(abs(value))))
        for point, value in ((float(point), function(point)) for point in points)
    )
    assert worst <= bound


def test_exp_at_its_ends():
    values = [-np.inf, -800.0, -745.0, 0.0, 709.7, 710.0, np.inf]
    with np.errstate(over="ignore"):
        expected = np.exp(values)
    np.testing.assert_allclose([elementwise.exp(value) for value in values], expected, rtol=1e-15)
    assert np.isnan(elementwise.exp(np.nan)) and np.isnan(elementwise.expm1(np.nan))
