"""Operations on whole vectors, on the rows of a panel and on squares, as LLVM instructions.

`transpose` writes ``side`` rows of at least as many columns exchanged, square by square; rows are ``stride``
and ``out_stride`` bytes apart. The side is a power of two up to the elements of a vector, and the last square
overlaps the one before it. `transpose_scaled` writes ``(row - mean) * gain`` so, with one mean for each row
and a row of gains.
`scale` computes ``out = (row - mean) * gain`` for the rows of a panel, with one mean for each row, ``step``
bytes from the one before, and a row of gains. It writes the vectors that hold the first ``cols`` columns: a
mean that is NaN would make the zeros behind them NaN for good.
`head` multiplies the rows of panels of the last layer's weights by the head: row m becomes
``(row m - base + extra) * gain[m]``, the row of the pivot ``extra * gain[m]``, with ``extra`` the sum of
``shared`` of the rows times ``shares``; the spared row is left out. The columns are multiplied by ``slope``.
`head_lanes` does this to the Jacobians of a block of samples, one panel (M * N, samples): ``shares``,
``pivots``, which are 1 for the pivot's row and else 0, and ``gain`` are panels (M, samples).
`add` adds one padded vector to another, and tells whether all sums are finite.
`divide` divides a padded vector by a number, and leaves the negative quotients in its place.
`total` sums a vector, padded to whole panels, in as many sums as a panel is wide: one long sum would round
more.
`largest` finds the first of the largest elements, NaN left aside, and its position.
`nonzero` lists the positions of the elements of a padded vector that are not 0, and returns how many they
are; what follows them in the list, as long as the vector, is of no use.
Addresses are integers; nothing outside the named ranges is read or written.
"""

from __future__ import annotations

import functools
import math

from llvmlite import ir

from fastjac.kernels.llvm.tiles import emit_indexed_tile
from fastjac.kernels.llvm.vectors import INT, INT32, Loop, Vectors
from fastjac.kernels.target import NV


def emit_transpose(
    vectors: Vectors,
    cols: ir.Value,
    source: ir.Value,
    stride: ir.Value,
    out: ir.Value,
    out_stride: ir.Value,
    mean: ir.Value | None = None,
    gain: ir.Value | None = None,
) -> None:
    """Emit the transposition of some rows, scaled where there is a gain; see the top of this file."""
    builder, lanes = vectors.builder, vectors.lanes
    lows = [] if mean is None else [vectors.broadcast(mean, i * vectors.size) for i in range(lanes)]
    loop = Loop(builder, INT(0), builder.add(cols, INT(lanes - 1)), lanes, [])
    last = builder.sub(cols, INT(lanes))
    first = builder.select(builder.icmp_signed("<", loop.i, last), loop.i, last)
    source = builder.add(source, builder.mul(first, INT(vectors.size)))
    out = builder.add(out, builder.mul(first, out_stride))
    rows = [vectors.load(builder.add(source, builder.mul(stride, INT(i))), 0) for i in range(lanes)]
    if gain is not None:
        factor = vectors.load(gain, builder.mul(first, INT(vectors.size)))
        rows = [builder.fmul(builder.fsub(row, low), factor) for row, low in zip(rows, lows, strict=True)]
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
    loop.close([])


