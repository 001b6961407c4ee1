"""The order of multiplication: the best bracketing, how it prints, and that every order gives the same."""

import copy
import pickle
import tracemalloc
from functools import cache
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fastjac import Network, reference
from fastjac.plan import Plan
from support.examples import examples

sizes = st.lists(st.integers(1, 60), min_size=2, max_size=9).map(tuple)
# Few different sizes make equally cheap orders; the large ones make products of more than 64 bits.
any_sizes = st.one_of(
    st.lists(st.integers(1, upper), min_size=2, max_size=30).map(tuple) for upper in (1, 2, 5, 2000)
) | st.lists(st.sampled_from([1, 2, 10**5, 2_500_000, 10**12]), min_size=2, max_size=30).map(tuple)


def brute_force(sizes):
    """The fewest multiply-adds over all bracketings, counted one by one."""

    @cache
    def costs(first, last):
        if first == last:
            return [0]
        return [
            left + right + sizes[first] * sizes[k + 1] * sizes[last + 1]
            for k in range(first, last)
            for right in costs(first, k)
            for left in costs(k + 1, last)
        ]

    return min(costs(0, len(sizes) - 2))


def by_recursion(sizes):
    """The cheapest bracketing in nested pairs (left, right), one table entry at a time in whole numbers."""
    layers = len(sizes) - 1
    best = {}
    for first in reversed(range(layers)):
        best[first, first] = (0, first)
        for last in range(first + 1, layers):
            ends = sizes[first] * sizes[last + 1]
            best[first, last] = min(
                (best[first, k][0] + best[k + 1, last][0] + ends * sizes[k + 1], k)
                for k in range(first, last)
            )

    def tree(first, last):
        k = best[first, last][1]
        return first if first == last else (tree(k + 1, last), tree(first, k))

    return tree(0, layers - 1)


def as_pairs(product):
    return product.first if product.left is None else (as_pairs(product.left), as_pairs(product.right))


@examples(300)
@given(any_sizes)
@example((1, 2_500_000, 1, 2_500_000, 1, 2_500_000, 1))  # 2,500,000 ** 3 would be negative in 64 bits
@example((1, 2_500_000, 2_500_000, 2_500_000, 1))
@example((3_000_000,) * 6)
@example((1, *[10**8] * 40, 1))  # so would a sum of products that are far too large for the cheapest order
def test_order_is_that_of_the_textbook_with_the_first_of_equals(sizes):
    assert as_pairs(Plan(sizes).root) == by_recursion(sizes)


@pytest.mark.parametrize("layers", [200])
@pytest.mark.parametrize("upper", [1, 3, 3000])
def test_order_of_long_chains_is_that_of_the_textbook(layers, upper):
    sizes = tuple(np.random.default_rng(layers).integers(1, upper, layers + 1, endpoint=True).tolist())
    assert as_pairs(Plan(sizes).root) == by_recursion(sizes)


@examples(150)
@given(sizes)
def test_no_bracketing_is_cheaper(sizes):
    plan = Plan(sizes)
    assert plan.multiply_adds == brute_force(sizes)
    assert plan.multiply_adds <= min(plan.reverse_multiply_adds, plan.forward_multiply_adds)


@examples(50)
@given(sizes)
def test_steps_are_a_bracketing(sizes):
    plan = Plan(sizes)
    steps = list(plan.root.steps())
    assert len(steps) == len(sizes) - 2
    for step in steps:
        assert step.left.first == step.right.last + 1 == step.contracted + 1
        assert (step.rows, step.cols) == (sizes[step.last + 1], sizes[step.first])
    assert (plan.root.first, plan.root.last) == (0, len(sizes) - 2)


def test_order_follows_the_shape():
    assert str(Plan((500, 100, 100, 10)).root) == "(W3' W2') W1'"
    assert str(Plan((10, 100, 100, 500)).root) == "W3' (W2' W1')"
    assert str(Plan((784, 256, 16, 256, 784)).root) == "(W4' W3') (W2' W1')"
    assert str(Plan((5, 5, 5, 5)).root) == "(W3' W2') W1'"
    assert str(Plan((7, 3)).root) == "W1'"


def test_plan_prints_order_steps_and_the_pure_modes():
    text = str(Plan((784, 256, 16, 256, 784)))
    assert text.splitlines() == [
        "order    (W4' W3') (W2' W1')",
        "step     W4' W3': 784 x 256 x 16 = 3,211,264 multiply-adds",
        "step     W2' W1': 16 x 256 x 784 = 3,211,264 multiply-adds",
        "step     (W4' W3') (W2' W1'): 784 x 16 x 784 = 9,834,496 multiply-adds",
        "total    16,257,024 multiply-adds",
        "reverse  163,774,464",
        "forward  163,774,464",
    ]


