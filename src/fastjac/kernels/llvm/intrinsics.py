"""The tile and its kin as functions of compiled code; see `tiles` and `lanes` for what each does."""

# numba's decorators are not typed.
# mypy: disable-error-code="untyped-decorator, no-untyped-call"

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, overload
from numba.np.numpy_support import as_dtype

from fastjac.kernels.linking import INNER, call_outlined
from fastjac.kernels.llvm.lanes import (
    emit_add,
    emit_divide,
    emit_head,
    emit_head_lanes,
    emit_largest,
    emit_nonzero,
    emit_scale,
    emit_total,
    emit_transpose,
)
from fastjac.kernels.llvm.tiles import (
    emit_dots,
    emit_indexed_tile,
    emit_product,
)
from fastjac.kernels.llvm.vectors import (
    INT,
    LONG,
    TARGET,
    Vectors,
    emit_switch,
    itemsize,
    panel_width,
)


@overload(itemsize, strict=False, jit_options=INNER)
def _itemsize(dtype):  # type: ignore[no-untyped-def]
    value = itemsize(as_dtype(dtype.dtype))
    return lambda dtype: np.intp(value)  # A literal would make callees of its own for each value.


@overload(panel_width, strict=False, jit_options=INNER)
def _panel_width(dtype):  # type: ignore[no-untyped-def]
    value = panel_width(as_dtype(dtype.dtype))
    return lambda dtype: np.intp(value)


def _made(
    name: str,
    arguments: str,
    emit: Callable[..., Any],
    result: Callable[[Any], Any] = lambda element: types.void,
) -> Any:
    """Return an intrinsic ``name(dtype, *arguments)``: a call of what ``emit(vectors, *arguments)`` emits.

    The arguments are integers but for the ``divisor``, which is of the dtype, and so may be the ``result``;
    ``name:3`` is a tuple of three, which ``emit`` gets one by one.
    """
    groups = [argument.partition(":") for argument in arguments.split()]
    names = [name for name, *_ in groups]

    def definition(typing: Any, dtype: Any, *others: Any) -> Any:
        element = dtype.dtype
        taken = [
            types.UniTuple(types.intp, int(count)) if count else element if each == "divisor" else types.intp
            for each, _, count in groups
        ]

        def codegen(context: Any, builder: ir.IRBuilder, signature: Any, args: list[ir.Value]) -> ir.Value:
            def body(inside: ir.IRBuilder) -> None:
                vectors = Vectors(inside, context.get_value_type(element), TARGET)
                value = emit(vectors, *inside.function.args)
                if value is None:
                    inside.ret_void()
                elif isinstance(value, tuple):
                    inside.ret(context.make_tuple(inside, signature.return_type, value))
                else:
                    inside.ret(value)

            void = signature.return_type == types.void
            returned = ir.VoidType() if void else context.get_value_type(signature.return_type)
            given: list[ir.Value] = []
            for argument, (*_, count) in zip(args[1:], groups, strict=True):
                given += cgutils.unpack_tuple(builder, argument) if count else [argument]
            kind = ir.FunctionType(returned, [each.type for each in given])
            value = call_outlined(context, builder, f"fastjac.{name}.{element}", kind, body, given)
            return context.get_dummy_value() if void else value

        return result(element)(dtype, *taken), codegen

    every = [inspect.Parameter(each, inspect.Parameter.POSITIONAL_OR_KEYWORD) for each in names]
    first = list(inspect.signature(definition).parameters.values())[:2]
    definition.__signature__ = inspect.Signature([*first, *every])  # type: ignore[attr-defined]
    definition.__name__ = definition.__qualname__ = name
    definition.__doc__ = f"``{name}(dtype, {', '.join(names)})``."
    return intrinsic(definition)


def _emit_any_long_row(emitter: Vectors, vectors: ir.Value, *others: ir.Value) -> None:
    *given, c = others

    def emit(width: int) -> None:
        for j, value in enumerate(emit_indexed_tile(emitter, width, *given)):
            emitter.store(value, c, j * TARGET.vector_bytes)

    cases = {width: functools.partial(emit, width) for width in range(1, LONG + 1)}
    emit_switch(emitter.builder, vectors, cases)


def _emit_any_transpose(vectors: Vectors, side: ir.Value, *others: ir.Value) -> None:
    cases = {}
    for lanes in (1 << shift for shift in range(vectors.lanes.bit_length())):
        narrow = Vectors(vectors.builder, vectors.element, TARGET._replace(vector_bytes=lanes * vectors.size))
        cases[lanes] = functools.partial(emit_transpose, narrow, *others)
    emit_switch(vectors.builder, side, cases)


