"""`Network` takes any input, fills any fitting buffer, and is immutable."""

import contextlib
import copy
import pickle
from unittest import mock

import numpy as np
import pytest
from hypothesis import given

import fastjac
from fastjac import Network
from support.calls import METHODS, as_out, buffers, call, vectors
from support.oracles import DTYPES, Case, assert_right, cases


@pytest.fixture(params=DTYPES)
def net(request):
    return Case((7, 13, 5), "tanh", "softmax", request.param).network()


def test_attributes_say_what_the_network_is(net):
    assert (net.n_inputs, net.n_outputs) == (7, 5)
    assert net.dtype in (np.float32, np.float64)
    assert [layer.w.shape for layer in net.layers] == [(7, 13), (13, 5)]
    assert [str(layer.activation) for layer in net.layers] == ["tanh", "softmax"]
    assert net.input_names is None
    assert net.output_names is None
    assert "7" in repr(net) and "13 tanh" in repr(net) and "5 softmax" in repr(net)
    assert str(net.dtype) in repr(net)


def test_relu_and_softmax_are_the_defaults():
    net = Network([(np.eye(2), [0, 0]), (np.eye(2), [0, 0])])
    assert [str(layer.activation) for layer in net.layers] == ["relu", "softmax"]
    assert net.dtype == np.float64


@pytest.mark.parametrize("method", METHODS)
def test_results_are_new_arrays_of_the_network_s_dtype(net, method):
    first, second = (call(net, method, *vectors(net)) for _ in range(2))
    for a, b in zip(first, second, strict=True):
        assert type(a) is np.ndarray
        assert a.dtype == net.dtype
        assert a.flags.c_contiguous and a.flags.writeable and a.flags.aligned
        assert not np.shares_memory(a, b)
        assert np.array_equal(a, b)
    assert [a.shape for a in first] == [a.shape for a in buffers(net, method, 0)]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("fill", [0.0, np.nan, np.inf, -1e30])
def test_out_is_filled_and_returned_whatever_was_in_it(net, method, fill):
    expected = call(net, method, *vectors(net))
    given_arrays = buffers(net, method, fill)
    got = call(net, method, *vectors(net), out=as_out(method, given_arrays))
    for a, b, c in zip(got, given_arrays, expected, strict=True):
        assert a is b
        assert np.array_equal(a, c)


@given(cases())
def test_buffers_full_of_nan_give_the_same_bits(case):
    net, x = case.network(), case.x()
    rng = np.random.default_rng(case.seed)
    v, u = rng.standard_normal(net.n_outputs), rng.standard_normal(net.n_inputs)
    for method in METHODS:
        results = [
            call(net, method, x, v, u, out=as_out(method, buffers(net, method, fill))) for fill in (0, np.nan)
        ]
        for a, b, c in zip(*results, call(net, method, x, v, u), strict=True):
            assert a.tobytes() == b.tobytes() == c.tobytes()


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    "change",
    [
        lambda a: a.tolist(),
        lambda a: tuple(a.tolist()),
        lambda a: np.repeat(a, 3)[::3],
        lambda a: np.repeat(a[::-1], 3)[::-3],
        lambda a: a[::-1].copy()[::-1],
        lambda a: np.asfortranarray(np.stack([a, a], axis=1))[:, 1],
        lambda a: a.astype(a.dtype.newbyteorder()),
        lambda a: a.astype(np.longdouble),
        lambda a: np.frombuffer(b"\0" + a.tobytes(), np.uint8)[1:].view(a.dtype),
        lambda a: a.view(type("Sub", (np.ndarray,), {})),
        lambda a: np.ma.array(a),
        lambda a: memoryview(a),
    ],
    ids=[
        *("list", "tuple", "stride 3", "stride -3", "reversed", "column"),
        *("swapped", "longdouble", "unaligned", "subclass", "masked", "memoryview"),
    ],
)
def test_any_form_of_the_same_numbers_gives_the_same_bits(net, method, change):
    expected = call(net, method, *vectors(net))
    got = call(net, method, *(change(a) for a in vectors(net)))
    for a, b in zip(got, expected, strict=True):
        assert type(a) is np.ndarray
        assert a.dtype == net.dtype
        assert np.array_equal(a, b)
    read_only = vectors(net)
    for a in read_only:
        a.flags.writeable = False
    for out in (None, as_out(method, buffers(net, method, np.nan))):
        for a, b in zip(call(net, method, *read_only, out=out), expected, strict=True):
            assert np.array_equal(a, b)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("dtype", ["?", "i1", "u2", "i8", "u8", "f2", ">i4", ">f2"])
