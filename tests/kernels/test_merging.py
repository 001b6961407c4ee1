"""Affine maps in a row: which are merged, and that results are those of the layers as given."""

import ctypes
import pickle

import numpy as np
import pytest
from hypothesis import given

from fastjac import Network, embedding, load, reference, save
from fastjac.explain import what_if
from support.accuracy import assert_accurate, errors
from support.examples import examples
from support.nonfinite import assert_as_reference, assert_same_pattern
from support.oracles import (
    DTYPES,
    Case,
    assert_close,
    assert_right,
    cases,
    near_corner,
    reference64,
    tolerances,
)

pytestmark = pytest.mark.filterwarnings("ignore:.*contains NaN:RuntimeWarning")

# Sizes, activations, head, and the sizes of the merged chain: in front, in the middle, behind, more than two,
# with tangents carried along, with more outputs than inputs, next to a bottleneck.
PATHS = [
    ((20, 30, 40, 5), ("identity", "relu"), "softmax", (20, 40, 5)),
    ((9, 31, 50, 12, 4), ("tanh", "identity", "relu"), "identity", (9, 31, 12, 4)),
    ((33, 20, 19, 7), ("relu", "identity"), "softmax", (33, 20, 7)),
    ((12, 40, 40, 40, 6), ("identity",) * 3, "log_softmax", (12, 6)),
    ((2, 50, 50, 50, 20), ("relu", "identity", "relu"), "softmax", (2, 50, 50, 20)),
    ((1, 300, 300, 300, 1), ("softplus", "identity", "relu"), "identity", (1, 300, 300, 1)),
    ((7, 40, 30, 60), ("identity", "tanh"), "identity", (7, 30, 60)),
    ((50, 3, 50, 4), ("identity", "identity"), "relu", (50, 3, 4)),
]
paths = pytest.mark.parametrize("path", PATHS, ids=lambda path: "-".join(map(str, path[0])))
dtypes = pytest.mark.parametrize("dtype", DTYPES)


def case_of(path, dtype):
    sizes, activation, head, _ = path
    return Case(sizes, activation, head, dtype)


@paths
@dtypes
def test_the_plan_is_that_of_the_merged_chain_and_the_layers_stay(path, dtype, tmp_path):
    case = case_of(path, dtype)
    net = case.network()
    save(net, tmp_path / "net.npz")
    for each in (net, pickle.loads(pickle.dumps(net)), load(tmp_path / "net.npz")):
        assert each.plan.sizes == path[-1]
        for layer, (w, b) in zip(each.layers, case.weights(), strict=True):
            np.testing.assert_array_equal(layer.w, w)
            np.testing.assert_array_equal(layer.b, b)


@paths
@dtypes
def test_results_are_those_of_the_layers(path, dtype):
    net = case_of(path, dtype).network()
    X, v, u = (
        np.random.default_rng(3).standard_normal(shape).astype(dtype)
        for shape in ((37, net.n_inputs), net.n_outputs, net.n_inputs)
    )
    (y, jac), (_, vjp), (_, jvp) = net.value_and_jacobian(X), net.vjp(X, v), net.jvp(X, u)
    for i in (0, 1, 35, 36):
        if not near_corner(net, X[i]):
            assert_right(net, X[i], y[i], jac[i])
            assert_right(net, X[i], *net.value_and_jacobian(X[i]))
            right, allowed = reference64(net, X[i])[1], tolerances(net, X[i])[1]
            assert_close(vjp[i], v @ right, np.abs(v) @ allowed)
            assert_close(jvp[i], right @ u, allowed @ np.abs(u))


@examples(150)
@given(cases(hidden=["identity", "identity", "identity", "relu", "tanh"], depth=5))
def test_accuracy_of_networks_with_many_affine_maps(case):
    assert_accurate(case)


@dtypes
def test_no_multiply_adds_are_added(dtype):
    for sizes, merged in [((50, 10, 50), (50, 10, 50)), ((50, 10, 12), (50, 12)), ((9, 9, 9, 9), (9, 9))]:
        assert Case(sizes, "identity", dtype=dtype).network().plan.sizes == merged
    # The forward pass would take no more, but the Jacobian would, through a layer of one unit.
    sizes = (1, 2, 1, 2, 1)
    net = Case(sizes, ("tanh", "identity", "tanh"), "identity", dtype).network()
    assert net.plan.sizes == sizes


@dtypes
def test_weights_that_cancel_are_not_merged(dtype):
    (w1, b1), (w2, b2) = Case((30, 40, 8), dtype=dtype).weights()
    w2[:, 3] = 0
    w2[:2, 3] = 1, -1
    assert Network([(w1, b1), (w2, b2)], "identity").plan.sizes == (30, 8)
    w1[:, 1] = w1[:, 0] * (1 + dtype(1e-4))
    assert Network([(w1, b1), (w2, b2)], "identity").plan.sizes == (30, 40, 8)


@dtypes
@pytest.mark.parametrize("centred", [True, False])
def test_differences_of_inputs_stay_exact(centred, dtype):
    w1, b1 = (np.eye(3), [-4096.0] * 3) if centred else (np.eye(3) - np.eye(3, k=1), None)
    (w2, b2), (w3, b3) = Case((3, 5, 4), dtype=dtype).weights()
    w2[::2] *= centred  # Of the three only the second is a difference.
    net = Network([(w1, b1), (w2, b2), (w3, b3)], ["identity", "tanh"], "identity", dtype)
    x = (4096 + Case((3, 5, 4)).x()).astype(dtype)
    for ours, theirs, _ in errors(net, x):
        assert ours <= 2 * theirs + 16 * np.finfo(dtype).eps


