"""Batches: the same results as sample by sample, whatever the layout, the chunks and the threads."""

import pickle
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import fastjac
from fastjac import Network
from fastjac.batches import chunks
from support.calls import METHODS, as_out, buffers, call
from support.examples import examples
from support.oracles import DTYPES, Case, assert_right, cases, near_corner

THREADS = [1, 2, 3, 8, "all"]


def arguments(net, lead, seed=0):
    """Samples, cotangents and tangents."""
    rng = np.random.default_rng(seed)
    sizes = net.n_inputs, net.n_outputs, net.n_inputs
    return [rng.standard_normal((*lead, n)).astype(net.dtype) for n in sizes]


def outputs(net, method, lead, fill=np.nan):
    return [np.full((*lead, *a.shape), fill, net.dtype) for a in buffers(net, method, 0)]


def threaded(net, method, x, v, u, n_threads, out=None):
    """`call` with ``threads``."""
    inputs = {"vjp": (x, v), "jvp": (x, u)}.get(method, (x,))
    function = net if method == "call" else getattr(net, method)
    result = (
        function(*inputs, threads=n_threads) if out is None else function(*inputs, out=out, threads=n_threads)
    )
    return list(result) if isinstance(result, tuple) else [result]


@pytest.fixture
def short_chunks(monkeypatch):
    """Chunks of one sample, and so many of them."""
    monkeypatch.setattr(chunks, "LONGEST", 1)
    monkeypatch.setattr(chunks, "SHORTEST", 1)


@given(cases(depth=3, widths=st.integers(1, 40)), st.sampled_from([1, 7, 8, 15, 16, 17, 31, 32, 33, 100]))
def test_a_batch_is_right_at_every_sample(case, samples):
    net = case.network()
    x, v, u = arguments(net, (samples,), case.seed)
    y, jac = net.value_and_jacobian(x)
    single = 2.0 ** (-20 if net.dtype == np.float32 else -49)
    products = {"vjp": np.einsum("bm,bmn->bn", v, jac), "jvp": np.einsum("bmn,bn->bm", jac, u)}
    for i in range(samples):
        if not near_corner(net, x[i]):
            assert_right(net, x[i], y[i], jac[i])
    for method in METHODS:
        *values, last = call(net, method, x, v, u)
        for value in values:
            np.testing.assert_allclose(value, y, rtol=64 * single, atol=64 * single)
        if method in products:
            scale = np.abs(jac).sum() + 1
            np.testing.assert_allclose(last, products[method], rtol=0, atol=64 * single * scale)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("widths", [(8, 32, 4), (64, 64, 10), (3, 5, 40, 6, 11), (33, 4)])
@pytest.mark.parametrize("method", METHODS)
def test_any_number_of_threads_gives_the_same_bits(widths, dtype, method):
    net = Case(widths, dtype=dtype).network()
    for samples in (1, 31, 500, 3001):
        x, v, u = arguments(net, (samples,))
        expected = call(net, method, x, v, u)
        for n_threads in THREADS:
            out = outputs(net, method, (samples,))
            for got in (
                threaded(net, method, x, v, u, n_threads),
                threaded(net, method, x, v, u, n_threads, as_out(method, out)),
            ):
                for a, b in zip(got, expected, strict=True):
                    assert a.tobytes() == b.tobytes()


@pytest.mark.parametrize("dtype", DTYPES)
def test_samples_that_are_too_much_for_one_chunk_are_computed_alone(dtype):
    net = Case((1400, 700, 150), dtype=dtype).network()
    x, _, _ = arguments(net, (11,))
    y, jac = net.value_and_jacobian(x)
    for got in (net.value_and_jacobian(x, threads=3), zip(*map(net.value_and_jacobian, x), strict=True)):
        for a, b in zip(got, (y, jac), strict=True):
            assert np.asarray(a).tobytes() == b.tobytes()


@pytest.mark.parametrize("samples", [0, 1, 3, 4, 5, 50])
@pytest.mark.parametrize("n_threads", [1, 3])
@pytest.mark.usefixtures("short_chunks")
def test_chunks_leave_nothing_out(samples, n_threads):
    net = Case((5, 9, 3)).network()
    x, v, u = arguments(net, (samples,))
    for method in METHODS:
        got = threaded(net, method, x, v, u, n_threads, as_out(method, outputs(net, method, (samples,))))
        for i in range(samples):
            for a, b in zip(got, call(net, method, x[i], v[i], u[i]), strict=True):
                np.testing.assert_allclose(a[i], b, rtol=1e-12, atol=1e-14)


