"""Splits a batch into chunks that are short enough to stop between and to share out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastjac.batches.threads import Chunk
from fastjac.kernels.contexts import Weights

Array = NDArray[Any]
# Gives the samples from start to stop, (stop - start, n).
Rows = Callable[[int, int], Array]

# Work is counted in multiply-adds, of which a core does 2 to 60 in a nanosecond.
HELD = 1 << 16  # One sample that takes less keeps the interpreter's lock: handing it over takes as long.
SHORTEST = 5_000_000  # A thread takes some ten microseconds to get a chunk.
LONGEST = 500_000_000  # Ctrl-C waits for the chunks that are being worked on.
LONGEST_BYTES = 4 << 20  # of inputs: where they are converted, that is done chunk by chunk.


class Cost(NamedTuple):
    """Multiply-adds of one sample, and how many samples the kernels take at a time, from the first on."""

    multiply_adds: int
    together: int = 1

    @property
    def group(self) -> int:
        """The number of samples whose multiples all chunks begin at.

        Samples that are too much for one chunk are not taken together, in whatever chunk they are.
        """
        return self.together if self.together * self.multiply_adds <= LONGEST else 1

    @property
    def longest(self) -> int:
        """The most samples of one chunk."""
        return max(LONGEST // self.multiply_adds // self.group, 1) * self.group

    @property
    def shared_from(self) -> int:
        """The least samples that a second thread may help with."""
        return -(-2 * SHORTEST // self.multiply_adds)

    def plus(self, multiply_adds: int) -> Cost:
        """Return the cost where there is more to do for each sample."""
        return self._replace(multiply_adds=self.multiply_adds + multiply_adds)


def sample_costs(packed: Weights) -> tuple[Cost, Cost]:
    """Return a sample's costs without and with the Jacobian, thirty multiply-adds for each activation."""
    passes = 1000 + 2 * sum(layer.w.size + 30 * layer.b.size for layer in packed.layers)
    both = passes + packed.plan.multiply_adds
    return Cost(passes, packed.together), Cost(both, packed.together)


def call_terms(cost: Cost) -> tuple[int, bool]:
    """Return the most samples of one call, and whether that of one sample lets other threads run."""
    return cost.longest, cost.multiply_adds > HELD


def chunks(samples: int, cost: Cost, size: int, n_threads: int) -> Iterator[Chunk]:
    """Yield ``(start, stop)`` of consecutive chunks.

    Parameters
    ----------
    samples : int
        In the batch.
    cost : Cost
        Of one sample.
    size : int
        Bytes of one sample's inputs.
    n_threads : int
        Many threads get long chunks first and short ones in the end, so that all finish together.
    """
    group = cost.group
    longest = min(cost.longest, max(LONGEST_BYTES // size // group, 1) * group)
    shortest = min(-(-SHORTEST // (cost.multiply_adds * group)) * group, longest)
    start = 0
    while start < samples:
        share = (samples - start) // (2 * n_threads) // group * group
        length = longest if n_threads == 1 else max(shortest, min(longest, share))
        yield start, min(start + length, samples)
        start += length


def helpers(samples: int, cost: Cost, n_threads: int) -> int:
    """Return how many threads beside the calling one have something to do."""
    groups = -(-samples // cost.group)
    return max(min(n_threads, samples * cost.multiply_adds // SHORTEST, groups), 1) - 1


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
