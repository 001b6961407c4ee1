"""TensorFlow: gradient tapes, eager, under tf.function and with XLA."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import tensorflow as tf

from fastjac.bench.peers.dialect import Dialect, own_functions
from fastjac.bench.problem import Call, Problem

tf.config.threading.set_intra_op_parallelism_threads(1)
tf.config.threading.set_inter_op_parallelism_threads(1)
tf.get_logger().setLevel("ERROR")

_TENSORFLOW = Dialect(
    tf,
    tf.math.erf,
    own_functions(
        tf.nn,
        # Their constants have float32's accuracy.
        leaky_relu=None,
        gelu=None,
        hard_tanh=lambda z: tf.clip_by_value(z, -1, 1),
        elu=lambda z, p: tf.where(z > 0, z, p * tf.math.expm1(tf.minimum(z, 0))),
        celu=lambda z, p: tf.where(z > 0, z, p * tf.math.expm1(tf.minimum(z, 0) / p)),
        silu=lambda z: z * tf.sigmoid(z),
    ),
)


def _network(problem: Problem) -> Callable[[Any], Any]:
    """Return the network of (B, N) arrays: TensorFlow's layers know batches only."""
    weights = [(tf.constant(layer.w), tf.constant(layer.b)) for layer in problem.layers]
    network = _TENSORFLOW.network(problem.layers)
    return lambda a: network(a, weights)


def gradients(problem: Problem) -> Call:
    """Return the article's way today: an eager tape and one gradient for each output."""
    x = tf.constant(problem.single()[None])
    network, n_outputs = _network(problem), problem.sizes[-1]

    def call() -> tuple[Any, Any]:
        with tf.GradientTape(persistent=True) as tape:
            tape.watch(x)
            y = network(x)[0]
            outputs = [y[m] for m in range(n_outputs)]
        return y, tf.stack([tape.gradient(output, x)[0] for output in outputs])

    return call


def jacobian(problem: Problem, compile_as: str | None) -> Call:
    """Return ``tape.batch_jacobian``, perhaps under tf.function."""
    network, batched = _network(problem), problem.batch is not None
    x = tf.constant(problem.x if batched else problem.x[None])

    def value_and_jacobian(x: Any) -> tuple[Any, Any]:
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = network(x)
        jac = tape.batch_jacobian(y, x)
        return (y, jac) if batched else (y[0], jac[0])

    function = value_and_jacobian
    if compile_as is not None:
        function = tf.function(value_and_jacobian, jit_compile=compile_as == "xla", autograph=False)
    return lambda: function(x)


PEERS = {
    "tensorflow eager, a gradient per output": gradients,
    "tensorflow eager tape": partial(jacobian, compile_as=None),
    "tensorflow tf.function": partial(jacobian, compile_as="function"),
    "tensorflow tf.function, XLA": partial(jacobian, compile_as="xla"),
}
