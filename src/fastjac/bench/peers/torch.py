"""PyTorch: torch.func.jacrev, autograd.functional.jacobian, and a backward pass by hand."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F

from fastjac.bench.peers.dialect import Dialect, own_functions, weights
from fastjac.bench.problem import Call, Problem

torch.set_num_threads(1)

_TORCH = Dialect(
    torch,
    torch.erf,
    own_functions(
        F,
        torch,
        hard_tanh=F.hardtanh,
        # PyTorch's own have float32's accuracy.
        celu=lambda z, p: p * F.elu(z / p),
        hard_sigmoid=lambda z: F.relu6(z + 3) / 6,
        hard_swish=F.hardswish,
        prelu=None,  # Theirs takes a tensor of slopes.
        gelu_tanh=partial(F.gelu, approximate="tanh"),
        softmax=partial(torch.softmax, dim=-1),
        log_softmax=partial(torch.log_softmax, dim=-1),
    ),
)


def _weights(problem: Problem) -> list[tuple[Any, Any]]:
    return [(torch.tensor(one), torch.tensor(other)) for one, other in weights(problem)]


def _network(problem: Problem) -> Callable[[Any], Any]:
    network, arrays = _TORCH.function(problem), _weights(problem)
    return lambda a: network(a, arrays)


def jacrev(problem: Problem) -> Call:
    """Return ``torch.func.jacrev``, under ``torch.func.vmap`` for a batch."""
    network = _network(problem)

    def twice(a: Any) -> tuple[Any, Any]:
        y = network(a)
        return y, y

    function = torch.func.jacrev(twice, has_aux=True)
    if problem.batch is not None:
        function = torch.func.vmap(function)
    x = torch.tensor(problem.x)

    def call() -> tuple[Any, Any]:
        jac, y = function(x)
        return y, jac

    return call


def functional(problem: Problem) -> Call:
    """Return ``torch.autograd.functional.jacobian``."""
    x = torch.tensor(problem.single())
    network = _network(problem)
    values: list[Any] = []

    def kept(a: Any) -> Any:
        values[:] = [network(a)]
        return values[0]

    def call() -> tuple[Any, Any]:
        jac = torch.autograd.functional.jacobian(kept, x)
        return values[0].detach(), jac

    return call


def by_hand(problem: Problem, compiled: bool) -> Call:
    """Return the backward pass written by hand, eager or under ``torch.compile``."""
    by_hand, arrays = _TORCH.by_hand(problem.layers), _weights(problem)
    transposed = [w.T.contiguous() for w, _ in arrays]

    def value_and_jacobian(x: Any) -> tuple[Any, Any]:
        return by_hand(x, arrays, transposed)

    function = value_and_jacobian
    if compiled:
        torch.compiler.reset()
        function = torch.compile(value_and_jacobian, dynamic=False)
    x = torch.tensor(problem.x)
    return lambda: function(x)


PEERS = {
    "torch func.jacrev": jacrev,
    "torch autograd.functional.jacobian": functional,
    "torch by hand": partial(by_hand, compiled=False),
    "torch by hand, compiled": partial(by_hand, compiled=True),
}
