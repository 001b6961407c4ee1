"""The vector unit that the kernels are compiled for: vector width, register tile and panels.

A *panel* matrix holds (rows, cols) as ``ceil(cols / NR)`` panels, each of all rows, each row NR
contiguous elements: element (r, c) is at ``(c // NR * rows + r) * NR + c % NR``. Panels start on
64-byte boundaries and the columns past the last one are zeros, so vectors are read whole. NR is
`NV` vectors of the compile target.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

NV = 2  # vectors in a row of a panel
ALIGNMENT = 64
# Rows of the Jacobian that lie a multiple of SAME_SET bytes apart share the same few places of the first
# cache: a tile that writes more of them drives its own lines out (2048-8-100: 87 us, with 6 rows 46).
SAME_SET, WAYS = 4096, 6


class Target(NamedTuple):
    """What panels and register tiles have to know of an instruction set."""

    vector_bytes: int
    registers: int
    fma: bool

    @property
    def tile_rows(self) -> int:
        """Rows of the largest tile: what registers leave beside B, a broadcast and a product."""
        return 12 if self.registers == 32 else 6

    def panel_width(self, dtype: np.dtype[Any]) -> int:
        """Return NR, the elements in one row of a panel."""
        return NV * self.vector_bytes // dtype.itemsize

    def padded(self, size: int, dtype: np.dtype[Any]) -> int:
        """Return ``size`` rounded up to whole panels."""
        width = self.panel_width(dtype)
        return -(-size // width) * width


def target_of(triple: str, features: str) -> Target:
    """Return the vector unit that LLVM may use for ``triple`` with ``features`` (``+avx2,-fma,...``)."""
    have = set(features.split(","))
    if triple.startswith(("aarch64", "arm64")):
        return Target(16, 32, True)
    if "+avx512f" in have:
        return Target(64, 32, True)
    return Target(32 if "+avx2" in have else 16, 16, "+fma" in have)
