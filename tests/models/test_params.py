"""from_params on Flax, JAX and plain weights."""

from itertools import pairwise

import numpy as np
import pytest

from fastjac import Network
from fastjac.models import from_params

rng = np.random.default_rng(0)


def pairs(*sizes, dtype=np.float64):
    return [
        (rng.normal(size=size).astype(dtype), rng.normal(size=size[1]).astype(dtype))
        for size in pairwise(sizes)
    ]


def assert_layers(net, layers):
    for layer, (w, b) in zip(net.layers, layers, strict=True):
        np.testing.assert_array_equal(layer.w, w)
        np.testing.assert_array_equal(layer.b, np.zeros(w.shape[1]) if b is None else b)


LAYERS = pairs(5, 4, 3, 2)


@pytest.mark.parametrize(
    "params",
    [
        LAYERS,
        tuple(LAYERS),
        [list(pair) for pair in LAYERS],
        [LAYERS[0], (), LAYERS[1], (), LAYERS[2], ()],
        [{"w": w, "b": b} for w, b in LAYERS],
        {"params": {f"Dense_{n}": {"kernel": w, "bias": b} for n, (w, b) in enumerate(LAYERS)}},
        {f"linear{'_' * (n > 0)}{n or ''}": {"w": w, "b": b} for n, (w, b) in enumerate(LAYERS)},
        {"params": {"mlp": {f"layers_{n}": {"bias": b, "kernel": w} for n, (w, b) in enumerate(LAYERS)}}},
        {n: {"kernel": w, "bias": b} for n, (w, b) in enumerate(LAYERS)},
        {"params": {f"Dense_{n}": {"kernel": LAYERS[n][0], "bias": LAYERS[n][1]} for n in (2, 0, 1)}},
    ],
)
def test_spellings(params):
    assert_layers(from_params(params, "tanh", "identity"), LAYERS)


def test_ten_layers_come_in_the_order_of_their_numbers():
    layers = pairs(*[3] * 13)
    names = sorted(f"Dense_{n}" for n in range(12))
    params = {name: dict(zip(("kernel", "bias"), layers[int(name[6:])], strict=True)) for name in names}
    assert_layers(from_params(params), layers)


def test_bias_may_be_missing():
    assert_layers(from_params({"kernel": LAYERS[0][0]}), [(LAYERS[0][0], None)])
    assert_layers(from_params([(LAYERS[0][0],), (LAYERS[1][0], None)]), [(w, None) for w, _ in LAYERS[:2]])


def test_activations():
    net = from_params(LAYERS, ["tanh", "elu(0.5)"], "log_softmax")
    assert [str(layer.activation) for layer in net.layers] == ["tanh", "elu(0.5)", "log_softmax"]


@pytest.mark.parametrize(
    ("params", "error", "message"),
    [
        (
            {"hidden": {"kernel": 1}, "out": {"kernel": 1}},
            ValueError,
            "does not tell the order.*pass.*a list",
        ),
        ({"a1": {"w": [[1.0]]}, "a_1": {"w": [[1.0]]}}, ValueError, "does not tell the order"),
        ({"params": {}, "batch_stats": {"mean": 1}}, ValueError, "params has batch_stats besides 'params'"),
        ({"params": {"BatchNorm_0": {"bias": 1, "scale": 1}}}, ValueError, "does not tell the order"),
        ({"Dense_0": {"kernel": [[1.0]], "bias": [1.0], "scale": 1}}, ValueError, "has kernel, bias, scale"),
        ([(1, 2, 3)], ValueError, r"params\[0\] has 3 parts, expected \(w, b\)"),
        (list(LAYERS[0]), TypeError, r"params\[0\] is a ndarray, expected a pair"),
        ([(np.ones((2, 2)), np.ones(3))], ValueError, "b1 has shape"),
        ({"weight": np.ones((2, 2))}, TypeError, r"params\['weight'\] is a ndarray"),
        ({"w": np.ones((2, 2), complex)}, TypeError, "complex128"),
        ("weights", TypeError, "params is a str"),
        (None, TypeError, "params is a NoneType"),
        ([], ValueError, "empty"),
    ],
)
def test_clear_no(params, error, message):
    with pytest.raises(error, match=message):
        from_params(params)


def test_bfloat16_becomes_float32():
    ml_dtypes = pytest.importorskip("ml_dtypes")
    w = LAYERS[0][0].astype(ml_dtypes.bfloat16)
    net = from_params([(w, LAYERS[0][1].astype(np.float16))])
    assert net.dtype == np.float32
    np.testing.assert_array_equal(net.layers[0].w, w.astype(np.float32))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_flax_linen(dtype):
    jax = pytest.importorskip("jax")
    nn = pytest.importorskip("flax.linen")

    class Perceptron(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = nn.tanh(nn.Dense(7, param_dtype=dtype)(x))
            x = nn.tanh(nn.Dense(6, param_dtype=dtype)(x))
            return nn.softmax(nn.Dense(3, param_dtype=dtype)(x))

    with jax.enable_x64(dtype == np.float64):
        model = Perceptron()
        x = np.linspace(-1, 1, 5, dtype=dtype)
        variables = model.init(jax.random.key(0), x)
        # One step of training.
        slopes = jax.grad(lambda variables: model.apply(variables, x)[0] ** 2)(variables)
        variables = jax.tree.map(lambda value, slope: value - slope, variables, slopes)
        y, jac = from_params(variables, "tanh").value_and_jacobian(x)
        assert y.dtype == dtype
        tolerance = {np.float32: 1e-5, np.float64: 1e-10}[dtype]
        expected = np.asarray(model.apply(variables, x))
        np.testing.assert_allclose(y, expected, rtol=0, atol=tolerance)
        expected = np.asarray(jax.jacrev(lambda x: model.apply(variables, x))(x))
        np.testing.assert_allclose(jac, expected, rtol=0, atol=tolerance * np.abs(expected).max())


def test_flax_nnx():
    pytest.importorskip("jax")
    nnx = pytest.importorskip("flax.nnx")
    rngs = nnx.Rngs(0)
    model = nnx.Sequential(nnx.Linear(4, 3, rngs=rngs), nnx.relu, nnx.Linear(3, 2, rngs=rngs))
    x = np.linspace(-1, 1, 4, dtype=np.float32)
    net = from_params(nnx.to_pure_dict(nnx.state(model)), "relu", "identity")
    np.testing.assert_allclose(net(x), model(x), rtol=1e-5)


def test_haiku_and_frozen_mappings():
    from types import MappingProxyType

    params = MappingProxyType({"mlp/~/linear_0": {"w": LAYERS[0][0]}, "mlp/~/linear_1": {"w": LAYERS[1][0]}})
    assert isinstance(from_params(params), Network)
