"""Random graphs to test with, an outside oracle, and the errors that they may have."""

from __future__ import annotations

from dataclasses import dataclass

import autograd.numpy as anp
import numpy as np
from autograd import jacobian
from hypothesis import strategies as st

from fastjac import Network, corners, graph, reference
from fastjac.graph.folding import in_dtype
from fastjac.graph.values import (
    Affine,
    Apply,
    Concatenate,
    Input,
    Multiply,
    Normalise,
    Scale,
    Select,
    ordered,
)
from support.oracles import AUTOGRAD, assert_close, forward_autograd

OPERATIONS = (
    *("affine", "activation", "softmax", "log_softmax", "scale", "add", "multiply", "concatenate"),
    *("slice", "selection", "layer_norm", "rms_norm", "broadcast"),
)
widths = st.integers(1, 40)


@dataclass(frozen=True)
class Case:
    """A random graph that prints as what it takes to make it again.

    Each step is an operation, two numbers that say which values it reads, a width and an activation.
    """

    n_inputs: int
    steps: tuple[tuple[str, int, int, int, str], ...]
    dtype: type = np.float64
    seed: int = 0

    def value(self):
        rng = np.random.default_rng([self.seed, self.n_inputs])
        values = [graph.input(self.n_inputs)]
        for operation, i, j, width, activation in self.steps:
            # The latest values are the likeliest to be read.
            x, other = (values[-1 - k % len(values)] for k in (i, j))
            values.append(_step(operation, x, other, width, activation, rng, self.dtype))
        x = values[-1]
        # Every graph reads its input.
        return x if any(isinstance(each.operation, Input) for each in ordered(x)) else values[0]

    def network(self):
        return Network(self.value(), dtype=self.dtype)

    def x(self):
        rng = np.random.default_rng([self.seed + 1, self.n_inputs])
        return rng.standard_normal(self.n_inputs).astype(self.dtype)


def _step(operation, x, other, width, activation, rng, dtype):
    def weights(*shape):
        return (rng.standard_normal(shape) / np.sqrt(shape[0] if len(shape) > 1 else 2)).astype(dtype)

    if operation == "affine":
        return graph.affine(x, weights(x.size, width), weights(width), activation)
    if operation == "activation":
        return graph.apply(x, activation)
    if operation == "scale":
        return x * weights(x.size) + weights(x.size)
    if operation == "concatenate":
        return graph.concatenate([x, other, x])
    if operation == "slice":
        start = width % x.size
        return x[start : start + 1 + width]
    if operation == "selection":
        return x[rng.integers(0, x.size, width)]
    if operation == "broadcast":
        return x * x[width % x.size]
    if operation in ("add", "multiply"):
        fitting = other if other.size == x.size else graph.affine(other, weights(other.size, x.size))
        return x + fitting if operation == "add" else x * fitting
    if operation == "layer_norm":
        return graph.layer_norm(x, weights(x.size), weights(x.size))
    return getattr(graph, operation)(x)


def _mixed(n, m, width):
    """Return a graph whose values have sizes next to ``width`` and that has all kinds of operations."""
    return Case(
        n,
        (
            ("affine", 0, 0, width, "relu"),
            ("affine", 0, 0, width + 1, "tanh"),
            ("layer_norm", 0, 0, 1, ""),
            ("multiply", 0, 1, 1, ""),
            ("concatenate", 0, 2, 1, ""),
            ("softmax", 0, 0, 1, ""),
            ("selection", 0, 0, width, ""),
            ("add", 0, 4, 1, ""),
            ("rms_norm", 0, 0, 1, ""),
            ("broadcast", 0, 0, 1, ""),
            ("slice", 0, 0, width, ""),
            ("log_softmax", 0, 0, 1, ""),
            ("scale", 0, 0, 1, ""),
            ("activation", 0, 0, 1, "silu"),
            ("affine", 0, 0, m, "identity"),
            ("add", 0, 9, 1, ""),
        ),
    )


