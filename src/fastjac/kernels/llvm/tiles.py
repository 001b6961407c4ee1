"""Register tiles and the dots of rows, on panel matrices (see `target`), as LLVM instructions.

`product` computes ``C[r, :] = sum_k A[r, k] * B[k, :]`` for any number of rows of A and one panel of B after
the other, or of each its first vector. A table holds for each k the byte offsets of its elements in A and of
its row in B. The rows of A are cut evenly into tiles of at most ``most`` rows, each of which stays in
registers while k runs. Rows of A in a panel follow each other; each tile begins where the one before ended
or, with ``skip``, that many bytes after it began. Rows of C are at byte offsets from a table, ``c_panel``
bytes further for each panel. If ``partial`` is not 0, the sums start with its rows. If ``gain`` is not 0, the
columns are multiplied by that vector. If ``rest`` is not 0, the row there becomes minus the sum of all rows.
To ask for the next panel of B while the first tile of a panel runs was 1 to 6 % slower (Zen 5, both code
paths).
`long_row` is a tile of one row and 1 to `LONG` vectors, which follow each other in B.
`dots` computes the products of the rows of a panel matrix with a padded vector, and writes whole vectors,
zeros behind the last: what reads them next gets them from the store buffer. It reads some panels side by side
from their first to their last row, in the order that the processor fetches ahead in; ``sums`` has room for a
vector for each row and for those up to a whole vector. Eight rows at a time, in registers, took 71 instead of
62 us where weights come from the third cache (784-512-256-10, Zen 3). Where all panels are read in one turn,
that is faster: 9 % of a call of 64-64-10 in float32 (Zen 4).
Addresses are integers; nothing outside the named ranges is read or written.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable

from llvmlite import ir

from fastjac.kernels.llvm.vectors import INT, Loop, Vectors, emit_switch
from fastjac.kernels.target import NV, Target

# A multiply-add takes four cycles, and two begin in each: so many must be under way.
UNDER_WAY = 8
# Returns where the element of A and the row of B of a position are.
Place = Callable[[ir.Value], tuple[ir.Value, ir.Value]]


def emit_product(
    vectors: Vectors,
    rows: ir.Value,
    cols: ir.Value,
    panels: ir.Value,
    most: ir.Value,
    k: ir.Value,
    table: ir.Value,
    a: ir.Value,
    skip: ir.Value,
    b: ir.Value,
    b_panel: ir.Value,
    c: ir.Value,
    c_panel: ir.Value,
    c_rows: ir.Value,
    partial: ir.Value,
    gain: ir.Value,
    rest: ir.Value,
) -> None:
    """Emit a product in register tiles; see the top of this file."""
    builder, row = vectors.builder, NV * vectors.target.vector_bytes
    wide = builder.zext(builder.icmp_signed(">", cols, INT(vectors.lanes)), INT)
    tiles, height, taller = _emit_even_split(builder, rows, most)
    packed = builder.icmp_signed("!=", skip, INT(0))
    panel = Loop(builder, INT(0), panels, 1, [])
    further = builder.mul(panel.i, c_panel)
    to, spare = builder.add(c, further), _emit_if_given(builder, rest, further)
    right = builder.add(b, builder.mul(panel.i, b_panel))
    factors = _emit_if_given(builder, gain, builder.mul(panel.i, INT(row)))
    tile = Loop(builder, INT(0), tiles, 1, [INT(0)])
    (start,) = tile.values
    is_first = builder.icmp_signed("==", tile.i, INT(0))
    here = builder.add(height, builder.zext(builder.icmp_signed("<", tile.i, taller), INT))
    begins = builder.select(packed, builder.mul(tile.i, skip), builder.mul(start, INT(row)))
    left, offsets = builder.add(a, begins), builder.add(c_rows, builder.mul(start, INT(8)))
    sums = _emit_if_given(builder, partial, builder.mul(start, INT(row)))

    def place(position: ir.Value) -> tuple[ir.Value, ir.Value]:
        pair = builder.add(table, builder.mul(position, INT(16)))
        offset_a, offset_b = (builder.load(vectors.at(pair, i, INT), align=8) for i in (0, 8))
        return builder.add(left, offset_a), builder.add(right, offset_b)

    cases = {
        NV * n + width - 1: functools.partial(
            emit_case, vectors, n, width, k, place, to, offsets, sums, factors, spare, is_first
        )
        for n in range(1, vectors.target.tile_rows + 1)
        for width in range(1, NV + 1)
    }
    emit_switch(builder, builder.add(builder.mul(here, INT(NV)), wide), cases)
    tile.close([builder.add(start, here)])
    panel.close([])


def _emit_if_given(builder: ir.IRBuilder, address: ir.Value, further: ir.Value) -> ir.Value:
    """Emit an address and so many bytes further, or 0 for 0."""
    given = builder.icmp_signed("!=", address, INT(0))
    return builder.select(given, builder.add(address, further), INT(0))


def _emit_even_split(
    builder: ir.IRBuilder, rows: ir.Value, most: ir.Value
) -> tuple[ir.Value, ir.Value, ir.Value]:
    """Emit the fewest tiles: how many, the rows of the lower ones, and how many have one more."""
    before = builder.block
    with builder.if_then(builder.icmp_signed(">", rows, most)):
        count = builder.udiv(builder.add(rows, builder.sub(most, INT(1))), most)
        height = builder.udiv(rows, count)
        rest = builder.sub(rows, builder.mul(height, count))
        after = builder.block
    pairs = (count, INT(1)), (height, rows), (rest, INT(0))
    count, height, taller = _emit_either(builder, pairs, after, before)
    return count, height, taller


def _emit_either(
    builder: ir.IRBuilder, pairs: Iterable[tuple[ir.Value, ir.Value]], after: ir.Block, before: ir.Block
) -> list[ir.Value]:
    """Emit of each pair the first value where block ``after`` came before, and the second from ``before``."""
    found = []
    for first, second in pairs:
        value = builder.phi(first.type)
        value.add_incoming(first, after)
        value.add_incoming(second, before)
        found.append(value)
    return found


def emit_case(
    vectors: Vectors,
    rows: int,
    width: int,
    k: ir.Value,
    place: Place,
    c: ir.Value,
    c_rows: ir.Value,
    sums: ir.Value,
    gain: ir.Value,
    spare: ir.Value,
    is_first: ir.Value,
) -> None:
    """Emit one tile of a product, ``rows`` rows and ``width`` vectors, from its first row's addresses."""
    builder, size = vectors.builder, vectors.target.vector_bytes
    before = builder.block
    with builder.if_then(builder.icmp_signed("!=", sums, INT(0)), likely=False):
        found = [vectors.load(sums, (r * NV + j) * size) for r in range(rows) for j in range(width)]
        after = builder.block
    begin = _emit_either(builder, ((value, vectors.zero) for value in found), after, before)
    acc = emit_tile(vectors, rows, width, k, place, begin)
    before = builder.block
    with builder.if_then(builder.icmp_signed("!=", gain, INT(0))):
        factors = [vectors.load(gain, j * size) for j in range(width)]
        scaled = [builder.fmul(value, factors[i % width]) for i, value in enumerate(acc)]
        after = builder.block
    acc = _emit_either(builder, zip(scaled, acc, strict=True), after, before)
    for r in range(rows):
        row = builder.add(c, builder.load(vectors.at(c_rows, 8 * r, INT), align=8))
        for j in range(width):
            vectors.store(acc[r * width + j], row, j * size)
    with builder.if_then(builder.icmp_signed("!=", spare, INT(0))):
        for j in range(width):
            value = builder.select(is_first, vectors.zero, vectors.load(spare, j * size))
            for r in range(rows):
                value = builder.fsub(value, acc[r * width + j])
            vectors.store(value, spare, j * size)


