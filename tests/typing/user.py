"""A user's file, which pyright reads in its strict mode: it is never run."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from typing_extensions import assert_type

import fastjac
from fastjac import explain
from fastjac.embedding import OK, value_and_jacobian

net = fastjac.load("model.onnx")
assert_type(net, fastjac.Network)
assert_type(fastjac.from_torch(object()), fastjac.Network)
assert_type(fastjac.from_jax(np.tanh, 3), fastjac.Network)
assert_type(fastjac.from_keras(object()), fastjac.Network)
assert_type(fastjac.from_sklearn(object()), fastjac.Network)
assert_type(fastjac.from_params([(np.eye(2), None)], "relu", "softmax"), fastjac.Network)
fastjac.save(net.replace(head="identity"), "logits.npz")

x = np.zeros(net.n_inputs)
y, jac = net.value_and_jacobian(x)
assert_type(y, NDArray[Any])
assert_type(jac, NDArray[Any])
assert_type(net.vjp(x, y), tuple[NDArray[Any], NDArray[Any]])
assert_type(net.sensitivity(x, "spectral"), NDArray[Any])
for values, jacobians in net.iter_value_and_jacobian(x[None], threads="all"):
    assert_type((values, jacobians), tuple[NDArray[Any], NDArray[Any]])
step = net.bind(x, (y, jac))
step()

assert_type(explain.saliency(net, x), explain.Attribution)
assert_type(explain.flips(net, x, 0.0)[0].output, str)
assert_type(fastjac.check_jacobian(net, x).ok, bool)
assert_type(fastjac.jacobian.jacobian(x, x, x, x, x), NDArray[Any])
succeeded = value_and_jacobian(net.handle(), x, y, jac) == OK

try:
    fastjac.warmup("float32")
except fastjac.ModelError as error:
    assert_type(error, fastjac.ModelError)
