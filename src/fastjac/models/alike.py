"""Compares what a part of a graph computes for test inputs with activations, softmax and normalisations."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fastjac import graph
from fastjac.graph.values import Apply, Concatenate, Normalise, Scale, Select, Value
from fastjac.layers import ACTIVATIONS, HEADS_ONLY, Activation
from fastjac.models.spelled import Stop, Total, computed, values
from fastjac.reference import elementwise

Array = NDArray[np.floating[Any]]
Build: TypeAlias = Callable[[Value], Value]
_SIZES = (
    *(0, 1e-9, 1e-6, 1e-3, 0.01, 0.1, 0.3, 0.5, 0.9, 1, 1.1, 1.5, 2, 2.5, 2.9, 3, 3.1),
    *(4, 5, 5.9, 6, 6.1, 8, 12, 19, 30, 50, 80, 1e3, 1e6),
)
POINTS = np.unique([sign * size for sign in (-1, 1) for size in _SIZES])
_TOLERANCE = 1e-6  # Frameworks keep constants in float32.
_EACH, _MOST_PEAKS = 4, 16  # vectors of each size, and entries that some have a peak in


def of_entries(start: Value, between: list[Value]) -> Build | None:
    """Return the activation, of the entries or their negatives, that computes the last value."""
    if any(isinstance(each.operation, (Stop, Total)) for each in between):
        return None
    # Each entry but the first meets all points in an order of its own: a mix-up of entries does not pass.
    points = np.tile(POINTS[:, None], start.size)
    points[:, 1:] = np.random.default_rng(0).permuted(points[:, 1:], axis=0)
    for stretch in _stretches(between):
        y = values(between, start, points / stretch)
        for activation in _candidates(points, y):
            expected = elementwise(points, activation)
            gain = _gain(y, expected)
            if np.all(_agree(y, gain * expected, np.minimum(np.abs(points), 1) * np.abs(gain))):
                return lambda z: graph.apply(z * stretch, activation) * gain
        if stretch == 1 and (clip := _clipped(start, between, points, y)) is not None:
            return clip
    return None


def _stretches(between: list[Value]) -> Iterator[float]:
    """Yield the factors that the entries may have before an activation."""
    yield from (1.0, -1.0)
    for each in between:
        factors = np.unique(each.operation.factor) if isinstance(each.operation, Scale) else np.ones(1)
        if factors.size == 1 and abs(factors[0]) not in (0, 1):
            yield float(factors[0])


def _clipped(start: Value, between: list[Value], x: Array, y: Array) -> Build | None:
    """Return the clip that computes ``y`` from ``x``, between limits of their own for each entry."""
    low, high = (y.T[np.equal(x.T, place)] for place in (-1e6, 1e6))
    if not (np.all(high - low > 0) and np.all(high - low < 1e5)):
        return None
    half, middle = (high - low) / 2, (high + low) / 2
    near = middle + half * np.linspace(-1.75, 1.75, 8)[:, None]  # The points may all be far from the limits.
    for each, found in ((x, y), (near, values(between, start, near))):
        if not np.all(_agree(found, np.clip(each, low, high), np.minimum(np.abs(each), 1))):
            return None
    return lambda z: graph.apply((z - middle) / half, "hard_tanh") * half + middle


def _candidates(x: Array, y: Array) -> Iterator[Activation]:
    """Yield the activations that may compute ``y`` from ``x``, with their parameters."""
    plain, expected = _plain()
    first, size = y[:, :1], np.minimum(np.abs(POINTS), 1)[:, None]
    gain = _gain(np.broadcast_to(first, expected.shape), expected)
    is_like = _agree(first, gain * expected, size * np.abs(gain))
    yield from (plain[place] for place in np.flatnonzero(is_like))
    left, far_left = (np.abs(y.T[np.equal(x.T, place)]) for place in (-1, -80))
    for name, slope in (("leaky_relu", left), ("elu", far_left), ("celu", far_left)):
        parameter = _shortest(float(slope[0]))
        if 0 < parameter < 1e3:
            yield Activation(name, parameter)
    yield Activation("prelu", tuple(left.tolist()))


@functools.cache
def _plain() -> tuple[list[Activation], Array]:
    """Return the activations without a parameter, and the values of each at `POINTS`, in a column."""
    plain = [Activation(name) for name, default in ACTIVATIONS.items() if default is None]
    plain = [activation for activation in plain if activation.name not in HEADS_ONLY]
    return plain, np.column_stack([elementwise(POINTS, activation) for activation in plain])


def _shortest(parameter: float) -> float:
    """Return the decimal number that a float32 parameter stands for."""
    narrow = np.float32(parameter)
    return float(str(narrow)) if parameter == float(narrow) else parameter


def of_vectors(start: Value, between: list[Value]) -> Build | None:
    """Return the softmax or normalisation, of all entries or of rows, that computes the last value."""
    found = _rows(start, between)
    if found is None:
        return None
    places, rows = found
    x = _vectors(start.size)
    y = values(between, start, x)
    stops = any(isinstance(each.operation, Stop) for each in between)
    builds = []
    for row in rows:
        if (made := _of_vector(x[:, places[row]], y[:, row], stops)) is None:
            return None
        builds.append(made)
    order = np.argsort(np.concatenate(rows))

    def build(z: Value) -> Value:
        parts = [make(graph.select(z, places[row])) for make, row in zip(builds, rows, strict=True)]
        return graph.select(graph.concatenate(parts), order)

    return build


def _vectors(size: int) -> Array:
    """Return vectors for tests, of which the first is zero: small and large, shifted, and with a peak.

    The smallest are divided by the least norm, where there is one.
    """
    random = np.random.default_rng(0)
    scales = np.concatenate([[0], np.repeat([1e-30, 1e-6, 1e-4, 1e-2, 0.1, 1, 3, 10], _EACH)])[:, None]
    x = random.normal(size=(len(scales), size)) * scales
    peaks = np.zeros((2 * min(size, _MOST_PEAKS), size))
    for i, peak in enumerate(peaks):
        peak[i // 2] = 20.0 if i % 2 else -20.0
    shifted = [x[-3 * _EACH :] + shift for shift in (-5.0, 3.0)]
    return np.concatenate([x, *shifted, peaks, peaks / 20 + random.normal(size=peaks.shape) / 10])


def _rows(start: Value, between: list[Value]) -> tuple[NDArray[np.intp], list[NDArray[np.intp]]] | None:
    """Return which entry of ``start`` each entry of the last value is made from, and those summed together.

    None if nothing is summed, or entries come and go.
    """
    row = np.arange(start.size)  # Entries that are summed together have the same number.
    # Of each value: the entry that an entry is made from, and whether it is a sum or a constant.
    known = {id(start): (row.copy(), np.zeros(start.size, np.bool_))}
    for each in between:
        (places, is_sum), *others = (known[id(before)] for before in each.inputs)
        if isinstance(each.operation, Select):
            places, is_sum = places[each.operation.places], is_sum[each.operation.places]
        elif isinstance(each.operation, Total):
            row[np.isin(row, row[places])] = row[places[0]]
            places, is_sum = places[:1], np.ones(1, np.bool_)
        elif isinstance(each.operation, Concatenate):
            parts = [(places, is_sum), *others]
            places, is_sum = (np.concatenate(part) for part in zip(*parts, strict=True))
        elif isinstance(each.operation, Scale) and not np.any(each.operation.factor):
            is_sum = np.ones(each.size, np.bool_)
        else:
            for other, other_is_sum in others:
                places, is_sum = np.where(is_sum, other, places), is_sum & other_is_sum
        known[id(each)] = places, is_sum
    if not any(isinstance(each.operation, Total) for each in between):
        return None
    if not np.array_equal(np.sort(places), np.arange(start.size)):
        return None
    return places, [np.flatnonzero(row[places] == number) for number in np.unique(row)]


def _of_vector(x: Array, y: Array, stops: bool) -> Build | None:
    """Return the softmax or normalisation that computes vectors ``y`` from vectors ``x``."""
    for name in HEADS_ONLY:
        gain = _gain(y, expected := computed(Apply(Activation(name)), [x]))
        if np.any(gain != 0) and np.all(_agree(y, gain * expected, 1e-6 * np.abs(gain).max())):
            return lambda z: graph.apply(z, name) * gain
    if stops:
        return None
    shift = np.where(np.isfinite(y[0]), y[0], 0.0)
    for centred in (True, False):
        d = x - x.mean(-1, keepdims=True) if centred else x
        # Beside a shift, nothing is left of the smallest.
        for epsilon in (0.0, *(_epsilon(d[first:], y[first:] - shift) for first in (0, 1 + _EACH))):
            expected = computed(Normalise(epsilon, centred), [x])
            gain = _gain(y - shift, expected)
            expected[0] = np.where(np.isnan(expected[0]), 0, expected[0])  # 0 / 0, which others may avoid.
            if np.any(gain != 0) and np.all(_agree(y, gain * expected + shift, np.abs(gain).max())):
                normal = graph.layer_norm if centred else graph.rms_norm
                return lambda z: normal(z, epsilon=epsilon) * gain + shift
    return None


def _gain(y: Array, expected: Array) -> Array:
    """Return the factor of each entry; those that are nearly whole numbers are."""
    is_finite = np.isfinite(y) & np.isfinite(expected)
    largest = np.where(is_finite, np.abs(expected), 0).argmax(axis=0), np.arange(y.shape[1])
    gain = y[largest] / expected[largest]
    whole: Array = np.round(gain)
    return whole if np.all(np.abs(gain - whole) < 1e-9) else gain


def _epsilon(d: Array, y: Array) -> float:
    """Return the number that is added to the mean of ``d**2`` under the root that ``d`` is divided by."""
    variances = np.mean(d * d, axis=-1)
    small, large = np.where(variances > 0, variances, np.inf).argmin(), variances.argmax()
    entry = np.abs(d[small] * d[large]).argmax()
    ratio = (y[small, entry] / d[small, entry] / (y[large, entry] / d[large, entry])) ** 2
    epsilon = (variances[large] - ratio * variances[small]) / (ratio - 1)
    if not 0 < epsilon < variances[large]:  # More would divide all by about the same: that is an affine map.
        return 0.0
    short = float(f"{epsilon:.9g}")
    return short if math.isclose(short, epsilon, rel_tol=1e-11) else float(epsilon)


def _agree(y: Array, expected: Array, least: Any) -> NDArray[np.bool_]:
    """Return which columns agree where they are finite; an exponential may overflow far out."""
    is_finite = np.isfinite(y)
    near = np.abs(y - expected) <= _TOLERANCE * (np.abs(expected) + 1e-2 * least)
    return np.asarray((is_finite.mean() > 0.8) & np.all(near | ~is_finite, axis=0))
