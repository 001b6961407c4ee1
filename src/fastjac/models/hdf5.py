"""HDF5 files, read in a process of their own: its death is a ValueError."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from fastjac.models import hdf5_child
from fastjac.models.containers import Arrays, read_npz
from fastjac.models.extras import missing

# As a path to run, the child's folder would be searched for modules, and it has some with names of libraries.
_LAUNCH = "import runpy, sys; runpy.run_path(sys.argv[1], run_name='__main__')"
_MOST_WAITED = 60


def read_hdf5(data: bytes, purpose: str) -> tuple[Arrays, dict[str, Any]]:
    """Return the arrays of an HDF5 file by their paths, and its attributes that Keras writes.

    Raises
    ------
    ValueError
        If it is damaged, or has anything but plain numbers, or if the library dies of it.
    ImportError
        If h5py is not installed.
    """
    if getattr(sys, "frozen", False) or not sys.executable:
        raise ValueError("it is read by a Python process of its own, which this program cannot start")
    command = [sys.executable, "-c", _LAUNCH, str(Path(hdf5_child.__file__))]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    try:
        child = subprocess.run(
            command, input=data, capture_output=True, env=environment, timeout=_MOST_WAITED, check=False
        )
    except subprocess.TimeoutExpired:
        raise ValueError(f"the HDF5 library took more than {_MOST_WAITED} seconds") from None
    if child.returncode == hdf5_child.MISSING:
        raise missing("h5py", purpose)
    if child.returncode == hdf5_child.REFUSED:
        raise ValueError(str(child.stderr, "utf-8", "replace").strip()[:1000])
    if child.returncode != 0:
        raise ValueError("the HDF5 library died of it, or took too much time or memory")
    arrays, text = read_npz(child.stdout)
    return arrays, json.loads(text or "{}")
