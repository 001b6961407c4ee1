"""from_sklearn against predict_proba, predict, and central differences of them in float64."""

import warnings

import numpy as np
import pytest

import fastjac
from fastjac.models import from_sklearn

pytest.importorskip("sklearn")
from sklearn.compose import ColumnTransformer, TransformedTargetRegressor
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import (
    ElasticNetCV,
    Lasso,
    LinearRegression,
    LogisticRegression,
    LogisticRegressionCV,
    Ridge,
    RidgeCV,
)
from sklearn.model_selection import GridSearchCV, RandomizedSearchCV
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import (
    FunctionTransformer,
    MaxAbsScaler,
    MinMaxScaler,
    Normalizer,
    OneHotEncoder,
    RobustScaler,
    StandardScaler,
)

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
        (MaxAbsScaler(),),
        (RobustScaler(),),
        (RobustScaler(with_centering=False),),
        (RobustScaler(with_scaling=False),),
        (FunctionTransformer(),),
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


def columns(*groups, **options):
    return ColumnTransformer([(f"{number}", *group) for number, group in enumerate(groups)], **options)


@pytest.mark.parametrize(
    ("transformer", "kept"),
    [
        (columns((StandardScaler(), [3, 1, 5])), 3),
        (columns((StandardScaler(), slice(0, 9)), (MinMaxScaler(), [40, 30, 40]), ("drop", [50])), 12),
        (columns((RobustScaler(), [0]), remainder="passthrough"), 64),
        (columns((RobustScaler(), [0]), ("passthrough", [7, 9]), remainder=MaxAbsScaler()), 64),
        (columns((make_pipeline(StandardScaler(), None, MinMaxScaler()), np.arange(64) % 2 == 0)), 32),
        (columns((StandardScaler(), [1, 2]), (MaxAbsScaler(), [2]), transformer_weights={"0": 3.0}), 3),
        (columns((FunctionTransformer(), [4, 5]), (StandardScaler(), lambda x: [0])), 3),
    ],
    ids=range(7),
)
@pytest.mark.parametrize("scaler_first", [False, True])
def test_columns_go_into_the_first_layer(transformer, kept, scaler_first):
    before = [StandardScaler()] if scaler_first else []
    model = make_pipeline(*before, transformer, PCA(min(kept, 3)), MLPClassifier((8,), "tanh", **SETTINGS))
    net = assert_same(model.fit(X, TARGET), X)
    assert [layer.w.shape for layer in net.layers] == [(64, 8), (8, 10)]
    model = make_pipeline(PCA(64), transformer, MLPClassifier((8,), "tanh", **SETTINGS))
    assert_same(model.fit(X, TARGET), X)
    assert_same(make_pipeline(transformer, LinearRegression()).fit(X, TARGET), X)


def test_columns_by_name():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(X[:, :5], columns=["a", "b", "c", "d", "e"])
    transformer = columns((StandardScaler(), ["d", "a"]), (MinMaxScaler(), ["b"]))
    model = make_pipeline(transformer, MLPClassifier((4,), "tanh", **SETTINGS)).fit(frame, TARGET)
    net = from_sklearn(model)
    assert net.input_names == ("a", "b", "c", "d", "e")
    y, _ = net.value_and_jacobian(X[:5, :5])
    np.testing.assert_allclose(y, model.predict_proba(frame[:5]), rtol=1e-10)


@pytest.mark.parametrize(
    "model",
    [
        LinearRegression(),
        LinearRegression(fit_intercept=False),
        Ridge(0.5),
        RidgeCV(),
        Lasso(0.1),
        ElasticNetCV(cv=2),
        make_pipeline(StandardScaler(), PCA(5), Ridge()),
    ],
    ids=lambda model: type(model).__name__,
)
def test_linear_regression(model):
    assert assert_same(model.fit(X, TARGET), X).n_outputs == 1
    if not isinstance(model, ElasticNetCV):
        assert assert_same(model.fit(X, np.column_stack([TARGET, TARGET**2])), X).n_outputs == 2


