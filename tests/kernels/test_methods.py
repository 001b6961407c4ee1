"""Network's methods whose common case is compiled: they are what the methods in Python are, but faster."""

import ctypes
import inspect
import pickle
import sys

import numpy as np
import pytest

from fastjac import Network
from fastjac.kernels import functions, methods
from support.oracles import Case

N, H, M = 5, 7, 3
INPUTS = {"value_and_jacobian": (N,), "vjp": (N, M), "jvp": (N, N)}
RESULTS = {"value_and_jacobian": (M, (M, N)), "vjp": (M, N), "jvp": (M, M)}


@pytest.fixture
def net():
    return Case((N, H, M)).network()


def inputs(name):
    rng = np.random.default_rng(0)
    return [rng.standard_normal(size) for size in INPUTS[name]]


def outputs(name):
    return tuple(np.full(shape, np.nan) for shape in RESULTS[name])


@pytest.mark.parametrize("name", INPUTS)
def test_out_is_returned_itself_whichever_way_it_is_handed_over(net, name):
    method, given = getattr(net, name), inputs(name)
    expected = method(*given)
    for _ in range(2):  # The function is made on the first call.
        for call in (lambda out: method(*given, out=out), lambda out: method(*given, out)):
            out = outputs(name)
            assert call(out) is out
            assert all(np.array_equal(got, right) for got, right in zip(out, expected, strict=True))


@pytest.mark.parametrize("name", INPUTS)
def test_all_other_calls_go_to_the_method_in_python(net, name):
    method, given = getattr(net, name), inputs(name)
    expected = method(*given)
    calls = [
        lambda: method(*given, out=None),
        lambda: method(*given, out=outputs(name), threads=1),
        lambda: method(*given, threads=2, out=outputs(name)),
        lambda: method(*[array.tolist() for array in given]),
        lambda: method(*given, out=list(outputs(name))),
        lambda: method(x=given[0], **dict(zip("vu"[name == "jvp"], given[1:], strict=False))),
    ]
    for call in calls:
        for got, right in zip(call(), expected, strict=True):
            np.testing.assert_array_equal(got, right)


@pytest.mark.parametrize("name", INPUTS)
def test_errors_are_those_of_python(net, name):
    method, given = getattr(net, name), inputs(name)
    method(*given)
    with pytest.raises(TypeError, match=rf"{name}\(\) missing 1 required positional argument"):
        method(*given[:-1])
    with pytest.raises(TypeError, match=rf"{name}\(\) got an unexpected keyword argument 'other'"):
        method(*given, other=outputs(name))
    with pytest.raises(TypeError, match="takes from"):
        method(*given, outputs(name), outputs(name))
    with pytest.raises(TypeError, match=r"out must be a tuple \(y, "):
        method(*given, out=3)
    with pytest.raises(ValueError, match="expected a positive integer"):
        method(*given, out=outputs(name), threads=0)
    with pytest.raises(TypeError, match="doesn't apply to a 'list' object"):
        getattr(Network, name)([], *given)


@pytest.mark.parametrize("name", INPUTS)
def test_signature_and_docstring_are_those_of_the_method_in_python(net, name):
    for method, first in ((getattr(Network, name), "self, /, "), (getattr(net, name), "")):
        others = {"vjp": "v, ", "jvp": "u, "}.get(name, "")
        assert str(inspect.signature(method)) == f"({first}x, {others}out=None, *, threads=1)"
        assert "Return the output" in method.__doc__


def test_bound_methods_pickle_with_their_network(net):
    x = np.ones(N)
    copy = pickle.loads(pickle.dumps(net.value_and_jacobian))
    np.testing.assert_array_equal(copy(x)[1], net.jacobian(x))


def test_a_subclass_overrides_and_calls_them():
    class Doubled(Network):
        def value_and_jacobian(self, x, out=None, *, threads=1):
            y, jac = super().value_and_jacobian(x, out, threads=threads)
            return 2 * y, 2 * jac

    net = Doubled(Case((N, H, M)).weights())
    x, out = np.ones(N), outputs("value_and_jacobian")
    for _ in range(2):
        np.testing.assert_array_equal(net.value_and_jacobian(x, out=out)[1], 2 * net.jacobian(x))


def test_nothing_is_kept_of_arguments(net):
    given, out = inputs("value_and_jacobian"), outputs("value_and_jacobian")
    wrong = (out[0], None)
    net.value_and_jacobian(*given, out=out)
    counted = [net, net._functions, *given, *out, out, wrong, None, True, False]
    before = [sys.getrefcount(value) for value in counted]
    for _ in range(1000):
        net.value_and_jacobian(*given, out=out)
        net.value_and_jacobian(*given, out=wrong)
    after = [sys.getrefcount(value) for value in counted]
    assert all(abs(b - a) < 100 for a, b in zip(before, after, strict=True))


def test_an_unknown_layout_of_slots_is_refused(monkeypatch):
    monkeypatch.setattr(methods, "_SLOTS", methods._SLOTS - ctypes.sizeof(ctypes.c_void_p))
    with pytest.raises(RuntimeError, match="lays slots out"):
        methods._check_slots()


def test_the_functions_are_those_of_entry(net):
    net.vjp(*inputs("vjp"))
    assert [name for name in functions.NAMES if hasattr(net._functions, name)] == ["vjp"]
