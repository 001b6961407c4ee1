"""The order in which a graph's Jacobian is multiplied out."""

import numpy as np
import pytest

from fastjac import graph
from fastjac.graph.plan import GraphPlan


def affine(value, size, activation="identity"):
    return graph.affine(value, np.ones((value.size, size)), None, activation)


def test_a_narrow_value_that_all_paths_pass_is_the_middle():
    x = graph.input(20)
    waist = affine(graph.layer_norm(affine(x, 30)), 4, "tanh")
    plan = GraphPlan(affine(graph.layer_norm(affine(waist, 30)), 50))
    assert plan.waist is waist
    assert not plan.is_forward
    # Back from 4 cotangents, on from 4 tangents, and the product of both.
    assert plan.multiply_adds == 4 * 20 * 30 + 4 * 30 * 50 + 50 * 4 * 20
    assert plan.multiply_adds < min(plan.forward_multiply_adds, plan.reverse_multiply_adds)
    assert str(plan).startswith("order    from a value of 4 to both sides\n")
    assert "both: 50 x 4 x 20 = 4,000 multiply-adds" in str(plan)


@pytest.mark.parametrize("skip", ["input", "hidden"])
def test_a_value_that_a_path_goes_around_is_not(skip):
    x = graph.input(20)
    hidden = graph.layer_norm(affine(x, 50))
    waist = affine(hidden, 4, "tanh")
    around = affine(x, 50) if skip == "input" else hidden
    plan = GraphPlan(affine(affine(waist, 50) + around, 50))
    assert plan.waist is None
    assert plan.is_forward


def test_the_narrowest_place_is_not_always_the_cheapest():
    x = graph.input(100)
    first = graph.layer_norm(affine(x, 10))
    narrowest = affine(affine(first, 100, "tanh"), 9, "tanh")
    plan = GraphPlan(graph.layer_norm(affine(graph.layer_norm(affine(narrowest, 300, "tanh")), 300)))
    costs = {}
    for waist in (first, narrowest):
        costs[waist.size] = sum(plan._from_waist(waist))
    assert plan.waist is min((first, narrowest), key=lambda waist: costs[waist.size])


def test_a_value_as_wide_as_an_end_is_no_waist():
    x = graph.input(8)
    middle = affine(graph.layer_norm(affine(x, 30)), 8, "tanh")
    assert GraphPlan(affine(graph.layer_norm(affine(middle, 30)), 50)).waist is None
