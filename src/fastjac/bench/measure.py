"""Builds every peer for a problem, checks its answer, and times the peers that are right."""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from fastjac.bench.problem import TOLERANCES, VALUE_ALONE, Call, NotApplicableError, Problem, disagreement
from fastjac.bench.rounds import Timing, alternate

# How a peer's name begins -> its module.
FAMILIES = {
    "fastjac": "fastjac",
    "numpy": "numpy",
    "plain C": "c",
    "jax": "jax",
    "torch": "torch",
    "tensorflow": "tensorflow",
    "casadi": "casadi",
    "autograd": "autograd",
    "onnxruntime": "onnxruntime",
    "onnx-ad": "onnx_ad",
}

_FEW_ROUNDS = 5

Builder = Callable[[Problem], Call]


class Row(NamedTuple):
    """A peer's name, and its timing or why there is none."""

    peer: str
    timing: Timing | None
    note: str = ""


def builders(selected: Sequence[str]) -> tuple[dict[str, Builder], list[Row]]:
    """Return the builders of the selected peers, and rows that say why others are missing.

    Parameters
    ----------
    selected : sequence of str
        Beginnings of names; empty for all. fastjac itself is always there.

    Raises
    ------
    ValueError
        If no peer's name begins with one of ``selected``.
    """
    found: dict[str, Builder] = {}
    missing: list[Row] = []
    unknown = set(selected)
    for family, module in FAMILIES.items():
        wanted = {name for name in selected if name.startswith(family) or family.startswith(name)}
        if selected and not wanted and family != "fastjac":
            continue
        try:
            peers = importlib.import_module(f"fastjac.bench.peers.{module}").PEERS
        except Exception as error:
            missing.append(Row(family, None, _why_missing(error)))
            unknown -= wanted
            continue
        for name, build in peers.items():
            beginnings = {beginning for beginning in wanted if name.startswith(beginning)}
            unknown -= beginnings
            if not selected or beginnings or name == "fastjac":
                found[name] = build
    if unknown:
        names = ", ".join(repr(name) for name in selected if name in unknown)
        raise ValueError(f"no peer's name begins with {names}; names begin with {', '.join(FAMILIES)}")
    return found, missing


def _why_missing(error: Exception) -> str:
    if not isinstance(error, ModuleNotFoundError):
        return f"failed to import: {_one_line(error)}"
    return f"{error.name} is not installed" if error.name else str(error)


def prepare(problem: Problem, peers: Mapping[str, Builder]) -> tuple[dict[str, Call], list[Row]]:
    """Return the calls whose answer is right, and rows that say what is wrong with the others.

    Raises
    ------
    RuntimeError
        If fastjac itself fails or is wrong.
    """
    calls: dict[str, Call] = {}
    missing = []
    for name, build in peers.items():
        note = ""
        try:
            call = build(problem)
            error = disagreement(problem, *call())
        except NotApplicableError as reason:
            note = f"not applicable: {reason}"
        except Exception as failure:
            note = f"failed: {_one_line(failure)}"
        else:
            if error <= TOLERANCES[problem.dtype.name]:
                calls[name] = call
            else:
                note = f"wrong: its largest error is {error:.1e} of the largest entry"
        if note:
            missing.append(Row(name, None, note))
        if note and name == "fastjac":
            raise RuntimeError(f"fastjac {note}")
    return calls, missing


def measure(calls: Mapping[str, Call], rounds: int, seconds: float, margin: float = math.inf) -> list[Row]:
    """Return fastjac's rows, the peers' from the fastest on, then those of the value alone.

    Where every peer takes more than ``margin`` times as long as fastjac, `_FEW_ROUNDS` are enough.
    """
    first = rounds if margin == math.inf else min(rounds, _FEW_ROUNDS)
    timings = alternate(calls, first, seconds)
    nearest = min((timing.minimum for name, timing in timings.items() if is_rival(name)), default=math.inf)
    if first < rounds and nearest <= margin * timings["fastjac"].minimum:
        timings = alternate(calls, rounds, seconds)

    def place(name: str) -> tuple[bool, bool, float]:
        return name.endswith(VALUE_ALONE), not name.startswith("fastjac"), timings[name].minimum

    return [Row(name, timings[name]) for name in sorted(timings, key=place)]


def is_rival(peer: str) -> bool:
    """Return whether ``peer`` computes the Jacobian and is not fastjac."""
    return not peer.startswith("fastjac") and not peer.endswith(VALUE_ALONE)


def _one_line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:160]
