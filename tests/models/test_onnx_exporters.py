"""load of ONNX files against the frameworks that wrote them, and against ONNX Runtime."""

import contextlib
import io

import numpy as np
import pytest

from fastjac.models.files import load
from support.onnx_files import (
    TOLERANCES,
    assert_as_runtime,
    rng,
    w,
)


def torch_modules():
    torch = pytest.importorskip("torch")
    nn = torch.nn
    activations = [nn.ReLU(), nn.GELU(), nn.GELU("tanh"), nn.SiLU(), nn.ReLU6(), nn.Hardtanh(), nn.ELU(0.5)]
    activations += [nn.Softplus(), nn.Softplus(2.5), nn.LeakyReLU(0.25), nn.Tanh(), nn.Sigmoid()]
    # Hardsigmoid is not among them: in float64, PyTorch's slope has the accuracy of float32.
    activations += [
        nn.SELU(),
        nn.CELU(0.5),
        nn.PReLU(),
        nn.PReLU(6),
        nn.Hardswish(),
        nn.Mish(),
        nn.Softsign(),
    ]
    hidden = [layer for activation in activations for layer in (activation, nn.Linear(6, 6))]
    first = nn.Flatten(), nn.Linear(4, 6), nn.BatchNorm1d(6)
    yield nn.Sequential(*first, *hidden, nn.Dropout(), nn.Softmax(1))
    yield nn.Sequential(nn.Flatten(), nn.Linear(4, 9), nn.SiLU(), nn.Linear(9, 3), nn.LogSoftmax(1))

    class Viewed(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Linear(4, 7), nn.Linear(7, 2)

        def forward(self, x):
            x = torch.relu(self.first(x.view(x.size(0), -1)))
            return torch.softmax(self.second(torch.nn.functional.silu(x)), -1)

    yield Viewed()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("opset", [None, 17])
@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize("number", range(3))
def test_exported_by_torch(number, dynamic, opset, dtype, tmp_path):
    torch = pytest.importorskip("torch")
    if opset is None:
        pytest.importorskip("onnxscript")
    torch.manual_seed(0)
    module = list(torch_modules())[number].to(getattr(torch, dtype)).eval()
    x = torch.randn(3, 2, 2, dtype=getattr(torch, dtype))
    path = tmp_path / "m.onnx"
    if opset is None:
        options = {"dynamo": True, "dynamic_shapes": ({0: torch.export.Dim("batch")},) if dynamic else None}
    else:
        axes = {"x": {0: "batch"}} if dynamic else None
        options = {"dynamo": False, "opset_version": opset, "input_names": ["x"], "dynamic_axes": axes}
    with contextlib.redirect_stdout(io.StringIO()):
        torch.onnx.export(module, (x,), str(path), **options)
    net = load(path)
    tolerance = TOLERANCES[net.dtype]
    assert net.dtype == dtype
    for sample in x:
        y, jac = net.value_and_jacobian(sample.numpy().ravel())
        expected = module(sample[None])[0].detach().numpy()
        np.testing.assert_allclose(y, expected, rtol=0, atol=tolerance * np.abs(expected).max())
        expected = torch.func.jacrev(lambda v: module(v[None])[0])(sample).detach().numpy().reshape(jac.shape)
        np.testing.assert_allclose(jac, expected, rtol=0, atol=tolerance * np.abs(expected).max())
    if dtype == "float32":  # ONNX Runtime has no double Gelu, Elu, ...
        assert_as_runtime(path, x.numpy())


def torch_graphs():
    """Return modules of one vector, none of which is a chain, by their names."""
    torch = pytest.importorskip("torch")
    nn = torch.nn
    functional = nn.functional

    class Graph(nn.Module):
        def __init__(self, compute, **parts):
            super().__init__()
            self.compute = compute
            for name, part in parts.items():
                setattr(self, name, part)

        def forward(self, x):
            return self.compute(self, x)

    def dense_net(self, x):
        for layer in self.layers:
            x = torch.cat([x, torch.relu(layer(x))], -1)
        return self.last(x)

    def sirens(self, x):
        return self.last(torch.sin(5 * self.second(torch.sin(5 * self.first(x)))))

    def dueling(self, x):
        h = torch.relu(self.first(x))
        advantage = self.second(h)
        return self.last(h) + advantage - advantage.mean(-1, keepdim=True)

    def heads(self, x):
        mean, spread = self.second(torch.tanh(self.first(x))).chunk(2, -1)
        return torch.cat([torch.tanh(mean), functional.softplus(spread)], -1)

    def state(self, x):
        return x[:, :3] + 0.0625 * self.last(torch.tanh(self.first(x)))

    def rms(self, x):
        h = self.first(x)
        h = h * torch.rsqrt(h.pow(2).mean(-1, keepdim=True) + 1e-3)
        return self.last(h * self.gain)

    def token(self, x):
        return self.last(torch.cat([x, self.gain.expand(x.shape[0], -1)], 1))

    def prelu(self, x):
        return self.last(self.second(functional.hardswish(self.first(x))) + functional.mish(x[:, :2]))

    linear = nn.Linear
    layers = nn.ModuleList([linear(4, 3), linear(7, 3)])
    norms = [linear(4, 8), nn.LayerNorm(8), nn.ELU(), linear(8, 8), nn.LayerNorm(8, elementwise_affine=False)]
    gain = nn.Parameter(torch.rand(6) + 0.5)
    small = {"first": linear(4, 6), "last": linear(6, 3)}
    return {
        "residual": Graph(
            lambda self, x: x + self.last(torch.tanh(self.first(x))), first=linear(4, 6), last=linear(6, 4)
        ),
        "dense_net": Graph(dense_net, layers=layers, last=linear(10, 2)),
        "glu": nn.Sequential(linear(4, 12), nn.GLU(), linear(6, 3)),
        "layer_norm": nn.Sequential(*norms, nn.Tanh(), linear(8, 3)),
        "rms_norm": Graph(rms, gain=gain, **small),
        "heads": Graph(heads, first=linear(4, 6), second=linear(6, 4)),
        "dueling": Graph(dueling, second=linear(6, 3), first=linear(4, 6), last=linear(6, 1)),
        "siren": Graph(sirens, second=linear(6, 6), **small),
        "state": Graph(state, **small),
        "activations": Graph(
            prelu, first=linear(4, 6), second=nn.Sequential(linear(6, 2), nn.PReLU(2)), last=linear(2, 2)
        ),
        "selu": nn.Sequential(
            nn.Linear(4, 6), nn.SELU(), linear(6, 6), nn.CELU(0.5), linear(6, 6), nn.Softsign()
        ),
        "token": Graph(token, gain=nn.Parameter(torch.rand(1, 2)), last=linear(6, 3)),
        "softmax": nn.Sequential(linear(4, 6), nn.Softmax(-1), linear(6, 3), nn.LogSoftmax(-1), nn.Tanh()),
    }


GRAPHS = [
    *("residual", "dense_net", "glu", "layer_norm", "rms_norm", "heads", "dueling", "siren"),
    *("state", "activations", "selu", "token", "softmax"),
]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("opset", [None, 12, 17])
@pytest.mark.parametrize("name", GRAPHS)
def test_graphs_exported_by_torch(name, opset, dtype, tmp_path):
    torch = pytest.importorskip("torch")
    if opset is None:
        pytest.importorskip("onnxscript")
    torch.manual_seed(0)
    module = torch_graphs()[name].to(getattr(torch, dtype)).eval()
    x = torch.randn(3, 4, dtype=getattr(torch, dtype))
    path = tmp_path / "m.onnx"
    if opset is None:
        options = {"dynamo": True, "dynamic_shapes": ({0: torch.export.Dim("batch")},)}
    else:
        options = {"dynamo": False, "opset_version": opset, "input_names": ["x"]}
        options["dynamic_axes"] = {"x": {0: "batch"}}
    with contextlib.redirect_stdout(io.StringIO()):
        torch.onnx.export(module, (x,), str(path), **options)
    net = load(path)
    assert net.dtype == dtype
    y, jac = net.value_and_jacobian(x.numpy())
    expected = module(x).detach().numpy()
    slope = torch.func.jacrev(lambda v: module(v[None])[0])
    slopes = np.stack([slope(sample).detach().numpy() for sample in x])
    tolerance = TOLERANCES[net.dtype]
    if dtype == "float64" and name == "selu":
        tolerance = 1e-7  # ONNX keeps its constants in float32.
    np.testing.assert_allclose(y, expected, rtol=0, atol=tolerance * np.abs(expected).max())
    np.testing.assert_allclose(jac, slopes, rtol=0, atol=10 * tolerance * np.abs(slopes).max())
    if dtype == "float32":
        assert_as_runtime(path, x.numpy())


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("options", [{}, {"zipmap": False}], ids=["zipmap", "plain"])
@pytest.mark.parametrize("kind", ["multiclass", "binary", "multilabel", "regressor", "pipeline"])
def test_exported_by_skl2onnx(kind, options, dtype, tmp_path):
    pytest.importorskip("skl2onnx")
    from skl2onnx import to_onnx
    from sklearn.decomposition import PCA
    from sklearn.neural_network import MLPClassifier, MLPRegressor
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import MinMaxScaler, StandardScaler

    settings = {"hidden_layer_sizes": (8, 5), "activation": "tanh", "max_iter": 5, "random_state": 0}
    x = rng.normal(size=(60, 7)) * 3 + 1
    classes = np.arange(60) % 3
    model, target = {
        "multiclass": (MLPClassifier(**settings), classes),
        "binary": (MLPClassifier(**settings), classes > 1),
        "multilabel": (MLPClassifier(**settings), np.column_stack([classes == 0, classes > 1])),
        "regressor": (MLPRegressor(**settings), classes),
        "pipeline": (
            make_pipeline(StandardScaler(), PCA(5, whiten=True), MinMaxScaler(), MLPClassifier(**settings)),
            np.array(["a", "b", "c"])[classes],
        ),
    }[kind]
    model.fit(x, target)
    exported = to_onnx(model, x[:1].astype(dtype), options=None if kind == "regressor" else {**options})
    path = tmp_path / "m.onnx"
    path.write_bytes(exported.SerializeToString())
    net = load(path)
    assert net.dtype == dtype
    sample = x[:5].astype(dtype)
    expected = model.predict(sample)[:, None] if kind == "regressor" else model.predict_proba(sample)
    if kind == "multilabel":  # skl2onnx writes 1 - p before p
        expected = np.hstack([1 - expected, expected])
    y, _ = net.value_and_jacobian(sample)
    np.testing.assert_allclose(y, expected, rtol=0, atol=TOLERANCES[np.dtype(dtype)] * np.abs(expected).max())
    if kind == "regressor" or (kind != "multilabel" and (options or dtype == np.float32)):
        # ONNX Runtime has no other ZipMap and Binarizer.
        assert_as_runtime(path, sample)
    if kind == "pipeline" and not options:
        assert net.output_names == ("a", "b", "c")


@pytest.mark.filterwarnings("ignore")
def test_exported_by_keras(tmp_path):
    keras = pytest.importorskip("keras")
    layers = keras.layers
    pytest.importorskip({"tensorflow": "tf2onnx", "jax": "jax2onnx"}.get(keras.backend.backend(), "onnx"))
    keras.utils.set_random_seed(0)
    names = ["relu", "leaky_relu", "relu6", "hard_tanh", "elu", "tanh", "sigmoid", "softplus", "silu"]
    hidden = [layers.Dense(4, activation=name, bias_initializer="normal") for name in names]
    model = keras.Sequential(
        [
            keras.Input((2, 3)),
            layers.Rescaling(1 / 3, offset=1),
            layers.Flatten(),
            layers.Dense(4),
            layers.BatchNormalization(),
            layers.LeakyReLU(),
            *hidden,
            layers.ReLU(max_value=3),
            layers.BatchNormalization(),
            layers.Dense(3, activation="softmax"),
        ]
    )
    x = w(5, 2, 3)
    expected = keras.ops.convert_to_numpy(model(x))
    path = tmp_path / "m.onnx"
    with contextlib.redirect_stdout(io.StringIO()):
        model.export(str(path), format="onnx", verbose=False)
    net = assert_as_runtime(path, x)
    y, _ = net.value_and_jacobian(x.reshape(5, -1))
    np.testing.assert_allclose(y, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("kind", "dtype"),
    [("two", "f4"), ("three", "f4"), ("three", "f8"), ("line", "f4"), ("line", "f8"), ("plane", "f8")],
)
def test_linear_models_exported_by_skl2onnx(kind, dtype, tmp_path):
    pytest.importorskip("skl2onnx")
    from skl2onnx import to_onnx
    from sklearn.linear_model import LinearRegression, LogisticRegression

    target = {"two": np.arange(60) % 2, "three": np.arange(60) % 3, "line": rng.normal(size=60)}
    target["plane"] = rng.normal(size=(60, 2))
    x = rng.normal(size=(60, 4))
    model = (LogisticRegression() if kind in ("two", "three") else LinearRegression()).fit(x, target[kind])
    path = tmp_path / "m.onnx"
    path.write_bytes(to_onnx(model, x[:1].astype(dtype)).SerializeToString())
    y, _ = load(path).value_and_jacobian(x[:5].astype(dtype))
    expected = model.predict_proba(x[:5]) if kind in ("two", "three") else model.predict(x[:5])
    # The operators keep their weights in float32.
    np.testing.assert_allclose(y, expected.reshape(y.shape), rtol=0, atol=1e-5)
