"""The sizes of this machine's caches, which decide how products are cut into blocks."""

from __future__ import annotations

import functools
import os
from pathlib import Path

# Where the operating system does not say: what most machines have.
USUAL = (32 << 10, 512 << 10, 8 << 20)


@functools.cache
def cache_sizes() -> tuple[int, ...]:
    """Return the bytes of the data caches of one core from L1 on, at least two.

    ``FASTJAC_CACHES=32768,262144`` says them instead of the operating system.

    Raises
    ------
    ValueError
        If ``FASTJAC_CACHES`` is not two positive integers or more.
    """
    text = os.environ.get("FASTJAC_CACHES", "")
    try:
        given = tuple(int(part) for part in text.split(",")) if text else _system_sizes()
    except ValueError:
        given = ()
    if text and (len(given) < 2 or min(given) < 1):
        raise ValueError(f"FASTJAC_CACHES is {text!r}, expected sizes in bytes such as 32768,262144")
    return given if len(given) > 1 else USUAL


def _system_sizes() -> tuple[int, ...]:
    """Return what Linux says, as far as it can be read."""
    found = {}
    for folder in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*"):
        try:
            kind, level, size = ((folder / name).read_text().strip() for name in ("type", "level", "size"))
            if kind != "Instruction":
                found[int(level)] = int(size.rstrip("KMG")) << {"K": 10, "M": 20, "G": 30}.get(size[-1], 0)
        except (OSError, ValueError):
            continue
    return tuple(found[level] for level in sorted(found))
