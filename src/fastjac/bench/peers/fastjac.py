"""fastjac itself: a prepared Network, its routine without Python, and the function over raw arrays."""

from __future__ import annotations

from typing import Any

from fastjac.bench import machine
from fastjac.bench.problem import VALUE_ALONE, Call, NotApplicableError, Problem
from fastjac.jacobian import value_and_jacobian
from fastjac.kernels import routines
from fastjac.kernels.contexts import new_context
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
    loop = machine.repeated(routines.routine(net.dtype))

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
    "fastjac, raw arrays": raw_arrays,
    f"fastjac, {VALUE_ALONE}": value_alone,
}