def emit_scale(
    vectors: Vectors,
    rows: ir.Value,
    cols: ir.Value,
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
        with builder.if_then(builder.icmp_signed(">", cols, INT(j * vectors.lanes))):
            place = builder.add(at, INT(j * size))
            value = builder.fsub(vectors.load(panel, place), low)
            vectors.store(builder.fmul(value, factor), out, place)
    loop.close([])


def emit_head(
    vectors: Vectors,
    rows: ir.Value,
    shared: ir.Value,
    panels: ir.Value,
    panel: ir.Value,
    shares: ir.Value,
    gain: ir.Value,
    zeros: ir.Value,
    pivot: ir.Value,
    spared: ir.Value,
    units: ir.Value,
    slope: ir.Value,
    slope_step: ir.Value,
    out: ir.Value,
    out_panel: ir.Value,
) -> None:
    """Emit the rows of panels multiplied by the head; see the top of this file."""
    builder, size = vectors.builder, vectors.target.vector_bytes
    row = INT(NV * size)
    has_pivot = builder.icmp_signed(">=", pivot, INT(0))
    each = Loop(builder, INT(0), panels, 1, [panel, slope, out])
    here, slopes_at, start = each.values
    base = builder.select(has_pivot, builder.add(here, builder.mul(pivot, row)), zeros)
    extra = emit_indexed_tile(vectors, NV, shared, shares, here, row, units)
    mean = [builder.fsub(vectors.load(base, j * size), extra[j]) for j in range(NV)]
    slopes = [vectors.load(slopes_at, j * size) for j in range(NV)]
    loop = Loop(builder, INT(0), rows, 1, [start])
    (to,) = loop.values
    at = builder.add(here, builder.mul(loop.i, row))
    factor = vectors.broadcast(gain, builder.mul(loop.i, INT(vectors.size)))
    at_pivot = builder.icmp_signed("==", loop.i, pivot)
    for j in range(NV):
        value = builder.select(at_pivot, extra[j], builder.fsub(vectors.load(at, j * size), mean[j]))
        vectors.store(builder.fmul(builder.fmul(value, factor), slopes[j]), to, j * size)
    # The row after the spared one takes its place.
    step = builder.select(builder.icmp_signed("==", loop.i, spared), INT(0), row)
    loop.close([builder.add(to, step)])
    steps = builder.mul(rows, row), slope_step, out_panel
    each.close([builder.add(at, step) for at, step in zip(each.values, steps, strict=True)])


def emit_head_lanes(
    vectors: Vectors,
    inputs: ir.Value,
    outputs: ir.Value,
    shared: ir.Value,
    panel: ir.Value,
    shares: ir.Value,
    pivots: ir.Value,
    gain: ir.Value,
) -> None:
    """Emit the Jacobians of a block of samples multiplied by their heads; see the top of this file."""
    builder, size = vectors.builder, vectors.target.vector_bytes
    row = INT(NV * size)
    stride = builder.mul(inputs, row)
    column = Loop(builder, INT(0), inputs, 1, [])
    here = builder.add(panel, builder.mul(column.i, row))
    sums = Loop(builder, INT(0), shared, 1, [vectors.zero] * (2 * NV))
    at, m = builder.add(here, builder.mul(sums.i, stride)), builder.mul(sums.i, row)
    values = [vectors.load(at, j * size) for j in range(NV)] * 2
    factors = [vectors.load(builder.add(each, m), j * size) for each in (shares, pivots) for j in range(NV)]
    sums.close([vectors.multiply_add(*each) for each in zip(factors, values, sums.values, strict=True)])
    extra, base = sums.values[:NV], sums.values[NV:]
    each = Loop(builder, INT(0), outputs, 1, [])
    at = builder.add(here, builder.mul(each.i, stride))
    for j in range(NV):
        value = builder.fadd(builder.fsub(vectors.load(at, j * size), base[j]), extra[j])
        factor = vectors.load(builder.add(gain, builder.mul(each.i, row)), j * size)
        vectors.store(builder.fmul(value, factor), at, j * size)
    each.close([])
    column.close([])


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


def emit_total(vectors: Vectors, size: ir.Value, values: ir.Value) -> ir.Value:
    """Emit the sum of a padded vector; see the top of this file."""
    builder = vectors.builder
    width = NV * vectors.lanes
    loop = Loop(builder, INT(0), builder.add(size, INT(width - 1)), width, [vectors.zero] * NV)
    at = builder.mul(loop.i, INT(vectors.size))
    found = [vectors.load(values, builder.add(at, INT(j * vectors.target.vector_bytes))) for j in range(NV)]
    loop.close([builder.fadd(*pair) for pair in zip(loop.values, found, strict=True)])
    return vectors.total(functools.reduce(builder.fadd, loop.values))


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
    kind = ir.VectorType(INT, part)
    loop = Loop(builder, INT(0), size, vectors.lanes, [INT(0), ir.Constant(kind, list(range(part)))])
    count, positions = loop.values
    value = vectors.load(values, builder.mul(loop.i, INT(vectors.size)))
    found = builder.fcmp_unordered("!=", value, vectors.zero)
    for first in range(0, vectors.lanes, part):
        lanes = ir.Constant(ir.VectorType(INT32, part), list(range(first, first + part)))
        mask = builder.shuffle_vector(found, found, lanes)
        bits = builder.bitcast(mask, ir.IntType(part))
        listed = _emit_compress(vectors, positions, mask, bits)
        builder.store(listed, vectors.at(out, builder.mul(count, INT(8)), kind), align=8)
        count = builder.add(count, builder.zext(builder.ctpop(bits), INT))
        positions = builder.add(positions, ir.Constant(kind, [part] * part))
    loop.close([count, positions])
    return loop.values[0]


def _emit_compress(vectors: Vectors, values: ir.Value, mask: ir.Value, bits: ir.Value) -> ir.Value:
    """Emit the int64 whose mask is set, moved to the front of a vector.

    Only AVX-512 has an instruction for it. Elsewhere LLVM's own code moves one element after the other: to
    list 32 units took 50 ns (AVX2), and takes 10.
    """
    builder, kind = vectors.builder, values.type
    if kind.count == 8:
        compress = vectors.function("llvm.experimental.vector.compress.v8i64", [kind, mask.type, kind], kind)
        return builder.call(compress, [values, mask, ir.Constant(kind, ir.Undefined)])
    if kind.count == 2:
        lanes = ir.VectorType(INT32, 2)
        first = builder.shuffle_vector(mask, mask, ir.Constant(lanes, [0, 0]))
        return builder.select(
            first, values, builder.shuffle_vector(values, values, ir.Constant(lanes, [1, 1]))
        )
    # Halves of the four int64 go where a table of all masks says.
    halves = ir.VectorType(INT32, 8)
    table = vectors.module.globals.get("fastjac.orders")
    if table is None:
        orders = ir.ArrayType(halves, 16)
        table = ir.GlobalVariable(vectors.module, orders, "fastjac.orders")
        table.linkage, table.global_constant = "internal", True
        table.initializer = ir.Constant(orders, [ir.Constant(halves, _order(number)) for number in range(16)])
    place = builder.mul(builder.zext(bits, INT), INT(32))
    order = builder.load(vectors.at(builder.ptrtoint(table, INT), place, halves), align=4)
    permute = vectors.function("llvm.x86.avx2.permd", [halves, halves], halves)
    return builder.bitcast(builder.call(permute, [builder.bitcast(values, halves), order]), kind)


def _order(mask: int) -> list[int]:
    """Return the halves of the int64 in a mask of four, padded to eight."""
    halves = [2 * lane + half for lane in range(4) if mask >> lane & 1 for half in (0, 1)]
    return halves + [0] * (8 - len(halves))
