"""``fastjac check MODEL INPUTS``: compares a network's Jacobian with finite differences at given inputs."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

import fastjac
from fastjac.commands import CommandError
from fastjac.commands.inputs import read_inputs, read_network
from fastjac.commands.progress import progress
from fastjac.report import of_batch


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("model", metavar="MODEL", type=Path, help="the network's file")
    parser.add_argument(
        "inputs", metavar="INPUTS", type=Path, help=".npy, .npz or .csv: one sample, or one in each row"
    )


def run(args: argparse.Namespace) -> int:
    """Check every sample and print the worst; exit code 1 if a Jacobian is wrong or none could be checked."""
    net = read_network(args.model)
    rows = np.atleast_2d(read_inputs(args.inputs, net.n_inputs, net.input_names))
    if not len(rows):
        raise CommandError(f"{args.inputs} has no samples")
    reports = []
    with progress(len(rows)) as advance:
        for number, x in enumerate(rows):
            try:
                reports.append(fastjac.check_jacobian(net, x))
            except ValueError as error:
                raise CommandError(f"{args.inputs}, sample {number}: {error}") from None
            advance(1)
    report = of_batch(reports)
    print(f"network  {args.model}: {net}")
    print(f"inputs   {args.inputs}: {len(rows)} sample{'s' * (len(rows) != 1)}")
    print(report)
    return 0 if report.ok else 1
