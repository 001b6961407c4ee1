"""A machine's multiply-adds and bandwidths, and the least time of a network's Jacobian."""

from __future__ import annotations

import functools
import itertools
import math
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import DTypeLike

from fastjac.graph.plan import GraphPlan
from fastjac.graph.values import Affine, Value, ordered
from fastjac.kernels.caches import cache_sizes
from fastjac.layers import FLOATS, HEADS_ONLY, as_activation
from fastjac.plan import Plan

_MEMORY_BYTES = 128 << 20


class Level(NamedTuple):
    """A cache or the memory: the bytes it holds, and the bytes a second that one core reads and writes."""

    name: str
    size: float
    read: float
    write: float


class Machine(NamedTuple):
    """One core: multiply-adds a second by the dtype's name, and the levels from L1 to the memory."""

    processor: str
    peaks: dict[str, float]
    levels: tuple[Level, ...]

    def level(self, nbytes: float) -> Level:
        """Return the first level that holds ``nbytes``."""
        return next(level for level in self.levels if nbytes <= level.size)


class Pass(NamedTuple):
    """One pass of the computation: its multiply-adds, and the least seconds for them and for its traffic."""

    name: str
    multiply_adds: float
    arithmetic: float
    traffic: float
    level: str

    @property
    def seconds(self) -> float:
        """Return the larger of both, since they overlap."""
        return max(self.arithmetic, self.traffic)


def passes(
    sizes: Sequence[int],
    active: Sequence[float],
    dtype: DTypeLike,
    machine: Machine,
    head: str = "softmax",
    batch: int = 1,
) -> tuple[Pass, ...]:
    """Return the passes over the weights for ``batch`` inputs, at this machine's limit.

    Parameters
    ----------
    sizes : sequence of int
        Inputs, hidden units of each layer, outputs.
    active : sequence of float
        The number of units in each hidden layer whose slope is not zero.
    dtype : float32 or float64
        The network's.
    machine : Machine
        From `measure`.
    head : str
        With softmax and log_softmax, one row of the Jacobian follows from the other rows.
    batch : int
        The number of inputs. One pass over the weights may serve them all.

    Notes
    -----
    The passes follow each other, since the backward pass needs the slopes of the forward pass. In each pass
    arithmetic and traffic overlap at best, so it takes the larger of the two:

    - forward: one multiply-add for each weight from an active unit, and one read of these weights from
      the smallest cache that holds all weights. That read bounds a single input.
    - backward: the multiply-adds of the cheapest order of the matrix chain over active units, for M - 1
      rows under softmax or log_softmax; one read of the weights in it; and the write of ``jac`` to
      the smallest level that holds it.

    With few inputs, carrying their tangents along is faster. The weights of the first layer are its
    tangents, so its forward pass is all; the other layers take 1 + N multiply-adds for each weight, and one
    read of it.

    The limit leaves out elementwise work (activations, scaling rows, the spared row) and the call. The true
    limit is a little higher.
    """
    dtype = np.dtype(dtype)
    peak = machine.peaks[dtype.name]
    inputs = (sizes[0], *active)
    spared = as_activation(head).name in HEADS_ONLY
    forward_macs = sum(a * b for a, b in zip(inputs, sizes[1:], strict=True))
    backward_macs = Plan((*inputs, sizes[-1] - spared)).multiply_adds  # type: ignore[arg-type]
    backward_weights = sum(a * b for a, b in zip(inputs, (*active, sizes[-1]), strict=True))
    if sizes[-1] == spared:
        backward_weights = 0  # The only row is zero.

    weights = sum((a + 1) * b for a, b in itertools.pairwise(sizes)) * dtype.itemsize
    home = machine.level(weights)
    jac = batch * sizes[0] * sizes[-1] * dtype.itemsize
    target = machine.level(jac)
    read, write = backward_weights * dtype.itemsize / home.read, jac / target.write
    weights_from, jac_to = f"weights from {home.name}", f"jac to {target.name}"
    forward_read = forward_macs * dtype.itemsize / home.read

    def part(name: str, macs: float, read: float, write: float) -> Pass:
        level = weights_from if read >= write else jac_to
        return Pass(name, batch * macs, batch * macs / peak, max(read, write), level)

    separate = part("forward", forward_macs, forward_read, 0), part("backward", backward_macs, read, write)
    ways: list[tuple[Pass, ...]] = [separate]
    if len(sizes) > 2:
        first = sizes[0] * sizes[1]
        others = forward_macs - first
        others_read = (others + sizes[0] * active[0]) * dtype.itemsize / home.read
        ways.append(
            (
                part("first layer", first, first * dtype.itemsize / home.read, 0),
                part("other layers", (1 + sizes[0]) * others, others_read, write),
            )
        )
    return min(ways, key=lambda parts: sum(each.seconds for each in parts))


def limit_seconds(
    sizes: Sequence[int],
    active: Sequence[float],
    dtype: DTypeLike,
    machine: Machine,
    head: str = "softmax",
    batch: int = 1,
) -> float:
    """Return the least seconds for the values and Jacobians of ``batch`` inputs; see `passes`."""
    return sum(part.seconds for part in passes(sizes, active, dtype, machine, head, batch))


def graph_limit_seconds(value: Value, dtype: DTypeLike, machine: Machine, batch: int = 1) -> float:
    """Return the least seconds for the values and Jacobians of ``batch`` inputs of a graph.

    As in `passes`: the multiply-adds of a forward pass and of the plan, all units active; each weight is read
    once in both, from the smallest cache that holds all weights.
    """
    dtype, plan = np.dtype(dtype), GraphPlan(value)
    operations = [each.operation for each in ordered(value)]
    numbers = sum(each.w.size for each in operations if isinstance(each, Affine))
    peak, home = machine.peaks[dtype.name], machine.level(numbers * dtype.itemsize)
    read = numbers * dtype.itemsize / home.read
    jac = batch * plan.sizes[0] * plan.sizes[-1] * dtype.itemsize
    written = jac / machine.level(jac).write
    forward = max(batch * numbers / peak, read)
    return forward + max(batch * plan.multiply_adds / peak, read if plan.multiply_adds else 0.0, written)


def processor() -> str:
    """Return the processor's name."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


@functools.cache
def measure() -> Machine:
    """Measure this machine on the calling thread, in about two seconds.

    Each level is measured on an array whose size is the geometric mean of its own and the previous one's.
    """
    from fastjac.bench import machine

    peaks = {dtype.name: machine.multiply_adds_per_second(dtype) for dtype in FLOATS}
    levels = []
    before = 0
    for number, size in enumerate(cache_sizes(), 1):
        nbytes = math.isqrt(before * size) or size // 2
        levels.append(
            Level(f"L{number}", size, machine.read_bandwidth(nbytes), machine.write_bandwidth(nbytes))
        )
        before = size
    nbytes = max(4 * before, _MEMORY_BYTES)
    levels.append(Level("memory", math.inf, machine.read_bandwidth(nbytes), machine.write_bandwidth(nbytes)))
    return Machine(processor(), peaks, tuple(levels))