@given(
    samples=st.integers(0, 10**7),
    multiply_adds=st.integers(1, 10**12),
    together=st.sampled_from([1, 4, 8, 16, 32]),
    size=st.integers(4, 10**6),
    n_threads=st.integers(1, 100),
)
@examples(200)
def test_chunks_are_consecutive_groups_and_none_too_long(samples, multiply_adds, together, size, n_threads):
    cost = chunks.Cost(multiply_adds, together)
    group, end = cost.group, 0
    assert group == together or (group == 1 and cost.longest < together)
    for number, (start, stop) in enumerate(chunks.chunks(samples, cost, size, n_threads)):
        assert start == end < stop
        assert start % group == 0
        assert stop - start == 1 or (stop - start) * multiply_adds <= chunks.LONGEST
        end = stop
        if number == 1000:
            return
    assert end == samples


LAYOUTS = {
    "as it is": lambda a: a,
    "list": lambda a: a.tolist(),
    "strided": lambda a: np.repeat(a, 2, axis=0)[::2],
    "backwards": lambda a: a[::-1].copy()[::-1],
    "Fortran": np.asfortranarray,
    "every other column": lambda a: np.repeat(a, 2, axis=-1)[..., ::2],
    "axes exchanged": lambda a: np.swapaxes(np.swapaxes(a, 0, 1).copy(), 0, 1),
    "big-endian": lambda a: a.astype(a.dtype.newbyteorder()),
    "other float": lambda a: a.astype(np.longdouble),
    "unaligned": lambda a: np.frombuffer(b"\0" + a.tobytes(), np.uint8)[1:].view(a.dtype).reshape(a.shape),
    "memoryview": memoryview,
    "masked": np.ma.array,
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("n_threads", [1, 3])
@pytest.mark.parametrize("lead", [(30, 2), (4, 3, 5)])
@pytest.mark.usefixtures("short_chunks")
def test_every_layout_gives_the_same_bits(layout, n_threads, lead):
    net = Case((6, 9, 3), dtype=np.float32).network()
    plain = arguments(net, lead)
    for method in METHODS:
        got = threaded(net, method, *map(LAYOUTS[layout], plain), n_threads)
        for a, b in zip(got, call(net, method, *plain), strict=True):
            assert a.shape == b.shape
            assert a.tobytes() == b.tobytes()


def peak_memory(function):
    """Return the most bytes that NumPy and Python held at once while ``function`` ran."""
    function()
    tracemalloc.start()
    try:
        function()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("n_threads", [1, 2])
@pytest.mark.parametrize("kind", ["float64", "float32", "columns"])
def test_memory_beyond_the_outputs_does_not_grow_with_the_batch(kind, n_threads):
    net = Case((64, 8, 2)).network()
    x = np.zeros((100_000, 64), "f4" if kind == "float32" else "f8", order="F" if kind == "columns" else "C")
    out = np.empty((100_000, 2, 64))
    bound = 2.5 * n_threads * chunks.LONGEST_BYTES
    assert bound < x.size * 8 / 2
    assert peak_memory(lambda: net.jacobian(x, out=out, threads=n_threads)) < bound


@pytest.mark.parametrize("samples", [10, 20_000])
@pytest.mark.parametrize("n_threads", [1, 2])
def test_wrong_buffers_of_a_batch_are_refused_and_nothing_is_written(samples, n_threads):
    net = Case((64, 30, 2)).network()
    x = arguments(net, (samples,))[0]
    y, jac = outputs(net, "value_and_jacobian", (samples,), 7)
    overlapping = x.reshape(-1)[: 2 * samples].reshape(samples, 2)
    for out, message in [
        ((y[:-1], jac), "y in out has shape"),
        ((y, jac[:-1]), "jac in out has shape"),
        ((y, jac.reshape(samples, 64, 2)), "jac in out has shape"),
        ((np.asfortranarray(y), jac), "y in out is not C-contiguous"),
        ((y.astype("f4"), jac), "y in out has dtype"),
        ((overlapping, jac), "y in out overlaps x"),
        ((jac.reshape(-1)[: 2 * samples].reshape(samples, 2), jac), "jac in out overlaps y"),
    ]:
        before = x.copy()
        with pytest.raises(ValueError, match=message):
            net.value_and_jacobian(x, out=out, threads=n_threads)
        assert np.all(jac == 7)
        assert np.all(y == 7)
        assert np.array_equal(x, before)
    with pytest.raises(ValueError, match="out overlaps x"):
        net(memoryview(x), out=overlapping)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("threads", "error", "message"),
    [
        (0, ValueError, "threads is 0, expected a positive integer or 'all'"),
        (-2, ValueError, "threads is -2"),
        ("two", ValueError, "threads is 'two'"),
        (1.5, TypeError, "threads must be an integer or 'all', got float"),
        (None, TypeError, "threads must be an integer or 'all', got NoneType"),
    ],
)
def test_threads_that_are_no_number(method, threads, error, message):
    net = Case((4, 3)).network()
    with pytest.raises(error, match=message):
        threaded(net, method, *arguments(net, (5,)), threads)


