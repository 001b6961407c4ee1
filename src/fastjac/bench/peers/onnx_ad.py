"""onnx-ad: an ONNX model of the output and its Jacobian by reverse mode, run by ONNX Runtime."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx_ad

from fastjac.bench.peers.onnxruntime import model, start
from fastjac.bench.problem import Call, Problem


def reverse(problem: Problem) -> Call:
    """Return a session's ``run`` of the adjoint model, all outputs seeded at once."""
    problem.single()
    adjoint = onnx_ad.reverse(onnx.load_from_string(model(problem)), layout="onnx")
    running = start(problem, adjoint.SerializeToString())
    seeds = np.eye(problem.sizes[-1], dtype=problem.dtype)[None]
    names = [each.name for each in running.get_inputs()]
    given = dict(zip(names, (problem.x[None], seeds), strict=True))

    def call() -> tuple[Any, Any]:
        y, jac = running.run(None, given)
        return y[0], jac[0].T

    return call


PEERS = {"onnx-ad": reverse}
