"""Trains a scikit-learn pipeline on the digits, saves it through `fastjac.from_sklearn`, and compares.

pip install . scikit-learn
python examples/digits_sklearn.py [FOLDER]
"""

import numpy as np
from digits import compare, folder, split
from sklearn.decomposition import PCA
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import fastjac


def train(x, label):
    """Return a fitted pipeline."""
    perceptron = MLPClassifier((40, 20), "tanh", alpha=0.1, max_iter=300, random_state=0)
    return make_pipeline(StandardScaler(), PCA(30, random_state=0), perceptron).fit(x, label)


def jacobian(pipeline, x):
    """Return d predict_proba / d x (10, 64) at one sample (64,); scikit-learn itself has no derivatives."""
    scaler, pca, perceptron = (step for _, step in pipeline.steps)
    w1, w2, w3 = perceptron.coefs_
    b1, b2, _ = perceptron.intercepts_
    a1 = np.tanh(pipeline[:-1].transform(x[None])[0] @ w1 + b1)
    a2 = np.tanh(a1 @ w2 + b2)
    (y,) = pipeline.predict_proba(x[None])
    jac = (np.diag(y) - np.outer(y, y)) @ w3.T
    jac = (jac * (1 - a2**2)) @ w2.T
    jac = (jac * (1 - a1**2)) @ w1.T
    return jac @ pca.components_ / scaler.scale_


if __name__ == "__main__":
    for dtype in (np.float32, np.float64):
        x_train, label, x = split(dtype)
        pipeline = train(x_train, label)
        path = folder() / f"sklearn_{dtype.__name__}.npz"
        fastjac.save(fastjac.from_sklearn(pipeline), path)
        compare(path, x, pipeline.predict_proba(x), np.array([jacobian(pipeline, sample) for sample in x]))
