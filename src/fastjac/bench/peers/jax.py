"""JAX: jit of jacrev, jacfwd and a backward pass by hand, with weights as arguments and closed over.

JAX computes in the calling thread here: a call took 8 to 10 us less than with its default, which
dispatches to another thread.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.scipy.special import erf

from fastjac.bench.peers.dialect import Dialect, own_functions, weights
from fastjac.bench.problem import Call, Problem

jax.config.update("jax_enable_x64", True)
jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_cpu_enable_async_dispatch", False)

_OWN = own_functions(jax.nn, gelu=partial(jax.nn.gelu, approximate=False), gelu_tanh=jax.nn.gelu)
_JAX = Dialect(jnp, erf, _OWN)


def _function(problem: Problem, how: str) -> Callable[[Any, Any], tuple[Any, Any]]:
    """Return ``f(x, weights) -> (jac, y)`` of a single input."""
    if how == "by hand":
        by_hand = _JAX.by_hand(problem.layers)
        return lambda x, weights: by_hand(x, weights, [w.T for w, _ in weights])[::-1]
    network = _JAX.function(problem)

    def twice(x: Any, weights: Any) -> tuple[Any, Any]:
        y = network(x, weights)
        return y, y

    function: Callable[[Any, Any], tuple[Any, Any]] = getattr(jax, how)(twice, has_aux=True)
    return function


def _build(problem: Problem, how: str, closed: bool) -> Call:
    function = _function(problem, how)
    if problem.batch is not None:
        function = jax.vmap(function, in_axes=(0, None))
    x = jnp.asarray(problem.x)
    arrays = [(jnp.asarray(one), jnp.asarray(other)) for one, other in weights(problem)]
    if closed:
        compiled = jax.jit(lambda x: function(x, arrays))
        arguments: tuple[Any, ...] = (x,)
    else:
        compiled = jax.jit(function)
        arguments = (x, arrays)

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
