"""A network called from njit functions: the same bits, no Python, no copies, and statuses for misuse."""

import copy
import ctypes
import gc
import multiprocessing
import os
import pickle
import subprocess
import sys
import threading
import tracemalloc
import weakref
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import numpy as np
import pytest
from numba import errors, njit

from fastjac.embedding import BUSY, MISMATCH, OK, value_and_jacobian
from fastjac.kernels import c_entries
from support.oracles import DTYPES, Case

EXAMPLE = Path(__file__).parents[2] / "examples" / "control_loop.py"
CASES = [
    Case((8, 32, 4)),
    Case((3, 40, 5, 40, 9), "tanh", "identity"),
    Case((2, 30, 50), "gelu", "log_softmax"),
]


@njit
def linearise(handle, xs, ys, jacs):
    """Write value and Jacobian at each of ``xs``; return all statuses."""
    status = 0
    for k in range(len(xs)):
        status |= value_and_jacobian(handle, xs[k], ys[k], jacs[k])
    return status


@njit(nogil=True)
def linearise_often(handle, times, x, y, jac, counts):
    for _ in range(times):
        counts[value_and_jacobian(handle, x, y, jac)] += 1


def buffers(net, *lead):
    shapes = (*lead, net.n_outputs), (*lead, net.n_outputs, net.n_inputs)
    return tuple(np.full(shape, np.nan, net.dtype) for shape in shapes)


@pytest.fixture
def net():
    return CASES[0].network()


@pytest.fixture
def x():
    return CASES[0].x()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_compiled_loop_gets_the_bits_that_python_gets(case, dtype):
    net = Case(case.widths, case.activation, case.head, dtype).network()
    xs = np.random.default_rng(0).standard_normal((20, net.n_inputs)).astype(dtype)
    ys, jacs = buffers(net, len(xs))
    assert linearise(net.handle(), xs, ys, jacs) == OK
    for x, y, jac in zip(xs, ys, jacs, strict=True):
        expected_y, expected_jac = net.value_and_jacobian(x)
        np.testing.assert_array_equal(y, expected_y)
        np.testing.assert_array_equal(jac, expected_jac)


def test_it_can_be_called_from_python(net, x):
    y, jac = buffers(net)
    assert value_and_jacobian(net.handle(), x, y, jac) == OK
    np.testing.assert_array_equal(jac, net.jacobian(x))


def test_read_only_inputs_are_taken(net, x):
    y, jac = buffers(net)
    x.flags.writeable = False
    assert value_and_jacobian(net.handle(), x, y, jac) == OK


def test_a_compiled_loop_allocates_nothing(net, x):
    from numba.core.runtime import _nrt_python, rtsys

    handle, counts = net.handle(), np.zeros(5, np.int64)
    y, jac = buffers(net)
    linearise_often(handle, 1, x, y, jac, counts)
    _nrt_python.memsys_enable_stats()
    try:
        allocated = []
        for times in (10, 1000):
            before = rtsys.get_allocation_stats()
            linearise_often(handle, times, x, y, jac, counts)
            after = rtsys.get_allocation_stats()
            allocated.append((after.alloc - before.alloc, after.mi_alloc - before.mi_alloc))
    finally:
        _nrt_python.memsys_disable_stats()
    assert allocated[0] == allocated[1]


def test_handles_share_the_weights():
    net = Case((2000, 400, 20)).network()
    weights = sum(layer.w.nbytes for layer in net.layers)
    net.handle()
    gc.collect()
    tracemalloc.start()
    handles = [net.handle() for _ in range(4)]
    taken, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(handles) == 4
    assert taken < weights


def test_a_handle_keeps_its_network_and_gives_its_memory_back(x):
    net = CASES[0].network()
    expected = net.jacobian(x)
    handle = net.handle()
    y, jac = buffers(net)
    del net
    gc.collect()
    assert value_and_jacobian(handle, x, y, jac) == OK
    np.testing.assert_array_equal(jac, expected)

    owner = weakref.ref(handle.base)
    del handle
    gc.collect()
    assert owner() is None