def test_integers_and_other_reals_are_cast(net, method, dtype):
    inputs = [np.arange(a.size).astype(dtype) for a in vectors(net)]
    expected = call(net, method, *(a.astype(net.dtype) for a in inputs))
    for out in (None, as_out(method, buffers(net, method, np.nan))):
        for a, b in zip(call(net, method, *inputs, out=out), expected, strict=True):
            assert a.dtype == net.dtype
            assert np.array_equal(a, b)


@pytest.mark.parametrize("method", METHODS)
def test_inputs_are_never_written(net, method):
    inputs = vectors(net)
    copies = [a.copy() for a in inputs]
    call(net, method, *inputs, out=as_out(method, buffers(net, method, 0)))
    for a, b in zip(inputs, copies, strict=True):
        assert np.array_equal(a, b)


def test_a_network_is_immutable(net):
    for name in ("layers", "dtype", "n_inputs", "n_outputs", "input_names", "anything"):
        with pytest.raises(AttributeError):
            setattr(net, name, None)
    with pytest.raises(AttributeError):
        del net.layers
    with pytest.raises(TypeError):
        net.layers[0] = None
    for layer in net.layers:
        for array in layer[:2]:
            with pytest.raises(ValueError, match="read-only"):
                array[:] = 0


def test_later_changes_of_the_weights_change_nothing():
    case = Case((4, 6, 3))
    weights = case.weights()
    net = Network(weights)
    before = net.value_and_jacobian(case.x())
    for w, b in weights:
        w[:], b[:] = np.nan, np.nan
    after = net.value_and_jacobian(case.x())
    assert all(np.array_equal(a, b) for a, b in zip(before, after, strict=True))


def test_a_network_is_hashed_by_identity(net):
    other = Network([layer[:2] for layer in net.layers], "tanh")
    assert net == net
    assert net != other
    assert len({net, other, net}) == 2


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_pickle_gives_the_same_network(net, protocol):
    named = Network(
        [layer[:2] for layer in net.layers],
        ["leaky_relu(0.3)"],
        "log_softmax",
        net.dtype,
        input_names=list("abcdefg"),
        output_names=list("vwxyz"),
    )
    used = vectors(named)[0]
    expected = named.value_and_jacobian(used)
    for twin in (pickle.loads(pickle.dumps(named, protocol)), copy.copy(named), copy.deepcopy(named)):
        assert type(twin) is Network
        assert repr(twin) == repr(named)
        assert (twin.input_names, twin.output_names) == (named.input_names, named.output_names)
        assert twin.dtype == named.dtype
        for a, b in zip(twin.value_and_jacobian(used), expected, strict=True):
            assert a.tobytes() == b.tobytes()


def test_names_are_tuples_of_str():
    net = Network([(np.eye(2), None)], input_names=["left", "right"], output_names=("a", "b"))
    assert net.input_names == ("left", "right")
    assert net.output_names == ("a", "b")


@pytest.mark.parametrize("argument", ["input_names", "output_names"])
def test_names_must_be_as_many_as_there_are_inputs_or_outputs(argument):
    with pytest.raises(ValueError, match=rf"{argument} has 3 \w+, expected 2"):
        Network([(np.eye(2), None)], **{argument: ["a", "b", "c"]})


def test_errors_of_the_layers_reach_the_caller():
    with pytest.raises(ValueError, match=r"w2 has shape \(100, 10\), but b1 says .* 99 units"):
        Network([(np.ones((500, 99)), np.ones(99)), (np.ones((100, 10)), np.ones(10))])
    with pytest.raises(TypeError, match="w1 has dtype complex128, expected real numbers"):
        Network([(np.ones((2, 2)) * 1j, np.ones(2))])
    with pytest.raises(TypeError, match="expected float32 or float64"):
        Network([(np.eye(2), None)], dtype=np.float16)


def test_a_float32_network_may_be_made_of_float64_weights_and_the_other_way_round():
    case = Case((20, 30, 4))
    for dtype in DTYPES:
        for made_of in DTYPES:
            weights = [(w.astype(made_of), b.astype(made_of)) for w, b in case.weights()]
            net = Network(weights, dtype=dtype)
            assert net.dtype == dtype
            assert_right(net, case.x(), *net.value_and_jacobian(case.x()))


def test_the_package_exports_the_names_of_its_interface():
    assert set(fastjac.__all__) >= {"Network", "check_jacobian", "jacobian", "value_and_jacobian"}
    assert all(hasattr(fastjac, name) for name in fastjac.__all__)


