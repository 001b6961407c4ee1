"""HIPS Autograd, as in the article."""

from __future__ import annotations

from typing import Any

import autograd.numpy as anp
from autograd import jacobian
from autograd.tracer import getval

from fastjac.bench.peers.dialect import Dialect
from fastjac.bench.problem import Call, Problem

try:
    from autograd.scipy.special import erf
except ImportError:
    erf = None

_AUTOGRAD = Dialect(anp, erf)


def reverse(problem: Problem) -> Call:
    """Return ``autograd.jacobian``, which runs one backward pass for each output."""
    x = problem.single()
    steps = [(layer.w, layer.b, _AUTOGRAD.value(layer.activation)) for layer in problem.layers]
    values: list[Any] = []

    def network(a: Any) -> Any:
        for w, b, value in steps:
            a = value(anp.dot(a, w) + b)
        values[:] = [a]
        return a

    jac_of = jacobian(network)

    def call() -> tuple[Any, Any]:
        jac = jac_of(x)
        return getval(values[0]), jac

    return call


PEERS = {"autograd": reverse}
