"""from_jax against the function itself and jax.jacrev."""

import subprocess
import sys

import numpy as np
import pytest

import fastjac
from fastjac.models import from_jax

jax = pytest.importorskip("jax")
jnp, jnn = jax.numpy, jax.nn

DTYPES = ("float32", "float64")
TOLERANCES = {"float32": 1e-5, "float64": 1e-10}  # relative to the largest entry
rng = np.random.default_rng(0)


class Weights:
    """Arrays in the dtype of a test."""

    w1 = b1 = w2 = None


W = Weights()


@pytest.fixture(params=DTYPES, autouse=True)
def dtype(request):
    # For good: JAX keeps compiled functions when this changes.
    jax.config.update("jax_enable_x64", True)
    random = np.random.default_rng(0)
    W.w1, W.b1, W.w2 = (
        (random.normal(size=shape) / 2).astype(request.param) for shape in ((6, 8), (8,), (8, 3))
    )
    return request.param


def assert_same(function, dtype, n_inputs=6):
    """Compare with the function in float64, for its own float32 Jacobian may be off by more than 1e-5."""
    net = from_jax(function, n_inputs)
    assert net.dtype == dtype
    for x in rng.normal(size=(3, n_inputs)):
        y, jac = net.value_and_jacobian(x)
        x = jnp.asarray(x.astype(dtype), jnp.float64)
        expected, expected_jac = np.ravel(function(x)), jax.jacrev(function)(x)
        atol = TOLERANCES[dtype] * np.abs(expected).max()
        np.testing.assert_allclose(y, expected, rtol=0, atol=atol)
        expected_jac = np.reshape(expected_jac, jac.shape)
        atol = TOLERANCES[dtype] * np.abs(expected_jac).max()
        np.testing.assert_allclose(jac, expected_jac, rtol=0, atol=atol)
    return net


def between(activation):
    """Return a function that computes an activation between two layers."""
    return lambda x: activation(x @ W.w1 + W.b1) @ W.w2


# Activation or head of fastjac -> functions that compute it.
ALIKE = {
    "relu": [jnn.relu, lambda z: jnp.maximum(z, 0), lambda z: jnp.where(z > 0, z, 0), lambda z: z * (z > 0)],
    "leaky_relu(0.01)": [jnn.leaky_relu, lambda z: jnp.maximum(z, 0.01 * z)],
    "leaky_relu(0.25)": [lambda z: jnn.leaky_relu(z, 0.25), lambda z: jnp.where(z < 0, z / 4, z)],
    "elu(1.0)": [jnn.elu, jnn.celu, lambda z: jnp.where(z > 0, z, jnp.exp(z) - 1)],
    "elu(0.7)": [lambda z: jnn.elu(z, 0.7)],
    "relu6": [jnn.relu6],
    "hard_tanh": [jnn.hard_tanh, lambda z: jnp.clip(z, -0.5, 2)],
    "tanh": [jnp.tanh, jnn.tanh],
    "sigmoid": [jnn.sigmoid, lambda z: 1 / (1 + jnp.exp(-z))],
    "softplus": [jnn.softplus, jnn.log_sigmoid, lambda z: jnp.log(1 + jnp.exp(z))],
    "silu": [jnn.silu],
    "gelu": [lambda z: jnn.gelu(z, approximate=False)],
    "gelu_tanh": [jnn.gelu],
    "softmax": [jnn.softmax, lambda z: jnp.exp(z) / jnp.exp(z).sum()],
    "log_softmax": [jnn.log_softmax, lambda z: z - jax.scipy.special.logsumexp(z)],
    "layer_norm": [jnn.standardize, lambda z: (z - z.mean()) / jnp.sqrt(z.var() + 1e-3)],
    "rms_norm": [lambda z: z * jax.lax.rsqrt(jnp.mean(z**2) + 1e-6)],
    "selu": [jnn.selu],
    "celu(0.5)": [lambda z: jnn.celu(z, 0.5)],
    "hard_sigmoid": [jnn.hard_sigmoid],
    "hard_swish": [jnn.hard_swish],
    "mish": [jnn.mish],
    "softsign": [jnn.soft_sign],
    "sin": [jnp.sin],
    "cos": [jnp.cos],
    "abs": [jnp.abs],
}


