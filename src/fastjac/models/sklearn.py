"""Networks from scikit-learn's perceptrons and linear models, alone or after transformers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from fastjac.layers import Activation, as_activation, network_dtype
from fastjac.models.folding import fold
from fastjac.models.steps import (
    Scale,
    Select,
    Step,
    affine,
    as_float64,
    both_columns,
    computes_as,
    scale,
)
from fastjac.network import Network


def from_sklearn(estimator: Any) -> Network:
    """Return the network behind a classifier's ``predict_proba`` or a regressor's ``predict``.

    Parameters
    ----------
    estimator : estimator
        MLPClassifier, MLPRegressor, LogisticRegression, LinearRegression, Ridge, Lasso or ElasticNet. It may
        be in a Pipeline after scalers, a ColumnTransformer of scalers, and PCA, which go into its first
        layer; in a TransformedTargetRegressor with a scaler; and in GridSearchCV or a similar search.

    Returns
    -------
    Network
        Of the raw input, in the dtype of the weights. ``input_names`` are ``feature_names_in_``,
        ``output_names`` the ``classes_``, both as strings. A binary classifier has both columns, a regressor
        one output also where scikit-learn drops its axis.

    Raises
    ------
    TypeError
        If ``estimator`` is not one of scikit-learn.
    ValueError
        If it is not fitted, or is or holds something else.
    """
    from sklearn import base

    if not isinstance(estimator, base.BaseEstimator):
        raise TypeError(f"estimator must be one of scikit-learn, got {type(estimator).__name__}")
    parts = _parts(estimator)
    steps = [step for transformer in parts.transformers for step in _transformer_steps(transformer)]
    steps += _predictor_steps(parts.predictor)
    for transformer in reversed(parts.of_target):
        steps += _inverse(transformer)
    names = getattr(estimator, "feature_names_in_", None)
    classes = getattr(parts.predictor, "classes_", None)
    weights = getattr(parts.predictor, "coefs_", None) or [np.asarray(parts.predictor.coef_)]
    return fold(
        steps,
        network_dtype(weights, None),
        (*parts.transformers, parts.predictor)[0].n_features_in_,
        input_names=None if names is None else [str(name) for name in names],
        output_names=None if classes is None else [str(name) for name in classes],
    )


class _Parts(NamedTuple):
    """The transformers before a predictor, and those whose inverses follow it."""

    transformers: list[Any]
    predictor: Any
    of_target: list[Any]


def _parts(estimator: Any) -> _Parts:
    """Return the parts of an estimator, also those inside pipelines and searches."""
    from sklearn import compose, pipeline
    from sklearn.model_selection._search import BaseSearchCV

    where = type(estimator).__name__
    if isinstance(estimator, BaseSearchCV):
        if not hasattr(estimator, "best_estimator_"):
            raise ValueError(f"{where} has no best_estimator_: call fit first, with refit=True")
        return _parts(estimator.best_estimator_)
    if computes_as(estimator, compose.TransformedTargetRegressor, "predict"):
        if not hasattr(estimator, "regressor_"):
            raise ValueError(f"{where} is not fitted: call fit first")
        inner = _parts(estimator.regressor_)
        return inner._replace(of_target=[*_flat(estimator.transformer_), *inner.of_target])
    if not computes_as(estimator, pipeline.Pipeline, "predict"):
        return _Parts([], estimator, [])
    transformers = []
    for number, (_, step) in enumerate(estimator.steps[:-1], 1):
        transformers += _flat(step)
        for transformer in _flat(step):
            if (problem := _unread(transformer)) is not None:
                raise ValueError(
                    f"{problem}. Transform up to it, and read the rest of the pipeline:\n"
                    f"    net = fastjac.from_sklearn(pipeline[{number}:])\n"
                    f"    y, jac = net.value_and_jacobian(pipeline[:{number}].transform(x))\n"
                    f"The inputs of net are then pipeline[:{number}].get_feature_names_out()."
                )
    inner = _parts(estimator.steps[-1][1])
    return inner._replace(transformers=[*transformers, *inner.transformers])


def _flat(transformer: Any) -> list[Any]:
    """Return the steps of a pipeline, those of pipelines in it included, without the passthroughs."""
    from sklearn import pipeline, preprocessing

    if transformer is None or isinstance(transformer, str):
        return []
    if computes_as(transformer, preprocessing.FunctionTransformer, "transform") and transformer.func is None:
        return []
    if not isinstance(transformer, pipeline.Pipeline):
        return [transformer]
    return [part for _, step in transformer.steps for part in _flat(step)]


def _predictor_steps(predictor: Any) -> list[Step]:
    from sklearn import linear_model, neural_network

    where = type(predictor).__name__
    if computes_as(predictor, neural_network.MLPClassifier, "predict_proba"):
        return _perceptron_steps(predictor, where, classifies=True)
    if computes_as(predictor, neural_network.MLPRegressor, "predict"):
        return _perceptron_steps(predictor, where, classifies=False)
    is_logistic = computes_as(predictor, linear_model.LogisticRegression, "predict_proba")
    if not is_logistic and not any(
        computes_as(predictor, getattr(linear_model, name), "predict") for name in _LINEAR
    ):
        known = ", ".join(("MLPClassifier", "MLPRegressor", "LogisticRegression", *_LINEAR))
        raise ValueError(f"{where} is not a model that fastjac reads: {known}, Pipeline")
    if not hasattr(predictor, "coef_"):
        raise ValueError(f"{where} is not fitted: call fit first")
    w = np.atleast_2d(as_float64(predictor.coef_, where)).T
    steps: list[Step] = [affine(w, np.broadcast_to(predictor.intercept_, w.shape[1]), where)]
    if not is_logistic:
        return steps
    kind = getattr(predictor, "multi_class", "auto")
    if len(predictor.classes_) == 2 and kind != "multinomial":
        return both_columns([*steps, Activation("sigmoid")], where)
    if kind == "ovr" or predictor.solver == "liblinear" or len(predictor.classes_) == 2:
        raise ValueError(
            f"{where} has multi_class={kind!r} and solver={predictor.solver!r}, expected one softmax"
        )
    return [*steps, Activation("softmax")]


def _perceptron_steps(perceptron: Any, where: str, classifies: bool) -> list[Step]:
    if not hasattr(perceptron, "coefs_"):
        raise ValueError(f"{where} is not fitted: call fit first")
    if perceptron.out_activation_ not in _ACTIVATIONS:
        raise ValueError(f"{where} ends in {perceptron.out_activation_}, expected {', '.join(_ACTIVATIONS)}")
    steps: list[Step] = []
    for number, (w, b) in enumerate(zip(perceptron.coefs_, perceptron.intercepts_, strict=True), 1):
        steps += [affine(w, b, f"layer {number} of {where}"), _ACTIVATIONS[perceptron.activation]]
    steps[-1] = _ACTIVATIONS[perceptron.out_activation_]
    # predict_proba gives a single logistic output two columns.
    return both_columns(steps, where) if classifies and perceptron.n_outputs_ == 1 else steps


def _unread(transformer: Any) -> str | None:
    """Return why a transformer cannot be read, or None."""
    from sklearn import compose, decomposition, preprocessing

    where = type(transformer).__name__
    for module in (preprocessing, decomposition, compose):
        kind = getattr(module, where, None)
        if where in _TRANSFORMERS and kind is not None and computes_as(transformer, kind, "transform"):
            if where != "ColumnTransformer":
                return None
            inner = [part for _, group in _groups(transformer) for part in _flat(group)]
            problems = (_unread(part) or _not_a_scaler(part) for part in inner)
            return next((f"{where}: {problem}" for problem in problems if problem), None)
    return f"{where} is not a step that fastjac reads: {', '.join(_TRANSFORMERS)}"


def _not_a_scaler(transformer: Any) -> str | None:
    name = type(transformer).__name__
    return None if name.endswith("Scaler") else f"{name} works on several columns together"


def _transformer_steps(transformer: Any) -> list[Step]:
    where = type(transformer).__name__
    problem = _unread(transformer)
    if problem is not None:
        raise ValueError(problem)
    if not hasattr(transformer, "n_features_in_"):
        raise ValueError(f"{where} is not fitted: call fit first")
    if getattr(transformer, "clip", False):
        raise ValueError(f"{where} has clip=True, which is not an affine map: fit it with clip=False")
    return _TRANSFORMERS[where](transformer, where)


def _inverse(transformer: Any) -> list[Step]:
    """Return the steps of a scaler's ``inverse_transform``."""
    steps: list[Step] = []
    for step in reversed(_transformer_steps(transformer)):
        if not isinstance(step, Scale):
            raise ValueError(f"{type(transformer).__name__} transforms the target, expected a scaler")
        steps.append(scale(1 / step.factor, -step.shift / step.factor, step.where))
    return steps


