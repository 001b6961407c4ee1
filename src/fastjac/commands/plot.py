"""Draws Jacobians as heat maps and comparisons as bars, with matplotlib."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from fastjac.bench.compare import title

_OURS, _OTHERS = "#d1495b", "#8fa3b0"


def heat_map(path: Path, values: NDArray[np.floating[Any]], samples: int, outputs: Sequence[str]) -> None:
    """Draw Jacobians as a PNG file ``path``.

    Parameters
    ----------
    path : Path
        The file.
    values : ndarray, (rows, N)
        One sample's Jacobian, or the mean of its magnitude over many.
    samples : int
        The number of samples.
    outputs : sequence of str
        The rows' names.
    """
    single = samples == 1
    finite = np.abs(values[np.isfinite(values)])
    limit = float(finite.max()) if finite.size else 0.0
    figure = Figure(figsize=(9, 1.5 + min(6.0, 0.3 * len(values) + 1)), dpi=120, layout="constrained")
    axes = figure.add_subplot()
    image = axes.imshow(
        values,
        aspect="auto",
        interpolation="nearest",
        cmap="RdBu_r" if single else "viridis",
        vmin=-limit if single else 0.0,
        vmax=limit,
    )
    axes.set_xlabel("input n")
    axes.set_ylabel("output m")
    if len(values) <= 30:
        axes.set_yticks(range(len(values)), outputs)
    axes.set_title("d y[m] / d x[n]" if single else f"mean |d y[m] / d x[n]| of {samples} samples")
    figure.colorbar(image)
    figure.savefig(path, format="png")


def bars(path: Path, results: Sequence[dict[str, Any]]) -> None:
    """Draw a comparison: for each network a bar for each peer on a log scale, and a line for the limit.

    The ending of ``path`` names the format.
    """
    heights = [sum("min_us" in peer for peer in figures["peers"]) + 2 for figures in results]
    figure = Figure(figsize=(9, 0.24 * sum(heights) + 0.6 * len(results)), layout="constrained")
    panels = figure.subplots(len(results), 1, squeeze=False, height_ratios=heights)[:, 0]
    for axes, figures in zip(panels, results, strict=True):
        peers = [peer for peer in figures["peers"] if "min_us" in peer]
        names = [peer["peer"] for peer in peers]
        times = [peer["min_us"] for peer in peers]
        colours = [_OURS if name.startswith("fastjac") else _OTHERS for name in names]
        drawn = axes.barh(names, times, color=colours)
        axes.bar_label(drawn, [_label(time) for time in times], padding=3, fontsize=8)
        limit = figures["limit_us"]
        axes.axvline(limit, color="black", linestyle="--", linewidth=1, label=f"limit, {_label(limit)}")
        axes.legend(loc="upper right", fontsize=8, frameon=False)
        axes.set_xscale("log")
        axes.set_xlim(min([limit, *times]) / 2, max([limit, *times]) * 8)
        axes.invert_yaxis()
        axes.tick_params(axis="y", labelsize=8)
        axes.set_title(title(figures), loc="left", fontsize=10)
    panels[-1].set_xlabel("microseconds for the output and its Jacobian, one thread")
    figure.savefig(path, dpi=150)


def _label(microseconds: float) -> str:
    """Return three digits, more only before the point."""
    digits = 0 if microseconds >= 100 else 1 if microseconds >= 10 else 2
    return f"{microseconds:,.{digits}f} us"
