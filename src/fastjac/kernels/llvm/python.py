"""Python's and NumPy's objects in LLVM instructions: how they are read and made."""

# llvmlite is not typed.
# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

from collections.abc import Sequence

from llvmlite import ir

from fastjac.kernels.interpreter import POINTER
from fastjac.kernels.llvm.vectors import BYTE_POINTER, INT, INT32


class Interpreter:
    """Emits reads of objects' fields and calls of the interpreter."""

    def __init__(self, builder: ir.IRBuilder) -> None:
        self.builder = builder

    def place(self, base: ir.Value, offset: int, kind: ir.Type) -> ir.Value:
        """Emit the pointer to a ``kind`` that is ``offset`` bytes past a pointer."""
        place = self.builder.gep(base, [INT(offset)], source_etype=ir.IntType(8))
        return self.builder.bitcast(place, kind.as_pointer())

    def past(self, base: ir.Value, offset: ir.Value) -> ir.Value:
        """Emit the pointer that is ``offset`` bytes past another."""
        return self.builder.gep(base, [offset], source_etype=ir.IntType(8))

    def read(self, base: ir.Value, offset: int, kind: ir.Type = INT) -> ir.Value:
        """Emit the reading of a ``kind`` that is ``offset`` bytes past a pointer."""
        return self.builder.load(self.place(base, offset, kind))

    def call(self, name: str, result: ir.Type, *arguments: ir.Value) -> ir.Value:
        """Emit a call of a function of the interpreter."""
        module, kind = self.builder.module, ir.FunctionType(result, [each.type for each in arguments])
        return self.builder.call(module.globals.get(name) or ir.Function(module, kind, name), arguments)

    def new_reference(self, value: ir.Value) -> ir.Value:
        """Emit one more reference to an object."""
        self.call("Py_IncRef", ir.VoidType(), value)
        return value

    def new_tuple(self, parts: Sequence[ir.Value], items: ir.Value) -> ir.Value:
        """Emit a tuple of objects, null where memory runs out; ``items`` is where in it they lie."""
        made = self.call("PyTuple_New", BYTE_POINTER, INT(len(parts)))
        with self.builder.if_then(self.builder.icmp_unsigned("!=", made, BYTE_POINTER(None)), likely=True):
            for number, part in enumerate(parts):
                place = self.place(self.past(made, items), POINTER * number, BYTE_POINTER)
                self.builder.store(self.new_reference(part), place)
        return made

    def new_array(
        self, function: ir.Value, kind: ir.Value, ndim: ir.Value, shape: ir.Value, number_of_type: ir.Value
    ) -> ir.Value:
        """Emit a new array of whatever the memory holds, null where that runs out."""
        null, zero = BYTE_POINTER(None), INT32(0)
        shape = self.builder.bitcast(shape, BYTE_POINTER)
        arguments = [kind, ndim, shape, number_of_type, null, null, zero, zero, null]
        new = ir.FunctionType(BYTE_POINTER, [each.type for each in arguments])
        return self.builder.call(self.builder.bitcast(function, new.as_pointer()), arguments)

    def raise_error(self, kind: ir.Value, message: str) -> ir.Value:
        """Emit an exception of a kind, a Python class; return null."""
        module = self.builder.module
        content = bytearray(message.encode() + b"\0")
        text = ir.GlobalVariable(
            module, ir.ArrayType(ir.IntType(8), len(content)), module.get_unique_name("message")
        )
        text.initializer, text.linkage = ir.Constant(text.value_type, content), "internal"
        self.call("PyErr_SetString", ir.VoidType(), kind, self.builder.bitcast(text, BYTE_POINTER))
        return BYTE_POINTER(None)