@pytest.mark.parametrize("name", ALIKE)
def test_activations_are_recognised_by_what_they_compute(name, dtype):
    for function in ALIKE[name]:
        net = assert_same(between(function), dtype)
        assert name in repr(net)
        assert "multiply" not in repr(net)


@jax.custom_jvp
def halved(x):
    return jnp.tanh(x) / 2


halved.defjvp(lambda x, t: (halved(*x), (1 - jnp.tanh(x[0]) ** 2) / 2 * t[0]))


def tokens(x):
    return jnp.tanh(x @ W.w1 + W.b1).reshape(4, 2)


def attention(x):
    t = tokens(x)
    return jnn.softmax(t @ t.T / 2, axis=-1) @ t


# Those with arrays compute in the arrays' dtype.
FUNCTIONS = {
    "attention": attention,
    "attention along columns": lambda x: jnn.log_softmax(tokens(x) @ tokens(x).T, axis=0),
    "heads of attention": lambda x: jnp.einsum(
        "qhd,khd->hqk", *[jnn.softmax(tokens(x).reshape(2, 2, 2), axis=axis) for axis in (0, 1)]
    ),
    "rows normalised": lambda x: jnn.standardize(tokens(x).T, axis=-1) * W.b1[:4] + W.b1[4],
    "columns by their length": lambda x: tokens(x) / jnp.sqrt((tokens(x) ** 2).sum(0) + 1e-3),
    "residual": lambda x: x + 0.05 * (jnp.tanh(x @ W.w1 + W.b1) @ W.w2).sum() * W.w1[:, 0],
    "gated": lambda x: jnn.log_softmax((jnn.sigmoid(x @ W.w1) * jnp.tanh(x @ W.w1 + W.b1)) @ W.w2),
    "glu": lambda x: jnn.softmax(jnn.glu(x @ W.w1 + W.b1) @ W.w2[:4]),
    "concatenating": lambda x: jnp.concatenate([jnn.softplus(x @ W.w1), x]) @ np.vstack([W.w2, W.w1[:, :3]]),
    "einsum": lambda x: jnp.einsum("i,ij,jk->k", x, W.w1, W.w2) * jnp.einsum("i,i->", x, x),
    "outer": lambda x: (x[:2, None] * x[None, 2:4] @ W.w1[:2]).ravel(),
    "dot of both": lambda x: W.w2.T @ (W.w1.T @ x) + jnp.dot(x, x),
    "batch of matrices": lambda x: jnp.einsum(
        "bi,bij->bj", x.reshape(2, 3), jnp.asarray(W.w1[:, :4].reshape(2, 3, 4))
    ),
    "batch of both": lambda x: jnp.matmul(x.reshape(3, 1, 2), x.reshape(3, 2, 1)).ravel() * W.b1[:3],
    "vmap": lambda x: jax.vmap(lambda row: jnp.tanh(row @ W.w1[:2]) @ W.w2)(x.reshape(3, 2)),
    "picked": lambda x: (
        jnp.concatenate([x[::2], x[jnp.array([1, -1])], x.take(jnp.array([0, 5]))]) * W.b1[:7]
    ),
    "moved": lambda x: jnp.concatenate([jnp.flip(x), jnp.roll(x, 2), jnp.tile(x[:2], 3)]) @ W.w1.repeat(3, 0),
    "padded": lambda x: jnp.pad(x, (1, 1)) * W.b1,
    "overwritten": lambda x: x.at[0].set(1.0).at[jnp.array([1, 3])].set(x[:2]) @ W.w1,
    "stacked": lambda x: jnp.stack([x[:2], x[2:4], W.b1[:2]]).T.ravel() * W.b1[:6],
    "split": lambda x: jnp.concatenate(jnp.split(x, 3)[::-1]) @ W.w1,
    "powers": lambda x: (x**2 + x**3 - jnp.power(x, 5.0) / 7) @ W.w1,
    "powers of 0": lambda x: jnp.tanh(x) * jnp.power(x, 0.0) + jax.lax.integer_pow(x, 0) * W.b1[:6],
    "clip": lambda x: jnp.clip(x @ W.w1, -0.3, W.b1 + 3) + jnp.maximum(x @ W.w1, x @ W.w1 + W.b1),
    "constants picked": lambda x: jnp.where(np.arange(6) % 2 == 0, x, -jnp.tanh(x)) @ W.w1,
    "jit": lambda x: jax.jit(lambda x: jnp.maximum(x @ W.w1, W.b1) @ W.w2)(x),
    "checkpoint": lambda x: jax.checkpoint(lambda x: jnp.tanh(x @ W.w1) @ W.w2)(x),
    "custom": lambda x: halved(x @ W.w1) @ W.w2,
    "scalar": lambda x: (x @ W.w1).sum(),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_of_every_kind(name, dtype):
    # A new function each time, for JAX keeps what it traced.
    assert_same(lambda x: FUNCTIONS[name](x), dtype)


def test_chains_become_layers(dtype):
    net = from_jax(between(jnn.relu), 6)
    assert [layer.w.shape for layer in net.layers] == [(6, 8), (8, 3)]
    np.testing.assert_array_equal(net.layers[0].b, W.b1.astype(dtype))


def cast(tree, dtype):
    """Return parameters in a dtype."""
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype) if hasattr(leaf, "dtype") else leaf, tree)


