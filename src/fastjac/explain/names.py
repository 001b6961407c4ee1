"""What inputs and outputs are called where people read about them."""

from __future__ import annotations

from fastjac.network import Network


def input_names(net: Network) -> tuple[str, ...]:
    """Return the names of the N inputs: the network's, or ``x[0]``, ``x[1]``, ..."""
    if net.input_names is not None:
        return tuple(str(name) for name in net.input_names)
    return tuple(f"x[{n}]" for n in range(net.n_inputs))


def output_names(net: Network) -> tuple[str, ...]:
    """Return the names of the M outputs: the network's, or ``y[0]``, ``y[1]``, ..."""
    if net.output_names is not None:
        return tuple(str(name) for name in net.output_names)
    return tuple(f"y[{m}]" for m in range(net.n_outputs))
