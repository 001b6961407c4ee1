"""Comparisons of networks that are graphs."""

import numpy as np
import pytest

import fastjac
from fastjac import Network, graph
from fastjac.bench import compare, limits, measure
from fastjac.bench.problem import NotApplicableError, disagreement, network_problem
from fastjac.commands.compare import table
from support.graphs import OPERATIONS, Case

MACHINE = limits.Machine(
    "test", {"float32": 2e9, "float64": 1e9}, (limits.Level("L1", float("inf"), 1e9, 1e9),)
)
EVERYTHING = Case(6, tuple((name, 0, 1, 5, "tanh") for name in OPERATIONS))


@pytest.fixture(params=["float32", "float64"])
def problem(request):
    return network_problem(EVERYTHING.network(), request.param)


@pytest.mark.parametrize("family", ["fastjac", "jax", "torch"])
@pytest.mark.parametrize("batch", [None, 5])
def test_peers_compute_the_graph(family, batch, problem):
    problem = network_problem(Network(problem.value, dtype=problem.dtype), batch=batch)
    builders, missing = measure.builders([family])
    if missing:
        pytest.skip(missing[0].note)
    computed = 0
    for name, build in builders.items():
        try:
            call = build(problem)
        except NotApplicableError as error:
            assert str(error) in ("layers in a row only", "one input at a time"), name
            continue
        y, jac = call()
        y, jac = np.asarray(y), None if jac is None else np.asarray(jac)
        assert disagreement(problem, y, jac) < (1e-3 if problem.dtype == np.float32 else 1e-10), name
        computed += 1
    assert computed >= 2


def test_a_wrong_answer_is_seen(problem):
    y, jac = fastjac.Network(problem.value, dtype=problem.dtype).value_and_jacobian(problem.x)
    jac[0, 0] += 0.1 * np.abs(jac).max()
    assert disagreement(problem, y, jac) > 0.05


def test_the_limit_counts_the_multiply_adds_of_the_plan():
    x = graph.input(3)
    w = np.ones((3, 100))
    net = Network(graph.affine(graph.affine(x, w, None, "tanh") * graph.affine(x, w), np.ones((100, 2))))
    assert net.plan.reverse_multiply_adds == 2 * 600
    # Reading 800 weights of 8 bytes at 1 GB/s outweighs 800 multiply-adds, in either pass.
    assert limits.graph_limit_seconds(net.graph, "float64", MACHINE) == pytest.approx(2 * 6.4e-6)
    many = limits.graph_limit_seconds(net.graph, "float64", MACHINE, 100)
    assert many == pytest.approx((80_000 + 100 * net.plan.multiply_adds) * 1e-9)


def test_the_table_names_the_operations(problem):
    calls, rows = measure.prepare(problem, measure.builders(["fastjac"])[0])
    rows += measure.measure(calls, 1, 1e-4)
    figures = compare.figures(problem, rows, MACHINE, "model.npz")
    assert "model.npz: 6-" in compare.title(figures)
    assert "layer_norm" in table(figures)
