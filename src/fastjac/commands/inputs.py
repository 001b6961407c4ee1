"""Reads what a command is given: the network, and its inputs, one sample or one in each row."""

from __future__ import annotations

import csv
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import fastjac
from fastjac.commands import CommandError


def read_network(path: Path) -> fastjac.Network:
    """Return the network in the file ``path``.

    Raises
    ------
    CommandError
        If it takes a package that is not installed.
    ModelError, OSError
        As `fastjac.load`.
    """
    try:
        return fastjac.load(path)
    except ImportError as error:
        raise CommandError(f"cannot read {path}: {error}") from None


def read_inputs(path: Path, n_inputs: int) -> NDArray[Any]:
    """Return the inputs in the file ``path``, (n_inputs,) or (rows, n_inputs).

    A .npy file is mapped, not read. A .npz file holds one array, or one named ``x``. A .csv file has a
    sample in each line, and may begin with a line of names.

    Raises
    ------
    CommandError
        If the file cannot be read or its contents are no inputs of the network.
    """
    readers = {".npy": _read_npy, ".npz": _read_npz, ".csv": _read_csv}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise CommandError(f"{path}: inputs are read from .npy, .npz and .csv files")
    try:
        x = reader(path)
    except OSError as error:
        raise CommandError(f"cannot read {path}: {error.strerror or error}") from None
    except (ValueError, EOFError, MemoryError, zipfile.BadZipFile) as error:
        raise CommandError(f"cannot read {path}: {error}") from None
    if x.dtype.kind not in "biuf":
        raise CommandError(f"{path} has dtype {x.dtype}, expected real numbers")
    if x.ndim not in (1, 2) or x.shape[-1] != n_inputs:
        expected = f"({n_inputs},) or (rows, {n_inputs})"
        raise CommandError(
            f"{path} has shape {x.shape}, but the network takes {n_inputs} inputs: expected {expected}"
        )
    return x


def _read_npy(path: Path) -> NDArray[Any]:
    with path.open("rb") as file:
        if file.read(6) != b"\x93NUMPY":
            raise ValueError("it is not a .npy file")
    return np.asarray(np.load(path, mmap_mode="r", allow_pickle=False))


def _read_npz(path: Path) -> NDArray[Any]:
    with path.open("rb") as file:
        if not zipfile.is_zipfile(file):
            raise ValueError("it is not a .npz file")
    with np.load(path, allow_pickle=False) as arrays:
        names = arrays.files
        if "x" not in names and len(names) != 1:
            raise ValueError(
                f"it holds the arrays {', '.join(names) or '(none)'}, expected one, or one named x"
            )
        return np.asarray(arrays["x" if "x" in names else names[0]])


def _read_csv(path: Path) -> NDArray[Any]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        first = next(csv.reader(file), [])
    if not first:
        raise ValueError("it has no first line")
    return np.loadtxt(
        path, delimiter=",", ndmin=2, encoding="utf-8-sig", skiprows=int(not _is_number(first[0]))
    )


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