@pytest.mark.parametrize(
    "model", [LogisticRegression(max_iter=20), LogisticRegressionCV(Cs=2, cv=2, max_iter=9)]
)
def test_logistic_regression(model):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        net = assert_same(make_pipeline(StandardScaler(), model).fit(X, TARGET), X)
        assert net.output_names == tuple("0123456789")
        net = assert_same(model.fit(X / 16, np.where(TARGET > 4, "large", "small")), X / 16)
    assert net.output_names == ("large", "small")


@pytest.mark.parametrize(
    "regressor", [Ridge(), MLPRegressor(hidden_layer_sizes=(6,), activation="tanh", **SETTINGS)]
)
@pytest.mark.parametrize(
    "of_target",
    [StandardScaler(), MinMaxScaler((-1, 2)), make_pipeline(RobustScaler(), MaxAbsScaler()), None],
)
def test_transformed_targets(of_target, regressor):
    model = TransformedTargetRegressor(make_pipeline(StandardScaler(), regressor), transformer=of_target)
    net = assert_same(model.fit(X, TARGET), X)
    assert len(net.layers) == 1 + isinstance(regressor, MLPRegressor)


def test_searches_are_their_best_estimator():
    perceptron = MLPClassifier((6,), "tanh", **SETTINGS)
    for search in (
        GridSearchCV(
            make_pipeline(StandardScaler(), perceptron), {"mlpclassifier__alpha": [1e-4, 1e-2]}, cv=2
        ),
        RandomizedSearchCV(perceptron, {"alpha": [1e-4, 1e-2]}, n_iter=2, cv=2),
    ):
        net = assert_same(search.fit(X[:300], TARGET[:300]), X)
        assert net.output_names == tuple("0123456789")
    for search in (
        GridSearchCV(perceptron, {}),
        GridSearchCV(perceptron, {}, cv=2, refit=False).fit(X, TARGET),
    ):
        with pytest.raises(
            ValueError, match=r"^GridSearchCV has no best_estimator_: call fit first, with refit"
        ):
            from_sklearn(search)


def test_the_error_of_an_encoder_shows_lines_that_work():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(X[:, :4], columns=["a", "b", "c", "d"])
    frame["colour"] = np.array(["red", "green", "blue"])[TARGET % 3]
    encoder = columns((StandardScaler(), ["a", "b"]), (OneHotEncoder(), ["colour"]), remainder="passthrough")
    perceptron = MLPClassifier((6,), "tanh", **SETTINGS)
    model = make_pipeline(encoder, StandardScaler(), perceptron).fit(frame, TARGET)
    with pytest.raises(ValueError, match=r"^ColumnTransformer: OneHotEncoder is not a step") as caught:
        from_sklearn(model)
    lines = [line.strip() for line in str(caught.value).splitlines() if line.startswith("    ")]
    assert len(lines) == 2
    space = {"pipeline": model, "x": frame[:5], "fastjac": fastjac}
    exec("\n".join(lines), space)
    np.testing.assert_allclose(space["y"], model.predict_proba(frame[:5]), rtol=1e-10)
    names = model[:1].get_feature_names_out()
    assert space["net"].n_inputs == len(names) == 7
    assert "pipeline[:1].get_feature_names_out()" in str(caught.value)


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
        (
            make_pipeline(columns((PCA(2), [0, 1])), MLPClassifier(**SETTINGS)),
            r"(?s)^ColumnTransformer: PCA works on several columns together.*from_sklearn",
        ),
        (
            make_pipeline(StandardScaler(), Normalizer(), LinearRegression()),
            r"(?s)^Normalizer is not a step.*pipeline\[2:\].*pipeline\[:2\]",
        ),
        (
            TransformedTargetRegressor(Ridge(), func=np.log1p, inverse_func=np.expm1),
            "^FunctionTransformer is not a step",
        ),
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


def test_poisson_regressor():
    try:
        model = MLPRegressor(loss="poisson", **SETTINGS)
    except TypeError:
        pytest.skip("this scikit-learn has no poisson loss")
    net = assert_same(model.fit(X, TARGET), X)
    assert str(net.layers[-1].activation) == "exp"


@pytest.mark.parametrize("value", [None, MLPClassifier, "model.pkl"])
def test_not_an_estimator(value):
    with pytest.raises(TypeError, match="must be one of scikit-learn, got"):
        from_sklearn(value)
