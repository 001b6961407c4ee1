"""A network as an object file: the routine's machine code, the packed weights, and two C functions.

The caller gives the memory to work in. `init` makes a `context.Context` of it: an *image* of one, laid out
in one block, whose addresses become those of the block and of the weights.
"""

# mypy: disable-error-code="no-untyped-call, untyped-decorator"

from __future__ import annotations

import bisect
from collections.abc import Sequence, Set
from typing import Any, NamedTuple

from llvmlite import binding, ir
from numba.core.compiler_lock import global_compiler_lock
from numba.core.registry import cpu_target
from numpy.typing import NDArray

from fastjac.kernels import activations, cache, routines
from fastjac.kernels.c_entries import FUNCTION_TYPE, emit_any_null, emit_status
from fastjac.kernels.contexts import Weights, new_context
from fastjac.kernels.layout import ADDRESSES, CODES, LAYER
from fastjac.kernels.llvm.vectors import BYTE_POINTER, INT, INT32
from fastjac.kernels.signatures import MISMATCH, OK, VALUE_AND_JACOBIAN
from fastjac.kernels.target import ALIGNMENT

UNPREPARED = 4
# What an object file may ask of the C library.
LIBRARY = {
    *("cos", "log", "logf", "sin", "sincos", "sqrt", "sqrtf"),
    *("memcpy", "memmove", "memset"),
}


class Object(NamedTuple):
    """An object file's bytes, the bytes of memory that a call works in, and what it was compiled for."""

    code: bytes
    workspace: int
    triple: str
    processor: str


