"""The figures of a comparison, and which peers the grid measures where."""

import math

import pytest

from fastjac.bench import compare
from fastjac.bench.limits import Level, Machine, limit_seconds
from fastjac.bench.measure import Row
from fastjac.bench.problem import IN_A_CALL, MANY, model_problem, random_problem
from fastjac.bench.rounds import Timing
from fastjac.layers import Activation

MACHINE = Machine("a processor", {"float64": 25e9, "float32": 50e9}, (Level("memory", math.inf, 16e9, 8e9),))
ROWS = [
    Row("fastjac", Timing([3e-6, 2e-6, 4e-6], 10)),
    Row("numpy", Timing([6e-6], 1)),
    Row("onnxruntime, value alone", Timing([1e-6], 1)),
    Row("torch", None, "torch is not installed"),
]


def test_figures_are_of_one_input():
    problem = random_problem((6, 5, 4, 3), "tanh", batch=4)
    figures = compare.figures(problem, ROWS, MACHINE, "net.npz")
    limit = limit_seconds((6, 5, 4, 3), (5, 4), "float64", MACHINE, batch=4)
    assert figures["limit_us"] == pytest.approx(limit / 4 * 1e6)
    ours, numpy, onnx, torch = figures["peers"]
    assert (ours["min_us"], ours["median_us"], ours["ratio"]) == (0.5, 0.75, 1)
    assert (ours["rounds"], ours["calls_per_round"]) == (3, 10)
    assert numpy["ratio"] == pytest.approx(3)
    assert numpy["limit_share"] == pytest.approx(limit / 6e-6)
    assert "limit_share" not in onnx  # the limit is that of a Jacobian
    assert torch == {"peer": "torch", "note": "torch is not installed"}


def test_the_limit_of_many_inputs_in_a_call_is_theirs():
    rows = [*ROWS, Row(f"fastjac, {IN_A_CALL}", Timing([1e-6], 64))]
    *_, many = compare.figures(random_problem((6, 5, 4, 3), "tanh"), rows, MACHINE)["peers"]
    limit = limit_seconds((6, 5, 4, 3), (5, 4), "float64", MACHINE, batch=MANY)
    assert many["limit_share"] == pytest.approx(limit / MANY / 1e-6)


def test_the_limit_is_that_of_the_merged_chain():
    problem = random_problem((6, 9, 8, 9, 3), "identity")
    figures = compare.figures(problem, ROWS, MACHINE)
    assert figures["shape"] == "6-9-8-9-3"
    assert figures["limit_us"] == pytest.approx(limit_seconds((6, 3), (), "float64", MACHINE) * 1e6)
    layers = random_problem((6, 9, 8, 9, 3), "tanh").layers
    affine = layers[1]._replace(activation=Activation("identity"))
    problem = model_problem([layers[0], affine, *layers[2:]])
    figures = compare.figures(problem, ROWS, MACHINE)
    limit = limit_seconds((6, 9, 9, 3), (9, 9), "float64", MACHINE)
    assert figures["limit_us"] == pytest.approx(limit * 1e6)


def test_a_title_names_the_network():
    problem = random_problem((6, 5, 4, 3), "tanh", batch=4)
    assert (
        compare.title(compare.figures(problem, ROWS, MACHINE)) == "6-5-4-3 tanh softmax, float64, batch of 4"
    )
    single = compare.figures(random_problem((4, 2), dtype="float32"), ROWS, MACHINE, "net.npz")
    assert compare.title(single) == "net.npz: 4-2 softmax, float32"


def test_the_grid_has_a_hundred_and_twenty_shapes():
    assert len(set(compare.grid_shapes())) == 120


def test_the_grid_asks_casadi_only_where_it_is_quick_and_forward_mode_where_inputs_are_few():
    assert "casadi" in compare.grid_peers((64, 32, 10))
    assert "casadi" not in compare.grid_peers((2048, 1024, 100))
    assert ("casadi" in compare.grid_peers((90, 199, 10)), "casadi" in compare.grid_peers((90, 200, 10))) == (
        True,
        False,
    )
    forward = "jax jacfwd, closed"
    assert forward in compare.grid_peers((4, 8, 10))
    assert forward not in compare.grid_peers((10, 8, 10))
