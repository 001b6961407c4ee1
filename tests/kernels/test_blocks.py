"""Blocks of samples: Jacobians as sums over paths, and rows of several samples in one product."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastjac import Network, reference
from fastjac.kernels import packing
from fastjac.kernels.llvm import vectors
from support.contexts import packed
from support.examples import examples
from support.nonfinite import assert_same_pattern
from support.oracles import DTYPES, Case, assert_close, assert_right, cases, near_corner, tolerances

SAMPLES = 2 * 32 + 3  # Two blocks at least, and some more.


@pytest.fixture
def always(monkeypatch):
    monkeypatch.setattr(packing, "STACKED", {False: (24, 0), True: (24, 0)})
    monkeypatch.setattr(packing, "BY_PATHS", {False: 0, True: 0})


@pytest.fixture
def by_paths(monkeypatch):
    monkeypatch.setattr(packing, "BY_PATHS", {False: 1 << 40, True: 1 << 40})


def samples_of(net, rng):
    return rng.standard_normal((SAMPLES, net.n_inputs)).astype(net.dtype)


def assert_blocks_are_right(net):
    """Compare the Jacobians of a batch, and products with one cotangent for each sample."""
    rng = np.random.default_rng(0)
    x, v = samples_of(net, rng), rng.standard_normal((SAMPLES, net.n_outputs)).astype(net.dtype)
    (y, jac), (y_too, vjp) = net.value_and_jacobian(x), net.vjp(x, v)
    for i in range(SAMPLES):
        if not near_corner(net, x[i]):
            assert_right(net, x[i], y[i], jac[i])
            y_allowed, allowed = tolerances(net, x[i])
            assert_close(y_too[i], y[i], 2 * y_allowed)
            # What the product adds to the Jacobian's error is a rounding of each of its terms.
            sums = abs(v[i]).astype(float) @ (allowed + np.finfo(net.dtype).eps * net.n_outputs * abs(jac[i]))
            assert_close(vjp[i], v[i].astype(float) @ jac[i].astype(float), 2 * sums)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("widths", "hidden"),
    [
        ((8, 32, 4), "relu"),
        ((13, 16, 3), "relu"),
        ((64, 256, 256, 1), "elu"),
        ((17, 64, 64, 3), "tanh"),
        ((8, 32, 4), "tanh"),
    ],
)
def test_these_networks_stack_their_jacobians(widths, hidden, dtype):
    assert packing.stacking_pays(packed(Case(widths, hidden, "identity", dtype).network()))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("widths", "hidden", "head"),
    [
        ((500, 100, 10), "relu", "softmax"),
        ((17, 64, 64, 6), "relu", "tanh"),
        ((480, 512, 256, 128, 29), "elu", "identity"),
        ((20, 7), "relu", "softmax"),  # There is no product.
        ((13, 16, 1), "relu", "softmax"),  # The Jacobian is zero.
        ((3, 4, 4, 30), "tanh", "identity"),  # The product begins at the inputs.
        ((60, 4, 4, 50), "tanh", "identity"),  # There is room for no two samples.
    ],
)
def test_these_networks_do_not(widths, hidden, head, dtype):
    assert not packing.stacking_pays(packed(Case(widths, hidden, head, dtype).network()))


@pytest.mark.usefixtures("always")
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("head", ["softmax", "log_softmax", "tanh"])
@pytest.mark.parametrize(
    "widths", [(1, 3, 1), (8, 32, 4), (7, 20, 3), (33, 40, 2), (16, 5, 9, 4), (40, 70, 35, 24), (2, 2, 2, 2)]
)
def test_rows_of_any_width_are_right(widths, head, dtype):
    assert_blocks_are_right(Case(widths, "relu", head, dtype).network())


@pytest.mark.usefixtures("always")
@examples(60)
@given(cases(depth=4, widths=st.integers(1, 40)))
def test_any_network_is_right(case):
    assert_blocks_are_right(case.network())


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("widths", "hidden", "pays"),
    [
        ((8, 32, 4), "relu", True),
        ((13, 16, 3), "tanh", True),
        ((500, 100, 10), "relu", False),
        ((8, 16, 16, 4), "tanh", False),
        ((30, 20, 2), "tanh", False),
        ((20, 7), "relu", False),
    ],
)
def test_small_networks_with_one_hidden_layer_add_up_paths(widths, hidden, pays, dtype):
    assert (packed(Case(widths, hidden, "identity", dtype).network()).paths is not None) == pays


@pytest.mark.usefixtures("by_paths")
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("head", ["softmax", "log_softmax", "tanh"])
@pytest.mark.parametrize("widths", [(1, 3, 1), (8, 32, 4), (7, 20, 3), (33, 40, 2), (9, 30, 40), (2, 2, 2)])
def test_paths_of_any_number_are_right(widths, head, dtype):
    assert_blocks_are_right(Case(widths, "relu", head, dtype).network())


@pytest.mark.usefixtures("by_paths")
@examples(60)
@given(cases(depth=2, widths=st.integers(1, 40)))
def test_paths_of_any_network_are_right(case):
    assert_blocks_are_right(case.network())


@pytest.mark.parametrize("scales", [(1e-200, 1e-150), (1e200, 1e200), (1e200, np.inf)])
def test_paths_beyond_the_range_of_numbers_are_not_added_up(scales):
    (w1, b1), (w2, b2) = Case((8, 32, 4)).weights()
    w1[0, 0], w2[0, 0] = scales
    w1[:, 0] *= w1[:, 0] == w1[0, 0]  # The unit sees one input, and is inactive without it.
    net = Network([(w1, np.where(np.arange(32), b1, -1.0)), (w2, b2)], head="identity")
    assert packed(net).paths is None
    x = samples_of(net, np.random.default_rng(0))
    x[:, 0] = -1
    jac = net.value_and_jacobian(x)[1]
    for each, expected in zip(
        jac, (reference.value_and_jacobian(row, net.layers)[1] for row in x), strict=True
    ):
        assert_same_pattern(each, expected)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_sample_that_is_not_finite_spoils_no_other(dtype):
    net = Case((8, 32, 4), "relu", "softmax", dtype).network()
    x = samples_of(net, np.random.default_rng(0))
    x[5] = np.nan
    x[vectors.panel_width(net.dtype) + 2, 3] = np.inf
    y, jac = net.value_and_jacobian(x)
    for i in (5, vectors.panel_width(net.dtype) + 2):
        for got, expected in zip((y[i], jac[i]), reference.value_and_jacobian(x[i], net.layers), strict=True):
            assert_same_pattern(got, expected)
    for i in np.flatnonzero(np.isfinite(x).all(1)):
        assert_right(net, x[i], y[i], jac[i])


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_cotangent_that_is_not_finite_spoils_no_other(dtype):
    net = Network(Case((8, 32, 4), dtype=dtype).weights())
    x, v = samples_of(net, np.random.default_rng(0)), np.ones((SAMPLES, 4), dtype)
    v[3, 1] = np.nan
    _, vjp = net.vjp(x, v)
    np.testing.assert_array_equal(np.isnan(vjp).all(1), np.isnan(v).any(1))
    assert np.isfinite(np.delete(vjp, 3, axis=0)).all()
