"""The networks of a comparison, and its figures as they go into a JSON file."""

from __future__ import annotations

import itertools
import math
import platform
from collections.abc import Iterator, Sequence
from importlib import metadata
from typing import Any

import fastjac
from fastjac.bench import limits
from fastjac.bench.measure import Row
from fastjac.bench.problem import IN_A_CALL, MANY, VALUE_ALONE, GraphProblem, Problem
from fastjac.graph.texts import summary
from fastjac.kernels.merging import merge

_PACKAGES = (
    *("numpy", "numba", "autograd", "jax", "torch", "tensorflow", "tensorflow-cpu", "casadi"),
    *("onnx", "onnxruntime", "onnx-ad"),
)

# In the grid, more rounds are for points where a peer comes nearer than this ratio.
CLEARLY_SLOWER = 1.5
_GRID = {
    "N": (4, 16, 64, 256, 784, 2048),
    "H": (8, 32, 128, 512, 1024),
    "M": (1, 2, 10, 100),
}
# The peers that come nearest on the grid, and those that do so on a part of it.
_GRID_PEERS = ("numpy, optimised", "plain C", "jax jacrev, closed", "jax by hand, closed")
_GRID_PEER_OF_FEW_INPUTS = "jax jacfwd, closed"
_GRID_PEER_OF_SMALL_NETWORKS = "casadi"
_SMALL = 20_000  # H (N + M)


def grid_shapes() -> Iterator[tuple[int, ...]]:
    """Return an iterator over the grid's shapes ``(N, H, M)``."""
    return itertools.product(*_GRID.values())


def grid_peers(shape: Sequence[int]) -> tuple[str, ...]:
    """Return the peers that the grid measures at the shape ``(N, H, M)``."""
    n, h, m = shape
    few = (_GRID_PEER_OF_FEW_INPUTS,) if n < m else ()
    small = (_GRID_PEER_OF_SMALL_NETWORKS,) if h * (n + m) < _SMALL else ()
    return (*_GRID_PEERS, *few, *small)


def figures(
    problem: Problem, rows: Sequence[Row], machine: limits.Machine, model: str | None = None
) -> dict[str, Any]:
    """Return the figures of one network, in microseconds an input; ``model`` names its file."""
    inputs = problem.batch or 1

    def limit_of(count: int) -> float:
        return _limit(problem, machine, count) / count

    limit = limit_of(inputs)
    ours = next(row.timing.minimum for row in rows if row.peer == "fastjac" and row.timing)
    return {
        "model": model,
        "shape": "-".join(map(str, problem.sizes)),
        "activation": _hidden(problem),
        "head": "" if isinstance(problem, GraphProblem) else str(problem.head),
        "dtype": problem.dtype.name,
        "batch": problem.batch,
        "active": problem.active,
        "limit_us": limit * 1e6,
        "peers": [
            _figures_of_peer(row, inputs, ours, limit_of(MANY) if row.peer.endswith(IN_A_CALL) else limit)
            for row in rows
        ],
    }


def _limit(problem: Problem, machine: limits.Machine, count: int) -> float:
    """Return the least seconds for so many inputs."""
    if isinstance(problem, GraphProblem):
        return limits.graph_limit_seconds(problem.value, problem.dtype, machine, count)
    sizes, active = _merged(problem)
    return limits.limit_seconds(sizes, active, problem.dtype, machine, str(problem.head), count)


def _hidden(problem: Problem) -> str:
    """Return the names of the hidden activations, or of all operations of a graph."""
    if isinstance(problem, GraphProblem):
        return summary(problem.value)
    return ", ".join(dict.fromkeys(str(layer.activation) for layer in problem.layers[:-1]))


def _merged(problem: Problem) -> tuple[list[int], list[float]]:
    """Return the sizes and the active units of the chain whose affine maps in a row are merged."""
    sizes, last = [problem.sizes[0]], -1
    active: list[float] = []
    for link in merge(problem.layers):
        last += len(link.given) or 1
        sizes.append(problem.sizes[last + 1])
        active += problem.active[last : last + 1]
    return sizes, active


def _figures_of_peer(row: Row, inputs: int, ours: float, limit: float) -> dict[str, Any]:
    if row.timing is None:
        return {"peer": row.peer, "note": row.note}
    found = {
        "peer": row.peer,
        "min_us": row.timing.minimum / inputs * 1e6,
        "median_us": row.timing.median / inputs * 1e6,
        "ratio": row.timing.minimum / ours,
        "rounds": len(row.timing.rounds),
        "calls_per_round": row.timing.calls,
    }
    if not row.peer.endswith(VALUE_ALONE):  # the limit is that of the value and the Jacobian
        found["limit_share"] = limit * inputs / row.timing.minimum
    return found


def title(figures: dict[str, Any]) -> str:
    """Return a line that names one network."""
    parts = [figures["shape"], figures["activation"], figures["head"]]
    network = " ".join(part for part in parts if part)
    if figures["model"]:
        network = f"{figures['model']}: {network}"
    return f"{network}, {figures['dtype']}" + (f", batch of {figures['batch']}" if figures["batch"] else "")


def versions() -> dict[str, str]:
    """Return the versions of fastjac and of the installed packages of its peers."""
    found = {"fastjac": fastjac.__version__}
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def document(machine: limits.Machine, results: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the contents of the JSON file: the machine, the versions and the figures of each network."""
    levels = [
        {**level._asdict(), "size": level.size if math.isfinite(level.size) else None}
        for level in machine.levels
    ]
    return {
        "processor": machine.processor,
        "platform": platform.platform(),
        "python": platform.python_version(),
        "versions": versions(),
        "multiply_adds_per_second": machine.peaks,
        "levels": levels,
        "results": results,
    }
