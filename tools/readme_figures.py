"""Measures the README's figures again.

On a processor with AVX-512, the rows of the first table, the first two columns of the others, and
docs/times.png; on one without, the last two columns.

pip install '.[bench]' captum
python tools/readme_figures.py
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from fastjac.kernels import machine_code
from fastjac.kernels.llvm.vectors import TARGET

ROOT = Path(__file__).resolve().parents[1]
ARTICLE = "500-100-10"
SHAPES = ("8-32-4", "64-64-10", "784-256-10", "2048-1024-100")
# The peers in the picture and in the table, and how the table calls them.
PEERS = {
    "plain C": "plain C, compiled for these sizes",
    "jax by hand, closed over": "JAX, written by hand",
    "jax jacrev, closed over": "JAX, `jit(jacrev)`",
    "numpy, optimised": "NumPy, optimised by hand",
    "numpy, as in the article": "NumPy, as in the article",
    "torch by hand": "PyTorch, written by hand",
    "tensorflow tf.function, XLA": "TensorFlow, XLA",
    "torch func.jacrev": "PyTorch, `func.jacrev`",
    "casadi": "CasADi",
    "autograd": "HIPS Autograd",
    "tensorflow eager, a gradient per output": "TensorFlow, a gradient for each output",
}
JACOBIANS = ("torch func.jacrev", "jax jacrev, closed over", "casadi")
# Of these, one is the fastest at any size.
NEAREST = ("jax by hand, closed over", "jax jacrev, closed over", "numpy, optimised", "casadi")
NOT_MEASURED = "-"


def compare(*arguments: str) -> list[dict[str, Any]]:
    """Return the results of ``fastjac compare`` with these arguments."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "figures.json")
        command = [sys.executable, "-m", "fastjac", "compare", *arguments, "--json", str(file)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        results: list[dict[str, Any]] = json.loads(file.read_text())["results"]
        return results


def times(figures: dict[str, Any]) -> dict[str, float]:
    """Return the microseconds of each peer."""
    return {peer["peer"]: peer["min_us"] for peer in figures["peers"] if "min_us" in peer}


def digits(number: float) -> str:
    """Return three digits, more only before the point."""
    return f"{number:,.{0 if number >= 100 else 1 if number >= 10 else 2}f}"


def article(plot: list[str]) -> dict[str, list[str]]:
    """Return label -> float64 and float32 of the table of peers."""
    rows: dict[str, list[str]] = {}
    for dtype in ("float64", "float32"):
        draw = plot if dtype == "float64" else []
        (figures,) = compare("--shape", ARTICLE, "--dtype", dtype, "--peers", *PEERS, *draw)
        measured = times(figures)
        ours = measured["fastjac"]
        rows.setdefault("the limit", []).append(digits(figures["limit_us"]))
        share = 100 * figures["limit_us"] / ours
        rows.setdefault("**fastjac**", []).append(f"**{digits(ours)}** ({share:.0f} % of the limit)")
        for peer, label in PEERS.items():
            time = measured.get(peer)
            cell = NOT_MEASURED if time is None else f"{digits(time)} ({digits(time / ours)}x)"
            rows.setdefault(label, []).append(cell)
    return rows


def sizes() -> dict[str, list[str]]:
    """Return shape -> float64 and float32, each with the fastest peer that Python calls."""
    rows: dict[str, list[str]] = {}
    for figures in compare("--shape", *SHAPES, "--peers", *NEAREST):
        measured = times(figures)
        ours = measured.pop("fastjac")
        nearest = min(measured, key=lambda peer: measured[peer])
        name = PEERS[nearest].partition(",")[0]
        rows.setdefault(figures["shape"], []).append(
            f"{digits(ours)} ({name} {digits(measured[nearest] / ours)}x)"
        )
    return rows


def batch() -> list[str]:
    """Return fastjac's time and the ratios of a batch of 256, for the columns of "fastjac or"."""
    (figures,) = compare(
        *("--shape", ARTICLE, "--dtype", "float32", "--batch", "256"),
        *("--peers", "torch func", "jax jacrev, closed", "jax by hand, closed"),
    )
    measured = times(figures)
    ours = measured["fastjac"]
    named = ("torch func.jacrev", "jax jacrev, closed over")
    ratios = [f"{digits(measured[name] / ours)}x" for name in named]
    return [f"{digits(ours)} us", *ratios, NOT_MEASURED, NOT_MEASURED]


def attributions() -> list[str]:
    """Return fastjac's time and captum's ratio for integrated gradients of ten outputs."""
    import torch
    from captum.attr import IntegratedGradients

    import fastjac
    from fastjac import explain

    torch.set_num_threads(1)
    torch.manual_seed(0)
    layers = [torch.nn.Linear(500, 100), torch.nn.ReLU(), torch.nn.Linear(100, 10)]
    module = torch.nn.Sequential(*layers, torch.nn.Softmax(dim=1)).eval()
    net, x = fastjac.from_torch(module), np.random.default_rng(0).random(500, np.float32)
    sample, method = torch.from_numpy(x)[None], IntegratedGradients(module)

    def theirs() -> Any:
        return torch.cat([method.attribute(sample, target=m, n_steps=50) for m in range(10)])

    def ours() -> Any:
        return explain.integrated_gradients(net, x, steps=50)

    np.testing.assert_allclose(np.asarray(ours()), theirs().detach().numpy(), atol=1e-4)
    least = [min(_seconds(call) for _ in range(30)) for call in (ours, theirs)]
    return [f"{least[0] * 1e3:.2f} ms", *[NOT_MEASURED] * 3, f"{digits(least[1] / least[0])}x"]


def _seconds(call: Any) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


STARTS = {
    "fastjac": "net.value_and_jacobian(x)",
    "torch": "torch.func.jacrev(f)(x)",
    "jax": "jax.jit(jax.jacrev(f))(x).block_until_ready()",
    "casadi": "casadi.Function('f', [x], [f(x), casadi.jacobian(f(x), x)])(np.zeros(500))",
}
_PREPARE = {
    "fastjac": "net = fastjac.Network([(w1, None), (w2, None)]); x = np.zeros(500)",
    "torch": "w1, w2 = map(torch.from_numpy, (w1, w2)); x = torch.zeros(500, dtype=torch.float64)\n"
    "f = lambda x: torch.softmax(torch.relu(x @ w1) @ w2, -1)",
    "jax": "x = np.zeros(500)\nf = lambda x: jax.nn.softmax(jax.nn.relu(x @ w1) @ w2)",
    "casadi": "x = casadi.MX.sym('x', 500)\n"
    "def f(x):\n"
    "    e = casadi.exp(w2.T @ casadi.fmax(w1.T @ x, 0))\n"
    "    return e / casadi.sum1(e)",
}


def starts() -> tuple[list[str], list[str]]:
    """Return a process's processor time to its first Jacobian: with shipped machine code, and without."""
    codes = {
        package: f"import {package}, numpy as np; w1, w2 = np.eye(500, 100), np.eye(100, 10)\n"
        f"{_PREPARE[package]}\n{call}"
        for package, call in STARTS.items()
    }
    ours = codes.pop("fastjac")
    others = [_least(code, {}) for code in codes.values()]
    with tempfile.TemporaryDirectory() as folder:
        source, cache = Path(folder, "src"), {"NUMBA_CACHE_DIR": folder}
        first = _process(ours, cache)
        later = _least(ours, cache)
        shutil.copytree(ROOT / "src", source)
        variables = {"PYTHONPATH": str(source), **cache}
        command = [sys.executable, str(ROOT / "tools" / "machine_code.py"), str(machine_code.level())]
        subprocess.run(command, check=True, env={**os.environ, **variables}, stdout=subprocess.DEVNULL)
        shipped = _least(ours, variables)
    same = [f"{seconds:.1f} s" for seconds in (*others, others[0])]
    return [f"{shipped:.1f} s", *same], [f"{first:.1f} s, later {later:.1f} s", *same]


def _least(code: str, variables: dict[str, str]) -> float:
    return min(_process(code, variables) for _ in range(4))


def _process(code: str, variables: dict[str, str]) -> float:
    """Return the processor seconds of a new process that runs ``code``."""
    command = [sys.executable, "-c", code]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    environment = {**os.environ, **variables}
    subprocess.run(command, check=True, env=environment, stderr=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def replaced(text: str, label: str, cells: list[str], first: int = 0) -> str:
    """Return the README with cells of the row ``label`` replaced, from column ``first`` on."""
    lines = text.splitlines()
    (number,) = (i for i, line in enumerate(lines) if line.startswith(f"| {label} |"))
    row = [cell.strip() for cell in lines[number].strip("|").split("|")]
    row[1 + first : 1 + first + len(cells)] = cells
    lines[number] = f"| {' | '.join(row)} |"
    return "\n".join(lines) + "\n"


def others(first_column: dict[str, str]) -> dict[str, list[str]]:
    """Return the rows of the table of "fastjac or", given the float64 cells of the other tables."""
    measured = {}
    measured["output and Jacobian, float64"] = [
        f"{first_column['**fastjac**'].split('*')[2]} us",
        *(first_column[PEERS[peer]].split("(")[1].rstrip(")") for peer in JACOBIANS),
        NOT_MEASURED,
    ]
    measured["a batch of 256, a sample, float32"] = batch()
    measured["integrated gradients of all outputs"] = attributions()
    shipped, compiled = starts()
    measured["processor time to a process's first Jacobian, wheel"] = shipped
    measured["the same, clone: first time on a machine"] = compiled
    return measured


def main() -> None:
    """Measure all, then write all."""
    is_wide = TARGET.vector_bytes == 64
    tables = article(["--plot", str(ROOT / "docs" / "times.png")] if is_wide else []) | sizes()
    measured = others({label: cells[0] for label, cells in tables.items()}) if is_wide else {}
    path = ROOT / "README.md"
    text = path.read_text(encoding="utf-8")
    for label, cells in tables.items():
        text = replaced(text, label, cells, 0 if is_wide else 2)
    for label, cells in measured.items():
        text = replaced(text, label, cells)
    path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
