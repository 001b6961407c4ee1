"""``fastjac limits``: what this machine allows, and the least time of a network's Jacobian on it."""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence

from fastjac.bench import limits
from fastjac.commands.networks import add_network_arguments


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    add_network_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Print the machine's figures and each network's limit."""
    machine = limits.measure()
    print(describe(machine))
    for sizes in args.shape:
        share = args.active if args.activation == "relu" else 1.0
        active = [share * size for size in sizes[1:-1]]
        for dtype in args.dtype or ("float64", "float32"):
            for batch in args.batch or [1]:
                _print_limit(sizes, active, dtype, machine, args.head, batch)
    return 0


def describe(machine: limits.Machine) -> str:
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


def _print_limit(
    sizes: Sequence[int], active: Sequence[float], dtype: str, machine: limits.Machine, head: str, batch: int
) -> None:
    parts = limits.passes(sizes, active, dtype, machine, head, batch)
    total = sum(part.seconds for part in parts) / batch
    name = "-".join(map(str, sizes)) + (f", batch of {batch}, each" if batch > 1 else "")
    print(f"\n{name}, {dtype}: at least {total * 1e6:.2f} us")
    for part in parts:
        print(
            f"  {part.name:12} {part.multiply_adds / batch:13,.0f} multiply-adds"
            f" {part.arithmetic / batch * 1e6:9.2f} us, {part.level} {part.traffic / batch * 1e6:9.2f} us"
        )
