"""The contexts that calls hand to the kernels: records of sizes and addresses, and room to work in."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastjac.kernels import packing, simd
from fastjac.kernels.packing import Packed
from fastjac.layers import ACTIVATIONS
from fastjac.plan import Product

Array = NDArray[Any]


def _record(**fields: str) -> np.dtype[Any]:
    return np.dtype(list(fields.items()), align=True)


# Addresses are integers. "Panels" are panel matrices, "vectors" are padded with zeros to whole panels.
LAYER = _record(
    fan_in="i8",
    fan_out="i8",
    w="i8",  # panels: w.T, or w where `forward`; or w as it is, row-major, where `raw`
    forward="i8",
    rows="i8",  # panels: w for the forward pass of one sample, or 0 where w.T serves
    across="i8",  # panels: w where tangents are carried along
    skips="i8",  # that reads only the rows of the units before that are active
    raw="i8",
    b="i8",  # vector
    minus_b="i8",
    activation="i8",
    parameter="f8",
    a="i8",  # vector: the layer's output
    slope="i8",  # vector: derivative of the activation at each unit, of the last layer what `gain` is
    slopes="i8",  # a vector for each sample of a block; `slope` is one of them
    block_a="i8",  # one panel (fan_out, samples), for as many samples as a panel is wide
    active="i8",  # int64: the units whose slope is not 0 ...
    count="i8",  # ... and how many they are
)
STEP = _record(
    layer="i8",  # whose units are summed over
    scalar="i8",  # panels (m, units) of the factor that is read one element at a time ...
    scalar_transposed="i8",  # ... or (units, m)
    m="i8",
    outputs="i8",  # m counts the network's outputs, less the spared one
    vector="i8",  # panels (units, n) of the factor that is read in vectors
    n="i8",
    listed="i8",  # panels (n, units): w, where inactive units among the n are left out, or 0
    head="i8",  # that is the last layer's w, and the head multiplies the product's columns
    out="i8",  # panels (m, n) or, where listed, (n, m); 0 for the Jacobian itself
)
CONTEXT = _record(
    n_inputs="i8",
    n_outputs="i8",
    n_layers="i8",
    n_steps="i8",
    layers="i8",
    steps="i8",
    taken="i8",  # 1 while a call uses it
    next="i8",  # address of another context of the network, or 0
    finite="i8",  # 1 where all pre-activations are, and so all weights
    blocks="i8",  # the forward pass may take a panel's width of samples at a time: all weights are w.T
    x="i8",  # vector
    block_x="i8",  # one panel (N, samples)
    block_slope="i8",  # one panel of the widest layer
    block_shares="i8",  # one panel (M, samples)
    bests="i8",  # int64: the most probable class of each sample of a block
    samples="i8",  # of a block: as a constant it would keep LLVM from vectorising short loops
    units="i8",  # int64: 0, 1, 2, ...
    gain="i8",  # vector: the head multiplies rows of the Jacobian as `_head` explains
    shares="i8",  # vector
    all_shares="i8",  # a vector for each sample of a block; `shares` is one of them
    pivot="i8",
    extra="i8",  # vector: shares @ rows
    mean="i8",  # vector: what is subtracted from the rows
    cotangent="i8",  # two vectors of the widest layer
    tangent="i8",
    listed_rows="i8",  # int64: byte offsets of active units' rows
    listed_units="i8",  # int64: two byte offsets for each active unit
    panel_rows="i8",  # int64: byte offsets of the rows of a panel
    jac_rows="i8",  # int64: byte offsets of the rows of the Jacobian that are computed
    scaled="i8",  # panels: the last layer's w.T multiplied by the head
    zeros="i8",  # a row of a panel, and of ones
    ones="i8",
    left="i8",  # panels (m, units): the scalar factor times the slopes
    spares="i8",  # the products from the last layer's w.T on keep one row for each output
    panel="i8",  # a panel of a raw w.T
    edge="i8",  # one tile: where columns past the end go
    tangents="i8",  # panels (1 + N, units): a layer's output and its tangents, or 0 where not carried along
    following="i8",  # the same for the next layer
    carried="i8",  # which of them holds the last layer's, or 0
    result="i8",  # panels (N, M): the Jacobian transposed, before the head, where the last step makes it so
)


class Context:
    """What a call hands to the kernels: the sizes, the addresses, and room to work in.

    Attributes
    ----------
    record : numpy record
        A ``CONTEXT``.
    address : int
        Its address, valid as long as this object lives.
    """

    def __init__(self, packed: Packed) -> None:
        self._packed = packed
        self._dtype = packed.layers[0].w.dtype
        self._owned: list[Array] = []
        layers, plan = packed.layers, packed.plan
        n_inputs, n_outputs = plan.sizes[0], plan.sizes[-1]
        widest = max(plan.sizes)
        products = list(plan.root.steps())

        width = simd.panel_width(self._dtype)
        self._layers = self._keep(np.zeros(len(layers), LAYER))
        self._layers[0]["raw"] = packed.raw
        for i, (record, layer) in enumerate(zip(self._layers, layers, strict=True)):
            record["fan_in"], record["fan_out"] = layer.w.shape
            record["w"], record["forward"] = packed.weights[i].ctypes.data, packed.forward[i]
            if packed.forward[i]:
                record["rows"] = record["w"]
            elif i in packed.rows:
                record["rows"] = packed.rows[i].ctypes.data
            record["across"] = packed.across[i].ctypes.data if packed.across else 0
            record["skips"] = packed.skips[i]
            record["b"] = self._vector(layer.b.size)
            self._owned[-1][: layer.b.size] = layer.b
            record["activation"] = list(ACTIVATIONS).index(layer.activation.name)
            record["parameter"] = layer.activation.parameter
            record["minus_b"] = self._keep(-layer.b).ctypes.data
            record["a"] = self._vector(layer.b.size)
            record["slope"] = record["slopes"] = self._vector(
                width * packing.padded(layer.b.size, self._dtype)
            )
            record["block_a"] = self._vector(layer.b.size * width)
            record["active"] = self._integers(np.arange(packing.padded(layer.b.size, self._dtype)))
            record["count"] = layer.b.size

        last = layers[-1].w
        self._scaled = (
            0
            if packed.forward[-1]
            else self._vector(last.shape[1] * packing.padded(last.shape[0], self._dtype))
        )
        self._steps = self._keep(np.zeros(len(products), STEP))
        stored: dict[Product, int] = {}
        for record, product in zip(self._steps, products, strict=True):
            record["layer"] = product.contracted
            self._fill_step(record, product, stored)

        context = self._keep(np.zeros(1, CONTEXT))
        self.record = record = context[0]
        record["n_inputs"], record["n_outputs"] = n_inputs, n_outputs
        record["n_layers"], record["n_steps"] = len(layers), len(products)
        record["layers"], record["steps"] = self._layers.ctypes.data, self._steps.ctypes.data
        record["blocks"] = not any(packed.forward) and not packed.raw
        record["x"], record["block_x"] = self._vector(n_inputs), self._vector(n_inputs * width)
        record["units"] = self._integers(np.arange(widest))
        record["block_slope"] = self._vector(widest * width)
        record["block_shares"] = self._vector(n_outputs * width)
        record["bests"], record["samples"] = self._integers(np.zeros(width)), width
        record["gain"] = self._layers[-1]["slope"]
        record["shares"] = record["all_shares"] = self._vector(width * packing.padded(n_outputs, self._dtype))
        for name in ("extra", "mean", "cotangent", "tangent"):
            record[name] = self._vector(widest)
        record["listed_rows"] = self._integers(np.zeros(widest + simd.LISTED))
        record["listed_units"] = self._integers(np.zeros(2 * widest))
        record["panel_rows"] = self._integers(np.arange(widest) * width * self._dtype.itemsize)
        record["jac_rows"] = self._integers(np.zeros(n_outputs))
        record["scaled"] = self._scaled
        record["zeros"] = self._vector(width)
        record["ones"] = self._vector(width)
        self._owned[-1][:] = 1
        units = [packing.padded(plan.sizes[step["layer"] + 1], self._dtype) for step in self._steps]
        lefts = [
            size * packing.padded(step["m"], self._dtype)
            for step, size in zip(self._steps, units, strict=True)
        ]
        record["left"] = self._vector(max(lefts, default=0))
        record["spares"] = len(packed.spine) > 0
        record["panel"] = self._vector(plan.sizes[1] * width if packed.raw else 0)
        record["edge"] = self._vector((simd.MR + 1) * width)
        if packed.across:
            room = (1 + n_inputs) * packing.padded(widest, self._dtype)
            record["tangents"], record["following"] = self._vector(room), self._vector(room)
        record["result"] = stored.get(plan.root, 0)
        self.address = int(context.ctypes.data)

    @property
    def __array_interface__(self) -> dict[str, Any]:
        """Lets NumPy see the record in an array that keeps this object."""
        return {"version": 3, "typestr": "|u1", "shape": (CONTEXT.itemsize,), "data": (self.address, False)}

    def _keep(self, array: Array) -> Array:
        self._owned.append(array)
        return array

    def _vector(self, size: int) -> int:
        return int(
            self._keep(packing.aligned_zeros(packing.padded(size, self._dtype), self._dtype)).ctypes.data
        )

    def _integers(self, values: Array) -> int:
        return int(self._keep(values.astype(np.int64)).ctypes.data)

    def _fill_step(self, record: Any, product: Product, stored: dict[Product, int]) -> None:
        transposed = self._packed.transposed[product]
        vector, scalar = packing.roles(product, transposed)
        last = len(self._packed.layers) - 1
        m, n = (product.cols, product.rows) if transposed else (product.rows, product.cols)
        record["m"], record["n"] = m, n
        record["scalar"] = self._operand(scalar, stored)
        listed = self._packed.listed
        record["scalar_transposed"] = scalar in listed or self._packed.transposed[scalar] != transposed
        record["outputs"] = product in self._packed.spine
        record["vector"] = self._operand(vector, stored)
        root = self._packed.plan.root
        record["head"] = vector.first == last and transposed and not self._packed.transposed[root]
        if product in listed:
            record["listed"] = self._packed.rows[product.contracted].ctypes.data
            m, n = n, m
        if transposed or product is not root:
            record["out"] = stored[product] = self._vector(m * packing.padded(n, self._dtype))

    def _operand(self, product: Product, stored: dict[Product, int]) -> int:
        if product.left is None:
            is_last = product.first == len(self._packed.layers) - 1
            return (
                self._scaled
                if is_last and self._scaled
                else int(self._packed.weights[product.first].ctypes.data)
            )
        return stored[product]


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
        self._packed = packed
        self._first = np.zeros(1, np.int64)
        self._contexts: list[Context] = []
        self._lock = threading.Lock()
        self.address = int(self._first.ctypes.data)

    def add(self) -> None:
        """Make another context, which a call may take as soon as it is the first."""
        context = Context(self._packed)
        with self._lock:
            context.record["next"] = self._first[0]
            self._first[0] = context.address
            self._contexts.append(context)
