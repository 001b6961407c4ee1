"""What networks compute, in NumPy's widest numbers, with nothing of fastjac; tangents go forward."""

import math

import numpy as np

LONG = np.longdouble
PI = 4 * np.arctan(LONG(1))
KINKS = {
    **dict.fromkeys(("relu", "leaky_relu", "elu", "prelu", "selu", "celu", "abs"), (0,)),
    **{"relu6": (0, 6), "hard_tanh": (-1, 1), "hard_sigmoid": (-3, 3), "hard_swish": (-3, 3)},
}
SMOOTH = (
    *("elu", "tanh", "sigmoid", "softplus", "silu", "gelu", "gelu_tanh", "selu", "celu", "hard_swish"),
    *("mish", "softsign", "exp", "square", "sin", "cos"),
)
UNITS = 4  # of the last place, for each unit of the bound on the error


def _sigmoid(z):
    with np.errstate(over="ignore"):
        return 1 / (1 + np.exp(-z))


def _clip(low, high):
    return lambda z, _: (np.clip(z, low, high), ((z > low) & (z < high)).astype(LONG))


def _gelu(z, _):
    below = np.vectorize(lambda t: math.erfc(-t) / 2, otypes=[LONG])(np.asarray(z / np.sqrt(LONG(2)), float))
    return z * below, below + z * np.exp(-z * z / 2) / np.sqrt(2 * PI)


def _gelu_tanh(z, _):
    root, cubic = np.sqrt(2 / PI), LONG("0.044715")
    s = _sigmoid(2 * root * (z + cubic * z**3))
    return z * s, s + 2 * z * s * (1 - s) * root * (1 + 3 * cubic * z * z)


def _hard_swish(z, _):
    return z * np.clip(z + 3, 0, 6) / 6, np.where(
        z <= -3, LONG(0), np.where(z >= 3, LONG(1), (2 * z + 3) / 6)
    )


def _mish(z, _):
    t = np.tanh(np.logaddexp(z, LONG(0)))
    return z * t, t + z * (1 - t * t) * _sigmoid(z)


def _elu(scale, alpha, rate=1):
    """Return the function ``scale * alpha * (exp(z / rate) - 1)`` below 0, and ``scale * z`` above."""

    def function(z):
        below = np.minimum(z, 0) / rate
        value = np.where(z > 0, z, alpha * np.expm1(below))
        return scale * value, scale * np.where(z > 0, LONG(1), alpha / rate * np.exp(below))

    return function


# Name -> values and slopes at z, for a parameter.
FUNCTIONS = {
    "identity": lambda z, _: (z, np.ones_like(z)),
    "relu": _clip(0, np.inf),
    "relu6": _clip(0, 6),
    "hard_tanh": _clip(-1, 1),
    "leaky_relu": lambda z, p: (np.where(z > 0, z, p * z), np.where(z > 0, LONG(1), p)),
    "elu": lambda z, p: (
        np.where(z > 0, z, p * np.expm1(np.minimum(z, 0))),
        np.where(z > 0, LONG(1), p * np.exp(np.minimum(z, 0))),
    ),
    "tanh": lambda z, _: (np.tanh(z), 1 / np.cosh(z) ** 2),
    "sigmoid": lambda z, _: (_sigmoid(z), _sigmoid(z) * _sigmoid(-z)),
    "softplus": lambda z, _: (np.logaddexp(z, LONG(0)), _sigmoid(z)),
    "silu": lambda z, _: (z * _sigmoid(z), _sigmoid(z) * (1 + z * _sigmoid(-z))),
    "gelu": _gelu,
    "gelu_tanh": _gelu_tanh,
    "prelu": lambda z, p: (np.where(z > 0, z, p * z), np.where(z > 0, LONG(1), p)),
    "selu": lambda z, _: _elu(
        LONG("1.0507009873554804934193349852946"), LONG("1.6732632423543772848170429916717")
    )(z),
    "celu": lambda z, p: _elu(1, p, p)(z),
    "hard_sigmoid": lambda z, _: (np.clip(z + 3, 0, 6) / 6, ((z > -3) & (z < 3)).astype(LONG) / 6),
    "hard_swish": _hard_swish,
    "mish": _mish,
    "softsign": lambda z, _: (z / (1 + abs(z)), 1 / (1 + abs(z)) ** 2),
    "exp": lambda z, _: (np.exp(z), np.exp(z)),
    "square": lambda z, _: (z * z, 2 * z),
    "abs": lambda z, _: (abs(z), np.sign(z)),
    "sin": lambda z, _: (np.sin(z), np.cos(z)),
    "cos": lambda z, _: (np.cos(z), -np.sin(z)),
}


