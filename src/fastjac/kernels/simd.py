"""The only file that knows vectors: the register tile, the row dots, and the geometry they share.

A *panel* matrix holds (rows, cols) as ``ceil(cols / NR)`` panels, each of all rows, each row NR
contiguous elements: element (r, c) is at ``(c // NR * rows + r) * NR + c % NR``. Panels start on
64-byte boundaries and the columns past the last one are zeros, so vectors are read whole. NR is
`NV` vectors of the compile target.

`tiles` computes ``C[r, :] = sum_k A[r, k] * B[k, :]`` over the units k of an index, for 1 to `MR` rows of A
and one panel of B after the other, or of each its first vector, in registers. A is a panel matrix given from
its first row on, with ``a_panel`` bytes from one panel to the next; the rows of B are ``b_stride`` bytes
apart, at any address, its panels ``b_panel``. It writes as much of each row of C, at a byte offset from a
table, ``c_panel`` bytes further for each panel, and asks for the lines ``ahead`` bytes further. Where
``rest`` is not 0 it also writes the row ``rest = before - sum of the rows``, with what it holds, if ``more``,
for ``before``, else 0.
`listed_tile` does so for one panel and `LISTED` rows at the byte offsets ``rows`` in A and in C; for each k
``units`` holds its byte offsets in A and in B.
`long_row` is a tile of one row and 1 to `LONG` vectors, which follow each other in B.
`dots` computes the products of 1 to `DOTS` rows of a panel matrix with a padded vector, and writes whole
vectors, zeros behind the last: what reads them next gets them from the store buffer.
`transpose` writes a square of ``side`` rows and columns exchanged; rows are ``stride`` and ``out_stride``
bytes apart. The side is a power of two up to the elements of a vector.
`scale` computes ``out = (row - mean) * gain`` for the rows of a panel, with one mean for each row, ``step``
bytes from the one before, and a row of gains.
`head` multiplies the rows of a panel of the last layer's weights by the head: row m becomes
``(row m - base + extra) * gain[m]``, the row of the pivot ``extra * gain[m]``, with ``extra`` the sum of
``shared`` of the rows times ``shares``; the spared row is left out.
`add` adds one padded vector to another, and tells whether all sums are finite.
`divide` divides a padded vector by a number, and leaves the negative quotients in its place.
`largest` finds the first of the largest elements, NaN left aside, and its position.
`nonzero` lists the positions of the elements of a padded vector that are not 0, and returns how many they
are; what follows them in the list, as long as the vector, is of no use.
Addresses are integers; nothing outside the named ranges is read or written.
"""

from __future__ import annotations

import functools
import itertools
import math
from typing import Any, NamedTuple

import numpy as np
from llvmlite import ir
from numba.core.registry import cpu_target

NV = 2
LONG = 8  # vectors of a long row
LINE = 64  # bytes of a cache line
INT = ir.IntType(64)
BYTE_POINTER = ir.IntType(8).as_pointer()


class Target(NamedTuple):
    """What the register tile has to know of an instruction set."""

    vector_bytes: int
    registers: int
    fma: bool


def target_of(triple: str, features: str) -> Target:
    """Return the vector unit that LLVM may use for ``triple`` with ``features`` (``+avx2,-fma,...``)."""
    have = set(features.split(","))
    if triple.startswith(("aarch64", "arm64")):
        return Target(16, 32, True)
    if "+avx512f" in have:
        return Target(64, 32, True)
    return Target(32 if "+avx2" in have else 16, 16, "+fma" in have)


def _numba_target() -> Target:
    triple, _, features = cpu_target.target_context.codegen().magic_tuple()
    return target_of(triple, features)


def most_rows(target: Target) -> int:
    """Return the rows of the largest tile: what registers leave beside B, a broadcast and a product."""
    return 12 if target.registers == 32 else 6