def _groups(transformer: Any) -> Iterator[tuple[str, Any]]:
    """Yield the name and the transformer of each group of columns that a ColumnTransformer keeps."""
    for name, group, _ in getattr(transformer, "transformers_", ()):
        if not (isinstance(group, str) and group == "drop"):
            yield name, group


def _column_transformer(transformer: Any, where: str) -> list[Step]:
    places, factors, shifts = [], [], []
    for name, group in _groups(transformer):
        columns = np.asarray(transformer._transformer_to_input_indices[name], np.intp)
        factor, shift = np.ones(columns.size), np.zeros(columns.size)
        for step in (step for part in _flat(group) for step in _transformer_steps(part)):
            assert isinstance(step, Scale)  # _unread has let nothing else pass.
            factor, shift = factor * step.factor, shift * step.factor + step.shift
        weight = (transformer.transformer_weights or {}).get(name, 1.0)
        places.append(columns)
        factors.append(factor * weight)
        shifts.append(shift * weight)
    if not places:
        raise ValueError(f"{where} drops all columns")
    return [
        Select(np.concatenate(places), where),
        scale(np.concatenate(factors), np.concatenate(shifts), where),
    ]


def _standard_scaler(scaler: Any, where: str) -> list[Step]:
    deviation = np.ones(scaler.n_features_in_) if scaler.scale_ is None else as_float64(scaler.scale_, where)
    mean = np.zeros(scaler.n_features_in_) if not scaler.with_mean else as_float64(scaler.mean_, where)
    return [scale(1 / deviation, -mean / deviation, where)]


