"""``fastjac latency MODEL``: how long single calls take, up to the slowest."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path

from fastjac.bench.latency import PERCENTILES, TURN, Latency, latencies, peers
from fastjac.bench.problem import network_problem
from fastjac.commands import one_thread
from fastjac.commands.inputs import read_network
from fastjac.commands.networks import positive
from fastjac.commands.progress import told_if_slow


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("model", metavar="MODEL", type=Path, help="the network's file")
    parser.add_argument("--seconds", type=positive, default=5, help="of calls of each peer (default: 5)")


def run(args: argparse.Namespace) -> int:
    """Measure in a process whose libraries use one thread each, and print the table."""
    if not one_thread.in_force():
        return one_thread.run_again(args.argv)
    net = read_network(args.model)
    problem = network_problem(net)
    try:
        with told_if_slow("compiling fastjac and its peers for this processor"):
            calls = peers(problem)
    except RuntimeError as error:
        print(f"fastjac: {error}", file=sys.stderr)
        return 1
    print(f"network  {args.model}: {net}")
    turns = f"in turns of {TURN * 1000:.0f} ms, on one thread"
    print(f"calls    one at a time for {args.seconds} s each, {turns}\n")
    print(table(latencies(calls, args.seconds)))
    print("\nblocks: Python's memory blocks that a call's result holds; freed temporaries are not counted")
    return 0


def table(measured: Mapping[str, Latency]) -> str:
    """Return a line for each peer, in microseconds a call."""
    width = max(len(name) for name in measured)
    heads = ["p50", "p90", "p99", "p99.9", "max", "p99.9/p50"]
    lines = [f"{'us':{width}}" + "".join(f"{head:>10}" for head in heads) + "   calls  blocks  GC runs"]
    for name, latency in measured.items():
        values = latency.percentiles()
        ratio = values[PERCENTILES.index(99.9)] / values[0]
        lines.append(
            f"{name:{width}}"
            + "".join(f"{value:10.2f}" for value in [*values, ratio])
            + f"{len(latency.times):8}{latency.blocks:8.1f}{latency.collections:9}"
        )
    return "\n".join(lines)
