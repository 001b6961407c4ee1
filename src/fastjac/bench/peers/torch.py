"""PyTorch: torch.func.jacrev, autograd.functional.jacobian, and a backward pass by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F

from fastjac.bench.peers.activations import jacobian_by_hand
from fastjac.bench.problem import Call, NotApplicableError, Problem

torch.set_num_threads(1)

_VALUES: dict[str, Callable[[Any, float], Any]] = {
    "identity": lambda z, p: z,
    "relu": lambda z, p: torch.relu(z),
    "leaky_relu": lambda z, p: F.leaky_relu(z, p),
    "relu6": lambda z, p: F.relu6(z),
    "hard_tanh": lambda z, p: F.hardtanh(z),
    "elu": lambda z, p: F.elu(z, p),
    "tanh": lambda z, p: torch.tanh(z),
    "sigmoid": lambda z, p: torch.sigmoid(z),
    "softplus": lambda z, p: F.softplus(z),
    "silu": lambda z, p: F.silu(z),
    "gelu": lambda z, p: F.gelu(z),
    "gelu_tanh": lambda z, p: F.gelu(z, approximate="tanh"),
    "softmax": lambda z, p: torch.softmax(z, -1),
    "log_softmax": lambda z, p: torch.log_softmax(z, -1),
}


def _weights(problem: Problem) -> list[tuple[Any, Any]]:
    return [(torch.tensor(layer.w), torch.tensor(layer.b)) for layer in problem.layers]


def _network(problem: Problem) -> Callable[[Any], Any]:
    weights = _weights(problem)
    activations = [layer.activation for layer in problem.layers]

    def network(a: Any) -> Any:
        for (w, b), activation in zip(weights, activations, strict=True):
            a = _VALUES[activation.name](a @ w + b, activation.parameter)
        return a

    return network


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
    if problem.batch is not None:
        raise NotApplicableError("one input at a time")
    network = _network(problem)
    x = torch.tensor(problem.x)
    values: list[Any] = []

    def kept(a: Any) -> Any:
        values[:] = [network(a)]
        return values[0]

    def call() -> tuple[Any, Any]:
        jac = torch.autograd.functional.jacobian(kept, x)
        return values[0].detach(), jac

    return call


def _by_hand(problem: Problem) -> Callable[[Any], tuple[Any, Any]]:
    weights = _weights(problem)
    transposed = [w.T.contiguous() for w, _ in weights]
    activations = [layer.activation for layer in problem.layers]

    def value_and_jacobian(x: Any) -> tuple[Any, Any]:
        zs, values = [], [x]
        for (w, b), activation in zip(weights, activations, strict=True):
            zs.append(values[-1] @ w + b)
            values.append(_VALUES[activation.name](zs[-1], activation.parameter))
        return values[-1], jacobian_by_hand(torch, torch.erf, activations, zs, values[1:], transposed)

    return value_and_jacobian


def by_hand(problem: Problem) -> Call:
    """Return the backward pass written by hand, eager."""
    function, x = _by_hand(problem), torch.tensor(problem.x)
    return lambda: function(x)


def compiled(problem: Problem) -> Call:
    """Return ``torch.compile`` of the backward pass written by hand."""
    torch.compiler.reset()
    function, x = torch.compile(_by_hand(problem), dynamic=False), torch.tensor(problem.x)
    return lambda: function(x)


PEERS = {
    "torch func.jacrev": jacrev,
    "torch autograd.functional.jacobian": functional,
    "torch by hand": by_hand,
    "torch by hand, compiled": compiled,
}
