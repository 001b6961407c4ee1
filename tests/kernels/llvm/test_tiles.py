"""The machine code of the register tile, for instruction sets that this machine need not have."""

import re

import llvmlite.binding as llvm
import pytest
from llvmlite import ir

from fastjac.kernels import target
from fastjac.kernels.llvm import lanes, tiles, vectors

llvm.initialize_all_targets()
llvm.initialize_all_asmprinters()

ELEMENTS = {"float64": ir.DoubleType(), "float32": ir.FloatType()}
# Triple, processor, what the tile sees, the multiply-add that the loop is made of, a use of the stack.
TARGETS = {
    "avx512": ("x86_64-linux-gnu", "skylake-avx512", r"vfmadd\w+p[ds].*%zmm", r"\(%rsp"),
    "avx2": ("x86_64-linux-gnu", "haswell", r"vfmadd\w+p[ds].*%ymm", r"\(%rsp"),
    "sse2": ("x86_64-linux-gnu", "x86-64", r"mulp[ds].*%xmm", r"\(%rsp"),
    "neon": ("aarch64-linux-gnu", "generic", r"fmla\s+v", r"\[sp"),
}
FEATURES = {"avx512": "+avx512f,+avx2,+fma", "avx2": "+avx2,+fma", "sse2": "", "neon": ""}


def assembly(name, element, emit):
    """Return the machine code of a function in which ``emit(vectors, *arguments)`` emitted what it does."""
    triple, processor, *_ = TARGETS[name]
    module = ir.Module()
    module.triple = triple
    function = ir.Function(module, ir.FunctionType(vectors.INT, [vectors.INT] * 14), "function")
    builder = ir.IRBuilder(function.append_basic_block())
    unit = target.target_of(triple, FEATURES[name])
    builder.ret(emit(vectors.Vectors(builder, ELEMENTS[element], unit), *function.args) or vectors.INT(0))

    parsed = llvm.parse_assembly(str(module))
    machine = llvm.Target.from_triple(triple).create_target_machine(processor, opt=3)
    builder = llvm.create_pass_builder(machine, llvm.create_pipeline_tuning_options(speed_level=3))
    builder.getModulePassManager().run(parsed, builder)
    return machine.emit_assembly(parsed)


def inner_loop(name, element, emit):
    """Return the instructions of the loop that multiplies in what ``emit`` emits."""
    # A loop of one block: from a label to the branch back to it.
    loops = re.findall(r"^(?=(\.LBB\w+):(.*?)\s\1$)", assembly(name, element, emit), re.M | re.S)
    bodies = [body for _, body in loops if ".LBB" not in body]
    return max(bodies, key=lambda body: len(re.findall(TARGETS[name][2], body))).splitlines()


def tile_loop(name, element, rows, width=target.NV):
    """Return the instructions of the loop over k of a tile of ``rows`` rows, ``width`` vectors wide."""

    def emit(emitter, k, table, a, b, c, c_rows, sums, gain, spare, *_):
        def place(position):
            pair = emitter.builder.add(table, emitter.builder.mul(position, vectors.INT(16)))
            offsets = [emitter.builder.load(emitter.at(pair, i, vectors.INT), align=8) for i in (0, 8)]
            return tuple(emitter.builder.add(*each) for each in zip((a, b), offsets, strict=True))

        is_first = ir.IntType(1)(1)
        tiles.emit_case(emitter, rows, width, k, place, c, c_rows, sums, gain, spare, is_first)

    return inner_loop(name, element, emit)


def test_target_follows_the_features():
    assert target.target_of("x86_64", "+avx2,+fma,-avx512f") == (32, 16, True)
    assert target.target_of("x86_64", "+avx2,-fma") == (32, 16, False)
    assert target.target_of("x86_64", "+avx512f,+avx2,+fma") == (64, 32, True)
    assert target.target_of("x86_64", "") == (16, 16, False)
    assert target.target_of("arm64-apple-darwin", "") == (16, 32, True)


@pytest.mark.parametrize("element", ELEMENTS)
@pytest.mark.parametrize("name", TARGETS)
def test_every_tile_multiplies_in_registers(name, element):
    *_, multiply_add, stack = TARGETS[name]
    for rows in range(1, target.target_of(TARGETS[name][0], FEATURES[name]).tile_rows + 1):
        for width in range(1, target.NV + 1):
            loop = tile_loop(name, element, rows, width)
            products = sum(bool(re.search(multiply_add, line)) for line in loop)
            assert products >= width * rows and products % (width * rows) == 0, "\n".join(loop)
            spills = [line for line in loop if re.search(stack, line)]
            assert not spills, f"{rows} rows:\n" + "\n".join(loop)


@pytest.mark.parametrize("name", TARGETS)
def test_the_check_for_spills_can_fail(name):
    registers = target.target_of(TARGETS[name][0], FEATURES[name]).registers
    loop = tile_loop(name, "float64", registers)
    assert any(re.search(TARGETS[name][3], line) for line in loop)


@pytest.mark.parametrize("element", ELEMENTS)
@pytest.mark.parametrize("name", TARGETS)
def test_dots_keep_the_vector_in_registers(name, element):
    *_, multiply_add, stack = TARGETS[name]
    loop = inner_loop(name, element, lambda vectors, *others: tiles.emit_dots(vectors, *others[:7]))
    products = sum(bool(re.search(multiply_add, line)) for line in loop)
    row = target.NV * tiles.panels_together(target.target_of(TARGETS[name][0], FEATURES[name]))
    assert products >= row and products % row == 0, "\n".join(loop)
    assert not [line for line in loop if re.search(stack, line)], "\n".join(loop)


SMALL = {
    "add": lambda vectors, *others: vectors.builder.zext(
        lanes.emit_add(vectors, *others[:3]), ir.IntType(64)
    ),
    "divide": lambda vectors, *others: lanes.emit_divide(
        vectors, *others[:2], vectors.builder.load(vectors.at(others[2], 0, vectors.element)), others[3]
    ),
    "head": lambda vectors, *others: lanes.emit_head(vectors, *others[:14]),
    "largest": lambda vectors, *others: lanes.emit_largest(vectors, *others[:2])[0],
}


@pytest.mark.parametrize("element", ELEMENTS)
@pytest.mark.parametrize("name", TARGETS)
@pytest.mark.parametrize("emit", SMALL)
def test_what_a_head_is_made_of_calls_nothing(name, element, emit):
    code = assembly(name, element, SMALL[emit])
    assert not re.search(r"^\s(callq?|bl)\s", code, re.M)
    if name == "avx512":
        assert "%zmm" in code


@pytest.mark.parametrize("element", ELEMENTS)
@pytest.mark.parametrize("name", TARGETS)
def test_active_units_are_listed_in_vectors(name, element):
    code = assembly(name, element, lambda vectors, *others: lanes.emit_nonzero(vectors, *others[:3]))
    assert not re.search(r"\b(call|bl)\b", code)
    if name == "avx512":
        assert re.search(r"vpcompressq\s.*%zmm", code)
    if name == "avx2":
        assert re.search(r"vpermd\s.*%ymm", code)
