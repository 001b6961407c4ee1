"""Attributions against sums written out, with Jacobians of the float64 reference."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastjac import Network
from fastjac.explain import (
    importance,
    input_x_gradient,
    integrated_gradients,
    saliency,
    smooth_grad,
    sums,
)
from support.oracles import Case, assert_close, cases, reference64, tolerances

SMOOTH = ("tanh", "sigmoid", "softplus", "silu", "gelu", "gelu_tanh", "identity")
smooth_cases = cases(hidden=SMOOTH, heads=(*SMOOTH, "softmax", "log_softmax"), depth=3)


def weighted(net, points, weights):
    """The sum of the reference's Jacobians at points, and the error allowed in it."""
    jacobians = np.array([reference64(net, point)[1] for point in points])
    allowed = np.array([tolerances(net, point)[1] for point in points])
    eps = 2 * (2 + len(points)) * np.finfo(net.dtype).eps
    return (
        np.tensordot(weights, jacobians, 1),
        np.tensordot(weights, allowed + eps * np.abs(jacobians), 1),
    )


@given(smooth_cases)
@settings(deadline=None)
def test_saliency_is_the_jacobian_and_input_x_gradient_times_the_inputs(case):
    net, x = case.network(), case.x()
    jac, allowed = weighted(net, [x], [1.0])
    assert_close(saliency(net, x), jac, allowed)
    assert_close(input_x_gradient(net, x), jac * x, allowed * np.abs(x) + np.finfo(net.dtype).tiny)


@given(smooth_cases, st.integers(1, 9), st.integers(0, 99))
@settings(deadline=None)
def test_integrated_gradients_are_the_weighted_sum_along_the_line(case, steps, seed):
    net, x = case.network(), case.x()
    baseline = np.random.default_rng(seed).normal(size=x.shape).astype(net.dtype)
    nodes, weights = np.polynomial.legendre.leggauss(steps)
    points = ((nodes + 1) / 2).astype(net.dtype)[:, None] * (x - baseline) + baseline
    jac, allowed = weighted(net, points, weights / 2)
    line = np.float64(x) - baseline
    expected, allowed = jac * line, (allowed + 2 * np.finfo(net.dtype).eps * np.abs(jac)) * np.abs(line)
    found = integrated_gradients(net, x, baseline, steps)
    assert found.values.dtype == net.dtype
    assert_close(found, expected, allowed + np.finfo(net.dtype).tiny)
    change = reference64(net, x)[0] - reference64(net, baseline)[0]
    ends = tolerances(net, x)[0] + tolerances(net, baseline)[0]
    assert_close(found.completeness, expected.sum(1) - change, allowed.sum(1) + ends)


@given(smooth_cases, st.integers(1, 9), st.integers(0, 99))
@settings(deadline=None)
def test_smooth_grad_is_the_mean_at_samples_with_noise(case, samples, seed):
    net, x = case.network(), case.x()
    noise = np.linspace(0, 0.5, x.size).astype(net.dtype)
    draws = np.random.default_rng(seed).standard_normal((samples, x.size), net.dtype)
    expected, allowed = weighted(net, x + draws * noise, np.full(samples, 1 / samples))
    found = smooth_grad(net, x, noise, samples, seed)
    assert found.values.dtype == net.dtype
    assert_close(found, expected, allowed)


def test_more_steps_complete_the_integral():
    case = Case((30, 20, 4), "tanh")
    net, x = case.network(), case.x()
    errors = [np.abs(integrated_gradients(net, x, steps=steps).completeness).max() for steps in (1, 4, 200)]
    assert errors[0] > 10 * errors[1] > 0
    assert errors[2] < 1e-13


@pytest.mark.parametrize("steps", [1, 2, 128, 129, 1000])
def test_the_rule_integrates_polynomials(steps):
    nodes, weights = sums.gauss_legendre(steps)
    assert len(nodes) == len(weights) == steps
    assert (np.diff(nodes) > 0).all() and nodes[0] > 0 and nodes[-1] < 1
    for power in range(min(2 * steps, 20)):
        np.testing.assert_allclose(weights @ nodes**power, 1 / (power + 1), rtol=1e-13)


METHODS = {
    "saliency": saliency,
    "input_x_gradient": input_x_gradient,
    "smooth_grad": lambda net, x, **more: smooth_grad(net, x, 0.1, 20, **more),
    "integrated_gradients": lambda net, x, **more: integrated_gradients(net, x, 0.5, 20, **more),
}


@pytest.fixture(params=METHODS)
def method(request):
    return METHODS[request.param]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_batch_gives_what_single_calls_give(method, dtype):
    case = Case((20, 30, 5), "tanh", dtype=dtype)
    net, x = case.network(), np.random.default_rng(0).normal(size=(2, 20, 20)).astype(dtype)
    found = method(net, x)
    assert found.shape == (2, 20, 5, 20)
    for i in np.ndindex(2, 20):
        one, sample = method(net, x[i]), found.sample(i)
        allowed = np.full(one.shape, 200 * np.finfo(dtype).eps)
        assert_close(sample, one, allowed)
        if one.completeness is not None:
            assert_close(sample.completeness, one.completeness, 20 * allowed[:, 0])
        np.testing.assert_array_equal(sample.x, x[i])


def test_threads_change_no_bit(method):
    net = Case((200, 100, 5), dtype=np.float32).network()
    x = np.random.default_rng(0).normal(size=(150, 200)).astype(np.float32)
    np.testing.assert_array_equal(method(net, x, threads=3), method(net, x))


