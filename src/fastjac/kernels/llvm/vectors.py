"""What the target's vectors are to compiled code, and what emits LLVM instructions on them."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from llvmlite import ir
from numba.core.registry import cpu_target

from fastjac.kernels.target import Target, target_of

LONG = 8  # vectors of a long row
INT = ir.IntType(64)
INT32 = ir.IntType(32)
BYTE_POINTER = ir.IntType(8).as_pointer()


def _numba_target() -> Target:
    triple, _, features = cpu_target.target_context.codegen().magic_tuple()
    return target_of(triple, features)


TARGET = _numba_target()
MR = TARGET.tile_rows


def itemsize(dtype: np.dtype[Any]) -> int:
    """Return the bytes of one element, also in compiled code."""
    return dtype.itemsize


def panel_width(dtype: np.dtype[Any]) -> int:
    """Return NR, the elements in one row of a panel, also in compiled code."""
    return TARGET.panel_width(dtype)


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


def emit_switch(builder: ir.IRBuilder, number: ir.Value, cases: Mapping[int, Callable[[], None]]) -> None:
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
