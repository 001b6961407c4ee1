"""Where a block of samples begins, and where the head takes a pivot."""

import numpy as np
import pytest

from fastjac import Network
from fastjac.kernels.llvm import vectors
from support.contexts import Watched
from support.oracles import DTYPES, Case, assert_right

IN_BLOCKS = [(33, 40, 10), (50, 40, 30, 20, 10), (20, 7), (64, 64, 64)]
# Their plans read a weight matrix as w, and blocks would read all as w.T.
ONE_BY_ONE = [(40, 50, 100), (20, 40, 30, 40), (40, 3, 40, 20)]


def samples_of(net, count):
    return np.random.default_rng(0).standard_normal((count, net.n_inputs)).astype(net.dtype)


def in_lanes(watched):
    """Return the samples (B, N) of the last block that was taken, or zeros."""
    lanes = int(watched.context.record["samples"])
    return watched.memory("block_x", watched.net.n_inputs, lanes).T


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("widths", IN_BLOCKS, ids=str)
def test_samples_are_taken_together_from_a_panel_s_width_on(widths, dtype):
    net = Case(widths, "tanh", "softmax", dtype).network()
    width = vectors.panel_width(net.dtype)
    for count in (1, width - 1, width, width + 1, 2 * width - 1, 2 * width, 2 * width + 1):
        watched, x = Watched(net), samples_of(net, count)
        y, jac = watched.value_and_jacobian(x)
        last = count // width * width
        expected = x[last - width : last] if last else np.zeros((width, net.n_inputs))
        np.testing.assert_array_equal(in_lanes(watched), expected)
        for i in range(count):
            assert_right(net, x[i], y[i], jac[i])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("widths", ONE_BY_ONE, ids=str)
def test_these_networks_take_samples_one_by_one(widths, dtype):
    watched = Watched(Case(widths, dtype=dtype).network())
    watched.value_and_jacobian(samples_of(watched.net, 3 * vectors.panel_width(watched.net.dtype)))
    assert not in_lanes(watched).any()
    assert len(in_lanes(watched)) == 1  # There is room for no more.


# Logits -> the pivot: the most probable class from a probability of 1/2 on.
PIVOTS = {
    (0, 0): 0,
    (-1, 0): 1,
    (0, 0, -10): -1,  # A little less than 1/2 each.
    (0, 0, -2000): 0,
    (0, 1, 0): 1,
    (0, 0.5, 0): -1,
    (5, 100, 5): 1,
    (0, 2000, 0): 1,  # The other classes' probabilities are 0.
}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("head", ["softmax", "log_softmax"])
@pytest.mark.parametrize("logits", PIVOTS, ids=str)
@pytest.mark.parametrize("together", [False, True])
def test_the_pivot_is_the_class_that_has_half_of_all_probability(logits, head, together, dtype):
    weights = np.random.default_rng(0).standard_normal((20, len(logits))).astype(dtype)
    # The biases alone make the logits of the last sample, which is what the record tells of.
    watched = Watched(Network([(weights, np.array(logits, dtype))], head=head))
    x = samples_of(watched.net, vectors.panel_width(watched.net.dtype) if together else 1)
    x[-1] = 0
    y, jac = watched.value_and_jacobian(x)
    assert in_lanes(watched).any() == together
    assert watched.record["pivot"] == PIVOTS[logits]
    assert_right(watched.net, x[-1], y[-1], jac[-1])
