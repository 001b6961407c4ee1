"""What holds without an oracle, and networks at the edges of their range."""

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from fastjac import Network
from support.oracles import (
    DTYPES,
    HIDDEN,
    TOLERANCE,
    Case,
    assert_close,
    assert_right,
    cases,
    near_corner,
    tolerances,
)

softmax_cases = cases(heads=["softmax"], depth=4)


@given(softmax_cases)
def test_probabilities_sum_to_one_and_jacobian_columns_to_zero(case):
    net, x = case.network(), case.x()
    y, jac = net.value_and_jacobian(x)
    eps = TOLERANCE[net.dtype]
    assert np.all((y >= 0) & (y <= 1))
    assert abs(np.sum(y, dtype=np.float64) - 1) <= eps * (1 + np.log2(y.size))
    _, allowed = tolerances(net, x)
    assert_close(np.sum(jac, axis=0, dtype=np.float64), np.zeros(x.size), allowed.sum(axis=0))


@given(cases(heads=["log_softmax"], depth=3))
def test_log_softmax_is_the_logarithm_of_softmax(case):
    net, x = case.network(), case.x()
    probs = Network([layer[:2] for layer in net.layers], case.activation, "softmax", case.dtype)
    (log_y, log_jac), (y, jac) = net.value_and_jacobian(x), probs.value_and_jacobian(x)
    y_allowed, jac_allowed = tolerances(probs, x)
    assert_close(np.exp(log_y.astype(np.float64)), y, 2 * y_allowed)
    jac_allowed = 2 * jac_allowed + y_allowed[:, None] * np.abs(log_jac)
    assert_close(y[:, None] * log_jac.astype(np.float64), jac, jac_allowed)


@given(softmax_cases, st.sampled_from([-1024.0, -4.0, 0.5, 64.0]))
def test_a_constant_added_to_the_last_bias_changes_nothing(case, constant):
    net, x = case.network(), case.x()
    *rest, (w, b) = case.weights()
    moved = Network([*rest, (w, b + net.dtype.type(constant))], case.activation)
    allowed = [a + b for a, b in zip(tolerances(net, x), tolerances(moved, x), strict=True)]
    for a, b, c in zip(net.value_and_jacobian(x), moved.value_and_jacobian(x), allowed, strict=True):
        assert_close(a, b, c)


@given(cases(depth=3), st.randoms(use_true_random=False))
def test_permuting_hidden_units_changes_nothing(case, random):
    assume(len(case.widths) > 2)
    net, x = case.network(), case.x()
    assume(not near_corner(net, x))
    (w1, b1), (w2, b2), *rest = case.weights()
    order = random.sample(range(b1.size), b1.size)
    permuted = Network([(w1[:, order], b1[order]), (w2[order], b2), *rest], case.activation, case.head)
    for a, b, allowed in zip(
        net.value_and_jacobian(x), permuted.value_and_jacobian(x), tolerances(net, x), strict=True
    ):
        assert_close(a, b, 2 * allowed)


@given(cases(depth=3), st.randoms(use_true_random=False))
def test_permuting_outputs_permutes_rows(case, random):
    net, x = case.network(), case.x()
    assume(not near_corner(net, x))
    *rest, (w, b) = case.weights()
    order = random.sample(range(b.size), b.size)
    permuted = Network([*rest, (w[:, order], b[order])], case.activation, case.head)
    for a, b, allowed in zip(
        net.value_and_jacobian(x), permuted.value_and_jacobian(x), tolerances(net, x), strict=True
    ):
        assert_close(a[order], b, 2 * allowed[order])


@given(cases(depth=3), st.randoms(use_true_random=False))
def test_permuting_inputs_permutes_columns(case, random):
    net, x = case.network(), case.x()
    assume(not near_corner(net, x))
    (w, b), *rest = case.weights()
    order = random.sample(range(x.size), x.size)
    permuted = Network([(w[order], b), *rest], case.activation, case.head)
    y, jac = net.value_and_jacobian(x)
    y_permuted, jac_permuted = permuted.value_and_jacobian(x[order])
    y_allowed, jac_allowed = tolerances(net, x)
    assert_close(y, y_permuted, 2 * y_allowed)
    assert_close(jac[:, order], jac_permuted, 2 * jac_allowed[:, order])


