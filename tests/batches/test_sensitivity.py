"""`Network.sensitivity` against NumPy on all Jacobians."""

import tracemalloc
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastjac import Network
from fastjac.batches import sensitivity
from support.oracles import DTYPES, Case, cases

REDUCTIONS = ["mean_abs", "class_mean", "frobenius", "spectral"]
RTOL = {np.float32: 1e-5, np.float64: 1e-12}


def expected(net, x, reduce, scale=1.0):
    """The definitions, on Jacobians that are all there."""
    y, jac = net.value_and_jacobian(x)
    jac = jac.astype(np.float64) * scale
    if reduce == "mean_abs":
        return np.abs(jac).reshape(-1, *jac.shape[-2:]).mean(axis=0)
    if reduce == "frobenius":
        return (jac**2).sum(axis=(-2, -1))
    if reduce == "spectral":
        return np.linalg.norm(jac, 2, axis=(-2, -1))
    rows, classes = jac.reshape(-1, *jac.shape[-2:]), y.reshape(-1, net.n_outputs).argmax(axis=1)
    means = np.full(jac.shape[-2:], np.nan)
    for m in np.unique(classes):
        means[m] = rows[classes == m, m].mean(axis=0)
    return means


def linear(jac, dtype=np.float64):
    """A network whose Jacobian is ``jac`` everywhere."""
    return Network([(np.transpose(jac), None)], head="identity", dtype=dtype)


@given(cases(depth=3, widths=st.integers(1, 30)), st.sampled_from([(1,), (5,), (40,), (3, 7)]))
def test_every_reduction_is_its_definition(case, lead):
    net = case.network()
    x = np.random.default_rng(case.seed).standard_normal((*lead, net.n_inputs)).astype(net.dtype)
    for reduce in REDUCTIONS:
        right = expected(net, x, reduce)
        got = net.sensitivity(x, reduce)
        assert got.dtype == np.float64
        assert got.shape == right.shape
        allowed = RTOL[case.dtype] * (1 + np.nanmax(np.abs(right), initial=0))
        np.testing.assert_allclose(got, right, rtol=100 * RTOL[case.dtype], atol=100 * allowed)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("reduce", REDUCTIONS)
def test_scale_multiplies_the_columns_before_the_reduction(reduce, dtype):
    net = Case((6, 20, 4), "tanh", dtype=dtype).network()
    x = np.random.default_rng(0).standard_normal((50, 6)).astype(dtype)
    scale = np.array([1e-4, 1.0, 3.0, 12_000.0, 40.0, 0.5])
    right = expected(net, x, reduce, scale)
    got = net.sensitivity(x, reduce, scale=scale)
    assert got.dtype == np.float64
    np.testing.assert_allclose(got, right, rtol=100 * RTOL[dtype], atol=1e-9 * np.nanmax(np.abs(right)))
    assert net.sensitivity(x, reduce, scale=list(scale), threads=2).tobytes() == got.tobytes()
    assert net.sensitivity(x, reduce, scale=np.ones(6, int)).tobytes() == net.sensitivity(x, reduce).tobytes()


@pytest.mark.parametrize("reduce", REDUCTIONS)
def test_inputs_in_another_unit_with_a_scale_in_it_give_the_same(reduce):
    case = Case((2, 20, 4), "tanh")
    net, scale = case.network(), np.array([12_000.0, 15.0])
    x = np.random.default_rng(0).standard_normal((50, 2))
    first, *rest = net.layers
    euros = Network([(first.w / scale[:, None], first.b, first.activation), *rest])
    got, right = euros.sensitivity(x * scale, reduce, scale=scale), net.sensitivity(x, reduce)
    np.testing.assert_allclose(got, right, rtol=1e-9, atol=1e-12)


