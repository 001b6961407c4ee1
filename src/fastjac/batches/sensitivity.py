"""Summaries of a network's Jacobians at many samples, none of which is kept."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastjac.arguments import as_samples, place, real_array
from fastjac.batches import threads
from fastjac.batches.calls import Calls
from fastjac.batches.chunks import LONGEST, Cost, Rows, chunks, helpers, rows

Array = NDArray[Any]
Reduction = Literal["mean_abs", "class_mean", "frobenius", "spectral"]

MEANS = ("mean_abs", "class_mean")
NORMS = ("frobenius", "spectral")
# Jacobians that are made before they are reduced: as many as stay in the cache, and not so few that the
# kernels have too few samples to take together, if there is room.
BLOCK_BYTES = 1 << 20
FEW, FEW_BYTES = 16, 1 << 25
# A sum has so many parts, each over samples of its own: any number of threads adds the same numbers in
# the same order.
PARTS = range(8, 65)
PARTS_BYTES = 1 << 26


def sensitivity(calls: Calls, x: ArrayLike, reduce: str, scale: ArrayLike | None, n_threads: int) -> Array:
    """Return what `Network.sensitivity` says."""
    if reduce not in (*MEANS, *NORMS):
        raise ValueError(f"reduce is {reduce!r}, expected one of {', '.join((*MEANS, *NORMS))}")
    samples = as_samples(x, "x", calls.sizes["n"], calls.names["n"])
    factors = None if scale is None else _factors(scale, calls.sizes["n"], calls.names["n"])
    lead = samples.shape[:-1]
    room = _Room(calls, rows(samples, lead, calls.dtype))
    count = samples.size // calls.sizes["n"]
    if reduce in NORMS:
        return _norms(room, reduce, factors, count, n_threads).reshape(lead)
    if not count:
        raise ValueError(f"x has shape {samples.shape}: there is no mean over no samples")
    mean = _mean(room, reduce, count, n_threads)
    return mean if factors is None else mean * factors


def _factors(scale: ArrayLike, size: int, names: Sequence[str] | None) -> Array:
    """Return ``scale`` as float64 (size,), positive and finite."""
    factors = real_array(scale, "scale", names).astype(np.float64)
    if factors.shape != (size,):
        raise ValueError(f"scale has shape {factors.shape}, expected ({size},)")
    wrong = ~(np.isfinite(factors) & (factors > 0))
    if wrong.any():
        n = int(wrong.argmax())
        raise ValueError(f"scale[{place(n, names)}] is {factors[n]}, expected positive and finite numbers")
    return factors


class _Room(threading.local):
    """Where the calling thread makes Jacobians: a block of samples at a time."""

    def __init__(self, calls: Calls, read: Rows) -> None:
        self.calls, self._read = calls, read
        self.n, self.m = calls.contexts.sizes
        size = self.n * self.m * calls.dtype.itemsize
        fitting = max(1, min(FEW, FEW_BYTES // size), BLOCK_BYTES // size)
        self._block = 1 << (fitting.bit_length() - 1)
        self._out: tuple[Array, Array] | None = None

    def samples(self, start: int, stop: int) -> Iterator[tuple[int, Array]]:
        """Yield the number of the first of some samples, and these samples (block, N)."""
        for first in range(start, stop, self._block):
            yield first, self._read(first, min(first + self._block, stop))

    def jacobians(self, start: int, stop: int) -> Iterator[tuple[int, Array]]:
        """Yield the number of the first of some samples, and their Jacobians (block, M, N)."""
        if self._out is None:
            shape, dtype = (self._block, self.m), self.calls.dtype
            self._out = np.empty(shape, dtype), np.empty((*shape, self.n), dtype)
        for first, x in self.samples(start, stop):
            y, jac = (array[: len(x)] for array in self._out)
            self.calls.call("value_and_jacobian", x, (y, jac))
            yield first, jac


def _norms(room: _Room, name: str, factors: Array | None, count: int, n_threads: int) -> Array:
    """Return a norm of each sample's Jacobian, (count,), its columns times ``factors`` (N,)."""
    norm = {"frobenius": _square_norms, "spectral": _spectral_norms}[name]
    result = np.empty(count)
    shorter, longer = sorted((room.n, room.m))
    cost = room.calls.costs["value_and_jacobian"]
    if name == "spectral":
        cost = cost.plus(shorter**2 * (longer + 4 * shorter))

    def work(start: int, stop: int) -> None:
        for first, jac in room.jacobians(start, stop):
            scaled = jac if factors is None else jac * factors
            result[first : first + len(jac)] = norm(scaled)

    size = room.n * room.calls.dtype.itemsize
    threads.run(work, chunks(count, cost, size, n_threads), helpers(count, cost, n_threads))
    return result