@given(cases(depth=4))
def test_units_and_inputs_of_zero_weight_change_nothing(case):
    assume(len(case.widths) > 2)
    net, x = case.network(), case.x()
    assume(not near_corner(net, x))
    (w1, b1), (w2, b2), *rest = case.weights()
    w1, b1, w2 = np.pad(w1, ((0, 3), (0, 2))), np.pad(b1, (0, 2)), np.pad(w2, ((0, 2), (0, 0)))
    wider = Network([(w1, b1), (w2, b2), *rest], case.activation, case.head)
    y, jac = net.value_and_jacobian(x)
    y_wider, jac_wider = wider.value_and_jacobian(np.pad(x, (0, 3), constant_values=7))
    y_allowed, jac_allowed = tolerances(net, x)
    assert_close(y_wider, y, 2 * y_allowed)
    assert_close(jac_wider[:, : x.size], jac, 2 * jac_allowed)
    assert np.all(jac_wider[:, x.size :] == 0)


@given(cases(depth=5, widths=st.integers(1, 30)))
def test_products_with_unit_vectors_are_rows_and_columns(case):
    net, x = case.network(), case.x()
    jac = net.jacobian(x)
    _, allowed = tolerances(net, x)
    rows = [net.vjp(x, e)[1] for e in np.eye(net.n_outputs)]
    columns = [net.jvp(x, e)[1] for e in np.eye(net.n_inputs)]
    assert_close(np.stack(rows), jac, 2 * allowed)
    assert_close(np.stack(columns, axis=1), jac, 2 * allowed)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("widths", [(13, 40, 7), (13, 40, 30, 7), (5, 9, 40), (500, 100, 10)])
@pytest.mark.parametrize("active", ["none", "one", "all"])
def test_none_one_or_all_units_active(active, widths, dtype):
    case = Case(widths, dtype=dtype)
    weights = case.weights()
    for _, b in weights[:-1]:
        b += 1000 if active == "all" else -1000
        if active == "one":
            b[b.size // 2] += 2000
    net, x = Network(weights), case.x()
    y, jac = net.value_and_jacobian(x)
    assert_right(net, x, y, jac)
    for product, vector in (net.vjp(x, np.ones(y.size)), jac.sum(axis=0)), (net.jvp(x, x), jac @ x):
        assert np.array_equal(product[0], net(x))
        assert np.allclose(product[1], vector, rtol=0, atol=1e-3 if dtype is np.float32 else 1e-11)
    if active == "none":
        assert np.all(jac == 0)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("head", ["softmax", "log_softmax"])
@pytest.mark.parametrize("scale", [10.0, 300.0, 1e4])
def test_huge_logits_neither_overflow_nor_lose_rows(scale, head, dtype):
    case = Case((21, 30, 9), "relu", head, dtype, scale)
    net, x = case.network(), case.x()
    y, jac = net.value_and_jacobian(x)
    assert np.all(np.isfinite(y))
    assert np.all(np.isfinite(jac))
    assert_right(net, x, y, jac)


@pytest.mark.parametrize("dtype", DTYPES)
def test_probabilities_that_underflow_are_zero_with_zero_rows(dtype):
    net = Network([(np.eye(3), np.zeros(3)), (np.eye(3), [0.0, -2000.0, -3.0])], dtype=dtype)
    y, jac = net.value_and_jacobian([1.0, 2.0, 3.0])
    assert y[1] == 0
    assert np.all(jac[1] == 0)
    assert_right(net, np.array([1.0, 2.0, 3.0]), y, jac)


@pytest.mark.parametrize("dtype", DTYPES)
def test_tiny_probabilities_have_rows_of_their_own_scale(dtype):
    logits = -np.array([0.0, 5.0, 20.0, 60.0])
    w = np.array([[1.0, -1.0, 0.5, 2.0], [0.25, 1.0, -2.0, 1.0]])
    y, jac = Network([(w, logits)], dtype=dtype).value_and_jacobian([0.0, 0.0])
    probs = np.exp(logits) / np.exp(logits).sum()
    expected = probs[:, None] * (w.T - probs @ w.T)
    rtol = 8 * TOLERANCE[np.dtype(dtype)]
    np.testing.assert_allclose(y, probs, rtol=rtol)
    np.testing.assert_allclose(jac[1:], expected[1:], rtol=rtol)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("outputs", [1, 2, 3, 17])
def test_equal_logits_give_equal_probabilities(outputs, dtype):
    net = Network([(np.ones((4, 6)), None), (np.ones((6, outputs)), np.full(outputs, 3.0))], dtype=dtype)
    y, jac = net.value_and_jacobian([0.5, 0.25, 1.0, 2.0])
    assert np.all(y == y[0])
    assert y[0] == pytest.approx(1 / outputs, rel=TOLERANCE[np.dtype(dtype)])
    assert np.all(np.abs(jac) <= 24 * TOLERANCE[np.dtype(dtype)])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("activation", HIDDEN)
def test_pre_activations_of_exactly_zero(activation, dtype):
    net = Network([(np.eye(5), -np.arange(5.0)), (np.eye(5), None)], activation, "identity", dtype)
    x = np.arange(5.0)
    assert_right(net, x, *net.value_and_jacobian(x))