def test_a_float32_norm_with_a_scale_overflows_only_where_float64_does():
    net = linear(np.full((2, 3), 1e30), np.float32)
    norm = net.sensitivity(np.zeros(3), "frobenius", scale=[1e20, 1e20, 1e20])
    assert norm == pytest.approx(6e100, rel=1e-6)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("widths", [(8, 32, 4), (64, 64, 10), (3, 5, 40, 6, 11), (33, 4)])
@pytest.mark.parametrize("reduce", REDUCTIONS)
def test_any_number_of_threads_gives_the_same_bits(widths, dtype, reduce):
    net = Case(widths, dtype=dtype).network()
    for samples in (1, 100, 3001):
        x = np.random.default_rng(0).standard_normal((samples, widths[0])).astype(dtype)
        first = net.sensitivity(x, reduce)
        np.testing.assert_allclose(first, expected(net, x, reduce), rtol=1e-3, atol=1e-6)
        for threads in (1, 2, 5, "all"):
            assert net.sensitivity(x, reduce, threads=threads).tobytes() == first.tobytes()


@pytest.mark.parametrize("reduce", ["mean_abs", "class_mean"])
def test_sums_that_come_back_to_the_same_part(monkeypatch, reduce):
    monkeypatch.setattr(sensitivity, "PARTS", range(2, 3))
    monkeypatch.setattr(sensitivity, "LONGEST", 1)  # A part gets a group of samples, then another gets one.
    net = Case((64, 64, 10)).network()
    x = np.random.default_rng(0).standard_normal((3001, 64))
    first = net.sensitivity(x, reduce)
    np.testing.assert_allclose(first, expected(net, x, reduce), rtol=1e-10, atol=1e-12)
    for threads in [2, 5] * 3:
        assert net.sensitivity(x, reduce, threads=threads).tobytes() == first.tobytes()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("scale", [1.0, 1e15, 1e-15, 1e150, 1e-150, 1e300, 1e-300])
@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (7, 1), (2, 2), (3, 3), (10, 64), (64, 10), (50, 60)])
def test_the_spectral_norm_of_any_matrix(shape, scale, dtype):
    if dtype == np.float32 and not 1e-30 < scale < 1e30:
        return
    rng = np.random.default_rng(0)
    left, _ = np.linalg.qr(rng.standard_normal((shape[0], shape[0])))
    right, _ = np.linalg.qr(rng.standard_normal((shape[1], shape[1])))
    full = rng.standard_normal(shape)
    for matrix in (
        full,
        np.eye(*shape),
        np.ones(shape),
        full - full.mean(axis=0),
        np.outer(full[:, 0], full[0]),
        left @ np.eye(*shape) @ right,
        np.diag(np.geomspace(1, 1e-12, max(shape)))[: shape[0], : shape[1]],
    ):
        net = linear(scale * matrix, dtype)
        jac = net.layers[0].w.T.astype(np.float64) / scale
        norm = np.linalg.norm(jac, 2) * scale
        np.testing.assert_allclose(net.sensitivity(np.zeros(shape[1]), "spectral"), norm, rtol=1e-13)


@pytest.mark.filterwarnings("ignore:.*contains NaN:RuntimeWarning")
def test_norms_of_nothing_infinity_and_nan():
    x = np.zeros(3)
    assert linear(np.zeros((2, 3))).sensitivity(x, "spectral") == 0
    assert linear(np.zeros((2, 3))).sensitivity(x, "frobenius") == 0
    net = Network([(np.eye(3), None)], "identity", "identity")
    matrix = np.eye(3)
    matrix[1, 1] = np.inf
    # The outputs are NaN where infinity meets 0; only the Jacobian counts.
    assert linear(matrix).sensitivity(np.ones(3), "spectral") == np.inf
    assert linear(matrix).sensitivity(np.ones(3), "frobenius") == np.inf
    matrix[0, 1] = np.nan
    assert np.isnan(linear(matrix).sensitivity(np.ones(3), "spectral"))
    assert np.isnan(linear(matrix).sensitivity(np.ones(3), "frobenius"))
    assert net.sensitivity(x, "spectral").shape == ()


