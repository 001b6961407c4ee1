"""``fastjac jacobian MODEL INPUTS -o OUT``: writes outputs and Jacobians at given inputs to a file."""

from __future__ import annotations

import argparse
import importlib.util
import re
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
from fastjac.arguments import few, place
from fastjac.commands import CommandError
from fastjac.commands.inputs import read_inputs, read_network
from fastjac.commands.output import check_writable, complete_or_absent, npy_file, npz_member
from fastjac.commands.progress import progress
from fastjac.commands.strongest import Strongest

Array = NDArray[np.floating[Any]]

BLOCK_BYTES = 1 << 22  # of Jacobians between two writes
PICTURES = (".png", ".svg", ".pdf")
MOST_PICTURES = 100  # in one file


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
        metavar="OUTPUT",
        help="write only the row of one output of each Jacobian, so that jac is (rows, N): its name, or its "
        "number, counted from 0; a name goes first",
    )
    parser.add_argument(
        "--top",
        metavar="K",
        type=int,
        help="also print the K strongest inputs of each of the first samples",
    )
    parser.add_argument(
        "--plot",
        metavar="FILE",
        type=Path,
        help="also draw the Jacobian as a heat map, or the mean of its magnitude over many samples; as the "
        "ending says, .png, .svg or .pdf",
    )
    parser.add_argument(
        "--image",
        metavar="HEIGHTxWIDTH",
        type=image_shape,
        help="with --plot, draw the derivatives of each output as a picture instead, such as 8x8: red where "
        "positive, blue where negative, and the mean over many samples",
    )


def run(args: argparse.Namespace) -> int:
    """Write the results block by block, and print a summary."""
    check_writable(args.out, ".npz", ".npy")
    if args.plot is not None:
        check_writable(args.plot, *PICTURES)
        if importlib.util.find_spec("matplotlib") is None:
            raise CommandError("--plot needs matplotlib: pip install 'fastjac[plot]'")
    if args.top is not None and args.top < 1:
        raise CommandError(f"--top is {args.top}, expected at least 1")
    net = read_network(args.model)
    index = None if args.index is None else output_number(args.index, net)
    if args.image is not None:
        check_image(args.image, args.plot, net, index)
    x = read_inputs(args.inputs, net.n_inputs, net.input_names)

    start = time.perf_counter()
    summary = Summary(net, index, totals=args.plot is not None, top=args.top)
    with_y = args.out.suffix.lower() == ".npz"
    with complete_or_absent(args.out) as temporary:
        write(temporary, with_y, net, x, index, summary)
        seconds = time.perf_counter() - start
        if args.plot is not None:
            with complete_or_absent(args.plot) as picture:
                draw(picture, args.plot.suffix.lower()[1:], args.image, net, x, summary)

    print(f"network  {args.model}: {net}")
    print(f"inputs   {args.inputs}: {summary.count} sample{'s' * (summary.count != 1)}")
    size = args.out.stat().st_size
    amount = f"{size / 1e6:.3g} MB" if size < 999.5e6 else f"{size / 1e9:.3g} GB"
    print(f"written  {args.out}: {'y and ' * with_y}jac, {amount} in {seconds:.3g} s")
    if index is not None:
        print(f"row      {index}: y[{place(index, net.output_names)}]")
    print(summary)
    if args.plot is not None:
        print(f"drawn    {args.plot}")
    if summary.strongest is not None:
        print(summary.strongest)
    return 0


def image_shape(text: str) -> tuple[int, int]:
    """Return height and width of ``8x8``."""
    match = re.fullmatch("([0-9]{1,9})x([0-9]{1,9})", text)
    if match is None:
        raise argparse.ArgumentTypeError(f"expected height and width, such as 8x8, got {text!r}")
    return int(match[1]), int(match[2])


def output_number(text: str, net: fastjac.Network) -> int:
    """Return the number of the output that ``--index`` gives by name or number."""
    names = net.output_names or ()
    if names.count(text) > 1:
        raise CommandError(f"--index is {text}, but several outputs have this name: give a number")
    if text in names:
        return names.index(text)
    if re.fullmatch("[0-9]{1,9}", text) and int(text) < net.n_outputs:
        return int(text)
    called = f", or {few(names)}" if names else ""
    raise CommandError(f"--index is {text}, but the network's outputs are 0 to {net.n_outputs - 1}{called}")


def check_image(shape: tuple[int, int], plot: Path | None, net: fastjac.Network, index: int | None) -> None:
    """Raise CommandError if no pictures of this shape can be drawn."""
    given, pixels = f"--image is {shape[0]}x{shape[1]}", shape[0] * shape[1]
    if plot is None:
        raise CommandError("--image needs --plot FILE, which the pictures are drawn in")
    if pixels != net.n_inputs:
        raise CommandError(f"{given}, {pixels} pixels, but the network has {net.n_inputs} inputs")
    if index is None and net.n_outputs > MOST_PICTURES:
        raise CommandError(
            f"{given}: at most {MOST_PICTURES} pictures go in one file, and the network has {net.n_outputs} "
            "outputs: choose one with --index"
        )


def draw(
    path: Path,
    kind: str,
    shape: tuple[int, int] | None,
    net: fastjac.Network,
    x: NDArray[Any],
    summary: Summary,
) -> None:
    """Draw the Jacobian of the only sample, or a mean over many, as a heat map or as pictures."""
    from fastjac.commands import plot

    outputs = [net.output_names[m] if net.output_names else f"y[{m}]" for m in summary.outputs]
    if shape is None:
        plot.heat_map(path, kind, summary.mean(), summary.count, outputs, net.input_names)
    else:
        sample = np.atleast_2d(x)[0].astype(np.float64) if summary.count == 1 else None
        plot.pictures(path, kind, summary.signed_mean(), summary.count, outputs, shape, sample)


class Summary:
    """The largest entry of all Jacobians, their means and strongest inputs, collected as they pass."""

    def __init__(self, net: fastjac.Network, index: int | None, totals: bool, top: int | None = None) -> None:
        self.net = net
        self.outputs = range(net.n_outputs) if index is None else range(index, index + 1)
        self.strongest = None if top is None else Strongest(net, self.outputs, top)
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
        if self.strongest is not None:
            self.strongest.add(jacobians)
        if self.totals:
            self.total += jacobians.sum(axis=0, dtype=np.float64)
            self.total_magnitude += magnitude.sum(axis=0, dtype=np.float64)

    def mean(self) -> Array:
        """Return the only sample's Jacobian, or the mean of its magnitude over many."""
        return self.total if self.count == 1 else self.total_magnitude / max(self.count, 1)

    def signed_mean(self) -> Array:
        """Return the mean over all samples."""
        return self.total / max(self.count, 1)

    def __str__(self) -> str:
        """Return a line that names the largest entry."""
        if not self.count:
            return "largest  there are no samples"
        sample, row, column = self.place
        output = place(self.outputs[row], self.net.output_names)
        entry = f"|d y[{output}] / d x[{place(column, self.net.input_names)}]|"
        return f"largest  {entry} = {self.largest:.4g} in sample {sample}"


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
