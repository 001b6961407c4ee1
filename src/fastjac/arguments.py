"""Checks and conversions of what a caller hands in, with the errors that name it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastjac.layers import real_array

Array = NDArray[Any]


def as_samples(value: ArrayLike, name: str, size: int) -> Array:
    """Return ``value`` (..., size) as an array of real numbers in whichever dtype and layout it has."""
    array = real_array(value, name)
    if array.ndim == 0 or array.shape[-1] != size:
        raise ValueError(f"{name} has shape {array.shape}, expected ({size},) or (..., {size})")
    return array


def as_outputs(
    out: Any, shapes: Mapping[str, tuple[int, ...]], dtype: np.dtype[Any], inputs: Mapping[str, ArrayLike]
) -> tuple[Array, ...]:
    """Return the checked arrays of ``out``, new ones for those that are None.

    Parameters
    ----------
    out : sequence of ndarray or None
        One array for each of ``shapes``.
    shapes : mapping of str to tuple
        What each array is called in errors, and the shape that it must have.
    dtype : dtype
        What each array must have.
    inputs : mapping of str to array_like
        What no array may overlap.
    """
    if not isinstance(out, (tuple, list)) or len(out) != len(shapes):
        wanted = ", ".join(name.split()[0] for name in shapes)
        raise TypeError(f"out must be a tuple ({wanted}), got {_kind(out)}")
    others = {name: value for name, value in inputs.items() if isinstance(value, np.ndarray)}
    arrays = []
    for (name, shape), array in zip(shapes.items(), out, strict=True):
        if array is not None:
            check_array(array, name, shape, dtype)
            if not array.flags.writeable:
                raise ValueError(f"{name} is not writable")
            for other, values in others.items():
                if np.shares_memory(array, values):
                    raise ValueError(f"{name} overlaps {other}")
            others[name] = array
        arrays.append(array)
    return new_where_none(arrays, shapes.values(), dtype)


def new_where_none(out: Any, shapes: Iterable[tuple[int, ...]], dtype: np.dtype[Any]) -> tuple[Array, ...]:
    """Return the arrays of ``out``, new ones where it has None, without any check."""
    # A list is faster than a generator.
    return tuple(
        [np.empty(shape, dtype) if array is None else array for array, shape in zip(out, shapes, strict=True)]
    )


def check_array(array: Any, name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
    """Raise TypeError or ValueError unless ``array`` is an ndarray that kernels can read where it is."""
    if not isinstance(array, np.ndarray):
        raise TypeError(f"{name} must be an ndarray, got {type(array).__name__}")
    if array.dtype != dtype:
        raise ValueError(f"{name} has dtype {array.dtype}, expected {dtype}")
    if array.shape != shape:
        raise ValueError(f"{name} has shape {array.shape}, expected {shape}")
    if not array.flags.c_contiguous:
        raise ValueError(f"{name} is not C-contiguous")
    if not array.flags.aligned:
        raise ValueError(f"{name} is not aligned")


def _kind(value: Any) -> str:
    kind = type(value).__name__
    return f"{kind} of length {len(value)}" if isinstance(value, (tuple, list)) else kind
