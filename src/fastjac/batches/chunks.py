"""Splits a batch into chunks that are short enough to stop between and to share out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastjac.batches.threads import Chunk
from fastjac.kernels.contexts import Weights

Array = NDArray[Any]
# Gives the samples from start to stop, (stop - start, n).
Rows = Callable[[int, int], Array]

# A chunk begins at a multiple of this many samples, unless these are too much for one chunk: the kernels
# take up to this many together, counted from the first that they get.
GROUP = 32
# Work is counted in multiply-adds, of which a core does 2 to 60 in a nanosecond.
HELD = 1 << 16  # One sample that takes less keeps the interpreter's lock: handing it over takes as long.
SHORTEST = 5_000_000  # A thread takes some ten microseconds to get a chunk.
LONGEST = 500_000_000  # Ctrl-C waits for the chunks that are being worked on.
HEAVIEST = 4 * LONGEST  # of a group: less would forgo what taking samples together gains
LONGEST_BYTES = 4 << 20  # of inputs: where they are converted, that is done chunk by chunk.


def sample_costs(packed: Weights) -> tuple[int, int]:
    """Return a sample's multiply-adds without and with the Jacobian, thirty for each activation."""
    passes = 1000 + 2 * sum(layer.w.size + 30 * layer.b.size for layer in packed.layers)
    return passes, passes + packed.plan.multiply_adds


def call_terms(cost: int) -> tuple[int, bool]:
    """Return the most samples of one call, and whether that of one sample lets other threads run."""
    return max(LONGEST // cost, group_of(cost)), cost > HELD


def group_of(cost: int) -> int:
    """Return the number of samples whose multiples all chunks begin at: `GROUP` or a fraction of it."""
    group = GROUP
    while group > 1 and group * cost > HEAVIEST:
        group //= 2
    return group


def chunks(samples: int, cost: int, size: int, n_threads: int) -> Iterator[Chunk]:
    """Yield ``(start, stop)`` of consecutive chunks.

    Parameters
    ----------
    samples : int
        In the batch.
    cost : int
        Multiply-adds of one sample.
    size : int
        Bytes of one sample's inputs.
    n_threads : int
        Many threads get long chunks first and short ones in the end, so that all finish together.
    """
    group = group_of(cost)
    longest = max(min(LONGEST // cost, LONGEST_BYTES // size) // group, 1) * group
    shortest = min(-(-SHORTEST // (cost * group)) * group, longest)
    start = 0
    while start < samples:
        share = (samples - start) // (2 * n_threads) // group * group
        length = longest if n_threads == 1 else max(shortest, min(longest, share))
        yield start, min(start + length, samples)
        start += length


def helpers(samples: int, cost: int, n_threads: int) -> int:
    """Return how many threads beside the calling one have something to do."""
    groups = -(-samples // group_of(cost))
    return max(min(n_threads, samples * cost // SHORTEST, groups), 1) - 1


def rows(array: Array, lead: tuple[int, ...], dtype: np.dtype[Any]) -> Rows:
    """Return what reads samples of ``array`` (*lead, n) in ``dtype``, converting no others."""
    if array.flags.c_contiguous or array.ndim <= 2:
        table = array.reshape(-1, array.shape[-1])
        return lambda start, stop: plain(np.require(table[start:stop], dtype, ["C", "A"]), dtype)

    def gather(start: int, stop: int) -> Array:
        index = np.unravel_index(np.arange(start, stop), lead)
        return plain(np.require(array[index], dtype, ["C", "A"]), dtype)

    return gather


def plain(array: Array, dtype: np.dtype[Any]) -> Array:
    """Return an ndarray, of no subclass, with this very ``dtype`` in place of one equal to it."""
    return np.asarray(array).view(dtype)
