"""Pictures in a terminal, as lists of lines."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating[Any]]

SHADES = {True: " \u2591\u2592\u2593\u2588", False: " .+%@"}
BAR = {True: "\u2588", False: "#"}
STRONG, WEAK = 0.5, 0.15  # of the largest magnitude
# In the 256-colour palette: blue, pale blue, white, pale red, red.
BACKGROUNDS = {" --": 33, " - ": 153, " . ": 231, " + ": 217, " ++": 203}


def ink(image: Array, blocks: bool) -> list[str]:
    """Return ``image`` (rows, columns), of values from 0 to 1, in shades two characters wide."""
    shades = SHADES[blocks]
    levels = np.rint(np.clip(image, 0, 1) * (len(shades) - 1)).astype(int)
    return ["".join(shades[level] * 2 for level in row) for row in levels]


def saliency(image: Array, colour: bool) -> list[str]:
    """Return ``image`` (rows, columns), of signed values, as signs three characters wide."""
    scale = float(np.max(np.abs(image))) or 1.0
    return ["".join(_paint(_sign(value / scale), colour) for value in row) for row in image]


def _sign(value: float) -> str:
    if abs(value) < WEAK:
        return " . "
    sign = "+" if value > 0 else "-"
    return f" {sign}{sign}" if abs(value) >= STRONG else f" {sign} "


def _paint(cell: str, colour: bool) -> str:
    return f"\033[38;5;16;48;5;{BACKGROUNDS[cell]}m{cell}\033[0m" if colour else cell


def side_by_side(left: Sequence[str], right: Sequence[str]) -> list[str]:
    """Return both line by line; ``left`` has no colours."""
    width = max(map(len, left)) + 6
    return [f"{a:<{width}}{b}".rstrip() for a, b in zip(left, right, strict=True)]


def probability_bars(probabilities: Array, blocks: bool) -> list[str]:
    """Return a line for each class: its index, its probability, a bar up to 40 characters long."""
    return [
        f"{index:>4}  {p:.4f}  {BAR[blocks] * round(40 * float(p))}".rstrip()
        for index, p in enumerate(probabilities)
    ]
