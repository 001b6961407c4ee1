"""Values as a person writes them: what fits, and what is refused with which words."""

import pickle

import numpy as np
import pytest

from fastjac import Network, graph
from fastjac.graph.values import ordered

W = np.arange(6.0).reshape(2, 3)


def computed(value, x):
    return Network(value, dtype=np.float64)(x)


def test_operators_do_what_numpy_does():
    x, at = graph.input(3), np.array([1.0, -2.0, 4.0])
    expected = {
        "sum": (x + x[::-1], at + at[::-1]),
        "with a number": (2 * x - 1, 2 * at - 1),
        "with an array": (np.array([1.0, 2.0, 3.0]) * x + [1, 2, 3], at * [1, 2, 3] + [1, 2, 3]),
        "from a number": (1 - x, 1 - at),
        "difference": (x - x * x, at - at * at),
        "negative": (-x, -at),
        "quotient": (x / 4, at / 4),
        "one entry": (x[-1], at[-1:]),
        "a list": (x[[2, 0, 2]], at[[2, 0, 2]]),
        "a mask": (x[np.array([True, False, True])], at[[0, 2]]),
        "one for all": (x * x[1], at * at[1]),
        "unpacked": (graph.concatenate([*x][:2]), at[:2]),
        "several": (graph.add(x, 1, x, x), 3 * at + 1),
    }
    for name, (value, found) in expected.items():
        np.testing.assert_allclose(computed(value, at), found, err_msg=name, rtol=1e-15)


@pytest.mark.parametrize(
    ("make", "error", "text"),
    [
        (lambda x: graph.input(0), ValueError, "size is 0, expected a positive integer"),
        (lambda x: graph.input(2.0), TypeError, "size must be an integer, got float"),
        (
            lambda x: graph.affine(x, W.T),
            ValueError,
            r"w has shape \(3, 2\), but x has 2 entries; w.T would fit",
        ),
        (lambda x: graph.affine(x, W[0]), ValueError, r"w has shape \(3,\), expected \(fan_in, fan_out\)"),
        (lambda x: graph.affine(x, W, [1.0]), ValueError, r"b has shape \(1,\), expected \(3,\)"),
        (lambda x: graph.affine([1, 2], W), TypeError, "x must be a Value of fastjac.graph, got list"),
        (lambda x: graph.apply(x, "rleu"), ValueError, "did you mean"),
        (lambda x: x + graph.input(3), ValueError, "add takes values of one size, got 2, 3"),
        (lambda x: x * [1, 2, 3], ValueError, "multiply takes values of one size, got 2, 3"),
        (lambda x: x * [[1, 2]], ValueError, r"a constant of multiply has shape \(1, 2\)"),
        (lambda x: x + "a", TypeError, "a constant of add"),
        (lambda x: x / x, TypeError, "not by another Value"),
        (lambda x: x[2], IndexError, "index does not fit the 2 entries of x"),
        (lambda x: x[5:], ValueError, "index selects shape"),
        (lambda x: x[0, 1], IndexError, "a Value has one axis"),
        (lambda x: graph.concatenate([]), ValueError, "values is empty"),
        (lambda x: graph.concatenate([x, 1]), TypeError, r"values\[1\] must be a Value"),
        (lambda x: graph.add(1, 2), TypeError, "add takes at least one Value"),
        (
            lambda x: graph.layer_norm(x, [1.0, 2.0, 3.0]),
            ValueError,
            r"gain has shape \(3,\), expected \(2,\)",
        ),
        (lambda x: graph.rms_norm(x, epsilon=-1), ValueError, "epsilon is -1"),
        (lambda x: graph.rms_norm(x, epsilon="a"), TypeError, "epsilon must be a number, got str"),
        (lambda x: Network(x, "relu"), TypeError, "activation is given, but a value"),
        (lambda x: Network(x, head="relu"), TypeError, "head is given, but a value"),
        (lambda x: Network(x + graph.input(2)), ValueError, "computed from 2 inputs"),
        (lambda x: setattr(x, "size", 3), AttributeError, "immutable"),
    ],
)
def test_what_does_not_fit_is_refused(make, error, text):
    with pytest.raises(error, match=text):
        make(graph.input(2))


def test_a_long_graph_is_pickled_and_put_in_order():
    x = graph.input(2)
    for _ in range(5000):
        x = graph.apply(x, "tanh") * 0.5
    assert len(ordered(pickle.loads(pickle.dumps(x)))) == 10_001


def test_values_say_what_they_are():
    x = graph.input(2)
    assert repr(graph.affine(x, W)) == "<Value (3,) of affine>"
    assert len(x) == 2
    assert [part.size for part in x] == [1, 1]


def test_a_network_of_a_graph_says_what_it_is():
    x = graph.input(2)
    net = Network(graph.affine(x, W, None, "tanh") * graph.affine(x, W), input_names=["a", "b"])
    assert repr(net) == "Network(2 -> 2 affine, 1 tanh, 1 multiply -> 3, float64)"
    assert str(net.plan).startswith("order    from the ")
    assert (
        "inputs: &#x27;a&#x27;, &#x27;b&#x27;" in net._repr_html_() or "inputs: 'a', 'b'" in net._repr_html_()
    )
    assert "multiply" in net._repr_html_()
    with pytest.raises(AttributeError, match="see its graph"):
        net.layers  # noqa: B018
    with pytest.raises(TypeError, match="activation is given"):
        net.replace(activation="relu")
    assert net.replace(dtype="float32").dtype == np.float32
    assert net.replace(output_names=["p", "q", "r"]).output_names == ("p", "q", "r")


def test_the_dtype_is_that_of_the_weights():
    x = graph.input(2)
    w = np.ones((2, 2), np.float32)
    assert Network(graph.affine(x, w) * x).dtype == np.float32
    assert Network(graph.affine(x * np.ones(2), w) * x).dtype == np.float32  # Not that of a scale.
    assert Network(x * np.ones(2) * x).dtype == np.float64
    assert Network(x * x).dtype == np.float64
    assert Network(x * x, dtype="float32").dtype == np.float32


def test_a_chain_has_a_graph_too():
    net = Network([(W, None), (W.T, [1.0, 2.0])], "tanh")
    again = Network(net.graph)
    assert str(again) == str(net)
    for given, found in zip(net.layers, again.layers, strict=True):
        np.testing.assert_array_equal(given.w, found.w)
        np.testing.assert_array_equal(given.b, found.b)
