"""Plain C, compiled for this machine with what it has for a compiler, inactive units skipped."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from fastjac.bench.problem import Call, Problem
from fastjac.layers import Activation

COMPILER = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
if COMPILER is None:
    raise ModuleNotFoundError("no C compiler")
FLAGS = ("-O3", "-march=native", "-ffast-math", "-fPIC")

# Name -> value and slope as C expressions of the pre-activation z, the value a and the parameter P.
_EXPRESSIONS = {
    "identity": ("z", "1"),
    "relu": ("z > 0 ? z : 0", "z > 0 ? 1 : 0"),
    "leaky_relu": ("z > 0 ? z : P * z", "z > 0 ? 1 : P"),
    "relu6": ("z < 0 ? 0 : z > 6 ? 6 : z", "z > 0 && z < 6 ? 1 : 0"),
    "hard_tanh": ("z < -1 ? -1 : z > 1 ? 1 : z", "z > -1 && z < 1 ? 1 : 0"),
    "elu": ("z > 0 ? z : P * (EXP(z) - 1)", "z > 0 ? 1 : a + P"),
    "tanh": ("TANH(z)", "1 - a * a"),
    "sigmoid": ("1 / (1 + EXP(-z))", "a * (1 - a)"),
    "softplus": ("(z > 0 ? z : 0) + LOG(1 + EXP(z > 0 ? -z : z))", "1 - EXP(-a)"),
    "silu": ("z / (1 + EXP(-z))", "(1 + z * (1 - 1 / (1 + EXP(-z)))) / (1 + EXP(-z))"),
    "gelu": (
        "R(0.5) * z * (1 + ERF(z * R(0.7071067811865476)))",
        "R(0.5) * (1 + ERF(z * R(0.7071067811865476))) + z * EXP(R(-0.5) * z * z) * R(0.3989422804014327)",
    ),
    "gelu_tanh": (
        "R(0.5) * z * (1 + TANH(GELU_INNER(z)))",
        "R(0.5) * (1 + TANH(GELU_INNER(z))) + R(0.5) * z * (1 - TANH(GELU_INNER(z)) * TANH(GELU_INNER(z)))"
        " * R(0.7978845608028654) * (1 + R(0.134145) * z * z)",
    ),
}
_PRELUDE = {
    "float64": "typedef double real;\n#define R(c) c\n"
    "#define EXP exp\n#define LOG log\n#define TANH tanh\n#define ERF erf\n",
    "float32": "typedef float real;\n#define R(c) c##f\n"
    "#define EXP expf\n#define LOG logf\n#define TANH tanhf\n#define ERF erff\n",
}
_GELU = "#define GELU_INNER(z) (R(0.7978845608028654) * ((z) + R(0.044715) * (z) * (z) * (z)))\n"


def source(problem: Problem) -> str:
    """Return the C text of ``value_and_jacobian(x, weights, y, jac)`` for one network's sizes."""
    sizes, last = problem.sizes, len(problem.layers) - 1
    m = sizes[-1]
    statics = [f"static real mean[{sizes[-2]}], head_scale[{m}];"]
    body = []
    for i, layer in enumerate(problem.layers):
        fan_in, fan_out = sizes[i], sizes[i + 1]
        statics.append(f"static real z{i}[{fan_out}], a{i}[{fan_out}], slope{i}[{fan_out}];")
        statics.append(f"static real jac{i}[{m * fan_in if i else 1}];")
        given = "x" if i == 0 else f"a{i - 1}"
        body.append(f"affine({given}, weights[{3 * i}], weights[{3 * i + 1}], z{i}, {fan_in}, {fan_out});")
        if i < last:
            body.append(_activate(layer.activation, i, fan_out, f"a{i}"))
    body += _head(problem.head, last, m, sizes[-2])
    for i in range(last - 1, -1, -1):
        target = "jac" if i == 0 else f"jac{i}"
        arrays = f"jac{i + 1}, slope{i}, weights[{3 * i + 2}], {target}"
        body.append(f"affine_backward({arrays}, {m}, {sizes[i + 1]}, {sizes[i]});")
    template = (Path(__file__).parent / "network.c").read_text()
    lines = "\n        ".join(body)
    return (
        f"#include <math.h>\n{_PRELUDE[problem.dtype.name]}{_GELU}{template}\n" + "\n".join(statics) + "\n"
        "void value_and_jacobian(const real *restrict x, const real *const *restrict weights,\n"
        "                        real *restrict y, real *restrict jac)\n{\n"
        f"    for (int sample = 0; sample < {problem.batch or 1}; sample++) {{\n        {lines}\n"
        f"        x += {sizes[0]}; y += {m}; jac += {m * sizes[0]};\n    }}\n}}\n"
    )


def _activate(activation: Activation, i: int, size: int, target: str) -> str:
    value, slope = _EXPRESSIONS[activation.name]
    return (
        f"for (int h = 0; h < {size}; h++) {{ const real P = {activation.parameter!r}, z = z{i}[h]; "
        f"const real a = {value}; (void)P; {target}[h] = a; slope{i}[h] = {slope}; }}"
    )


def _head(head: Activation, i: int, m: int, fan_in: int) -> list[str]:
    """Return the lines that compute y and its derivative by the last layer's input."""
    target = "jac" if i == 0 else f"jac{i}"
    wt = f"weights[{3 * i + 2}]"
    if head.name == "softmax":
        return [f"softmax(z{i}, y, {m});", f"centre(y, y, {wt}, mean, {target}, {m}, {fan_in});"]
    if head.name == "log_softmax":
        ones = f"for (int i = 0; i < {m}; i++) head_scale[i] = 1;"
        return [
            f"log_softmax(z{i}, y, a{i}, {m});",
            ones,
            f"centre(a{i}, head_scale, {wt}, mean, {target}, {m}, {fan_in});",
        ]
    return [_activate(head, i, m, "y"), f"scale_rows(slope{i}, {wt}, {target}, {m}, {fan_in});"]


def plain(problem: Problem) -> Call:
    """Return the compiled function, called through ctypes with its addresses prepared."""
    with tempfile.TemporaryDirectory() as folder:
        text, library = Path(folder, "network.c"), Path(folder, "network.so")
        text.write_text(source(problem))
        compiled = text.with_suffix(".o")
        # Linked without -ffast-math, which would have the whole process round denormals to 0.
        for step in (
            [*FLAGS, "-c", "-o", str(compiled), str(text)],
            ["-shared", "-o", str(library), str(compiled), "-lm"],
        ):
            done = subprocess.run([str(COMPILER), *step], capture_output=True, text=True)
            if done.returncode:
                raise RuntimeError(done.stderr.strip()[:200])
        function = ctypes.CDLL(str(library)).value_and_jacobian
    arrays = [
        array for layer in problem.layers for array in (layer.w, layer.b, np.ascontiguousarray(layer.w.T))
    ]
    weights = (ctypes.c_void_p * len(arrays))(*(array.ctypes.data for array in arrays))
    y, jac = problem.outputs()
    pointers = [ctypes.c_void_p(array.ctypes.data) for array in (problem.x, y, jac)]
    run = partial(function, pointers[0], weights, pointers[1], pointers[2])
    kept = (arrays, problem)

    def call() -> tuple[Any, Any]:
        run()
        return y, jac

    call.kept = kept  # type: ignore[attr-defined]
    return call


PEERS = {"plain C": plain}
