"""What a layer is: an affine map and an activation, checked and brought to one dtype."""

from __future__ import annotations

import difflib
import functools
import math
import re
import warnings
from collections.abc import Iterable, Sequence
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import DTypeLike, NDArray

from fastjac.arguments import real_array

FLOATS = (np.dtype(np.float32), np.dtype(np.float64))
# What `dtype` may be: what `network_dtype` takes, less spellings that nobody needs.
FloatDType: TypeAlias = (
    Literal["float32", "float64"]
    | type[np.float32 | np.float64 | float]
    | np.dtype[np.float32]
    | np.dtype[np.float64]
)


# Weights and bias as they are given.
Pair: TypeAlias = tuple[NDArray[Any], NDArray[Any] | None]


class Activation(NamedTuple):
    """An elementwise function, or one of the heads softmax and log_softmax.

    Parameters
    ----------
    name : str
        A key of `ACTIVATIONS`.
    parameter : float or tuple of float
        ``slope`` of leaky_relu and prelu, ``alpha`` of elu and celu; 0 for all others. Of prelu also a
        sequence of slopes, one for each unit, which a `Network` keeps as a tuple.
    """

    name: str
    parameter: float | tuple[float, ...] = 0.0

    def __str__(self) -> str:
        """Return the text that `as_activation` reads: ``relu``, ``leaky_relu(0.2)``.

        For prelu with a slope for each unit it is ``prelu(2 slopes)``, which nothing reads.
        """
        if ACTIVATIONS[self.name] is None:
            return self.name
        parameter = self.parameter
        text = f"{len(parameter)} slopes" if isinstance(parameter, tuple) else repr(parameter)
        return f"{self.name}({text})"

    @property
    def kinks(self) -> tuple[float, ...]:
        """The pre-activations at which the derivative jumps, in ascending order."""
        # leaky_relu(1) and elu(1) have the same slope on both sides of 0.
        return () if self._is_all(1) else _KINDS[self.name].kinks

    @property
    def active(self) -> tuple[float, float]:
        """The open interval of pre-activations outside which the derivative is 0."""
        flat_below = ACTIVATIONS[self.name] is not None and self._is_all(0)
        return (0.0, math.inf) if flat_below else _KINDS[self.name].active

    @property
    def is_flat(self) -> bool:
        """Whether the derivative is 0 in a whole interval."""
        return self.active != (-math.inf, math.inf)

    def _is_all(self, value: float) -> bool:
        if isinstance(self.parameter, float):
            return bool(self.parameter == value)
        return bool(np.all(np.equal(self.parameter, value)))


class Layer(NamedTuple):
    """``activation(x @ w + b)`` with ``w`` (fan_in, fan_out) and ``b`` (fan_out,)."""

    w: NDArray[np.floating[Any]]
    b: NDArray[np.floating[Any]]
    activation: Activation


class _Kind(NamedTuple):
    """What this package knows about an activation, beside its formula."""

    parameter: float | None = None  # the default; None for an activation without a parameter
    kinks: tuple[float, ...] = ()  # pre-activations at which the derivative jumps
    active: tuple[float, float] = (-math.inf, math.inf)  # the derivative is 0 outside


# The order is the code that kernels see.
_KINDS = {
    "identity": _Kind(),
    "relu": _Kind(kinks=(0.0,), active=(0.0, math.inf)),
    "leaky_relu": _Kind(0.01, kinks=(0.0,)),
    "relu6": _Kind(kinks=(0.0, 6.0), active=(0.0, 6.0)),
    "hard_tanh": _Kind(kinks=(-1.0, 1.0), active=(-1.0, 1.0)),
    "elu": _Kind(1.0, kinks=(0.0,)),
    "tanh": _Kind(),
    "sigmoid": _Kind(),
    "softplus": _Kind(),
    "silu": _Kind(),
    "gelu": _Kind(),
    "gelu_tanh": _Kind(),
    "prelu": _Kind(0.25, kinks=(0.0,)),
    "selu": _Kind(kinks=(0.0,)),
    "celu": _Kind(1.0),
    "hard_sigmoid": _Kind(kinks=(-3.0, 3.0), active=(-3.0, 3.0)),
    "hard_swish": _Kind(kinks=(-3.0, 3.0), active=(-3.0, math.inf)),
    "mish": _Kind(),
    "softsign": _Kind(),
    "exp": _Kind(),
    "square": _Kind(),
    "abs": _Kind(kinks=(0.0,)),
    "sin": _Kind(),
    "cos": _Kind(),
    "softmax": _Kind(),
    "log_softmax": _Kind(),
}
# Name -> default of its parameter, None where it takes none; in the order of the table.
ACTIVATIONS = {name: kind.parameter for name, kind in _KINDS.items()}
HEADS_ONLY = ("softmax", "log_softmax")
# selu is SELU_SCALE * elu(SELU_ALPHA), of which the outputs of a wide layer keep mean 0 and variance 1.
SELU_SCALE, SELU_ALPHA = 1.0507009873554804934193349852946, 1.6732632423543772848170429916717
# Names that other libraries have for them.
ALIASES = {"swish": "silu", "linear": "identity", "logistic": "sigmoid"}


