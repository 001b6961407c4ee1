"""What ``python -m fastjac`` shows: one digit, what moves its class, how well that holds and how fast."""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable
from importlib import resources

import numpy as np

import fastjac
from fastjac.bench.peers.numpy import article
from fastjac.bench.problem import Problem
from fastjac.commands.picture import ink, probability_bars, saliency, side_by_side
from fastjac.commands.progress import told_if_slow

SAMPLE = 8  # of digits_samples.npz: an eight
ROUNDS = 30
CALLS = 200  # in each round


def run(args: argparse.Namespace) -> int:
    """Print the demonstration; exit code 1 if the Jacobian does not hold."""
    data = resources.files("fastjac") / "data"
    with resources.as_file(data / "digits.npz") as path:
        net = fastjac.load(path)
    with resources.as_file(data / "digits_samples.npz") as path, np.load(path) as samples:
        x, label = samples["x"][SAMPLE], int(samples["label"][SAMPLE])
    print(f"fastjac {fastjac.__version__}, with a network that recognises digits:\n{net}\n", flush=True)
    with told_if_slow("compiling for this processor, once"):
        y, jac = net.value_and_jacobian(x)
    winner = int(np.argmax(y))
    colour = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    blocks = can_print("\N{FULL BLOCK}")

    left = [f'a digit, labelled "{label}"', "", *ink(x.reshape(8, 8), blocks)]
    right = [f'how each pixel moves the probability of "{winner}"', ""]
    right += saliency(jac[winner].reshape(8, 8), colour)
    print("\n".join(side_by_side(left, right)))
    print("\nmore ink there: ++ raises it much, + raises it, - lowers it, -- lowers it much\n")
    print("\n".join(probability_bars(y, blocks)))

    report = fastjac.check_jacobian(net, x)
    print(f"\n{report}\n")
    out = np.empty_like(y), np.empty_like(jac)
    ours, theirs = alternate(lambda: net.value_and_jacobian(x, out=out), article(Problem(net.layers, x, ())))
    print(f"{'microseconds for output and Jacobian':<41}     min  median")
    for name, times in (("fastjac", ours), ("NumPy, layer by layer as in the article", theirs)):
        print(f"  {name:<39}{min(times):8.2f}{statistics.median(times):8.2f}")
    ratios = min(theirs) / min(ours), statistics.median(theirs) / statistics.median(ours)
    print(f"  {'times faster':<39}{ratios[0]:8.1f}{ratios[1]:8.1f}")
    return 0 if report.ok else 1


def can_print(text: str) -> bool:
    """Return whether standard output's encoding has ``text``."""
    try:
        text.encode(sys.stdout.encoding or "ascii")
    except UnicodeEncodeError:
        return False
    return True


def alternate(*functions: Callable[[], object]) -> tuple[list[float], ...]:
    """Return for each function the microseconds of a call in each of many alternating rounds."""
    times: tuple[list[float], ...] = tuple([] for _ in functions)
    for _ in range(ROUNDS):
        for function, row in zip(functions, times, strict=True):
            start = time.perf_counter()
            for _ in range(CALLS):
                function()
            row.append((time.perf_counter() - start) / CALLS * 1e6)
    return times
