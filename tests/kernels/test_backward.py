"""Which rows of a softmax Jacobian are multiplied out, and which follows from the others."""

import numpy as np
import pytest

from fastjac import Network
from fastjac.kernels.llvm import vectors
from support.contexts import Watched
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
@pytest.mark.parametrize(
    ("outputs", "head"), [(1, "softmax"), (MOST + 1, "softmax"), (10, "log_softmax"), (3, "identity")]
)
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
