"""NumPy: the article's route by layers, and the same mathematics optimised by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from fastjac.bench.peers.activations import HAS_SCIPY, SLOPES, VALUES, erf
from fastjac.bench.problem import Call, NotApplicableError, Problem
from fastjac.layers import Activation

# The article's functions. Its arrays of zeros and ones have NumPy's default dtype: in float32 the
# products of its backward pass therefore run in float64.


def _affine_forward(x: Any, w: Any, b: Any) -> Any:
    return x @ w + b, (x, w)


def _affine_backward(dout: Any, cache: Any) -> Any:
    _, w = cache
    return dout @ w.T


def _relu_forward(x: Any) -> Any:
    return np.maximum(x, np.zeros(x.shape)), x


def _relu_backward(dout: Any, cache: Any) -> Any:
    return dout * np.where(cache > 0, np.ones(cache.shape), np.zeros(cache.shape))


def _softmax_forward(x: Any) -> Any:
    exponentials = np.exp(x - np.max(x))
    s = exponentials / np.sum(exponentials)
    return s, s


def _softmax_backward(dout: Any, s: Any) -> Any:
    return dout @ (np.diag(s) - np.outer(s, s))


def _log_softmax_forward(x: Any) -> Any:
    shifted = x - np.max(x)
    y = shifted - np.log(np.sum(np.exp(shifted)))
    return y, y


def _log_softmax_backward(dout: Any, y: Any) -> Any:
    return dout @ (np.diag(np.ones(y.shape)) - np.exp(y))


def _identity_forward(x: Any) -> Any:
    return x, None


def _identity_backward(dout: Any, cache: Any) -> Any:
    return dout


def _elementwise(activation: Activation) -> tuple[Callable[[Any], Any], Callable[[Any, Any], Any]]:
    """Return forward and backward of another activation, in the same manner."""
    value, slope, parameter = _value(activation), SLOPES[activation.name], activation.parameter

    def forward(x: Any) -> Any:
        a = value(x, parameter)
        return a, (x, a)

    def backward(dout: Any, cache: Any) -> Any:
        x, a = cache
        return dout * slope(np, erf, x, a, parameter)

    return forward, backward


_ARTICLE: dict[str, tuple[Callable[[Any], Any], Callable[[Any, Any], Any]]] = {
    "relu": (_relu_forward, _relu_backward),
    "softmax": (_softmax_forward, _softmax_backward),
    "log_softmax": (_log_softmax_forward, _log_softmax_backward),
    "identity": (_identity_forward, _identity_backward),
}


def article(problem: Problem) -> Call:
    """Return the article's NumPy: a forward and a backward function for each kind of layer."""
    if problem.batch is not None:
        raise NotApplicableError("one input at a time")
    x, n_outputs = problem.x, problem.sizes[-1]
    steps = [
        (layer.w, layer.b, *(_ARTICLE.get(layer.activation.name) or _elementwise(layer.activation)))
        for layer in problem.layers
    ]

    def call() -> tuple[Any, Any]:
        out = x
        caches = []
        for w, b, forward, _ in steps:
            out, affine_cache = _affine_forward(out, w, b)
            out, cache = forward(out)
            caches.append((affine_cache, cache))
        jac = np.diag(np.ones(n_outputs))
        for (_, _, _, backward), (affine_cache, cache) in zip(reversed(steps), reversed(caches), strict=True):
            jac = backward(jac, cache)
            jac = _affine_backward(jac, affine_cache)
        return out, jac

    return call


def _value(activation: Activation) -> Callable[[Any, float], Any]:
    if activation.name == "gelu" and not HAS_SCIPY:
        raise NotApplicableError("gelu needs scipy")
    return VALUES.get(activation.name, VALUES["identity"])


def optimised(problem: Problem) -> Call:
    """Return NumPy optimised by hand: transposes and buffers prepared, diagonals as row scalings.

    Batches run as one matrix product over all samples and outputs.
    """
    x, layers = problem.x, problem.layers
    lead = x.shape[:-1]
    activations = [layer.activation for layer in layers]
    head = problem.head
    values = [_value(a) for a in activations]
    transposed = [np.ascontiguousarray(layer.w.T) for layer in layers]
    zs = [np.empty((*lead, layer.b.size), x.dtype) for layer in layers]
    jacs = [np.empty((*lead, problem.sizes[-1], fan_in), x.dtype) for fan_in in problem.sizes[:-1]]
    rows = [jac.reshape(-1, jac.shape[-1]) for jac in jacs]
    last = len(layers) - 1
    y = np.empty((*lead, problem.sizes[-1]), x.dtype)
    y_column, mean = y[..., :, None], np.empty((*lead, problem.sizes[-2]), x.dtype)
    mean_row = mean[..., None, :]

    def head_forward(z: Any) -> None:
        if head.name == "softmax":
            np.subtract(z, np.maximum.reduce(z, axis=-1, keepdims=True), out=y)
            np.exp(y, out=y)
            np.divide(y, np.add.reduce(y, axis=-1, keepdims=True), out=y)
        elif head.name == "log_softmax":
            np.subtract(z, np.maximum.reduce(z, axis=-1, keepdims=True), out=y)
            np.subtract(y, np.log(np.add.reduce(np.exp(y), axis=-1, keepdims=True)), out=y)
        else:
            y[...] = values[last](z, head.parameter)

    def head_backward(z: Any, jac: Any) -> None:
        w = transposed[last]
        if head.name == "softmax":
            np.matmul(y, w, out=mean)
            np.subtract(w, mean_row, out=jac)
            np.multiply(jac, y_column, out=jac)
        elif head.name == "log_softmax":
            np.matmul(np.exp(y), w, out=mean)
            np.subtract(w, mean_row, out=jac)
        elif head.name == "identity":
            jac[...] = w
        else:
            slope = SLOPES[head.name](np, erf, z, y, head.parameter)
            np.multiply(w, slope[..., :, None], out=jac)

    def call() -> tuple[Any, Any]:
        a = x
        kept = []
        for i, layer in enumerate(layers):
            z = zs[i]
            np.matmul(a, layer.w, out=z)
            np.add(z, layer.b, out=z)
            if i < last:
                a = values[i](z, activations[i].parameter)
                kept.append(a)
        head_forward(zs[last])
        head_backward(zs[last], jacs[last])
        for i in range(last - 1, -1, -1):
            activation = activations[i]
            if activation.name != "identity":
                slope = SLOPES[activation.name](np, erf, zs[i], kept[i], activation.parameter)
                np.multiply(jacs[i + 1], slope[..., None, :], out=jacs[i + 1])
            np.matmul(rows[i + 1], transposed[i], out=rows[i])
        return y, jacs[0]

    return call


PEERS = {"numpy, as in the article": article, "numpy, optimised": optimised}
