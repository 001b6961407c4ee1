"""The kernels compute what the reference and outside oracles compute, within the rounding bound."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from fastjac import Network
from fastjac.layers import HEADS_ONLY, SELU_ALPHA, SELU_SCALE, Activation
from support.examples import examples
from support.oracles import (
    AUTOGRAD,
    DTYPES,
    EDGES,
    HEADS,
    HIDDEN,
    TOLERANCE,
    Case,
    assert_a_batch_is_right_after_nan,
    assert_close,
    assert_right,
    autograd_oracle,
    cases,
    jax_oracle,
    near_corner,
    reference64,
    tolerances,
    torch_oracle,
)

two_layers = cases(hidden=["relu"], heads=["softmax"], depth=2)


def assert_all_right(case):
    """Value, Jacobian and both products."""
    net, x = case.network(), case.x()
    while near_corner(net, x):
        case = replace(case, seed=case.seed + 1)
        net, x = case.network(), case.x()
    y, jac = net.value_and_jacobian(x)
    assert_right(net, x, y, jac)
    value = net(x)
    if net.packed.across:  # Where tangents are carried along, the sums are bracketed in another way.
        assert_right(net, x, value, jac)
    else:
        assert np.array_equal(value, y)
    assert np.array_equal(net.jacobian(x), jac)

    rng = np.random.default_rng(case.seed)
    v, u = (rng.standard_normal(n).astype(net.dtype) for n in (net.n_outputs, net.n_inputs))
    _, exact = reference64(net, x)
    _, allowed = tolerances(net, x)
    for got, given_vector, expected, tolerance in [
        (net.vjp(x, v), v, v @ exact, np.abs(v) @ allowed),
        (net.jvp(x, u), u, exact @ u, allowed @ np.abs(u)),
    ]:
        assert np.array_equal(got[0], value)
        assert got[1].dtype == net.dtype
        # A sum of as many terms as the vector has, however it is bracketed.
        assert_close(got[1], expected, (4 + np.log2(given_vector.size)) * tolerance)


@examples(150)
@given(cases())
def test_any_network_matches_the_reference(case):
    assert_all_right(case)


@examples(100)
@given(two_layers)
def test_any_relu_softmax_network_matches_the_reference(case):
    assert_all_right(case)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", EDGES)
@pytest.mark.parametrize("place", range(3))
def test_sizes_around_multiples_of_the_vector_width(place, size, dtype):
    widths = [9, 11, 5]
    widths[place] = size
    assert_all_right(Case(tuple(widths), dtype=dtype, seed=size))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "widths",
    [
        (1, 1, 1),
        (1, 1),
        (70, 1, 70),
        (1, 70, 1),
        (500, 100, 10),
        (8, 32, 4),
        (10, 100, 500),
        (300, 7, 200, 9),
        (3, 200, 5, 200, 2),
        (64, 64, 64, 64, 64, 64, 64),
        (1000, 1),
        (129, 257, 65),
        (2048, 8, 100),  # The Jacobian is written in long runs of a few rows.
        (70, 9, 40),
    ],
)
@pytest.mark.parametrize("head", ["softmax", "log_softmax", "identity"])
def test_particular_shapes(widths, head, dtype):
    assert_all_right(Case(widths, "relu", head, dtype, seed=1))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("activation", HIDDEN)
def test_every_activation_with_every_head(activation, head, dtype):
    assert_all_right(Case((19, 23, 7), activation, head, dtype, 1.5, seed=2))


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_article_s_unscaled_weights(dtype):
    case = Case((500, 100, 10), "relu", "softmax", dtype, scale=np.sqrt(500.0))
    assert_all_right(case)


@given(cases(hidden=AUTOGRAD, heads=[*AUTOGRAD, *HEADS_ONLY], dtypes=st.just(np.float64), depth=4))
def test_any_network_matches_autograd(case):
    net, x = case.network(), case.x()
    assume(not near_corner(net, x))
    y, jac = net.value_and_jacobian(x)
    y_expected, jac_expected = autograd_oracle(net.layers, x)
    y_allowed, jac_allowed = tolerances(net, x)
    assert_close(y, y_expected, 2 * y_allowed)
    assert_close(jac, jac_expected, 2 * jac_allowed)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("library", "oracle"), [("torch", torch_oracle), ("jax", jax_oracle)])
def test_any_network_matches_a_framework(library, oracle):
    pytest.importorskip(library)

    @examples(25)
    @given(cases(depth=4))
    def matches(case):
        net, x = case.network(), case.x()
        assume(not near_corner(net, x))
        y, jac = net.value_and_jacobian(x)
        y_expected, jac_expected = oracle(net.layers, x)
        y_allowed, jac_allowed = tolerances(net, x)
        assert_close(y, y_expected, 2 * y_allowed)
        assert_close(jac, jac_expected, 2 * jac_allowed)

    matches()


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_slope_at_zero_is_zero_as_in_frameworks(dtype):
    # Both hidden pre-activations are exactly 0; autograd would give half of the slope.
    layers = [(np.eye(2), [-1.0, -2.0]), (np.array([[1.0, 2.0], [3.0, -1.0]]), [0.0, 0.0])]
    net = Network(layers, head="identity", dtype=dtype)
    y, jac = net.value_and_jacobian([1.0, 2.0])
    assert np.array_equal(y, [0, 0])
    assert np.array_equal(jac, np.zeros((2, 2)))


CORNERS = np.array([-3.0, -1.0, 0.0, 1.0, 3.0, 6.0])
SLOPES = {
    "relu": [0, 0, 0, 1, 1, 1],
    "leaky_relu(0.25)": [0.25, 0.25, 0.25, 1, 1, 1],
    "elu(0.5)": [0.5 / np.e**3, 0.5 / np.e, 0.5, 1, 1, 1],
    "relu6": [0, 0, 0, 1, 1, 0],
    "hard_tanh": [0, 0, 1, 0, 0, 0],
    "prelu(0.25)": [0.25, 0.25, 0.25, 1, 1, 1],
    "selu": [
        *(SELU_SCALE * SELU_ALPHA / np.array([np.e**3, np.e, 1])),
        *([SELU_SCALE] * 3),
    ],
    "celu(0.5)": [np.e**-6, np.e**-2, 1, 1, 1, 1],
    "hard_sigmoid": [0, 1 / 6, 1 / 6, 1 / 6, 0, 0],
    "hard_swish": [0, 1 / 6, 1 / 2, 5 / 6, 1, 1],
    "abs": [-1, -1, 0, 1, 1, 1],
}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("activation", SLOPES)
def test_slopes_at_corners(activation, dtype):
    net = Network([(np.eye(6), np.zeros(6))], head=activation, dtype=dtype)
    expected = np.diag(SLOPES[activation])
    np.testing.assert_allclose(net.jacobian(CORNERS), expected, rtol=TOLERANCE[np.dtype(dtype)])


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("activation", SLOPES)
def test_slopes_at_corners_are_those_of_torch(activation):
    pytest.importorskip("torch")
    net = Network([(np.eye(6), np.zeros(6))], head=activation)
    _, expected = torch_oracle(net.layers, CORNERS)
    np.testing.assert_allclose(net.jacobian(CORNERS), expected, rtol=TOLERANCE[net.dtype])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("widths", [(9, 37, 5), (1, 200, 1), (2, 300, 300, 2), (40, 5, 60), (12, 20, 30, 7)])
def test_prelu_with_a_slope_for_each_unit(widths, dtype):
    rng = np.random.default_rng(3)
    *hidden, head = (Activation("prelu", tuple(rng.normal(size=units))) for units in widths[1:])
    assert_all_right(Case(widths, tuple(hidden), head, dtype))
    net = Case(widths, tuple(hidden), head, dtype).network()
    assert_a_batch_is_right_after_nan(net)