def _walk(layers, x):
    """Each layer with its pre-activations (B, units) and a bound on their error in units of rounding."""
    a, spread = x.astype(LONG), np.zeros(x.shape, LONG)
    for w, b, activation in layers:
        name, parameter = activation
        w, b = w.astype(LONG), b.astype(LONG)
        z, spread = a @ w + b, (abs(a) + spread) @ abs(w) + abs(b)
        yield w, name, parameter, z, spread
        if name in FUNCTIONS:
            a, slope = FUNCTIONS[name](z, LONG(parameter))
            spread = spread * abs(slope)


def near_kinks(layers, x):
    """Return which samples (B, N) have a pre-activation so near to a kink that rounding decides."""
    near, eps = np.zeros(len(x), bool), UNITS * np.finfo(x.dtype).eps
    for _, name, _, z, spread in _walk(layers, x):
        for kink in KINKS.get(name, ()):
            near |= (abs(z - kink) <= 4 * eps * spread).any(axis=1)
    return near


def evaluated(layers, x):
    """Return outputs and Jacobians of samples, and the errors allowed in them.

    Parameters
    ----------
    layers : sequence of (w, b, (name, parameter))
    x : ndarray, (B, N)
        In the dtype whose rounding is allowed.

    Returns
    -------
    y, jac, y_allowed, jac_allowed : ndarray
        (B, M), (B, M, N) and again.
    """
    (batch, n), widest = x.shape, np.zeros((len(x), 1), LONG)
    tangents = np.broadcast_to(np.eye(n, dtype=LONG), (batch, n, n))
    bounds = tangents
    for w, name, parameter, z, spread in _walk(layers, x):
        tangents, bounds = tangents @ w, bounds @ abs(w)
        widest = np.maximum(widest, spread.max(axis=1, keepdims=True))
        if name in FUNCTIONS:
            y, slope = FUNCTIONS[name](z, LONG(parameter))
            tangents = tangents * slope[:, None]
            bounds = bounds * (np.maximum(abs(slope), 1) if name in SMOOTH else abs(slope))[:, None]
            y_bound = abs(y) + 2 * spread * np.maximum(abs(slope), 1)
        else:
            exponential = np.exp(z - z.max(axis=1, keepdims=True))
            total = exponential.sum(axis=1, keepdims=True)
            s, last = exponential / total, 2 * spread.max(axis=1, keepdims=True)
            tangents = tangents - (tangents * s[:, None]).sum(axis=2, keepdims=True)
            bounds = bounds + (bounds * s[:, None]).sum(axis=2, keepdims=True)
            if name == "softmax":
                y, y_bound = s, s * (1 + last)
                tangents, bounds = tangents * s[:, None], bounds * s[:, None]
            else:
                y = z - z.max(axis=1, keepdims=True) - np.log(total)
                y_bound = abs(y) + last
    eps, tiny = UNITS * LONG(np.finfo(x.dtype).eps), 2.0**20 * LONG(np.finfo(x.dtype).tiny)
    jac_bound = ((1 + widest)[:, None] * bounds).swapaxes(1, 2)
    return y, tangents.swapaxes(1, 2), eps * y_bound + tiny, eps * jac_bound + tiny
