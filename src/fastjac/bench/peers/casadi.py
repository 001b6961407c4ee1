"""CasADi: a symbolic graph and its Jacobian, called through preallocated buffers."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import casadi as ca
import numpy as np

from fastjac.bench.problem import Call, NotApplicableError, Problem


def _softmax(z: Any, p: float) -> Any:
    exponentials = ca.exp(z - ca.mmax(z))
    return exponentials / ca.sum1(exponentials)


def _log_softmax(z: Any, p: float) -> Any:
    shifted = z - ca.mmax(z)
    return shifted - ca.log(ca.sum1(ca.exp(shifted)))


_VALUES: dict[str, Callable[[Any, float], Any]] = {
    "identity": lambda z, p: z,
    "relu": lambda z, p: ca.fmax(z, 0),
    "leaky_relu": lambda z, p: ca.if_else(z > 0, z, p * z),
    "relu6": lambda z, p: ca.fmin(ca.fmax(z, 0), 6),
    "hard_tanh": lambda z, p: ca.fmin(ca.fmax(z, -1), 1),
    "elu": lambda z, p: ca.if_else(z > 0, z, p * ca.expm1(ca.fmin(z, 0))),
    "tanh": lambda z, p: ca.tanh(z),
    "sigmoid": lambda z, p: 1 / (1 + ca.exp(-z)),
    "softplus": lambda z, p: ca.fmax(z, 0) + ca.log1p(ca.exp(-ca.fabs(z))),
    "silu": lambda z, p: z / (1 + ca.exp(-z)),
    "gelu": lambda z, p: 0.5 * z * (1 + ca.erf(z * math.sqrt(0.5))),
    "gelu_tanh": lambda z, p: 0.5 * z * (1 + ca.tanh(math.sqrt(2 / math.pi) * (z + 0.044715 * z * z * z))),
    "softmax": _softmax,
    "log_softmax": _log_softmax,
}


def symbolic(problem: Problem) -> Call:
    """Return a CasADi function of matrix expressions that computes y and jac together."""
    if problem.batch is not None:
        raise NotApplicableError("one input at a time")
    if problem.dtype != np.float64:
        raise NotApplicableError("float64 only")
    x = ca.MX.sym("x", problem.sizes[0])
    a = x
    for layer in problem.layers:
        z = ca.mtimes(ca.DM(layer.w.T), a) + ca.DM(layer.b)
        a = _VALUES[layer.activation.name](z, layer.activation.parameter)
    function: Any = ca.Function("value_and_jacobian", [x], [a, ca.densify(ca.jacobian(a, x))])

    values: Any = np.array(problem.x)
    y: Any = np.zeros(problem.sizes[-1])
    jac: Any = np.zeros((problem.sizes[0], problem.sizes[-1]))  # CasADi writes columns
    buffer, evaluate = function.buffer()
    buffer.set_arg(0, memoryview(values))
    buffer.set_res(0, memoryview(y))
    buffer.set_res(1, memoryview(jac))

    def call() -> tuple[Any, Any]:
        evaluate()
        return y, jac.T

    call.kept = (buffer, function, values)  # type: ignore[attr-defined]
    return call


PEERS = {"casadi": symbolic}
