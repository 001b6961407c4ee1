"""Measures in compiled loops: multiply-adds in registers, passes over an array, a routine alone."""

# numba's decorators are not typed.
# mypy: disable-error-code="untyped-decorator, no-untyped-def"

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

from fastjac.kernels.llvm.intrinsics import address
from fastjac.kernels.llvm.vectors import INT, TARGET, Loop, Vectors
from fastjac.kernels.signatures import VALUE_AND_JACOBIAN

# Vectors in flight: enough to hide a latency of four cycles on two units, few enough for the registers.
CHAINS = 24 if TARGET.registers == 32 else 12
LINE_BYTES = CHAINS * TARGET.vector_bytes
_ALIGNMENT = 64
_SAMPLES = 40
_SAMPLE_SECONDS = 5e-4


@intrinsic
def _multiply_adds(typing: Any, dtype: Any, rounds: Any) -> Any:
    """Return the sum of `CHAINS` vectors after ``rounds`` multiply-adds to each, none of them in memory."""

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, args: list[ir.Value]) -> ir.Value:
        vectors = Vectors(builder, context.get_value_type(dtype.dtype), TARGET)
        half = ir.Constant(vectors.type, [0.5] * vectors.lanes)
        # None of them begins with 1, the limit: LLVM would leave that one out.
        starts = [ir.Constant(vectors.type, [i + 2.0] * vectors.lanes) for i in range(CHAINS)]
        loop = Loop(builder, INT(0), args[1], 1, starts)
        loop.close([vectors.multiply_add(half, chain, half) for chain in loop.values])
        return _total(vectors, loop.values)

    return dtype.dtype(dtype, types.intp), codegen


@intrinsic
def _read(typing: Any, dtype: Any, start: Any, lines: Any) -> Any:
    """Return the sum of ``lines`` times `CHAINS` vectors from the aligned address ``start`` on."""

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, args: list[ir.Value]) -> ir.Value:
        vectors = Vectors(builder, context.get_value_type(dtype.dtype), TARGET)
        width = TARGET.vector_bytes
        loop = Loop(builder, INT(0), args[2], 1, [vectors.zero] * CHAINS)
        line = builder.add(args[1], builder.mul(loop.i, INT(LINE_BYTES)))
        loaded = [vectors.load(line, i * width, width) for i in range(CHAINS)]
        loop.close([builder.fadd(*pair) for pair in zip(loop.values, loaded, strict=True)])
        return _total(vectors, loop.values)

    return dtype.dtype(dtype, types.intp, types.intp), codegen


@intrinsic
def _write(typing: Any, dtype: Any, start: Any, lines: Any, streaming: Any) -> Any:
    """Store zeros over ``lines`` times `CHAINS` vectors, past the caches where ``streaming``."""

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, args: list[ir.Value]) -> ir.Value:
        vectors = Vectors(builder, context.get_value_type(dtype.dtype), TARGET)
        loop = Loop(builder, INT(0), args[2], 1, [])
        line = builder.add(args[1], builder.mul(loop.i, INT(LINE_BYTES)))
        hint = builder.module.add_metadata([ir.IntType(32)(1)])
        for i in range(CHAINS):
            place = vectors.at(line, i * TARGET.vector_bytes, vectors.type)
            store = builder.store(vectors.zero, place, align=TARGET.vector_bytes)
            if streaming.literal_value:
                store.set_metadata("nontemporal", hint)
        loop.close([])
        return context.get_dummy_value()

    if not isinstance(streaming, types.Literal):
        return None
    return types.void(dtype, types.intp, types.intp, streaming), codegen


def _total(vectors: Vectors, values: list[ir.Value]) -> ir.Value:
    total = values[0]
    for value in values[1:]:
        total = vectors.builder.fadd(total, value)
    return vectors.total(total)


@njit
def _run_multiply_adds(array, rounds):
    return _multiply_adds(array.dtype, rounds)


@njit
def _run_read(array, lines, repeats):
    total = array[0]
    for _ in range(repeats):
        total += _read(array.dtype, address(array), lines)
    return total


@njit
def _run_write(array, lines, repeats):
    for _ in range(repeats):
        _write(array.dtype, address(array), lines, False)


@njit
def _run_stream(array, lines, repeats):
    for _ in range(repeats):
        _write(array.dtype, address(array), lines, True)


@functools.cache
def repeated(routine: Any) -> Callable[..., int]:
    """Return a compiled ``f(count, context, x, y, jac)`` that calls the routine without Python in between."""

    @njit
    def repeat(count, context, x, y, jac):
        status = 0
        for _ in range(count):
            status |= routine(context, VALUE_AND_JACOBIAN, 1, address(x), 0, address(y), address(jac))
        return status

    result: Callable[..., int] = repeat
    return result


def _fastest(run: Callable[[int], object]) -> float:
    """Return the least seconds a repeat, over samples long enough for the clock."""
    run(1)  # compiles
    repeats = 1
    while True:
        start = time.perf_counter()
        run(repeats)
        if time.perf_counter() - start > _SAMPLE_SECONDS:
            break
        repeats *= 2
    best = float("inf")
    for _ in range(_SAMPLES):
        start = time.perf_counter()
        run(repeats)
        best = min(best, time.perf_counter() - start)
    return best / repeats


def multiply_adds_per_second(dtype: np.dtype[Any]) -> float:
    """Return the multiply-adds a second of a loop that touches registers only."""
    array = np.zeros(1, dtype)
    lanes = LINE_BYTES // dtype.itemsize
    return 1000 * lanes / _fastest(lambda repeats: _run_multiply_adds(array, 1000 * repeats))


def _aligned(nbytes: int) -> tuple[Any, int]:
    """Return an array that starts a cache line, and how many whole lines of `LINE_BYTES` it holds."""
    lines = max(1, nbytes // LINE_BYTES)
    room = np.zeros(lines * LINE_BYTES + _ALIGNMENT, np.uint8)
    first = -room.ctypes.data % _ALIGNMENT
    array = room[first : first + lines * LINE_BYTES].view(np.float64)
    array.fill(0)  # pages never written share one page of zeros, which would stay in L1
    return array, lines


def read_bandwidth(nbytes: int) -> float:
    """Return the bytes a second of repeated reading passes over ``nbytes``."""
    array, lines = _aligned(nbytes)
    return float(array.nbytes) / _fastest(lambda repeats: _run_read(array, lines, repeats))


def write_bandwidth(nbytes: int) -> float:
    """Return the bytes a second of repeated writing passes, the better of plain and streaming stores."""
    array, lines = _aligned(nbytes)
    return float(array.nbytes) / min(
        _fastest(lambda repeats: _run_write(array, lines, repeats)),
        _fastest(lambda repeats: _run_stream(array, lines, repeats)),
    )
