"""Tangents carried along with the forward pass, in networks of every size, not only where that is faster."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastjac import Network
from fastjac.kernels import packing
from fastjac.kernels.llvm import vectors
from support.accuracy import assert_accurate
from support.examples import examples
from support.nonfinite import assert_same_pattern, places, poisoned
from support.oracles import (
    DTYPES,
    Case,
    assert_a_batch_is_right_after_nan,
    assert_right,
    cases,
)

WIDTHS = [(1, 7, 1), (3, 40, 33, 1), (2, 20, 30, 20), (5, 64, 20, 40, 5)]


@pytest.fixture(scope="module", autouse=True)
def _everywhere():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            packing,
            "carrying_pays",
            lambda plan, itemsize, target: (
                len(plan.sizes) > 2 and plan.sizes[0] < min(vectors.MR, max(plan.sizes[1:]))
            ),
        )
        yield


def test_the_networks_here_carry_tangents():
    assert all(Case(widths, head="tanh").network().packed.across for widths in WIDTHS)


@examples(150)
@given(cases(depth=4, widths=st.integers(1, 40)), st.integers(1, 5))
def test_errors_are_at_most_twice_the_reference_s(case, n_inputs):
    assert_accurate(Case((n_inputs, *case.widths[1:]), *list(vars(case).values())[1:]))


@pytest.mark.filterwarnings("ignore:.*contains NaN:RuntimeWarning")
@examples(150)
@given(cases(depth=4, widths=st.integers(1, 20)), st.integers(1, 5), st.lists(places, min_size=1, max_size=3))
def test_nan_is_where_it_is_without_carrying(case, n_inputs, places):
    case = Case((n_inputs, *case.widths[1:]), *list(vars(case).values())[1:])
    net, x = poisoned(case, places)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(packing, "carrying_pays", lambda plan, itemsize, target: False)
        expected = poisoned(case, places)[0].value_and_jacobian(x)
    for got, plain in zip(net.value_and_jacobian(x), expected, strict=True):
        assert_same_pattern(got, plain)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("activation", ["relu", "relu6", "hard_tanh"])
@pytest.mark.parametrize("shift", [-1000, 0, 1000])
def test_flat_units_are_left_out_and_count(shift, activation, dtype):
    case = Case((3, 40, 33, 2), activation, "identity", dtype)
    weights = case.weights()
    for _, b in weights[:-1]:
        b[1:] += shift
    net, x = Network(weights, activation, "identity"), case.x()
    assert_right(net, x, *net.value_and_jacobian(x))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("head", ["softmax", "log_softmax", "tanh"])
@pytest.mark.parametrize("widths", WIDTHS)
def test_a_batch_and_what_follows_nan_are_right(widths, head, dtype):
    assert_a_batch_is_right_after_nan(Case(widths, head=head, dtype=dtype).network())