def test_a_thousand_layers_need_little_memory_and_no_recursion():
    tracemalloc.start()
    try:
        plan = Plan((1,) * 1001)
        steps = list(plan.root.steps())
        assert tracemalloc.get_traced_memory()[1] < 50e6
    finally:
        tracemalloc.stop()
    assert [step.first for step in steps] == list(reversed(range(999)))
    assert str(plan.root).endswith("W3') W2') W1'")
    assert str(plan).splitlines()[-3:] == ["total    999 multiply-adds", "reverse  999", "forward  999"]
    assert repr(plan.root) == "Product(first=0, last=999, rows=1, cols=1)"
    assert len({*steps, plan.root}) == 999


@pytest.mark.parametrize("copied", [lambda plan: pickle.loads(pickle.dumps(plan)), copy.deepcopy, copy.copy])
def test_a_long_plan_is_copied_with_its_order_known(copied):
    plan = Plan((1,) * 1001)
    order = str(plan.root)
    assert copied(plan) == plan
    assert str(copied(plan).root) == order


def test_more_than_a_thousand_layers_are_an_error():
    with pytest.raises(ValueError, match="the network has 1,001 layers, expected at most 1,000"):
        Plan((1,) * 1002)
    with pytest.raises(ValueError, match="the network has 1,001 layers"):
        Network([(np.ones((1, 1)), None)] * 1001)


@pytest.mark.parametrize("head", ["softmax", "log_softmax", "identity", "tanh"])
@pytest.mark.parametrize("activation", ["relu", "tanh"])
@pytest.mark.parametrize(
    "sizes",
    [
        (10, 100, 500),  # the result is made transposed
        (40, 17, 5, 20, 70),  # from a bottleneck
        (16, 100, 40, 16),  # the right factor is wider than long, but must not be stored so
        (9, 50, 9, 50, 9, 50, 9),  # two bottlenecks
        (3, 20, 30, 40, 50, 60),  # pure forward
        (60, 50, 40, 30, 20, 3),  # pure reverse
        (33, 65),  # nothing to multiply
    ],
)
def test_every_order_gives_the_reference(sizes, activation, head):
    rng = np.random.default_rng(sum(sizes))
    pairs = [(rng.normal(size=(n, m)) / np.sqrt(n), rng.normal(size=m)) for n, m in pairwise(sizes)]
    net, x = Network(pairs, activation, head), rng.normal(size=sizes[0])
    y, jac = net.value_and_jacobian(x)
    y_reference, jac_reference = reference.value_and_jacobian(x, net.layers)
    np.testing.assert_allclose(y, y_reference, rtol=0, atol=1e-13)
    np.testing.assert_allclose(jac, jac_reference, rtol=0, atol=1e-13 * np.abs(jac_reference).max())


def test_depth_64():
    rng = np.random.default_rng(0)
    pairs = [(rng.normal(size=(12, 12)) / np.sqrt(12), rng.normal(size=12) / 10) for _ in range(64)]
    net, x = Network(pairs, "leaky_relu(0.5)", "identity"), rng.normal(size=12)
    jac_reference = reference.value_and_jacobian(x, net.layers)[1]
    np.testing.assert_allclose(
        net.jacobian(x), jac_reference, rtol=0, atol=1e-12 * np.abs(jac_reference).max()
    )


@pytest.mark.parametrize("sizes", [(1,) * 1001, (2, 1) * 500 + (2,)])
def test_depth_1000(sizes):
    pairs = [(np.full((n, m), 1 / n), np.linspace(-1e-3, 1e-3, m)) for n, m in pairwise(sizes)]
    net, x = Network(pairs, "leaky_relu(0.999)", "identity"), np.linspace(0.5, 1, sizes[0])
    y_reference, jac_reference = reference.value_and_jacobian(x, net.layers)
    y, jac = net.value_and_jacobian(x)
    np.testing.assert_allclose(y, y_reference, rtol=1e-12)
    np.testing.assert_allclose(jac, jac_reference, rtol=1e-12)
    np.testing.assert_allclose(net.vjp(x, [1.0] * sizes[-1])[1], jac_reference.sum(axis=0), rtol=1e-12)