def test_equinox(dtype):
    eqx = pytest.importorskip("equinox")
    key = jax.random.PRNGKey(0)
    mlp = eqx.nn.MLP(6, 3, 8, 2, activation=jnn.silu, final_activation=jnn.softplus, key=key)
    layers = [eqx.nn.Linear(6, 8, key=key), eqx.nn.LayerNorm(8), eqx.nn.Lambda(jnn.gelu), eqx.nn.RMSNorm(8)]
    for module in (mlp, eqx.nn.Sequential([*layers, eqx.nn.Linear(8, 2, key=key)])):
        parameters, static = eqx.partition(module, eqx.is_inexact_array)
        parameters = cast(parameters, dtype)
        assert_same(lambda x: eqx.combine(parameters, static)(x), dtype)  # noqa: B023


def test_flax(dtype):
    linen = pytest.importorskip("flax.linen")

    class Block(linen.Module):
        @linen.compact
        def __call__(self, x):
            h = linen.tanh(linen.Dense(8, param_dtype=dtype)(x))
            h = linen.LayerNorm(param_dtype=dtype)(h + linen.Dense(8, param_dtype=dtype)(h))
            h = linen.BatchNorm(use_running_average=True, param_dtype=dtype)(h)
            h = linen.Dropout(0.5, deterministic=True)(jnp.concatenate([h, x], -1))
            return linen.softmax(linen.Dense(3, param_dtype=dtype)(h))

    block = Block()
    variables = block.init(jax.random.PRNGKey(0), jnp.ones((1, 6), dtype))
    assert_same(lambda x: block.apply(variables, x), dtype)
    assert_same(lambda x: block.apply(variables, x[None])[0], dtype)


def test_flax_nnx(dtype):
    nnx = pytest.importorskip("flax.nnx")
    rngs = nnx.Rngs(0)
    first = nnx.Linear(6, 8, param_dtype=dtype, rngs=rngs)
    norms = [nnx.LayerNorm(8, param_dtype=dtype, rngs=rngs), nnx.RMSNorm(8, param_dtype=dtype, rngs=rngs)]
    for norm in norms:
        assert_same(lambda x: norm(first(x)), dtype)  # noqa: B023


def test_dtype_is_that_of_the_arrays(dtype):
    w = jnp.asarray(W.w1, jnp.float32)
    assert from_jax(lambda x: jnp.tanh(x @ w), 6).dtype == np.float32
    assert from_jax(lambda x: x * x, 6).dtype == np.float64
    assert from_jax(between(jnp.tanh), 6).dtype == dtype


