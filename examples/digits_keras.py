"""Trains a Keras model on the digits, saves it as .keras, and compares.

pip install . keras tensorflow-cpu scikit-learn
python examples/digits_keras.py [FOLDER]
"""

import keras
import numpy as np
import tensorflow as tf
from digits import compare, folder, split
from keras import layers


def train(x, label):
    """Return a model."""
    keras.utils.set_random_seed(0)
    keras.config.set_floatx(str(x.dtype))
    keras.config.set_dtype_policy(str(x.dtype))
    model = keras.Sequential(
        [
            keras.Input((64,)),
            layers.Rescaling(1 / 16),
            layers.Dense(40, activation="silu"),
            layers.BatchNormalization(),
            layers.Dropout(0.2),
            layers.Dense(20, activation="relu"),
            layers.Dense(10, activation="softmax"),
        ]
    )
    model.compile("adam", "sparse_categorical_crossentropy")
    model.fit(x, label, batch_size=32, epochs=5, verbose=0)
    return model


def outputs(model, x):
    """Return Keras' own probabilities and TensorFlow's Jacobians."""
    x = tf.constant(x)
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = model(x)
    return y.numpy(), tape.batch_jacobian(y, x).numpy()


if __name__ == "__main__":
    for dtype in (np.float32, np.float64):
        x_train, label, x = split(dtype)
        model = train(x_train, label)
        path = folder() / f"keras_{dtype.__name__}.keras"
        model.save(path)
        compare(path, x, *outputs(model, x))
