"""`warmup`: makes all routines ready ahead of their first call."""

from __future__ import annotations

import time
from pathlib import Path
from typing import NamedTuple

from fastjac.embedding import records
from fastjac.kernels import cache, functions, routines
from fastjac.layers import FLOATS


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
    the files, which then need only be readable. About a minute where nothing has been compiled, less than
    half a second after that.

    Returns
    -------
    list of Ready
        One for each routine and dtype: what was done, and where the code is.
    """
    ready = []
    for dtype in FLOATS:
        start = time.perf_counter()
        file = cache.file_of(routines.routine(dtype))
        seconds = time.perf_counter() - start
        ready.append(Ready(f"routine {dtype}", file.compiled, file.path, seconds))
        functions.load_all(dtype)
        records.functions(dtype)
    return ready