class Default(str):
    """The name of an activation that is not said, so layers that have their own may have another."""

    __slots__ = ()


RELU, SOFTMAX = Default("relu"), Default("softmax")


def as_activation(spec: str | Activation, argument: str = "activation") -> Activation:
    """Return the `Activation` that ``spec`` names, such as ``"relu"`` or ``"leaky_relu(0.2)"``.

    ``swish`` is silu, ``linear`` is identity, ``logistic`` is sigmoid.

    Raises
    ------
    TypeError
        If ``spec`` is neither a string nor an `Activation`.
    ValueError
        If the name is unknown, or its parameter missing, not finite or not wanted.
    """
    if not isinstance(spec, (str, Activation)):
        raise TypeError(
            f"{argument} must be a string, got {_got(spec)}; the names are {', '.join(ACTIVATIONS)}"
        )
    return _named(spec, argument) if isinstance(spec, str) else _checked(spec, argument)


def _checked(spec: str | Activation, argument: str) -> Activation:
    """Return what `as_activation` does."""
    whole = spec if isinstance(spec, str) else spec.name
    match = re.fullmatch(r"(\w+)(?:\((.+)\))?", whole)
    name, text = match.groups() if match else (whole, None)
    name = ALIASES.get(name, name)
    if name not in ACTIVATIONS:
        known = f"one of {', '.join(ACTIVATIONS)}{_did_you_mean(name)}"
        raise ValueError(f"{argument} is {str(spec)!r}, expected {known}")
    default = ACTIVATIONS[name]
    given: Any = text
    if isinstance(spec, Activation):
        given = spec.parameter
    elif text is None:
        given = default or 0.0
    try:
        numbers = np.asarray(given, np.float64)
    except (TypeError, ValueError):
        numbers = np.array(math.nan)
    low = 0.0 if name == "celu" else -math.inf
    fits = numbers.ndim <= (name == "prelu") and bool(np.all((low < numbers) & (numbers < math.inf)))
    if not fits or not numbers.size or (default is None and (text or numbers)):
        raise ValueError(f"{argument} is {str(spec)!r}, but {name} {_WANTED.get(name, _wanted(default))}")
    return Activation(name, numbers.item() if numbers.size == 1 else tuple(numbers.tolist()))


# Files name the same ones again and again.
_named = functools.lru_cache(maxsize=256)(_checked)


_WANTED = {
    "celu": "takes one positive number",
    "prelu": "takes one finite number, or an Activation with one for each unit",
}


def _wanted(default: float | None) -> str:
    return "takes no parameter" if default is None else "takes one finite number"


def _got(spec: object) -> str:
    """Return what stands where the name of an activation should, and which name that may be."""
    if spec is None:
        return 'None (a layer without an activation has "identity")'
    name: str = getattr(spec, "__name__", type(spec).__name__)
    return name + (_did_you_mean(name) if callable(spec) else "")


def _did_you_mean(name: str) -> str:
    found = difflib.get_close_matches(name.lower(), [*ACTIVATIONS, *ALIASES], 1)
    return f'; did you mean "{found[0]}"?' if found else ""


def network_dtype(arrays: Iterable[NDArray[Any]], dtype: DTypeLike | None) -> np.dtype[Any]:
    """Return float32 or float64: ``dtype`` if given, else the widest that ``arrays`` ask for."""
    if dtype is not None:
        for known in FLOATS:
            if np.dtype(dtype).newbyteorder("=") == known:
                return known
        raise TypeError(f"dtype is {np.dtype(dtype)}, expected float32 or float64")
    widest = np.result_type(np.float32, *(array.dtype for array in arrays))
    return FLOATS[widest.itemsize > 4]


