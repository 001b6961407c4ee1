"""The oracle itself: a hand-worked network, exact derivatives, and an outside autograd."""

import math

import mpmath
import numpy as np
import pytest
from hypothesis import assume, given
from mpmath import mpf

from fastjac.layers import HEADS_ONLY, Layer, as_activation
from fastjac.reference import slope, value_and_jacobian
from support.exact import value_and_slope
from support.oracles import (
    AUTOGRAD,
    HIDDEN,
    Case,
    assert_close,
    autograd_oracle,
    cases,
    near_corner,
    tolerances,
)

# z = (5, -1), so the second unit is inactive; logits (0, log 3).
X = np.array([1.0, 2.0])
W1, B1 = np.array([[1.0, 1.0], [2.0, -1.0]]), np.array([0.0, 0.0])
W2, B2 = np.array([[1.0, 2.0], [70.0, -30.0]]), np.array([-5.0, math.log(3) - 10])
PROBS = np.array([1 / 4, 3 / 4])
SILU_SLOPES = np.array([[1 / 2], [3 / 4 + 3 / 16 * math.log(3)]])
LOGITS_JACOBIAN = np.array([[1.0, 2.0], [2.0, 4.0]])


def chain(head):
    return [Layer(W1, B1, as_activation("relu")), Layer(W2, B2, as_activation(head))]


@pytest.mark.parametrize(
    ("head", "y", "jac"),
    [
        ("identity", [0, math.log(3)], LOGITS_JACOBIAN),
        ("softmax", PROBS, 3 / 16 * np.array([[-1, -2], [1, 2]])),
        ("log_softmax", np.log(PROBS), [[-3 / 4, -6 / 4], [1 / 4, 2 / 4]]),
        ("sigmoid", [1 / 2, 3 / 4], np.array([[1 / 4], [3 / 16]]) * LOGITS_JACOBIAN),
        ("softplus", [math.log(2), math.log(4)], np.array([[1 / 2], [3 / 4]]) * LOGITS_JACOBIAN),
        ("tanh", [0, 8 / 10], np.array([[1], [1 - 0.64]]) * LOGITS_JACOBIAN),
        ("relu", [0, math.log(3)], np.array([[0], [1]]) * LOGITS_JACOBIAN),
        ("leaky_relu(0.25)", [0, math.log(3)], np.array([[0.25], [1]]) * LOGITS_JACOBIAN),
        ("elu(2.0)", [0, math.log(3)], np.array([[2], [1]]) * LOGITS_JACOBIAN),
        ("relu6", [0, math.log(3)], np.array([[0], [1]]) * LOGITS_JACOBIAN),
        ("abs", [0, math.log(3)], np.array([[0], [1]]) * LOGITS_JACOBIAN),
        ("square", [0, math.log(3) ** 2], np.array([[0], [2 * math.log(3)]]) * LOGITS_JACOBIAN),
        ("exp", [1, 3], np.array([[1], [3]]) * LOGITS_JACOBIAN),
        ("hard_tanh", [0, 1], np.array([[1], [0]]) * LOGITS_JACOBIAN),
        ("silu", [0, 3 / 4 * math.log(3)], SILU_SLOPES * LOGITS_JACOBIAN),
    ],
)
def test_a_network_worked_by_hand(head, y, jac):
    got_y, got_jac = value_and_jacobian(X, chain(head))
    np.testing.assert_allclose(got_y, y, rtol=1e-14, atol=4e-15)
    np.testing.assert_allclose(got_jac, jac, rtol=1e-14, atol=4e-15)


POINTS = [-40.0, -8.5, -3.0, -1.5, -0.75, -1e-3, -1e-12, 1e-12, 1e-3, 0.5, 1.25, 2.5, 5.5, 6.5, 8.5, 40.0]


