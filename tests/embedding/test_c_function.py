"""A network as a C function: for ctypes, cffi, scipy and C itself, and refused when it is closed."""

import ctypes
import gc
import shutil
import subprocess
import threading

import numpy as np
import pytest
from numba import carray, cfunc, types

from fastjac.embedding import BUSY, CLOSED, MISMATCH, OK, value_and_jacobian
from fastjac.kernels import c_entries
from support.oracles import DTYPES, Case

CC = shutil.which("cc")
CASE = Case((8, 32, 4))


def pointers(*arrays):
    kinds = {"float32": ctypes.c_float, "float64": ctypes.c_double}
    return [array.ctypes.data_as(ctypes.POINTER(kinds[array.dtype.name])) for array in arrays]


def buffers(net):
    return np.full(net.n_outputs, np.nan, net.dtype), np.full(
        (net.n_outputs, net.n_inputs), np.nan, net.dtype
    )


def call(function, net, x, context=None):
    """Call through ctypes; the status and the results."""
    y, jac = buffers(net)
    status = function.ctypes(function.context if context is None else context, *pointers(x, y, jac))
    return status, y, jac


@pytest.fixture
def net():
    return CASE.network()


@pytest.fixture
def x():
    return CASE.x()


def set_state(function, state):
    ctypes.c_int64.from_address(function.context + 8 * c_entries.STATE).value = state


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("widths", [(8, 32, 4), (3, 40, 5, 40, 9)])
def test_ctypes_gets_the_bits_that_python_gets(widths, dtype):
    case = Case(widths, dtype=dtype)
    net, x = case.network(), case.x()
    status, y, jac = call(net.c_function(), net, x)
    expected_y, expected_jac = net.value_and_jacobian(x)
    assert status == OK
    np.testing.assert_array_equal(y, expected_y)
    np.testing.assert_array_equal(jac, expected_jac)


@pytest.mark.parametrize(("dtype", "name"), [(np.float32, "float"), (np.float64, "double")])
def test_the_signature_is_told(dtype, name):
    function = Case((2, 3), dtype=dtype).network().c_function()
    assert function.signature == f"int (void *context, const {name} *x, {name} *y, {name} *jac)"
    assert function.signature in repr(function)


def test_cffi_takes_the_address(net, x):
    cffi = pytest.importorskip("cffi")
    ffi, function = cffi.FFI(), net.c_function()
    call = ffi.cast("int (*)(void *, const double *, double *, double *)", function.address)
    y, jac = buffers(net)
    arrays = [ffi.cast("double *", ffi.from_buffer(array)) for array in (x, y, jac)]
    assert call(ffi.cast("void *", function.context), *arrays) == OK
    np.testing.assert_array_equal(jac, net.jacobian(x))


def test_scipy_integrates_over_a_network_without_python():
    scipy = pytest.importorskip("scipy")
    integrate = pytest.importorskip("scipy.integrate")
    net = Case((1, 20, 3), "tanh", "tanh").network()
    handle = net.handle()
    size = handle.size

    @cfunc(types.double(types.intc, types.CPointer(types.double), types.voidptr))
    def derivative(n, x, data):
        y, jac = np.empty(3), np.empty((3, 1))
        status = value_and_jacobian(carray(data, size, np.int64), carray(x, 1), y, jac)
        return jac[1, 0] if status == OK else np.nan

    callback = scipy.LowLevelCallable(derivative.ctypes, ctypes.c_void_p(handle.ctypes.data))
    integral, error = integrate.quad(callback, -1.0, 2.0)
    difference = net(np.array([2.0])) - net(np.array([-1.0]))
    assert abs(integral - difference[1]) <= 10 * error + 1e-12


def test_scipy_takes_the_function():
    scipy = pytest.importorskip("scipy")
    function = CASE.network().c_function()
    callback = scipy.LowLevelCallable(function.ctypes, ctypes.c_void_p(function.context))
    assert callback.signature == "int (void *, double *, double *, double *)"


@pytest.mark.skipif(CC is None, reason="needs a C compiler")
def test_a_c_library_calls_back(net, x, tmp_path):
    source, library = tmp_path / "caller.c", tmp_path / "caller.so"
    source.write_text(
        "typedef int network(void *, const double *, double *, double *);\n"
        "int often(network *f, void *context, int times, const double *x, double *y, double *jac)\n"
        "{ int status = 0; while (times--) status |= f(context, x, y, jac); return status; }\n"
    )
    subprocess.run([CC, "-std=c99", "-shared", "-fPIC", "-o", library, source], check=True)
    often = ctypes.CDLL(str(library)).often
    function = net.c_function()
    y, jac = buffers(net)
    addresses = [ctypes.c_void_p(a) for a in (function.address, function.context)]
    assert often(*addresses, 1000, *pointers(x, y, jac)) == OK
    np.testing.assert_array_equal(jac, net.jacobian(x))


def test_null_pointers_and_overlap_are_refused(net, x):
    function = net.c_function()
    y, jac = buffers(net)
    arrays = pointers(x, y, jac)
    for position in range(3):
        given = [None if i == position else array for i, array in enumerate(arrays)]
        assert function.ctypes(function.context, *given) == MISMATCH
    assert function.ctypes(None, *arrays) == MISMATCH
    assert function.ctypes(function.context, arrays[0], arrays[0], arrays[2]) == MISMATCH
    assert np.isnan(jac).all()


def test_it_refuses_once_closed(net, x):
    with net.c_function() as function:
        assert call(function, net, x)[0] == OK
    status, _, jac = call(function, net, x)
    assert status == CLOSED
    assert np.isnan(jac).all()
    assert "closed" in repr(function)
    function.close()


def test_it_refuses_once_nothing_refers_to_it(net, x):
    function = net.c_function()
    address, context = function.ctypes, function.context
    y, jac = buffers(net)
    del function
    gc.collect()
    others = [CASE.network().c_function() for _ in range(100)]  # They get the memory, not the context.
    assert context not in {other.context for other in others}
    assert address(context, *pointers(x, y, jac)) == CLOSED
    assert np.isnan(jac).all()


def test_it_keeps_the_network(net, x):
    expected = net.jacobian(x)
    function = net.c_function()
    y, jac = buffers(net)
    del net
    gc.collect()
    assert function.ctypes(function.context, *pointers(x, y, jac)) == OK
    np.testing.assert_array_equal(jac, expected)


def test_a_second_call_at_the_same_time_is_refused(net, x):
    function = net.c_function()
    set_state(function, 1)
    status, _, jac = call(function, net, x)
    assert status == BUSY
    assert np.isnan(jac).all()
    with pytest.raises(RuntimeError, match="a call of the C function is running"):
        function.close()
    set_state(function, 0)
    assert call(function, net, x)[0] == OK


def test_closing_while_threads_call_never_crashes():
    case = Case((64, 64, 10))
    net, x = case.network(), case.x()
    expected = net.jacobian(x)
    function, wrong = net.c_function(), []

    def work():
        while True:
            status, _, jac = call(function, net, x)
            if status == CLOSED:
                return
            if status == OK and not np.array_equal(jac, expected):
                wrong.append(jac)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    while True:
        try:
            function.close()
            break
        except RuntimeError:
            pass  # A call is running: later, then.
    for thread in threads:
        thread.join()
    assert not wrong
