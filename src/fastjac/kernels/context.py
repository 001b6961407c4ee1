"""The contexts that calls hand to the kernels: records of sizes and addresses, and room to work in."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastjac.kernels.caches import cache_sizes
from fastjac.kernels.packing import Packed, aligned_zeros, roles
from fastjac.kernels.target import WAYS, Target
from fastjac.layers import ACTIVATIONS
from fastjac.plan import Product

Array = NDArray[Any]

SIZE, ADDRESS, NUMBER = "size", "address", "number"
# Record -> which of its fields are addresses.
ADDRESSES: dict[np.dtype[Any], tuple[str, ...]] = {}


def _record(**fields: str) -> np.dtype[Any]:
    kinds = {SIZE: "i8", ADDRESS: "i8", NUMBER: "f8"}
    record = np.dtype([(name, kinds[kind]) for name, kind in fields.items()], align=True)
    ADDRESSES[record] = tuple(name for name, kind in fields.items() if kind == ADDRESS)
    return record


# "Panels" are panel matrices, "vectors" are padded with zeros to whole panels. Where nothing is said else, an
# address is that of a vector or of panels of the network's kind of number.
LAYER = _record(
    fan_in=SIZE,
    fan_out=SIZE,
    w=ADDRESS,  # panels: w.T, or w where `forward`; or w as it is, row-major, where `raw`
    forward=SIZE,  # whether w holds w rather than w.T
    rows=ADDRESS,  # panels: w for the forward pass of one sample, or 0 where w.T serves
    across=ADDRESS,  # panels: w where tangents are carried along
    skips=SIZE,  # that reads only the rows of the units before that are active
    raw=SIZE,
    b=ADDRESS,  # vector
    minus_b=ADDRESS,
    activation=SIZE,
    parameter=NUMBER,
    prelu=ADDRESS,  # vector: the slopes of prelu, or 0
    block_prelu=ADDRESS,  # one panel (fan_out, samples): each of them for all samples, or 0
    flat=SIZE,  # whether the activation has slope 0 in a whole interval
    a=ADDRESS,  # vector: the layer's output
    slope=ADDRESS,  # vector: derivative of the activation at each unit, of the last layer what `gain` is
    slopes=ADDRESS,  # a vector for each sample of a block; `slope` is one of them
    block_a=ADDRESS,  # one panel (fan_out, samples), for as many samples as a panel is wide
    active=ADDRESS,  # int64: the units whose slope is not 0 ...
    count=SIZE,  # ... and how many they are
)
STEP = _record(
    layer=SIZE,  # whose units are summed over
    scalar=ADDRESS,  # panels (m, units) of the factor that is read one element at a time ...
    scalar_transposed=SIZE,  # ... or (units, m)
    m=SIZE,
    outputs=SIZE,  # m counts the network's outputs, less the spared one
    vector=ADDRESS,  # panels (units, n) of the factor that is read in vectors
    n=SIZE,
    head=SIZE,  # that is the last layer's w, and the head multiplies the product's columns
    out=ADDRESS,  # panels (m, n); 0 for the Jacobian itself
)
CONTEXT = _record(
    n_inputs=SIZE,
    n_outputs=SIZE,
    n_layers=SIZE,
    n_steps=SIZE,
    layers=ADDRESS,
    steps=ADDRESS,
    taken=SIZE,  # 1 while a call uses it
    next=ADDRESS,  # address of another context of the network, or 0
    finite=SIZE,  # 1 where all pre-activations are, and so all weights
    blocks=SIZE,  # the forward pass may take a panel's width of samples at a time: all weights are w.T
    x=ADDRESS,  # vector
    block_x=ADDRESS,  # one panel (N, samples)
    block_slope=ADDRESS,  # one panel of the widest layer
    block_shares=ADDRESS,  # one panel (M, samples)
    bests=ADDRESS,  # int64: the most probable class of each sample of a block
    samples=SIZE,  # of a block: as a constant it would keep LLVM from vectorising short loops
    units=ADDRESS,  # int64: 0, 1, 2, ...
    gain=ADDRESS,  # vector: the head multiplies rows of the Jacobian as `_head` explains
    shares=ADDRESS,  # vector
    all_shares=ADDRESS,  # a vector for each sample of a block; `shares` is one of them
    pivot=SIZE,
    extra=ADDRESS,  # vector: shares @ rows
    mean=ADDRESS,  # vector: what is subtracted from the rows
    cotangent=ADDRESS,  # two vectors of the widest layer
    tangent=ADDRESS,
    panel_rows=ADDRESS,  # int64: byte offsets of the rows of a panel
    table=ADDRESS,  # int64: two byte offsets for each unit of a product
    jac_rows=ADDRESS,  # int64: byte offsets of the rows of the Jacobian that are computed
    scaled=ADDRESS,  # panels: the last layer's w.T multiplied by the head
    zeros=ADDRESS,  # a row of a panel
    ones=ADDRESS,  # vector (M,), at least a row
    left=ADDRESS,  # panels (m, units): the scalar factor times the slopes
    spares=SIZE,  # the products from the last layer's w.T on keep one row for each output
    panel=ADDRESS,  # a panel of a raw w.T
    edge=ADDRESS,  # a panel, one row more than M: where columns past the end go
    partial=ADDRESS,  # a panel of the widest layer: sums over some of the units
    compact=ADDRESS,  # panels (m, active units): the scalar factor tile by tile, or 0 where it is small
    first_cache=SIZE,  # bytes
    second_cache=SIZE,
    tangents=ADDRESS,  # panels (1 + N, units): a layer's output and tangents, or 0 if not carried
    following=ADDRESS,  # the same for the next layer
    outcome=ADDRESS,  # the same for the last layer
    carried=ADDRESS,  # that, or 0 where nothing was carried along
    result=ADDRESS,  # panels (N, M): the transposed Jacobian before the head, if the last step makes that
)


class Arena:
    """Hands out the memory that a context consists of, and keeps it.

    Attributes
    ----------
    arrays : list of ndarray
        All that was handed out, in order.
    """

    def __init__(self, target: Target, dtype: np.dtype[Any]) -> None:
        self.arrays: list[Array] = []
        self._target, self._dtype = target, dtype

    def vector(self, size: int, values: Array | float = 0.0) -> int:
        """Return the address of a vector of ``size`` numbers, zeros unless ``values`` are given."""
        array = aligned_zeros(self._target.padded(size, self._dtype), self._dtype)
        array[:size] = values
        return self._keep(array)

    def panels(self, rows: int, cols: int) -> int:
        """Return the address of a panel matrix of zeros."""
        return self.vector(rows * self._target.padded(cols, self._dtype))

    def integers(self, values: Array) -> int:
        """Return the address of a copy of ``values`` as int64."""
        return self._keep(values.astype(np.int64))

    def records(self, kind: np.dtype[Any], count: int = 1) -> Array:
        """Return an array of empty records."""
        self._keep(records := np.zeros(count, kind))
        return records

    def _keep(self, array: Array) -> int:
        self.arrays.append(array)
        return int(array.ctypes.data)


class Context:
    """What a call hands to the kernels: the sizes, the addresses, and room to work in.

    Attributes
    ----------
    record : numpy record
        A ``CONTEXT``.
    address : int
        Its address, valid as long as this object lives.
    sizes : (int, int)
        N and M.
    arena : Arena
        All memory but the weights.
    """

    def __init__(self, packed: Packed) -> None:
        self._packed = packed
        self.arena = Arena(packed.target, packed.dtype)
        self.sizes = packed.plan.sizes[0], packed.plan.sizes[-1]
        layers = self._make_layers()
        last = packed.layers[-1].w
        scaled = 0 if packed.forward[-1] else self.arena.panels(last.shape[1], last.shape[0])
        steps, result = self._make_steps(scaled)
        context = self.arena.records(CONTEXT)
        self.record = context[0]
        self.address = int(context.ctypes.data)
        self._fill(layers, steps, scaled, result)

    @property
    def __array_interface__(self) -> dict[str, Any]:
        """Lets NumPy see the record in an array that keeps this object."""
        return {"version": 3, "typestr": "|u1", "shape": (CONTEXT.itemsize,), "data": (self.address, False)}

    def _make_layers(self) -> Array:
        """Return the records of all layers."""
        packed, arena, target = self._packed, self.arena, self._packed.target
        width = target.panel_width(packed.dtype)
        records = arena.records(LAYER, len(packed.layers))
        records[0]["raw"] = packed.raw
        for i, (record, layer) in enumerate(zip(records, packed.layers, strict=True)):
            units = layer.b.size
            padded = target.padded(units, packed.dtype)
            record["fan_in"], record["fan_out"] = layer.w.shape
            record["w"], record["forward"] = packed.weights[i].ctypes.data, packed.forward[i]
            if packed.forward[i]:
                record["rows"] = record["w"]
            elif i in packed.rows:
                record["rows"] = packed.rows[i].ctypes.data
            record["across"] = packed.across[i].ctypes.data if packed.across else 0
            record["skips"] = packed.skips[i]
            record["b"], record["minus_b"] = arena.vector(units, layer.b), arena.vector(units, -layer.b)
            name, parameter = layer.activation
            record["activation"] = list(ACTIVATIONS).index(name)
            if name == "prelu":
                slopes = np.broadcast_to(parameter, units)
                record["prelu"] = arena.vector(units, slopes)
                record["block_prelu"] = arena.vector(units * width, np.repeat(slopes, width))
            else:
                record["parameter"] = parameter
            record["flat"] = layer.activation.active != (-np.inf, np.inf)
            record["a"] = arena.vector(units)
            record["slope"] = record["slopes"] = arena.vector(width * padded)
            record["block_a"] = arena.vector(units * width)
            record["active"], record["count"] = arena.integers(np.arange(padded)), units
        return records

    def _make_steps(self, scaled: int) -> tuple[Array, int]:
        """Return the records of all products, and where the transposed Jacobian is, or 0."""
        packed, arena = self._packed, self.arena
        root, last = packed.plan.root, len(packed.layers) - 1
        products = list(root.steps())
        records = arena.records(STEP, len(products))
        stored: dict[Product, int] = {}

        def operand(product: Product) -> int:
            if product.left is not None:
                return stored[product]
            is_scaled = product.first == last and scaled
            return scaled if is_scaled else int(packed.weights[product.first].ctypes.data)

        for record, product in zip(records, products, strict=True):
            transposed = packed.transposed[product]
            vector, scalar = roles(product, transposed)
            m, n = (product.cols, product.rows) if transposed else (product.rows, product.cols)
            record["layer"], record["m"], record["n"] = product.contracted, m, n
            record["scalar"], record["vector"] = operand(scalar), operand(vector)
            record["scalar_transposed"] = packed.transposed[scalar] != transposed
            record["outputs"] = product in packed.spine
            record["head"] = vector.first == last and transposed and not packed.transposed[root]
            if transposed or product is not root:
                record["out"] = stored[product] = arena.panels(m, n)
        return records, stored.get(root, 0)

    def _fill(self, layers: Array, steps: Array, scaled: int, result: int) -> None:
        """Fill the context's own record."""
        packed, arena, record = self._packed, self.arena, self.record
        target, dtype, sizes = packed.target, packed.dtype, packed.plan.sizes
        (n_inputs, n_outputs), widest, width = self.sizes, max(sizes), target.panel_width(dtype)
        record["n_inputs"], record["n_outputs"] = n_inputs, n_outputs
        record["n_layers"], record["n_steps"] = layers.size, steps.size
        record["layers"], record["steps"] = layers.ctypes.data, steps.ctypes.data
        record["blocks"] = not any(packed.forward) and not packed.raw
        record["x"], record["block_x"] = arena.vector(n_inputs), arena.vector(n_inputs * width)
        record["units"] = arena.integers(np.arange(widest))
        record["block_slope"], record["block_shares"] = (
            arena.vector(units * width) for units in (widest, n_outputs)
        )
        record["bests"], record["samples"] = arena.integers(np.zeros(width)), width
        record["gain"] = layers[-1]["slope"]
        record["shares"] = record["all_shares"] = arena.panels(width, n_outputs)
        for name in ("extra", "mean", "cotangent", "tangent"):
            record[name] = arena.vector(widest)
        record["panel_rows"] = arena.integers(np.arange(widest) * width * dtype.itemsize)
        record["jac_rows"] = arena.integers(np.zeros(n_outputs))
        record["scaled"], record["result"] = scaled, result
        record["zeros"], record["ones"] = arena.vector(width), arena.vector(max(width, n_outputs), 1.0)
        units = [target.padded(sizes[step["layer"] + 1], dtype) for step in steps]
        rows = [int(step["m"]) for step in steps]
        left = max((size * target.padded(m, dtype) for m, size in zip(rows, units, strict=True)), default=0)
        record["left"] = arena.vector(left)
        if left * dtype.itemsize > record["second_cache"] // 2:
            # Each tile has room for as many rows as the tallest.
            pairs = zip(rows, units, strict=True)
            record["compact"] = arena.vector(max(size * (m + -(-m // WAYS)) for m, size in pairs))
        record["spares"] = len(packed.spine) > 0
        record["panel"] = arena.vector(sizes[1] * width if packed.raw else 0)
        record["edge"] = arena.vector((max(n_outputs, 4) + 1) * width)
        record["partial"] = arena.vector(widest * width)
        record["table"] = arena.integers(np.zeros(2 * widest))
        record["first_cache"], record["second_cache"] = cache_sizes()[:2]
        if packed.across:
            for name, units_out in (("tangents", widest), ("following", widest), ("outcome", n_outputs)):
                record[name] = arena.panels(1 + n_inputs, units_out)


class Contexts:
    """A network's contexts, as many as it had calls at a time.

    Attributes
    ----------
    sizes : (int, int)
        N and M.
    hidden : int
        Units of the first layer.
    address : int
        Of the address of the first context, or of 0 where there is none.
    """

    def __init__(self, packed: Packed) -> None:
        self.sizes = packed.plan.sizes[0], packed.plan.sizes[-1]
        self.hidden = packed.plan.sizes[1]
        self.made: list[Context] = []
        self._packed = packed
        self._first = np.zeros(1, np.int64)
        self._lock = threading.Lock()
        self.address = int(self._first.ctypes.data)

    def add(self) -> None:
        """Make another context, which a call may take as soon as it is the first."""
        context = Context(self._packed)
        with self._lock:
            context.record["next"] = self._first[0]
            self.made.append(context)
            self._first[0] = context.address
