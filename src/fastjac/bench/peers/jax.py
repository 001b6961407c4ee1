"""JAX: jit of jacrev, jacfwd and a backward pass by hand, with weights as arguments and closed over.

It computes in the calling thread, which was 8 to 10 us a call faster than its default of dispatching to
another.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.scipy.special import erf

from fastjac.bench.peers.activations import jacobian_by_hand
from fastjac.bench.problem import Call, Problem

jax.config.update("jax_enable_x64", True)
jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_cpu_enable_async_dispatch", False)

_VALUES: dict[str, Callable[[Any, float], Any]] = {
    "identity": lambda z, p: z,
    "relu": lambda z, p: jax.nn.relu(z),
    "leaky_relu": lambda z, p: jax.nn.leaky_relu(z, p),
    "relu6": lambda z, p: jax.nn.relu6(z),
    "hard_tanh": lambda z, p: jax.nn.hard_tanh(z),
    "elu": lambda z, p: jax.nn.elu(z, p),
    "tanh": lambda z, p: jnp.tanh(z),
    "sigmoid": lambda z, p: jax.nn.sigmoid(z),
    "softplus": lambda z, p: jax.nn.softplus(z),
    "silu": lambda z, p: jax.nn.silu(z),
    "gelu": lambda z, p: jax.nn.gelu(z, approximate=False),
    "gelu_tanh": lambda z, p: jax.nn.gelu(z, approximate=True),
    "softmax": lambda z, p: jax.nn.softmax(z),
    "log_softmax": lambda z, p: jax.nn.log_softmax(z),
}


def _network(problem: Problem) -> Callable[[Any, Any], tuple[Any, Any]]:
    """Return ``f(x, weights) -> (y, y)``, the second for ``has_aux``."""
    activations = [layer.activation for layer in problem.layers]

    def network(a: Any, weights: Any) -> tuple[Any, Any]:
        for (w, b), activation in zip(weights, activations, strict=True):
            a = _VALUES[activation.name](a @ w + b, activation.parameter)
        return a, a

    return network


def _by_hand(problem: Problem) -> Callable[[Any, Any], tuple[Any, Any]]:
    activations = [layer.activation for layer in problem.layers]

    def jac_and_value(x: Any, weights: Any) -> tuple[Any, Any]:
        zs, values = [], [x]
        for (w, b), activation in zip(weights, activations, strict=True):
            zs.append(values[-1] @ w + b)
            values.append(_VALUES[activation.name](zs[-1], activation.parameter))
        transposed = [w.T for w, _ in weights]
        return jacobian_by_hand(jnp, erf, activations, zs, values[1:], transposed), values[-1]

    return jac_and_value


def _build(problem: Problem, how: str, closed: bool) -> Call:
    by_hand = how == "by hand"
    function = _by_hand(problem) if by_hand else getattr(jax, how)(_network(problem), has_aux=True)
    if problem.batch is not None:
        function = jax.vmap(function, in_axes=(0, None))
    x = jnp.asarray(problem.x)
    weights = [(jnp.asarray(layer.w), jnp.asarray(layer.b)) for layer in problem.layers]
    if closed:
        compiled = jax.jit(lambda x: function(x, weights))
        arguments: tuple[Any, ...] = (x,)
    else:
        compiled = jax.jit(function)
        arguments = (x, weights)

    def call() -> tuple[Any, Any]:
        jac, y = compiled(*arguments)
        jac.block_until_ready()
        return y, jac

    return call


PEERS = {
    f"jax {how}, {'closed over' if closed else 'arguments'}": partial(_build, how=how, closed=closed)
    for how in ("jacrev", "jacfwd", "by hand")
    for closed in (False, True)
}
