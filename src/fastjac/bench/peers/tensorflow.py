"""TensorFlow: gradient tapes, eager, under tf.function and with XLA."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import tensorflow as tf

from fastjac.bench.problem import Call, NotApplicableError, Problem

tf.config.threading.set_intra_op_parallelism_threads(1)
tf.config.threading.set_inter_op_parallelism_threads(1)
tf.get_logger().setLevel("ERROR")

_VALUES: dict[str, Callable[[Any, float], Any]] = {
    "identity": lambda z, p: z,
    "relu": lambda z, p: tf.nn.relu(z),
    "leaky_relu": lambda z, p: tf.nn.leaky_relu(z, p),
    "relu6": lambda z, p: tf.nn.relu6(z),
    "hard_tanh": lambda z, p: tf.clip_by_value(z, -1, 1),
    "elu": lambda z, p: tf.where(z > 0, z, p * tf.math.expm1(tf.minimum(z, 0))),
    "tanh": lambda z, p: tf.tanh(z),
    "sigmoid": lambda z, p: tf.sigmoid(z),
    "softplus": lambda z, p: tf.nn.softplus(z),
    "silu": lambda z, p: z * tf.sigmoid(z),
    "gelu": lambda z, p: tf.nn.gelu(z),
    "gelu_tanh": lambda z, p: tf.nn.gelu(z, approximate=True),
    "softmax": lambda z, p: tf.nn.softmax(z),
    "log_softmax": lambda z, p: tf.nn.log_softmax(z),
}


def _network(problem: Problem) -> Callable[[Any], Any]:
    """Return the network of (B, N) arrays: TensorFlow's layers know batches only."""
    weights = [(tf.constant(layer.w), tf.constant(layer.b)) for layer in problem.layers]
    activations = [layer.activation for layer in problem.layers]

    def network(a: Any) -> Any:
        for (w, b), activation in zip(weights, activations, strict=True):
            a = _VALUES[activation.name](a @ w + b, activation.parameter)
        return a

    return network


def gradients(problem: Problem) -> Call:
    """Return the article's way today: an eager tape and one gradient for each output."""
    if problem.batch is not None:
        raise NotApplicableError("one input at a time")
    network, n_outputs = _network(problem), problem.sizes[-1]
    x = tf.constant(problem.x[None])

    def call() -> tuple[Any, Any]:
        with tf.GradientTape(persistent=True) as tape:
            tape.watch(x)
            y = network(x)[0]
            outputs = [y[m] for m in range(n_outputs)]
        return y, tf.stack([tape.gradient(output, x)[0] for output in outputs])

    return call


def jacobian(problem: Problem, compile_as: str | None) -> Call:
    """Return ``tape.jacobian`` or, for batches, ``tape.batch_jacobian``, perhaps under tf.function."""
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
