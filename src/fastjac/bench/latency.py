"""Times every single call, and counts the memory blocks and garbage collections that calls cause."""

from __future__ import annotations

import gc
import sys
import time
from array import array
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from fastjac.bench.measure import builders, is_rival, measure, prepare
from fastjac.bench.problem import Call, Problem

ARTICLE = "numpy, as in the article"
PERCENTILES = (50, 90, 99, 99.9, 100)
TURN = 0.05  # Seconds that one peer runs before the next, so that drifts of the machine affect all alike.
_WARM_CALLS = 100


class Latency(NamedTuple):
    """Nanoseconds of each call, `held_blocks` of a call, and the garbage collections in all of them."""

    times: array[int]
    blocks: float
    collections: int

    def percentiles(self) -> list[float]:
        """Return `PERCENTILES` in microseconds."""
        return [float(value) / 1000 for value in np.percentile(self.times, PERCENTILES)]


def peers(problem: Problem) -> dict[str, Call]:
    """Return the calls of fastjac, of the fastest rival here, and of the article's NumPy."""
    calls, _ = prepare(problem, builders([])[0])
    rows = measure(calls, rounds=5, seconds=0.2)
    rivals = [row.peer for row in rows if is_rival(row.peer)]
    wanted = dict.fromkeys(["fastjac", *rivals[:1], *(name for name in rivals if name == ARTICLE)])
    return {name: calls[name] for name in wanted}


def latencies(calls: Mapping[str, Callable[[], object]], seconds: float) -> dict[str, Latency]:
    """Return the `Latency` of each call over ``seconds`` of calls."""
    times = {name: array("q") for name in calls}
    collections = dict.fromkeys(calls, 0)
    blocks = {name: held_blocks(call, _WARM_CALLS) for name, call in calls.items()}
    gc.collect()
    for _ in range(max(1, round(seconds / TURN))):
        for name, call in calls.items():
            before = _collections()
            _turn(call, times[name])
            collections[name] += _collections() - before
    return {name: Latency(times[name], blocks[name], collections[name]) for name in calls}


def held_blocks(call: Callable[[], object], calls: int) -> float:
    """Return how many memory blocks of Python a call's result holds, the mean over ``calls``.

    `sys.getallocatedblocks` counts them: blocks of Python's allocator, such as those of tuples and array
    objects. It sees neither an array's numbers, which NumPy gets elsewhere, nor the temporaries that a call
    frees again.
    """
    for _ in range(calls):
        call()
    gc.collect()  # Python would take new tuples from those that were freed; here it gives them up.
    results: list[object] = [None] * calls
    before = sys.getallocatedblocks()
    for i in range(calls):
        results[i] = call()
    return max(0, sys.getallocatedblocks() - before) / calls


def _turn(call: Callable[[], object], times: array[int]) -> None:
    """Append the nanoseconds of each call of one turn."""
    clock, append = time.perf_counter_ns, times.append
    call()  # brings back to the caches what the peer before drove out
    start = clock()
    end = start + int(TURN * 1e9)
    while start < end:
        start = clock()
        call()
        append(clock() - start)


def _collections() -> int:
    return sum(generation["collections"] for generation in gc.get_stats())
