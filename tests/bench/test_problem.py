"""Problems have the wanted share of active units and keep off kinks; answers are judged fairly."""

import numpy as np
import pytest

from fastjac import Network, reference
from fastjac.bench.peers.numpy import optimised
from fastjac.bench.problem import (
    TOLERANCES,
    NotApplicableError,
    disagreement,
    model_problem,
    random_problem,
)


@pytest.mark.parametrize("share", [0.0, 0.25, 0.5, 1.0])
def test_the_share_of_active_units_is_the_wanted_one(share):
    assert random_problem((20, 16, 8, 3), share=share).active == (16 * share, 8 * share)


def test_a_batch_has_the_share_on_average():
    (active,) = random_problem((20, 16, 3), share=0.25, batch=50).active
    assert active == pytest.approx(4, abs=0.2)


def test_a_batch_is_no_single_input():
    assert random_problem((3, 2)).single().shape == (3,)
    with pytest.raises(NotApplicableError, match="one input at a time"):
        random_problem((3, 2), batch=1).single()


def distances(xs, layers, kinks):
    """The smallest distance of each sample's pre-activations from a kink."""
    nearest = np.full(len(xs), np.inf)
    for layer, corners in zip(layers, kinks, strict=True):
        z = xs @ layer.w + layer.b
        for corner in corners:
            nearest = np.minimum(nearest, np.abs(z - corner).min(axis=1))
        xs = reference.elementwise(z, layer.activation)
    return nearest


def test_a_model_s_inputs_keep_off_every_kink():
    rng = np.random.default_rng(1)
    shapes = [(5, 60), (60, 50), (50, 4)]
    pairs = [
        (rng.standard_normal(shape) / np.sqrt(shape[0]), rng.standard_normal(shape[1])) for shape in shapes
    ]
    net = Network(pairs, ["hard_tanh", "relu6"], "relu")
    kinks = [(-1, 1), (0, 6), (0,)]
    problem = model_problem(net.layers, batch=30_000)
    drawn = np.random.default_rng(0).standard_normal((30_000, 5)).astype(np.float32).astype(float)
    assert (distances(drawn, net.layers, kinks) < 2e-5).sum() > 3  # the problem does something
    assert distances(problem.x, net.layers, kinks).min() >= 2e-5
    assert (problem.x == drawn).all(axis=1).mean() > 0.9


def test_a_model_keeps_its_weights_and_its_activations():
    net = Network([(np.eye(3), [0.1, 0.2, 0.3]), (np.ones((3, 2)), None)], "elu(0.5)", "log_softmax")
    problem = model_problem(net.layers)
    assert problem.dtype == np.float64
    assert [str(layer.activation) for layer in problem.layers] == ["elu(0.5)", "log_softmax"]
    for layer, given in zip(problem.layers, net.layers, strict=True):
        np.testing.assert_array_equal(layer.w, given.w)
        np.testing.assert_array_equal(layer.b, given.b)
    assert (model_problem(net.layers, "float32").dtype, problem.active) == (np.float32, (3.0,))


def test_a_wrong_answer_is_seen():
    problem = random_problem((5, 6, 3), batch=2)
    y, jac = random_problem((5, 6, 3), batch=2, seed=1).outputs()
    assert disagreement(problem, y, jac) > 0.1
    assert disagreement(problem, y, None) > 0.1
    assert disagreement(problem, np.full_like(y, np.nan), jac) == np.inf
    with pytest.raises(ValueError, match="shape"):
        disagreement(problem, y[0], jac)


def saturated(dtype):
    """A softmax that is certain to one in ten million: rounding is all that is left of one row."""
    w2 = np.array([[9.0, 1.0, -3.0], [8.0, -1.0, 0.0]])
    return model_problem(Network([(np.eye(2), [2.0, 2.0]), (w2, None)]).layers, dtype)


@pytest.mark.parametrize("dtype", TOLERANCES)
def test_rounding_the_logits_of_a_certain_softmax_is_no_error(dtype):
    problem = saturated(dtype)
    y, jac = optimised(problem)()
    assert y.max() > 1 - 1e-6
    right = reference.value_and_jacobian(problem.x.astype(float), problem.layers)[1]
    # Of its largest entry the Jacobian is further off than is allowed otherwise.
    if dtype == "float32":
        assert np.abs(jac - right).max() > TOLERANCES[dtype] * np.abs(right).max()
    assert disagreement(problem, y, jac) <= TOLERANCES[dtype]


def test_the_jacobian_of_the_logits_is_wrong_also_for_a_certain_softmax():
    problem = saturated("float64")
    y, _ = optimised(problem)()
    assert disagreement(problem, y, problem.layers[1].w.T) > 1
