"""The plot of a comparison: a bar for each peer on a log scale, and a line for the limit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

_OURS, _OTHERS = "#d1495b", "#8fa3b0"


def _label(microseconds: float) -> str:
    """Return three digits, more only before the point."""
    digits = 0 if microseconds >= 100 else 1 if microseconds >= 10 else 2
    return f"{microseconds:,.{digits}f} us"


def draw(results: Sequence[dict[str, Any]], path: str) -> None:
    """Write one panel for each network to ``path``, in the format that its ending names."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    heights = [sum("min_us" in peer for peer in figures["peers"]) + 2 for figures in results]
    figure = Figure(figsize=(9, 0.24 * sum(heights) + 0.6 * len(results)), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(len(results), 1, squeeze=False, height_ratios=heights)[:, 0]
    for axes, figures in zip(panels, results, strict=True):
        peers = [peer for peer in figures["peers"] if "min_us" in peer]
        names = [peer["peer"] for peer in peers]
        times = [peer["min_us"] for peer in peers]
        colours = [_OURS if name.startswith("fastjac") else _OTHERS for name in names]
        bars = axes.barh(names, times, color=colours)
        axes.bar_label(bars, [_label(time) for time in times], padding=3, fontsize=8)
        limit = figures["limit_us"]
        axes.axvline(limit, color="black", linestyle="--", linewidth=1, label=f"limit, {_label(limit)}")
        axes.legend(loc="upper right", fontsize=8, frameon=False)
        axes.set_xscale("log")
        axes.set_xlim(min([limit, *times]) / 2, max([limit, *times]) * 8)
        axes.invert_yaxis()
        axes.tick_params(axis="y", labelsize=8)
        batch = f", batch of {figures['batch']}" if figures["batch"] else ""
        axes.set_title(
            f"{figures['shape']} {figures['activation']} {figures['head']}, {figures['dtype']}{batch}",
            loc="left", fontsize=10,
        )  # fmt: skip
    panels[-1].set_xlabel("microseconds for the output and its Jacobian, one thread")
    figure.savefig(path, dpi=150)
