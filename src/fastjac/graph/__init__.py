"""Networks that are no chain of layers, written by hand: values computed from one input vector.

Examples
--------
A network that adds what two layers say to its input:

>>> import numpy as np
>>> import fastjac
>>> from fastjac import graph
>>> x = graph.input(2)
>>> h = graph.affine(x, [[1.0, -1.0], [2.0, 0.0]], [0.0, 1.0], "tanh")
>>> net = fastjac.Network(x + 0.1 * graph.affine(h, np.eye(2)))
>>> y, jac = net.value_and_jacobian([0.0, 0.0])
>>> y.round(3)
array([0.   , 0.076])
>>> jac.round(3)
array([[ 1.1  ,  0.2  ],
       [-0.042,  1.   ]])
"""

from fastjac.graph.values import (
    Value,
    add,
    affine,
    apply,
    concatenate,
    input,
    layer_norm,
    log_softmax,
    multiply,
    rms_norm,
    select,
    softmax,
)

__all__ = [
    "Value",
    "add",
    "affine",
    "apply",
    "concatenate",
    "input",
    "layer_norm",
    "log_softmax",
    "multiply",
    "rms_norm",
    "select",
    "softmax",
]