def test_without_float64():
    """In a process of its own, in which JAX computes in float32 alone."""
    code = """if True:
        import fastjac, jax, numpy
        print(fastjac.from_jax(lambda x: jax.nn.leaky_relu(x @ numpy.ones((3, 2))), 3))"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    # The slope is 0.01 in float64 too, where JAX has its float32.
    assert result.stdout == "Network(3 -> 2 leaky_relu(0.01), float32)\n", result.stderr


def test_what_is_computed_twice_is_one_value(dtype):
    net = assert_same(lambda x: jnp.where(x @ W.w1 > 0, x @ W.w1, 0.25 * (x @ W.w1)) @ W.w2, dtype)
    assert [str(layer.activation) for layer in net.layers] == ["leaky_relu(0.25)", "identity"]


@jax.custom_jvp
def straight_through(x):
    return jnp.tanh(x)


straight_through.defjvp(lambda x, t: (jnp.tanh(x[0]), t[0]))
HERE = r"test_jax\.py line \d+"
REFUSED = {
    "a branch": (lambda x: x if x[0] > 0 else 2 * x, rf"^function, {HERE}: it takes another way"),
    "numpy": (lambda x: np.tanh(np.asarray(x)), rf"^function, {HERE}: it takes another way .*or leaves JAX"),
    "an unknown primitive": (
        lambda x: jnp.sort(x @ W.w1),
        r"^sort.*: fastjac has no such operation",
    ),
    "a loop": (
        lambda x: jax.lax.while_loop(lambda c: c[0] < 5, lambda c: c + x, x),
        rf"^while, {HERE}: fastjac has no such operation",
    ),
    "a choice": (
        lambda x: jax.lax.cond(x[0] > 0, lambda x: x, lambda x: 2 * x, x),
        rf"{HERE}: it makes whole numbers, or a choice between branches",
    ),
    "a rounding": (
        lambda x: x.astype(jnp.int32) * 1.0,
        rf"{HERE}: it makes whole",
    ),
    "a root": (lambda x: jnp.sqrt(x @ W.w1), rf"^sqrt, {HERE}: fastjac computes this only where it is part"),
    "an exponent": (lambda x: jnp.power(2.0, x), "its exponent is not a whole number|pow"),
    "a stopped derivative": (
        lambda x: x + jax.lax.stop_gradient(jnp.tanh(x) - x),
        rf"^stop_gradient, {HERE}: it stops",
    ),
    "a derivative of its own": (straight_through, "^function has derivatives of its own"),
    "an index of the input": (lambda x: (x @ W.w1)[jnp.argmax(x)], "argmax"),
    "added entries": (
        lambda x: jnp.zeros(3).at[jnp.array([0, 0])].add(x[:2]),
        "scatter-add",
    ),
    "two arrays": (lambda x: (x, x), "^function returns 2 arrays, expected one"),
    "a constant": (lambda x: jnp.ones(3), "^function returns what does not depend on its input"),
    "another shape": (lambda x: x @ W.w2, "^function cannot compute a vector of 6 numbers: .*(6,)"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_clear_no(name):
    function, message = REFUSED[name]
    with pytest.raises(ValueError, match=message):
        from_jax(function, 6)


def test_arguments():
    with pytest.raises(TypeError, match=r"^function must be callable, got dict"):
        from_jax({}, 3)
    with pytest.raises(TypeError, match=r"^n_inputs must be an integer, got float"):
        from_jax(jnp.tanh, 3.0)
    assert fastjac.from_jax is from_jax


def test_a_tracer_is_no_input():
    net = from_jax(between(jnp.tanh), 6)
    for call in (net, net.value_and_jacobian, net.jacobian):
        with pytest.raises(TypeError, match=r"^x is traced by JAX, which a network cannot be"):
            jax.jit(call)(W.w1[:, 0])
        with pytest.raises(TypeError, match=r"^x is traced by JAX, which a network cannot be"):
            jax.grad(lambda x: np.sum(call(x)))(W.w1[:, 0])  # noqa: B023
