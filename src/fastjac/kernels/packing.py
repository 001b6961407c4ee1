"""Weights to aligned panels, once per network, and the contexts that calls hand to the kernels."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastjac.kernels import simd
from fastjac.layers import ACTIVATIONS, Layer
from fastjac.plan import Plan, Product

Array = NDArray[Any]
ALIGNMENT = 64


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
    head="i8",  # it is the last layer's w: the head multiplies the product's columns
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
    result="i8",  # panels (N, M): the Jacobian transposed, where that is how the last step makes it
)


def aligned_zeros(size: int, dtype: np.dtype[Any]) -> Array:
    """Return ``size`` zeros whose first byte is on a 64-byte boundary."""
    size_bytes = max(size, 1) * dtype.itemsize
    block = np.zeros(size_bytes + ALIGNMENT, np.uint8)
    start = -block.ctypes.data % ALIGNMENT
    return block[start : start + size_bytes].view(dtype)


def padded(size: int, dtype: np.dtype[Any]) -> int:
    """Return ``size`` rounded up to whole panels."""
    width = simd.panel_width(dtype)
    return -(-size // width) * width


def pack_panels(matrix: Array) -> Array:
    """Return the (rows, cols) ``matrix`` as panels, one after the other."""
    rows, cols = matrix.shape
    width = simd.panel_width(matrix.dtype)
    panels = aligned_zeros(rows * padded(cols, matrix.dtype), matrix.dtype).reshape(-1, rows, width)
    for number, panel in enumerate(panels):
        part = matrix[:, number * width : (number + 1) * width]
        panel[:, : part.shape[1]] = part
    return panels.reshape(-1)


def orientations(product: Product, transposed: bool) -> dict[Product, bool]:
    """Return for each factor of ``product`` whether it is stored transposed.

    A product is made in vectors along one side: it reads the factor on that side as (units, side), so
    stored that way, and the other factor one element at a time, so stored as it likes: weights as
    ``w.T``, products with their longer side in vectors.
    """
    found = {product: transposed}
    if product.left is not None and product.right is not None:
        vector, scalar = _roles(product, transposed)
        longer = scalar.left is not None and scalar.rows > scalar.cols
        found |= orientations(vector, transposed) | orientations(scalar, longer)
    return found


def _roles(product: Product, transposed: bool) -> tuple[Product, Product]:
    """Return the factor that is read in vectors and the one that is read in single elements."""
    assert product.left is not None and product.right is not None
    return (product.left, product.right) if transposed else (product.right, product.left)


def _spine(root: Product, transposed: dict[Product, bool]) -> list[Product]:
    """Return the products from ``root`` to the left if all of them have one row for each output."""
    spine = []
    while root.left is not None:
        if transposed[root]:
            return []
        spine.append(root)
        root = root.left
    return spine


def listing_pays(rows: int, w: Array) -> bool:
    """Return whether a product with ``w`` is faster made for active units only, with its rows in the lanes.

    It is where half of the units are active, if few lanes stay empty and there are many units for each
    number that is transposed. The limit is where both ways took equally long.
    """
    half = simd.grain(simd.TARGET) // w.itemsize
    lanes = max(-(-rows // half) * half, simd.TARGET.vector_bytes // w.itemsize)
    return bool(lanes / rows <= 1.6 - 64 / min(w.shape))


def carrying_pays(sizes: tuple[int, ...], itemsize: int) -> bool:
    """Return whether the forward pass is faster if it carries along the tangents of all N inputs.

    It takes 1 + N multiply-adds for each weight then, but reads the weights once, which takes as long as
    about two multiply-adds where they come from the second cache. The limits are where both ways took
    equally long.
    """
    n_inputs, *hidden, n_outputs = sizes
    size = sum(a * b for a, b in pairwise(hidden)) * itemsize
    return size >= 1 << 16 and n_inputs < simd.MR and n_inputs <= max(2 + (size >= 1 << 19), n_outputs)


class Packed:
    """A network's weights in the layout that its plan reads, shared by all threads.

    With ``raw``, for two layers, those of the first stay as they are given on each call.
    """

    def __init__(self, layers: Sequence[Layer], plan: Plan, raw: bool = False) -> None:
        root = plan.root
        self.plan = plan
        self.layers = layers
        self.raw = raw
        self.transposed = orientations(root, root.left is not None and root.rows > root.cols and not raw)
        self.spine = _spine(root, self.transposed)
        self.forward = [False] * len(layers)
        for product, transposed in self.transposed.items():
            if product.left is None:
                self.forward[product.first] = transposed
        self.weights = [
            pack_panels(layer.w if forward else layer.w.T)
            for layer, forward in zip(layers, self.forward, strict=True)
        ]
        # Inactive ReLUs are 0 and need no weights, unless 0 times a weight is NaN.
        self.skips = [False] + [
            before.activation.name == "relu" and not raw and bool(np.isfinite(layer.w).all())
            for before, layer in pairwise(layers)
        ]
        # To read the rows of the other units only, w is kept beside w.T, as where w.T is mostly padding.
        width = simd.panel_width(layers[0].w.dtype)
        self.rows = {
            i: pack_panels(layer.w)
            for i, layer in enumerate(layers)
            if ((self.skips[i] and layer.b.size > width) or layer.w.shape[0] <= width)
            and not (self.forward[i] or raw)
        }
        carries = not raw and carrying_pays(plan.sizes, layers[0].w.itemsize)
        self.across = [
            self.weights[i] if self.forward[i] else self.rows.get(i, pack_panels(layer.w))
            for i, layer in enumerate(layers)
            if carries
        ]
        self.listed = {product for product in self.spine[1:] if self._is_listed(product)}

    def _is_listed(self, product: Product) -> bool:
        """Return whether to make a product for active units only: of ``w`` between hidden ReLU layers."""
        i = product.contracted
        relus = product.first == i in self.rows and self.skips[i] and self.skips[i + 1]
        return relus and listing_pays(product.rows, self.layers[i].w)


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
            record["slope"] = record["slopes"] = self._vector(width * padded(layer.b.size, self._dtype))
            record["block_a"] = self._vector(layer.b.size * width)
            record["active"] = self._integers(np.arange(padded(layer.b.size, self._dtype)))
            record["count"] = layer.b.size

        last = layers[-1].w
        self._scaled = (
            0 if packed.forward[-1] else self._vector(last.shape[1] * padded(last.shape[0], self._dtype))
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
        record["shares"] = record["all_shares"] = self._vector(width * padded(n_outputs, self._dtype))
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
        units = [padded(plan.sizes[step["layer"] + 1], self._dtype) for step in self._steps]
        lefts = [size * padded(step["m"], self._dtype) for step, size in zip(self._steps, units, strict=True)]
        record["left"] = self._vector(max(lefts, default=0))
        record["spares"] = len(packed.spine) > 0
        record["panel"] = self._vector(plan.sizes[1] * width if packed.raw else 0)
        record["edge"] = self._vector((simd.MR + 1) * width)
        if packed.across:
            room = (1 + n_inputs) * padded(widest, self._dtype)
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
        return int(self._keep(aligned_zeros(padded(size, self._dtype), self._dtype)).ctypes.data)

    def _integers(self, values: Array) -> int:
        return int(self._keep(values.astype(np.int64)).ctypes.data)

    def _fill_step(self, record: Any, product: Product, stored: dict[Product, int]) -> None:
        transposed = self._packed.transposed[product]
        vector, scalar = _roles(product, transposed)
        last = len(self._packed.layers) - 1
        m, n = (product.cols, product.rows) if transposed else (product.rows, product.cols)
        record["m"], record["n"] = m, n
        record["scalar"] = self._operand(scalar, stored)
        listed = self._packed.listed
        record["scalar_transposed"] = scalar in listed or self._packed.transposed[scalar] != transposed
        record["outputs"] = product in self._packed.spine
        record["vector"] = self._operand(vector, stored)
        record["head"] = transposed and vector.first == last
        if product in listed:
            record["listed"] = self._packed.rows[product.contracted].ctypes.data
            m, n = n, m
        if transposed or product is not self._packed.plan.root:
            record["out"] = stored[product] = self._vector(m * padded(n, self._dtype))

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
    address : int
        Of the address of the first context, or of 0 where there is none.
    """

    def __init__(self, packed: Packed) -> None:
        self.sizes = packed.plan.sizes[0], packed.plan.sizes[-1]
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