# Of (rows, cols, panels, most), (k, table), (a, skip), (b, b_panel), (c, c_panel, c_rows),
# (partial, gain, rest).
product = _made("product", "shape:4 units:2 a:2 b:2 c:3 sums:3", emit_product)
long_row = _made("long_row", "vectors k a b b_stride index c", _emit_any_long_row)
dots = _made("dots", "rows panels w panel_bytes x sums z", emit_dots)
transpose = _made("transpose", "side cols source stride out out_stride", _emit_any_transpose)
transpose_scaled = _made(
    "transpose_scaled", "side cols source stride out out_stride mean gain", _emit_any_transpose
)
scale = _made("scale", "rows cols panel mean step gain out", emit_scale)
head = _made(
    "head",
    "rows shared panels panel shares gain zeros pivot spared units slope slope_step out out_panel",
    emit_head,
)
head_lanes = _made("head_lanes", "inputs outputs shared panel shares pivots gain", emit_head_lanes)
# With ``size`` in whole vectors.
add = _made("add", "size values others", emit_add, lambda element: types.boolean)
divide = _made("divide", "size values divisor quotients", emit_divide)
total = _made("total", "size values", emit_total, lambda element: element)
nonzero = _made("nonzero", "size values out", emit_nonzero, lambda element: types.intp)
largest = _made("largest", "size values", emit_largest, lambda element: types.Tuple((types.intp, element)))


def _emit_view(context: Any, builder: ir.IRBuilder, kind: Any, at: ir.Value, size: ir.Value) -> ir.Value:
    """Emit numba's array of a size at an address, of memory that it does not own."""
    array = context.make_array(kind)(context, builder)
    itemsize = INT(context.get_abi_sizeof(context.get_data_type(kind.dtype)))
    context.populate_array(
        array,
        data=builder.inttoptr(at, array.data.type),
        shape=[size],
        strides=[itemsize],
        itemsize=itemsize,
        meminfo=None,
    )
    return array._getvalue()


@intrinsic
def vector(typing: Any, dtype: Any, at: Any, size: Any) -> Any:
    """Return ``size`` elements at an address as an array."""

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, args: list[ir.Value]) -> ir.Value:
        return _emit_view(context, builder, signature.return_type, *args[1:])

    return types.Array(dtype.dtype, 1, "C")(dtype, types.intp, types.intp), codegen


@intrinsic
def integers(typing: Any, at: Any, size: Any) -> Any:
    """Return ``size`` int64 at an address as an array."""

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, args: list[ir.Value]) -> ir.Value:
        return _emit_view(context, builder, signature.return_type, *args)

    return types.Array(types.int64, 1, "C")(types.intp, types.intp), codegen


def _choice(name: str, comparison: str) -> Any:
    """Return an intrinsic ``name(a, b)``: ``b`` where it compares so with ``a``, else ``a``."""

    def definition(typing: Any, a: Any, b: Any) -> Any:
        kind = types.unliteral(a)

        def codegen(context: Any, builder: ir.IRBuilder, signature: Any, args: list[ir.Value]) -> ir.Value:
            first, second = args
            compare = builder.fcmp_ordered if isinstance(kind, types.Float) else builder.icmp_signed
            return builder.select(compare(comparison, second, first), second, first)

        return kind(kind, kind), codegen

    definition.__name__ = definition.__qualname__ = name
    definition.__doc__ = f"Return what Python's {'min' if comparison == '<' else 'max'} does."
    return intrinsic(definition)


# numba's min and max are functions of tuples, which it compiles for each type.
smaller, larger = _choice("smaller", "<"), _choice("larger", ">")


@intrinsic
def address(typing: Any, array: Any) -> Any:
    """Return the address of the first element of ``array`` as an integer."""

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, args: list[ir.Value]) -> ir.Value:
        data = context.make_array(array)(context, builder, args[0]).data
        return builder.ptrtoint(data, INT)

    return types.intp(array), codegen


@intrinsic
def polynomial(typing: Any, coefficients: Any, x: Any) -> Any:
    """Return a polynomial at ``x``, by Horner's scheme; that of the highest power comes first."""

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, args: list[ir.Value]) -> ir.Value:
        p, *others = cgutils.unpack_tuple(builder, args[0])
        for coefficient in others:
            p = builder.fadd(builder.fmul(p, args[1]), coefficient)
        return p

    return x(coefficients, x), codegen


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
