"""`Network.bind`: a call that is checked once."""

import gc
import sys
import threading
import weakref

import numpy as np
import pytest

from support.oracles import DTYPES, Case

N, M = 7, 3
ROUTINES = ("value", "value_and_jacobian", "vjp", "jvp")


def outputs(lead, dtype):
    y, jac = np.empty((*lead, M), dtype), np.empty((*lead, M, N), dtype)
    vjp, jvp = np.empty((*lead, N), dtype), np.empty((*lead, M), dtype)
    return {"value": y, "value_and_jacobian": (y, jac), "vjp": (y, vjp), "jvp": (y, jvp)}


def others(name, lead, dtype):
    size = {"vjp": M, "jvp": N}.get(name)
    if size is None:
        return {}
    values = np.random.default_rng(3).standard_normal((*lead, size)).astype(dtype)
    return {{"vjp": "v", "jvp": "u"}[name]: values}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("lead", [(), (1,), (40,), (2, 3), (0,)])
@pytest.mark.parametrize("name", ROUTINES)
def test_each_call_reads_the_inputs_and_writes_the_outputs_again(name, lead, dtype):
    net = Case((N, 9, M), dtype=dtype).network()
    method = net if name == "value" else getattr(net, name)
    x, out, more = np.empty((*lead, N), dtype), outputs(lead, dtype)[name], others(name, lead, dtype)
    step = net.bind(x, out, routine=name, **more)
    for seed in range(3):
        x[...] = np.random.default_rng(seed).standard_normal(x.shape)
        assert step() is out
        expected = method(x, *more.values())
        pairs = [(out, expected)] if name == "value" else zip(out, expected, strict=True)
        for got, right in pairs:
            assert got.tobytes() == right.tobytes()


def test_a_bound_call_keeps_what_it_needs():
    net = Case((N, 9, M)).network()
    x, out = np.ones(N), outputs((), float)["value_and_jacobian"]
    expected = net.value_and_jacobian(x)
    gone = weakref.ref(net)
    step = net.bind(x, out)
    del net, x
    gc.collect()
    y, jac = step()
    assert (y == expected[0]).all() and (jac == expected[1]).all()
    before = sys.getrefcount(out)
    for _ in range(1000):
        step()
    assert abs(sys.getrefcount(out) - before) < 10
    del step
    gc.collect()
    assert gone() is None


def test_threads_may_each_have_a_step():
    net = Case((50, 60, M)).network()
    xs = np.random.default_rng(0).standard_normal((4, 50))
    wrong = []

    def work(x):
        out = np.empty(M), np.empty((M, 50))
        step, (y, jac) = net.bind(x, out), net.value_and_jacobian(x)
        for _ in range(200):
            step()
            if out[0].tobytes() != y.tobytes() or out[1].tobytes() != jac.tobytes():
                wrong.append(x)

    threads = [threading.Thread(target=work, args=(x,)) for x in xs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"x": [0.0] * N}, TypeError, "x must be an ndarray, got list"),
        ({"x": np.zeros(N, "f4")}, ValueError, "x has dtype float32, expected float64"),
        ({"x": np.zeros(N + 1)}, ValueError, r"x has shape \(8,\), expected \(7,\)"),
        ({"x": np.zeros(2 * N)[::2]}, ValueError, "x is not C-contiguous"),
        ({"out": None}, TypeError, "out must be a tuple"),
        ({"out": (np.empty(M), None)}, TypeError, "jac in out must be an ndarray, got None"),
        ({"out": (np.empty(M), np.empty((N, M)))}, ValueError, "jac in out has shape"),
        ({"routine": "hessian"}, ValueError, "routine is 'hessian', expected one of value, "),
        ({"routine": "vjp"}, TypeError, "routine 'vjp' needs v"),
        ({"v": np.zeros(M)}, TypeError, "routine 'value_and_jacobian' does not take v"),
    ],
)
def test_what_does_not_fit_is_named(change, error, message):
    net = Case((N, 9, M)).network()
    arguments = {"x": np.zeros(N), "out": outputs((), float)["value_and_jacobian"]} | change
    with pytest.raises(error, match=message):
        net.bind(arguments.pop("x"), arguments.pop("out"), **arguments)


def test_overlapping_and_read_only_arrays_are_refused():
    net = Case((N, 9, M)).network()
    room = np.zeros(M + M * N)
    with pytest.raises(ValueError, match="jac in out overlaps y in out"):
        net.bind(np.zeros(N), (room[:M], room[: M * N].reshape(M, N)))
    room.flags.writeable = False
    with pytest.raises(ValueError, match="y in out is not writable"):
        net.bind(np.zeros(N), (room[:M], room[M:].reshape(M, N)))
