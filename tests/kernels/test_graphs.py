"""Networks that are graphs: every call, every operation, against an outside oracle and the reference."""

import ctypes
import gc

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

import fastjac
from fastjac import Network, embedding, graph, reference
from fastjac.graph.values import Affine, Scale, ordered
from support import workspaces
from support.examples import examples
from support.graphs import OPERATIONS, Case, assert_right, cases, near_kink
from support.nonfinite import SPECIAL, assert_same_pattern
from support.oracles import DTYPES

GATED = Case(
    13, (("affine", 0, 0, 30, "sigmoid"), ("affine", 1, 0, 30, "identity"), ("multiply", 0, 1, 1, ""))
)


def residual(dtype=np.float64, n=16, h=64, m=12, head="identity"):
    rng = np.random.default_rng(0)
    x = graph.input(n)
    a = graph.affine(x, rng.standard_normal((n, h)) / 4, rng.standard_normal(h), "tanh")
    a = graph.affine(a, rng.standard_normal((h, h)) / 8, rng.standard_normal(h), "relu")
    return Network(
        graph.apply(x[:m] + 0.05 * graph.affine(a, rng.standard_normal((h, m))), head), dtype=dtype
    )


def autoencoder(dtype=np.float64):
    rng = np.random.default_rng(0)
    h = graph.input(40)
    for n, m in ((40, 30), (30, 5), (5, 30)):
        h = graph.layer_norm(graph.affine(h, rng.standard_normal((n, m)) / 6, activation="tanh"))
    return Network(graph.affine(h, rng.standard_normal((30, 40)) / 6, activation="softmax"), dtype=dtype)


@examples(200)
@given(cases())
def test_any_graph_is_right(case):
    net, x = case.network(), case.x()
    assume(not near_kink(net, x))
    y, jac = net.value_and_jacobian(x)
    assert_right(net, x, y, jac)
    if not hasattr(net, "layers"):  # A chain that carries tangents may round another way.
        np.testing.assert_array_equal(net(x), y)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("outputs", [3, 90], ids=lambda outputs: f"{outputs} outputs")
def test_each_operation_is_right_from_either_side(operation, outputs, dtype):
    # With few inputs and many outputs the Jacobian is made from the inputs on.
    steps = [("affine", 0, 0, 19, "tanh"), (operation, 0, 1, 19, "softplus"), ("affine", 0, 0, 33, "silu")]
    case = Case(7, (*steps, ("affine", 0, 0, outputs, "identity")), dtype)
    net, x = case.network(), case.x()
    assert_right(net, x, *net.value_and_jacobian(x))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("operation", OPERATIONS)
def test_each_operation_is_right_on_both_sides_of_a_waist(operation, dtype):
    steps = [
        *(("affine", 0, 0, 19, "tanh"), (operation, 0, 1, 19, "softplus"), ("affine", 0, 0, 5, "sigmoid")),
        *(("affine", 0, 0, 21, "silu"), (operation, 0, 1, 19, "softplus"), ("affine", 0, 0, 40, "softmax")),
    ]
    case = Case(33, tuple(steps), dtype)
    net, x = case.network(), case.x()
    assert hasattr(net, "layers") or net.plan.waist.size == 5
    assert_right(net, x, *net.value_and_jacobian(x))


@examples(60)
@given(cases(steps=6), st.integers(0, 1000))
def test_products_with_vectors_are_those_of_the_jacobian(case, seed):
    net, x = case.network(), case.x()
    assume(not near_kink(net, x))
    rng = np.random.default_rng(seed)
    v, u = (rng.standard_normal(size).astype(net.dtype) for size in (net.n_outputs, net.n_inputs))
    jac = net.jacobian(x)
    size = 200 * np.finfo(net.dtype).eps * (1 + np.abs(jac).max()) * (1 + net.n_inputs + net.n_outputs)
    for (value, found), expected in ((net.vjp(x, v), v @ jac), (net.jvp(x, u), jac @ u)):
        np.testing.assert_array_equal(value, net(x))
        np.testing.assert_allclose(found, expected, rtol=0, atol=size)


@examples(40)
@given(cases(steps=6), st.integers(1, 40))
def test_a_batch_has_the_bits_of_its_samples(case, count):
    net = case.network()
    assume(not hasattr(net, "layers"))  # A chain takes samples in blocks, which may round another way.
    x = np.random.default_rng(count).standard_normal((count, net.n_inputs)).astype(net.dtype)
    y, jac = net.value_and_jacobian(x)
    both = net.value_and_jacobian(x, threads=2)
    for i in range(count):
        y_alone, jac_alone = net.value_and_jacobian(x[i])
        np.testing.assert_array_equal(y[i], y_alone)
        np.testing.assert_array_equal(jac[i], jac_alone)
    np.testing.assert_array_equal(both[0], y)
    np.testing.assert_array_equal(both[1], jac)