# All operations, at the edges of vectors, panels and tiles, with both directions of the Jacobian.
PATHS = {
    **{
        f"{n} to {m}, {width} wide": _mixed(n, m, width)
        for n, m, width in (
            (1, 1, 1),
            (1, 9, 7),
            (9, 1, 8),
            (7, 3, 15),
            (3, 16, 16),
            (17, 33, 31),
            (32, 8, 32),
            (65, 63, 33),
            (2, 90, 64),
        )
    },
    "no affine map": Case(
        33,
        (
            ("layer_norm", 0, 0, 1, ""),
            ("softmax", 0, 1, 1, ""),
            ("multiply", 0, 1, 1, ""),
            ("add", 0, 3, 1, ""),
            ("concatenate", 0, 1, 1, ""),
            ("rms_norm", 0, 0, 1, ""),
        ),
    ),
    "the first part of a whole": Case(
        9,
        (
            ("affine", 0, 0, 5, "tanh"),
            ("affine", 1, 0, 12, "tanh"),
            ("concatenate", 1, 0, 1, ""),
            ("log_softmax", 0, 0, 1, ""),
            ("affine", 0, 0, 4, "tanh"),
        ),
    ),
    "heads in a row": Case(
        5,
        (
            ("affine", 0, 0, 17, "softmax"),
            ("softmax", 0, 0, 1, ""),
            ("log_softmax", 0, 0, 1, ""),
            ("affine", 0, 0, 17, "log_softmax"),
            ("add", 0, 3, 1, ""),
        ),
    ),
    "its input twice over": Case(
        16,
        (
            ("selection", 0, 0, 40, ""),
            ("selection", 1, 0, 40, ""),
            ("multiply", 0, 1, 1, ""),
            ("selection", 0, 0, 9, ""),
        ),
    ),
}


@st.composite
def cases(draw, activations=tuple(AUTOGRAD), operations=OPERATIONS, steps=8, dtypes=(np.float32, np.float64)):
    places = st.integers(0, 2) | st.integers(0, 10)
    step = st.tuples(st.sampled_from(operations), places, places, widths, st.sampled_from(activations))
    return Case(
        n_inputs=draw(widths),
        steps=tuple(draw(st.lists(step, min_size=1, max_size=steps))),
        dtype=draw(st.sampled_from(dtypes)),
        seed=draw(st.integers(0, 1000)),
    )


def near_kink(net, x, distance=1e-4):
    """Whether an activation is evaluated near a kink, or a normalisation divides by next to nothing."""
    found = {}
    value = in_dtype(net.graph, np.dtype(np.float64))
    for each in ordered(value):
        inputs = [found[id(before)] for before in each.inputs]
        found[id(each)] = reference.evaluate(each.operation, inputs) if inputs else x.astype(np.float64)
        if isinstance(each.operation, Apply):
            for kink in each.operation.activation.kinks:
                if np.any(np.abs(inputs[0] - kink) < distance):
                    return True
        if isinstance(each.operation, Normalise):
            spread = np.std(inputs[0]) if each.operation.centred else np.abs(inputs[0]).max()
            if spread < 0.05:
                return True
    return any(np.abs(array).max() > 1e4 for array in found.values())


def by_autograd(value, x):
    """Value and Jacobian from the package autograd."""

    def function(x):
        found = {}
        for each in ordered(value):
            inputs = [found[id(before)] for before in each.inputs]
            found[id(each)] = _evaluate(each.operation, inputs) if inputs else x
        return found[id(value)]

    with np.errstate(all="ignore"):  # cosh overflows where tanh and its slope have their limits.
        return function(x), jacobian(function)(x)


def _evaluate(operation, inputs):
    a = inputs[0]
    if isinstance(operation, Affine):
        return anp.dot(a, operation.w) + operation.b
    if isinstance(operation, Apply):
        if operation.activation.name == "square":  # Of a value times itself.
            return a * a
        return forward_autograd([(np.eye(a.size), np.zeros(a.size), operation.activation)])(a)
    if isinstance(operation, Scale):
        return a * operation.factor + operation.shift
    if isinstance(operation, Concatenate):
        return anp.concatenate(inputs)
    if isinstance(operation, Select):
        return a[operation.places]
    if isinstance(operation, Normalise):
        centred = a - anp.mean(a) if operation.centred else a
        return centred / anp.sqrt(anp.mean(centred**2) + operation.epsilon)
    return a * inputs[1] if isinstance(operation, Multiply) else a + inputs[1]


def tolerances(net, x):
    """The error that each entry of y and jac may have; see `check`."""
    value, eps = in_dtype(net.graph, np.dtype(np.float64)), float(np.finfo(net.dtype).eps)
    x = x.astype(np.float64)
    last = corners._walk(value, x)[-1]
    # Where an activation or a slope crosses zero, it is as wrong as elsewhere.
    y = 8 * eps * (last.spread + np.abs(last.a) + 1)
    return y, 2 * corners.rounding(value, eps, x) + 16 * eps


def assert_right(net, x, y, jac):
    """Compare with autograd in float64, within the bound."""
    y_expected, jac_expected = by_autograd(in_dtype(net.graph, np.dtype(np.float64)), x.astype(np.float64))
    y_allowed, jac_allowed = tolerances(net, x)
    assert y.dtype == jac.dtype == net.dtype
    assert_close(y, y_expected, y_allowed)
    assert_close(jac, jac_expected, jac_allowed)
