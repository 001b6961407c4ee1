"""Measures fastjac against every installed peer, in one process on one thread."""

from __future__ import annotations

import argparse
import errno
import itertools
import json
import math
import os
import platform
import subprocess
import sys
from collections.abc import Iterator, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import fastjac
from fastjac.bench import limits
from fastjac.bench.measure import Row, measure
from fastjac.bench.problem import Problem, random_problem

# One thread each. The libraries read these when they are loaded, hence a fresh interpreter.
ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "VECLIB_MAXIMUM_THREADS": "1",
    "NPROC": "1",
    "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false",
    "CUDA_VISIBLE_DEVICES": "",
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "TORCHINDUCTOR_COMPILE_THREADS": "1",
}
_PACKAGES = ("numpy", "numba", "autograd", "jax", "torch", "tensorflow", "tensorflow-cpu", "casadi")

_GRID = {
    "N": (4, 16, 64, 256, 784, 2048),
    "H": (8, 32, 128, 512, 1024),
    "M": (1, 2, 10, 100),
}
# More rounds are for points where a peer comes nearer.
_CLEARLY_SLOWER = 1.5
# The peers that come nearest on the grid, and one more where inputs are fewer than outputs.
_GRID_PEERS = ("numpy, optimised", "plain C", "jax jacrev, closed", "jax by hand, closed")
_GRID_PEERS_FORWARD = (*_GRID_PEERS, "jax jacfwd, closed")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``fastjac compare``."""
    limits.add_network_arguments(parser)
    parser.add_argument(
        "--peers", nargs="+", default=[], metavar="NAME", help="beginnings of names (default: all)"
    )
    parser.add_argument("--rounds", type=limits.positive, default=50, help="at most (default: 50)")
    parser.add_argument(
        "--seconds", type=float, default=1.0, help="per peer and network, after three rounds (default: 1)"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures")
    parser.add_argument(
        "--plot", type=Path, metavar="FILE", help="draw them on a log scale (needs matplotlib)"
    )
    parser.add_argument(
        "--grid", action="store_true", help="over 120 sizes instead of --shape, and print the worst point"
    )


def run(args: argparse.Namespace) -> int:
    """Measure in a child process that has `ENVIRONMENT` from its start.

    What the libraries write to standard error is shown only if the child fails.
    """
    for path in (args.json, args.plot):
        if path is not None and not path.absolute().parent.is_dir():
            raise FileNotFoundError(errno.ENOENT, "No such folder", str(path.parent))
    keys = ("shape", "activation", "head", "dtype", "batch", "active", "peers", "rounds", "seconds", "grid")
    options = {key: getattr(args, key) for key in keys}
    options["json"], options["plot"] = (path and str(path.absolute()) for path in (args.json, args.plot))
    command = [sys.executable, "-m", __name__, json.dumps(options)]
    done = subprocess.run(command, env={**os.environ, **ENVIRONMENT}, stderr=subprocess.PIPE, text=True)
    if done.returncode:
        print(done.stderr, file=sys.stderr, end="")
    return done.returncode


def main(options: dict[str, Any]) -> int:
    """Measure, print, and write the files that ``options`` ask for."""
    machine = limits.measure()
    print(limits.describe(machine))
    print(f"Python {platform.python_version()},", ", ".join(" ".join(pair) for pair in versions().items()))
    results = []
    for problem in problems(options):
        results.append(result(problem, options, machine))
        print(_grid_line(results[-1]) if options["grid"] else "\n" + table(results[-1]), flush=True)
        if options["json"]:
            _write_json(Path(options["json"]), machine, results)
    if options["grid"]:
        print("\n".join(_worst(results)))
    if options["plot"]:
        from fastjac.bench.chart import draw

        draw(results, options["plot"])
    return 0


def problems(options: dict[str, Any]) -> Iterator[Problem]:
    """Yield the random networks that ``options`` ask for."""
    shapes = itertools.product(*_GRID.values()) if options["grid"] else options["shape"]
    for shape in shapes:
        for dtype in options["dtype"]:
            for batch in options["batch"] or [None]:
                yield random_problem(
                    shape, options["activation"], options["head"], dtype, batch, options["active"]
                )


def result(problem: Problem, options: dict[str, Any], machine: limits.Machine) -> dict[str, Any]:
    """Return the figures of one network as they go into the JSON file, in microseconds an input."""
    selected, margin = options["peers"], math.inf
    if options["grid"]:
        usual = _GRID_PEERS_FORWARD if problem.sizes[0] < problem.sizes[-1] else _GRID_PEERS
        selected, margin = selected or usual, _CLEARLY_SLOWER
    rows = measure(problem, selected, options["rounds"], options["seconds"], margin)
    inputs = problem.batch or 1
    limit = limits.limit_seconds(
        problem.sizes, problem.active, problem.dtype, machine, str(problem.head), inputs
    )
    ours = next(row.timing.minimum for row in rows if row.peer == "fastjac" and row.timing)
    return {
        "shape": "-".join(map(str, problem.sizes)),
        "activation": str(problem.layers[0].activation),
        "head": str(problem.head),
        "dtype": problem.dtype.name,
        "batch": problem.batch,
        "active": problem.active,
        "limit_us": limit / inputs * 1e6,
        "peers": [_figures(row, inputs, ours, limit) for row in rows],
    }


def _figures(row: Row, inputs: int, ours: float, limit: float) -> dict[str, Any]:
    if row.timing is None:
        return {"peer": row.peer, "note": row.note}
    return {
        "peer": row.peer,
        "min_us": row.timing.minimum / inputs * 1e6,
        "median_us": row.timing.median / inputs * 1e6,
        "ratio": row.timing.minimum / ours,
        "limit_share": limit / row.timing.minimum,
        "rounds": len(row.timing.rounds),
        "calls_per_round": row.timing.calls,
    }


def table(figures: dict[str, Any]) -> str:
    """Return one network's figures as text."""
    batch = f", batch of {figures['batch']}, each" if figures["batch"] else ""
    sizes = figures["shape"].split("-")[1:-1]
    active = ", ".join(f"{share:.0f} of {size}" for share, size in zip(figures["active"], sizes, strict=True))
    lines = [
        f"{figures['shape']} {figures['activation']} {figures['head']}, {figures['dtype']}{batch}; "
        f"active units: {active or 'no hidden layer'}; limit {figures['limit_us']:.2f} us",
        f"{'':42} {'min us':>10} {'median us':>10} {'ratio':>8} {'% of limit':>10}",
    ]
    for peer in figures["peers"]:
        if "note" in peer:
            lines.append(f"{peer['peer']:42} {peer['note']}")
        else:
            lines.append(
                f"{peer['peer']:42} {peer['min_us']:10.2f} {peer['median_us']:10.2f}"
                f" {peer['ratio']:8.2f} {100 * peer['limit_share']:10.1f}"
            )
    return "\n".join(lines)


