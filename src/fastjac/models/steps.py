"""The steps that converters read from a model, and functions that make them.

Each converter returns a chain of steps: an `Affine` map, a `Scale` of each entry, a `Select` of entries, or
an `Activation`.
"""

from __future__ import annotations

import inspect
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastjac.layers import Activation, as_activation

Float64 = NDArray[np.float64]


class Affine(NamedTuple):
    """``x @ w + b`` with ``w`` (fan_in, fan_out), ``b`` (fan_out,), and the place that errors name.

    If it is ``absorbed``, `fold` multiplies it into the affine map after it.
    """

    w: Float64
    b: Float64
    where: str
    absorbed: bool = False


class Scale(NamedTuple):
    """``x * factor + shift``. Both are (n,), or (1,) if they fit any n."""

    factor: Float64
    shift: Float64
    where: str


class Select(NamedTuple):
    """``x[places]``, with ``places`` (k,); an entry may be taken more than once."""

    places: NDArray[np.intp]
    where: str


Step = Affine | Scale | Select | Activation
IDENTITY = Activation("identity")


def as_float64(value: ArrayLike, where: str) -> Float64:
    """Return real numbers of any dtype as float64, also bfloat16 of ml_dtypes."""
    array = np.asarray(value)
    if array.dtype.kind not in "biuf" and array.dtype.name != "bfloat16":
        raise TypeError(f"{where} has dtype {array.dtype}, expected real numbers")
    return array.astype(np.float64, copy=False)


def computes_as(layer: Any, kind: type, method: str) -> bool:
    """Return whether ``layer`` is a ``kind`` of its framework whose ``method`` nobody has replaced."""
    if not isinstance(layer, kind) or method in vars(layer):
        return False
    return inspect.getattr_static(type(layer), method) is inspect.getattr_static(kind, method)


def affine(w: ArrayLike, b: ArrayLike | None, where: str) -> Affine:
    """Return an `Affine` after a check of its shapes; ``b`` may be None or have leading axes of length 1."""
    w = as_float64(w, f"the weight of {where}")
    if w.ndim != 2 or 0 in w.shape:
        raise ValueError(f"{where}: its weight has shape {w.shape}, expected two axes")
    b = np.zeros(w.shape[1]) if b is None else as_float64(b, f"the bias of {where}")
    if b.size not in (1, w.shape[1]) or b.size != max(b.shape, default=1):
        raise ValueError(f"{where}: its bias has shape {b.shape}, expected ({w.shape[1]},)")
    return Affine(w, np.broadcast_to(b.ravel(), w.shape[1:]), where)


def scale(factor: ArrayLike, shift: ArrayLike, where: str) -> Scale:
    """Return a `Scale` of flat arrays of equal length."""
    a, b = (as_float64(value, where).ravel() for value in (factor, shift))
    if a.size != b.size and 1 not in (a.size, b.size):
        raise ValueError(f"{where}: it scales {a.size} entries and shifts {b.size}")
    factors, shifts = np.broadcast_arrays(a, b)
    return Scale(factors, shifts, where)


def normalisation(
    mean: ArrayLike, variance: ArrayLike, epsilon: float, gamma: ArrayLike, beta: ArrayLike, where: str
) -> Scale:
    """Return the `Scale` of ``(x - mean) / sqrt(variance + epsilon) * gamma + beta``."""
    parts = [as_float64(value, where).ravel() for value in (mean, variance, gamma, beta)]
    sizes = [part.size for part in parts]
    if len({*sizes} - {1}) > 1:
        raise ValueError(f"{where}: its mean, variance, scale and shift differ in length: {sizes}")
    centre, spread, gain, offset = parts
    factor = gain / np.sqrt(spread + epsilon)
    return scale(factor, offset - centre * factor, where)


def clip(low: float | Float64, high: float | Float64, where: str) -> list[Step]:
    """Return the steps that clip entries to ``low`` and ``high``, each (n,) or one number for all entries.

    They are relu, relu6 or a scaled hard_tanh; where one limit is infinite, a shifted relu.
    """
    least, greatest = as_float64(low, where), as_float64(high, where)
    if least.ndim == 0 and least == 0 and greatest in (6, np.inf):
        return [Activation("relu6" if greatest == 6 else "relu")]
    if np.all(np.isfinite(least)) and np.all(greatest == np.inf):
        return [scale(1.0, -least, where), Activation("relu"), scale(1.0, least, where)]
    if np.all(np.isfinite(greatest)) and np.all(least == -np.inf):
        return [scale(-1.0, greatest, where), Activation("relu"), scale(-1.0, greatest, where)]
    middle, half = (greatest + least) / 2, (greatest - least) / 2
    if not (np.all(np.isfinite(middle)) and np.all(half >= 0)):
        raise ValueError(f"{where} clips to {low} and {high}, expected limits in order, one of them finite")
    inverse = np.divide(1, half, out=np.zeros_like(half), where=half > 0)
    return [
        scale(inverse, -middle * inverse, where),
        Activation("hard_tanh"),
        scale(half, middle, where),
    ]


def both_columns(steps: list[Step], where: str) -> list[Step]:
    """Return the steps for the columns ``1 - p`` and ``p``, if ``steps`` end in ``p = sigmoid(z)``.

    For a single z they are the softmax of ``(0, z)``, else the sigmoid of ``(-z, z)``.
    """
    *before, last = steps
    scales: list[Scale] = []
    dense = before.pop() if before else None
    while isinstance(dense, Scale):
        scales.insert(0, dense)
        dense = before.pop() if before else None
    if not isinstance(dense, Affine) or last != Activation("sigmoid"):
        raise ValueError(f"{where}: fastjac has 1 - p and p side by side only for a Dense layer's sigmoid p")
    w, b, layer, _ = dense
    for factor, shift, _ in scales:
        w, b = w * factor, b * factor + shift
    if b.size == 1:
        return [*before, Affine(np.hstack((0 * w, w)), np.append(0 * b, b), layer), Activation("softmax")]
    return [*before, Affine(np.hstack((-w, w)), np.append(-b, b), layer), last]


def activation_of(name: str, where: str, parameter: float | Float64 = 0.0) -> Activation:
    """Return the `Activation` of a name and its parameter; errors name ``where``."""
    given = tuple(parameter.tolist()) if isinstance(parameter, np.ndarray) else parameter
    return as_activation(Activation(name, given), where)
