"""Reads an HDF5 file in a process of its own, because the HDF5 library crashes on crafted files.

This module runs as a script. It reads the file from standard input, and writes an .npz file of the arrays
to standard output, with the attributes as text. It imports nothing of fastjac: that would take longer than
the reading.
"""

from __future__ import annotations

import contextlib
import io
import json
import signal
import sys
from typing import Any

# Limits on a reading: bytes and seconds, with an extra for each byte of the file.
_MEMORY, _MEMORY_FOR_A_BYTE = 50 * 10**6, 20
_SECONDS, _BYTES_IN_A_SECOND = 1.8, 10**7
_MOST_OBJECTS = 10_000
MISSING, REFUSED = 3, 4


def main() -> int:
    """Return 0, `MISSING` where h5py is not installed, or `REFUSED` with the reason on the error output."""
    try:
        import h5py
        import numpy as np
    except ImportError:
        return MISSING
    data = sys.stdin.buffer.read()
    with contextlib.suppress(ImportError):  # Windows has no limits.
        _limit(len(data))
    try:
        with h5py.File(io.BytesIO(data)) as file:
            reading = _Reading(h5py, len(data))
            reading.visit(file, "/")
            arrays = {name: _numbers(np, item) for name, item in reading.found.items()}
            text = json.dumps(reading.attributes)
    except Exception as error:  # Damaged files make the library raise nearly anything.
        print(str(error) or type(error).__name__, file=sys.stderr)
        return REFUSED
    stream = io.BytesIO()
    np.savez(stream, **arrays, fastjac=np.array(text))
    sys.stdout.buffer.write(stream.getbuffer())
    return 0


class _Reading:
    """The arrays and attributes found so far. Every name counts, because many names can be one object."""

    def __init__(self, h5py: Any, size: int) -> None:
        self.h5py = h5py
        self.left = size
        self.objects = 0
        self.found: dict[str, Any] = {}
        self.attributes: dict[str, Any] = {}

    def visit(self, group: Any, path: str) -> None:
        """Read a group: its attributes, its arrays, and the groups in it."""
        for key in ("model_config", "keras_version", "layer_names", "weight_names"):
            if key in group.attrs:
                self.attributes[f"{path}{key}"] = _texts(group.attrs[key])
        for name in group:
            self.objects += 1
            if self.objects > _MOST_OBJECTS:
                raise ValueError(f"it has more than {_MOST_OBJECTS} groups and arrays")
            is_here = isinstance(group.get(name, getlink=True), self.h5py.HardLink)
            item = group[name] if is_here else None
            if isinstance(item, self.h5py.Group):
                self.visit(item, f"{path}{name}/")
            elif isinstance(item, self.h5py.Dataset):
                self._take(item, path + name)
            else:
                raise ValueError(f"its {path}{name} is not in the file itself")

    def _take(self, item: Any, name: str) -> None:
        if item.is_virtual or item.external or item.id.get_storage_size() < item.nbytes:
            raise ValueError(f"its {name} is not plain numbers in the file itself")
        self.left -= item.nbytes
        if self.left < 0:
            raise ValueError("its arrays are larger than the file")
        self.found[name] = item


def _numbers(np: Any, item: Any) -> Any:
    """Return an array; Keras keeps bfloat16 as bytes."""
    if item.attrs.get("dtype") == "bfloat16":
        return (item[()].view(np.uint16).astype(np.uint32) << 16).view(np.float32)
    if item.dtype.kind not in "biuf":
        raise ValueError(f"its {item.name} has dtype {item.dtype}, expected real numbers")
    return item[()]


def _texts(value: Any) -> Any:
    """Return an attribute as a text or a list of texts."""
    if isinstance(value, (bytes, str)):
        return value.decode() if isinstance(value, bytes) else value
    return [_texts(part) for part in value]


def _limit(size: int) -> None:
    """End this process where it takes more than a file of ``size`` bytes warrants."""
    import resource

    # To the tick; a limit of the system would be whole seconds.
    signal.setitimer(signal.ITIMER_PROF, _SECONDS + size / _BYTES_IN_A_SECOND)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with contextlib.suppress(OSError):  # Only Linux tells, and heeds.
        with open("/proc/self/statm") as file:
            pages = int(file.read().split()[0])
        used = pages * resource.getpagesize()
        most = used + _MEMORY + _MEMORY_FOR_A_BYTE * size
        resource.setrlimit(resource.RLIMIT_AS, (most, most))


if __name__ == "__main__":
    sys.exit(main())
