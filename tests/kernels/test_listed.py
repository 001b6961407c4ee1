"""Products of hidden ReLU layers for active units only, of every size and not only where they are faster."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastjac import Network
from fastjac.kernels import packing
from support.accuracy import assert_accurate
from support.examples import examples
from support.nonfinite import assert_as_reference, places, poisoned
from support.oracles import DTYPES, Case, assert_a_batch_is_right_after_nan, assert_right, cases

WIDTHS = [(40, 50, 60, 10), (70, 130, 70, 40, 33), (9, 40, 40, 1)]


def listed(net):
    return len(net._packed.listed)


@pytest.fixture(scope="module", autouse=True)
def _everywhere():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(packing, "listing_pays", lambda rows, w: True)
        yield


def test_the_networks_here_have_such_products():
    assert [listed(Case(widths).network()) for widths in WIDTHS] == [1, 2, 1]
    assert listed(Case((40, 50, 60, 70, 10), ("relu", "relu", "tanh")).network()) == 1
    assert listed(Case((40, 50, 60, 10), "relu6").network()) == 0


@examples(150)
@given(cases(hidden=["relu", "relu", "relu", "tanh"], depth=5))
def test_errors_are_at_most_twice_the_reference_s(case):
    assert_accurate(case)


@examples(100)
@given(cases(hidden=["relu"], depth=4, widths=st.integers(30, 50)), st.lists(places, min_size=1, max_size=3))
def test_nan_is_where_the_reference_has_it(case, places):
    assert_as_reference(*poisoned(case, places))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("widths", WIDTHS)
@pytest.mark.parametrize("active", ["none", "one", "all"])
def test_none_one_or_all_units_active(active, widths, dtype):
    case = Case(widths, head="identity", dtype=dtype)
    weights = case.weights()
    for _, b in weights[:-1]:
        b += 1000 if active == "all" else -1000
        if active == "one":
            b[b.size // 2] += 2000
    net, x = Network(weights, head="identity"), case.x()
    y, jac = net.value_and_jacobian(x)
    assert_right(net, x, y, jac)
    assert np.all(jac == 0) == (active == "none")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("head", ["softmax", "identity"])
@pytest.mark.parametrize("widths", WIDTHS)
def test_a_batch_and_what_follows_nan_are_right(widths, head, dtype):
    assert_a_batch_is_right_after_nan(Case(widths, head=head, dtype=dtype).network())


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("widths", WIDTHS)
def test_units_that_an_infinite_bias_turns_off_leave_the_others_right(widths, dtype):
    results = []
    for low in (-1e6, -np.inf):
        weights = Case(widths, dtype=dtype).weights()
        for _, b in weights[:-1]:
            b[::3] = low
        results.append(Network(weights, head="identity").value_and_jacobian(Case(widths, dtype=dtype).x()))
    for finite, infinite in zip(*results, strict=True):
        np.testing.assert_allclose(
            infinite, finite, rtol=0, atol=64 * np.finfo(dtype).eps * np.abs(finite).max()
        )
