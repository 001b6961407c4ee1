"""Plain C that skips inactive units, compiled for this machine with the compiler found on it."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from fastjac.bench.peers.dialect import one_parameter
from fastjac.bench.problem import Call, Problem
from fastjac.layers import SELU_ALPHA, SELU_SCALE, Activation

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
    "elu": ("z > 0 ? z : P * (exp(z) - 1)", "z > 0 ? 1 : a + P"),
    "tanh": ("tanh(z)", "1 - a * a"),
    "sigmoid": ("1 / (1 + exp(-z))", "a * (1 - a)"),
    "softplus": ("(z > 0 ? z : 0) + log(1 + exp(z > 0 ? -z : z))", "1 - exp(-a)"),
    "silu": ("z / (1 + exp(-z))", "(1 + z * (1 - 1 / (1 + exp(-z)))) / (1 + exp(-z))"),
    "gelu": (
        "R(0.5) * z * (1 + erf(z * R(0.7071067811865476)))",
        "R(0.5) * (1 + erf(z * R(0.7071067811865476))) + z * exp(R(-0.5) * z * z) * R(0.3989422804014327)",
    ),
    "gelu_tanh": (
        "R(0.5) * z * (1 + GELU_TANH(z))",
        "R(0.5) * (1 + GELU_TANH(z)) + R(0.5) * z * (1 - GELU_TANH(z) * GELU_TANH(z))"
        " * R(0.7978845608028654) * (1 + R(0.134145) * z * z)",
    ),
    "prelu": ("z > 0 ? z : P * z", "z > 0 ? 1 : P"),
    "selu": (
        f"z > 0 ? R({SELU_SCALE}) * z : R({SELU_SCALE * SELU_ALPHA}) * (exp(z) - 1)",
        f"z > 0 ? R({SELU_SCALE}) : a + R({SELU_SCALE * SELU_ALPHA})",
    ),
    "celu": ("z > 0 ? z : P * (exp(z / P) - 1)", "z > 0 ? 1 : a / P + 1"),
    "hard_sigmoid": ("z < -3 ? 0 : z > 3 ? 1 : (z + 3) / 6", "z > -3 && z < 3 ? R(1) / 6 : 0"),
    "hard_swish": ("z < -3 ? 0 : z > 3 ? z : z * (z + 3) / 6", "z < -3 ? 0 : z > 3 ? 1 : (2 * z + 3) / 6"),
    "mish": ("z * GATE(z)", "GATE(z) + z * (1 - GATE(z) * GATE(z)) / (1 + exp(-z))"),
    "softsign": ("z / (1 + fabs(z))", "1 / ((1 + fabs(z)) * (1 + fabs(z)))"),
    "exp": ("exp(z)", "a"),
    "square": ("z * z", "2 * z"),
    "abs": ("fabs(z)", "z > 0 ? 1 : z < 0 ? -1 : 0"),
    "sin": ("sin(z)", "cos(z)"),
    "cos": ("cos(z)", "-sin(z)"),
}
_MACROS = (
    "#define GELU_TANH(z) tanh(R(0.7978845608028654) * ((z) + R(0.044715) * (z) * (z) * (z)))\n"
    "#define GATE(z) tanh((z > 0 ? z : 0) + log(1 + exp(z > 0 ? -z : z)))\n"
)
_TYPES = {"float64": "double", "float32": "float"}


def source(problem: Problem) -> str:
    """Return the C text of ``value_and_jacobian(x, weights, y, jac)`` for one network's sizes."""
    sizes, last = problem.sizes, len(problem.layers) - 1
    m = sizes[-1]
    statics = [f"static real mean[{sizes[-2]}];"]
    forward, backward = [], []
    for i, layer in enumerate(problem.layers):
        fan_in, fan_out = sizes[i : i + 2]
        w, b, wt = (f"weights[{3 * i + number}]" for number in range(3))
        given, jac = ("x", "jac") if i == 0 else (f"a{i - 1}", f"jac{i}")
        statics.append(f"static real z{i}[{fan_out}], a{i}[{fan_out}], slope{i}[{fan_out}];")
        statics.append(f"static real jac{i}[{m * fan_in}];")
        forward.append(f"affine({given}, {w}, {b}, z{i}, {fan_in}, {fan_out});")
        if i < last:
            forward.append(_activate(layer.activation, i, fan_out, f"a{i}"))
            sizes_of_layer = f"{m}, {fan_out}, {fan_in}"
            backward.append(f"affine_backward(jac{i + 1}, slope{i}, {wt}, {jac}, {sizes_of_layer});")
        elif layer.activation.name == "softmax":
            forward.append(f"softmax(z{i}, y, {m}); centre(y, y, {wt}, mean, {jac}, {m}, {fan_in});")
        elif layer.activation.name == "log_softmax":
            forward.append(f"const real total = softmax(z{i}, a{i}, {m});")
            forward.append(f"for (int i = 0; i < {m}; i++) y[i] = z{i}[i] - total;")
            forward.append(f"centre(a{i}, 0, {wt}, mean, {jac}, {m}, {fan_in});")
        else:
            forward.append(_activate(layer.activation, i, m, "y"))
            forward.append(f"scale_rows(slope{i}, {wt}, {jac}, {m}, {fan_in});")
    template = (Path(__file__).parent / "network.c").read_text()
    lines = "\n        ".join([*forward, *reversed(backward)])
    return (
        f"typedef {_TYPES[problem.dtype.name]} real;\n{template}\n{_MACROS}" + "\n".join(statics) + "\n"
        "void value_and_jacobian(const real *restrict x, const real *const *restrict weights,\n"
        "                        real *restrict y, real *restrict jac)\n{\n"
        f"    for (int sample = 0; sample < {problem.batch or 1}; sample++) {{\n        {lines}\n"
        f"        x += {sizes[0]}; y += {m}; jac += {m * sizes[0]};\n    }}\n}}\n"
    )


def _activate(activation: Activation, i: int, size: int, target: str) -> str:
    value, slope = _EXPRESSIONS[activation.name]
    return (
        f"for (int h = 0; h < {size}; h++) {{ const real P = {one_parameter(activation)!r}, z = z{i}[h]; "
        f"const real a = {value}; (void)P; {target}[h] = a; slope{i}[h] = {slope}; }}"
    )


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
    x_at, y_at, jac_at = (ctypes.c_void_p(array.ctypes.data) for array in (problem.x, y, jac))
    run = partial(function, x_at, weights, y_at, jac_at)

    def call() -> tuple[Any, Any]:
        run()
        return y, jac

    call.kept = (arrays, problem)  # type: ignore[attr-defined]
    return call


PEERS = {"plain C": plain}
