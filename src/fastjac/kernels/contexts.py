"""A network's contexts: one for each call that runs at the same time."""

from __future__ import annotations

import threading
from typing import TypeAlias

import numpy as np

from fastjac.kernels.context import Context
from fastjac.kernels.graphs import PackedGraph
from fastjac.kernels.packing import Packed
from fastjac.kernels.tapes import GraphContext

Weights: TypeAlias = Packed | PackedGraph


def new_context(packed: Weights) -> Context:
    """Return a context for calls of a network."""
    return GraphContext(packed) if isinstance(packed, PackedGraph) else Context(packed)


class Contexts:
    """A network's contexts, as many as it had calls at a time.

    Attributes
    ----------
    sizes : (int, int)
        N and M.
    is_graph : bool
        Whether the network is one, which has a routine of its own.
    hidden : int
        Units of the first layer.
    address : int
        Of the address of the first context, or of 0 where there is none.
    """

    def __init__(self, packed: Weights) -> None:
        self.sizes = packed.plan.sizes[0], packed.plan.sizes[-1]
        self.hidden = packed.plan.sizes[1]
        self.is_graph = packed.is_graph
        self.made: list[Context] = []
        self._packed = packed
        self._first = np.zeros(1, np.int64)
        self._lock = threading.Lock()
        self.address = int(self._first.ctypes.data)

    def add(self) -> None:
        """Make another context, which a call may take as soon as it is the first."""
        context = new_context(self._packed)
        with self._lock:
            context.record["next"] = self._first[0]
            self.made.append(context)
            self._first[0] = context.address
