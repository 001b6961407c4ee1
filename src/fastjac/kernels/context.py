"""The contexts that calls hand to the kernels: records of sizes and addresses, and room to work in."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastjac.kernels.caches import cache_sizes
from fastjac.kernels.packing import Packed, aligned_zeros, roles
from fastjac.kernels.target import WAYS, Target
from fastjac.layers import ACTIVATIONS, Activation, Layer
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
#
# In a graph a layer is an affine map with its activation, or has no weights: an activation alone, or a value
# as it is. Its `w` holds w.T. Its `forward`, `raw`, `given`, `n_given` and `bound` are 0. Nothing reads
# `minus_b`, `slopes` or what a block of samples has.
LAYER = _record(
    fan_in=SIZE,
    fan_out=SIZE,
    w=ADDRESS,  # panels: w.T, or w where `forward`; or w as it is, row-major, where `raw`
    forward=SIZE,  # whether w holds w rather than w.T
    rows=ADDRESS,  # panels: w for the forward pass of one sample, or 0 where w.T serves
    across=ADDRESS,  # panels: w where tangents are carried along
    skips=SIZE,  # reads only the rows of the units that are active in the layer so many before; 0: all rows
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
    given=ADDRESS,  # the maps of which this layer is made, if several were merged ...
    n_given=SIZE,
    bound=NUMBER,  # ... and the largest input for which nothing overflows between them, else 0
    shares=ADDRESS,  # of a softmax in a graph: what `shares` of the context is for a chain's; else 0
    pivot=SIZE,  # the same of `pivot`; else -1
)
GIVEN = _record(
    fan_in=SIZE,
    fan_out=SIZE,
    w=ADDRESS,  # row-major
    b=ADDRESS,  # vector
    z=ADDRESS,  # vector: the map's output
)
# One operation of a graph's tape, on values or on matrices of their derivatives; see `nodes`. A field that an
# operation does not have is 0.
NODE = _record(
    operation=SIZE,
    layer=SIZE,  # of AFFINE, APPLY and HEAD, of products with weights by one row, and of products with heads
    step=SIZE,  # of PRODUCT: which step
    rows=SIZE,  # of the matrices: of outputs or of inputs, as the tape goes; of GATHER the entries of `first`
    size=SIZE,  # entries of the value, columns of the matrices
    first=ADDRESS,  # what is read: a value's vector, or the panels of a matrix
    second=ADDRESS,  # vector: of ADD and MULTIPLY the other value, of SCALE and TIMES_SCALE the factors, of
    # NORMALISE ones, or 0 without the mean, of TIMES_NORMALISE what NORMALISE made
    out=ADDRESS,  # what is written: a vector or panels, or 0 for the result. AFFINE and APPLY write to `a`
    start=SIZE,  # the first entry or column that COPY and MOVE read
    to=SIZE,  # and write
    adds=SIZE,  # whether MOVE adds to what is there
    index=ADDRESS,  # int64: the places of GATHER, SPREAD and PICK; vector: SCALE's shifts, TIMES_HEAD's ones
    epsilon=NUMBER,  # of NORMALISE
    number=NUMBER,  # one over the root that NORMALISE divided by
    source=ADDRESS,  # of TIMES_NORMALISE: the NODE of the NORMALISE
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
# A graph has no blocks of samples and no carried tangents: nothing reads the fields of these, nor `scaled`,
# `spares`, `panel` and `result`. Its `gain`, `shares` and `pivot` are those of the layer whose head is at
# work; `cotangent` and `tangent` are what `vjp` and `jvp` are given.
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
    output=ADDRESS,  # vector: the value of a graph, whose tapes follow; a chain has none
    value_tape=ADDRESS,
    n_value_tape=SIZE,
    vjp_tape=ADDRESS,
    n_vjp_tape=SIZE,
    jvp_tape=ADDRESS,
    n_jvp_tape=SIZE,
    jacobian_tape=ADDRESS,
    n_jacobian_tape=SIZE,
    plain_tape=ADDRESS,  # what makes the Jacobian where a value is not finite: from the outputs on
    n_plain_tape=SIZE,
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

    def vector(self, size: int, values: Array | float | None = None) -> int:
        """Return the address of a vector of ``size`` numbers, zeros unless ``values`` are given.

        Zeros take no memory until they are written to.
        """
        array = aligned_zeros(self._target.padded(size, self._dtype), self._dtype)
        if values is not None:
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
    is_graph : bool
        Whether its calls follow the tapes of a graph.
    """

    is_graph = False

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
        self._make_room_for_tangents()

    @property
    def __array_interface__(self) -> dict[str, Any]:
        """Lets NumPy see the record in an array that keeps this object."""
        return {"version": 3, "typestr": "|u1", "shape": (CONTEXT.itemsize,), "data": (self.address, False)}

    def _make_layers(self, others: int = 0) -> Array:
        """Return the records of all layers, and of so many without weights."""
        packed, arena = self._packed, self.arena
        records = arena.records(LAYER, len(packed.layers) + others)
        records["raw"][:1] = packed.raw
        for i, layer in enumerate(packed.layers):
            record, units = records[i], layer.b.size
            self._fill_units(record, layer.activation, units)
            record["fan_in"] = layer.w.shape[0]
            record["w"], record["forward"] = packed.weights[i].ctypes.data, packed.forward[i]
            if packed.forward[i]:
                record["rows"] = record["w"]
            elif i in packed.rows:
                record["rows"] = packed.rows[i].ctypes.data
            record["across"] = packed.across[i].ctypes.data if packed.across else 0
            record["skips"] = packed.skips[i]
            record["b"], record["minus_b"] = arena.vector(units, layer.b), arena.vector(units, -layer.b)
            record["block_a"] = arena.vector(units * packed.target.panel_width(packed.dtype))
            given, record["bound"] = packed.chain[i].given, packed.chain[i].bound
            if given:
                record["given"], record["n_given"] = self._make_given(given), len(given)
        return records

    def _fill_units(self, record: Any, activation: Activation, units: int) -> None:
        """Fill in a layer's activation, and the room for its outputs and slopes."""
        packed, arena = self._packed, self.arena
        padded = packed.target.padded(units, packed.dtype)
        record["fan_out"], record["pivot"] = units, -1
        width = packed.target.panel_width(packed.dtype)
        name, parameter = activation
        record["activation"] = list(ACTIVATIONS).index(name)
        if name == "prelu":
            slopes = np.broadcast_to(parameter, units)
            record["prelu"] = arena.vector(units, slopes)
            record["block_prelu"] = arena.vector(units * width, np.repeat(slopes, width))
        else:
            record["parameter"] = parameter
        record["flat"] = activation.active != (-np.inf, np.inf)
        record["a"] = arena.vector(units)
        record["slope"] = record["slopes"] = arena.vector(width * padded)
        record["active"], record["count"] = arena.integers(np.arange(padded)), units

    def _make_given(self, layers: Sequence[Layer]) -> int:
        """Return the address of the records of affine maps in a row."""
        records = self.arena.records(GIVEN, len(layers))
        for record, layer in zip(records, layers, strict=True):
            record["fan_in"], record["fan_out"] = layer.w.shape
            record["w"], record["b"] = layer.w.ctypes.data, self.arena.vector(layer.b.size, layer.b)
            record["z"] = self.arena.vector(layer.b.size)
        return int(records.ctypes.data)

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
        record["first_cache"], record["second_cache"] = cache_sizes()[:2]
        record["n_layers"], record["n_steps"] = layers.size, steps.size
        record["layers"], record["steps"] = layers.ctypes.data, steps.ctypes.data
        record["blocks"] = not any(packed.forward) and not packed.raw
        record["x"], record["block_x"] = arena.vector(n_inputs), arena.vector(n_inputs * width)
        record["units"] = arena.integers(np.arange(widest))
        record["block_slope"], record["block_shares"] = (
            arena.vector(units * width) for units in (widest, n_outputs)
        )
        record["bests"], record["samples"] = arena.integers(np.zeros(width)), width
        record["gain"] = layers[len(packed.layers) - 1]["slope"]
        record["shares"] = record["all_shares"] = arena.panels(width, n_outputs)
        for name in ("extra", "mean", "cotangent", "tangent"):
            record[name] = arena.vector(widest)
        record["panel_rows"] = arena.integers(np.arange(widest) * width * dtype.itemsize)
        record["jac_rows"] = arena.integers(np.zeros(n_outputs))
        record["scaled"], record["result"] = scaled, result
        record["zeros"], record["ones"] = arena.vector(width), arena.vector(max(width, n_outputs), 1.0)
        units = [target.padded(layers["fan_out"][step["layer"]], dtype) for step in steps]
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

    def _make_room_for_tangents(self) -> None:
        """Make room for tangents that are carried along."""
        packed, arena, sizes = self._packed, self.arena, self._packed.plan.sizes
        (n_inputs, n_outputs), widest, record = self.sizes, max(sizes), self.record
        if packed.across:
            for name, units_out in (("tangents", widest), ("following", widest), ("outcome", n_outputs)):
                record[name] = arena.panels(1 + n_inputs, units_out)
