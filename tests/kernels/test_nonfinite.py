"""NaN and infinity: the result is NaN, and infinite, exactly where the reference says so."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastjac import Network, graph
from fastjac.layers import HEADS_ONLY
from support.examples import examples
from support.nonfinite import SPECIAL, assert_as_reference, places, poisoned
from support.oracles import DTYPES, HEADS, HIDDEN, Case, cases

pytestmark = pytest.mark.filterwarnings("ignore:.*contains NaN:RuntimeWarning")


@examples(150)
@given(cases(depth=4, widths=st.integers(1, 40)), st.lists(places, min_size=1, max_size=3))
def test_any_network_is_nan_exactly_where_the_reference_is(case, places):
    assert_as_reference(*poisoned(case, places))


@examples(100)
@given(
    cases(hidden=["relu"], heads=["softmax"], depth=2, widths=st.integers(1, 40)),
    st.lists(places, min_size=1, max_size=2),
)
def test_a_relu_softmax_network_is_nan_exactly_where_the_reference_is(case, places):
    assert_as_reference(*poisoned(case, places))


@pytest.mark.parametrize("value", SPECIAL)
@pytest.mark.parametrize("which", range(5), ids=["x", "w1", "b1", "w2", "b2"])
@pytest.mark.parametrize("head", ["softmax", "log_softmax", "identity", "relu", "sigmoid"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_one_special_value_anywhere(dtype, head, which, value):
    case = Case((11, 37, 5), "relu", head, dtype)
    size = [11, 11 * 37, 37, 37 * 5, 5][which]
    for entry in (0, size // 2, size - 1):
        assert_as_reference(*poisoned(case, [(which, entry, value)]))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("widths", [(3, 21, 30), (3, 5, 41, 6, 11), (6, 7, 7, 10, 7), (30, 21, 3), (5, 9)])
def test_infinity_stays_infinity_where_nothing_cancels(widths, dtype):
    # All weights are positive. Infinity times the zeros that fill up a vector is NaN, and must not get out.
    case = Case(widths, "relu", "identity", dtype)
    net = Network([(np.abs(w), np.abs(b)) for w, b in case.weights()], head="identity")
    x = np.abs(case.x())
    x[1] = np.inf
    y, jac = net.value_and_jacobian(x)
    assert np.all(np.isposinf(y))
    assert np.all(np.isfinite(jac))
    finite = np.abs(case.x())
    for method, size in (("jvp", widths[0]), ("vjp", widths[-1])):
        vector = np.ones(size, dtype)
        vector[-1] = np.inf
        assert np.all(np.isposinf(getattr(net, method)(finite, vector)[1]))
    assert_as_reference(net, x)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("activation", HIDDEN)
def test_every_activation_carries_special_pre_activations_on(activation, dtype):
    biases = np.array([0.0, np.nan, np.inf, -np.inf, 2.0, -2.0, -0.0])
    eye = np.eye(biases.size)
    for head in ("identity", activation, *HEADS_ONLY):
        net = Network([(eye, biases), (eye, None)], activation, head, dtype)
        assert_as_reference(net, np.zeros(biases.size, dtype))
    net = Network([(eye, biases)], head=activation, dtype=dtype)
    assert_as_reference(net, np.zeros(biases.size, dtype))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("head", HEADS)
def test_nan_in_x_is_nan_in_every_output_that_sees_it(head, dtype):
    case = Case((6, 20, 4), "leaky_relu(0.2)", head, dtype)
    net, x = case.network(), case.x()
    x[3] = np.nan
    y, jac = net.value_and_jacobian(x)
    assert np.all(np.isnan(y))
    assert np.all(np.isnan(jac))


@pytest.mark.parametrize("dtype", DTYPES)
def test_nan_in_an_inactive_unit_is_not_lost(dtype):
    # Its unit is off, so a kernel that leaves it out would see nothing; 0 * nan is nan.
    case = Case((9, 24, 6), dtype=dtype)
    weights = case.weights()
    weights[0][1][5] = -100
    for layer, entry in ((0, (4, 5)), (1, (5, 2))):
        poisoned_weights = [tuple(a.copy() for a in pair) for pair in weights]
        poisoned_weights[layer][0][entry] = np.nan
        net = Network(poisoned_weights)
        assert_as_reference(net, case.x())
        assert np.isnan(net.jacobian(case.x())).any()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("method", ["vjp", "jvp"])
@pytest.mark.parametrize("place", ["x", "vector", "weights"])
def test_products_with_nan_are_nan(method, place, dtype):
    case = Case((6, 20, 4), "tanh", "softmax", dtype)
    weights, x = case.weights(), case.x()
    vector = np.ones(4 if method == "vjp" else 6, dtype)
    {"x": x, "vector": vector, "weights": weights[0][0][2]}[place][0] = np.nan
    net = Network(weights, "tanh")
    y, product = getattr(net, method)(x, vector)
    assert np.all(np.isnan(product))
    assert np.all(np.isnan(y)) == (place != "vector")


def chain(weights):
    return Network(weights, head="identity")


def square(weights):
    """Return a graph that is the chain of two layers, squared in between."""
    (w1, b1), (w2, b2), (w3, b3) = weights
    h = graph.affine(graph.affine(graph.input(len(w1)), w1, b1, "relu"), w2, b2, "relu")
    return Network(graph.affine(h * h, w3, b3), dtype=w1.dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("method", ["vjp", "jvp"])
@pytest.mark.parametrize("samples", [1, 70])
@pytest.mark.parametrize("network", [chain, square])
@pytest.mark.parametrize("bias", [0, -1000])
def test_a_vector_with_nan_gives_nan_also_where_no_unit_is_active(bias, network, samples, method, dtype):
    weights = Case((6, 20, 30, 4), "relu", "identity", dtype).weights()
    weights[0][1][:] = bias
    net, x = network(weights), np.random.default_rng(0).standard_normal((samples, 6)).astype(dtype)
    vector = np.ones((samples, 4 if method == "vjp" else 6), dtype)
    vector[samples // 3, 2] = np.nan
    product = getattr(net, method)(x, vector)[1]
    np.testing.assert_array_equal(np.isnan(product).all(1), np.isnan(vector).any(1))
    np.testing.assert_array_equal(np.isnan(product).any(1), np.isnan(vector).any(1))


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_cotangent_with_infinity_gives_the_same_in_a_batch(dtype):
    weights = [(np.abs(w), b) for w, b in Case((6, 20, 30, 4), "relu", "identity", dtype).weights()]
    weights[0][1][::2] = -1000  # These units are not active: infinity times 0 would be NaN.
    net = chain(weights)
    x, v = np.random.default_rng(0).standard_normal((70, 6)).astype(dtype), np.ones((70, 4), dtype)
    x, v[3, 1] = np.abs(x), np.inf
    assert np.isposinf(net.vjp(x, v)[1][3]).all()
    assert np.isposinf(net.vjp(x[3], v[3])[1]).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_clean_call_after_a_poisoned_one_is_clean(dtype):
    case = Case((9, 24, 6), dtype=dtype)
    net, x = case.network(), case.x()
    expected = net.value_and_jacobian(x)
    for value in SPECIAL:
        net.value_and_jacobian(np.full(9, value))
        for a, b in zip(net.value_and_jacobian(x), expected, strict=True):
            assert a.tobytes() == b.tobytes()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("head", ["softmax", "log_softmax"])
def test_infinite_logits_are_as_in_the_reference(head, dtype):
    inf = np.inf
    for logits in ([inf, 0, 1], [-inf, 0, 1], [-inf, -inf, 1], [inf, inf, 0], [-inf, -inf, -inf]):
        net = Network([(np.eye(3), logits)], head=head, dtype=dtype)
        assert_as_reference(net, np.zeros(3, dtype))
        case = replace(Case((3, 8, 3), head=head, dtype=dtype), seed=4)
        weights = case.weights()
        weights[1][1][:] = logits
        assert_as_reference(Network(weights, head=head), case.x())
