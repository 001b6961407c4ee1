"""Which way a network takes, as packing decides by its sizes, and that compiled code takes it."""

import numpy as np
import pytest

from fastjac import Network
from fastjac.kernels.llvm import vectors
from support.contexts import Watched
from support.oracles import DTYPES, Case, assert_right

# Far from the limits, which were measured and may move.
CARRYING = [(1, 256, 256, 256, 1), (1, 512, 512, 1), (2, 50, 50, 20), (1, 40, 30)]
NOT_CARRYING = [(500, 100, 10), (8, 32, 4), (4, 10), (2, 20, 20, 1), (64, 64, 64, 64), (3, 32, 32, 3)]
# More outputs than inputs, by the Jacobian's own shape, and more units between or a large left factor.
TRANSPOSED = [(40, 50, 100), (20, 40, 30, 40), (128, 100, 1000)]
NOT_TRANSPOSED = [(500, 100, 10), (20, 60, 60, 20), (4, 3), (3, 4), (64, 8, 100), (64, 64, 100)]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("widths", CARRYING, ids=str)
def test_these_networks_carry_their_tangents(widths, dtype):
    case = Case(widths, head="sigmoid", dtype=dtype)
    net, x = Watched(case.network()), case.x()
    assert_right(net.net, x, *net.value_and_jacobian(x))
    assert net.record["carried"]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("widths", NOT_CARRYING, ids=str)
def test_these_networks_do_not_carry_their_tangents(widths, dtype):
    net = Watched(Case(widths, dtype=dtype).network())
    net.value_and_jacobian(Case(widths, dtype=dtype).x())
    assert not net.packed.across
    assert not net.record["carried"]


@pytest.mark.parametrize("dtype", DTYPES)
def test_what_is_not_finite_is_not_carried(dtype):
    net = Watched(Case(CARRYING[0], head="sigmoid", dtype=dtype).network())
    assert net.packed.across
    net.value_and_jacobian(np.full(1, np.nan))
    assert not net.record["carried"]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("widths", TRANSPOSED, ids=str)
def test_more_outputs_than_inputs_are_multiplied_out_transposed(widths, dtype):
    net = Watched(Case(widths, "tanh", "identity", dtype).network())
    assert net.packed.transposed[net.packed.plan.root]
    assert any(net.packed.forward)
    x = Case(widths, dtype=dtype).x()
    _, jac = net.value_and_jacobian(x)
    width = vectors.panel_width(net.net.dtype)
    panels = net.memory("result", -(-widths[-1] // width), widths[0], width)
    before_the_head = panels.transpose(0, 2, 1).reshape(-1, widths[0])[: widths[-1]]
    np.testing.assert_array_equal(jac, before_the_head)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("widths", NOT_TRANSPOSED, ids=str)
def test_no_more_outputs_than_inputs_are_not(widths, dtype):
    net = Watched(Case(widths, dtype=dtype).network())
    assert not net.packed.transposed[net.packed.plan.root]
    assert not net.record["result"]


@pytest.mark.parametrize("dtype", DTYPES)
def test_w_is_kept_beside_its_transpose_where_only_some_of_its_rows_are_read(dtype):
    width = vectors.panel_width(np.dtype(dtype))
    many = 3 * width
    beside = {
        (many, many, width + 1): {1},  # The rows of active ReLUs, of which there is more than a panel.
        (many, many, width): set(),
        (width, many, width): {0},  # Few rows: the transpose is mostly padding.
        (width + 1, many, width): set(),
        (many, many, many, many): {1, 2},
    }
    for widths, layers in beside.items():
        case = Case(widths, "relu", "identity", dtype)
        assert case.network().packed.rows.keys() == layers, widths
    smooth = Case((many, many, many, many), "tanh", "identity", dtype)
    assert smooth.network().packed.rows.keys() == set()


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_weights_of_inactive_units_are_not_read_for_one_sample(dtype):
    size = 3 * vectors.panel_width(np.dtype(dtype))
    case = Case((size, size, size), "relu", "identity", dtype)
    net, x = case.network(), case.x()
    inactive = x @ net.layers[0].w + net.layers[0].b < 0
    assert 0 < inactive.sum() < size
    watched = Watched(net)
    panels = watched.packed.rows[1].reshape(-1, size, vectors.panel_width(net.dtype))
    panels[:, inactive] = np.nan
    assert_right(net, x, *watched.value_and_jacobian(x))


def test_a_weight_that_is_not_finite_is_read_whatever_unit_is_before_it():
    size = 3 * vectors.panel_width(np.dtype(float))
    weights = Case((size, size, size)).weights()
    weights[1][0][3, 3] = np.inf
    assert not any(Network(weights).packed.skips)
