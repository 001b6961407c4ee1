"""Networks and inputs with NaN and infinity in them, and where the reference has them in its results."""

import numpy as np
from hypothesis import strategies as st

from fastjac import Network, reference

SPECIAL = [np.nan, np.inf, -np.inf]


def poisoned(case, places):
    """The network and x with a special value at each of ``places``: (which array, which entry, value)."""
    weights, x = case.weights(), case.x()
    arrays = [x, *(array for pair in weights for array in pair)]
    for which, entry, value in places:
        array = arrays[which % len(arrays)]
        array.flat[entry % array.size] = value
    return Network(weights, case.activation, case.head, case.dtype), x


def assert_same_pattern(got, expected):
    """The same NaN, the same infinities with their signs; NaN has no sign."""
    assert np.array_equal(np.isnan(got), np.isnan(expected)), (got, expected)
    assert np.array_equal(np.isposinf(got), np.isposinf(expected)), (got, expected)
    assert np.array_equal(np.isneginf(got), np.isneginf(expected)), (got, expected)


def assert_as_reference(net, x):
    y_expected, jac_expected = reference.value_and_jacobian(x, net.layers)
    buffers = np.zeros(net.n_outputs, net.dtype), np.zeros((net.n_outputs, net.n_inputs), net.dtype)
    for y, jac in (net.value_and_jacobian(x), net.value_and_jacobian(x, out=buffers)):
        assert_same_pattern(y, y_expected)
        assert_same_pattern(jac, jac_expected)
    assert_same_pattern(net(x), y_expected)


places = st.tuples(st.integers(0, 12), st.integers(0, 10**6), st.sampled_from(SPECIAL))
