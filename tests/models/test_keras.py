"""from_keras against the model's own forward pass and its Jacobian by Keras' backend."""

import numpy as np
import pytest

from fastjac.models import from_jax, from_keras

keras = pytest.importorskip("keras")
BACKEND = keras.backend.backend()
if BACKEND not in ("jax", "tensorflow"):
    pytest.skip("the Jacobians here come from JAX or TensorFlow", allow_module_level=True)
layers = keras.layers
# TensorFlow's variables do not know NumPy 2's copy keyword.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

DTYPES = ("float32", "float64")
TOLERANCES = {"float32": 1e-5, "float64": 1e-10}
rng = np.random.default_rng(0)


@pytest.fixture(params=DTYPES)
def dtype(request):
    keras.utils.set_random_seed(0)
    if BACKEND == "jax":
        pytest.importorskip("jax").config.update("jax_enable_x64", True)
    keras.config.set_floatx(request.param)
    keras.config.set_dtype_policy(request.param)  # which otherwise keeps the first floatx it saw
    yield request.param
    keras.config.set_floatx("float32")
    keras.config.set_dtype_policy("float32")


def trained(model, spread=2.0):
    """Return the model after a few steps of training, which move every weight and every statistic."""
    x = rng.normal(size=(64, *model.input_shape[1:])) * spread + 0.5
    y = np.tile(np.linspace(0.1, 0.9, model.output_shape[1]), (64, 1))
    model.compile("adam", "mse", run_eagerly=BACKEND == "tensorflow")
    for _ in range(5):
        model.train_on_batch(x, y)
    return model, x[:2]


def value_and_jacobian(model, sample):
    """Return a model's output and Jacobian at one sample."""
    if BACKEND == "jax":
        import jax

        variables = [
            [v.value for v in part] for part in (model.trainable_variables, model.non_trainable_variables)
        ]

        def output(inputs):
            return model.stateless_call(*variables, inputs[None], training=False)[0][0]

        inputs = jax.numpy.asarray(sample, keras.config.floatx())
        return np.asarray(output(inputs)), np.asarray(jax.jacrev(output)(inputs))
    import tensorflow as tf

    inputs = tf.constant(sample[None], keras.config.floatx())
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(inputs)
        expected = model(inputs)
    jac = tape.jacobian(expected, inputs, experimental_use_pfor=False)
    return expected.numpy()[0], jac.numpy()


def loose(dtype, what):
    """Return the tolerance of what Keras computes in float32 whatever its dtype, None for anything else."""
    kept = {"tensorflow": ("leaky_relu", "gelu"), "jax": ("tanh", "normalization")}[BACKEND]
    return 1e-6 if dtype == "float64" and what in kept else None


def assert_same(model, x, tolerance=None):
    net = from_keras(model)
    dtype = keras.config.floatx()
    tolerance = tolerance or TOLERANCES[dtype]
    assert net.dtype == dtype
    for sample in x:
        expected, expected_jac = value_and_jacobian(model, sample)
        expected_jac = expected_jac.reshape(expected.size, -1)
        y, jac = net.value_and_jacobian(sample.ravel())
        atol = tolerance * np.abs(expected).max()
        np.testing.assert_allclose(y, expected, rtol=0, atol=atol)
        atol = tolerance * np.abs(expected_jac).max()
        np.testing.assert_allclose(jac, expected_jac, rtol=0, atol=atol)
    return net


def test_the_article(dtype):
    model = keras.Sequential(
        [keras.Input((500,)), layers.Dense(100, activation="relu"), layers.Dense(10, activation="softmax")]
    )
    weights = [rng.normal(size=weight.shape) / np.sqrt(weight.shape[0]) for weight in model.weights]
    model.set_weights(weights)
    net = assert_same(model, rng.uniform(size=(2, 500)))
    assert [layer.w.shape for layer in net.layers] == [(500, 100), (100, 10)]


