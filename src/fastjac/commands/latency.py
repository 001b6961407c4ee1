"""``fastjac latency MODEL``: how long single calls take, the slowest of them above all."""

from __future__ import annotations

import argparse
import gc
import json
import os
import subprocess
import sys
import time
from array import array
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import fastjac
from fastjac.bench.compare import ENVIRONMENT
from fastjac.bench.limits import positive
from fastjac.bench.measure import builders, measure
from fastjac.bench.problem import Problem
from fastjac.commands.inputs import read_network
from fastjac.kernels.allocations import allocations

ARTICLE = "numpy, as in the article"
_PERCENTILES = (50, 90, 99, 99.9, 100)
_TURN = 0.05  # Seconds that one peer runs before the next: drifts of the machine meet all alike.
_WARM_CALLS = 100


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("model", metavar="MODEL", type=Path, help="the network's file")
    parser.add_argument("--seconds", type=positive, default=5, help="of calls of each peer (default: 5)")


def run(args: argparse.Namespace) -> int:
    """Measure in a child process whose libraries run one thread each."""
    read_network(args.model)  # What is wrong with it is told here.
    command = [sys.executable, "-m", __name__, json.dumps([str(args.model.absolute()), args.seconds])]
    done = subprocess.run(command, env={**os.environ, **ENVIRONMENT}, stderr=subprocess.PIPE, text=True)
    if done.returncode:
        print(done.stderr, file=sys.stderr, end="")
    return done.returncode


class Latency(NamedTuple):
    """Nanoseconds of each call, allocations a call, and the garbage collections in all of them."""

    times: array[int]
    allocations: float
    collections: int

    def percentiles(self) -> list[float]:
        """Return the percentiles that the table shows, in microseconds."""
        return [float(value) / 1000 for value in np.percentile(self.times, _PERCENTILES)]


def main(model: str, seconds: float) -> int:
    """Print the table."""
    net = fastjac.load(model)
    x = np.random.default_rng(0).standard_normal(net.n_inputs).astype(net.dtype)
    problem = Problem(net.layers, x, ())
    calls = peers(problem)
    print(f"network  {model}: {net}")
    print(
        f"calls    one at a time for {seconds:g} s each, in turns of {_TURN * 1000:.0f} ms, on one thread\n"
    )
    print(table(latencies(calls, seconds)))
    return 0


def peers(problem: Problem) -> dict[str, Callable[[], object]]:
    """Return the calls of fastjac, of the fastest other peer here, and of the article's NumPy."""
    rows = measure(problem, [], rounds=5, seconds=0.2)
    others = [row.peer for row in rows if row.timing and not row.peer.startswith("fastjac")]
    wanted = ["fastjac", *others[:1], *(name for name in others[1:] if name == ARTICLE)]
    built = {name: build for name, build in builders(wanted) if not isinstance(build, str)}
    return {name: built[name](problem) for name in wanted}


def latencies(calls: dict[str, Callable[[], object]], seconds: float) -> dict[str, Latency]:
    """Return the `Latency` of each call."""
    times = {name: array("q") for name in calls}
    collections = dict.fromkeys(calls, 0)
    counts = {}
    for name, call in calls.items():
        for _ in range(_WARM_CALLS):
            call()
        counts[name] = allocations(call, _WARM_CALLS)
    gc.collect()
    for _ in range(max(1, round(seconds / _TURN))):
        for name, call in calls.items():
            before = _collections()
            _turn(call, times[name])
            collections[name] += _collections() - before
    return {name: Latency(times[name], counts[name], collections[name]) for name in calls}


def _turn(call: Callable[[], object], times: array[int]) -> None:
    """Append the nanoseconds of each call of one turn."""
    clock, append = time.perf_counter_ns, times.append
    call()  # brings back to the caches what the peer before drove out
    start = clock()
    end = start + int(_TURN * 1e9)
    while start < end:
        start = clock()
        call()
        append(clock() - start)


def _collections() -> int:
    return sum(generation["collections"] for generation in gc.get_stats())


def table(measured: dict[str, Latency]) -> str:
    """Return one line for each peer, in microseconds a call."""
    width = max(len(name) for name in measured)
    heads = ["p50", "p90", "p99", "p99.9", "max", "p99.9/p50"]
    lines = [f"{'us':{width}}" + "".join(f"{head:>10}" for head in heads) + "   calls  allocations  GC runs"]
    for name, latency in measured.items():
        values = latency.percentiles()
        ratio = values[_PERCENTILES.index(99.9)] / values[0]
        lines.append(
            f"{name:{width}}"
            + "".join(f"{value:10.2f}" for value in [*values, ratio])
            + f"{len(latency.times):8}{latency.allocations:13.1f}{latency.collections:9}"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    arguments: Any = json.loads(sys.argv[1])
    sys.exit(main(*arguments))
