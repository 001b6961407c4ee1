"""Names of inputs and outputs: every method puts what it is given in the network's order."""

import re

import numpy as np
import pytest

from fastjac import Network, check_jacobian, explain

NAMES, OUTPUTS = ("a", "b", "c"), ("p", "q")
RNG = np.random.default_rng(5)
X = RNG.normal(size=(4, 3))


@pytest.fixture
def net():
    pairs = [(RNG.normal(size=(3, 4)), None), (RNG.normal(size=(4, 2)), None)]
    return Network(pairs, "tanh", input_names=NAMES, output_names=OUTPUTS)


def named(x, names, order):
    """A structured array of ``x`` (..., names) with its fields in another order."""
    fields = np.dtype([(name, float) for name in names])
    return np.ascontiguousarray(x).view(fields).reshape(x.shape[:-1])[list(order)]


CALLS = {
    "call": lambda net, x, u, v: net(x),
    "value_and_jacobian": lambda net, x, u, v: net.value_and_jacobian(x)[1],
    "threads": lambda net, x, u, v: net.value_and_jacobian(x, threads=2)[1],
    "jacobian": lambda net, x, u, v: net.jacobian(x),
    "jvp": lambda net, x, u, v: net.jvp(x, u)[1],
    "vjp": lambda net, x, u, v: net.vjp(x, v)[1],
    "sensitivity": lambda net, x, u, v: net.sensitivity(x),
    "saliency": lambda net, x, u, v: explain.saliency(net, x).values,
    "input_x_gradient": lambda net, x, u, v: explain.input_x_gradient(net, x).values,
    "integrated_gradients": lambda net, x, u, v: explain.integrated_gradients(net, x, baseline=u).values,
    "importance": lambda net, x, u, v: explain.importance(net, x, scale=abs(X[0])).values,
}


@pytest.mark.parametrize("name", CALLS)
def test_every_call_puts_names_in_order(net, name):
    x, u, v = X, RNG.normal(size=X.shape), RNG.normal(size=(4, 2))
    expected = CALLS[name](net, x, u, v)
    got = CALLS[name](net, named(x, NAMES, "cab"), named(u, NAMES, "bca"), named(v, OUTPUTS, "qp"))
    np.testing.assert_array_equal(got, expected)
    with pytest.raises(ValueError, match="x has other names than the network: missing: 'c'; unexpected: 'd'"):
        CALLS[name](net, named(x, ("a", "b", "d"), "abd"), u, v)


def test_a_scale_is_put_in_order(net):
    scale = np.array([1.0, 20.0, 300.0])
    got = net.sensitivity(X, scale=named(scale, NAMES, "cab"))
    np.testing.assert_array_equal(got, net.sensitivity(X, scale=scale))


def test_rows_in_a_list_are_put_in_order(net):
    rows = list(named(X[:2], NAMES, "cab"))
    np.testing.assert_array_equal(net(rows), net(X[:2]))


def test_check_and_changes_put_one_sample_in_order(net):
    x, to = named(X[0], NAMES, "cab"), named(X[1], NAMES, "bca")
    assert str(check_jacobian(net, x)) == str(check_jacobian(net, X[0]))
    np.testing.assert_array_equal(explain.what_if(net, x, to), explain.what_if(net, X[0], X[1]))


@pytest.mark.parametrize(
    ("x", "error", "message"),
    [
        ([[1, 2, 3], [4, 5]], ValueError, "x is no array of numbers: "),
        ([np.ma.array([1.0, 2.0, 3.0], mask=[0, 1, 0])], ValueError, "x[0] has masked values"),
    ],
)
def test_lists_that_are_no_samples_are_errors_that_name_the_argument(net, x, error, message):
    with pytest.raises(error, match=re.escape(message)):
        net(x)
