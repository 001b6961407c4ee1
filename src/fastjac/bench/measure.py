"""Builds every peer for a problem, checks its answer, and times those that are right."""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from fastjac.bench.problem import TOLERANCES, Call, NotApplicableError, Problem, disagreement
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
}

_FEW_ROUNDS = 5


class Row(NamedTuple):
    """A peer's name, and its timing or why there is none."""

    peer: str
    timing: Timing | None
    note: str


def builders(selected: Sequence[str]) -> Iterator[tuple[str, Callable[[Problem], Call] | str]]:
    """Yield the names of the selected peers with their builders, or with why they are missing.

    Parameters
    ----------
    selected : sequence of str
        Beginnings of names; empty for all. fastjac itself is always there.
    """
    for name in selected:
        if not any(name.startswith(family) or family.startswith(name) for family in FAMILIES):
            yield name, "no peer's name begins so"
    for family, module in FAMILIES.items():
        wanted = [name for name in selected if name.startswith(family) or family.startswith(name)]
        if selected and not wanted and family != "fastjac":
            continue
        try:
            peers = importlib.import_module(f"fastjac.bench.peers.{module}").PEERS
        except ModuleNotFoundError as error:
            yield family, "not installed" if error.name else str(error)
        except Exception as error:
            yield family, f"failed to import: {_one_line(error)}"
        else:
            for name, build in peers.items():
                if not selected or name == "fastjac" or name.startswith(tuple(wanted)):
                    yield name, build


def prepare(problem: Problem, selected: Sequence[str]) -> tuple[dict[str, Call], list[Row]]:
    """Return the calls whose answer is right, and rows that say what is wrong with the others."""
    calls: dict[str, Call] = {}
    missing = []
    for name, build in builders(selected):
        if isinstance(build, str):
            missing.append(Row(name, None, build))
            continue
        try:
            call = build(problem)
            error = disagreement(problem, *call())
        except NotApplicableError as reason:
            missing.append(Row(name, None, f"not applicable: {reason}"))
        except Exception as failure:
            missing.append(Row(name, None, f"failed: {_one_line(failure)}"))
        else:
            if error <= TOLERANCES[problem.dtype.name]:
                calls[name] = call
            else:
                note = f"wrong: its largest error is {error:.1e} of the largest entry"
                missing.append(Row(name, None, note))
    return calls, missing


def measure(
    problem: Problem, selected: Sequence[str], rounds: int, seconds: float, margin: float = math.inf
) -> list[Row]:
    """Return fastjac's rows, then the peers' from the fastest on, then those without a time.

    Where every peer takes more than ``margin`` times as long as fastjac, `_FEW_ROUNDS` are enough.

    Raises
    ------
    RuntimeError
        If fastjac itself fails or is wrong.
    """
    calls, missing = prepare(problem, selected)
    if "fastjac" not in calls:
        raise RuntimeError("; ".join(f"{row.peer}: {row.note}" for row in missing if row.peer == "fastjac"))
    first = rounds if margin == math.inf else min(rounds, _FEW_ROUNDS)
    timings = alternate(calls, first, seconds)
    nearest = min((timing.minimum for name, timing in timings.items() if name != "fastjac"), default=math.inf)
    if first < rounds and nearest <= margin * timings["fastjac"].minimum:
        timings = alternate(calls, rounds, seconds)
    rows = [Row(name, timing, "") for name, timing in timings.items()]
    rows.sort(key=lambda row: (not row.peer.startswith("fastjac"), row.timing.minimum if row.timing else 0))
    return rows + missing


def _one_line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:160]