def _square_norms(jac: Array) -> Array:
    """Return the squared Frobenius norms (block,) of ``jac`` (block, M, N)."""
    flat = jac.reshape(len(jac), -1).astype(np.float64, copy=False)
    return np.asarray(np.einsum("bk,bk->b", flat, flat))


def _spectral_norms(jac: Array) -> Array:
    """Return the largest singular values (block,) of ``jac`` (block, M, N).

    Each is the square root of the largest eigenvalue of J J' or J' J, whichever is smaller.
    """
    with np.errstate(all="ignore"):
        jac = jac.astype(np.float64)
        largest = np.abs(jac).max(axis=(1, 2))
        finite = np.isfinite(largest) & (largest > 0)
        # A power of two near the largest entry: no square overflows, none that counts underflows.
        exponent = np.where(finite, np.frexp(largest)[1], 0)
        scaled = np.where(finite[:, None, None], np.ldexp(jac, -exponent[:, None, None]), 0.0)
        rows, cols = jac.shape[1:]
        gram = scaled @ scaled.mT if rows <= cols else scaled.mT @ scaled
        norms = np.ldexp(np.sqrt(np.linalg.eigvalsh(gram)[:, -1].clip(min=0.0)), exponent)
    return np.asarray(np.where(finite, norms, largest))


def _mean(room: _Room, name: str, count: int, n_threads: int) -> Array:
    """Return a mean over all Jacobians, (M, N)."""
    calls, by_class = room.calls, name == "class_mean"
    cost = calls.costs["value_and_jacobian"]
    if by_class:
        cost = calls.costs["vjp"].plus(calls.costs["value"].multiply_adds)
    totals, share = _parts(room.m * room.n, count, cost)
    totals = totals.reshape(-1, room.m, room.n)
    counts = np.zeros(totals.shape[:2], np.int64)

    def work(start: int, stop: int) -> None:
        part = start // share % len(totals)
        if not by_class:
            for _, jac in room.jacobians(start, stop):
                totals[part] += np.abs(jac, out=jac).sum(axis=0, dtype=np.float64)
            return
        for _, x in room.samples(start, stop):
            (y,) = calls.call("value", x, None)
            classes = y.argmax(axis=1)
            cotangents = np.zeros_like(y)
            cotangents[np.arange(len(y)), classes] = 1
            gradients = calls.call("vjp", x, cotangents, None)[1]
            for m in np.unique(classes):
                chosen = gradients[classes == m]
                totals[part, m] += chosen.sum(axis=0, dtype=np.float64)
                counts[part, m] += len(chosen)
            if np.isnan(y).any():
                totals[part] = np.nan

    # In turns of one share for each part, so that no two threads add to the same part.
    turn = len(totals) * share
    for start in range(0, count, turn):
        stop = min(start + turn, count)
        shares = ((first, min(first + share, stop)) for first in range(start, stop, share))
        threads.run(work, shares, helpers(stop - start, cost, n_threads))
    with np.errstate(all="ignore"):
        divisor = counts.sum(axis=0)[:, None] if by_class else count
        mean: Array = totals.sum(axis=0) / divisor
    return mean


def _parts(size: int, count: int, cost: Cost) -> tuple[Array, int]:
    """Return zeros (parts, size) to add to, and how many samples in a row belong to the same part."""
    group = cost.group
    groups = -(-count // group)
    most = max(PARTS[0], min(PARTS[-1], PARTS_BYTES // (8 * size)))
    n_parts = max(1, min(most, groups))
    share = min(-(-groups // n_parts), max(1, LONGEST // 8 // cost.multiply_adds // group)) * group
    return np.zeros((n_parts, size)), share
