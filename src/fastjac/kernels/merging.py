"""Affine maps in a row, as one map."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastjac.layers import Layer
from fastjac.plan import Plan

Array = NDArray[Any]

# A merged weight is a sum of products. It may be so many times smaller than the sum of their absolute values:
# of more the rounding would count.
MOST_CANCELLED = 100.0


class Link(NamedTuple):
    """A layer of the chain that the kernels see.

    Attributes
    ----------
    layer : Layer
    given : tuple of Layer
        The layers that it stands for, each affine map in a row of them; empty where it is a given one itself.
    bound : float
        For inputs up to this absolute value, nothing overflows between those layers.
    """

    layer: Layer
    given: tuple[Layer, ...] = ()
    bound: float = 0.0


class _Map(NamedTuple):
    """The weights of one affine map, or of several in a row, in float64."""

    given: tuple[Layer, ...]
    w: Array
    b: Array
    limit: _Limit


class _Limit(NamedTuple):
    """How large the sums in a row of maps get: at most ``slopes * abs(x).max() + offsets``.

    Attributes
    ----------
    slopes, offsets : ndarray, (fan_out,)
    bound : float
        The largest absolute value of inputs for which no sum overflows.
    """

    slopes: Array
    offsets: Array
    bound: float


def merge(layers: Sequence[Layer]) -> tuple[Link, ...]:
    """Return the chain of ``layers``, with affine maps in a row merged.

    That is done where it adds no multiply-adds and costs no accuracy. All weights of the chain must be finite
    for it: an infinite one makes NaN of some sums, and of others when they are taken in another order.
    """
    alone = tuple(Link(layer) for layer in layers)
    affine = any(layer.activation.name == "identity" for layer in layers[:-1])
    if not affine or not all(np.isfinite(array).all() for layer in layers for array in layer[:2]):
        return alone
    maps: list[_Map] = []
    for layer in layers:
        limit = _behind(_at_inputs(layer), (layer,))
        maps.append(_Map((layer,), layer.w.astype(np.float64), layer.b.astype(np.float64), limit))
        while len(maps) > 1 and (both := _merged(*maps[-2:])):
            maps[-2:] = [both]
    if len(maps) == len(layers):
        return alone
    chain = tuple(_link(each) for each in maps)
    return chain if _multiply_adds(chain) <= _multiply_adds(alone) else alone


def _merged(first: _Map, second: _Map) -> _Map | None:
    """Return two maps as one, or None where they are better left two."""
    (fan_in, between), fan_out = first.w.shape, second.b.size
    is_affine = first.given[-1].activation.name == "identity"
    if not is_affine or fan_in * fan_out > between * (fan_in + fan_out) or _may_be_exact(first):
        return None
    with np.errstate(all="ignore"):
        w, b = first.w @ second.w, first.b @ second.w + second.b
        largest, terms = np.abs(w).max(axis=0), np.abs(first.w) @ np.abs(second.w)
    kind = np.finfo(first.given[0].w.dtype)
    cancels = terms.max(axis=0) > MOST_CANCELLED * largest
    loses_digits = (largest < kind.tiny / kind.eps) & second.w.any(axis=0)
    both = _Map(first.given + second.given, w, b, _behind(first.limit, second.given))
    return None if cancels.any() or loses_digits.any() or both.limit.bound < 1 else both


def _may_be_exact(first: _Map) -> bool:
    """Return whether a map's sums may come out without rounding, however much cancels in them.

    So do differences of inputs. The products of a merged map are rounded before they cancel.
    """
    mantissas = np.abs(np.frexp(first.w)[0])
    sums = np.count_nonzero(first.w, axis=0) + (first.b != 0)
    return bool(np.isin(mantissas, (0.0, 0.5)).all() and (sums > 1).any())


def _at_inputs(layer: Layer) -> _Limit:
    """Return the limit in front of a layer, whose inputs may be as large as its numbers get."""
    fan_in = layer.w.shape[0]
    return _Limit(np.ones(fan_in), np.zeros(fan_in), float(np.finfo(layer.w.dtype).max))


def _behind(limit: _Limit, layers: Sequence[Layer]) -> _Limit:
    """Return the limit behind further maps in a row."""
    slopes, offsets, bound = limit
    most = float(np.finfo(layers[0].w.dtype).max) / 4
    with np.errstate(all="ignore"):
        for layer in layers:
            w = np.abs(layer.w.astype(np.float64))
            slopes, offsets = slopes @ w, offsets @ w + np.abs(layer.b)
            bound = min(bound, float(((most - offsets) / slopes).min()))
    return _Limit(slopes, offsets, bound)


def _link(each: _Map) -> Link:
    if len(each.given) == 1:
        return Link(each.given[0])
    last = each.given[-1]
    merged = Layer(each.w.astype(last.w.dtype), each.b.astype(last.b.dtype), last.activation)
    return Link(merged, each.given, each.limit.bound)


def _multiply_adds(chain: Sequence[Link]) -> int:
    sizes = (chain[0].layer.w.shape[0], *(link.layer.b.size for link in chain))
    return Plan(sizes).multiply_adds
