"""Checks and conversions of what a caller hands in, with the errors that name it."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[Any]
REAL = frozenset("biuf")  # kinds of dtype
# Types of rows that have neither names nor gaps.
PLAIN = frozenset((list, tuple, np.ndarray))


def real_array(value: Any, argument: str, names: Sequence[str] | None = None) -> Array:
    """Return ``value`` as an array of real numbers, in whichever dtype and layout it has.

    Parameters
    ----------
    value : array_like
        Data frames, tensors, structured arrays (..., fields) and the like too, if nothing is missing.
    argument : str
        What errors call it.
    names : sequence of str, optional
        Of the entries along the last axis. A value with names of its own is brought into their order.

    Raises
    ------
    TypeError
        If NumPy cannot read it, or reads no real numbers.
    ValueError
        If values are missing or masked, or its names are not ``names``.
    """
    try:
        array = np.asarray(value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise _unreadable(argument, error) from error
    is_real, kind = array.dtype.kind in REAL, type(value)
    if is_real and (kind is np.ndarray or (kind is list and array.ndim == 1)):
        return array
    if kind is list or kind is tuple:
        has_rows = array.ndim > 1 or array.dtype.names is not None
        if has_rows and not PLAIN.issuperset(map(type, value)):
            return np.stack([real_array(row, f"{argument}[{i}]", names) for i, row in enumerate(value)])
        if is_real:
            return array

    own = _own_names(value)
    _refuse_gaps(value, own, argument)
    if array.dtype.names is not None:
        own, array = list(array.dtype.names), _unstructured(array, argument)
    if array.dtype.kind == "O" and {dtype.kind for dtype in _pandas_dtypes(value) or [array.dtype]} <= REAL:
        array = value.to_numpy(dtype=np.float64)
    if array.dtype.kind not in REAL:
        raise TypeError(f"{argument} {_not_real(value, array, own, argument)}")
    if names is not None and own is not None and array.shape[-1:] == (len(own),):
        order = order_of(own, names, argument)
        array = array if order is None else array[..., order]
    return array


def as_samples(value: ArrayLike, name: str, size: int, names: Sequence[str] | None = None) -> Array:
    """Return `real_array` of ``value``, (..., size)."""
    array = real_array(value, name, names)
    if array.ndim == 0 or array.shape[-1] != size:
        hint = _flattened(array.shape, name, size)
        raise ValueError(f"{name} has shape {array.shape}, expected ({size},) or (..., {size}){hint}")
    return array


def order_of(own: Sequence[Any], names: Sequence[str], argument: str) -> NDArray[np.intp] | None:
    """Return where in ``own`` each of ``names`` is; None if they are there already.

    Positions 0, 1, 2, ... are no names, but what a data frame has that was given none.

    Raises
    ------
    ValueError
        If they are not the same, or one is there twice.
    """
    found = [str(name) for name in own]
    if found == list(names):
        return None
    place = {name: i for i, name in enumerate(found)}
    if len(place) == len(found) == len(names) and place.keys() == set(names):
        return np.array([place[name] for name in names])
    if list(own) == list(range(len(own))):
        return None
    twice = [name for name, count in Counter(found).items() if count > 1]
    differences = {
        "missing": [name for name in names if name not in place],
        "unexpected": [name for name in place if name not in names],
        "more than once": twice or [name for name, count in Counter(names).items() if count > 1],
    }
    text = "; ".join(f"{what}: {few(which)}" for what, which in differences.items() if which)
    raise ValueError(f"{argument} has other names than the network: {text}")


def few(names: Sequence[Any]) -> str:
    """Return the first of ``names``, and how many more there are."""
    shown = ", ".join(repr(str(name)) for name in names[:3])
    return shown if len(names) <= 3 else f"{shown} and {len(names) - 3} more"


def place(number: int, names: Sequence[str] | None) -> str:
    """Return what stands between brackets for an input or output: its name in quotes, or its number."""
    return str(number) if names is None else repr(str(names[number]))


def _own_names(value: Any) -> list[Any] | None:
    """Return what a value calls the entries along its last axis, if it says."""
    # Asked of the type: a column or a field may have any of these names.
    kind = type(value)
    if hasattr(kind, "coords") and hasattr(kind, "dims"):  # xarray
        last = value.dims[-1] if value.dims else None
        return list(value.coords[last].values) if last in value.coords else None
    for attribute in ("column_names", "columns", "index"):  # Arrow; pandas and polars; a Series of pandas
        if hasattr(kind, attribute):
            names = getattr(value, attribute)
            return list(names) if isinstance(names, Iterable) else None
    return None


def _pandas_dtypes(value: Any) -> list[Any]:
    """Return the dtype of each column of a data frame or Series of pandas; of anything else none."""
    if not hasattr(type(value), "isna"):
        return []
    return list(value.dtypes) if value.ndim > 1 else [value.dtype]


def _refuse_gaps(value: Any, own: list[Any] | None, argument: str) -> None:
    """Raise ValueError where NumPy would read masked and missing values as if they were numbers."""
    if isinstance(value, np.ndarray):
        if isinstance(value, np.ma.MaskedArray) and (np.ravel(np.ma.getmaskarray(value)).view(bool).any()):
            raise ValueError(f"{argument} has masked values: {argument}.filled() fills them")
        return
    gaps: Any = []
    nullable = [not isinstance(dtype, np.dtype) for dtype in _pandas_dtypes(value)]
    if any(nullable):  # A NaN in a column of NumPy's is a number like others.
        gaps = np.atleast_1d(np.asarray(value.isna()).any(axis=0)) & nullable
    elif hasattr(type(value), "column_names"):  # Arrow
        gaps = [column.null_count for column in value.columns]
    elif hasattr(type(value), "null_count"):  # polars: a method; a column of Arrow: a number
        count = value.null_count() if callable(value.null_count) else value.null_count
        gaps = count.row(0) if hasattr(count, "row") else [count]
    if any(gaps):
        columns = [name for name, gap in zip(own or (), gaps, strict=False) if gap] if len(gaps) > 1 else []
        where = f" in {few(columns)}" if columns else ""
        raise ValueError(f"{argument} has missing values{where}: fill them, or leave such samples out")


def _unstructured(array: Array, argument: str) -> Array:
    """Return the fields of a structured array along a new last axis."""
    from numpy.lib.recfunctions import structured_to_unstructured  # takes 10 ms to import

    assert array.dtype.fields is not None
    for name, (dtype, *_) in array.dtype.fields.items():
        if dtype.base.kind not in REAL:
            raise TypeError(f"{argument} has the field {name!r} of dtype {dtype}, expected real numbers")
    return structured_to_unstructured(array)


def _unreadable(argument: str, error: Exception) -> Exception:
    """Return what to raise where NumPy cannot make an array."""
    text = str(error)
    if type(error).__module__.partition(".")[0] == "jax":
        return TypeError(
            f"{argument} is traced by JAX, which a network cannot be: call it outside of jit, grad and vmap, "
            "or in jax.pure_callback"
        )
    if "requires grad" in text:
        return TypeError(
            f"{argument} is a tensor that requires grad, but fastjac is not differentiable through: hand in "
            f"{argument}.detach(); derivatives come from the network's jacobian, vjp and jvp"
        )
    if "ScalarType" in text:  # PyTorch on bfloat16
        text += f"; {argument}.float() can be read"
    return (ValueError if isinstance(error, ValueError) else TypeError)(
        f"{argument} is no array of numbers: {text}"
    )


def _not_real(value: Any, array: Array, own: list[Any] | None, argument: str) -> str:
    """Return what is wrong with an array that holds no real numbers, and what to do."""
    if hasattr(type(value), "toarray"):
        return f"is a sparse {type(value).__name__}, expected real numbers: hand in {argument}.toarray()"
    if type(value).__module__.partition(".")[0] == "autograd":
        return "is traced by autograd, but fastjac is not differentiable through: use the network's vjp"
    text = f"has dtype {array.dtype}, expected real numbers"
    if array.dtype.kind == "c":
        return f"{text}: take its real part, or both parts as inputs of their own"
    if array.dtype.kind in "mM":
        return f"{text}: count in a unit, as in ({argument} - start) / numpy.timedelta64(1, 's')"
    if own is not None and array.ndim == 2:
        others = [
            name
            for name, column in zip(own, array.T, strict=False)
            if not all(isinstance(entry, Real) for entry in column)
        ]
        return f"{text}: these columns hold something else: {few(others)}"
    return f"{text}: numpy.asarray({argument}, float) converts it, if that can be"


def _flattened(shape: tuple[int, ...], name: str, size: int) -> str:
    """Return what to do with samples that have more than one axis, as images have."""
    for axis in range(len(shape) - 1):
        if math.prod(shape[axis:]) == size and shape[axis] > 1:
            new = f"-1, {size}" if axis else f"{size}"
            return f": flatten each sample, as {name}.reshape({new}) does"
    return ""


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
            check_array(array, name, shape, dtype, is_written=True)
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


def check_array(
    array: Any, name: str, shape: tuple[int, ...], dtype: np.dtype[Any], is_written: bool = False
) -> None:
    """Raise TypeError or ValueError unless ``array`` is an ndarray that kernels can use where it is."""
    if not isinstance(array, np.ndarray):
        raise TypeError(f"{name} must be an ndarray, got {type(array).__name__}")
    if array.dtype != dtype:
        raise ValueError(f"{name} has dtype {array.dtype}, expected {dtype}")
    if array.shape != shape:
        raise ValueError(f"{name} has shape {array.shape}, expected {shape}")
    if is_written and not array.flags.writeable:
        raise ValueError(f"{name} is not writable")
    if not array.flags.c_contiguous:
        raise ValueError(f"{name} is not C-contiguous")
    if not array.flags.aligned:
        raise ValueError(f"{name} is not aligned")


def _kind(value: Any) -> str:
    kind = type(value).__name__
    return f"{kind} of length {len(value)}" if isinstance(value, (tuple, list)) else kind