@pytest.mark.parametrize(
    "activation",
    [
        *("linear", "relu", "leaky_relu", "relu6", "hard_tanh", "elu", "tanh", "sigmoid", "softplus", "silu"),
        *("swish", "gelu", "selu", "celu", "hard_sigmoid", "hard_silu", "hard_swish", "mish", "softsign"),
        *("exponential", None),
    ],
)
def test_activations(activation, dtype):
    model = keras.Sequential(
        [
            keras.Input((6,)),
            layers.Dense(5, activation=activation),
            layers.Dense(4, use_bias=False),
            layers.Activation(activation),
            layers.Dense(3, activation="log_softmax"),
        ]
    )
    # Exponentials of exponentials overflow.
    spread = 0.1 if activation == "exponential" else 2.0
    assert_same(*trained(model, spread), loose(dtype, activation))


@pytest.mark.parametrize(
    "make",
    [
        layers.ReLU,
        lambda: layers.ReLU(max_value=6),
        lambda: layers.ReLU(max_value=1.5),
        lambda: layers.ReLU(negative_slope=0.25),
        lambda: layers.LeakyReLU(0.125),
        lambda: layers.ELU(0.7),
        lambda: layers.PReLU("normal"),
        lambda: layers.PReLU("normal", shared_axes=[1]),
    ],
)
def test_activation_layers(make, dtype):
    model = keras.Sequential([keras.Input((6,)), layers.Dense(5), make(), layers.Dense(4, activation=make())])
    model.add(layers.Dense(3))
    model.add(layers.Softmax())
    assert_same(*trained(model))


def test_batch_normalization_and_dropout(dtype):
    model = keras.Sequential(
        [
            keras.Input((6,)),
            layers.BatchNormalization(),
            layers.Dense(5, use_bias=False),
            layers.BatchNormalization(center=False, scale=False, epsilon=1e-2),
            layers.Activation("relu"),
            layers.Dropout(0.5),
            layers.BatchNormalization(),
            layers.Dense(3, activation="softmax"),
        ]
    )
    net = assert_same(*trained(model), loose(dtype, "normalization"))
    assert [layer.w.shape for layer in net.layers] == [(6, 5), (5, 3)]


def test_noise_is_nothing_at_inference(dtype):
    noise = [layers.GaussianNoise(0.5), layers.GaussianDropout(0.5), layers.AlphaDropout(0.5)]
    noise += [layers.ActivityRegularization(0.1)]
    model = keras.Sequential([keras.Input((6,)), layers.Dense(5, activation="elu"), *noise, layers.Dense(3)])
    net = assert_same(*trained(model))
    assert [layer.w.shape for layer in net.layers] == [(6, 5), (5, 3)]
    image = keras.Sequential(
        [keras.Input((4, 3)), layers.SpatialDropout1D(0.5), layers.Flatten(), layers.Dense(2)]
    )
    assert len(assert_same(*trained(image)).layers) == 1


def test_normalization_and_rescaling_of_images(dtype):
    normalization = layers.Normalization(axis=-1)
    normalization.adapt(rng.normal(size=(50, 4, 3, 2)) * 3 + 1)
    model = keras.Sequential(
        [
            keras.Input((4, 3, 2)),
            layers.Rescaling(1 / 16, offset=-0.5),
            normalization,
            layers.BatchNormalization(axis=2),
            layers.Activation("elu"),
            layers.Flatten(),
            layers.Dense(5, activation="elu"),
            layers.Dense(3, activation="softmax"),
        ]
    )
    net = assert_same(*trained(model), loose(dtype, "normalization"))
    assert net.n_inputs == 24


def test_normalization_with_given_statistics(dtype):
    model = keras.Sequential(
        [
            keras.Input((3,)),
            layers.Normalization(mean=[1.0, 0, 3], variance=[4.0, 0, 9]),
            layers.Dense(4),
            layers.Normalization(mean=0.5, variance=2.0, invert=True),
        ]
    )
    x = rng.normal(size=(2, 3))
    x[:, 1] = 0  # its deviation is Keras' epsilon
    assert_same(model, x)


def test_large_means_make_float32_models_float64():
    normalization = layers.Normalization(mean=[4000.0, 7], variance=[1.0, 0])
    model = keras.Sequential([keras.Input((2,)), normalization, layers.Dense(4, activation="elu")])
    net = from_keras(model)
    assert net.dtype == np.float64
    x = np.array([[4000.5, 7], [3999.25, 7]], np.float32)
    np.testing.assert_allclose(net.value_and_jacobian(x)[0], keras.ops.convert_to_numpy(model(x)), rtol=1e-5)


