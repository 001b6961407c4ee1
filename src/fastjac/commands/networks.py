"""The options that describe random networks, for ``fastjac compare`` and ``fastjac limits``."""

from __future__ import annotations

import argparse
from typing import Any

from fastjac.layers import as_activation

DEFAULTS: dict[str, Any] = {
    "shape": [(500, 100, 10)],
    "activation": "relu",
    "head": "softmax",
    "active": 0.5,
}


def sizes(text: str) -> tuple[int, ...]:
    """Return the layer sizes of a shape such as ``500-100-10``."""
    try:
        numbers = tuple(int(part) for part in text.split("-"))
    except ValueError:
        numbers = ()
    if len(numbers) < 2 or min(numbers) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a shape such as 500-100-10")
    return numbers


def positive(text: str) -> int:
    """Return a whole number of at least 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return int(text)


def share(text: str) -> float:
    """Return a number from 0 to 1."""
    number = float(text)
    if not 0 <= number <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not between 0 and 1")
    return number


def activation(text: str) -> str:
    """Return the full name of the activation ``text``."""
    try:
        return str(as_activation(text))
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def add_network_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options that describe random networks."""
    parser.add_argument(
        "--shape",
        type=sizes,
        nargs="+",
        metavar="N-H-M",
        help="inputs, hidden units of each layer, outputs (default: 500-100-10)",
    )
    parser.add_argument(
        "--activation", type=activation, help="activation of the hidden layers (default: relu)"
    )
    parser.add_argument("--head", type=activation, help="activation of the last layer (default: softmax)")
    parser.add_argument(
        "--active", type=share, metavar="SHARE", help="share of the ReLUs that are active (default: 0.5)"
    )
    parser.add_argument("--dtype", nargs="+", choices=("float64", "float32"), help="(default: both)")
    parser.add_argument(
        "--batch", type=positive, nargs="+", metavar="B", help="inputs in a call (default: one, no batch)"
    )
    parser.set_defaults(**DEFAULTS)
