"""What this machine allows: its multiply-adds and bandwidths, and the least time of a network's Jacobian."""

from __future__ import annotations

import argparse
import functools
import itertools
import math
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import DTypeLike

from fastjac.kernels.caches import cache_sizes
from fastjac.layers import FLOATS, HEADS_ONLY, as_activation
from fastjac.plan import Plan

_MEMORY_BYTES = 128 << 20


class Level(NamedTuple):
    """A cache or the memory: bytes it holds, and bytes a second that one core reads and writes."""

    name: str
    size: float
    read: float
    write: float


class Machine(NamedTuple):
    """One core: multiply-adds a second by dtype's name, and the levels from L1 to the memory."""

    processor: str
    peaks: dict[str, float]
    levels: tuple[Level, ...]

    def level(self, nbytes: float) -> Level:
        """Return the first level that holds ``nbytes``."""
        return next(level for level in self.levels if nbytes <= level.size)


class Pass(NamedTuple):
    """One pass of the computation: its multiply-adds, and the seconds they and its traffic take at least."""

    name: str
    multiply_adds: float
    arithmetic: float
    traffic: float
    level: str

    @property
    def seconds(self) -> float:
        """Return the larger of both, as they overlap."""
        return max(self.arithmetic, self.traffic)


def passes(
    sizes: Sequence[int],
    active: Sequence[float],
    dtype: DTypeLike,
    machine: Machine,
    head: str = "softmax",
    batch: int = 1,
) -> tuple[Pass, ...]:
    """Return the passes over the weights that ``batch`` inputs take at this machine's limit.

    Parameters
    ----------
    sizes : sequence of int
        Inputs, hidden units of each layer, outputs.
    active : sequence of float
        Units of each hidden layer whose slope is not zero.
    dtype : float32 or float64
        Of the network.
    machine : Machine
        From `measure`.
    head : str
        With softmax and log_softmax, one row of the Jacobian follows from the others.
    batch : int
        Inputs, all of which one pass over the weights may serve.

    Notes
    -----
    The passes follow each other, since the slopes come out of the forward pass. In each, arithmetic and
    traffic overlap at best, so that it takes the larger of the two:

    - forward: one multiply-add for each weight from an active unit, and one read of these weights from
      the smallest cache that holds all weights. A single input is bound by that read.
    - backward: the multiply-adds of the cheapest order of the matrix chain over active units, for M - 1
      rows under softmax or log_softmax; the read of the weights it needs; and the write of ``jac`` to
      the smallest level that holds it.

    With few inputs, carrying their tangents along is faster: after a forward pass of the first layer, whose
    weights are its tangents, the other layers take 1 + N multiply-adds for each weight, and one read of it.

    Elementwise work (activations, scaling rows, the spared row) and the call are not counted: they make
    the true limit a little higher.
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

    A level is measured on as many bytes as the geometric mean of its size and that of the level before.
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


def sizes_of(text: str) -> tuple[int, ...]:
    """Return the layer sizes that ``500-100-10`` names."""
    try:
        sizes = tuple(int(part) for part in text.split("-"))
    except ValueError:
        sizes = ()
    if len(sizes) < 2 or min(sizes) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a shape such as 500-100-10")
    return sizes


def positive(text: str) -> int:
    """Return a whole number of at least 1."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is less than 1")
    return number


def share_of(text: str) -> float:
    """Return a share between 0 and 1."""
    share = float(text)
    if not 0 <= share <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not between 0 and 1")
    return share


def activation_of(text: str) -> str:
    """Return the activation ``text`` if it is one."""
    try:
        return str(as_activation(text))
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def add_network_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options that describe random networks."""
    parser.add_argument(
        "--shape", type=sizes_of, nargs="+", default=[(500, 100, 10)], metavar="N-H-M",
        help="inputs, hidden units of each layer, outputs (default: 500-100-10)",
    )  # fmt: skip
    parser.add_argument(
        "--activation", type=activation_of, default="relu", help="of hidden layers (default: relu)"
    )
    parser.add_argument(
        "--head", type=activation_of, default="softmax", help="of the last layer (default: softmax)"
    )
    parser.add_argument(
        "--dtype",
        nargs="+",
        choices=("float64", "float32"),
        default=["float64", "float32"],
        help="default: both",
    )
    parser.add_argument(
        "--batch", type=positive, nargs="+", metavar="B", help="inputs per call (default: a single x)"
    )
    parser.add_argument(
        "--active", type=share_of, default=0.5, metavar="SHARE", help="of the ReLUs, active (default: 0.5)"
    )


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``fastjac limits``."""
    add_network_arguments(parser)


def describe(machine: Machine) -> str:
    """Return the machine's figures as text."""
    lines = [f"{machine.processor}, one core"]
    lines += [
        f"{name:8} {peak / 1e9:6.1f} billion multiply-adds a second" for name, peak in machine.peaks.items()
    ]
    for level in machine.levels:
        size = f"{level.size / 1024:,.0f} KiB" if math.isfinite(level.size) else ""
        lines.append(
            f"{level.name:8} {size:>10}  read {level.read / 1e9:6.1f}, write {level.write / 1e9:6.1f} GB/s"
        )
    return "\n".join(lines)


def run(args: argparse.Namespace) -> int:
    """Print what the machine does and the least time of each network."""
    machine = measure()
    print(describe(machine))
    for sizes in args.shape:
        share = args.active if args.activation == "relu" else 1.0
        active = [share * size for size in sizes[1:-1]]
        for dtype in args.dtype:
            for batch in args.batch or [1]:
                _print_limit(sizes, active, dtype, machine, args.head, batch)
    return 0


def _print_limit(
    sizes: Sequence[int], active: Sequence[float], dtype: str, machine: Machine, head: str, batch: int
) -> None:
    parts = passes(sizes, active, dtype, machine, head, batch)
    total = sum(part.seconds for part in parts) / batch
    name = "-".join(map(str, sizes)) + (f", batch of {batch}, each" if batch > 1 else "")
    print(f"\n{name}, {dtype}: at least {total * 1e6:.2f} us")
    for part in parts:
        print(
            f"  {part.name:8} {part.multiply_adds / batch:13,.0f} multiply-adds"
            f" {part.arithmetic / batch * 1e6:9.2f} us, {part.level} {part.traffic / batch * 1e6:9.2f} us"
        )
