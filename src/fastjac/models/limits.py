"""Limits on the size of a network from elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fastjac.layers import Activation
from fastjac.network import Network

MOST_LAYERS = 1000
MOST_OPERATIONS = 5 * MOST_LAYERS
# A number of a file takes up to 40 bytes of memory, with all copies on the way to a packed network.
_FREE_NUMBERS = 1_000_000
# A call of a graph holds a matrix of derivatives for each value: together 64 million numbers at most, and 16
# for each byte of the file. Residual networks have fewer: one from 10 inputs through eight layers of 1,024
# units to 10,000 outputs has 7 for each byte.
_FREE_DERIVATIVES, _DERIVATIVES_OF_A_BYTE = 1 << 26, 16
# The panels of a layer are padded: with one input, a unit takes about as much as four numbers do.
_PADDING = 3


class Budget:
    """How many numbers a file of ``size`` bytes may make fastjac hold: one for two bytes, and a million.

    A small file can name one tensor ten thousand times, or ask for diagonal matrices.
    """

    def __init__(self, size: int) -> None:
        self.left = _FREE_NUMBERS + size // 2
        self.most_derivatives = _FREE_DERIVATIVES + _DERIVATIVES_OF_A_BYTE * size

    def spend(self, numbers: int) -> None:
        """Count numbers that are about to be made.

        Raises
        ------
        ValueError
            If the file is too small for them.
        """
        self.left -= numbers
        if self.left < 0:
            raise ValueError("it would take far more memory than a network in a file of its size")

    def check_derivatives(self, numbers: int) -> None:
        """Check the size of all matrices of derivatives that a call of a graph holds.

        Raises
        ------
        ValueError
            If the file is too small for them.
        """
        if numbers > self.most_derivatives:
            raise ValueError(
                "its Jacobian would take far more memory than that of a network in a file of its size"
            )

    def spend_on_layer(self, fan_in: int, fan_out: int) -> None:
        """Count the weights of a layer as they are packed."""
        self.spend((fan_in + _PADDING) * fan_out)


def network(
    layers: Sequence[Any],
    activation: str | Activation | Sequence[str | Activation],
    head: str | Activation,
    dtype: Any = None,
    input_names: Sequence[str] | None = None,
    output_names: Sequence[str] | None = None,
    budget: Budget | None = None,
) -> Network:
    """Return the `Network` of weights from elsewhere.

    Raises
    ------
    ValueError
        If there are more than `MOST_LAYERS`, or more weights than ``budget`` has, or as `Network`.
    """
    if len(layers) > MOST_LAYERS:
        raise ValueError(f"it has {len(layers)} layers, expected at most {MOST_LAYERS}")
    for w, _ in layers:
        if budget is not None and w.ndim == 2:
            budget.spend_on_layer(*w.shape)
    return Network(layers, activation, head, dtype, input_names=input_names, output_names=output_names)
