"""NumPy: the article's route by layers, and the same mathematics optimised by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from fastjac.bench.peers.dialect import Dialect
from fastjac.bench.problem import Call, Problem
from fastjac.layers import HEADS_ONLY, Activation

try:
    from scipy.special import erf
except ImportError:
    erf = None

_NUMPY = Dialect(np, erf)

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


def _elementwise(activation: Activation) -> tuple[Callable[[Any], Any], Callable[[Any, Any], Any]]:
    """Return forward and backward of another activation, in the same manner."""
    value, slope = _NUMPY.value(activation), _NUMPY.slope(activation)
    assert slope is not None

    def forward(x: Any) -> Any:
        a = value(x)
        return a, (x, a)

    def backward(dout: Any, cache: Any) -> Any:
        return dout * slope(*cache)

    return forward, backward


_ARTICLE: dict[str, tuple[Callable[[Any], Any], Callable[[Any, Any], Any]]] = {
    "relu": (_relu_forward, _relu_backward),
    "softmax": (_softmax_forward, _softmax_backward),
    "log_softmax": (_log_softmax_forward, _log_softmax_backward),
    "identity": (lambda x: (x, None), lambda dout, cache: dout),
}


def article(problem: Problem) -> Call:
    """Return the article's NumPy: a forward and a backward function for each kind of layer."""
    x, n_outputs = problem.single(), problem.sizes[-1]
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


def optimised(problem: Problem) -> Call:
    """Return NumPy optimised by hand: transposes and buffers prepared, diagonals as row scalings.

    Batches run as one matrix product over all samples and outputs.
    """
    x, layers, head = problem.x, problem.layers, problem.head.name
    lead, last = x.shape[:-1], len(layers) - 1
    values = [_NUMPY.value(layer.activation) for layer in layers]
    slopes = [_NUMPY.slope(layer.activation) for layer in layers]
    transposed = [np.ascontiguousarray(layer.w.T) for layer in layers]
    zs = [np.empty((*lead, layer.b.size), x.dtype) for layer in layers]
    jacs = [np.empty((*lead, problem.sizes[-1], fan_in), x.dtype) for fan_in in problem.sizes[:-1]]
    rows = [jac.reshape(-1, jac.shape[-1]) for jac in jacs]
    y = np.empty((*lead, problem.sizes[-1]), x.dtype)
    mean = np.empty((*lead, problem.sizes[-2]), x.dtype)
    y_column, mean_row = y[..., :, None], mean[..., None, :]

    def head_forward(z: Any) -> None:
        if head not in HEADS_ONLY:
            y[...] = values[last](z)
            return
        np.subtract(z, np.maximum.reduce(z, axis=-1, keepdims=True), out=y)
        if head == "log_softmax":
            np.subtract(y, np.log(np.add.reduce(np.exp(y), axis=-1, keepdims=True)), out=y)
        else:
            np.exp(y, out=y)
            np.divide(y, np.add.reduce(y, axis=-1, keepdims=True), out=y)

    def head_backward(z: Any, w: Any, jac: Any) -> None:
        slope = slopes[last]
        if slope is not None:
            np.multiply(w, slope(z, y)[..., :, None], out=jac)
        elif head == "identity":
            jac[...] = w
        else:
            np.matmul(np.exp(y) if head == "log_softmax" else y, w, out=mean)
            np.subtract(w, mean_row, out=jac)
            if head == "softmax":
                np.multiply(jac, y_column, out=jac)

    def call() -> tuple[Any, Any]:
        kept = [x]
        for i, layer in enumerate(layers):
            np.matmul(kept[i], layer.w, out=zs[i])
            np.add(zs[i], layer.b, out=zs[i])
            if i < last:
                kept.append(values[i](zs[i]))
        head_forward(zs[last])
        head_backward(zs[last], transposed[last], jacs[last])
        for i in range(last - 1, -1, -1):
            slope = slopes[i]
            if slope is not None:
                np.multiply(jacs[i + 1], slope(zs[i], kept[i + 1])[..., None, :], out=jacs[i + 1])
            np.matmul(rows[i + 1], transposed[i], out=rows[i])
        return y, jacs[0]

    return call


PEERS = {"numpy, as in the article": article, "numpy, optimised": optimised}