def as_layers(
    layers: Iterable[Any],
    activation: str | Activation | Sequence[str | Activation] = RELU,
    head: str | Activation = SOFTMAX,
    dtype: DTypeLike | None = None,
) -> tuple[Layer, ...]:
    """Return checked, read-only copies of ``layers`` in one dtype.

    Parameters
    ----------
    layers : iterable of (w, b) or of (w, b, activation)
        ``w`` (fan_in, fan_out) and ``b`` (fan_out,), or None for no bias; each ``fan_in`` is the
        ``fan_out`` before it. Layers of a network, which have an activation each, are of the second kind.
    activation : str, Activation or a sequence of them
        Of all hidden layers, or one for each of the ``len(layers) - 1`` hidden layers. Default: relu, or
        what the layers have.
    head : str or Activation
        Of the last layer. Default: softmax, or what the layer has.
    dtype : float32 or float64, optional
        Default: the widest of the weights.

    Raises
    ------
    ValueError, TypeError
        If a shape, a name or a dtype does not fit; if ``activation`` or ``head`` is given and the layers
        have their own.

    Warns
    -----
    RuntimeWarning
        If weights are NaN.
    """
    pairs, own = _pairs(layers)
    misfit = _misfit(pairs)
    if misfit is not None:
        if _misfit([(w.T, b) for w, b in pairs]) is None:
            misfit += (
                "; the transposed weights would fit: if they are (fan_out, fan_in), as PyTorch keeps them, "
                "hand in w.T of each layer"
            )
        raise ValueError(misfit)
    if own:
        for name, value in (("activation", activation), ("head", head)):
            if not isinstance(value, Default):
                raise TypeError(f"{name} is given, but the layers have activations of their own")
        activations = own
    else:
        activations = [*_hidden(activation, len(pairs) - 1), as_activation(head, "head")]
    for number, item in enumerate(activations[:-1], 1):
        if item.name in HEADS_ONLY:
            which = f"activation of layer {number}" if own else "activation"
            raise ValueError(f"{which} is {item.name!r}, which only the head can be")
    for number, ((w, _), item) in enumerate(zip(pairs, activations, strict=True), 1):
        if isinstance(item.parameter, tuple) and len(item.parameter) != w.shape[1]:
            raise ValueError(f"layer {number} has {item}, expected one for each of its {w.shape[1]} units")

    biases = [np.zeros(w.shape[1], w.dtype) if b is None else b for w, b in pairs]
    kind = network_dtype((array for (w, _), b in zip(pairs, biases, strict=True) for array in (w, b)), dtype)
    _warn_of_nan(pairs)
    return tuple(
        Layer(read_only(w, kind), read_only(b, kind), item)
        for (w, _), b, item in zip(pairs, biases, activations, strict=True)
    )


def _pairs(layers: Iterable[Any]) -> tuple[list[Pair], list[Activation]]:
    """Return the weights and biases of ``layers``, and their activations if they have them."""
    pairs: list[Pair] = []
    own: list[Activation] = []
    for number, layer in enumerate(layers, 1):
        not_a_pair = ValueError(f"layer {number} is not a pair (w, b)")
        try:
            w_given, b_given, *rest = layer
        except (TypeError, ValueError):
            raise not_a_pair from None
        if len(rest) > 1 or any(isinstance(item, (np.ndarray, list)) for item in rest):
            raise not_a_pair
        if len(own) != (number - 1 if rest else 0):
            has, had = ("an", "no") if rest else ("no", "an")
            raise ValueError(f"layer {number} has {has} activation of its own, but layer 1 has {had} one")
        if rest:
            own.append(as_activation(rest[0], f"activation of layer {number}"))
        w = real_array(w_given, f"w{number}")
        if w.ndim != 2 or 0 in w.shape:
            raise ValueError(f"w{number} has shape {w.shape}, expected (fan_in, fan_out), each at least 1")
        pairs.append((w, None if b_given is None else real_array(b_given, f"b{number}")))
    if not pairs:
        raise ValueError("layers is empty, expected at least one pair (w, b)")
    return pairs, own


def _misfit(pairs: Sequence[Pair]) -> str | None:
    """Return what is wrong with the first shape that does not fit, None if all do."""
    units = pairs[0][0].shape[0]
    for number, (w, b) in enumerate(pairs, 1):
        if w.shape[0] != units:
            before = f"b{number - 1} says the hidden layer has {units} units"
            return f"w{number} has shape {w.shape}, but {before}"
        units = w.shape[1]
        if b is not None and b.shape != (units,):
            return f"b{number} has shape {b.shape}, but w{number} has shape {w.shape}: expected ({units},)"
    return None


def _hidden(activation: str | Activation | Sequence[str | Activation], hidden: int) -> Sequence[Activation]:
    """Return the activations of the hidden layers."""
    if isinstance(activation, (str, Activation)) or not isinstance(activation, Iterable):
        return [as_activation(activation)] * hidden
    activations = [as_activation(item, f"activation[{i}]") for i, item in enumerate(activation)]
    if len(activations) != hidden:
        raise ValueError(f"activation has {len(activations)} entries, but there are {hidden} hidden layers")
    return activations


def _warn_of_nan(pairs: Sequence[Pair]) -> None:
    """Warn of layers whose weights are NaN; infinite ones are numbers like others."""
    for number, pair in enumerate(pairs, 1):
        for name, array in zip("wb", pair, strict=True):
            if array is not None and np.isnan(array).any():
                # At the caller of a Network's constructor.
                warnings.warn(f"layer {number}: {name}{number} contains NaN", RuntimeWarning, stacklevel=4)


def read_only(array: NDArray[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Return a C-contiguous copy of ``array`` in ``dtype`` that nobody can make writable."""
    return np.frombuffer(array.astype(dtype).tobytes(), dtype).reshape(array.shape)