@pytest.mark.parametrize("wrong", [{"x": 9}, {"y": 3}, {"jac": (4, 7)}, {"jac": (3, 8)}, {"jac": (8, 4)}])
def test_arrays_of_other_sizes_are_refused(net, wrong):
    shapes = {"x": 8, "y": 4, "jac": (4, 8)} | wrong
    x, y, jac = (np.full(shape, 7.0) for shape in shapes.values())
    assert value_and_jacobian(net.handle(), x, y, jac) == MISMATCH
    assert (y == 7).all()
    assert (jac == 7).all()


def test_arrays_of_the_other_dtype_are_refused(net, x):
    y, jac = (array.astype(np.float32) for array in buffers(net))
    assert value_and_jacobian(net.handle(), x.astype(np.float32), y, jac) == MISMATCH
    assert np.isnan(jac).all()


def test_arrays_that_overlap_are_refused(net):
    room = np.full(44, 7.0)
    x, y, jac = room[:8], room[4:8], room[8:40].reshape(4, 8)
    assert value_and_jacobian(net.handle(), x, y, jac) == MISMATCH
    assert (room == 7).all()


@pytest.mark.parametrize(
    "copied",
    [np.copy, lambda handle: pickle.loads(pickle.dumps(handle)), np.zeros_like, lambda handle: handle[:5]],
    ids=["copy", "pickle", "zeros", "slice"],
)
def test_what_is_no_handle_is_refused(net, x, copied):
    y, jac = buffers(net)
    assert value_and_jacobian(copied(net.handle()), x, y, jac) == MISMATCH
    assert np.isnan(jac).all()


def test_a_handle_frozen_into_a_function_is_refused(net, x):
    handle = net.handle()

    @njit
    def frozen(x, y, jac):
        return value_and_jacobian(handle, x, y, jac)

    assert frozen(x, *buffers(net)) == MISMATCH


def test_a_caller_compiled_for_other_handles_is_refused(net, x):
    handle = net.handle()
    handle[c_entries.LAYOUT_AT] += 1
    assert value_and_jacobian(handle, x, *buffers(net)) == MISMATCH


def test_a_handle_in_use_is_refused(net, x):
    handle = net.handle()
    y, jac = buffers(net)
    handle[c_entries.STATE] = 1
    assert value_and_jacobian(handle, x, y, jac) == BUSY
    assert np.isnan(jac).all()
    handle[c_entries.STATE] = 0
    assert value_and_jacobian(handle, x, y, jac) == OK


def copies(handle):
    yield handle.copy()
    yield copy.copy(handle)
    yield copy.deepcopy(handle)
    yield pickle.loads(pickle.dumps(handle))
    yield np.array(handle.tolist())


def test_a_copy_of_a_handle_is_refused_wherever_it_lies(net, x):
    y, jac = buffers(net)
    for _ in range(10):
        handle = net.handle()
        for other in copies(handle):
            assert value_and_jacobian(other, x, y, jac) == MISMATCH
        # A copy whose memory is that of a handle that is gone.
        saved, at = handle.copy(), handle.ctypes.data
        del handle
        gc.collect()
        room = (ctypes.c_int64 * saved.size).from_address(at)
        for candidate in (np.empty(saved.size, np.int64) for _ in range(20)):
            candidate[:] = saved
            assert value_and_jacobian(candidate, x, y, jac) == MISMATCH
        del room
    assert np.isnan(jac).all()


def test_handles_that_are_alive_work_however_many_there_are(net, x):
    handles = [net.handle() for _ in range(200)]
    expected = net.jacobian(x)
    for handle in handles[::2]:
        y, jac = buffers(net)
        assert value_and_jacobian(handle, x, y, jac) == OK
        assert jac.tobytes() == expected.tobytes()
    del handles[::3]
    gc.collect()
    handles += [net.handle() for _ in range(100)]
    for handle in handles:
        y, jac = buffers(net)
        assert value_and_jacobian(handle, x, y, jac) == OK


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_a_handle_from_after_the_fork_is_refused_in_the_child(net, x):
    own = net.handle()
    y, jac = buffers(net)
    assert value_and_jacobian(own, x, y, jac) == OK
    to_child, to_parent = multiprocessing.Pipe()

    def child():
        later = to_parent.recv()
        to_parent.send((value_and_jacobian(later, x, y, jac), value_and_jacobian(own, x, y, jac)))

    process = multiprocessing.get_context("fork").Process(target=child)
    process.start()
    to_child.send(net.handle())
    assert to_child.recv() == (MISMATCH, OK)
    process.join()


