"""Reads what a command is given: the network, and its inputs, one sample or one in each row."""

from __future__ import annotations

import csv
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import fastjac
from fastjac.arguments import few, order_of, real_array
from fastjac.commands import CommandError

Array = NDArray[Any]

# So many inputs of one sample do not count up by one.
NEVER_A_SAMPLE = 8
YEARS = range(1900, 2101)


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


def read_inputs(path: Path, n_inputs: int, names: Sequence[str] | None = None) -> Array:
    """Return the inputs in the file ``path``, (n_inputs,) or (rows, n_inputs).

    A .npy file is mapped, not read. A .npz file holds one array, or one named ``x``; either may be a
    structured one, with a field for each input. A .csv file has a sample in each line, and may begin with a
    line of names. Where the file and the network have names, the columns are put in the network's order.

    Names in a .csv file may be numbers. Its first line is read as names if none of its entries is a number,
    or if they are the network's names in any order; after a ``#``, as NumPy writes them, it is no sample in
    any case. A line that counts up by one from 0, as pandas names columns without names, or from a year, is
    read as names if it has at least `NEVER_A_SAMPLE` entries; if it has fewer it may be a sample, and is an
    error where lines follow. So is one with numbers and words.

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
        own, x = reader(path, names)
    except OSError as error:
        raise CommandError(f"cannot read {path}: {error.strerror or error}") from None
    except (ValueError, EOFError, MemoryError, csv.Error, zipfile.BadZipFile) as error:
        raise CommandError(f"cannot read {path}: {error}") from None
    try:
        order = None if own is None or names is None else order_of(own, names, str(path))
        x = real_array(x, str(path), names)
    except (TypeError, ValueError) as error:
        raise CommandError(str(error)) from None
    if x.ndim not in (1, 2) or x.shape[-1] != n_inputs:
        expected = f"({n_inputs},) or (rows, {n_inputs})"
        raise CommandError(
            f"{path} has shape {x.shape}, but the network takes {n_inputs} inputs: expected {expected}"
        )
    return x if order is None else x[:, order]


def _read_npy(path: Path, names: Sequence[str] | None) -> tuple[None, Array]:
    with path.open("rb") as file:
        if file.read(6) != b"\x93NUMPY":
            raise ValueError("it is not a .npy file")
    return None, np.asarray(np.load(path, mmap_mode="r", allow_pickle=False))


def _read_npz(path: Path, names: Sequence[str] | None) -> tuple[None, Array]:
    with path.open("rb") as file:
        if not zipfile.is_zipfile(file):
            raise ValueError("it is not a .npz file")
    with np.load(path, allow_pickle=False) as arrays:
        found = arrays.files
        if "x" not in found and len(found) != 1:
            raise ValueError(
                f"it holds the arrays {', '.join(found) or '(none)'}, expected one, or one named x"
            )
        return None, np.asarray(arrays["x" if "x" in found else found[0]])


def _read_csv(path: Path, names: Sequence[str] | None) -> tuple[list[str] | None, Array]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        lines = csv.reader(file)
        first = [entry.strip() for entry in next(lines, [])]
        is_last = not any(lines)
    if not first:
        raise ValueError("it has no first line")
    is_header, own = _header(first, is_last, names)
    if is_header and is_last:
        return own, np.empty((0, len(first)))
    return own, np.loadtxt(path, delimiter=",", ndmin=2, encoding="utf-8-sig", skiprows=int(is_header))


def _header(first: list[str], is_last: bool, names: Sequence[str] | None) -> tuple[bool, list[str] | None]:
    """Return whether a file's first line is no sample, and the names in it, if there are any."""
    if first[0].startswith("#"):
        first = [first[0].lstrip("# "), *first[1:]]
        return True, first if names is not None and len(first) == len(names) else None
    numbers = [_is_number(entry) for entry in first]
    if not any(numbers) or (names is not None and sorted(first) == sorted(names)):
        return True, first
    if not all(numbers):
        raise ValueError(f"its first line has words and numbers: {few(first)}")
    if is_last or len(first) < 2 or not _counts_up(first):
        return False, None
    if len(first) < NEVER_A_SAMPLE:
        text = f"its first line may be names or a sample: {few(first)}"
        raise ValueError(f"{text}; remove it, or write {first[0]}.0 for a number")
    return True, None if first[0] == "0" else first


def _counts_up(entries: list[str]) -> bool:
    """Return whether these are whole numbers that follow each other, from 0 or a year on."""
    if not all(entry.isdecimal() for entry in entries):
        return False
    start = int(entries[0])
    return (start == 0 or start in YEARS) and entries == [str(start + i) for i in range(len(entries))]


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
