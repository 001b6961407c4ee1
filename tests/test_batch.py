"""Leading axes are a batch: each sample gets what it would get alone."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from oracles import DTYPES, HEADS, Case, assert_close, cases, near_corner, tolerances
from test_network import METHODS, as_out, buffers, call

from fastjac import reference

# Fewer samples than a vector has lanes, as many, a few more, several axes, none.
LEADS = [(1,), (3,), (8,), (16,), (19,), (37,), (2, 3), (4, 1, 9), (0,), (2, 0, 4)]


def batch(net, lead, seed):
    rng = np.random.default_rng(seed)
    sizes = net.n_inputs, net.n_outputs, net.n_inputs
    return [rng.standard_normal((*lead, size)).astype(net.dtype) for size in sizes]


def results(net, method, x, v, u, lead):
    """What a method returns, with and without buffers, which are the same bits."""
    fresh = call(net, method, x, v, u)
    outs = [np.full((*lead, *a.shape), np.nan, a.dtype) for a in buffers(net, method, 0)]
    filled = call(net, method, x, v, u, out=as_out(method, outs))
    for a, b, c in zip(fresh, filled, outs, strict=True):
        assert b is c
        assert (a.shape, a.dtype) == (b.shape, b.dtype)
        assert a.tobytes() == b.tobytes()
    return fresh


def assert_as_alone(net, x, v, u, lead):
    got = {method: results(net, method, x, v, u, lead) for method in METHODS}
    for i in np.ndindex(*lead):
        if near_corner(net, x[i]):
            continue
        y, jac = tolerances(net, x[i])
        rows, columns = np.abs(v[i]) @ jac, jac @ np.abs(u[i])
        bounds = {"call": [y], "value_and_jacobian": [y, jac], "jacobian": [jac]}
        bounds |= {"vjp": [y, 4 * rows], "jvp": [y, 4 * columns]}
        for method, arrays in got.items():
            alone = call(net, method, x[i], v[i], u[i])
            for a, b, allowed in zip(arrays, alone, bounds[method], strict=True):
                assert_close(a[i], b, 2 * allowed)


@given(cases(depth=4, widths=st.integers(1, 40)), st.sampled_from(LEADS))
def test_a_batch_of_any_shape_is_its_samples(case, lead):
    net = case.network()
    assert_as_alone(net, *batch(net, lead, case.seed), lead)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("head", HEADS)
def test_every_head_in_a_batch(head, dtype):
    net = Case((21, 18, 6), "tanh", head, dtype).network()
    assert_as_alone(net, *batch(net, (37,), 1), (37,))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("head", ["softmax", "log_softmax", "identity"])
@pytest.mark.parametrize("method", METHODS)
def test_a_sample_that_is_not_finite_spoils_no_other(method, head, dtype):
    net = Case((12, 20, 5), "relu", head, dtype).network()
    x, v, u = batch(net, (40,), 2)
    clean = call(net, method, x, v, u)
    poison = {3: np.nan, 17: np.inf, 18: -np.inf, 39: np.nan}
    for i, value in poison.items():
        x[i, i % 12] = value
    for a, b in zip(call(net, method, x, v, u), clean, strict=True):
        for i in range(40):
            if i in poison:
                assert not np.all(np.isfinite(a[i])) or head == "identity"
            else:
                np.testing.assert_allclose(a[i], b[i], rtol=1e-4 if dtype is np.float32 else 1e-12, atol=1e-6)


@pytest.mark.parametrize("dtype", DTYPES)
def test_special_values_in_a_batch_are_where_the_reference_says(dtype):
    net = Case((12, 20, 5), "elu", "identity", dtype).network()
    x, _, _ = batch(net, (40,), 3)
    rng = np.random.default_rng(4)
    for i in rng.choice(40, 12, replace=False):
        x[i, rng.integers(12)] = rng.choice([np.nan, np.inf, -np.inf])
    y, jac = net.value_and_jacobian(x)
    for i in range(40):
        for got, expected in zip((y[i], jac[i]), reference.value_and_jacobian(x[i], net.layers), strict=True):
            assert np.array_equal(np.isnan(got), np.isnan(expected))
            assert np.array_equal(np.isinf(got), np.isinf(expected))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("order", ["F", "strided", "swapped", "list"])
def test_a_batch_in_any_layout_is_the_same(method, order):
    net = Case((12, 20, 5)).network()
    inputs = batch(net, (19,), 5)
    change = {
        "F": np.asfortranarray,
        "strided": lambda a: np.repeat(a, 2, axis=0)[::2],
        "swapped": lambda a: a.astype(a.dtype.newbyteorder()),
        "list": lambda a: a.tolist(),
    }[order]
    got = call(net, method, *map(change, inputs))
    for a, b in zip(got, call(net, method, *inputs), strict=True):
        assert a.tobytes() == b.tobytes()


@pytest.mark.parametrize("method", ["vjp", "jvp"])
def test_vectors_must_have_the_leading_axes_of_x(method):
    net = Case((12, 20, 5)).network()
    x, v, u = batch(net, (4,), 6)
    name = {"vjp": "v", "jvp": "u"}[method]
    size = {"vjp": 5, "jvp": 12}[method]
    with pytest.raises(ValueError, match=rf"{name} has shape \({size},\), but x has shape \(4, 12\)"):
        call(net, method, x, v[0], u[0])
    with pytest.raises(ValueError, match=rf"{name} has shape \(3, {size}\), but x has shape \(4, 12\)"):
        call(net, method, x, v[:3], u[:3])


@pytest.mark.parametrize("method", METHODS)
def test_an_output_of_another_batch_size_is_refused(method):
    net = Case((12, 20, 5)).network()
    inputs = batch(net, (4,), 7)
    outs = [np.full((3, *a.shape), 7.0) for a in buffers(net, method, 0)]
    with pytest.raises(ValueError, match=r"has shape \(3, .*expected \(4, "):
        call(net, method, *inputs, out=as_out(method, outs))
    assert all(np.all(a == 7) for a in outs)
