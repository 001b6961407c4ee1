"""Networks from scikit-learn's multilayer perceptrons, alone or in pipelines."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from fastjac.layers import Activation, network_dtype
from fastjac.models.folding import IDENTITY, Step, affine, as_float64, both_columns, computes_as, fold, scale
from fastjac.models.limits import warned
from fastjac.network import Network


def from_sklearn(estimator: Any) -> Network:
    """Return the network behind a classifier's ``predict_proba`` or a regressor's ``predict``.

    Parameters
    ----------
    estimator : MLPClassifier, MLPRegressor or Pipeline
        A pipeline may have StandardScaler, MinMaxScaler and PCA before the perceptron; they go into its
        first layer.

    Returns
    -------
    Network
        Of the pipeline's raw input, in the dtype of the perceptron's weights. ``input_names`` are
        ``feature_names_in_``, ``output_names`` the ``classes_``, both as strings. A binary classifier has
        both columns, a regressor one output also where scikit-learn drops its axis.

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
    *transformers, perceptron = _flat_pipeline(estimator)
    steps = [step for transformer in transformers for step in _transformer_steps(transformer)]
    steps += _perceptron_steps(perceptron)
    names = getattr(estimator, "feature_names_in_", None)
    classes = getattr(perceptron, "classes_", None)
    net = fold(
        steps,
        network_dtype(perceptron.coefs_, None),
        transformers[0].n_features_in_ if transformers else perceptron.n_features_in_,
        input_names=None if names is None else [str(name) for name in names],
        output_names=None if classes is None else [str(name) for name in classes],
    )
    return warned(net)


def _flat_pipeline(estimator: Any) -> list[Any]:
    """Return the steps of a pipeline, those of pipelines in it included, without the passthroughs."""
    from sklearn import pipeline

    if not computes_as(estimator, pipeline.Pipeline, "predict"):
        return [estimator]
    steps = [step for _, step in estimator.steps if step not in (None, "passthrough")]
    return [part for step in steps for part in _flat_pipeline(step)]


def _perceptron_steps(perceptron: Any) -> list[Step]:
    from sklearn import neural_network

    where = type(perceptron).__name__
    classifies = computes_as(perceptron, neural_network.MLPClassifier, "predict_proba")
    if not (classifies or computes_as(perceptron, neural_network.MLPRegressor, "predict")):
        raise ValueError(f"{where} is not a model that fastjac reads: MLPClassifier, MLPRegressor, Pipeline")
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


def _transformer_steps(transformer: Any) -> list[Step]:
    from sklearn import decomposition, preprocessing

    where = type(transformer).__name__
    for module in (preprocessing, decomposition):
        kind = getattr(module, where, None)
        if where in _TRANSFORMERS and kind is not None and computes_as(transformer, kind, "transform"):
            if not hasattr(transformer, "n_features_in_"):
                raise ValueError(f"{where} is not fitted: call fit first")
            return _TRANSFORMERS[where](transformer, where)
    raise ValueError(f"{where} is not a step that fastjac reads: {', '.join(_TRANSFORMERS)}")


def _standard_scaler(scaler: Any, where: str) -> list[Step]:
    deviation = np.ones(scaler.n_features_in_) if scaler.scale_ is None else as_float64(scaler.scale_, where)
    mean = np.zeros(scaler.n_features_in_) if not scaler.with_mean else as_float64(scaler.mean_, where)
    return [scale(1 / deviation, -mean / deviation, where)]


def _min_max_scaler(scaler: Any, where: str) -> list[Step]:
    if scaler.clip:
        raise ValueError(f"{where} has clip=True, which is not an affine map: fit it with clip=False")
    return [scale(scaler.scale_, scaler.min_, where)]


def _pca(pca: Any, where: str) -> list[Step]:
    w = as_float64(pca.components_, where).T
    if pca.whiten:
        deviation = np.sqrt(pca.explained_variance_)
        w = w / np.maximum(deviation, np.finfo(deviation.dtype).eps)
    return [affine(w, -as_float64(pca.mean_, where) @ w, where)._replace(absorbed=True)]


_TRANSFORMERS: dict[str, Callable[[Any, str], list[Step]]] = {
    "StandardScaler": _standard_scaler,
    "MinMaxScaler": _min_max_scaler,
    "PCA": _pca,
}

_ACTIVATIONS = {
    "identity": IDENTITY,
    "logistic": Activation("sigmoid"),
    "tanh": Activation("tanh"),
    "relu": Activation("relu"),
    "softmax": Activation("softmax"),
}
