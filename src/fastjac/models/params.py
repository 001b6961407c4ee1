"""Networks from bare weights: JAX and Flax parameters, plain lists, PyTorch state dicts."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from fastjac.layers import Activation
from fastjac.models.limits import Budget, network, warned
from fastjac.network import Network

Activations = str | Activation | Sequence[str | Activation]
_WEIGHTS = ("kernel", "w")
_BIASES = ("bias", "b")


def from_params(params: Any, activation: Activations = "relu", head: str | Activation = "softmax") -> Network:
    """Return the network of weights that JAX, Flax, Haiku or plain Python keep without activations.

    Parameters
    ----------
    params : mapping or sequence
        ``{"params": {"Dense_0": {"kernel": w, "bias": b}, ...}}`` and other nested mappings whose names
        end in a number that tells the order; or a sequence of layers, each ``(w, b)`` or such a mapping.
        Weights are (fan_in, fan_out) and called kernel or w; a bias may be left out.
    activation, head : str or Activation
        What `Network` takes.

    Returns
    -------
    Network
        In the widest dtype of the weights; float16 and bfloat16 become float32.

    Raises
    ------
    TypeError
        If ``params`` is neither, or a weight is not an array of real numbers.
    ValueError
        If the order of the layers is not told, or something is not a kernel or a bias.
    """
    if isinstance(params, Mapping) and "params" in params:
        others = [str(name) for name, value in params.items() if name != "params" and value]
        if others:
            raise ValueError(f"params has {', '.join(others)} besides 'params', which fastjac cannot read")
        params = params["params"]
    return warned(network(list(layers_of(params, "params")), activation, head))


def from_state_dict(
    arrays: Mapping[str, Any], activation: Activations, head: str | Activation, budget: Budget | None = None
) -> Network:
    """Return the network of a PyTorch state dict.

    Its arrays are called ``0.weight`` (fan_out, fan_in), ``0.bias`` (fan_out,), ``2.weight`` and so on;
    ``w1`` (fan_in, fan_out), ``b1`` (fan_out,), ``w2`` and so on do as well.
    """
    tree: dict[str, Any] = {}
    for name, array in arrays.items():
        plain = re.fullmatch(r"([wb])(\d+)", name)
        *path, leaf = (plain[2], plain[1]) if plain else name.split(".")
        if leaf not in ("weight", "bias", "w", "b") or (leaf == "weight" and array.ndim != 2):
            raise ValueError(f"{name!r} {array.shape} is not the weight or the bias of a Linear layer")
        node = tree
        for part in path:
            node = node.setdefault(part, {})
        node["w" if leaf == "weight" else leaf] = array.T if leaf == "weight" else array
    return network(list(layers_of(tree, "weights")), activation, head, budget=budget)


def check_activations(has_own: bool, activation: Activations | None, head: str | Activation | None) -> None:
    """Raise ValueError where a file has no activations and none are given, or both."""
    if has_own and not (activation is head is None):
        raise ValueError("it tells its activations itself: leave activation and head out")
    if not has_own and (activation is None or head is None):
        raise ValueError(
            "it holds weights but no activations: say which, as in "
            'fastjac.load(path, activation="relu", head="softmax")'
        )


def layers_of(params: Any, where: str) -> Iterator[tuple[Any, Any]]:
    """Yield ``(w, b)`` of every layer, in order; b is None where there is none."""
    if isinstance(params, Mapping):
        if any(name in _WEIGHTS for name in params):
            yield _layer(params, where)
            return
        for name in _ordered(params, where):
            yield from layers_of(params[name], f"{where}[{name!r}]")
    elif isinstance(params, Sequence) and not isinstance(params, (str, bytes)):
        for number, layer in enumerate(params):
            if isinstance(layer, Mapping):
                yield from layers_of(layer, f"{where}[{number}]")
            elif not isinstance(layer, Sequence):
                raise TypeError(f"{where}[{number}] is a {type(layer).__name__}, expected a pair (w, b)")
            elif layer:  # JAX's stax keeps an empty tuple for an activation
                pair = dict(zip(("w", "b"), layer, strict=False))
                if len(layer) > 2:
                    raise ValueError(f"{where}[{number}] has {len(layer)} parts, expected (w, b)")
                yield _layer(pair, f"{where}[{number}]")
    else:
        raise TypeError(f"{where} is a {type(params).__name__}, expected a mapping or a sequence of layers")


def _layer(params: Mapping[Any, Any], where: str) -> tuple[Any, Any]:
    weights = [name for name in params if name in _WEIGHTS]
    biases = [name for name in params if name in _BIASES]
    if len(weights) != 1 or len(biases) > 1 or len(weights) + len(biases) != len(params):
        raise ValueError(f"{where} has {', '.join(map(str, params))}, expected a kernel and at most a bias")
    bias = params[biases[0]] if biases else None
    return _float32_at_least(params[weights[0]]), None if bias is None else _float32_at_least(bias)


def _float32_at_least(value: Any) -> Any:
    array = np.asarray(value)
    return array.astype(np.float32) if array.dtype.name == "bfloat16" else array


def _ordered(params: Mapping[Any, Any], where: str) -> list[Any]:
    """Return the names in the order of the numbers they end in; JAX has ``Dense_10`` before ``Dense_2``."""
    keys: dict[tuple[str, int], Any] = {}
    known = []
    for name, value in params.items():
        if isinstance(value, Mapping) and not value:
            continue
        stem = str(name).rstrip("0123456789")
        known.append(name)
        keys[stem.removesuffix("_"), int(str(name)[len(stem) :] or -1)] = name
    if len({stem for stem, _ in keys}) > 1 or len(keys) < len(known):
        raise ValueError(
            f"{where} has {', '.join(map(str, known))}, which does not tell the order of the layers: "
            "pass fastjac.from_params a list of layers instead"
        )
    return [keys[key] for key in sorted(keys)]