# --- networks that are not whole, subclasses, and changed copies


@pytest.mark.parametrize("method", METHODS)
def test_a_network_without_init_says_so(method):
    net = Network.__new__(Network)
    with pytest.raises(AttributeError, match="__init__ has not run to the end"):
        call(net, method, np.ones(7), np.ones(5), np.ones(7))
    with pytest.raises(AttributeError, match="__init__ has not run to the end"):
        net.bind(np.ones(7), None)


def test_a_subclass_that_swallows_an_error_is_no_network():
    class Silent(Network):
        def __init__(self, layers):
            with contextlib.suppress(ValueError):
                super().__init__(layers)

    with pytest.raises(AttributeError, match="__init__ has not run to the end"):
        Silent([(np.ones((2, 3)), np.ones(4))]).value_and_jacobian(np.ones(2))
    assert Silent([(np.ones((2, 3)), np.ones(3))]).jacobian(np.ones(2)).shape == (3, 2)


def test_init_runs_once(net):
    before = net.jacobian(np.ones(7))
    with pytest.raises(AttributeError, match="a Network is immutable: __init__ cannot run again"):
        net.__init__([(np.ones((2, 3)), None)])
    assert np.array_equal(net.jacobian(np.ones(7)), before)


class Named(Network):
    """A network with something of its own."""

    def __init__(self, layers, owner):
        super().__init__(layers, "tanh")
        self.__dict__["owner"] = owner

    def twice(self, x):
        return 2 * self(x)


@pytest.mark.parametrize("clone", [copy.copy, copy.deepcopy, lambda net: pickle.loads(pickle.dumps(net))])
def test_a_subclass_pickles_and_copies_as_itself(clone):
    net = Named(Case((7, 13, 5)).weights(), ["me"])
    other = clone(net)
    assert type(other) is Named and other.owner == ["me"]
    x = np.ones(7)
    assert np.array_equal(other.twice(x), net.twice(x))
    assert [str(layer.activation) for layer in other.layers] == ["tanh", "softmax"]


def test_methods_can_be_patched(net):
    x = np.ones(7)
    with mock.patch.object(Network, "value_and_jacobian", return_value="patched"):
        assert net.value_and_jacobian(x) == "patched"
    assert net.value_and_jacobian(x)[1].shape == (5, 7)


def test_a_network_is_made_again_with_some_things_changed(net):
    x, names = np.linspace(-1, 1, 7).astype(net.dtype), [f"x{i}" for i in range(7)]
    logits = net.replace(head="identity", input_names=names)
    assert logits.input_names == tuple(names) and logits.dtype == net.dtype
    exponentials = np.exp(logits(x) - logits(x).max())
    np.testing.assert_allclose(net(x), exponentials / exponentials.sum(), rtol=1e-5)
    changed = net.replace(activation="elu")
    assert [str(layer.activation) for layer in changed.layers] == ["elu(1.0)", "softmax"]
    assert net.replace(dtype="float32").dtype == np.float32
    assert logits.replace().input_names == tuple(names)


def test_the_layers_of_a_network_make_it_again(net):
    again = Network(net.layers)
    assert [layer.activation for layer in again.layers] == [layer.activation for layer in net.layers]
    x = np.ones(7, net.dtype)
    assert again.jacobian(x).tobytes() == net.jacobian(x).tobytes()


@pytest.mark.parametrize("name", ["vjp", "jvp"])
def test_one_vector_serves_a_whole_batch(net, name):
    xs = np.random.default_rng(0).standard_normal((3, 4, 7)).astype(net.dtype)
    vector = np.linspace(-1, 1, 5 if name == "vjp" else 7).astype(net.dtype)
    got = getattr(net, name)(xs, vector)
    expected = getattr(net, name)(xs, np.broadcast_to(vector, (3, 4, vector.size)).copy())
    for a, b in zip(got, expected, strict=True):
        assert a.tobytes() == b.tobytes()


@pytest.mark.parametrize("threads", [0, -1, 1.5, "some", None])
@pytest.mark.parametrize("method", METHODS)
def test_threads_are_checked_for_one_sample_too(net, method, threads):
    x, v, u = vectors(net)
    arguments = {"vjp": (x, v), "jvp": (x, u)}.get(method, (x,))
    with pytest.raises((TypeError, ValueError), match="threads"):
        (net if method == "call" else getattr(net, method))(*arguments, threads=threads)


def test_all_public_names_are_listed():
    assert set(fastjac.__all__) <= set(dir(fastjac))
    for name in fastjac.__all__:
        assert getattr(fastjac, name) is not None
