"""``fastjac check MODEL INPUTS``: compares a network's Jacobian with finite differences at given inputs."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

import fastjac
from fastjac.check import JacobianReport
from fastjac.commands import CommandError
from fastjac.commands.inputs import read_inputs, read_network
from fastjac.commands.progress import progress


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
    worst = max(range(len(reports)), key=lambda number: badness(reports[number]))
    agreeing = sum(report.ok for report in reports)
    print(f"network  {args.model}: {net}")
    print(f"inputs   {args.inputs}: the Jacobian agrees at {agreeing} of {len(reports)}")
    print(f"worst    sample {worst}")
    print(reports[worst])
    return 0 if agreeing == len(reports) else 1


def badness(report: JacobianReport) -> tuple[bool, float]:
    """Return the key that sorts reports, worst last: not ok first, then the error over its tolerance."""
    share = report.error / report.tolerance if report.tolerance else 0.0
    return not report.ok, np.inf if np.isnan(share) else share