def most_dots(target: Target) -> int:
    """Return the most rows that `emit_dots` takes: a multiple of the elements of a vector."""
    return max(8, target.vector_bytes // 4)


def listed_rows(target: Target) -> int:
    """Return the rows of a listed tile, which keeps the address of each in a register."""
    return 2 * most_rows(target) // 3


TARGET = _numba_target()
MR = most_rows(TARGET)
DOTS = most_dots(TARGET)
LISTED = listed_rows(TARGET)


def itemsize(dtype: np.dtype[Any]) -> int:
    """Return the bytes of one element, also in compiled code."""
    return dtype.itemsize


def panel_width(dtype: np.dtype[Any]) -> int:
    """Return NR, the elements in one row of a panel, also in compiled code."""
    return NV * TARGET.vector_bytes // dtype.itemsize


def grain(target: Target) -> int:
    """Return the bytes of the narrowest vector that may be multiplied faster than a wider one."""
    return min(32, target.vector_bytes)


class Vectors:
    """Emits loads, stores and arithmetic on vectors of one element type for one target."""

    def __init__(self, builder: ir.IRBuilder, element: ir.Type, target: Target) -> None:
        self.builder = builder
        self.element = element
        self.target = target
        self.size = 8 if isinstance(element, ir.DoubleType) else 4
        self.lanes = target.vector_bytes // self.size
        self.type = ir.VectorType(element, self.lanes)
        self.zero = ir.Constant(self.type, [0.0] * self.lanes)
        self.module = builder.module

    def covering(self, nbytes: int) -> list[Vectors]:
        """Return what emits ``nbytes`` as whole vectors and, where less than one is left, a narrower one."""
        whole, left = divmod(nbytes, self.target.vector_bytes)
        narrow = Vectors(self.builder, self.element, self.target._replace(vector_bytes=left))
        return [self] * whole + [narrow] * (left > 0)

    def at(self, address: ir.Value, offset: ir.Value | int, kind: ir.Type) -> ir.Value:
        """Return the pointer to a ``kind`` that is ``offset`` bytes past the integer ``address``."""
        if isinstance(offset, int):
            offset = INT(offset)
        base = self.builder.inttoptr(address, BYTE_POINTER)
        byte = self.builder.gep(base, [offset], source_etype=ir.IntType(8))
        return self.builder.bitcast(byte, kind.as_pointer())

    def load(self, address: ir.Value, offset: ir.Value | int, align: int | None = None) -> ir.Value:
        """Return the vector at an address plus an offset."""
        return self.builder.load(self.at(address, offset, self.type), align=align or self.size)

    def store(self, value: ir.Value, address: ir.Value, offset: ir.Value | int) -> None:
        """Write a vector to an address plus an offset."""
        self.builder.store(value, self.at(address, offset, self.type), align=self.size)

    def broadcast(self, address: ir.Value, offset: ir.Value | int) -> ir.Value:
        """Return the element at an address plus an offset in every lane."""
        return self.splat(self.builder.load(self.at(address, offset, self.element), align=self.size))

    def splat(self, scalar: ir.Value) -> ir.Value:
        """Return a number in every lane."""
        undefined = ir.Constant(ir.VectorType(scalar.type, self.lanes), ir.Undefined)
        lane = self.builder.insert_element(undefined, scalar, ir.IntType(32)(0))
        return self.shuffle(lane, undefined, [0] * self.lanes)

    def shuffle(self, low: ir.Value, high: ir.Value, lanes: list[int]) -> ir.Value:
        """Return the vector of the numbered lanes of ``low`` and, behind them, ``high``."""
        mask = ir.Constant(ir.VectorType(ir.IntType(32), self.lanes), lanes)
        return self.builder.shuffle_vector(low, high, mask)

    def multiply_add(self, a: ir.Value, b: ir.Value, c: ir.Value) -> ir.Value:
        """Return ``a * b + c``."""
        if not self.target.fma:
            return self.builder.fadd(self.builder.fmul(a, b), c)
        return self.builder.call(self._declare("llvm.fma", [self.type] * 3, self.type), [a, b, c])

    def prefetch(self, address: ir.Value, offset: int) -> None:
        """Ask for the cache line at an address plus an offset, to write to it soon."""
        number = ir.IntType(32)
        prefetch = self.function("llvm.prefetch.p0", [BYTE_POINTER, number, number, number], ir.VoidType())
        place = self.at(address, offset, ir.IntType(8))
        self.builder.call(prefetch, [place, number(1), number(3), number(1)])

    def total(self, value: ir.Value) -> ir.Value:
        """Return the sum of the lanes, in the order that is fastest."""
        add = self._declare("llvm.vector.reduce.fadd", [self.element, self.type], self.element)
        return self.builder.call(add, [ir.Constant(self.element, -0.0), value], fastmath=("reassoc",))

    def most(self, value: ir.Value) -> ir.Value:
        """Return the largest of the lanes."""
        return self.builder.call(self._declare("llvm.vector.reduce.fmax", [self.type], self.element), [value])

    def totals(self, values: list[ir.Value]) -> ir.Value:
        """Return a vector of the sums of the lanes of at most as many vectors as there are lanes."""
        lanes, distance = range(self.lanes), self.lanes // 2
        while distance:
            # Of each pair of vectors, half of the lanes are added to the other half.
            low = [(k & ~distance) + (self.lanes if k & distance else 0) for k in lanes]
            high = [k + distance for k in low]
            pairs = itertools.zip_longest(values[:distance], values[distance:], fillvalue=self.zero)
            values = [self.builder.fadd(self.shuffle(a, b, low), self.shuffle(a, b, high)) for a, b in pairs]
            distance //= 2
        return values[0]

    def _declare(self, name: str, arguments: list[ir.Type], result: ir.Type) -> ir.Function:
        return self.function(f"{name}.v{self.lanes}f{8 * self.size}", arguments, result)

    def function(self, name: str, arguments: list[ir.Type], result: ir.Type) -> ir.Function:
        """Return LLVM's function of a name."""
        known = self.module.globals.get(name)
        return known or ir.Function(self.module, ir.FunctionType(result, arguments), name)


class Loop:
    """Emits ``for i in range(start, stop, step)`` that carries values from one turn to the next."""

    def __init__(
        self, builder: ir.IRBuilder, start: ir.Value, stop: ir.Value, step: int, carried: list[ir.Value]
    ) -> None:
        self.builder, self.stop, self.step = builder, stop, step
        self.entry = builder.block
        self.head = builder.append_basic_block("loop")
        self.body = builder.append_basic_block("body")
        self.done = builder.append_basic_block("done")
        builder.branch(self.head)
        builder.position_at_end(self.head)
        self.i = builder.phi(INT)
        self.i.add_incoming(start, self.entry)
        self.values = []
        for value in carried:
            phi = builder.phi(value.type)
            phi.add_incoming(value, self.entry)
            self.values.append(phi)
        last = builder.add(self.i, INT(step - 1))
        builder.cbranch(builder.icmp_signed("<", last, stop), self.body, self.done)
        builder.position_at_end(self.body)

    def close(self, carried: list[ir.Value]) -> None:
        """End the body with the values that the next turn gets, and go on behind the loop."""
        following = self.builder.add(self.i, INT(self.step))
        self.i.add_incoming(following, self.builder.block)
        for phi, value in zip(self.values, carried, strict=True):
            phi.add_incoming(value, self.builder.block)
        self.builder.branch(self.head)
        self.builder.position_at_end(self.done)


def emit_tiles(
    vectors: Vectors,
    rows: int,
    width: int,
    panels: ir.Value,
    k: ir.Value,
    a: ir.Value,
    a_panel: ir.Value,
    b: ir.Value,
    b_panel: ir.Value,
    b_stride: ir.Value,
    index: ir.Value,
    c: ir.Value,
    c_panel: ir.Value,
    ahead: ir.Value,
    c_rows: ir.Value,
    more: ir.Value,
    rest: ir.Value,
) -> None:
    """Emit register tiles of ``rows`` rows, ``width`` vectors wide; see the top of this file."""
    builder, size = vectors.builder, vectors.target.vector_bytes
    spares = builder.icmp_signed("!=", rest, INT(0))
    adds = builder.icmp_signed("!=", more, INT(0))
    loop = Loop(builder, INT(0), panels, 1, [])
    done = builder.mul(loop.i, c_panel)
    c, rest = builder.add(c, done), builder.add(rest, done)
    b = builder.add(b, builder.mul(loop.i, b_panel))
    acc = emit_tile(vectors, rows, width, k, a, a_panel, b, b_stride, index)
    for r in range(rows):
        place = builder.add(c, builder.load(vectors.at(c_rows, 8 * r, INT), align=8))
        for j in range(width):
            vectors.store(acc[r * width + j], place, j * size)
        for line in range(0, width * size, LINE):
            vectors.prefetch(builder.add(place, ahead), line)
    with builder.if_then(spares):
        for j in range(width):
            value = builder.select(adds, vectors.load(rest, j * size), vectors.zero)
            for r in range(rows):
                value = builder.fsub(value, acc[r * width + j])
            vectors.store(value, rest, j * size)
    loop.close([])


def emit_tile(
    vectors: Vectors,
    rows: int,
    width: int,
    k: ir.Value,
    a: ir.Value,
    a_panel: ir.Value,
    b: ir.Value,
    b_stride: ir.Value,
    index: ir.Value,
) -> list[ir.Value]:
    """Emit one register tile and return its vectors, row by row; see the top of this file."""
    builder, size = vectors.builder, vectors.target.vector_bytes
    lane_bits = (NV * vectors.lanes).bit_length() - 1
    # A multiply-add takes four cycles: a tile of few rows works on several k at a time to fill them.
    chains = max(1, 4 * NV // (rows * width))

    def step(position: ir.Value, acc: list[ir.Value]) -> list[ir.Value]:
        """Add the products of one k to the accumulators of one chain."""
        unit = builder.load(vectors.at(index, builder.mul(position, INT(8)), INT), align=8)
        b_row = builder.add(b, builder.mul(unit, b_stride))
        lane = builder.and_(unit, INT((1 << lane_bits) - 1))
        a_unit = builder.add(a, builder.mul(builder.lshr(unit, INT(lane_bits)), a_panel))
        a_unit = builder.add(a_unit, builder.mul(lane, INT(vectors.size)))
        b_vectors = [vectors.load(b_row, j * size) for j in range(width)]
        result = []
        for r in range(rows):
            factor = vectors.broadcast(a_unit, r * NV * size)
            result += [vectors.multiply_add(factor, b_vectors[j], acc[r * width + j]) for j in range(width)]
        return result

    def run(start: ir.Value, stride: int, acc: list[ir.Value]) -> tuple[ir.Value, list[ir.Value]]:
        """Emit the loop over k in strides with one chain of accumulators for each k of a stride."""
        loop = Loop(builder, start, k, stride, acc)
        share = rows * width
        values: list[ir.Value] = []
        for chain in range(stride):
            position = builder.add(loop.i, INT(chain))
            values += step(position, loop.values[chain * share : (chain + 1) * share])
        loop.close(values)
        return loop.i, loop.values

    position, acc = run(INT(0), chains, [vectors.zero] * (chains * rows * width))
    while len(acc) > rows * width:
        half = len(acc) // 2
        acc = [builder.fadd(acc[i], acc[half + i]) for i in range(half)]
    if chains > 1:
        _, acc = run(position, 1, acc)
    return acc


def emit_listed_tile(
    vectors: Vectors,
    nbytes: int,
    k: ir.Value,
    units: ir.Value,
    a: ir.Value,
    b: ir.Value,
    c: ir.Value,
    rows: ir.Value,
) -> None:
    """Emit the tile of listed rows, ``nbytes`` wide; see the top of this file."""
    builder, parts = vectors.builder, list(enumerate(vectors.covering(nbytes)))
    width = vectors.target.vector_bytes
    numbers = range(listed_rows(vectors.target))
    offsets = [builder.load(vectors.at(rows, 8 * r, INT), align=8) for r in numbers]
    a_rows = [builder.add(a, offset) for offset in offsets]
    loop = Loop(builder, INT(0), k, 1, [part.zero for _ in offsets for _, part in parts])
    unit = builder.add(units, builder.mul(loop.i, INT(16)))
    a_unit, b_unit = (builder.load(vectors.at(unit, at, INT), align=8) for at in (0, 8))
    b_row, acc = builder.add(b, b_unit), iter(loop.values)
    b_vectors = [part.load(b_row, j * width) for j, part in parts]
    values = [
        part.multiply_add(part.broadcast(a_row, a_unit), b_vectors[j], next(acc))
        for a_row in a_rows
        for j, part in parts
    ]
    loop.close(values)
    acc = iter(loop.values)
    for offset in offsets:
        for j, part in parts:
            part.store(next(acc), builder.add(c, offset), j * width)


def emit_dots(
    vectors: Vectors,
    rows: int,
    panels: ir.Value,
    w: ir.Value,
    panel_bytes: ir.Value,
    x: ir.Value,
    z: ir.Value,
) -> None:
    """Emit ``z[r] = sum_c w[r, c] * x[c]`` for ``rows`` rows; see the top of this file."""
    builder, width = vectors.builder, vectors.target.vector_bytes
    # A sum for each row, and where these are few for each row and vector, to fill the multiply-adds' latency.
    chains = NV if NV * rows <= most_dots(vectors.target) else 1
    loop = Loop(builder, INT(0), panels, 1, [vectors.zero] * (rows * chains))
    w_panel = builder.add(w, builder.mul(loop.i, panel_bytes))
    x_panel = builder.add(x, builder.mul(loop.i, INT(NV * width)))
    acc = list(loop.values)
    for j in range(NV):
        x_vector = vectors.load(x_panel, j * width, width)
        for r in range(rows):
            w_vector = vectors.load(w_panel, (r * NV + j) * width, width)
            i = r * chains + j % chains
            acc[i] = vectors.multiply_add(w_vector, x_vector, acc[i])
    loop.close(acc)
    sums = [functools.reduce(builder.fadd, loop.values[i : i + chains]) for i in range(0, len(acc), chains)]
    for start in range(0, rows, vectors.lanes):
        vectors.store(vectors.totals(sums[start : start + vectors.lanes]), z, start * vectors.size)


def emit_transpose(
    vectors: Vectors, source: ir.Value, stride: ir.Value, out: ir.Value, out_stride: ir.Value
) -> None:
    """Emit the transposition of a square of vectors; see the top of this file."""
    builder, lanes = vectors.builder, vectors.lanes
    rows = [vectors.load(builder.add(source, builder.mul(stride, INT(i))), 0) for i in range(lanes)]
    # Bit by bit, swap that of the row's number with that of the lane's.
    for bit in (1 << shift for shift in range(lanes.bit_length() - 1)):
        for i in range(lanes):
            if not i & bit:
                low, high = rows[i], rows[i | bit]
                from_low = [lanes + (k ^ bit) if k & bit else k for k in range(lanes)]
                from_high = [lanes + k if k & bit else k ^ bit for k in range(lanes)]
                rows[i], rows[i | bit] = (
                    vectors.shuffle(low, high, from_low),
                    vectors.shuffle(low, high, from_high),
                )
    for i, row in enumerate(rows):
        vectors.store(row, builder.add(out, builder.mul(out_stride, INT(i))), 0)


def emit_scale(
    vectors: Vectors,
    rows: ir.Value,
    panel: ir.Value,
    mean: ir.Value,
    step: ir.Value,
    gain: ir.Value,
    out: ir.Value,
) -> None:
    """Emit the scaling of a panel's columns; see the top of this file."""
    builder, size = vectors.builder, vectors.target.vector_bytes
    factors = [vectors.load(gain, j * size) for j in range(NV)]
    loop = Loop(builder, INT(0), rows, 1, [])
    at = builder.mul(loop.i, INT(NV * size))
    low = vectors.broadcast(mean, builder.mul(loop.i, step))
    for j, factor in enumerate(factors):
        place = builder.add(at, INT(j * size))
        value = builder.fsub(vectors.load(panel, place), low)
        vectors.store(builder.fmul(value, factor), out, place)
    loop.close([])


def emit_head(
    vectors: Vectors,
    rows: ir.Value,
    shared: ir.Value,
    panel: ir.Value,
    shares: ir.Value,
    gain: ir.Value,
    base: ir.Value,
    pivot: ir.Value,
    spared: ir.Value,
    units: ir.Value,
    out: ir.Value,
) -> None:
    """Emit a panel's rows multiplied by the head; see the top of this file."""
    builder, size = vectors.builder, vectors.target.vector_bytes
    row = INT(NV * size)
    extra = emit_tile(vectors, 1, NV, shared, shares, row, panel, row, units)
    mean = [builder.fsub(vectors.load(base, j * size), extra[j]) for j in range(NV)]
    loop = Loop(builder, INT(0), rows, 1, [out])
    (to,) = loop.values
    at = builder.add(panel, builder.mul(loop.i, row))
    factor = vectors.broadcast(gain, builder.mul(loop.i, INT(vectors.size)))
    at_pivot = builder.icmp_signed("==", loop.i, pivot)
    for j in range(NV):
        value = builder.select(at_pivot, extra[j], builder.fsub(vectors.load(at, j * size), mean[j]))
        vectors.store(builder.fmul(value, factor), to, j * size)
    # The row after the spared one takes its place.
    step = builder.select(builder.icmp_signed("==", loop.i, spared), INT(0), row)
    loop.close([builder.add(to, step)])


def emit_add(vectors: Vectors, size: ir.Value, values: ir.Value, others: ir.Value) -> ir.Value:
    """Emit the sum of two vectors, and whether all of it is finite; see the top of this file."""
    builder, bits = vectors.builder, ir.VectorType(ir.IntType(1), vectors.lanes)
    loop = Loop(builder, INT(0), size, vectors.lanes, [ir.Constant(bits, [0] * vectors.lanes)])
    at = builder.mul(loop.i, INT(vectors.size))
    total = builder.fadd(vectors.load(values, at), vectors.load(others, at))
    vectors.store(total, values, at)
    broken = builder.fcmp_unordered("!=", builder.fsub(total, total), vectors.zero)
    loop.close([builder.or_(loop.values[0], broken)])
    lanes = ir.IntType(vectors.lanes)
    return builder.icmp_signed("==", builder.bitcast(loop.values[0], lanes), lanes(0))


def emit_divide(
    vectors: Vectors, size: ir.Value, values: ir.Value, divisor: ir.Value, quotients: ir.Value
) -> None:
    """Emit the division of a vector by a number; see the top of this file."""
    builder = vectors.builder
    loop = Loop(builder, INT(0), size, vectors.lanes, [])
    at = builder.mul(loop.i, INT(vectors.size))
    quotient = builder.fdiv(vectors.load(values, at), vectors.splat(divisor))
    vectors.store(quotient, quotients, at)
    vectors.store(builder.fneg(quotient), values, at)
    loop.close([])


def emit_largest(vectors: Vectors, size: ir.Value, values: ir.Value) -> tuple[ir.Value, ir.Value]:
    """Emit the position of the largest of some elements and that one; see the top of this file."""
    builder, lanes = vectors.builder, vectors.lanes
    kind, bits = ir.VectorType(INT, lanes), ir.IntType(lanes)
    end, none = vectors.splat(size), ir.Constant(vectors.type, [-math.inf] * lanes)
    loop = Loop(builder, INT(0), builder.add(size, INT(lanes - 1)), lanes, [none])
    inside = builder.add(vectors.splat(loop.i), ir.Constant(kind, list(range(lanes))))
    inside = builder.icmp_signed("<", inside, end)
    value = vectors.load(values, builder.mul(loop.i, INT(vectors.size)))
    value = builder.select(inside, value, none)
    loop.close([builder.select(builder.fcmp_ordered(">", value, loop.values[0]), value, loop.values[0])])
    top = vectors.most(loop.values[0])

    # Backwards, so that the first is found last.
    count = builder.sdiv(builder.add(size, INT(lanes - 1)), INT(lanes))
    loop = Loop(builder, INT(0), count, 1, [INT(0)])
    start = builder.mul(builder.sub(builder.sub(count, INT(1)), loop.i), INT(lanes))
    value = vectors.load(values, builder.mul(start, INT(vectors.size)))
    equal = builder.bitcast(builder.fcmp_ordered("==", value, vectors.splat(top)), bits)
    first = builder.add(start, builder.zext(builder.cttz(equal, ir.IntType(1)(0)), INT))
    loop.close([builder.select(builder.icmp_unsigned("!=", equal, bits(0)), first, loop.values[0])])
    return loop.values[0], top


def emit_nonzero(vectors: Vectors, size: ir.Value, values: ir.Value, out: ir.Value) -> ir.Value:
    """Emit the list of positions of elements that are not 0; see the top of this file."""
    builder, part = vectors.builder, vectors.target.vector_bytes // 8
    kind, bits = ir.VectorType(INT, part), ir.VectorType(ir.IntType(1), part)
    name = f"llvm.experimental.vector.compress.v{part}i64"
    compress = vectors.function(name, [kind, bits, kind], kind)
    loop = Loop(builder, INT(0), size, vectors.lanes, [INT(0), ir.Constant(kind, list(range(part)))])
    count, positions = loop.values
    value = vectors.load(values, builder.mul(loop.i, INT(vectors.size)))
    found = builder.fcmp_unordered("!=", value, vectors.zero)
    for first in range(0, vectors.lanes, part):
        lanes = ir.Constant(ir.VectorType(ir.IntType(32), part), list(range(first, first + part)))
        mask = builder.shuffle_vector(found, found, lanes)
        listed = builder.call(compress, [positions, mask, ir.Constant(kind, ir.Undefined)])
        builder.store(listed, vectors.at(out, builder.mul(count, INT(8)), kind), align=8)
        number = builder.ctpop(builder.bitcast(mask, ir.IntType(part)))
        count = builder.add(count, builder.zext(number, INT))
        positions = builder.add(positions, ir.Constant(kind, [part] * part))
    loop.close([count, positions])
    return loop.values[0]
