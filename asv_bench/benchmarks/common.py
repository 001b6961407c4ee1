"""The networks that are measured, and the check that their results are right."""

from itertools import pairwise

import numpy as np

import fastjac
from fastjac import reference

# Sizes of inputs, hidden layer and outputs: the article's, two small ones, two large ones.
SHAPES = ["500-100-10", "8-32-4", "64-64-10", "784-256-10", "2048-1024-100"]
DTYPES = ["float64", "float32"]

TOLERANCES = {"float64": 1e-12, "float32": 1e-4}  # of the largest entry


def random_layers(shape, dtype):
    """Return ``x`` and pairs ``(w, b)`` of normal weights, with about half of the hidden units active."""
    rng = np.random.default_rng(0)
    sizes = [int(size) for size in shape.split("-")]
    x = rng.standard_normal(sizes[0]).astype(dtype)
    pairs = [
        (
            (rng.standard_normal((fan_in, fan_out)) / np.sqrt(fan_in)).astype(dtype),
            (rng.standard_normal(fan_out) / 10).astype(dtype),
        )
        for fan_in, fan_out in pairwise(sizes)
    ]
    return x, pairs


def random_network(shape, dtype):
    """Return a network with `random_layers`' weights, and ``x``."""
    x, pairs = random_layers(shape, dtype)
    return fastjac.Network(pairs), x


def results(net):
    """Return buffers for ``y`` and ``jac``, touched so that their pages are there."""
    y = np.full(net.n_outputs, np.nan, net.dtype)
    jac = np.full((net.n_outputs, net.n_inputs), np.nan, net.dtype)
    return y, jac


def check(got, layers, x):
    """Raise AssertionError unless ``got`` is the value and Jacobian at ``x``."""
    wide = [layer._replace(w=layer.w.astype(float), b=layer.b.astype(float)) for layer in layers]
    for array, expected in zip(got, reference.value_and_jacobian(x.astype(float), wide), strict=True):
        atol = TOLERANCES[str(x.dtype)] * np.abs(expected).max()
        np.testing.assert_allclose(array, expected, rtol=0, atol=atol)
