"""The routines as Python functions: what they refuse, and that they leave nothing behind."""

import ctypes
import itertools
import sys
import threading
import time
import tracemalloc

import numpy as np
import pytest

from fastjac.kernels import functions, interpreter, machine_code
from fastjac.kernels.context import Context
from fastjac.kernels.contexts import Contexts
from fastjac.kernels.signatures import SIGNATURES
from support.oracles import DTYPES, Case

N, H, M = 5, 7, 3
NAMES = ("value", "value_and_jacobian", "vjp", "jvp")
SIZES = {"n": N, "m": M}


def arrays(name, dtype, lead=()):
    shapes = SIGNATURES[name].arrays.values()
    rng = np.random.default_rng(0)
    return [
        rng.standard_normal([*lead, *(SIZES[length] for length in shape)]).astype(dtype) for shape in shapes
    ]


def contexts(dtype="float64"):
    """Return the contexts, none as yet, of a network."""
    return Contexts(Case((N, H, M), dtype=dtype).network().packed)


def function(name, dtype):
    """Return a routine's function as one of arrays alone, and the function itself."""
    own = contexts(dtype)
    own.add()
    bound = functions.bound(name, np.dtype(dtype), own, 4, True)
    n_read = len(SIGNATURES[name].inputs)
    return lambda *given: bound(*given[:n_read], given[n_read:]), bound


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", NAMES)
def test_a_batch_is_taken_up_to_the_most_samples(name, dtype):
    n_read = len(SIGNATURES[name].inputs)
    _, bound = function(name, dtype)
    for lead in ((0,), (1,), (4,)):
        given = arrays(name, dtype, lead)
        read, written = given[:n_read], given[n_read:]
        assert all(a is b for a, b in zip(bound(*read, tuple(written)), written, strict=True))
        for i in range(sum(lead)):
            expected = [np.empty_like(array[i]) for array in written]
            assert bound(*(array[i] for array in read), tuple(expected))
            for got, right in zip(written, expected, strict=True):
                np.testing.assert_allclose(got[i], right, rtol=64 * np.finfo(dtype).eps)
    for lead in ((5,), (2, 2), (1, 1)):
        given = arrays(name, dtype, lead)
        assert bound(*given[:n_read], tuple(given[n_read:])) is False


@pytest.mark.parametrize("name", NAMES)
def test_without_a_free_context_none_is_returned_and_nothing_written(name):
    own, given = contexts(), arrays(name, "float64")
    bound = functions.bound(name, np.dtype("float64"), own, 4, True)
    n_read = len(SIGNATURES[name].inputs)
    read, written = given[:n_read], tuple(given[n_read:])
    before = [array.copy() for array in written]
    assert bound(*read, written) is None
    own.add()
    own.made[0].record["taken"] = 1
    assert bound(*read, written) is None
    assert all(array.tobytes() == copy.tobytes() for array, copy in zip(written, before, strict=True))
    own.add()
    assert bound(*read, written) is written
    own.made[0].record["taken"] = 0
    assert bound(*read, written) is written
    assert [context.record["taken"] for context in own.made] == [0, 0]


@pytest.mark.parametrize("other", [(), (1,), (3,), (5,), (1, 4)])
@pytest.mark.parametrize("name", NAMES)
def test_arrays_of_different_batches_are_refused(name, other):
    call, _ = function(name, "float64")
    for i in range(len(arrays(name, "float64"))):
        given = arrays(name, "float64", (4,))
        given[i] = arrays(name, "float64", other)[i]
        before = [array.copy() for array in given]
        assert call(*given) is False
        assert all(array.tobytes() == copy.tobytes() for array, copy in zip(given, before, strict=True))


class Subclass(np.ndarray):
    pass


def read_only(array):
    array.flags.writeable = False
    return array


def misaligned(array):
    room = np.zeros(array.nbytes + 1, np.uint8)
    return np.ndarray(array.shape, array.dtype, room.data, offset=1)