def test_functional_nested_and_shared(dtype):
    twice = layers.Dense(5, activation="elu")
    inner = keras.Sequential([layers.Dense(5, activation="elu"), layers.Dropout(0.1)])
    inputs = keras.Input((5,))
    y = layers.Dense(5, activation="elu")(twice(inner(twice(inputs))))
    functional = keras.Model(inputs, y)
    outer = keras.Sequential([keras.Input((5,)), functional, keras.Sequential([layers.Dense(2)])])
    assert_same(*trained(outer))


def test_mixed_precision_and_bfloat16_become_float32():
    for policy in ("mixed_bfloat16", "bfloat16"):
        model = sequential((4,), layers.Dense(3, dtype=policy), layers.Dense(2, dtype=policy))
        assert from_keras(model).dtype == np.float32


def residual():
    x = keras.Input((4,))
    return keras.Model(x, layers.Add()([x, layers.Dense(4)(layers.Dense(8, activation="tanh")(x))]))


def joins():
    x = keras.Input((4,))
    a, b, c = (layers.Dense(5, activation=each)(x) for each in ("tanh", "softplus", "sigmoid"))
    parts = [
        layers.Multiply()([a, b]),
        layers.Subtract()([b, c]),
        layers.Average()([a, b, c]),
        layers.Maximum()([a, c]),
        layers.Minimum()([a, c]),
    ]
    return keras.Model(x, layers.Dense(3, activation="softmax")(layers.Concatenate()([x, *parts])))


def layer_norms():
    x = keras.Input((6,))
    h = layers.LayerNormalization()(layers.Dense(8)(x))
    h = layers.LayerNormalization(center=False, epsilon=1e-2)(layers.Dense(8, activation="elu")(h))
    h = layers.RMSNormalization()(layers.GaussianNoise(0.1)(layers.AlphaDropout(0.2)(h)))
    return keras.Model(x, layers.Dense(2)(layers.BatchNormalization()(h)))


def shared_and_nested():
    x = keras.Input((5,))
    block = residual_block = keras.Sequential([keras.Input((5,)), layers.Dense(5, activation="elu")])
    inner = keras.Input((5,))
    middle = keras.Model(inner, layers.Add()([inner, residual_block(inner)]))
    return keras.Model(x, layers.Dense(2)(layers.Add()([middle(block(x)), middle(x)])))


def operations():
    x = keras.Input((6,))
    h = layers.Dense(6, activation="tanh")(x)
    return keras.Model(x, layers.Dense(2)((x[:, :3] - 2 * h[:, 3:]) * 0.5 + h[:, ::2] / 4 - 1))


def softmax_inside():
    x = keras.Input((4,))
    return keras.Model(x, layers.Dense(2)(layers.Dense(4, activation="softmax")(x)))


def axes():
    x = keras.Input((3, 4))
    y = layers.Permute((2, 1))(layers.LayerNormalization(axis=-1)(layers.Rescaling(0.5)(x)))
    y = layers.Concatenate(axis=1)([y, layers.Reshape((4, 3))(x)])
    return keras.Model(x, layers.Dense(2)(layers.Flatten()(layers.LayerNormalization(axis=[1, 2])(y))))


GRAPHS = [residual, joins, layer_norms, shared_and_nested, operations, softmax_inside, axes]


@pytest.mark.parametrize("make", GRAPHS, ids=lambda make: make.__name__)
def test_graphs(make, dtype):
    assert_same(*trained(make()), loose(dtype, "tanh"))


def test_several_inputs_are_one_behind_the_other(dtype):
    state, action, flag = keras.Input((4,), name="state"), keras.Input((2,), name="action"), keras.Input((1,))
    h = layers.Dense(5, activation="softplus")(layers.Concatenate()([action, state]))
    model = keras.Model([state, action, flag], layers.Dense(2)(layers.Multiply()([h, layers.Dense(5)(flag)])))
    net = from_keras(model)
    assert net.input_names[:5] == ("state[0]", "state[1]", "state[2]", "state[3]", "action[0]")
    assert net.input_names[6] == model.inputs[2].name
    x = rng.normal(size=(1, 7)).astype(dtype)
    expected = keras.ops.convert_to_numpy(model([x[:, :4], x[:, 4:6], x[:, 6:]]))[0]
    np.testing.assert_allclose(net(x[0]), expected, rtol=10 * TOLERANCES[dtype], atol=TOLERANCES[dtype])