def test_no_samples_give_no_attributions(method):
    assert method(Case((20, 30, 5)).network(), np.empty((0, 20))).shape == (0, 5, 20)


def test_the_size_of_blocks_changes_only_the_rounding(method, monkeypatch):
    net = Case((20, 30, 5), "tanh").network()
    x = np.random.default_rng(0).normal(size=(9, 20))
    whole = method(net, x)
    for few, block in (
        (1, 1),
        (7, 1),
        (1, 55 * 5 * 20 * 8),
    ):  # 20 points a sample: parts, or samples together
        monkeypatch.setattr(sums, "FEW", few)
        monkeypatch.setattr(sums, "BLOCK_BYTES", block)
        np.testing.assert_allclose(method(net, x), whole, rtol=1e-10, atol=1e-13)


def test_memory_does_not_grow_with_steps_or_the_batch():
    net = Case((100, 20, 3), dtype=np.float32).network()
    peaks = []
    for count, steps in ((2, 2000), (2, 8000), (500, 500)):
        x = np.ones((count, 100), np.float32)
        integrated_gradients(net, x, steps=steps)
        tracemalloc.start()
        found = integrated_gradients(net, x, steps=steps)
        smooth_grad(net, x, 1.0, steps)
        peaks.append(tracemalloc.get_traced_memory()[1] - 4 * found.values.nbytes)
        tracemalloc.stop()
    assert max(peaks) < 3 * sums.BLOCK_BYTES


def test_baselines_are_one_number_one_row_or_one_each():
    case = Case((20, 30, 5), "tanh")
    net, x = case.network(), np.random.default_rng(0).normal(size=(4, 20))
    row = np.full(20, 0.5)
    expected = integrated_gradients(net, x, 0.5)
    for baseline in (row, np.tile(row, (4, 1))):
        found = integrated_gradients(net, x, baseline)
        np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-13)
        np.testing.assert_allclose(found.completeness, expected.completeness, rtol=0, atol=1e-13)
    baselines = x * np.arange(4)[:, None]
    found = integrated_gradients(net, x, baselines)
    for i in range(4):
        alone = integrated_gradients(net, x[i], baselines[i])
        np.testing.assert_allclose(found[i], alone, rtol=1e-10, atol=1e-13)
        np.testing.assert_allclose(found.completeness[i], alone.completeness, rtol=0, atol=1e-13)


def test_noise_of_another_seed_is_another():
    case = Case((20, 30, 5), "tanh")
    net, x = case.network(), case.x()
    assert not np.array_equal(smooth_grad(net, x, 0.1), smooth_grad(net, x, 0.1, seed=1))


def test_no_noise_leaves_the_gradient():
    case = Case((20, 30, 5))
    np.testing.assert_allclose(
        smooth_grad(case.network(), case.x(), 0.0), saliency(case.network(), case.x()), rtol=1e-12, atol=1e-15
    )


def test_importance_is_the_mean_magnitude_or_the_mean_of_a_class():
    net, data = Case((6, 9, 3), scale=2.0, seed=2).network(), np.random.default_rng(0).normal(size=(40, 6))
    y, jac = net.value_and_jacobian(data)
    np.testing.assert_allclose(importance(net, data), np.abs(jac).mean(axis=0), rtol=1e-12)
    by_class = importance(net, data, "class_mean", threads=2)
    for m, row in enumerate(by_class):
        np.testing.assert_allclose(row, jac[y.argmax(axis=1) == m, m].mean(axis=0), rtol=1e-12)
    scale = data.std(axis=0)
    np.testing.assert_allclose(importance(net, data, scale=scale), np.abs(jac).mean(axis=0) * scale)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda net, x: saliency(net, x[1:]), ValueError, r"x has shape \(2,\), expected \(3,\)"),
        (lambda net, x: smooth_grad(net, x, -1.0), ValueError, "noise has entries"),
        (lambda net, x: smooth_grad(net, x, np.nan), ValueError, "noise has entries"),
        (lambda net, x: smooth_grad(net, x, [1.0, 1.0]), ValueError, r"noise has shape \(2,\)"),
        (lambda net, x: smooth_grad(net, x, "1"), TypeError, "noise has dtype"),
        (lambda net, x: smooth_grad(net, x, 1.0, 0), ValueError, "samples is 0, expected at least 1"),
        (lambda net, x: integrated_gradients(net, x, steps=2.5), TypeError, "steps must be an integer"),
        (lambda net, x: integrated_gradients(net, x, steps=0), ValueError, "steps is 0"),
        (lambda net, x: integrated_gradients(net, x, x[1:]), ValueError, r"baseline has shape \(2,\)"),
        (lambda net, x: integrated_gradients(net, [x], [x, x]), ValueError, r"baseline has shape \(2, 3\)"),
        (lambda net, x: importance(net, [x], "spectral"), ValueError, "reduce is 'spectral'"),
        (lambda net, x: importance(net, [x], scale=[1.0]), ValueError, r"scale has shape \(1,\)"),
        (lambda net, x: importance(net, [x], scale=[1.0, 0.0, 1.0]), ValueError, r"scale\[1\] is 0.0"),
        (lambda net, x: saliency(net, x, threads=0), ValueError, "threads is 0"),
    ],
)
def test_what_does_not_fit_is_named(call, error, message):
    with pytest.raises(error, match=message):
        call(Network([(np.eye(3), None)]), np.ones(3))