def strided(array):
    return np.zeros((*array.shape[:-1], 2 * array.shape[-1]), array.dtype)[..., ::2]


STRANGE = {
    "list": lambda array: array.tolist(),
    "None": lambda array: None,
    "number": lambda array: 1.0,
    "subclass": lambda array: array.view(Subclass),
    "other precision": lambda array: array.astype("f4" if array.dtype == "f8" else "f8"),
    "integers of that size": lambda array: array.view(f"i{array.itemsize}"),
    "other byte order": lambda array: array.astype(array.dtype.newbyteorder()),
    "longer": lambda array: np.zeros((array.shape[0] + 1, *array.shape[1:]), array.dtype),
    "more dimensions": lambda array: array[None],
    "no dimensions": lambda array: np.zeros((), array.dtype),
    "strided": strided,
    "misaligned": misaligned,
}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", NAMES)
def test_right_arrays_are_taken_and_the_outputs_returned(name, dtype):
    _, bound = function(name, dtype)
    n_read, given = len(SIGNATURES[name].inputs), arrays(name, dtype)
    outputs = tuple(given[n_read:])
    assert bound(*given[:n_read], outputs) is outputs


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("lead", [(), (0,), (1,), (4,)])
@pytest.mark.parametrize("name", NAMES)
def test_outputs_that_are_none_are_made(name, lead, dtype):
    _, bound = function(name, dtype)
    given = arrays(name, dtype, lead)
    n_read = len(SIGNATURES[name].inputs)
    read, written = given[:n_read], tuple(given[n_read:])
    bound(*read, written)
    for missing in itertools.product([False, True], repeat=len(written)):
        outputs = tuple(None if m else array for m, array in zip(missing, written, strict=True))
        got = bound(*read, outputs)
        assert type(got) is tuple and len(got) == len(written)
        for array, right, m in zip(got, written, missing, strict=True):
            assert (array is not right) == m
            assert type(array) is np.ndarray and array.dtype == right.dtype and array.flags.owndata
            assert array.shape == right.shape and array.tobytes() == right.tobytes()
            assert sys.getrefcount(array) <= (4 if m else 10)
    assert all(a.tobytes() == b.tobytes() for a, b in zip(bound(*read, None), written, strict=True))


@pytest.mark.parametrize("name", NAMES)
def test_new_outputs_of_refused_and_of_finished_calls_are_freed(name):
    _, bound = function(name, "float64")
    given = arrays(name, "float64")
    n_read = len(SIGNATURES[name].inputs)
    tracemalloc.start()
    try:
        for _ in range(200):
            bound(*given[:n_read], None)
            bound(*given[:n_read], (None,) * 7)
        before = tracemalloc.get_traced_memory()[0]
        for _ in range(200):
            bound(*given[:n_read], None)
            bound(*given[:n_read], (None,) * 7)
        assert tracemalloc.get_traced_memory()[0] - before < 5000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("strange", STRANGE)
def test_any_other_argument_is_refused_and_nothing_written(name, strange, dtype):
    call, _ = function(name, dtype)
    given = arrays(name, dtype)
    before = [array.copy() for array in given]
    for i in range(len(given)):
        if strange == "None" and i >= len(SIGNATURES[name].inputs):
            continue
        others = [*given[:i], STRANGE[strange](given[i]), *given[i + 1 :]]
        assert call(*others) is False
    for array, copy in zip(given, before, strict=True):
        assert array.tobytes() == copy.tobytes()


@pytest.mark.parametrize("name", NAMES)
def test_what_is_written_must_be_writable_and_what_is_read_need_not(name):
    call, _ = function(name, "float64")
    n_read = len(SIGNATURES[name].inputs)
    for i in range(len(arrays(name, "float64"))):
        given = arrays(name, "float64")
        read_only(given[i])
        assert bool(call(*given)) is (i < n_read)