@pytest.mark.filterwarnings("ignore:.*contains NaN:RuntimeWarning")
@examples(150)
@given(cases(steps=6), st.integers(0, 10**6), st.sampled_from(SPECIAL), st.booleans())
def test_what_the_reference_has_as_nan_is_nan(case, place, special, in_weights):
    value, x = case.value(), case.x()
    arrays = [array for each in graph_arrays(value) for array in each] if in_weights else []
    array = arrays[place % len(arrays)] if arrays else x
    array.flat[place % array.size] = special
    net = Network(value, dtype=case.dtype)
    y_expected, jac_expected = reference.graph_value_and_jacobian(x, net.graph)
    y, jac = net.value_and_jacobian(x)
    assert_same_pattern(y, y_expected)
    assert np.all(np.isnan(jac) | ~np.isnan(jac_expected)), (jac, jac_expected)


def graph_arrays(value):
    return [
        [array for array in each.operation if array.flags.writeable]
        for each in ordered(value)
        if isinstance(each.operation, (Affine, Scale))
    ]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("make", [lambda dtype: residual(dtype, head="softmax"), autoencoder])
def test_no_result_depends_on_an_earlier_call(make, dtype):
    net = make(dtype)
    x = np.random.default_rng(0).standard_normal((9, net.n_inputs)).astype(dtype)
    fresh = workspaces.calls(make(dtype), x)
    workspaces.calls(net, np.full_like(x, np.nan))
    workspaces.calls(net, np.full_like(x, 1e30))
    for found, expected in zip(workspaces.calls(net, x), fresh, strict=True):
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "make", [residual, lambda dtype: residual(dtype, n=3, m=3, h=20, head="log_softmax"), autoencoder]
)
def test_every_way_in_gives_the_same_bits(make, dtype, tmp_path):
    net = make(dtype)
    x = np.random.default_rng(0).standard_normal(net.n_inputs).astype(dtype)
    y, jac = net.value_and_jacobian(x)
    out = np.empty_like(y), np.empty_like(jac)

    def check():
        np.testing.assert_array_equal(out[0], y)
        np.testing.assert_array_equal(out[1], jac)
        for array in out:
            array[:] = 0

    net.bind(x, out)()
    check()
    assert embedding.value_and_jacobian(net.handle(), x, *out) == embedding.OK
    check()
    with net.c_function() as function:
        addresses = (array.ctypes.data for array in (x, *out))
        pointers = (
            ctypes.cast(at, kind) for at, kind in zip(addresses, function.ctypes.argtypes[1:], strict=True)
        )
        assert function.ctypes(function.context, *pointers) == 0
    check()
    fastjac.save(net, tmp_path / "net.npz")
    fastjac.load(tmp_path / "net.npz").value_and_jacobian(x, out=out)
    check()
    assert fastjac.check_jacobian(net, x)


def test_a_network_that_is_gone_leaves_its_handle_working():
    net = residual()
    x = np.zeros(16)
    y, jac = net.value_and_jacobian(x)
    handle, out = net.handle(), (np.empty_like(y), np.empty_like(jac))
    del net
    gc.collect()
    assert embedding.value_and_jacobian(handle, x, *out) == embedding.OK
    np.testing.assert_array_equal(out[1], jac)


@pytest.mark.parametrize("logits", [3.0, 40.0, 800.0])
def test_a_saturated_softmax_inside_loses_no_digits(logits):
    # The most probable class's row and column cancel, unless they are summed from the others'.
    x, w = graph.input(4), np.arange(1.0, 13.0).reshape(4, 3)
    s = graph.softmax(graph.affine(x, np.eye(4), [logits, 0.0, 0.0, 0.0]))
    at = np.array([0.1, 0.2, 0.3, 0.4])
    jac = Network(graph.affine(graph.multiply(s, s), w)).jacobian(at)
    s = reference.softmax(at.astype(np.longdouble) + np.array([logits, 0, 0, 0]))
    of_logits = -np.outer(s, s)
    for i in range(4):
        of_logits[i, i] = s[i] * np.delete(s, i).sum()
    np.testing.assert_allclose(jac, (w.T * 2 * s @ of_logits).astype(float), rtol=1e-13, atol=1e-300)