def test_nan_in_one_sample_is_seen_in_every_mean_and_in_its_own_norm():
    net = Case((20, 30, 5)).network()
    x = np.random.default_rng(0).standard_normal((200, 20))
    whole = {reduce: net.sensitivity(x, reduce) for reduce in REDUCTIONS}
    x[77, 3] = np.nan
    others = np.delete(np.arange(200), 77)
    for reduce in ("frobenius", "spectral"):
        norms = net.sensitivity(x, reduce, threads=2)
        assert np.isnan(norms[77])
        np.testing.assert_allclose(norms[others], whole[reduce][others], rtol=1e-10)
    assert np.isnan(net.sensitivity(x, "mean_abs", threads=2)).all()
    assert np.isnan(net.sensitivity(x, "class_mean", threads=2)).all()


def test_no_samples():
    net = Case((6, 8, 3)).network()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for reduce in ("mean_abs", "class_mean"):
            with pytest.raises(ValueError, match=r"x has shape \(0, 6\): there is no mean over no samples"):
                net.sensitivity(np.zeros((0, 6)), reduce)
        for reduce in ("frobenius", "spectral"):
            assert net.sensitivity(np.zeros((2, 0, 6)), reduce).shape == (2, 0)


def test_of_equal_outputs_the_first_is_the_largest():
    net = Network([(np.eye(3), None)], head="softmax")
    means = net.sensitivity(np.zeros((4, 3)), "class_mean")
    np.testing.assert_allclose(means[0], net.jacobian(np.zeros(3))[0])
    assert np.isnan(means[1:]).all()


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("reduce", REDUCTIONS)
def test_memory_does_not_grow_with_the_batch(reduce, threads):
    net = Case((64, 8, 10)).network()
    x = np.broadcast_to(np.linspace(0, 1, 64), (60_000, 64))
    net.sensitivity(x[:1000], reduce, threads=threads)
    tracemalloc.start()
    try:
        net.sensitivity(x, reduce, threads=threads)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    # All Jacobians are 307 MB, all samples in one array 31 MB.
    assert peak < 12e6


def test_mistakes_name_the_argument():
    net = Case((6, 8, 3)).network()
    with pytest.raises(ValueError, match="reduce is 'mean', expected one of mean_abs, class_mean, frobenius"):
        net.sensitivity(np.zeros((2, 6)), "mean")
    with pytest.raises(ValueError, match=r"x has shape \(2, 5\)"):
        net.sensitivity(np.zeros((2, 5)))
    with pytest.raises(TypeError, match="x has dtype complex128"):
        net.sensitivity(np.zeros((2, 6), complex))
    for scale, message in [
        (2.0, r"scale has shape \(\), expected \(6,\)"),
        (np.ones((1, 6)), r"scale has shape \(1, 6\), expected \(6,\)"),
        ([1, 1, 0, 1, 1, 1], r"scale\[2\] is 0.0, expected positive and finite numbers"),
        ([1, -1, 1, 1, 1, 1], r"scale\[1\] is -1.0"),
        ([1, 1, 1, 1, np.nan, 1], r"scale\[4\] is nan"),
        ([np.inf, 1, 1, 1, 1, 1], r"scale\[0\] is inf"),
    ]:
        for reduce in REDUCTIONS:
            with pytest.raises(ValueError, match=message):
                net.sensitivity(np.zeros((2, 6)), reduce, scale=scale)
    with pytest.raises(TypeError, match="scale has dtype"):
        net.sensitivity(np.zeros((2, 6)), scale=["a"] * 6)
    with pytest.raises(ValueError, match=r"scale\['e'\] is -1.0"):
        net.replace(input_names="abcdef").sensitivity(np.zeros(6), scale=[1, 1, 1, 1, -1, 1])
    with pytest.raises(ValueError, match="threads is 0"):
        net.sensitivity(np.zeros((2, 6)), threads=0)
