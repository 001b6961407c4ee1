"""from_sklearn against predict_proba, predict, and central differences of them in float64."""

import numpy as np
import pytest

from fastjac.models import from_sklearn

pytest.importorskip("sklearn")
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.ensemble import RandomForestClassifier
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler, Normalizer, StandardScaler

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
X, TARGET = load_digits(return_X_y=True)
X += np.random.default_rng(0).normal(size=X.shape)  # no two samples on a kink, no feature constant
SETTINGS = {"max_iter": 4, "random_state": 0}


def predict(model, x):
    y = getattr(model, "predict_proba", model.predict)(x)
    return y[:, None] if y.ndim == 1 else y


def assert_same(model, x, dtype=np.float64):
    net = from_sklearn(model)
    assert net.dtype == dtype
    tolerance = {np.float32: 1e-5, np.float64: 1e-10}[dtype]
    for sample in x[:4].astype(dtype):
        y, jac = net.value_and_jacobian(sample)
        expected = predict(model, sample[None])[0]
        np.testing.assert_allclose(y, expected, rtol=0, atol=tolerance * np.abs(expected).max())
        assert_derivative(model, sample.astype(np.float64), jac)
    return net


def assert_derivative(model, x, jac):
    """Compare with differences of sixth order, which have 1e-12 of noise; test_same_as_torch has none."""
    step = 1e-3
    weights = {1: 3 / 4, 2: -3 / 20, 3: 1 / 60}
    moves = np.eye(x.size) * step
    expected = sum(
        weight * (predict(model, x + k * moves) - predict(model, x - k * moves)).T / step
        for k, weight in weights.items()
    )
    tolerance = 1e-4 if jac.dtype == np.float32 else 1e-7
    np.testing.assert_allclose(jac, expected, rtol=0, atol=1e-12 + tolerance * np.abs(expected).max())


@pytest.mark.parametrize("activation", ["tanh", "logistic", "relu", "identity"])
@pytest.mark.parametrize("hidden", [(5,), (20, 7, 12), ()], ids=str)
def test_multiclass(hidden, activation):
    model = MLPClassifier(hidden, activation, **SETTINGS).fit(X, TARGET)
    net = assert_same(model, X)
    assert net.output_names == tuple("0123456789")
    assert net.input_names is None


def test_binary_has_both_columns():
    model = MLPClassifier((6,), "tanh", **SETTINGS).fit(X, np.where(TARGET > 4, "large", "small"))
    net = assert_same(model, X)
    assert net.output_names == ("large", "small")
    jac = net.jacobian(X[0])
    np.testing.assert_allclose(jac[0], -jac[1], rtol=1e-14)


def test_multilabel():
    labels = np.column_stack([TARGET > 4, TARGET % 2, TARGET == 3])
    net = assert_same(MLPClassifier((6,), "tanh", **SETTINGS).fit(X, labels), X)
    assert str(net.layers[-1].activation) == "sigmoid"


@pytest.mark.parametrize("target", [TARGET / 9, np.column_stack([TARGET, TARGET**2]) / 9], ids=["one", "two"])
def test_regressor(target):
    net = assert_same(
        MLPRegressor(hidden_layer_sizes=(8, 4), activation="tanh", **SETTINGS).fit(X, target), X
    )
    assert net.output_names is None


@pytest.mark.parametrize(
    "steps",
    [
        (StandardScaler(),),
        (StandardScaler(with_mean=False),),
        (StandardScaler(with_std=False),),
        (MinMaxScaler((-1, 2)),),
        (PCA(9),),
        (PCA(9, whiten=True),),
        (StandardScaler(), PCA(9), MinMaxScaler()),
        (MinMaxScaler(), PCA(20), PCA(5), "passthrough"),
        (make_pipeline(StandardScaler(), PCA(6)), None),
    ],
    ids=lambda steps: "-".join(type(step).__name__ for step in steps),
)
def test_pipelines_go_into_the_first_layer(steps):
    model = make_pipeline(*steps, MLPClassifier((8,), "tanh", **SETTINGS)).fit(X, TARGET)
    net = assert_same(model, X)
    assert [layer.w.shape for layer in net.layers] == [(64, 8), (8, 10)]