def _fastest(figures: dict[str, Any], plain_c: bool) -> dict[str, Any] | None:
    """Return the fastest library, or plain C."""
    return next(
        (
            peer
            for peer in figures["peers"]
            if "ratio" in peer
            and not peer["peer"].startswith("fastjac")
            and (peer["peer"] == "plain C") == plain_c
        ),
        None,
    )


def _grid_line(figures: dict[str, Any]) -> str:
    ours = next(peer for peer in figures["peers"] if peer["peer"] == "fastjac")
    parts = [f"{figures['shape']:>14} {figures['dtype']} {ours['min_us']:9.2f} us"]
    for plain_c in (False, True):
        peer = _fastest(figures, plain_c)
        if peer:
            parts.append(f"{peer['ratio']:6.2f} {peer['peer']}")
    return "  ".join(parts)


def _worst(results: Sequence[dict[str, Any]]) -> list[str]:
    lines = []
    for plain_c, kind in ((False, "libraries"), (True, "plain C")):
        points = [
            (peer["ratio"], i) for i, figures in enumerate(results) if (peer := _fastest(figures, plain_c))
        ]
        if points:
            losses = sum(ratio < 1 for ratio, _ in points)
            lines.append(
                f"worst against {kind}, {losses} of {len(points)} lost: {_grid_line(results[min(points)[1]])}"
            )
    return lines


def versions() -> dict[str, str]:
    """Return the installed packages of peers with their versions."""
    found = {"fastjac": fastjac.__version__}
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def _write_json(path: Path, machine: limits.Machine, results: Sequence[dict[str, Any]]) -> None:
    levels = [
        {**level._asdict(), "size": level.size if math.isfinite(level.size) else None}
        for level in machine.levels
    ]
    document = {
        "processor": machine.processor,
        "platform": platform.platform(),
        "python": platform.python_version(),
        "versions": versions(),
        "multiply_adds_per_second": machine.peaks,
        "levels": levels,
        "results": results,
    }
    path.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(main(json.loads(sys.argv[1])))
