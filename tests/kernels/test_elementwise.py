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


@njit
def apply(function, points, values):
    for i in range(points.size):
        values[i] = function(points[i])


def values_of(function, points):
    """Return the function's values in the format of the points: numba makes a float of one returned."""
    values = np.empty_like(points)
    apply(function, points, values)
    return values


# Name -> compiled function, exact function, limits of the arguments in each format, bound in units in the
# last place.
CASES = {
    "exp": (elementwise.exp, mpmath.exp, {"float64": (-700, 709), "float32": (-87, 88)}, 1.1),
    "expm1": (elementwise.expm1, mpmath.expm1, {"float64": (-40, 44), "float32": (-20, 44)}, 2),
    "log1p": (elementwise.log1p, mpmath.log1p, {"float64": (0, 1), "float32": (0, 1)}, 2),
    "normal_tail": (
        njit(lambda z: elementwise.normal_tail(z)[0]),
        lambda z: mpmath.erfc(abs(z) / mpmath.sqrt(2)) / 2,
        {"float64": (-37, 37)},
        6,
    ),
    "normal density": (
        njit(lambda z: elementwise.normal_tail(z)[1]),
        mpmath.npdf,
        {"float64": (-37, 37)},
        6,
    ),
}


@pytest.mark.parametrize(("name", "dtype"), [(name, dtype) for name in CASES for dtype in CASES[name][2]])
def test_error_in_units_in_the_last_place(name, dtype):
    function, exact, limits, bound = CASES[name]
    points = near_and_far(*limits[dtype]).astype(dtype)
    values = values_of(function, points)
    worst = max(
        abs(mpmath.mpf(float(value)) - exact(mpmath.mpf(float(point))))
        / mpmath.mpf(float(np.spacing(abs(value))))
        for point, value in zip(points, values, strict=True)
    )
    assert worst <= bound


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_exp_at_its_ends(dtype):
    low, high = {"float32": (-103.0, 88.7), "float64": (-745.0, 709.7)}[dtype]
    values = np.array([-np.inf, 1.1 * low, low, 0.0, high, high + 0.5, np.inf], dtype)
    with np.errstate(over="ignore"):
        expected = np.exp(values)
    np.testing.assert_allclose(values_of(elementwise.exp, values), expected, rtol=4 * np.finfo(dtype).eps)
    nan = np.array([np.nan], dtype)
    assert np.isnan(values_of(elementwise.exp, nan)) and np.isnan(values_of(elementwise.expm1, nan))
