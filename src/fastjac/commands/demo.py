"""``python -m fastjac``: one digit, the pixels that move its class, a check, and the time."""

from __future__ import annotations

import argparse
import os
import sys
from importlib import resources

import numpy as np

import fastjac
from fastjac.bench.peers.numpy import article
from fastjac.bench.problem import Problem
from fastjac.bench.rounds import alternate
from fastjac.commands.picture import ink, probability_bars, saliency, side_by_side
from fastjac.commands.progress import told_if_slow

SAMPLE = 8  # of digits_samples.npz: an eight


def run(args: argparse.Namespace) -> int:
    """Print the demonstration; exit code 1 if the check finds the Jacobian wrong."""
    data = resources.files("fastjac") / "data"
    with resources.as_file(data / "digits.npz") as path:
        net = fastjac.load(path)
    with resources.as_file(data / "digits_samples.npz") as path, np.load(path) as samples:
        x, label = samples["x"][SAMPLE], int(samples["label"][SAMPLE])
    print(f"fastjac {fastjac.__version__}, with a network that recognises digits:\n{net}\n", flush=True)
    with told_if_slow("compiling for this processor, once"):
        y, jac = net.value_and_jacobian(x)
        report = fastjac.check_jacobian(net, x)
    winner = int(np.argmax(y))
    colour = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    blocks = can_print("\N{FULL BLOCK}")

    left = [f'a digit, labelled "{label}"', "", *ink(x.reshape(8, 8), blocks)]
    right = [f'how each pixel moves the probability of "{winner}"', ""]
    right += saliency(jac[winner].reshape(8, 8), colour)
    print("\n".join(side_by_side(left, right)))
    print("\nmore ink there: ++ raises it much, + raises it, - lowers it, -- lowers it much\n")
    print("\n".join(probability_bars(y, blocks)))

    print(f"\n{report}\n")
    out = np.empty_like(y), np.empty_like(jac)
    by_layers = article(Problem(net.layers, x, ()))
    calls = {"fastjac": lambda: net.value_and_jacobian(x, out=out), "NumPy": by_layers}
    ours, theirs = alternate(calls, rounds=30, seconds=1).values()
    print(f"{'microseconds for output and Jacobian':<41}     min  median")
    for name, timing in (("fastjac", ours), ("NumPy, layer by layer as in the article", theirs)):
        print(f"  {name:<39}{timing.minimum * 1e6:8.2f}{timing.median * 1e6:8.2f}")
    ratios = theirs.minimum / ours.minimum, theirs.median / ours.median
    print(f"  {'times faster':<39}{ratios[0]:8.1f}{ratios[1]:8.1f}")
    return 0 if report.ok else 1


def can_print(text: str) -> bool:
    """Return whether standard output's encoding has ``text``."""
    try:
        text.encode(sys.stdout.encoding or "ascii")
    except UnicodeEncodeError:
        return False
    return True
