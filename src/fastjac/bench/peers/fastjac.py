"""fastjac itself: a prepared Network as people call it, its routine, and the function over raw arrays."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastjac.bench import machine
from fastjac.bench.problem import (
    IN_A_CALL,
    MANY,
    VALUE_ALONE,
    Call,
    GraphProblem,
    NotApplicableError,
    Problem,
)
from fastjac.jacobian import value_and_jacobian
from fastjac.kernels import routines
from fastjac.kernels.contexts import new_context
from fastjac.layers import FLOATS
from fastjac.network import Network

# Of a call of the routine alone: a fraction of a millisecond.
_MULTIPLY_ADDS = 4_000_000


def _network(problem: Problem) -> Network:
    if isinstance(problem, GraphProblem):
        return Network(problem.value, dtype=problem.dtype)
    *hidden, head = (layer.activation for layer in problem.layers)
    return Network([(layer.w, layer.b) for layer in problem.layers], hidden, head)


def network(problem: Problem) -> Call:
    """Return ``Network.value_and_jacobian`` with ``out=``."""
    net, x, out = _network(problem), problem.x, problem.outputs()
    return lambda: net.value_and_jacobian(x, out=out)


def new_arrays(problem: Problem) -> Call:
    """Return ``Network.value_and_jacobian`` without ``out=``."""
    net, x = _network(problem), problem.x
    return lambda: net.value_and_jacobian(x)


def from_list(problem: Problem) -> Call:
    """Return ``Network.value_and_jacobian`` of a list of numbers."""
    net, x = _network(problem), problem.single().tolist()
    return lambda: net.value_and_jacobian(x)


def other_dtype(problem: Problem) -> Call:
    """Return ``Network.value_and_jacobian`` of an array that is cast: float32 to float64 or back."""
    (dtype,) = (each for each in FLOATS if each != problem.dtype)
    net, x = _network(problem), problem.x.astype(dtype)
    return lambda: net.value_and_jacobian(x)


def many(problem: Problem) -> Call:
    """Return ``Network.value_and_jacobian`` of `MANY` inputs with ``out=``, each of which counts."""
    net, x = _network(problem), problem.single()
    others = np.random.default_rng(1).standard_normal((MANY - 1, x.size), x.dtype)
    xs = np.concatenate([x[None], others])
    y, jac = out = net.value_and_jacobian(xs)

    def call() -> tuple[Any, Any]:
        net.value_and_jacobian(xs, out=out)
        return y[0], jac[0]

    call.repeats = MANY  # type: ignore[attr-defined]
    return call


def value_alone(problem: Problem) -> Call:
    """Return ``Network.__call__`` with ``out=``, beside which other packages' value alone is seen."""
    net, x, (y, _) = _network(problem), problem.x, problem.outputs()

    def call() -> tuple[Any, Any]:
        return net(x, out=y), None

    return call


def kernel_alone(problem: Problem) -> Call:
    """Return the compiled routine, called in a compiled loop ``repeats`` times."""
    x = problem.single()
    net, (y, jac) = _network(problem), problem.outputs()
    repeats = max(1, _MULTIPLY_ADDS // max(net.plan.multiply_adds, 1000))
    context = new_context(net.packed)
    loop = machine.repeated(routines.routine(net.dtype, net.packed.is_graph))

    def call() -> tuple[Any, Any]:
        loop(repeats, context.address, x, y, jac)
        return y, jac

    call.repeats = repeats  # type: ignore[attr-defined]
    return call


def raw_arrays(problem: Problem) -> Call:
    """Return the functional API, which prepares nothing and remembers nothing."""
    if [str(layer.activation) for layer in problem.layers] != ["relu", "softmax"]:
        raise NotApplicableError("affine, ReLU, affine, softmax only")
    (w1, b1, _), (w2, b2, _) = problem.layers
    x, out = problem.x, problem.outputs()
    return lambda: value_and_jacobian(x, w1, b1, w2, b2, out=out)


PEERS = {
    "fastjac": network,
    "fastjac, kernel alone": kernel_alone,
    "fastjac, without out": new_arrays,
    "fastjac, from a list": from_list,
    "fastjac, from the other dtype": other_dtype,
    f"fastjac, {IN_A_CALL}": many,
    "fastjac, raw arrays": raw_arrays,
    f"fastjac, {VALUE_ALONE}": value_alone,
}
