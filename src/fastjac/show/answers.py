"""What the page asks about a network, and the answers: binary messages of float32 behind a short header.

A message is little-endian: a sequence number (uint32), a `Kind` (uint16), the number of a view (uint16), then
float32. Its answer has the same header.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Callable, Iterable
from enum import IntEnum
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastjac.check import check_jacobian
from fastjac.explain import flips, what_if
from fastjac.graph import Value, softmax
from fastjac.graph.values import Apply
from fastjac.layers import HEADS_ONLY
from fastjac.network import Network

Array = NDArray[Any]
HEADER = struct.Struct("<IHH")
FLOAT = np.dtype("<f4")
LEVELS = 17  # that an input is tried at for the smallest change that flips the class
MOST_TRIED = 20_000  # changed samples, so that no answer takes long
MOST_CHECKED = 64  # columns of a Jacobian


class Kind(IntEnum):
    """What is asked; after each, what the message holds and what the answer holds.

    In the answers: ``y`` are the outputs of the first view, ``jac`` and all else are of the view asked for.
    """

    STATE = 0  # x (N,): microseconds, y (M,), jac (M, N)
    WHAT_IF = 1  # x (N,), to (N,): the change of each output if one input were its `to`, (N, M)
    FLIP = 2  # x (N,), low (N,), high (N,): nothing, or the input, its old and new value, the new winner
    CHECK = 3  # x (N,): ok, error, tolerance, row, column, columns checked, columns skipped


VECTORS = {Kind.STATE: 1, Kind.WHAT_IF: 2, Kind.FLIP: 3, Kind.CHECK: 1}  # of N numbers in a message


class BadMessage(ValueError):
    """A message that no page of ours sends; it says why."""


class Question(NamedTuple):
    """A message, taken apart: ``vectors`` is (1 to 3, N)."""

    sequence: int
    kind: Kind
    view: int
    vectors: Array


class Answers:
    """What can be asked about a network.

    Parameters
    ----------
    net : Network
        Its names, where it has any, are those on the page.
    shape : (rows, columns), optional
        The inputs are a picture's pixels.
    ranges : (low, high) or sequence of (low, high), optional
        Between which numbers all inputs move, or each. Default: 0 and 1 of a picture, else -3 and 3.
    fit : bool
        Whether a drawing is first scaled to fill the picture, as the shipped digits were.

    Raises
    ------
    ValueError
        If ``shape`` or ``ranges`` does not fit the network, or a range is not two finite numbers in order.
    """

    def __init__(
        self,
        net: Network,
        shape: tuple[int, int] | None = None,
        ranges: ArrayLike | None = None,
        fit: bool = False,
    ) -> None:
        if shape is not None and (min(shape) < 1 or shape[0] * shape[1] != net.n_inputs):
            raise ValueError(f"shape is {shape}, but the network takes {net.n_inputs} inputs")
        if ranges is None:
            ranges = (0, 1) if shape else (-3, 3)
        bounds = np.asarray(ranges, FLOAT)
        if bounds.shape not in ((2,), (net.n_inputs, 2)):
            raise ValueError(f"ranges has shape {bounds.shape}, expected (2,) or ({net.n_inputs}, 2)")
        low, high = np.broadcast_to(bounds, (net.n_inputs, 2)).T
        if not (np.isfinite(bounds).all() and (low < high).all()):
            raise ValueError("ranges has one that is not two finite numbers, the smaller one first")
        self.views = _views(net)
        self.networks = tuple(self.views.values())
        self.n_inputs, self.n_outputs = net.n_inputs, net.n_outputs
        self.largest_message = HEADER.size + max(VECTORS.values()) * net.n_inputs * FLOAT.itemsize
        inputs, outputs = range(net.n_inputs), range(net.n_outputs)
        pixels = shape and [f"row {n // shape[1] + 1}, column {n % shape[1] + 1}" for n in inputs]
        self.description = {
            "network": repr(net),
            "inputs": list(net.input_names or pixels or (f"x[{n}]" for n in inputs)),
            "outputs": list(net.output_names or (f"y[{m}]" for m in outputs)),
            "views": list(self.views),
            "shape": shape,
            "low": low.tolist(),
            "high": high.tolist(),
            "fit": fit,
        }

    def read(self, message: bytes) -> Question:
        """Return the question in ``message``.

        Raises
        ------
        BadMessage
            If it is none.
        """
        if len(message) < HEADER.size:
            raise BadMessage(f"a message has {len(message)} bytes, expected at least {HEADER.size}")
        sequence, kind, view = HEADER.unpack_from(message)
        if kind not in VECTORS:
            raise BadMessage(f"a message is of kind {kind}, expected 0 to {len(VECTORS) - 1}")
        if view >= len(self.networks):
            raise BadMessage(f"a message asks for view {view}, expected less than {len(self.networks)}")
        size = HEADER.size + VECTORS[Kind(kind)] * self.n_inputs * FLOAT.itemsize
        if len(message) != size:
            raise BadMessage(f"a message of kind {kind} has {len(message)} bytes, expected {size}")
        vectors = np.frombuffer(message, FLOAT, offset=HEADER.size).reshape(-1, self.n_inputs)
        if not np.isfinite(vectors).all():
            raise BadMessage("a message has numbers that are not finite")
        if kind == Kind.FLIP and self.n_outputs < 2:
            raise BadMessage("a message asks for another class, but the network has one output")
        return Question(sequence, Kind(kind), view, vectors)

    def answer(self, question: Question) -> bytes:
        """Return the message that answers ``question``."""
        net, vectors = self.networks[question.view], question.vectors
        numbers: dict[Kind, Callable[..., Iterable[ArrayLike]]] = {
            Kind.STATE: self._state,
            Kind.WHAT_IF: _changes,
            Kind.FLIP: _flip,
            Kind.CHECK: _check,
        }
        header = HEADER.pack(question.sequence, question.kind, question.view)
        parts = numbers[question.kind](net, *vectors)
        return b"".join((header, *(np.asarray(part, FLOAT).tobytes() for part in parts)))

    def warm(self) -> None:
        """Load or compile everything that answers need."""
        for view in range(len(self.networks)):
            for kind, count in VECTORS.items():
                if kind != Kind.FLIP or self.n_outputs > 1:
                    self.answer(Question(0, kind, view, np.zeros((count, self.n_inputs), FLOAT)))

    def _state(self, net: Network, x: Array) -> Iterable[ArrayLike]:
        start = time.perf_counter_ns()
        y, jac = net.value_and_jacobian(x)
        microseconds = (time.perf_counter_ns() - start) / 1000
        first = self.networks[0]
        return microseconds, y if net is first else first(x), jac


def _views(net: Network) -> dict[str, Network]:
    """Return the networks that the page can show, by the name of their outputs."""
    operation, before = net.graph.operation, net.graph.inputs
    head = operation.activation.name if isinstance(operation, Apply) else ""
    if head not in (*HEADS_ONLY, "sigmoid"):
        return {"outputs": net}
    logits = _like(net, before[0])
    return {
        "probabilities": _like(net, softmax(before[0])) if head == "log_softmax" else net,
        "logits": logits,
    }


def _like(net: Network, value: Value) -> Network:
    """Return a network of another value, with the names of this one."""
    return Network(value, dtype=net.dtype, input_names=net.input_names, output_names=net.output_names)


def _changes(net: Network, x: Array, to: Array) -> Iterable[ArrayLike]:
    return (what_if(net, x, to) - net(x),)


def _flip(net: Network, x: Array, low: Array, high: Array) -> Iterable[ArrayLike]:
    levels = max(2, min(LEVELS, MOST_TRIED // x.size))
    found = flips(net, x, np.linspace(low, high, levels, axis=1))
    return tuple((flip.input, flip.old, flip.new, flip.winner) for flip in found[:1])


def _check(net: Network, x: Array) -> Iterable[ArrayLike]:
    report = check_jacobian(net, x, columns=min(x.size, MOST_CHECKED))
    where = report.where or (-1, -1)
    return ((report.ok, report.error, report.tolerance, *where, report.checked, report.skipped),)
