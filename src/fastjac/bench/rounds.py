"""Times calls in alternating rounds, so that drifts of the machine affect all of them alike."""

from __future__ import annotations

import gc
import itertools
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

_ROUND_SECONDS = 0.002


class Timing(NamedTuple):
    """Each round's seconds a call, the mean over ``calls`` calls."""

    rounds: list[float]
    calls: int

    @property
    def minimum(self) -> float:
        """Return the fastest round's seconds a call."""
        return min(self.rounds)

    @property
    def median(self) -> float:
        """Return the median round's seconds a call."""
        return statistics.median(self.rounds)


def elapsed(call: Callable[[], Any], calls: int) -> float:
    """Return the seconds that ``calls`` calls take."""
    repeats = itertools.repeat(None, calls)
    start = time.perf_counter_ns()
    for _ in repeats:
        call()
    return (time.perf_counter_ns() - start) * 1e-9


def _calibrate(call: Callable[[], Any]) -> int:
    """Return how many calls fill a round."""
    estimate = min(elapsed(call, 1) for _ in range(3))
    if estimate < _ROUND_SECONDS:
        calls = max(1, int(0.5 * _ROUND_SECONDS / estimate))
        estimate = elapsed(call, calls) / calls
    return max(1, round(_ROUND_SECONDS / estimate))


def alternate(calls: Mapping[str, Callable[[], Any]], rounds: int, seconds: float) -> dict[str, Timing]:
    """Return each call's `Timing` over at most ``rounds`` rounds.

    A round lasts about 2 ms, or one call where that takes longer, after one call that is not timed and
    brings back what the others drove out of the caches. A peer that has used up ``seconds`` after three
    rounds sits out the rest. The garbage collector is off. A call that has an attribute ``repeats`` counts
    as so many.
    """
    numbers = {name: _calibrate(call) for name, call in calls.items()}
    repeats = {name: getattr(call, "repeats", 1) for name, call in calls.items()}
    timings: dict[str, Timing] = {name: Timing([], numbers[name] * repeats[name]) for name in calls}
    spent = dict.fromkeys(calls, 0.0)
    was_enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        for number in range(rounds):
            for name, call in calls.items():
                if number >= 3 and spent[name] >= seconds:
                    continue
                spent[name] += elapsed(call, 1)
                taken = elapsed(call, numbers[name])
                timings[name].rounds.append(taken / timings[name].calls)
                spent[name] += taken
    finally:
        if was_enabled:
            gc.enable()
    return timings
