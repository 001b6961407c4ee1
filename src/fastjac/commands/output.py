"""Writes results so that a file under its final name is always a complete one."""

from __future__ import annotations

import contextlib
import os
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np

from fastjac.commands import CommandError


def check_writable(path: Path, *suffixes: str) -> None:
    """Raise CommandError if ``path`` ends in none of ``suffixes``, or no file can be written there."""
    if path.suffix.lower() not in suffixes:
        raise CommandError(f"{path}: the name of this output must end in {' or '.join(suffixes)}")
    if not path.parent.is_dir():
        raise CommandError(f"cannot write {path}: there is no folder {path.parent}")
    if path.exists() and not path.is_file():
        raise CommandError(f"cannot write {path}: it exists and is not a file")


@contextlib.contextmanager
def complete_or_absent(path: Path) -> Iterator[Path]:
    """Yield a temporary name beside ``path``, renamed to it if the block ends without an exception.

    Raises
    ------
    CommandError
        For an OSError in the block. The temporary file is removed and ``path`` left as it was.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())  # Some file systems report only here that the disk is full.
        os.replace(temporary, path)
    except OSError as error:
        raise CommandError(f"cannot write {path}: {error.strerror or error}") from None
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


@contextlib.contextmanager
def npy_file(path: Path, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Iterator[IO[bytes]]:
    """Yield an .npy file that takes its array's bytes in C order, piece by piece."""
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, _header(shape, dtype))
        yield file


@contextlib.contextmanager
def npz_member(
    archive: zipfile.ZipFile, name: str, shape: tuple[int, ...], dtype: np.dtype[Any]
) -> Iterator[IO[bytes]]:
    """Yield a member of an .npz file that takes its array's bytes in C order, piece by piece."""
    with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
        np.lib.format.write_array_header_1_0(member, _header(shape, dtype))
        yield member


def _header(shape: tuple[int, ...], dtype: np.dtype[Any]) -> dict[str, Any]:
    return {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