@dtypes
def test_a_selection_of_inputs_is_merged(dtype):
    (w2, b2), _ = Case((3, 8, 4), dtype=dtype).weights()
    assert Network([(np.eye(5)[:, :3], None), (w2, b2)], "identity").plan.sizes == (5, 3, 8)
    assert Network([(np.eye(3), None), (w2, b2)], "identity").plan.sizes == (3, 8)


@dtypes
@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("layer", range(3))
def test_weights_that_are_not_finite_are_not_merged(layer, value, dtype):
    case = Case((10, 20, 8, 3), ("identity", "relu"), dtype=dtype)
    assert case.network().plan.sizes == (10, 8, 3)
    weights = case.weights()
    weights[layer][0][1, 1] = value
    net = Network(weights, case.activation)
    assert net.plan.sizes == case.widths
    assert_as_reference(net, case.x())


@dtypes
@pytest.mark.parametrize("exponent", [-0.6, 0.6])
def test_products_that_leave_the_range_are_not_merged(exponent, dtype):
    weights = Case((10, 20, 3), dtype=dtype).weights()
    factor = dtype(float(np.finfo(dtype).max) ** exponent)
    net = Network([(w * factor, b) for w, b in weights], "identity", "identity")
    assert net.plan.sizes == (10, 20, 3)


def every_way(net, x):
    """Yield ``y`` and ``jac`` of a sample from every way into the routine."""
    yield net.value_and_jacobian(x)
    batch = np.tile(x, (40, 1))
    batch[::3] = 0.5
    y, jac = net.value_and_jacobian(batch)
    yield from ((y[i], jac[i]) for i in (1, 2, 38))
    out = y, jac = np.empty(net.n_outputs, net.dtype), np.empty((net.n_outputs, net.n_inputs), net.dtype)
    yield net.bind(x, out)()
    assert embedding.value_and_jacobian(net.handle(), x, y, jac) == embedding.OK
    yield out
    kind = ctypes.POINTER({"float32": ctypes.c_float, "float64": ctypes.c_double}[net.dtype.name])
    with net.c_function() as function:
        pointers = [array.ctypes.data_as(kind) for array in (x, y, jac)]
        assert function.ctypes(function.context, *pointers) == embedding.OK
    yield out


@paths
@dtypes
@pytest.mark.parametrize("share", [np.nan, np.inf, -np.inf, 1.0, -0.5, 1e-3])
def test_nan_infinity_and_overflow_are_as_in_the_reference(share, path, dtype):
    case = case_of(path, dtype)
    net, x = case.network(), case.x()
    x[-1] = share * float(np.finfo(dtype).max)
    y_expected, jac_expected = reference.value_and_jacobian(x, net.layers)
    for y, jac in every_way(net, x):
        assert_same_pattern(y, y_expected)
        assert_same_pattern(jac, jac_expected)
    # Of products the reference knows no more than which are NaN with any vector.
    v, u = np.ones(net.n_outputs, dtype), np.ones(net.n_inputs, dtype)
    for (y, product), axis in ((net.vjp(x, v), 0), (net.jvp(x, u), 1)):
        assert_same_pattern(y, y_expected)
        assert np.isnan(product)[np.isnan(jac_expected).any(axis=axis)].all()


# What overflows between the maps, or is infinite there, is NaN in the second map, and small in a merged one.
HIDDEN_OVERFLOW = [
    (np.full((2, 2), 7.0), np.array([[0.01, -0.01], [0.02, -0.01]]), [1.0, 1.0]),
    (np.array([[8.0, 8.0]]), np.array([[0.02], [-0.01]]), [1.0]),
    (np.array([[0.1, 0.15]]), np.array([[0.02], [-0.01]]), [np.inf]),
]


@dtypes
@pytest.mark.parametrize("behind", [False, True])
@pytest.mark.parametrize("maps", HIDDEN_OVERFLOW, ids=["first sum", "second map", "infinite"])
def test_what_happens_between_the_maps_is_not_lost(maps, behind, dtype):
    w1, w2, x = maps
    w1, w2 = w1.astype(dtype), w2.astype(dtype)
    x = np.array(x, dtype) * (np.finfo(dtype).max if np.isfinite(x).all() else 1)
    layers, activation = [(w1, None), (w2, None), (np.eye(w2.shape[1]), None)], ["identity", "relu"]
    if behind:
        layers, activation = [(np.eye(x.size), None), *layers], ["leaky_relu(0.5)", *activation]
    net = Network(layers, activation, "identity", dtype)
    assert len(net.packed.layers) == len(layers) - 1
    y_expected, jac_expected = reference.value_and_jacobian(x, net.layers)
    assert np.isnan(y_expected).any()
    for y, jac in every_way(net, x):
        assert_same_pattern(y, y_expected)
        assert_same_pattern(jac, jac_expected)
    assert_same_pattern(what_if(net, np.ones(x.size, dtype), x), net(np.where(np.eye(x.size), x, dtype(1))))


def test_what_if_is_as_in_calls():
    for path in PATHS:
        case = case_of(path, np.float32)
        net, x = case.network(), case.x()
        to = np.random.default_rng(1).standard_normal(x.size).astype(np.float32)
        for value in (to[-1], np.inf, -3e38, np.nan):
            to[-1] = value
            samples = np.tile(x, (x.size, 1))
            np.fill_diagonal(samples, to)
            np.testing.assert_allclose(what_if(net, x, to), net(samples), rtol=1e-3, atol=1e-5)