def _robust_scaler(scaler: Any, where: str) -> list[Step]:
    size = scaler.n_features_in_
    deviation = as_float64(scaler.scale_, where) if scaler.with_scaling else np.ones(size)
    centre = as_float64(scaler.center_, where) if scaler.with_centering else np.zeros(size)
    return [scale(1 / deviation, -centre / deviation, where)]


def _pca(pca: Any, where: str) -> list[Step]:
    w = as_float64(pca.components_, where).T
    if pca.whiten:
        deviation = np.sqrt(pca.explained_variance_)
        w = w / np.maximum(deviation, np.finfo(deviation.dtype).eps)
    return [affine(w, -as_float64(pca.mean_, where) @ w, where)._replace(absorbed=True)]


_TRANSFORMERS: dict[str, Callable[[Any, str], list[Step]]] = {
    "StandardScaler": _standard_scaler,
    "MinMaxScaler": lambda scaler, where: [scale(scaler.scale_, scaler.min_, where)],
    "MaxAbsScaler": lambda scaler, where: [scale(1 / as_float64(scaler.scale_, where), 0.0, where)],
    "RobustScaler": _robust_scaler,
    "PCA": _pca,
    "ColumnTransformer": _column_transformer,
}

_ACTIVATIONS = {
    name: as_activation(name) for name in ("identity", "logistic", "tanh", "relu", "exp", "softmax")
}

_LINEAR = ("LinearRegression", "Ridge", "RidgeCV", "Lasso", "LassoCV", "ElasticNet", "ElasticNetCV")
