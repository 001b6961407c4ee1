"""`warmup`: makes all routines ready ahead of their first call."""

from __future__ import annotations

import time
from pathlib import Path
from typing import NamedTuple

from fastjac.kernels import calling, compiling, entry, fused
from fastjac.kernels.methods import replace
from fastjac.layers import FLOATS
from fastjac.network import Network


class Ready(NamedTuple):
    """A routine that is ready to be called.

    Attributes
    ----------
    name : str
        Of the routine and its dtype.
    compiled : bool
        Whether it had to be compiled; else its code was in ``path``.
    path : Path or None
        The file that holds its code from now on; None where no folder can be written.
    seconds : float
        What it took.
    """

    name: str
    compiled: bool
    path: Path | None
    seconds: float


def warmup() -> list[Ready]:
    """Compile every routine for float32 and float64 that no earlier run has compiled, and load all.

    Afterwards no call in this process compiles or loads code; and none compiles in any process that finds
    the files, which then need only be readable. Some twenty seconds where nothing has been compiled, less
    than half a second after that.

    Returns
    -------
    list of Ready
        One for each routine and dtype: what was done, and where the code is.
    """
    ready = []
    for dtype in FLOATS:
        start = time.perf_counter()
        file = compiling.file_of(fused.routine(dtype))
        seconds = time.perf_counter() - start
        ready.append(Ready(f"routine {dtype}", file.compiled, file.path, seconds))
        for name in (*entry.NAMES, entry.OF):
            entry.load(name, dtype)
        calling.functions(dtype)
    replace(Network)
    return ready
