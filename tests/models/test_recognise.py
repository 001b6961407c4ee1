"""What `recognise` takes for an activation, a softmax or a normalisation, and what it must not."""

import numpy as np
import pytest

from fastjac import graph
from fastjac.graph.values import ordered
from fastjac.models import alike, recognise
from fastjac.models.tensors import joined, summed, tensor
from fastjac.reference import graph_value_and_jacobian

SOURCE = graph.input(4)
X = tensor(SOURCE)


def computed(value, x):
    return graph_value_and_jacobian(np.asarray(x, float), value)[0]


def test_a_narrow_clip_of_what_is_shifted():
    """No test point is between the limits, nor between those of the clip without the shift."""
    shifted = joined("add", [X, 0.1], "")
    clipped = joined("minimum", [joined("maximum", [shifted, 0.71], ""), 0.72], "")
    value = recognise.resolved(clipped.flat)
    x = np.array([0.6, 0.615, 0.65, 0.8])
    np.testing.assert_allclose(computed(value, x), np.clip(x + 0.1, 0.71, 0.72), rtol=1e-12)


def test_what_is_constant_for_all_test_vectors_is_no_normalisation():
    total = summed(X, [0], keep=True)
    value = joined("where", [joined("greater", [total, -1e9], ""), X, 1.0], "").flat
    path = ordered(joined("greater", [joined("add", [X, total], ""), -1e9], "").flat)
    with np.errstate(all="ignore"):
        assert alike.of_vectors(path[0], path[1:]) is None
    with pytest.raises(ValueError, match="fastjac computes this only where it is part of"):
        recognise.resolved(value)


def test_what_is_taken_for_something_else_is_refused(monkeypatch):
    e = tensor(graph.apply(-SOURCE, "exp"))
    spelled = joined("divide", [1.0, joined("add", [e, 1.0], "")], "").flat
    assert computed(recognise.resolved(spelled), np.zeros(4)) == pytest.approx([0.5] * 4)
    monkeypatch.setattr(recognise, "of_entries", lambda start, between: lambda z: graph.apply(z, "tanh"))
    with pytest.raises(ValueError, match="for some inputs alone"):
        recognise.resolved(spelled)


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("rows", [[[0, 1], [2, 3]], [[0, 2], [1, 3]], [[3, 0], [1, 2]]])
def test_a_softmax_of_rows(rows, axis):
    places = np.array(rows)
    e = tensor(graph.apply(SOURCE, "exp"))._replace(places=places)
    value = joined("divide", [e, summed(e, [axis], keep=True)], "").flat
    x = np.array([0.5, -1.0, 2.0, 0.25])
    expected = np.exp(x)[places]
    expected /= expected.sum(axis, keepdims=True)
    resolved = recognise.resolved(value)
    np.testing.assert_allclose(computed(resolved, x), expected.ravel(), rtol=1e-12)
    assert sum(graph.values.is_head(each.operation) for each in ordered(resolved)) == 2


@pytest.mark.parametrize("factor", [1.0, 0.3, 1 / 7])
def test_what_is_centred_alone_is_no_normalisation(factor):
    """Rounding would make one of it, with a large number under the root."""
    for size in range(2, 30):
        x = tensor(graph.input(size))
        mean = joined("multiply", [summed(x, [0], keep=True), 1 / size], "")
        centred = joined("multiply", [joined("subtract", [x, mean], ""), factor], "").flat
        path = ordered(centred)
        with np.errstate(all="ignore"):
            assert alike.of_vectors(path[0], path[1:]) is None


@pytest.mark.parametrize("size", [2, 5, 40])
def test_a_normalisation_with_a_least_norm(size):
    x = tensor(graph.input(size))
    norm = recognise.function("sqrt", [summed(joined("multiply", [x, x], ""), [0], keep=True).value], "")
    norm = joined("maximum", [tensor(norm), 1e-12], "")
    value = recognise.resolved(joined("divide", [x, norm], "").flat)
    for scale in (0, 1e-30, 1e-9, 1, 1e9):
        z = np.random.default_rng(size).normal(size=size) * scale
        expected = z / max(np.linalg.norm(z), 1e-12)
        np.testing.assert_allclose(computed(value, z), expected, rtol=1e-5, atol=1e-14)
