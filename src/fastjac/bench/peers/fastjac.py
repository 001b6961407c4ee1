"""fastjac itself: a prepared Network, its routine without Python, and the function over raw arrays."""

from __future__ import annotations

from typing import Any

from fastjac.bench import machine
from fastjac.bench.problem import Call, NotApplicableError, Problem
from fastjac.jacobian import value_and_jacobian
from fastjac.kernels import routines
from fastjac.kernels.context import Context
from fastjac.network import Network

# Of a call of the routine alone: a fraction of a millisecond.
_MULTIPLY_ADDS = 4_000_000


def _network(problem: Problem) -> Network:
    *hidden, head = (layer.activation for layer in problem.layers)
    return Network([(layer.w, layer.b) for layer in problem.layers], hidden, head)


def network(problem: Problem) -> Call:
    """Return ``Network.value_and_jacobian`` with ``out=``."""
    net, x, out = _network(problem), problem.x, problem.outputs()
    return lambda: net.value_and_jacobian(x, out=out)


def kernel_alone(problem: Problem) -> Call:
    """Return the compiled routine, called in a compiled loop ``repeats`` times."""
    if problem.batch is not None:
        raise NotApplicableError("one input at a time")
    net, (y, jac) = _network(problem), problem.outputs()
    repeats = max(1, _MULTIPLY_ADDS // max(net.plan.multiply_adds, 1000))
    context = Context(net.packed)
    loop = machine.repeated(routines.routine("value_and_jacobian", net.dtype))

    def call() -> tuple[Any, Any]:
        loop(repeats, context.address, problem.x, y, jac)
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


PEERS = {"fastjac": network, "fastjac, kernel alone": kernel_alone, "fastjac, raw arrays": raw_arrays}
