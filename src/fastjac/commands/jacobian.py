"""``fastjac jacobian MODEL INPUTS -o OUT``: writes outputs and Jacobians at given inputs to a file."""

from __future__ import annotations

import argparse
import importlib.util
import shutil
import tempfile
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

import fastjac
from fastjac.commands import CommandError
from fastjac.commands.inputs import read_inputs, read_network
from fastjac.commands.output import check_writable, complete_or_absent, npy_file, npz_member
from fastjac.commands.progress import progress

Array = NDArray[np.floating[Any]]

BLOCK_BYTES = 1 << 22  # of Jacobians between two writes


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("model", metavar="MODEL", type=Path, help="the network's file")
    parser.add_argument(
        "inputs", metavar="INPUTS", type=Path, help=".npy, .npz or .csv: one sample, or one in each row"
    )
    parser.add_argument(
        "-o",
        metavar="OUT",
        dest="out",
        type=Path,
        required=True,
        help="a .npz file takes the arrays y (rows, M) and jac (rows, M, N), without the first axis for one "
        "sample; a .npy file takes jac alone",
    )
    parser.add_argument(
        "--index",
        metavar="M",
        type=int,
        help="write only row M of each Jacobian, counted from 0: jac is (rows, N)",
    )
    parser.add_argument("--plot", metavar="FILE.png", type=Path, help="also draw the Jacobian as a heat map")


def run(args: argparse.Namespace) -> int:
    """Write the results block by block, and print a summary."""
    check_writable(args.out, ".npz", ".npy")
    if args.plot is not None:
        check_writable(args.plot, ".png")
        if importlib.util.find_spec("matplotlib") is None:
            raise CommandError("--plot needs matplotlib: pip install 'fastjac[plot]'")
    net = read_network(args.model)
    if args.index is not None and not 0 <= args.index < net.n_outputs:
        raise CommandError(f"--index is {args.index}, but the network's outputs are 0 to {net.n_outputs - 1}")
    x = read_inputs(args.inputs, net.n_inputs, net.input_names)

    start = time.perf_counter()
    summary = Summary(net, args.index, totals=args.plot is not None)
    with_y = args.out.suffix.lower() == ".npz"
    with complete_or_absent(args.out) as temporary:
        write(temporary, with_y, net, x, args.index, summary)
        seconds = time.perf_counter() - start
        if args.plot is not None:
            from fastjac.commands.plot import heat_map

            names = [str(net.output_names[m]) if net.output_names else str(m) for m in summary.outputs]
            with complete_or_absent(args.plot) as picture:
                heat_map(picture, summary.mean(), summary.count, names)

    print(f"network  {args.model}: {net}")
    print(f"inputs   {args.inputs}: {summary.count} sample{'s' * (summary.count != 1)}")
    size = args.out.stat().st_size
    amount = f"{size / 1e6:.3g} MB" if size < 999.5e6 else f"{size / 1e9:.3g} GB"
    print(f"written  {args.out}: {'y and ' * with_y}jac, {amount} in {seconds:.3g} s")
    print(summary)
    if args.plot is not None:
        print(f"drawn    {args.plot}")
    return 0


class Summary:
    """The largest entry of all Jacobians, and their mean, collected as they pass."""

    def __init__(self, net: fastjac.Network, index: int | None, totals: bool) -> None:
        self.outputs = range(net.n_outputs) if index is None else range(index, index + 1)
        self.count = 0
        self.totals = totals
        self.total = np.zeros((len(self.outputs), net.n_inputs))
        self.total_magnitude = np.zeros_like(self.total)
        self.largest = -1.0
        self.place = (0, 0, 0)

    def add(self, jacobians: Array) -> None:
        """Add ``jacobians`` (rows, outputs, n_inputs)."""
        magnitude = np.abs(jacobians)
        place = np.unravel_index(np.argmax(magnitude), magnitude.shape)  # of the first NaN, if there is one
        if not magnitude[place] <= self.largest and not np.isnan(self.largest):
            self.largest = float(magnitude[place])
            self.place = (self.count + int(place[0]), int(place[1]), int(place[2]))
        self.count += len(jacobians)
        if self.totals:
            self.total += jacobians.sum(axis=0, dtype=np.float64)
            self.total_magnitude += magnitude.sum(axis=0, dtype=np.float64)

    def mean(self) -> Array:
        """Return the only sample's Jacobian, or the mean of its magnitude over many."""
        return self.total if self.count == 1 else self.total_magnitude / max(self.count, 1)

    def __str__(self) -> str:
        """Return a line that names the largest entry."""
        if not self.count:
            return "largest  there are no samples"
        sample, row, column = self.place
        return f"largest  |d y[{self.outputs[row]}] / d x[{column}]| = {self.largest:.4g} in sample {sample}"


def write(
    path: Path, with_y: bool, net: fastjac.Network, x: NDArray[Any], index: int | None, summary: Summary
) -> None:
    """Write ``y`` and ``jac`` at ``x`` to an .npz file, or ``jac`` to an .npy file, a block at a time."""
    rows, leading = np.atleast_2d(x), x.shape[:-1]
    shape = (*leading, net.n_inputs) if index is not None else (*leading, net.n_outputs, net.n_inputs)
    if not with_y:
        with npy_file(path, shape, net.dtype) as file:
            fill(file, None, net, rows, index, summary)
        return
    # The outputs wait in a file without a name, since the archive takes one array after the other.
    with zipfile.ZipFile(path, "w") as archive, tempfile.TemporaryFile(dir=path.parent) as outputs:
        with npz_member(archive, "jac", shape, net.dtype) as member:
            fill(member, outputs, net, rows, index, summary)
        outputs.seek(0)
        with npz_member(archive, "y", (*leading, net.n_outputs), net.dtype) as member:
            shutil.copyfileobj(outputs, member, BLOCK_BYTES)


def fill(
    jac_file: IO[bytes],
    y_file: IO[bytes] | None,
    net: fastjac.Network,
    rows: NDArray[Any],
    index: int | None,
    summary: Summary,
) -> None:
    """Write the numbers of all samples."""
    with progress(len(rows)) as advance:
        for y, jacobians in blocks(net, rows, index):
            jac_file.write(jacobians.data)
            if y_file is not None:
                y_file.write(y.data)
            summary.add(jacobians)
            advance(len(jacobians))


def blocks(net: fastjac.Network, rows: NDArray[Any], index: int | None) -> Iterator[tuple[Array, Array]]:
    """Yield outputs and Jacobians (samples, outputs, N), or their row ``index``, in the same arrays."""
    outputs = net.n_outputs if index is None else 1
    length = max(1, BLOCK_BYTES // (outputs * net.n_inputs * net.dtype.itemsize))
    y = np.empty((min(length, len(rows)), net.n_outputs), net.dtype)
    jac = np.empty((len(y), outputs, net.n_inputs), net.dtype)
    cotangents = np.zeros_like(y)
    cotangents[:, index or 0] = 1
    for start in range(0, len(rows), length):
        x = rows[start : start + length]
        size = len(x)
        if index is None:
            net.value_and_jacobian(x, out=(y[:size], jac[:size]), threads="all")
        else:
            net.vjp(x, cotangents[:size], out=(y[:size], jac[:size, 0]), threads="all")
        yield y[:size], jac[:size]
