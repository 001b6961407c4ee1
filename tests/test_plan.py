"""The order of multiplication: the best bracketing, how it prints, and that every order gives the same."""

from functools import cache
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastjac import Network, reference
from fastjac.plan import Plan
from support.examples import examples

sizes = st.lists(st.integers(1, 60), min_size=2, max_size=9).map(tuple)


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
