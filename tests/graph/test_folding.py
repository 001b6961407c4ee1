"""What folds together, what must not, and that folding changes no result."""

import numpy as np
import pytest
from hypothesis import assume, given

from fastjac import Network, graph, reference
from fastjac.graph.folding import in_dtype
from fastjac.graph.texts import summary
from support.examples import examples
from support.graphs import cases, near_kink

rng = np.random.default_rng(0)


def w(rows, cols):
    return rng.standard_normal((rows, cols))


def wide_and_deep(x):
    return graph.affine(x, w(4, 2)) + graph.affine(x, w(4, 2))


CHAINS = {
    "scaled inputs": (lambda x: graph.affine((x - 1) / 3, w(4, 2)), "4 -> 2 identity"),
    "scaled outputs": (lambda x: 3 * graph.affine(x, w(4, 2)) + 1, "4 -> 2 identity"),
    "some of the inputs": (lambda x: graph.affine(x[:1], w(1, 2), None, "relu"), "4 -> 2 relu"),
    "some of the outputs": (lambda x: graph.affine(x, w(4, 5), None, "tanh")[1:3], "4 -> 2 tanh"),
    "two heads": (
        lambda x: graph.concatenate([graph.affine(x, w(4, 2)), graph.affine(x, w(4, 3))]),
        "4 -> 5 identity",
    ),
    "two heads of one kind": (
        lambda x: graph.concatenate([graph.affine(x, w(4, n), None, "tanh") for n in (2, 3)]),
        "4 -> 5 tanh",
    ),
    "sums of maps": (wide_and_deep, "4 -> 2 identity"),
    "cut and joined": (lambda x: graph.affine(graph.concatenate([x[:3], x[3:]]), w(4, 2)), "4 -> 2 identity"),
    "back and forth": (lambda x: graph.affine(x[::-1][::-1], w(4, 2)), "4 -> 2 identity"),
}


@pytest.mark.parametrize("name", CHAINS)
def test_what_is_a_chain_is_computed_as_one(name):
    make, text = CHAINS[name]
    value = make(graph.input(4))
    net, x = Network(value), rng.standard_normal(4)
    assert str(net) == f"Network({text}, float64)"
    y, jac = reference.graph_value_and_jacobian(x, value)
    np.testing.assert_allclose(net(x), y, rtol=1e-13)
    np.testing.assert_allclose(net.jacobian(x), jac, rtol=1e-12)


def test_what_others_read_too_stays():
    x = graph.input(4)
    h = graph.affine(x, w(4, 4))
    assert summary(Network(graph.concatenate([2 * h, h])).graph) == "1 affine, 1 scale, 1 concatenate"
    assert summary(Network(graph.apply(h[:2], "relu") + h[2:]).graph) == "1 affine, 2 select, 1 relu, 1 add"


def test_a_large_shift_is_not_folded_in_float32():
    value = graph.affine((graph.input(4) - 5000) / 3, w(4, 2))
    assert "layers" in vars(Network(value))
    net = Network(value, dtype=np.float32)
    assert summary(net.graph) == "1 scale, 1 affine"
    x = 5000 + rng.standard_normal(4)
    expected = reference.graph_value_and_jacobian(x, value)[0]
    np.testing.assert_allclose(net(x), expected, rtol=0, atol=3e-3)  # x itself is rounded.


def test_infinite_weights_fold_without_a_warning():
    with np.errstate(all="raise"):
        Network(graph.affine(graph.input(2) * [np.inf, 1], np.ones((2, 2))))


def test_weights_that_are_shared_are_kept_once():
    shared = w(4, 4)
    h = graph.affine(graph.input(4), shared, None, "tanh")
    net = Network(graph.affine(h, shared, None, "tanh") + h)
    affine = [each.operation for each in _operations(net) if hasattr(each.operation, "w")]
    assert affine[0].w is affine[1].w
    assert sum(array.size for array in net.packed.arrays if array.size >= 16) <= 2 * 4 * 16


def _operations(net):
    from fastjac.graph.values import ordered

    return ordered(net.graph)


@examples(150)
@given(cases())
def test_folding_changes_no_result(case):
    net, x = case.network(), case.x().astype(np.float64)
    assume(not near_kink(net, x))
    wide = np.dtype(np.float64)
    given_y, given_jac = reference.graph_value_and_jacobian(x, in_dtype(case.value(), wide))
    y, jac = reference.graph_value_and_jacobian(x, in_dtype(net.graph, wide))
    allowed = 1e-9 if case.dtype == np.float64 else 1e-3  # Folded weights are rounded once more.
    np.testing.assert_allclose(y, given_y, rtol=allowed, atol=allowed * (1 + np.abs(given_y).max()))
    np.testing.assert_allclose(jac, given_jac, rtol=allowed, atol=allowed * (1 + np.abs(given_jac).max()))


@examples(60)
@given(cases())
def test_folding_again_changes_nothing(case):
    net = case.network()
    again = Network(net.graph, dtype=net.dtype)
    x = case.x()
    np.testing.assert_array_equal(net(x), again(x))
    np.testing.assert_array_equal(net.jacobian(x), again.jacobian(x))