def test_threads_that_share_a_handle_are_refused_or_right():
    case = Case((64, 64, 10))
    net = case.network()
    handle, x = net.handle(), case.x()
    results = [(*buffers(net), np.zeros(5, np.int64)) for _ in range(4)]
    threads = [
        threading.Thread(target=linearise_often, args=(handle, 3000, x, y, jac, counts))
        for y, jac, counts in results
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(counts[OK] for *_, counts in results) > 0
    for _, jac, counts in results:
        assert counts[OK] + counts[BUSY] == 3000
        if counts[OK]:
            np.testing.assert_array_equal(jac, net.jacobian(x))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x, y, jac: (x, y, jac.T), "jac is array.float64, 2d, F., expected a C-contiguous"),
        (lambda x, y, jac: (x[::2], y, jac), "x is array.float64, 1d, A., expected a C-contiguous"),
        (lambda x, y, jac: (x, y.astype(np.float32), jac), "y is array.float32.*the same dtype as x"),
        (lambda x, y, jac: (x.astype(int), y, jac), "x is array.int64.*expected a C-contiguous float32"),
    ],
    ids=["F-ordered", "strided", "mixed", "integers"],
)
def test_arrays_that_never_fit_are_a_typing_error(net, x, change, message):
    handle = net.handle()
    with pytest.raises(errors.TypingError, match=message):
        linearise_often(handle, 1, *change(x, *buffers(net)), np.zeros(5, np.int64))


def test_a_read_only_output_is_a_typing_error(net, x):
    y, jac = buffers(net)
    jac.flags.writeable = False
    with pytest.raises(errors.TypingError, match="jac is read-only"):
        linearise_often(net.handle(), 1, x, y, jac, np.zeros(5, np.int64))


CACHED = """
import sys
import warnings

import numpy as np
from numba import njit

import fastjac
from fastjac.embedding import value_and_jacobian

warnings.simplefilter("error")


@njit(cache=True)
def step(handle, x, y, jac):
    return value_and_jacobian(handle, x, y, jac)


room = [fastjac.Network([(np.ones((n, 5)), None)]).handle() for n in range(1, int(sys.argv[1]))]
rng = np.random.default_rng(0)
net = fastjac.Network([(rng.normal(size=(8, 32)), None), (rng.normal(size=(32, 4)), None)])
x, y, jac = rng.normal(size=8), np.zeros(4), np.zeros((4, 8))
assert step(net.handle(), x, y, jac) == 0
assert np.array_equal(jac, net.jacobian(x))
print(sum(step.stats.cache_hits.values()), sum(step.stats.cache_misses.values()))
"""


def test_a_cached_function_is_right_in_the_next_process(tmp_path):
    script = tmp_path / "cached.py"
    script.write_text(CACHED)
    found = []
    for networks in ("2", "40"):  # The second finds its network elsewhere in memory.
        done = subprocess.run(
            [sys.executable, str(script), networks], capture_output=True, text=True, env=os.environ
        )
        assert done.returncode == 0, done.stderr
        found.append(done.stdout.split())
    assert found == [["0", "1"], ["1", "0"]]


def test_the_example_filters_better_than_its_readings(capsys, monkeypatch):
    spec = spec_from_file_location("control_loop", EXAMPLE)
    example = module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "control_loop", example)  # Its cached function looks for it there.
    spec.loader.exec_module(example)
    reading_error, filter_error = example.main(ticks=2000)
    assert filter_error < reading_error / 4
    assert "us a tick" in capsys.readouterr().out
