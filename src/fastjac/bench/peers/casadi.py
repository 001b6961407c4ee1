"""CasADi: a symbolic graph and its Jacobian, called through preallocated buffers."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import casadi as ca
import numpy as np

from fastjac.bench.peers.dialect import Dialect
from fastjac.bench.problem import Call, NotApplicableError, Problem

_AS_IN_NUMPY = SimpleNamespace(
    exp=ca.exp, expm1=ca.expm1, log=ca.log, log1p=ca.log1p, tanh=ca.tanh, abs=ca.fabs, sin=ca.sin, cos=ca.cos,
    maximum=ca.fmax, minimum=ca.fmin, where=ca.if_else, max=ca.mmax, sum=ca.sum1,
)  # fmt: skip
# Repeated, since CasADi 3.8.2 differentiates a vector less a scalar wrongly: z - z[0]**2 is 6 off.
_CASADI = Dialect(_AS_IN_NUMPY, ca.erf, {"log_softmax": lambda z: z - ca.repmat(ca.logsumexp(z), z.numel())})


def symbolic(problem: Problem) -> Call:
    """Return a CasADi function of matrix expressions that computes y and jac together."""
    values: Any = np.array(problem.single())
    if problem.dtype != np.float64:
        raise NotApplicableError("float64 only")
    x = ca.MX.sym("x", problem.sizes[0])
    a = x
    for layer in problem.layers:
        a = _CASADI.value(layer.activation)(ca.mtimes(ca.DM(layer.w.T), a) + ca.DM(layer.b))
    function: Any = ca.Function("value_and_jacobian", [x], [a, ca.densify(ca.jacobian(a, x))])

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
