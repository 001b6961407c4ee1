"""Networks from bare weights: JAX and Flax parameters, plain lists, PyTorch state dicts."""

from __future__ import annotations

import contextlib
import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from fastjac.layers import Activation
from fastjac.models.limits import Budget, network
from fastjac.network import Network

Activations = str | Activation | Sequence[str | Activation]
_WEIGHTS = ("kernel", "w")
_BIASES = ("bias", "b")
# How many prefixes an error names.
_MOST_TOLD = 8


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
    return network(list(layers_of(params, "params")), activation, head)


def from_state_dict(
    arrays: Mapping[str, Any],
    activation: Activations,
    head: str | Activation,
    prefix: str | Sequence[str] = "",
    budget: Budget | None = None,
) -> Network:
    """Return the network of a PyTorch state dict.

    Its arrays are called ``0.weight`` (fan_out, fan_in), ``0.bias`` (fan_out,), ``2.weight`` and so on, after
    a ``prefix``, or one of several in order; ``w1`` (fan_in, fan_out), ``b1`` (fan_out,), ``w2`` do as well.

    Raises
    ------
    ValueError
        If they are not layers in an order that the names tell; the message names prefixes of those that are.
    """
    layers: list[tuple[Any, Any]] = []
    for start in [prefix] if isinstance(prefix, str) else prefix:
        start = start and start.rstrip(".") + "."
        chosen = {name.removeprefix(start): array for name, array in arrays.items() if name.startswith(start)}
        try:
            if not chosen:
                raise ValueError(f"it has no weights {f'that begin with {start!r}' if start else 'at all'}")
            layers += layers_of(
                _tree({name: _real(name, array) for name, array in chosen.items()}), "weights"
            )
        except (TypeError, ValueError) as error:
            known = [
                repr(found) for found in itertools.islice(_prefixes(arrays), _MOST_TOLD) if found != start
            ]
            if not known:
                raise
            raise ValueError(
                f"{error}. Say where the layers are, as in fastjac.load(path, activation, head, "
                f"prefix={known[0]}); there are {', '.join(known)}"
            ) from None
    return network(layers, activation, head, budget=budget)


def _tree(arrays: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arrays of a state dict as nested mappings, weights (fan_in, fan_out)."""
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
    return tree


def _real(name: str, array: Any) -> Any:
    """Return a checked array of real numbers."""
    kind = array.dtype.names[0] if array.dtype.names else array.dtype
    if array.dtype.kind not in "biuf":
        raise ValueError(f"{name!r} has dtype {kind}, expected real numbers")
    if array.dtype in (np.int8, np.uint8):
        raise ValueError(f"{name!r} has dtype {kind}: quantized weights mean nothing without their scales")
    return array


def _prefixes(arrays: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """Yield the shortest prefixes after which there are layers that fit each other, and nothing else."""
    with contextlib.suppress(TypeError, ValueError):
        layers = list(layers_of(_tree({name: _real(name, array) for name, array in arrays.items()}), ""))
        if all(before.shape[1] == after.shape[0] for (before, _), (after, _) in itertools.pairwise(layers)):
            yield prefix
            return
    below: dict[str, dict[str, Any]] = {}
    for name, array in arrays.items():
        first, _, rest = name.partition(".")
        if rest:
            below.setdefault(first, {})[rest] = array
    for first, group in below.items():
        yield from _prefixes(group, f"{prefix}{first}.")


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
