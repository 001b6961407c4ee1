"""Register tiles and the dots of rows, on panel matrices (see `simd`), as LLVM instructions.

`tiles` computes ``C[r, :] = sum_k A[r, k] * B[k, :]`` over the units k of an index, for 1 to `MR` rows of A
and one panel of B after the other, or of each its first vector, in registers. A is a panel matrix given from
its first row on, with ``a_panel`` bytes from one panel to the next; the rows of B are ``b_stride`` bytes
apart, at any address, its panels ``b_panel``. It writes as much of each row of C, at a byte offset from a
table, ``c_panel`` bytes further for each panel, and asks for the lines ``ahead`` bytes further. Where
``rest`` is not 0 it also writes the row ``rest = before - sum of the rows``, with what it holds, if ``more``,
for ``before``, else 0.
`long_row` is a tile of one row and 1 to `LONG` vectors, which follow each other in B.
`dots` computes the products of 1 to `DOTS` rows of a panel matrix with a padded vector, and writes whole
vectors, zeros behind the last: what reads them next gets them from the store buffer.
Addresses are integers; nothing outside the named ranges is read or written.
"""

from __future__ import annotations

import functools

from llvmlite import ir

from fastjac.kernels.llvm.vectors import INT, LINE, Loop, Vectors
from fastjac.kernels.target import NV


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
    chains = NV if NV * rows <= vectors.target.dot_rows else 1
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
