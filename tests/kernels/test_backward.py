"""Which rows of a softmax Jacobian are multiplied out, and which follows from the others."""

import numpy as np
import pytest

from fastjac import Network
from fastjac.kernels.llvm import vectors
from support.contexts import Watched
from support.nonfinite import SPECIAL, assert_as_reference, poisoned
from support.oracles import DTYPES, Case, assert_right

MOST = 16 if vectors.TARGET.fma else 4


def multiplied_out(watched, rows):
    """Return which rows of the Jacobian the last call multiplied out, if they were so many."""
    row = watched.net.n_inputs * watched.net.dtype.itemsize
    return (watched.memory("jac_rows", rows, dtype=np.int64) // row).tolist()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("outputs", [2, 3, MOST - 1, MOST])
def test_the_most_probable_class_s_row_follows_from_the_few_others(outputs, dtype):
    case = Case((40, 30, outputs), dtype=dtype)
    watched, x = Watched(case.network()), case.x()
    y, jac = watched.value_and_jacobian(x)
    others = [m for m in range(outputs) if m != np.argmax(y)]
    assert multiplied_out(watched, outputs - 1) == others
    assert_right(watched.net, x, y, jac)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("outputs", "head"), [(MOST + 1, "softmax"), (10, "log_softmax"), (3, "identity")])
def test_all_rows_are_multiplied_out_where_none_follows_well_from_the_others(outputs, head, dtype):
    case = Case((40, 30, outputs), head=head, dtype=dtype)
    watched, x = Watched(case.network()), case.x()
    y, jac = watched.value_and_jacobian(x)
    assert multiplied_out(watched, outputs) == list(range(outputs))
    assert_right(watched.net, x, y, jac)


@pytest.mark.parametrize("dtype", DTYPES)
def test_all_rows_are_multiplied_out_where_numbers_are_not_finite(dtype):
    weights = Case((40, 30, 3), dtype=dtype).weights()
    weights[1][1][0] = -np.inf
    watched = Watched(Network(weights))
    watched.value_and_jacobian(np.ones(40))
    assert multiplied_out(watched, 3) == [0, 1, 2]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("head", ["softmax", "log_softmax"])
@pytest.mark.parametrize("widths", [(40, 30, 1), (1, 256, 256, 256, 1), (40, 1)])
def test_one_logit_costs_no_backward_pass(widths, head, dtype):
    case = Case(widths, head=head, dtype=dtype)
    watched = Watched(case.network())
    assert not watched.packed.across
    watched.memory("jac_rows", 1, dtype=np.int64)[:] = -1
    for x in (case.x(), np.ones((37, widths[0]), dtype)):
        y, jac = watched.value_and_jacobian(x)
        assert np.all(y == (head == "softmax"))
        assert np.all(jac == 0)
    assert multiplied_out(watched, 1) == [-1]


@pytest.mark.filterwarnings("ignore:.*contains NaN:RuntimeWarning")
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("head", ["softmax", "log_softmax"])
def test_one_logit_that_is_not_finite_is_as_in_the_reference(head, dtype):
    for value in SPECIAL:
        for place in range(5):
            assert_as_reference(*poisoned(Case((7, 9, 1), "tanh", head, dtype), [(place, 0, value)]))
