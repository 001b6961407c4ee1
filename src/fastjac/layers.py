"""What a layer is: an affine map and an activation, checked and brought to one dtype."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import DTypeLike, NDArray

from fastjac.arguments import real_array

FLOATS = (np.dtype(np.float32), np.dtype(np.float64))


class Activation(NamedTuple):
    """An elementwise function, or one of the heads softmax and log_softmax.

    Parameters
    ----------
    name : str
        A key of `ACTIVATIONS`.
    parameter : float
        ``slope`` of leaky_relu, ``alpha`` of elu; 0 for all others.
    """

    name: str
    parameter: float = 0.0

    def __str__(self) -> str:
        """Return the text that `as_activation` reads: ``relu``, ``leaky_relu(0.2)``."""
        return self.name if ACTIVATIONS[self.name] is None else f"{self.name}({self.parameter!r})"


class Layer(NamedTuple):
    """``activation(x @ w + b)`` with ``w`` (fan_in, fan_out) and ``b`` (fan_out,)."""

    w: NDArray[np.floating[Any]]
    b: NDArray[np.floating[Any]]
    activation: Activation


# Name -> default of its parameter, None where it takes none. The order is the code that kernels see.
ACTIVATIONS: dict[str, float | None] = {
    "identity": None,
    "relu": None,
    "leaky_relu": 0.01,
    "relu6": None,
    "hard_tanh": None,
    "elu": 1.0,
    "tanh": None,
    "sigmoid": None,
    "softplus": None,
    "silu": None,
    "gelu": None,
    "gelu_tanh": None,
    "softmax": None,
    "log_softmax": None,
}
HEADS_ONLY = ("softmax", "log_softmax")


def as_activation(spec: str | Activation, argument: str = "activation") -> Activation:
    """Return the `Activation` that ``spec`` names, such as ``"relu"`` or ``"leaky_relu(0.2)"``.

    Raises
    ------
    TypeError
        If ``spec`` is neither a string nor an `Activation`.
    ValueError
        If the name is unknown, or its parameter missing, not finite or not wanted.
    """
    if not isinstance(spec, (str, Activation)):
        raise TypeError(f"{argument} must be a string, got {type(spec).__name__}")
    match = re.fullmatch(r"(\w+)(?:\((.+)\))?", str(spec) if isinstance(spec, str) else spec.name)
    name, text = match.groups() if match else (spec, None)
    if name not in ACTIVATIONS:
        raise ValueError(f"{argument} is {str(spec)!r}, expected one of {', '.join(ACTIVATIONS)}")
    default = ACTIVATIONS[name]
    if isinstance(spec, Activation):
        parameter = float(spec.parameter)
    elif text is None:
        parameter = default or 0.0
    else:
        try:
            parameter = float(text)
        except ValueError:
            parameter = math.nan
    if not math.isfinite(parameter) or (default is None and (text or parameter)):
        wanted = "takes no parameter" if default is None else "takes one finite number"
        raise ValueError(f"{argument} is {str(spec)!r}, but {name} {wanted}")
    return Activation(name, parameter)


def network_dtype(arrays: Iterable[NDArray[Any]], dtype: DTypeLike | None) -> np.dtype[Any]:
    """Return float32 or float64: ``dtype`` if given, else the widest that ``arrays`` ask for."""
    if dtype is not None:
        for known in FLOATS:
            if np.dtype(dtype).newbyteorder("=") == known:
                return known
        raise TypeError(f"dtype is {np.dtype(dtype)}, expected float32 or float64")
    widest = np.result_type(np.float32, *(array.dtype for array in arrays))
    return FLOATS[widest.itemsize > 4]


def as_layers(
    layers: Sequence[Any],
    activation: str | Activation | Sequence[str | Activation] = "relu",
    head: str | Activation = "softmax",
    dtype: DTypeLike | None = None,
) -> tuple[Layer, ...]:
    """Return checked, read-only copies of ``layers`` in one dtype.

    Parameters
    ----------
    layers : sequence of (w, b)
        ``w`` (fan_in, fan_out) and ``b`` (fan_out,), or None for no bias; each ``fan_in`` is the
        ``fan_out`` before it.
    activation : str, Activation or a sequence of them
        Of all hidden layers, or one for each of the ``len(layers) - 1`` hidden layers.
    head : str or Activation
        Of the last layer.
    dtype : float32 or float64, optional
        Default: the widest of the weights.
    """
    pairs: list[tuple[NDArray[Any], NDArray[Any]]] = []
    for number, pair in enumerate(layers, 1):
        try:
            w_given, b_given = pair
        except (TypeError, ValueError):
            raise ValueError(f"layer {number} is not a pair (w, b)") from None
        w = real_array(w_given, f"w{number}")
        if w.ndim != 2 or 0 in w.shape:
            raise ValueError(f"w{number} has shape {w.shape}, expected (fan_in, fan_out), each at least 1")
        if pairs and w.shape[0] != pairs[-1][1].size:
            raise ValueError(
                f"w{number} has shape {w.shape}, but b{number - 1} says "
                f"the hidden layer has {pairs[-1][1].size} units"
            )
        b = np.zeros(w.shape[1], w.dtype) if b_given is None else real_array(b_given, f"b{number}")
        if b.shape != (w.shape[1],):
            raise ValueError(
                f"b{number} has shape {b.shape}, but w{number} has shape {w.shape}: expected ({w.shape[1]},)"
            )
        pairs.append((w, b))
    if not pairs:
        raise ValueError("layers is empty, expected at least one pair (w, b)")

    hidden = len(pairs) - 1
    if isinstance(activation, (str, Activation)):
        activations = [as_activation(activation)] * hidden
    else:
        activations = [as_activation(item, f"activation[{i}]") for i, item in enumerate(activation)]
        if len(activations) != hidden:
            raise ValueError(
                f"activation has {len(activations)} entries, but there are {hidden} hidden layers"
            )
    for item in activations:
        if item.name in HEADS_ONLY:
            raise ValueError(f"activation is {item.name!r}, which only the head can be")
    activations.append(as_activation(head, "head"))

    kind = network_dtype((array for pair in pairs for array in pair), dtype)
    return tuple(
        Layer(read_only(w, kind), read_only(b, kind), item)
        for (w, b), item in zip(pairs, activations, strict=True)
    )


def read_only(array: NDArray[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Return a C-contiguous copy of ``array`` in ``dtype`` that nobody can make writable."""
    return np.frombuffer(array.astype(dtype).tobytes(), dtype).reshape(array.shape)
