"""The tile and its kin as functions of compiled code; see `tiles` and `lanes` for what each does."""

# numba's decorators are not typed.
# mypy: disable-error-code="untyped-decorator"

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic, overload
from numba.np.numpy_support import as_dtype

from fastjac.kernels.llvm.lanes import (
    emit_add,
    emit_divide,
    emit_head,
    emit_largest,
    emit_nonzero,
    emit_scale,
    emit_transpose,
)
from fastjac.kernels.llvm.tiles import (
    emit_dots,
    emit_tile,
    emit_tiles,
)
from fastjac.kernels.llvm.vectors import (
    DOTS,
    INT,
    LONG,
    MR,
    TARGET,
    Vectors,
    itemsize,
    panel_width,
)
from fastjac.kernels.target import NV


@overload(itemsize, strict=False)
def _itemsize(dtype):  # type: ignore[no-untyped-def]
    value = itemsize(as_dtype(dtype.dtype))
    return lambda dtype: value


@overload(panel_width, strict=False)
def _panel_width(dtype):  # type: ignore[no-untyped-def]
    value = panel_width(as_dtype(dtype.dtype))
    return lambda dtype: value


def _choices(rows: Any) -> list[int]:
    """Return the one number of rows that is literal, or all from 1 to `DOTS`."""
    return [rows.literal_value] if isinstance(rows, types.IntegerLiteral) else list(range(1, DOTS + 1))


def _switch(builder: ir.IRBuilder, number: ir.Value, cases: Mapping[int, Callable[[], None]]) -> None:
    """Emit a branch to the case of a number."""
    done = builder.append_basic_block("done")
    switch = builder.switch(number, done)
    for value, emit in cases.items():
        block = builder.append_basic_block(f"case{value}")
        switch.add_case(INT(value), block)
        builder.position_at_end(block)
        emit()
        builder.branch(done)
    builder.position_at_end(done)


@intrinsic
def tiles(
    typing: Any,
    dtype: Any,
    rows: Any,
    cols: Any,
    panels: Any,
    k: Any,
    a: Any,
    a_panel: Any,
    b: Any,
    b_panel: Any,
    b_stride: Any,
    index: Any,
    c: Any,
    c_panel: Any,
    ahead: Any,
    c_rows: Any,
    more: Any,
    rest: Any,
) -> Any:
    """``tiles(dtype, rows, cols, panels, k, a, a_panel, b, b_panel, ...)``, the rest as named."""

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, args: list[ir.Value]) -> ir.Value:
        vectors = Vectors(builder, context.get_value_type(dtype.dtype), TARGET)
        number, columns, *others = args[1:]
        # As many vectors as the columns need.
        wide = builder.zext(builder.icmp_signed(">", columns, INT(vectors.lanes)), INT)
        cases = {
            NV * n + width - 1: functools.partial(emit_tiles, vectors, n, width, *others)
            for n in range(1, MR + 1)
            for width in range(1, NV + 1)
        }
        _switch(builder, builder.add(builder.mul(number, INT(NV)), wide), cases)
        return context.get_dummy_value()

    return types.void(dtype, *[types.intp] * 16), codegen


@intrinsic
def long_row(
    typing: Any,
    dtype: Any,
    vectors: Any,
    k: Any,
    a: Any,
    a_panel: Any,
    b: Any,
    b_stride: Any,
    index: Any,
    c: Any,
) -> Any:
    """``long_row(dtype, vectors, k, a, a_panel, b, b_stride, index, c)``."""

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, args: list[ir.Value]) -> ir.Value:
        emitter = Vectors(builder, context.get_value_type(dtype.dtype), TARGET)
        *given, c = args[2:]

        def emit(width: int) -> None:
            for j, value in enumerate(emit_tile(emitter, 1, width, *given)):
                emitter.store(value, c, j * TARGET.vector_bytes)

        _switch(builder, args[1], {width: functools.partial(emit, width) for width in range(1, LONG + 1)})
        return context.get_dummy_value()

    return types.void(dtype, *[types.intp] * 8), codegen


@intrinsic(prefer_literal=True)
def dots(typing: Any, dtype: Any, rows: Any, panels: Any, w: Any, panel_bytes: Any, x: Any, z: Any) -> Any:
    """``dots(dtype, rows, panels, w, panel_bytes, x, z)``."""

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, args: list[ir.Value]) -> ir.Value:
        vectors = Vectors(builder, context.get_value_type(dtype.dtype), TARGET)
        _switch(
            builder, args[1], {n: functools.partial(emit_dots, vectors, n, *args[2:]) for n in _choices(rows)}
        )
        return context.get_dummy_value()

    return types.void(dtype, rows, *[types.intp] * 5), codegen


def _transpose(dtype: Any, others: int) -> tuple[Any, Any]:
    """Return what an intrinsic of a side and ``others`` arguments of `emit_transpose` consists of."""

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, args: list[ir.Value]) -> ir.Value:
        vectors = Vectors(builder, context.get_value_type(dtype.dtype), TARGET)
        cases = {}
        for side in (1 << shift for shift in range(vectors.lanes.bit_length())):
            narrow = TARGET._replace(vector_bytes=side * vectors.size)
            cases[side] = functools.partial(
                emit_transpose, Vectors(builder, vectors.element, narrow), *args[2:]
            )
        _switch(builder, args[1], cases)
        return context.get_dummy_value()

    return types.void(dtype, types.intp, *[types.intp] * others), codegen