class Doubled(layers.Dense):
    def call(self, inputs):
        return 2 * super().call(inputs)


class OwnCall(keras.Model):
    def call(self, inputs):
        return inputs


def joined_along_the_batch():
    x = keras.Input((3,))
    return keras.Model(x, layers.Concatenate(axis=0)([x, layers.Dense(3)(x)]))


def of_different_shapes():
    x = keras.Input((3,))
    return keras.Model(x, layers.Add()([x, layers.Dense(1)(x)]))


def an_unknown_operation():
    x = keras.Input((3,))
    return keras.Model(x, keras.ops.cumsum(x, axis=1))


@pytest.mark.skipif(BACKEND != "jax", reason="a call of its own is read through JAX")
def test_a_call_of_its_own_is_read_by_from_jax(dtype):
    class Residual(keras.Model):
        def __init__(self):
            super().__init__()
            self.dense, self.norm = layers.Dense(4, activation="softplus"), layers.LayerNormalization()

        def call(self, x):
            return x + self.norm(self.dense(x))

    model, x = Residual(), rng.normal(size=(1, 4)).astype(dtype)
    expected = keras.ops.convert_to_numpy(model(x))[0]
    net = from_jax(lambda x: model(x[None])[0], 4)
    tolerance = 10 * (loose(dtype, "normalization") or TOLERANCES[dtype])
    np.testing.assert_allclose(net(x[0]), expected, rtol=0, atol=tolerance)


def operating(function):
    """Return a maker of a model of an operation on the input, (3,) and one unit."""

    def make():
        x = keras.Input((3,))
        return keras.Model(x, function(x, layers.Dense(1)(x)))

    return make


def two_outputs():
    inputs = keras.Input((3,))
    return keras.Model(inputs, [layers.Dense(3)(inputs), inputs])


def sequential(shape, *parts):
    return keras.Sequential([keras.Input(shape), *parts])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (OwnCall, "has a call of its own.*Sequential"),
        (two_outputs, "has 2 outputs, expected one"),
        (joined_along_the_batch, r"\(Concatenate\) joins along axis 0"),
        (of_different_shapes, r"\(Add\) joins shapes \(3,\) and \(1,\), expected equal ones"),
        (operating(lambda x, y: y[0]), "has an index along the samples of a batch"),
        (operating(lambda x, y: x + np.ones((2, 3))), "numbers that differ along the samples of a batch"),
        (operating(lambda x, y: x * np.ones((1, 1, 3))), "numbers that differ along the samples of a batch"),
        (operating(lambda x, y: x[:, None] + y), r"takes shapes \(1, 3\) and \(1,\), expected as many axes"),
        (an_unknown_operation, r"\(Cumsum\) is not an operation that fastjac reads: GetItem"),
        (lambda: keras.Sequential([layers.Dense(3)]), "has no weights yet"),
        (lambda: sequential((3,), Doubled(2)), r"\(Doubled\) is not a layer that fastjac reads: Dense"),
        (lambda: sequential((3, 2), layers.Dense(2)), "works on the last axis.*Flatten"),
        (lambda: sequential((3, 2), layers.Conv1D(2, 1)), r"\(Conv1D\) is not a layer"),
        (lambda: sequential((3,), layers.Dense(2, activation="hard_shrink")), "activation 'hard_shrink'"),
        (lambda: sequential((3,), layers.Dense(2, activation=lambda x: x)), "has the activation '<lambda>'"),
        (lambda: sequential((3, 2), layers.Softmax()), "softmax over axis -1"),
        (lambda: sequential((3,), layers.ReLU(threshold=1.0)), "has negative_slope 0"),
        (lambda: sequential((3, 2), layers.Flatten("channels_first")), "channels_last"),
    ],
)
def test_clear_no(make, message):
    with pytest.raises(ValueError, match=message):
        from_keras(make())


@pytest.mark.parametrize("value", [None, "model.keras", keras.Sequential])
def test_not_a_model(value):
    with pytest.raises(TypeError, match=r"must be a keras.Model of Keras 3, got"):
        from_keras(value)
