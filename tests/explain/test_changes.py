"""What-if and flips against a network called with each changed input."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastjac import Network
from fastjac.explain import Flip, flips, what_if
from support.oracles import Case, assert_close, cases, near_corner, reference64, tolerances

# One affine map and softmax of three inputs: a logit each.
LOGITS = Network([(np.eye(3), None)], input_names=["a", "b", "c"], output_names=["A", "B", "C"])


def changed(x, to):
    """Every sample with one input changed, in the order of the candidates (N, K)."""
    samples = np.tile(x, (*to.shape, 1))
    for n, row in enumerate(to):
        samples[n, :, n] = row
    return samples.reshape(-1, x.size)


def assert_exact(net, x, to):
    """Compare with the float64 reference at each changed sample: an update rounds at most once more."""
    outputs = what_if(net, x, to)
    candidates = np.broadcast_to(np.asarray(to), (x.size,)) if np.ndim(to) < 2 else to
    assert outputs.shape == (*candidates.shape, net.n_outputs)
    assert outputs.dtype == net.dtype
    samples = changed(x, candidates.reshape(x.size, -1).astype(net.dtype))
    for got, sample in zip(outputs.reshape(len(samples), -1), samples, strict=True):
        if not near_corner(net, sample):
            assert_close(got, reference64(net, sample)[0], 2 * tolerances(net, sample)[0])


@settings(deadline=None)
@given(cases(), st.sampled_from([None, 1, 3]), st.integers(0, 99))
def test_outputs_are_those_at_each_changed_sample(case, candidates, seed):
    net = case.network()
    shape = (net.n_inputs,) if candidates is None else (net.n_inputs, candidates)
    assert_exact(net, case.x(), np.random.default_rng(seed).normal(size=shape))


def test_a_number_is_for_all_inputs():
    case = Case((9, 20, 4), "tanh")
    assert_exact(case.network(), case.x(), 0.5)


def test_a_change_costs_no_forward_pass(monkeypatch):
    case = Case((200, 100, 10), dtype=np.float32)
    net, x = case.network(), case.x()
    expected = net(changed(x, np.zeros((200, 1), np.float32)))
    monkeypatch.delattr(Network, "__call__")
    np.testing.assert_allclose(what_if(net, x), expected, rtol=1e-4, atol=1e-6)


def test_more_outputs_than_inputs():
    case = Case((40, 50, 90), "tanh")
    assert_exact(case.network(), case.x(), np.random.default_rng(0).normal(size=(40, 3)))


@pytest.mark.parametrize("value", [np.nan, np.inf, 3e38])
def test_what_is_not_finite_or_nearly_so_is_as_in_a_call(value):
    for widths in ((70, 50, 4), (70, 4), (9, 50, 60)):
        case = Case(widths, "relu", "identity", np.float32)
        net, x = case.network(), case.x()
        x[5] = value
        to = case.x() * np.float32(0.5)
        to[7], to[8] = -value, value
        np.testing.assert_allclose(what_if(net, x, to), net(changed(x, to[:, None])), rtol=1e-4, atol=1e-5)


def test_a_value_that_outweighs_all_others_leaves_nothing_behind():
    for n in (3, 40):
        case = Case((n, 50, 4), "tanh", dtype=np.float32)
        net, x = case.network(), case.x()
        x[2] = 1e9
        assert_exact(net, x, np.linspace([0] * n, [1e9] * n, 5, axis=1))


def test_calls_at_the_same_time_do_not_meet():
    case = Case((200, 100, 10), "tanh")
    net = case.network()
    samples = np.random.default_rng(0).normal(size=(40, 200))
    expected = [what_if(net, x) for x in samples]
    with ThreadPoolExecutor(4) as executor:
        found = list(executor.map(lambda x: what_if(net, x, threads=2), samples))
    np.testing.assert_array_equal(found, expected)


def test_flips_are_the_changes_that_make_another_output_the_largest():
    found = flips(LOGITS, [1.0, 2.0, 3.0], [[3.5, 2.5], [3.25, -9.0], [1.5, 3.0]])
    assert found == [
        Flip(1, "b", 2.0, 3.25, 1, "B"),
        Flip(2, "c", 3.0, 1.5, 1, "B"),
        Flip(0, "a", 1.0, 3.5, 0, "A"),
    ]


def test_no_change_that_is_enough_gives_no_flips():
    assert flips(LOGITS, [0.0, 0.0, 9.0], 5.0) == []


def test_inputs_and_outputs_without_names_are_called_as_in_formulas():
    (flip,) = flips(Network([(np.eye(2), None)]), [0.0, 1.0], [2.0, 1.0])
    assert (flip.name, flip.output) == ("x[0]", "y[0]")


def test_a_value_that_stays_flips_nothing_where_outputs_are_equal():
    rng = np.random.default_rng(0)
    for _ in range(30):
        # The second output is the sum of the first in another order, and may round to more or to less.
        w1, w2, order = rng.normal(size=(64, 40)), rng.normal(size=40), rng.permutation(40)
        shuffled = np.concatenate([w1, w1[:, order]], axis=1)
        blocks = np.zeros((80, 2))
        blocks[:40, 0], blocks[40:, 1] = w2, w2[order]
        x = rng.normal(size=64)
        assert flips(Network([(shuffled, None), (blocks, None)], "tanh"), x, x) == []


def test_a_row_with_nan_is_no_flip():
    assert flips(LOGITS, [1.0, 2.0, 3.0], [np.nan, 4.0, 3.0]) == [Flip(1, "b", 2.0, 4.0, 1, "B")]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([1.0, 2.0], 0.0), r"x has shape \(2,\), expected \(3,\)"),
        (([[1.0, 2.0, 3.0]], 0.0), r"x has shape \(1, 3\), expected \(3,\)"),
        (([1.0, 2.0, 3.0], [0.0, 1.0]), r"to has shape \(2,\), expected \(\), \(3,\) or \(3, K\)"),
        (([1.0, 2.0, 3.0], np.zeros((3, 1, 1))), r"to has shape \(3, 1, 1\)"),
    ],
)
def test_a_wrong_shape_is_named(arguments, message):
    for function in (what_if, flips):
        with pytest.raises(ValueError, match=message):
            function(LOGITS, *arguments)


def test_a_wrong_kind_is_named():
    with pytest.raises(TypeError, match="to has dtype"):
        what_if(LOGITS, [1.0, 2.0, 3.0], "0")


def test_flips_need_a_largest_output():
    with pytest.raises(ValueError, match="net has 1 output"):
        flips(Network([([[1.0]], None)], head="sigmoid"), [1.0])
    with pytest.raises(ValueError, match="NaN"):
        flips(LOGITS, [1.0, np.nan, 3.0])


def test_no_candidates_give_no_rows():
    assert what_if(LOGITS, [1.0, 2.0, 3.0], np.empty((3, 0))).shape == (3, 0, 3)
    assert flips(LOGITS, [1.0, 2.0, 3.0], np.empty((3, 0))) == []


def test_threads_change_no_bit():
    case = Case((600, 400, 10), dtype=np.float32)
    net, x = case.network(), case.x()
    to = np.random.default_rng(0).normal(size=(600, 4))
    to[::50, 3] = np.nan
    np.testing.assert_array_equal(what_if(net, x, to, threads=3), what_if(net, x, to))
