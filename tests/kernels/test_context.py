"""No call's result depends on an earlier call: scratch memory may hold anything, padding stays zero."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from support import graphs
from support.examples import examples
from support.oracles import Case, cases
from support.workspaces import calls, find_written, scratch

SAMPLES = 19  # at least one whole block, and samples behind it
POISONS = {"nan": np.nan, "infinity": np.inf, "minus infinity": -np.inf, "a number": 1e30}

# Depth, bottlenecks, few inputs, few outputs, and columns that fill only a part of the last panel.
PATHS = [
    Case((5, 7)),
    Case((33, 3, 3, 20), "identity"),
    Case((64, 8, 32, 20)),
    Case((70, 4, 40, 36), "tanh"),
    Case((2, 20, 50, 20, 4, 30), "relu", "log_softmax"),
    Case((3, 9, 5, 21), "tanh"),
    Case((2, 70, 70, 3), "softplus"),
    Case((1, 40, 33, 1), "elu", "identity"),
    Case((9, 90, 5, 90, 19), "silu", "log_softmax"),
    Case((50, 40, 30, 20, 10)),
    Case((4, 20, 100), "leaky_relu(0.2)"),
    Case((130, 20, 35), "hard_tanh", "sigmoid"),
    Case((40, 33, 1), "relu", "identity"),
]


def same_bits(results, others):
    return all(a.tobytes() == b.tobytes() for a, b in zip(results, others, strict=True))


def check(case):
    rng = np.random.default_rng(case.seed)
    samples = rng.standard_normal((SAMPLES, len(case.x()))).astype(case.dtype)
    ill = samples.copy()
    ill[1:4] = np.array([np.nan, np.inf, -np.inf])[:, None]
    ill[-1, -1] = np.nan
    huge = np.sign(samples) * np.finfo(case.dtype).max
    with np.errstate(all="ignore"):
        fresh = calls(case.network(), samples)
        net = case.network()
        assert same_bits(calls(net, samples), fresh)
        (context,) = net._calls.contexts.made
        arrays = scratch(context, net.dtype)
        written = find_written(net, arrays, [samples, ill, huge])
        constants = [array[~found].copy() for array, found in zip(arrays, written, strict=True)]
        for name, value in POISONS.items():
            for array, found in zip(arrays, written, strict=True):
                array[found] = value
            assert same_bits(calls(net, samples), fresh), f"after {name} in all scratch memory"
        for others in (ill, huge):
            calls(net, others)
            for array, found, before in zip(arrays, written, constants, strict=True):
                assert array[~found].tobytes() == before.tobytes()
            assert same_bits(calls(net, samples), fresh)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("case", PATHS, ids=lambda case: "-".join(map(str, case.widths)))
def test_no_result_depends_on_what_scratch_memory_holds(case, dtype):
    check(Case(case.widths, case.activation, case.head, dtype))


@examples(60)
@given(cases(widths=st.integers(1, 40), depth=4))
def test_no_result_depends_on_what_scratch_memory_holds_in_random_networks(case):
    check(case)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", graphs.PATHS)
def test_no_result_of_a_graph_depends_on_what_scratch_memory_holds(name, dtype):
    check(replace(graphs.PATHS[name], dtype=dtype))


@examples(30)
@given(graphs.cases())
def test_no_result_depends_on_what_scratch_memory_holds_in_random_graphs(case):
    check(case)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_sample_of_nan_leaves_later_jacobians_right(dtype):
    net = Case((33, 3, 3, 20), "identity", dtype=dtype).network()
    expected = net.jacobian(np.ones(33))
    assert np.isnan(net.value_and_jacobian(np.full(33, np.nan))[1]).all()
    assert net.jacobian(np.ones(33)).tobytes() == expected.tobytes()