def test_constant_features():
    x = X.copy()
    x[:, :3] = 7
    model = make_pipeline(StandardScaler(), MinMaxScaler(), MLPClassifier((8,), "tanh", **SETTINGS))
    assert_same(model.fit(x, TARGET), x)


def test_large_means_make_float32_pipelines_float64():
    x = X[:, :3].astype(np.float32) + np.float32(4000)
    model = make_pipeline(StandardScaler(), MLPClassifier((8,), "tanh", **SETTINGS)).fit(x, TARGET)
    net = from_sklearn(model)
    assert net.dtype == np.float64
    # scikit-learn's own float32 rounds the mean.
    expected = model.predict_proba(x[:5].astype(np.float64))
    np.testing.assert_allclose(net.value_and_jacobian(x[:5])[0], expected, rtol=1e-10)


def test_float32():
    model = make_pipeline(StandardScaler(), PCA(9), MLPClassifier((8,), "tanh", **SETTINGS))
    assert_same(model.fit(X.astype(np.float32), TARGET), X, np.float32)


def test_same_as_torch():
    torch = pytest.importorskip("torch")
    scaler, perceptron = StandardScaler(), MLPClassifier((12, 6), "logistic", **SETTINGS)
    net = from_sklearn(make_pipeline(scaler, perceptron).fit(X, TARGET))
    w, b = ([torch.tensor(part) for part in parts] for parts in (perceptron.coefs_, perceptron.intercepts_))

    def forward(x):
        x = (x - torch.tensor(scaler.mean_)) / torch.tensor(scaler.scale_)
        return torch.softmax(torch.sigmoid(torch.sigmoid(x @ w[0] + b[0]) @ w[1] + b[1]) @ w[2] + b[2], 0)

    for sample in X[:4]:
        expected = torch.func.jacrev(forward)(torch.tensor(sample)).numpy()
        np.testing.assert_allclose(
            net.jacobian(sample), expected, rtol=0, atol=1e-10 * np.abs(expected).max()
        )


def test_feature_names():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(X[:, :5], columns=["a", "b", "c", "d", "e"])
    model = make_pipeline(StandardScaler(), MLPClassifier((4,), **SETTINGS)).fit(frame, TARGET)
    assert from_sklearn(model).input_names == ("a", "b", "c", "d", "e")
    assert from_sklearn(model[-1]).input_names is None


class Stretched(StandardScaler):
    def transform(self, x, copy=None):
        return 2 * super().transform(x, copy)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (RandomForestClassifier(3), "^RandomForestClassifier is not a model that fastjac reads"),
        (StandardScaler(), "^StandardScaler is not a model"),
        (make_pipeline(Normalizer(), MLPClassifier(**SETTINGS)), "^Normalizer is not a step.*StandardScaler"),
        (make_pipeline(Stretched(), MLPClassifier(**SETTINGS)), "^Stretched is not a step"),
        (make_pipeline(MinMaxScaler(clip=True), MLPClassifier(**SETTINGS)), "^MinMaxScaler has clip=True"),
        (make_pipeline(MLPClassifier(**SETTINGS)), None),
    ],
    ids=lambda value: "" if isinstance(value, str) else None,
)
def test_clear_no(model, message):
    if message is None:
        with pytest.raises(ValueError, match=r"^MLPClassifier is not fitted: call fit first"):
            from_sklearn(model)
        return
    with pytest.raises(ValueError, match=message):
        from_sklearn(model.fit(X, TARGET))


def test_poisson_regressor_is_refused():
    try:
        model = MLPRegressor(loss="poisson", **SETTINGS)
    except TypeError:
        pytest.skip("this scikit-learn has no poisson loss")
    with pytest.raises(ValueError, match=r"^MLPRegressor ends in exp"):
        from_sklearn(model.fit(X, TARGET))


@pytest.mark.parametrize("value", [None, MLPClassifier, "model.pkl"])
def test_not_an_estimator(value):
    with pytest.raises(TypeError, match="must be one of scikit-learn, got"):
        from_sklearn(value)