def emit_tile(
    vectors: Vectors, rows: int, width: int, k: ir.Value, place: Place, begin: list[ir.Value]
) -> list[ir.Value]:
    """Emit one register tile whose sums begin with some vectors; return its vectors, row by row."""
    builder, size = vectors.builder, vectors.target.vector_bytes
    # A tile of few rows works on several k at a time.
    share = rows * width
    chains = -(-UNDER_WAY // share)

    def step(position: ir.Value, acc: list[ir.Value]) -> list[ir.Value]:
        """Add the products of one k to the accumulators of one chain."""
        a_unit, b_row = place(position)
        b_vectors = [vectors.load(b_row, j * size) for j in range(width)]
        result = []
        for r in range(rows):
            factor = vectors.broadcast(a_unit, r * NV * size)
            result += [vectors.multiply_add(factor, b_vectors[j], acc[r * width + j]) for j in range(width)]
        return result

    def run(start: ir.Value, stride: int, acc: list[ir.Value]) -> tuple[ir.Value, list[ir.Value]]:
        """Emit the loop over k in strides with one chain of accumulators for each k of a stride."""
        loop = Loop(builder, start, k, stride, acc)
        values: list[ir.Value] = []
        for chain in range(stride):
            position = builder.add(loop.i, INT(chain))
            values += step(position, loop.values[chain * share : (chain + 1) * share])
        loop.close(values)
        return loop.i, loop.values

    position, acc = run(INT(0), chains, begin + [vectors.zero] * ((chains - 1) * share))
    parts = [acc[i * share : (i + 1) * share] for i in range(chains)]
    while len(parts) > 1:
        half = (len(parts) + 1) // 2
        for part, other in zip(parts, parts[half:], strict=False):
            part[:] = [builder.fadd(*pair) for pair in zip(part, other, strict=True)]
        parts = parts[:half]
    (acc,) = parts
    if chains > 1:
        _, acc = run(position, 1, acc)
    return acc


def emit_indexed_tile(
    vectors: Vectors,
    width: int,
    k: ir.Value,
    a: ir.Value,
    b: ir.Value,
    b_stride: ir.Value,
    index: ir.Value,
) -> list[ir.Value]:
    """Emit a tile of one row, a vector A, over the units of an index; return its vectors."""
    builder = vectors.builder

    def place(position: ir.Value) -> tuple[ir.Value, ir.Value]:
        unit = builder.load(vectors.at(index, builder.mul(position, INT(8)), INT), align=8)
        at = builder.add(a, builder.mul(unit, INT(vectors.size)))
        return at, builder.add(b, builder.mul(unit, b_stride))

    return emit_tile(vectors, 1, width, k, place, [vectors.zero] * width)


def panels_together(target: Target) -> int:
    """Return how many panels `dots` reads side by side: half of the registers hold what they are times."""
    return target.registers // (2 * NV)


def emit_dots(
    vectors: Vectors,
    rows: ir.Value,
    panels: ir.Value,
    w: ir.Value,
    panel_bytes: ir.Value,
    x: ir.Value,
    sums: ir.Value,
    z: ir.Value,
) -> None:
    """Emit ``z[r] = sum_c w[r, c] * x[c]`` for ``rows`` rows; see the top of this file."""
    builder, width = vectors.builder, vectors.target.vector_bytes
    together, height = panels_together(vectors.target), max(vectors.lanes, UNDER_WAY // NV)
    is_one_turn = builder.icmp_signed("<=", panels, INT(together))
    done = builder.select(is_one_turn, builder.and_(rows, INT(-height)), INT(0))
    _emit_dots_in_registers(vectors, done, height, panels, w, panel_bytes, x, z)
    with builder.if_then(builder.icmp_signed("<", done, rows)):
        w = builder.add(w, builder.mul(done, INT(NV * width)))
        z = builder.add(z, builder.mul(done, INT(vectors.size)))
        _emit_dots_side_by_side(
            vectors, builder.sub(rows, done), together, panels, w, panel_bytes, x, sums, z
        )


def _emit_dots_in_registers(
    vectors: Vectors,
    rows: ir.Value,
    height: int,
    panels: ir.Value,
    w: ir.Value,
    panel_bytes: ir.Value,
    x: ir.Value,
    z: ir.Value,
) -> None:
    """Emit the dots of rows, of which ``height`` go from panel to panel together."""
    builder, width = vectors.builder, vectors.target.vector_bytes
    # Shorter sums round less.
    chains = NV if NV * height <= vectors.target.registers // 2 else 1
    group = Loop(builder, INT(0), rows, height, [])
    each = Loop(builder, INT(0), panels, 1, [vectors.zero] * (height * chains))
    acc = list(each.values)
    here = builder.add(w, builder.mul(each.i, panel_bytes))
    here = builder.add(here, builder.mul(group.i, INT(NV * width)))
    x_panel = builder.add(x, builder.mul(each.i, INT(NV * width)))
    for j in range(NV):
        factor = vectors.load(x_panel, j * width, width)
        for r in range(height):
            i = r * chains + j % chains
            acc[i] = vectors.multiply_add(vectors.load(here, (r * NV + j) * width, width), factor, acc[i])
    each.close(acc)
    sums = [functools.reduce(builder.fadd, each.values[i : i + chains]) for i in range(0, len(acc), chains)]
    at = builder.add(z, builder.mul(group.i, INT(vectors.size)))
    for start in range(0, height, vectors.lanes):
        vectors.store(vectors.totals(sums[start : start + vectors.lanes]), at, start * vectors.size)
    group.close([])


def _emit_dots_side_by_side(
    vectors: Vectors,
    rows: ir.Value,
    together: int,
    panels: ir.Value,
    w: ir.Value,
    panel_bytes: ir.Value,
    x: ir.Value,
    sums: ir.Value,
    z: ir.Value,
) -> None:
    """Emit the dots of rows, row after row over some panels, and then over the next panels."""
    builder, width, lanes = vectors.builder, vectors.target.vector_bytes, vectors.lanes

    def turn(count: int, w: ir.Value, x: ir.Value, begins: bool) -> None:
        """Emit the sums of all rows over some panels, added to those of the panels before."""
        factors = [vectors.load(x, j * width, width) for j in range(count * NV)]
        starts = [builder.add(w, builder.mul(panel_bytes, INT(p))) for p in range(count)]
        row = Loop(builder, INT(0), rows, 1, [])
        at = builder.add(sums, builder.mul(row.i, INT(width)))
        offset = builder.mul(row.i, INT(NV * width))
        acc = [vectors.zero] * NV if begins else [vectors.load(at, 0), *[vectors.zero] * (NV - 1)]
        for p, start in enumerate(starts):
            here = builder.add(start, offset)
            for j in range(NV):
                acc[j] = vectors.multiply_add(vectors.load(here, j * width), factors[p * NV + j], acc[j])
        vectors.store(functools.reduce(builder.fadd, acc), at, 0)
        row.close([])

    first = builder.add(builder.urem(builder.sub(panels, INT(1)), INT(together)), INT(1))
    cases = {count: functools.partial(turn, count, w, x, True) for count in range(1, together + 1)}
    emit_switch(builder, first, cases)
    others = Loop(builder, first, panels, together, [])
    w_panel = builder.add(w, builder.mul(others.i, panel_bytes))
    turn(together, w_panel, builder.add(x, builder.mul(others.i, INT(NV * width))), False)
    others.close([])
    padding = Loop(builder, rows, builder.and_(builder.add(rows, INT(lanes - 1)), INT(-lanes)), 1, [])
    vectors.store(vectors.zero, builder.add(sums, builder.mul(padding.i, INT(width))), 0)
    padding.close([])
    group = Loop(builder, INT(0), builder.add(rows, INT(lanes - 1)), lanes, [])
    at = builder.add(sums, builder.mul(group.i, INT(width)))
    found = [vectors.load(at, r * width) for r in range(lanes)]
    vectors.store(vectors.totals(found), builder.add(z, builder.mul(group.i, INT(vectors.size))), 0)
    group.close([])