class _Block:
    """Arrays one behind the other, each on a 64-byte boundary."""

    def __init__(self, arrays: Sequence[NDArray[Any]], start: int) -> None:
        self.arrays = arrays
        self.offsets = []
        found = []
        for array in arrays:
            size = max(array.nbytes, 1)  # An empty array has an address too.
            self.offsets.append(start)
            found.append((int(array.ctypes.data), size, start))
            start += -(-size // ALIGNMENT) * ALIGNMENT
        self.size = start
        self._found = sorted(found)

    def offset(self, address: int) -> int | None:
        """Return where in the block an address of an array is, None for any other."""
        number = bisect.bisect_right(self._found, address, key=lambda each: each[0]) - 1
        first, size, offset = self._found[max(number, 0)]
        return offset + address - first if first <= address < first + size else None

    def content(self) -> bytearray:
        content = bytearray(self.size)
        for array, offset in zip(self.arrays, self.offsets, strict=True):
            content[offset : offset + array.nbytes] = array.tobytes()
        return content


class _Image:
    """A context in one block, behind the address of that block itself."""

    def __init__(self, packed: Weights) -> None:
        context = new_context(packed)
        self.work = _Block(context.arena.arrays, ALIGNMENT)
        self.weights = _Block(packed.arrays, 0)
        self.context = self._at(context.address)

    def _at(self, address: int) -> int:
        offset = self.work.offset(address)
        assert offset is not None
        return offset

    def addresses(self) -> list[tuple[int, int, bool]]:
        """Return of each address in the image the offset, its target's, and whether that is a weight."""
        found = []
        for array, start in zip(self.work.arrays, self.work.offsets, strict=True):
            for name in ADDRESSES.get(array.dtype, ()):
                assert array.dtype.fields is not None
                shift = array.dtype.fields[name][1]
                for number, value in enumerate(array[name].tolist()):
                    if value:
                        found.append((start + number * array.itemsize + shift, *self._target(value)))
        return found

    def functions(self) -> list[tuple[int, str]]:
        """Return of each address of an activation's code in the image the offset, and which activation."""
        assert LAYER.fields is not None
        found, shift, names = [], LAYER.fields["function"][1], list(CODES)
        for array, start in zip(self.work.arrays, self.work.offsets, strict=True):
            if array.dtype == LAYER:
                for number, layer in enumerate(array):
                    if layer["function"]:
                        found.append((start + number * LAYER.itemsize + shift, names[layer["activation"]]))
        return found

    def _target(self, address: int) -> tuple[int, bool]:
        target, weight = self.work.offset(address), self.weights.offset(address)
        if target is not None:
            return target, False
        if weight is not None:
            return weight, True
        raise RuntimeError("a context holds an address that is not of its own memory or a weight's")


@global_compiler_lock
def compile_object(packed: Weights, name: str) -> Object:
    """Return the object file of a network whose C functions begin with ``name``.

    ``int NAME_init(void *workspace)`` and
    ``int NAME_value_and_jacobian(void *workspace, const T *x, T *y, T *jac)``.
    """
    image = _Image(packed)
    module = cpu_target.target_context.create_module(name)
    routine, instructions = cache.instructions(routines.routine(packed.dtype, packed.is_graph))
    used = {activation for _, activation in image.functions()}
    called = {each: cache.instructions(activations.routine(each, packed.dtype)) for each in sorted(used)}
    _emit_init(module, f"{name}_init", image, {each: symbol for each, (symbol, _) in called.items()})
    _emit_value_and_jacobian(module, f"{name}_value_and_jacobian", routine, image.context)
    emit_unreached(module, "NRT_MemInfo_call_dtor")

    linked = binding.parse_assembly(str(module))
    for part in (instructions, *(part for _, part in called.values())):
        linked.link_in(part)
    hide(linked, {f"{name}_init", f"{name}_value_and_jacobian"})
    triple, processor, features = cpu_target.target_context.codegen().magic_tuple()
    machine = binding.Target.from_triple(triple).create_target_machine(
        cpu=processor, features=features, opt=3, reloc="pic", codemodel="default"
    )
    code = emit(linked, machine, LIBRARY)
    return Object(code, image.work.size + ALIGNMENT, triple, processor)


def hide(module: Any, public: set[str]) -> None:
    """Let nothing else of a module be seen from outside."""
    for value in [*module.functions, *module.global_variables]:
        if not value.is_declaration and value.name not in public:
            value.linkage = "internal"


def emit(module: Any, machine: Any, library: Set[str]) -> bytes:
    """Return the object file of a module, less what its public functions do not use.

    RuntimeError if it needs anything else than LLVM's own functions and those of ``library``.
    """
    passes = binding.create_new_module_pass_manager()
    passes.add_global_dead_code_eliminate_pass()
    passes.run(module, binding.create_pass_builder(machine, binding.create_pipeline_tuning_options()))
    code: bytes = machine.emit_object(module)
    missing = {f.name for f in module.functions if f.is_declaration and not f.name.startswith("llvm.")}
    missing |= {v.name for v in module.global_variables if v.is_declaration}
    if not missing <= library:
        raise RuntimeError(f"the routine calls {', '.join(sorted(missing - library))}")
    return code


def _constant(module: ir.Module, name: str, content: bytes | bytearray) -> ir.GlobalVariable:
    kind = ir.ArrayType(ir.IntType(8), len(content))
    variable = ir.GlobalVariable(module, kind, name)
    variable.initializer = ir.Constant(kind, bytearray(content))
    variable.global_constant, variable.linkage, variable.align = True, "internal", ALIGNMENT
    return variable


def _base(builder: ir.IRBuilder, workspace: ir.Value) -> ir.Value:
    """Return the first 64-byte boundary in the caller's memory."""
    return builder.and_(builder.add(builder.ptrtoint(workspace, INT), INT(ALIGNMENT - 1)), INT(-ALIGNMENT))


def _pointer(builder: ir.IRBuilder, base: ir.Value, offset: int, kind: ir.Type) -> ir.Value:
    return builder.inttoptr(builder.add(base, INT(offset)), kind.as_pointer())


def _emit_init(module: ir.Module, name: str, image: _Image, symbols: dict[str, str]) -> None:
    """Emit the function that lays out a workspace; ``symbols`` are the activations' names in the module."""
    byte = ir.IntType(8)
    memset = ir.Function(module, ir.FunctionType(BYTE_POINTER, [BYTE_POINTER, INT32, INT]), "memset")
    memcpy = ir.Function(module, ir.FunctionType(BYTE_POINTER, [BYTE_POINTER, BYTE_POINTER, INT]), "memcpy")
    weights = _constant(module, f"{name}.weights", image.weights.content())

    function = ir.Function(module, ir.FunctionType(INT32, [BYTE_POINTER]), name)
    builder = ir.IRBuilder(function.append_basic_block())
    emit_status(builder, emit_any_null(builder, function.args), MISMATCH)
    base = _base(builder, function.args[0])
    builder.call(memset, [_pointer(builder, base, 0, byte), INT32(0), INT(image.work.size)])
    addresses, functions, content = image.addresses(), image.functions(), image.work.content()
    for at in [at for at, *_ in addresses] + [at for at, _ in functions]:
        content[at : at + INT.width // 8] = bytes(INT.width // 8)  # This process's are of no use.
    for array, offset in zip(image.work.arrays, image.work.offsets, strict=True):
        part = content[offset : offset + array.nbytes]
        if any(part):
            source = builder.bitcast(_constant(module, f"{name}.{offset}", part), BYTE_POINTER)
            builder.call(memcpy, [_pointer(builder, base, offset, byte), source, INT(len(part))])
    first_weight = builder.ptrtoint(weights, INT)
    for at, target, weight in addresses:
        address = builder.add(first_weight if weight else base, INT(target))
        builder.store(address, _pointer(builder, base, at, INT))
    code = {
        each: ir.Function(module, ir.FunctionType(ir.VoidType(), []), symbol)
        for each, symbol in symbols.items()
    }
    for at, activation in functions:
        builder.store(builder.ptrtoint(code[activation], INT), _pointer(builder, base, at, INT))
    builder.store(base, _pointer(builder, base, 0, INT))
    builder.ret(INT32(OK))


def _emit_value_and_jacobian(module: ir.Module, name: str, routine_name: str, context: int) -> None:
    routine = ir.Function(module, routines.routine_type(), routine_name)

    function = ir.Function(module, FUNCTION_TYPE, name)
    builder = ir.IRBuilder(function.append_basic_block())
    emit_status(builder, emit_any_null(builder, function.args), MISMATCH)
    base = _base(builder, function.args[0])
    # A workspace that was copied somewhere else still has the addresses of where it was.
    itself = builder.load(_pointer(builder, base, 0, INT))
    emit_status(builder, builder.icmp_signed("!=", itself, base), UNPREPARED)
    at, (x, y, jac) = builder.add(base, INT(context)), function.args[1:]
    mode = VALUE_AND_JACOBIAN
    builder.ret(routines.emit_call(builder, routine, at, mode, INT(1), x, None, y, jac))


def emit_unreached(module: ir.Module, name: str) -> None:
    """Emit what the machine code mentions but never gets to: it frees arrays that own their memory."""
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), [BYTE_POINTER]), name)
    ir.IRBuilder(function.append_basic_block()).ret_void()
