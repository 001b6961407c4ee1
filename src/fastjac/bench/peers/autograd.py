"""HIPS autograd, as in the article."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import autograd.numpy as anp
from autograd import jacobian
from autograd.tracer import getval

from fastjac.bench.peers.activations import HAS_SCIPY
from fastjac.bench.problem import Call, NotApplicableError, Problem


def _softmax(z: Any, p: float) -> Any:
    exponentials = anp.exp(z - anp.max(z))
    return exponentials / anp.sum(exponentials)


def _log_softmax(z: Any, p: float) -> Any:
    shifted = z - anp.max(z)
    return shifted - anp.log(anp.sum(anp.exp(shifted)))


def _gelu(z: Any) -> Any:
    from autograd.scipy.special import erf

    return 0.5 * z * (1 + erf(z * math.sqrt(0.5)))


_VALUES: dict[str, Callable[[Any, float], Any]] = {
    "identity": lambda z, p: z,
    "relu": lambda z, p: anp.maximum(z, 0),
    "leaky_relu": lambda z, p: anp.where(z > 0, z, p * z),
    "relu6": lambda z, p: anp.minimum(anp.maximum(z, 0), 6),
    "hard_tanh": lambda z, p: anp.minimum(anp.maximum(z, -1), 1),
    "elu": lambda z, p: anp.where(z > 0, z, p * anp.expm1(anp.minimum(z, 0))),
    "tanh": lambda z, p: anp.tanh(z),
    "sigmoid": lambda z, p: 1 / (1 + anp.exp(-z)),
    "softplus": lambda z, p: anp.logaddexp(z, 0),
    "silu": lambda z, p: z / (1 + anp.exp(-z)),
    "gelu": lambda z, p: _gelu(z),
    "gelu_tanh": lambda z, p: 0.5 * z * (1 + anp.tanh(math.sqrt(2 / math.pi) * (z + 0.044715 * z * z * z))),
    "softmax": _softmax,
    "log_softmax": _log_softmax,
}


def reverse(problem: Problem) -> Call:
    """Return ``autograd.jacobian``, which runs one backward pass for each output."""
    if problem.batch is not None:
        raise NotApplicableError("one input at a time")
    if not HAS_SCIPY and any(layer.activation.name == "gelu" for layer in problem.layers):
        raise NotApplicableError("gelu needs scipy")
    steps = [
        (layer.w, layer.b, _VALUES[layer.activation.name], layer.activation.parameter)
        for layer in problem.layers
    ]
    x = problem.x
    values: list[Any] = []

    def network(a: Any) -> Any:
        for w, b, value, parameter in steps:
            a = value(anp.dot(a, w) + b, parameter)
        values[:] = [a]
        return a

    jac_of = jacobian(network)

    def call() -> tuple[Any, Any]:
        jac = jac_of(x)
        return getval(values[0]), jac

    return call


PEERS = {"autograd": reverse}
