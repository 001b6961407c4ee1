"""PyTorch's normalisations, and its sums, means and norms along axes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastjac.models.tensors import Tensor, by_channel, entrywise, function, joined, normalised, summed

Array = NDArray[Any]
_Operation = Callable[..., Any]


def _layer_norm(
    where: str,
    x: Tensor,
    shape: Sequence[int],
    gain: Any = None,
    bias: Any = None,
    epsilon: float = 1e-5,
    *_: Any,
) -> Tensor:
    return normalised(x, list(range(-len(shape), 0)), _fixed(gain), _fixed(bias), epsilon, True, where)


def _rms_norm(
    where: str, x: Tensor, shape: Sequence[int], gain: Any = None, epsilon: float | None = None
) -> Tensor:
    least = float(np.finfo(np.float32).eps) if epsilon is None else epsilon
    return normalised(x, list(range(-len(shape), 0)), _fixed(gain), None, least, False, where)


def _fixed(parameter: Any) -> Array | None:
    if isinstance(parameter, Tensor):
        raise ValueError("its parameters depend on the input")
    return None if parameter is None else np.asarray(parameter)


def _group_norm(
    where: str,
    x: Tensor,
    gain: Any,
    bias: Any,
    count: int,
    channels: int,
    size: int,
    groups: int,
    epsilon: float,
) -> Tensor:
    parts = x.moved(lambda p: p.reshape(count * groups, -1))
    y = normalised(parts, [-1], None, None, epsilon, True, where).moved(lambda p: p.reshape(x.shape))
    for name, part in (("multiply", _fixed(gain)), ("add", _fixed(bias))):
        if part is not None:
            y = joined(name, [y, by_channel(part, len(x.shape))], where)
    return y


def _batch_norm(
    where: str, x: Tensor, gain: Any, bias: Any, mean: Any, variance: Any, training: Any, *rest: Any
) -> Tensor:
    epsilon = rest[-1] if isinstance(rest[-1], float) else rest[1]
    if training or mean is None or variance is None:
        raise ValueError("it keeps no running statistics, so its output depends on the whole batch")
    factor = 1 / np.sqrt(variance + epsilon) * (1 if gain is None else gain)
    shift = (0 if bias is None else bias) - mean * factor
    y = joined("multiply", [x, by_channel(factor, len(x.shape))], where)
    return joined("add", [y, by_channel(shift, len(x.shape))], where)


def _axes(x: Tensor, given: Any) -> list[int]:
    """Return the axes that an operation works along: all where it names none."""
    if isinstance(given, int):
        return [given]
    return list(given or range(len(x.shape)))


def _reduction(name: str) -> _Operation:
    def follow(where: str, x: Tensor, axes: Any = None, keepdim: bool = False, **_: Any) -> Tensor:
        return summed(x, _axes(x, axes), keepdim, name, where)

    return follow


def _variance(
    where: str, x: Tensor, axes: Any = None, *, correction: float | None = None, keepdim: bool = False
) -> Tensor:
    along = _axes(x, axes)
    centred = joined("subtract", [x, summed(x, along, True, "mean", where)], where)
    squares = entrywise(centred, lambda value: value * value)
    count = np.prod([x.shape[axis] for axis in along])
    total = summed(squares, along, keepdim, "sum", where)
    return entrywise(total, lambda value: value * (1 / (count - (1 if correction is None else correction))))


def _norm(
    where: str, x: Tensor, order: float = 2, axes: Any = None, keepdim: bool = False, **_: Any
) -> Tensor:
    if order != 2:
        raise ValueError(f"its order is {order}, expected 2")
    total = summed(entrywise(x, lambda value: value * value), _axes(x, axes), keepdim, "sum", where)
    return function("sqrt", total, where)


NORMALISATIONS: dict[str, _Operation] = {
    **dict.fromkeys(("layer_norm", "native_layer_norm"), _layer_norm),
    **dict.fromkeys(("rms_norm", "_fused_rms_norm"), _rms_norm),
    "native_group_norm": _group_norm,
    **dict.fromkeys(("native_batch_norm", "_native_batch_norm_legit"), _batch_norm),
    "_native_batch_norm_legit_no_training": lambda where, x, gain, bias, mean, variance, momentum, epsilon: (
        _batch_norm(where, x, gain, bias, mean, variance, False, momentum, epsilon)
    ),
    "sum": _reduction("sum"),
    "mean": _reduction("mean"),
    "amax": _reduction("max"),
    "var": _variance,
    "std": lambda where, *args, **kwargs: function("sqrt", _variance(where, *args, **kwargs), where),
    **dict.fromkeys(("norm", "linalg_vector_norm"), _norm),
}