@intrinsic
def transpose(
    typing: Any, dtype: Any, side: Any, cols: Any, source: Any, stride: Any, out: Any, out_stride: Any
) -> Any:
    """``transpose(dtype, side, cols, source, stride, out, out_stride)``."""
    return _transpose(dtype, 5)


@intrinsic
def transpose_scaled(
    typing: Any,
    dtype: Any,
    side: Any,
    cols: Any,
    source: Any,
    stride: Any,
    out: Any,
    out_stride: Any,
    mean: Any,
    gain: Any,
) -> Any:
    """``transpose_scaled(dtype, side, cols, source, stride, out, out_stride, mean, gain)``."""
    return _transpose(dtype, 7)


@intrinsic
def scale(
    typing: Any, dtype: Any, rows: Any, cols: Any, panel: Any, mean: Any, step: Any, gain: Any, out: Any
) -> Any:
    """``scale(dtype, rows, cols, panel, mean, step, gain, out)``."""

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, args: list[ir.Value]) -> ir.Value:
        emit_scale(Vectors(builder, context.get_value_type(dtype.dtype), TARGET), *args[1:])
        return context.get_dummy_value()

    return types.void(dtype, *[types.intp] * 7), codegen


@intrinsic
def head(
    typing: Any,
    dtype: Any,
    rows: Any,
    shared: Any,
    panel: Any,
    shares: Any,
    gain: Any,
    base: Any,
    pivot: Any,
    spared: Any,
    units: Any,
    out: Any,
) -> Any:
    """``head(dtype, rows, shared, panel, shares, gain, base, pivot, spared, units, out)``."""

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, args: list[ir.Value]) -> ir.Value:
        emit_head(Vectors(builder, context.get_value_type(dtype.dtype), TARGET), *args[1:])
        return context.get_dummy_value()

    return types.void(dtype, *[types.intp] * 10), codegen


@intrinsic
def add(typing: Any, dtype: Any, size: Any, values: Any, others: Any) -> Any:
    """``add(dtype, size, values, others) -> bool``, with ``size`` in whole vectors."""

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, args: list[ir.Value]) -> ir.Value:
        return emit_add(Vectors(builder, context.get_value_type(dtype.dtype), TARGET), *args[1:])

    return types.boolean(dtype, *[types.intp] * 3), codegen


@intrinsic
def divide(typing: Any, dtype: Any, size: Any, values: Any, divisor: Any, quotients: Any) -> Any:
    """``divide(dtype, size, values, divisor, quotients)``, with ``size`` in whole vectors."""

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, args: list[ir.Value]) -> ir.Value:
        emit_divide(Vectors(builder, context.get_value_type(dtype.dtype), TARGET), *args[1:])
        return context.get_dummy_value()

    return types.void(dtype, types.intp, types.intp, dtype.dtype, types.intp), codegen


@intrinsic
def largest(typing: Any, dtype: Any, size: Any, values: Any) -> Any:
    """``largest(dtype, size, values) -> (index, value)``."""

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, args: list[ir.Value]) -> ir.Value:
        vectors = Vectors(builder, context.get_value_type(dtype.dtype), TARGET)
        return context.make_tuple(builder, signature.return_type, emit_largest(vectors, *args[1:]))

    return types.Tuple((types.intp, dtype.dtype))(dtype, *[types.intp] * 2), codegen


@intrinsic
def nonzero(typing: Any, dtype: Any, size: Any, values: Any, out: Any) -> Any:
    """``nonzero(dtype, size, values, out) -> count``, with ``size`` in whole vectors."""

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, args: list[ir.Value]) -> ir.Value:
        return emit_nonzero(Vectors(builder, context.get_value_type(dtype.dtype), TARGET), *args[1:])

    return types.intp(dtype, *[types.intp] * 3), codegen


@intrinsic
def pointer(typing: Any, address: Any) -> Any:
    """Return the integer ``address`` as a pointer that `numba.carray` takes."""

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, args: list[ir.Value]) -> ir.Value:
        return builder.inttoptr(args[0], context.get_value_type(types.voidptr))

    return types.voidptr(types.intp), codegen


@intrinsic
def address(typing: Any, array: Any) -> Any:
    """Return the address of the first element of ``array`` as an integer."""

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, args: list[ir.Value]) -> ir.Value:
        data = context.make_array(array)(context, builder, args[0]).data
        return builder.ptrtoint(data, INT)

    return types.intp(array), codegen


@intrinsic
def to_bits(typing: Any, x: Any) -> Any:
    """Return the bits of a float as a signed integer of its size."""

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, args: list[ir.Value]) -> ir.Value:
        return builder.bitcast(args[0], context.get_value_type(signature.return_type))

    return (types.int64 if x == types.float64 else types.int32)(x), codegen


@intrinsic
def from_bits(typing: Any, x: Any) -> Any:
    """Return the float whose bits are those of a signed integer of its size."""

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, args: list[ir.Value]) -> ir.Value:
        return builder.bitcast(args[0], context.get_value_type(signature.return_type))

    return (types.float64 if x == types.int64 else types.float32)(x), codegen
