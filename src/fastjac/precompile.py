"""`warmup`: makes all compiled code ready ahead of its first call."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from numpy.typing import DTypeLike

from fastjac.embedding import handles
from fastjac.kernels import compiling, machine_code
from fastjac.layers import FLOATS, network_dtype


class Ready(NamedTuple):
    """All code of a dtype is ready to be called.

    Attributes
    ----------
    name : str
        Of the dtype.
    compiled : bool
        Whether a routine had to be compiled; else its code was in ``path`` and beside it.
    path : Path or None
        The file that holds the code of layers in a row from now on, that of graphs beside it; None where no
        folder can be written.
    seconds : float
        What it took.
    """

    name: str
    compiled: bool
    path: Path | None
    seconds: float


def warmup(dtype: DTypeLike | None = None) -> list[Ready]:
    """Compile whatever no earlier run has compiled, and load all.

    Afterwards no call in this process compiles or loads code; and none compiles in any process that finds
    the files, which then need only be readable. It takes some ten seconds for each dtype if nothing has
    been compiled, less than half a second after that.

    Parameters
    ----------
    dtype : float32 or float64, optional
        Of the networks that will be called. Default: both.

    Returns
    -------
    list of Ready
        One for each dtype: what was done, and where the code is.
    """
    return list(steps(dtype))


def steps(dtype: DTypeLike | None = None) -> Iterator[Ready]:
    """Yield what `warmup` returns as soon as it is done."""
    for kind in FLOATS if dtype is None else [network_dtype([], dtype)]:
        start = time.perf_counter()
        compiled, path = False, machine_code.shipped_file(kind)
        if path is None:
            compiled, path = compiling.everything(kind)
        handles.ready(kind)
        yield Ready(str(kind), compiled, path, time.perf_counter() - start)