@pytest.mark.parametrize("name", NAMES)
def test_overlapping_arrays_and_other_numbers_of_them_are_refused(name):
    call, bound = function(name, "float64")
    given = arrays(name, "float64")
    for count in range(len(given)):
        assert call(*given[:count]) is False
    assert call(*given, given[0]) is False
    room = np.zeros(N * M + N)
    given[0], given[-1] = room[:N], room[N - 1 :][: given[-1].size].reshape(given[-1].shape)
    assert call(*given) is False
    n_read = len(SIGNATURES[name].inputs)
    given = arrays(name, "float64")
    read, written = given[:n_read], tuple(given[n_read:])
    assert bound(*read, written) is written
    for strange in (
        list(written),
        written[0],
        written[:-1],
        (*written, written[0]),
        ((), *written[1:]),
    ):
        assert bound(*read, strange) is False
    assert bound(*read) is False and bound(*read, written, written) is False and bound() is False
    with pytest.raises(TypeError, match="keyword"):
        bound(*read, out=written)


def test_nothing_is_kept_of_arguments():
    call, bound = function("value_and_jacobian", "float64")
    given = arrays("value_and_jacobian", "float64")
    counted = [*given, None, True, False, bound.__self__]
    before = [sys.getrefcount(value) for value in counted]
    for _ in range(1000):
        assert call(*given)
        assert not call(*given[:2], 1.0)
        assert call(*given[:2], None)
    after = [sys.getrefcount(value) for value in counted]
    assert all(abs(b - a) < 100 for a, b in zip(before, after, strict=True))


def turns(widths, calls):
    """Return how many turns this thread got while another did the calls; Python itself does not switch."""
    net, x = Case(widths).network(), np.zeros(widths[0])
    out = net.value_and_jacobian(x)
    done, count = threading.Event(), 0

    def work():
        for _ in range(calls):
            net.value_and_jacobian(x, out=out)
        done.set()

    interval = sys.getswitchinterval()
    sys.setswitchinterval(100)
    try:
        thread = threading.Thread(target=work)
        thread.start()
        while not done.is_set():
            count += 1
            time.sleep(0.001)
        thread.join()
    finally:
        sys.setswitchinterval(interval)
    return count


@pytest.mark.parametrize("widths", [(700, 700, 700), (2000, 2000)])
def test_other_threads_run_in_the_meantime(widths):
    assert turns(widths, 20) > 5


def test_a_small_network_keeps_the_lock():
    assert turns((8, 32, 4), 50_000) <= 2


def test_an_unknown_layout_of_arrays_is_refused(monkeypatch):
    monkeypatch.setattr(interpreter, "ARRAY", interpreter.ARRAY._replace(data=ctypes.sizeof(ctypes.c_void_p)))
    with pytest.raises(RuntimeError, match=f"NumPy {np.__version__} lays arrays out"):
        interpreter.check_layout()


@pytest.mark.parametrize("name", NAMES)
def test_a_step_that_is_running_is_refused(name):
    given = arrays(name, "float64")
    context = Context(Case((N, H, M)).network().packed)
    step = functions.step(name, np.dtype("float64"), context, given, "result", 1, False)
    assert step() == "result"
    context.record["taken"] = 1
    with pytest.raises(RuntimeError, match="this step is running: bind one for each thread"):
        step()
    context.record["taken"] = 0
    assert step() == "result"


def test_threads_that_bind_first_at_once_share_one_description(monkeypatch):
    # A description that another one replaced was freed, and the function that pointed to it crashed.
    made = []

    def slow(*arguments, **named):
        time.sleep(0.05)
        made.append(interpreter.definition(*arguments, **named))
        return made[-1]

    monkeypatch.setattr(functions, "definition", slow)
    monkeypatch.setattr(machine_code, "address", lambda *key: 0)
    start, found = threading.Barrier(4), []

    def ask():
        start.wait()
        found.append(functions._definition("step", "of no routine", np.dtype(np.float64)))

    workers = [threading.Thread(target=ask) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert len(made) == 1
    assert all(each is made[0] for each in found) and len(found) == 4