def test_nan_in_one_sample_stays_there():
    net = Case((20, 30, 5)).network()
    x = arguments(net, (100,))[0]
    expected = net.value_and_jacobian(x)
    x[[3, 50]] = np.nan
    for got, right in zip(net.value_and_jacobian(x, threads=2), expected, strict=True):
        assert np.isnan(got[[3, 50]]).all()
        others = np.delete(np.arange(100), [3, 50])
        np.testing.assert_allclose(got[others], right[others], rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("samples", [0, 1, 15, 16, 17, 200])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n_threads", [1, 2])
def test_the_functional_interface_takes_batches(samples, dtype, n_threads):
    case = Case((20, 30, 5), dtype=dtype)
    net, weights = case.network(), [a for pair in case.weights() for a in pair]
    x = arguments(net, (samples,))[0]
    out = tuple(outputs(net, "value_and_jacobian", (samples,)))
    y, jac = fastjac.value_and_jacobian(x, *weights, out=out, threads=n_threads)
    assert y is out[0]
    assert jac is out[1]
    for i in range(samples):
        assert_right(net, x[i], y[i], jac[i])
    alone = fastjac.jacobian.jacobian(x, *weights, threads=n_threads)
    assert alone.tobytes() == jac.tobytes()


def test_the_functional_interface_writes_a_batch_to_no_input():
    case = Case((20, 30, 5))
    w1, b1, w2, b2 = (a for pair in case.weights() for a in pair)
    x = np.zeros((40, 20))
    y = w1.reshape(-1)[:200].reshape(40, 5)
    with pytest.raises(ValueError, match="y in out overlaps w1"):
        fastjac.value_and_jacobian(x, w1, b1, w2, b2, out=(y, None))
    with pytest.raises(ValueError, match="threads is 0"):
        fastjac.value_and_jacobian(x, w1, b1, w2, b2, threads=0)


@pytest.mark.parametrize("lead", [(0,), (1,), (10,), (64,), (10, 3), (10, 0)])
@pytest.mark.parametrize("batch_size", [1, 3, 32, 100, None])
@pytest.mark.parametrize("n_threads", [1, 2])
def test_the_iterator_s_batches_make_up_the_whole(lead, batch_size, n_threads):
    net = Case((6, 9, 3)).network()
    x = arguments(net, lead)[0]
    parts = list(net.iter_value_and_jacobian(x, batch_size, threads=n_threads))
    sizes = [len(y) for y, _ in parts]
    assert sum(sizes) == lead[0]
    if batch_size is not None:
        assert all(size == batch_size for size in sizes[:-1])
        assert all(0 < size <= batch_size for size in sizes)
    for number, whole in enumerate(net.value_and_jacobian(x)):
        for part in parts:
            assert part[number].flags.owndata or part[number].size == 0
        if parts:
            joined = np.concatenate([part[number] for part in parts])
            np.testing.assert_allclose(joined, whole, rtol=1e-12, atol=1e-14)


def test_the_iterator_reads_only_what_it_is_asked_for():
    class Stored:
        shape = (10**6, 6)
        asked = ()

        def __getitem__(self, rows):
            self.asked = (*self.asked, (rows.start, rows.stop))
            return np.zeros((rows.stop - rows.start, 6))

    stored, net = Stored(), Case((6, 9, 3)).network()
    iterator = net.iter_value_and_jacobian(stored, 100)
    assert stored.asked == ()
    next(iterator)
    next(iterator)
    assert stored.asked == ((0, 100), (100, 200))


def test_the_iterator_s_mistakes_are_told_at_once():
    net = Case((6, 9, 3)).network()
    for wrong in (np.zeros(6), np.zeros((3, 5)), 1.0):
        with pytest.raises(ValueError, match=r"x has shape .*, expected \(B, 6\)"):
            net.iter_value_and_jacobian(wrong)
    for size, error in ((0, ValueError), (-1, ValueError), (2.5, TypeError)):
        with pytest.raises(error):
            net.iter_value_and_jacobian(np.zeros((3, 6)), size)
    with pytest.raises(ValueError, match="threads is 0"):
        net.iter_value_and_jacobian(np.zeros((3, 6)), threads=0)


def test_the_iterator_s_memory_does_not_grow_with_the_batch(tmp_path):
    net = Case((64, 8, 10)).network()
    np.save(tmp_path / "x.npy", np.zeros((30_000, 64), np.float32))
    x = np.load(tmp_path / "x.npy", mmap_mode="r")

    def total():
        return sum(float(y.sum()) for y, _ in net.iter_value_and_jacobian(x, 1000))

    assert total() == pytest.approx(30_000)
    assert peak_memory(total) < 2.5 * 1000 * 64 * 10 * 8


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_pickle_is_little_more_than_the_weights(dtype):
    net = Case((500, 100, 10), dtype=dtype).network()
    net.value_and_jacobian(np.zeros((100, 500)), threads=2)
    weights = sum(layer.w.nbytes + layer.b.nbytes for layer in net.layers)
    assert len(pickle.dumps(net)) < weights + 2000
    assert len(pickle.dumps(Network([layer[:2] for layer in net.layers]))) < weights + 2000
