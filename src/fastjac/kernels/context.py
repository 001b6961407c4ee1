"""The contexts that calls hand to the kernels: their records filled in, and room to work in."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastjac.kernels import machine_code
from fastjac.kernels.caches import cache_sizes
from fastjac.kernels.layout import CODES, CONTEXT, GIVEN, LAYER, SOFTMAX, STEP, UNSCALED
from fastjac.kernels.packing import STACK, Packed, aligned_zeros, roles, stacking_pays
from fastjac.kernels.target import WAYS, Target
from fastjac.layers import Activation, Layer
from fastjac.plan import Product

Array = NDArray[Any]


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
        context = self.arena.records(CONTEXT)
        self.record = context[0]
        self.address = int(context.ctypes.data)
        steps, result = self._make_steps(scaled)
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
            record["across"] = packed.across[i].ctypes.data if i in packed.across else 0
            record["skips"] = packed.skips[i]
            record["b"] = arena.vector(units, layer.b)
            record["block_a"] = arena.vector(units * packed.together)
            if packed.together > 1:
                record["block_b"] = arena.vector(units * packed.together, np.repeat(layer.b, packed.together))
            given, record["bound"] = packed.chain[i].given, packed.chain[i].bound
            if given:
                record["given"], record["n_given"] = self._make_given(given), len(given)
        return records

    def _fill_units(self, record: Any, activation: Activation, units: int) -> None:
        """Fill in a layer's activation, and the room for its outputs and slopes."""
        packed, arena = self._packed, self.arena
        padded = packed.target.padded(units, packed.dtype)
        record["fan_out"], record["pivot"] = units, -1
        name, parameter = activation
        record["activation"] = CODES[name]
        if CODES[name] < SOFTMAX:
            record["function"] = machine_code.address("activation", name, packed.dtype)
        if name == "prelu":
            slopes = np.broadcast_to(parameter, units)
            record["prelu"] = arena.vector(units, slopes)
            record["block_prelu"] = arena.vector(units * packed.together, np.repeat(slopes, packed.together))
        else:
            record["parameter"] = parameter
        record["flat"] = activation.is_flat
        record["a"] = arena.vector(units)
        record["slope"] = record["slopes"] = arena.vector(packed.together * padded)
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
        makers: dict[Product, Any] = {}  # The records that write what other products read.

        def operand(product: Product) -> int:
            if product.left is not None:
                return int(makers[product]["out"])
            is_scaled = product.first == last and scaled
            return scaled if is_scaled else int(packed.weights[product.first].ctypes.data)

        for record, product in zip(records, products, strict=True):
            transposed = packed.transposed[product]
            vector, scalar = roles(product, transposed)
            m, n = (product.cols, product.rows) if transposed else (product.rows, product.cols)
            record["layer"], record["m"], record["n"] = product.contracted, m, n
            record["scalar"], record["vector"] = operand(scalar), operand(vector)
            record["scalar_transposed"] = packed.transposed[scalar] != transposed
            record["gain"] = -1
            is_unscaled = packed.layers[product.contracted].activation.name in UNSCALED
            if not (is_unscaled or record["scalar_transposed"]):
                if scalar in makers:
                    makers[scalar]["gain"], record["scaled"] = product.contracted, 1
                elif record["scalar"] == scaled != 0:
                    self.record["scaled_by_slopes"] = record["scaled"] = 1
            record["outputs"] = product in packed.spine
            record["head"] = vector.first == last and transposed and not packed.transposed[root]
            if transposed or product is not root:
                record["out"] = arena.panels(m, n)
                makers[product] = record
        return records, int(makers[root]["out"]) if root in makers else 0

    def _fill(self, layers: Array, steps: Array, scaled: int, result: int) -> None:
        """Fill the context's own record."""
        packed, arena, record = self._packed, self.arena, self.record
        target, dtype, sizes = packed.target, packed.dtype, packed.plan.sizes
        (n_inputs, n_outputs), widest, width = self.sizes, max(sizes), target.panel_width(dtype)
        record["n_inputs"], record["n_outputs"] = n_inputs, n_outputs
        record["first_cache"], record["second_cache"] = cache_sizes()[:2]
        record["n_layers"], record["n_steps"] = layers.size, steps.size
        record["layers"], record["steps"] = layers.ctypes.data, steps.ctypes.data
        record["blocks"] = packed.together > 1
        record["x"], record["block_x"] = arena.vector(n_inputs), arena.vector(n_inputs * packed.together)
        record["units"] = arena.integers(np.arange(widest))
        record["block_slope"], record["block_shares"] = (
            arena.vector(units * packed.together) for units in (widest, n_outputs)
        )
        record["bests"], record["samples"] = arena.integers(np.zeros(packed.together)), packed.together
        record["gain"] = layers[len(packed.layers) - 1]["slope"]
        record["shares"] = record["all_shares"] = arena.panels(packed.together, n_outputs)
        for name in ("extra", "mean", "cotangent", "tangent"):
            record[name] = arena.vector(widest)
        stack = self._make_stack()
        most = max(widest, stack, math.prod(self.sizes) if record["paths"] else 0)
        record["panel_rows"] = arena.integers(np.arange(most) * width * dtype.itemsize)
        record["jac_rows"] = arena.integers(np.zeros(n_outputs))
        record["scaled"], record["result"] = scaled, result
        record["zeros"], record["ones"] = arena.vector(width), arena.vector(max(width, n_outputs), 1.0)
        units = [target.padded(layers["fan_out"][step["layer"]], dtype) for step in steps]
        rows = [int(step["m"]) for step in steps]
        left = max((size * target.padded(m, dtype) for m, size in zip(rows, units, strict=True)), default=0)
        record["left"] = arena.vector(left)
        if left * dtype.itemsize > record["first_cache"]:
            # Each tile has room for as many rows as the tallest.
            pairs = zip(rows, units, strict=True)
            record["compact"] = arena.vector(max(size * (m + -(-m // WAYS)) for m, size in pairs))
        record["spares"] = len(packed.spine) > 0
        record["panel"] = arena.vector(sizes[1] * width if packed.raw else 0)
        record["edge"] = arena.vector(max(n_outputs + 1, 5, width) * width)
        record["partial"] = arena.vector(max(widest, width) * width)
        record["table"] = arena.integers(np.zeros(2 * widest))
        self._make_tables(layers, steps)

    def _make_tables(self, layers: Array, steps: Array) -> None:
        """Make the tables of products that have the same units and rows in every call."""
        packed, most = self._packed, self.record["second_cache"] // 2
        itemsize, width = packed.dtype.itemsize, packed.target.panel_width(packed.dtype)
        spares = layers[len(packed.layers) - 1]["activation"] == SOFTMAX
        for step in steps:
            layer, rows = layers[step["layer"]], int(step["m"])
            is_compact = rows * layer["fan_out"] * itemsize > most
            if not (layer["flat"] or is_compact or (step["outputs"] and spares)):
                unit = np.arange(layer["fan_out"])
                panel, column = np.divmod(unit, width)
                offsets = (panel * rows * width + column) * itemsize, unit * width * itemsize
                step["table"] = self.arena.integers(np.column_stack(offsets).ravel())

    def _make_stack(self) -> int:
        """Make room for rows of several samples, if there are blocks of these; return for how many rows."""
        packed, arena, record = self._packed, self.arena, self.record
        blocks, widest = packed.together > 1, max(packed.plan.sizes[1:])
        record["stacks"] = blocks and packed.paths is None and stacking_pays(packed)
        rows = max(packed.together, STACK if record["stacks"] else 0) if blocks else 0
        record["stack"] = rows
        if packed.paths is not None:
            record["paths"] = packed.paths.ctypes.data
            record["jacs"] = arena.panels(math.prod(self.sizes), packed.together)
        record["stacked"], record["stacked_next"] = arena.panels(rows, widest), arena.panels(rows, widest)
        record["stack_rows"] = arena.integers(np.arange(rows) * self.sizes[0] * packed.dtype.itemsize)
        return rows

    def _make_room_for_tangents(self) -> None:
        """Make room for tangents that are carried along."""
        packed, arena, sizes = self._packed, self.arena, self._packed.plan.sizes
        (n_inputs, n_outputs), widest, record = self.sizes, max(sizes), self.record
        if packed.across:
            for name, units_out in (("tangents", widest), ("following", widest), ("outcome", n_outputs)):
                record[name] = arena.panels(1 + n_inputs, units_out)