@pytest.mark.parametrize("spec", HIDDEN)
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.longdouble])
def test_an_activation_and_its_derivative_match_an_exact_evaluation(spec, dtype):
    activation = as_activation(spec)
    points = np.array(POINTS, dtype)
    layer = Layer(np.eye(points.size, dtype=dtype), np.zeros(points.size, dtype), activation)
    y, jac = value_and_jacobian(points, [layer])
    assert y.dtype == jac.dtype == dtype
    with mpmath.workdps(60):
        y_exact, slopes = np.array([value_and_slope(mpf(z), activation) for z in POINTS], float).T
    # Absolute, of the size of the function nearby: all of them cancel somewhere, and gelu is float64.
    eps = max(np.finfo(dtype).eps, np.finfo(np.float64).eps)
    allowed = 8 * eps * np.maximum(1, np.abs([points, y_exact]).max(axis=0))
    assert_close(y, y_exact, allowed)
    assert_close(np.diag(jac), slopes, allowed)


@pytest.mark.parametrize("name", ["tanh", "sigmoid", "softplus", "elu", "selu", "celu", "softsign", "mish"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_small_slopes_keep_their_digits(name, dtype):
    activation, sign = as_activation(name), -1
    points = np.array([5.0, 8.0, 9.0, 20.0, 40.0, 80.0, 300.0], dtype)
    if name in ("tanh", "sigmoid", "softsign"):
        sign = np.array([1, -1, 1, -1, 1, -1, 1])
    with mpmath.workdps(40):
        exact = np.array([float(value_and_slope(mpf(float(z)), activation)[1]) for z in sign * points])
    allowed = 20 * np.finfo(dtype).eps * np.abs(exact) + np.finfo(dtype).tiny
    assert_close(slope(dtype(1) * sign * points, activation), exact, allowed)


@pytest.mark.parametrize(
    ("spec", "at", "expected"),
    [
        ("relu", 0, 0),
        ("leaky_relu(0.2)", 0, 0.2),
        ("elu(0.5)", 0, 0.5),
        ("relu6", 0, 0),
        ("relu6", 6, 0),
        ("hard_tanh", -1, 0),
        ("hard_tanh", 1, 0),
        ("prelu(0.2)", 0, 0.2),
        ("celu(0.5)", 0, 1),
        ("hard_sigmoid", -3, 0),
        ("hard_sigmoid", 3, 0),
        ("hard_swish", -3, 0),
        ("hard_swish", 3, 1),
        ("abs", 0, 0),
    ],
)
@pytest.mark.parametrize("sign", [1, -1])
def test_the_slope_at_a_corner_is_that_of_torch(spec, at, expected, sign):
    layer = Layer(np.array([[1.0]]), np.array([0.0]), as_activation(spec))
    x = np.array([at * 1.0 if at else math.copysign(0.0, sign)])
    assert value_and_jacobian(x, [layer])[1] == expected


@given(cases(hidden=AUTOGRAD, heads=[*AUTOGRAD, *HEADS_ONLY]))
def test_any_network_matches_autograd(case):
    net, x = case.network(), case.x()
    assume(not near_corner(net, x))
    layers = [Layer(w.astype(np.float64), b.astype(np.float64), a) for w, b, a in net.layers]
    x = x.astype(np.float64)
    y, jac = value_and_jacobian(x, layers)
    y_expected, jac_expected = autograd_oracle(layers, x)
    y_allowed, jac_allowed = tolerances(Case(**{**vars(case), "dtype": np.float64}).network(), x)
    assert_close(y, y_expected, y_allowed)
    assert_close(jac, jac_expected, jac_allowed)


@pytest.mark.parametrize("where", ["x", "w1", "b1", "w2", "b2"])
def test_nan_anywhere_in_a_softmax_network_is_nan_everywhere(where):
    arrays = {"x": X.copy(), "w1": W1.copy(), "b1": B1.copy(), "w2": W2.copy(), "b2": B2.copy()}
    arrays[where].flat[0] = np.nan
    layers = [
        Layer(arrays["w1"], arrays["b1"], as_activation("relu")),
        Layer(arrays["w2"], arrays["b2"], as_activation("softmax")),
    ]
    y, jac = value_and_jacobian(arrays["x"], layers)
    assert np.all(np.isnan(y))
    assert np.all(np.isnan(jac))
