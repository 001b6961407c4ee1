"""The error of the functions that the activations are made of, against mpmath."""

import mpmath
import numpy as np
import pytest
from mpmath import mpf
from numba import njit

from fastjac import Network
from fastjac.kernels import elementwise
from fastjac.layers import as_activation
from support.exact import value_and_slope

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
    "log1p": (elementwise.log1p, mpmath.log1p, {"float64": (0, 1), "float32": (0, 1)}, 2),
    "normal_tail": (
        njit(lambda z: elementwise.normal_tail(z)[0] * elementwise.normal_tail(z)[2]),
        lambda z: mpmath.erfc(z / mpmath.sqrt(2)) / 2,
        {"float64": (0, 37)},
        6,
    ),
    "normal density": (
        njit(lambda z: elementwise.normal_tail(z)[1] * elementwise.normal_tail(z)[2]),
        mpmath.npdf,
        {"float64": (0, 37)},
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
    assert np.isnan(values_of(elementwise.exp, nan))


# Name -> bounds of the errors of value and slope, in units in the last place: the table in docs/layers.md.
BOUNDS = {
    "identity": (0, 0),
    "relu": (0, 0),
    "leaky_relu(0.2)": (0.5, 0),
    "relu6": (0, 0),
    "hard_tanh": (0, 0),
    "elu": (2, 1.5),
    "elu(0.3)": (2, 1.5),
    "tanh": (2.5, 4),
    "sigmoid": (2.5, 4),
    "softplus": (2.5, 2),
    "silu": (3.5, 5),
    "gelu": (6, 7),
    "gelu_tanh": (6, 6.5),
    "prelu(0.3)": (0.5, 0),
    "selu": (2, 1.5),
    "celu": (2, 1.5),
    "celu(0.7)": (3, 1.5),
    "celu(3.1)": (3, 1.5),
    "hard_sigmoid": (1, 0.5),
    "hard_swish": (2, 1),
    "mish": (4, 6),
    "softsign": (2, 3.5),
    "exp": (1.1, 1.1),
    "square": (0.5, 0),
    "abs": (0, 0),
    "sin": (1.5, 1.5),
    "cos": (1.5, 1.5),
}
# Slopes that cross 0 between -3 and 0: there the unit is that of numbers from 1/8 to 1/4.
CROSSING = ("silu", "gelu", "gelu_tanh", "hard_swish", "mish")


def points_of_whole_range(name, dtype):
    """Return numbers of all sizes and both signs, denser ones where an activation bends, and those beside."""
    info, rng = np.finfo(dtype), np.random.default_rng(0)
    exponents = np.log2(float(info.smallest_subnormal)), info.maxexp - 1e-9
    bends = [-6.0, -3.0, -1.5, -1.27846454, -1.19243, -0.7517916, -1.0, 1.0, 3.0, 6.0, -0.693, 0.693]
    far = np.log(float(info.max)) + 20
    random = [
        np.exp2(rng.uniform(*exponents, 400)),
        np.exp2(rng.uniform(-12, 12, 400)),
        rng.uniform(0, 10, 400),
        rng.uniform(0, 40, 400),
        rng.uniform(0, far, 400),
    ]
    ends = [0.0, info.tiny, info.smallest_subnormal, info.max]
    special = np.concatenate([bends, ends, np.negative(ends)])
    if name in ("sin", "cos"):
        multiples = np.concatenate([np.arange(-40, 40), rng.integers(-70000, 70000, 400)])
        special = np.concatenate([special, multiples * (np.pi / 2)])
    points, special = np.concatenate(random).astype(dtype), special.astype(dtype)
    with np.errstate(all="ignore"):
        beside = [np.nextafter(special, dtype(end)) for end in (-np.inf, np.inf)]
    return np.concatenate([points, -points, special, *beside])


def activated(activation, points):
    """Return values and slopes of the compiled activation, whose pre-activations are a layer's biases."""
    net = Network([(np.ones((1, points.size), points.dtype), points)], head=activation)
    y, jac = net.value_and_jacobian([0.0])
    return y, jac[:, 0]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("spec", BOUNDS)
def test_values_and_slopes_over_the_whole_range(spec, dtype):
    activation, info = as_activation(spec), np.finfo(dtype)
    if activation.parameter:  # in the dtype, as the kernel rounds it
        activation = activation._replace(parameter=float(dtype(activation.parameter)))
    points = points_of_whole_range(activation.name, dtype)
    points = points[np.isfinite(points) & ~np.isin(points, activation.kinks)]
    worst = [(0, None), (0, None)]
    for z, *found in zip(points, *activated(activation, points), strict=True):
        z = mpf(float(z))
        for number, (got, exact) in enumerate(zip(found, value_and_slope(z, activation), strict=True)):
            size = abs(exact)
            if number and activation.name in CROSSING and -3 < z < 0:
                size = max(size, mpf(1) / 8)
            if size > float(info.max):
                assert got == np.copysign(np.inf, float(mpmath.sign(exact))), z
                continue
            # Below the smallest normal number, units are as large as there.
            unit = mpf(2) ** (max(mpmath.frexp(size)[1] - 1, int(info.minexp)) - int(info.nmant))
            error = abs(mpf(float(got)) - exact) / unit
            if not error <= worst[number][0]:  # so that NaN stays
                worst[number] = (error, z)
    for (error, z), bound, what in zip(worst, BOUNDS[spec], ("value", "slope"), strict=True):
        assert error <= bound, f"{what} at {mpmath.nstr(z, 20)}: {mpmath.nstr(error, 4)} units, bound {bound}"
