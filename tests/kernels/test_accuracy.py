"""The kernels' error is at most twice the reference's own in the same dtype."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given

from fastjac import Network, reference
from support import exact, graphs
from support.accuracy import assert_accurate, assert_below, errors, errors_of_graph
from support.examples import examples
from support.oracles import (
    DTYPES,
    HEADS,
    HIDDEN,
    Case,
    assert_close,
    cases,
    near_corner,
    reference64,
    tolerances,
)


@examples(200)
@given(cases(hidden=["relu"], heads=["softmax"], depth=3))
def test_any_relu_softmax_network(case):
    assert_accurate(case)


@examples(150)
@given(cases(depth=5))
def test_any_network(case):
    assert_accurate(case)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("activation", HIDDEN)
def test_every_activation_with_every_head(activation, head, dtype):
    assert_accurate(Case((9, 17, 5), activation, head, dtype, 2.0, seed=6), more=1)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("scale", [1e-3, 1.0, 8.0, 500.0**0.5, 100.0])
@pytest.mark.parametrize("head", ["softmax", "log_softmax", "identity"])
@pytest.mark.parametrize(
    "widths", [(500, 100, 10), (500, 100, 2), (8, 32, 4), (100, 300, 40), (64, 50, 50, 50, 10), (784, 10)]
)
def test_scales_from_uniform_to_saturated(widths, head, scale, dtype):
    assert_accurate(Case(widths, "relu", head, dtype, scale))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("head", ["softmax", "log_softmax"])
@pytest.mark.parametrize(
    "widths",
    [
        (500, 100, 10),
        (100, 300, 40),
        # The head multiplies columns: behind the forward pass, behind the last product, in the middle.
        (3, 40, 30),
        (20, 50, 60),
        (60, 50, 4, 50, 60),
    ],
)
def test_nothing_cancels_for_the_most_probable_class(widths, head, dtype):
    """Its row is as small as the other classes' share, and so is its error, alone as in a batch."""
    case = Case(widths, "relu", head, dtype)
    weights, best = case.weights(), widths[-1] // 2
    weights[-1][1][best] += 20
    X = np.random.default_rng(1).standard_normal((33, widths[0])).astype(dtype)
    net, logits = Network(weights, "relu", head), Network(weights, "relu", "identity")
    batch = net.value_and_jacobian(X)[1]
    for x, blocked in zip(X, batch, strict=True):
        y, true = exact.value_and_jacobian(net, x)
        s = np.exp(y) if head == "log_softmax" else y
        z, of_logits = logits.value_and_jacobian(x)
        rest = np.delete(s, best).sum()
        assert rest < 1e-3
        allowed = 8 * np.finfo(dtype).eps * rest * (1 + np.max(np.abs(z))) * np.max(np.abs(of_logits))
        for jac in (net.value_and_jacobian(x)[1], blocked):
            assert np.max(np.abs(jac - true)[best]) <= allowed


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("active", [0, 1, 2, 100])
@pytest.mark.parametrize("outputs", [2, 10])
def test_few_active_units(outputs, active, dtype):
    case = Case((500, 100, outputs), dtype=dtype)
    (w1, b1), (w2, b2) = case.weights()
    b1[:] = -100
    b1[:active] = 100
    net, x = Network([(w1, b1), (w2, b2)]), case.x()
    for ours, theirs, floor in errors(net, x):
        assert ours <= 2 * theirs + floor


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("outputs", [2, 3, 10, 64])
def test_uniform_probabilities(outputs, dtype):
    # All logits are equal, the weights that lead to them are not.
    case = Case((40, 30, outputs), dtype=dtype)
    (w1, b1), (w2, _) = case.weights()
    x = case.x()
    a = np.maximum(x.astype(np.longdouble) @ w1 + b1, 0)
    net = Network([(w1, b1), (w2, -(a @ w2))], dtype=dtype)
    y, _ = net.value_and_jacobian(x)
    assert np.allclose(y, 1 / outputs, rtol=1e-5)
    for ours, theirs, floor in errors(net, x):
        assert ours <= 2 * theirs + floor


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("head", ["softmax", "log_softmax", "identity"])
@pytest.mark.parametrize("scale", [0.01, 1.0, 8.0])
@pytest.mark.parametrize("widths", [(100, 60, 10), (30, 50, 2), (12, 70, 20, 30), (4, 30, 25), (5, 9, 120)])
def test_errors_over_many_networks(widths, scale, head, dtype):
    """Without a floor: quantiles over 60 networks of the root mean square in units of the rounding bound.

    Quantiles, because in one network whose logits are large and nearly equal the error is a matter of luck.
    """
    found = []
    for seed in range(60):
        case = Case(widths, "relu", head, dtype, scale, seed)
        net, x = case.network(), case.x()
        if near_corner(net, x):
            continue
        kernel, plain = net.value_and_jacobian(x), reference.value_and_jacobian(x, net.layers)
        true, allowed = exact.value_and_jacobian(net, x), tolerances(net, x)
        found.append(
            [
                [
                    np.sqrt(np.mean(((got - right) / bound) ** 2))
                    for got, right, bound in zip(*trio, strict=True)
                ]
                for trio in ((kernel, true, allowed), (plain, true, allowed))
            ]
        )
    ours, theirs = np.moveaxis(np.quantile(np.array(found, float), [0.5, 0.75], axis=0), 1, 0)
    assert np.all(ours <= 2 * theirs), ours / theirs


@examples(200)
@given(graphs.cases())
def test_any_graph(case):
    net, x = case.network(), case.x()
    assume(not hasattr(net, "layers") and not graphs.near_kink(net, x))
    assert_below(case, errors_of_graph(net, x))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", graphs.PATHS)
def test_errors_over_many_graphs(name, dtype):
    """Without a floor: quantiles over many graphs, as of chains above. Those of 60 narrow ones scatter."""
    found, path = [], graphs.PATHS[name]
    for seed in range(240 if max(width for *_, width, _ in path.steps) < 10 else 60):
        case = replace(path, dtype=dtype, seed=seed)
        net, x = case.network(), case.x()
        if not graphs.near_kink(net, x):
            found.append([(ours / floor, theirs / floor) for ours, theirs, floor in errors_of_graph(net, x)])
    ours, theirs = np.moveaxis(np.quantile(np.array(found, float), [0.5, 0.75], axis=0), -1, 0)
    assert len(found) >= 20
    assert np.all(ours <= 2 * theirs), ours / theirs


@examples(10)
@given(cases(depth=3))
def test_the_two_exact_evaluations_agree(case):
    net, x = case.network(), case.x()
    assume(case.widths[0] * case.widths[-1] <= 400 and not near_corner(net, x))
    y, jac = exact.value_and_jacobian(net, x, extended=False)
    y_allowed, jac_allowed = tolerances(net, x)
    y64, jac64 = reference64(net, x)
    assert_close(y, y64, y_allowed)
    assert_close(jac, jac64, jac_allowed)
