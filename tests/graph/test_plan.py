"""The order in which a graph's Jacobian is multiplied out."""

import cProfile
import pstats

import numpy as np
import pytest
from hypothesis import given

from fastjac import graph
from fastjac.graph import plan as plan_module
from fastjac.graph.plan import GraphPlan
from fastjac.graph.values import ordered
from support.examples import examples
from support.graphs import cases


def counted(value, waist):
    """Return multiply-adds and other steps of a way from a waist, each part counted by itself."""
    before = ordered(waist)
    known = {id(each) for each in before}
    after = [waist, *(each for each in ordered(value) if id(each) not in known)]
    products = plan_module._reverse(before) + plan_module._forward(after)
    steps = plan_module._others(before) + plan_module._others(after)
    return products + waist.size * before[0].size * value.size, waist.size * steps


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
    costs = {waist.size: sum(counted(plan.value, waist)) for waist in (first, narrowest)}
    assert plan.waist is min((first, narrowest), key=lambda waist: costs[waist.size])


@examples(300)
@given(cases(steps=12))
def test_ways_from_a_waist_are_counted_as_two_graphs(case):
    value = case.value()
    for way in GraphPlan(value)._from_waists():
        assert (way.multiply_adds, way.others) == counted(value, way.waist)


def test_a_long_graph_takes_no_longer_for_each_value():
    calls = {}
    for count in (100, 200):
        value = affine(graph.input(20), 9)
        for _ in range(count):
            value = graph.layer_norm(graph.apply(value, "tanh"))
        value = affine(value, 20)
        profile = cProfile.Profile()
        assert profile.runcall(lambda plan: plan.waist, GraphPlan(value)).size == 9
        calls[count] = pstats.Stats(profile).total_calls
    assert calls[200] < 2.1 * calls[100]


def test_a_value_as_wide_as_an_end_is_no_waist():
    x = graph.input(8)
    middle = affine(graph.layer_norm(affine(x, 30)), 8, "tanh")
    assert GraphPlan(affine(graph.layer_norm(affine(middle, 30)), 50)).waist is None
