"""``fastjac compare``: times of fastjac and of every installed peer, in one process on one thread."""

from __future__ import annotations

import argparse
import contextlib
import errno
import json
import math
import platform
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from fastjac.bench import compare, limits
from fastjac.bench.measure import builders, is_rival, measure, prepare
from fastjac.bench.problem import Problem, network_problem, random_problem
from fastjac.commands import CommandError, one_thread
from fastjac.commands.inputs import read_network
from fastjac.commands.limits import describe
from fastjac.commands.networks import DEFAULTS, add_network_arguments, positive
from fastjac.commands.progress import told_if_slow


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument(
        "model",
        metavar="MODEL",
        nargs="?",
        type=Path,
        help="measure the network in this file, at random inputs (default: a random network)",
    )
    add_network_arguments(parser)
    parser.add_argument(
        "--peers", nargs="+", default=[], metavar="NAME", help="beginnings of peers' names (default: all)"
    )
    parser.add_argument("--rounds", type=positive, default=50, help="most rounds (default: 50)")
    parser.add_argument(
        "--seconds",
        type=float,
        default=1.0,
        help="for each peer and network, after three rounds (default: 1)",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures to FILE")
    parser.add_argument(
        "--plot", type=Path, metavar="FILE", help="draw the figures on a log scale (needs matplotlib)"
    )
    parser.add_argument(
        "--grid", action="store_true", help="measure 120 shapes instead of --shape, and print the worst"
    )


def run(args: argparse.Namespace) -> int:
    """Check the arguments and measure in a process whose libraries use one thread each."""
    if args.model is not None:
        unused = [name for name, default in DEFAULTS.items() if getattr(args, name) != default]
        unused += ["grid"] * args.grid
        if unused:
            raise CommandError(f"--{unused[0]} describes random networks, but {args.model} is given")
    for path in (args.json, args.plot):
        if path is not None and not path.absolute().parent.is_dir():
            raise FileNotFoundError(errno.ENOENT, "No such folder", str(path.parent))
    return measure_all(args) if one_thread.in_force() else one_thread.run_again(args.argv)


def measure_all(args: argparse.Namespace) -> int:
    """Measure, print, and write the files that ``args`` ask for."""
    networks = problems(args)
    try:
        builders(args.peers)
    except ValueError as error:
        raise CommandError(f"--peers: {error}") from None
    machine = limits.measure()
    print(describe(machine))
    versions = ", ".join(" ".join(pair) for pair in compare.versions().items())
    print(f"Python {platform.python_version()}, {versions}", flush=True)
    results: list[dict[str, Any]] = []
    for problem in networks:
        selected, margin = args.peers, math.inf
        if args.grid:
            selected, margin = selected or compare.grid_peers(problem.sizes), compare.CLEARLY_SLOWER
        peers, missing = builders(selected)
        # The first network compiles what the others use again.
        telling = (
            contextlib.nullcontext()
            if results
            else told_if_slow("compiling fastjac and its peers for this processor")
        )
        try:
            with telling:
                calls, failed = prepare(problem, peers)
        except RuntimeError as error:
            print(f"fastjac: {error}", file=sys.stderr)
            return 1
        rows = [*measure(calls, args.rounds, args.seconds, margin), *failed, *missing]
        results.append(compare.figures(problem, rows, machine, args.model and str(args.model)))
        print(grid_line(results[-1]) if args.grid else "\n" + table(results[-1]), flush=True)
        if args.json:
            args.json.write_text(json.dumps(compare.document(machine, results), indent=1) + "\n")
    if args.grid:
        print("\n".join(worst(results)))
    if args.plot:
        from fastjac.commands.plot import bars

        bars(args.plot, results)
    return 0


def problems(args: argparse.Namespace) -> Iterator[Problem]:
    """Return an iterator over the networks that ``args`` ask for."""
    batches = args.batch or [None]
    if args.model is not None:
        net = read_network(args.model)
        return (
            network_problem(net, dtype, batch) for dtype in args.dtype or [net.dtype] for batch in batches
        )
    return (
        random_problem(shape, args.activation, args.head, dtype, batch, args.active)
        for shape in (compare.grid_shapes() if args.grid else args.shape)
        for dtype in args.dtype or ("float64", "float32")
        for batch in batches
    )


def table(figures: dict[str, Any]) -> str:
    """Return one network's figures as text."""
    sizes = figures["shape"].split("-")[1:-1]
    active = ", ".join(f"{share:.0f} of {size}" for share, size in zip(figures["active"], sizes, strict=True))
    lines = [
        f"{compare.title(figures)}{', each' * bool(figures['batch'])}; "
        f"active units: {active or 'no hidden layer'}; limit {figures['limit_us']:.2f} us",
        f"{'':42} {'min us':>10} {'median us':>10} {'ratio':>8} {'% of limit':>10}",
    ]
    for peer in figures["peers"]:
        line = f"{peer['peer']:42} "
        if "note" in peer:
            line += peer["note"]
        else:
            line += f"{peer['min_us']:10.2f} {peer['median_us']:10.2f} {peer['ratio']:8.2f}"
        if "limit_share" in peer:
            line += f" {100 * peer['limit_share']:10.1f}"
        lines.append(line)
    return "\n".join(lines)


def grid_line(figures: dict[str, Any]) -> str:
    """Return fastjac's time, and how much longer the fastest library and plain C take."""
    ours = next(peer for peer in figures["peers"] if peer["peer"] == "fastjac")
    parts = [f"{figures['shape']:>14} {figures['dtype']} {ours['min_us']:9.2f} us"]
    for plain_c in (False, True):
        peer = _fastest(figures, plain_c)
        if peer:
            parts.append(f"{peer['ratio']:6.2f} {peer['peer']}")
    return "  ".join(parts)


def worst(results: Sequence[dict[str, Any]]) -> list[str]:
    """Return the lines that end a grid: the points where a library and plain C come nearest."""
    lines = []
    for plain_c, kind in ((False, "libraries"), (True, "plain C")):
        points = [
            (peer["ratio"], i) for i, figures in enumerate(results) if (peer := _fastest(figures, plain_c))
        ]
        if points:
            losses = sum(ratio < 1 for ratio, _ in points)
            lines.append(
                f"worst against {kind}, {losses} of {len(points)} lost: {grid_line(results[min(points)[1]])}"
            )
    return lines


def _fastest(figures: dict[str, Any], plain_c: bool) -> dict[str, Any] | None:
    """Return the fastest library that computes the Jacobian, or plain C."""
    for peer in figures["peers"]:
        if "ratio" in peer and is_rival(peer["peer"]) and (peer["peer"] == "plain C") == plain_c:
            found: dict[str, Any] = peer
            return found
    return None
