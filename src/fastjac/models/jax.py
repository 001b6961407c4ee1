"""Networks from JAX functions, read through their jaxprs; JAX is imported when one arrives."""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from fastjac import graph
from fastjac.graph.values import Value, ordered
from fastjac.models import recognise
from fastjac.models.folding import of_value
from fastjac.models.jax_primitives import MOVES, PRIMITIVES
from fastjac.models.tensors import Tensor, concatenated, moved, tensor
from fastjac.network import Network

# Primitives that only call what is in them.
_CALLS = (
    *("jit", "pjit", "closed_call", "core_call", "remat", "remat2", "checkpoint", "custom_lin"),
    *("custom_jvp_call", "custom_vjp_call", "custom_vjp_call_jaxpr"),
)
_PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def from_jax(function: Callable[[Any], Any], n_inputs: int) -> Network:
    """Return the network that a JAX function computes.

    Parameters
    ----------
    function : callable
        From one array (n_inputs,) to one array. Modules of Equinox are such functions; those of Flax and
        Haiku become one with their parameters: ``lambda x: module.apply(params, x)``.
    n_inputs : int
        How many numbers it takes.

    Returns
    -------
    Network
        Its output is flattened. It is in float64 if any of the function's arrays is, or if there are none
        and JAX computes in float64; else in float32.

    Raises
    ------
    TypeError
        If ``function`` is not callable.
    ValueError
        If it computes something that fastjac has not; the message names the primitive and the line.

    Notes
    -----
    Activations, softmax and normalisations are recognised by what they compute. At the end the network is
    compared with the function and its derivatives at three points.
    """
    import jax

    if not callable(function):
        raise TypeError(f"function must be callable, got {type(function).__name__}")
    if isinstance(n_inputs, bool) or not isinstance(n_inputs, (int, np.integer)):
        raise TypeError(f"n_inputs must be an integer, got {type(n_inputs).__name__}")
    source = graph.input(int(n_inputs))
    closed = _jaxpr(function, n_inputs, jax.numpy.zeros(0).dtype)
    if len(closed.jaxpr.outvars) != 1:
        raise ValueError(f"function returns {len(closed.jaxpr.outvars)} arrays, expected one")
    (result,) = _followed(closed.jaxpr, closed.consts, [tensor(source)])
    if not isinstance(result, Tensor):
        raise ValueError("function returns what does not depend on its input")
    value = recognise.resolved(result.flat)
    own = closed.in_avals[0].dtype
    _check(value, function, own)
    kinds = [array.dtype for array in _arrays(closed) if jax.numpy.issubdtype(array.dtype, np.floating)]
    return of_value(value, np.float64 if np.float64 in (kinds or [own]) else np.float32)


def _arrays(closed: Any) -> Iterator[Any]:
    """Yield the arrays of a jaxpr and of those in it."""
    yield from closed.consts
    for equation in closed.jaxpr.eqns:
        for inner in equation.params.values():
            if hasattr(inner, "consts"):
                yield from _arrays(inner)


def _check(value: Value, function: Callable[[Any], Any], dtype: Any) -> None:
    """Raise ValueError unless a function has the values and derivatives of ``value`` at three points."""
    import jax

    random = np.random.default_rng(0)
    samples = random.normal(size=(3, next(each for each in ordered(value) if not each.inputs).size))
    found = [jax.vjp(function, sample.astype(dtype)) for sample in samples]
    v = [random.normal(size=y.shape) for y, _ in found]
    v_jac = [pull(each.astype(y.dtype))[0] for (y, pull), each in zip(found, v, strict=True)]
    y = [each for each, _ in found]
    flat = [np.array([np.ravel(np.asarray(each, np.float64)) for each in part]) for part in (y, v, v_jac)]
    if not recognise.check(value, samples.astype(dtype).astype(np.float64), *flat):
        raise ValueError("function has derivatives of its own, which are not those of what it computes")


def _jaxpr(function: Callable[[Any], Any], n_inputs: int, dtype: Any) -> Any:
    """Return what a function does with a vector."""
    import jax

    try:
        return jax.make_jaxpr(function)(jax.ShapeDtypeStruct((n_inputs,), dtype))
    except (jax.errors.ConcretizationTypeError, jax.errors.TracerArrayConversionError) as error:
        # The way through the code depends on numbers: only JAX's own text tells more.
        where = _line(
            (frame.filename, frame.lineno or 0)
            for frame in reversed(traceback.extract_tb(error.__traceback__))
        )
        raise ValueError(
            f"function{where}: it takes another way for other inputs, or leaves JAX; jax.numpy.where and the "
            "functions of jax.numpy can be read"
        ) from error
    except Exception as error:
        text = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ValueError(f"function cannot compute a vector of {n_inputs} numbers: {text}") from error


def _line(frames: Iterable[tuple[str, int]]) -> str:
    """Return the user's line among stack frames, the innermost first."""
    import jax

    others = (os.path.dirname(jax.__file__), _PACKAGE, "<")
    found = [(file, line) for file, line in frames if not file.startswith(others)]
    own = [(file, line) for file, line in found if "-packages" not in file] or found
    return f", {os.path.basename(own[0][0])} line {own[0][1]}" if own else ""


def _where(equation: Any) -> str:
    trace = equation.source_info.traceback
    frames = [] if trace is None else trace.frames
    return f"{equation.primitive.name}{_line((frame.file_name, frame.line_num) for frame in frames)}"


def _followed(jaxpr: Any, constants: Sequence[Any], inputs: Sequence[Any]) -> list[Any]:
    """Return what a jaxpr computes from its inputs: tensors, and arrays where they depend on none."""
    known = dict(zip(jaxpr.constvars, constants, strict=True)) | dict(zip(jaxpr.invars, inputs, strict=True))

    def read(atom: Any) -> Any:
        return atom.val if hasattr(atom, "val") else known[atom]

    for equation in jaxpr.eqns:
        operands = [read(atom) for atom in equation.invars]
        results = _applied(equation, operands)
        known.update(zip(equation.outvars, results, strict=True))
    return [read(atom) for atom in jaxpr.outvars]


def _applied(equation: Any, operands: list[Any]) -> list[Any]:
    name, params = equation.primitive.name, equation.params
    if name in _CALLS:
        inner = next(params[key] for key in ("jaxpr", "call_jaxpr", "fun_jaxpr") if key in params)
        return _followed(getattr(inner, "jaxpr", inner), getattr(inner, "consts", ()), operands)
    if name == "cond" and not isinstance(operands[0], Tensor):
        branch = params["branches"][int(operands[0])]
        return _followed(branch.jaxpr, branch.consts, operands[1:])
    if not any(isinstance(each, Tensor) for each in operands):
        return _listed(equation, equation.primitive.bind(*operands, **params))
    where = _where(equation)
    try:
        if name in MOVES:
            return _moved(equation, operands, MOVES[name])
        if name not in PRIMITIVES:
            raise ValueError("fastjac has no such operation")
        return [PRIMITIVES[name](where, params, *operands)]
    except ValueError as error:
        text = str(error).removeprefix(where).removeprefix(":").strip()
        raise ValueError(f"{where}: {text}") from None


def _listed(equation: Any, results: Any) -> list[Any]:
    return list(results) if equation.primitive.multiple_results else [results]


def _moved(equation: Any, operands: list[Any], movable: Callable[[int], bool]) -> list[Any]:
    """Return the results of a primitive that only moves entries: it moves their places."""
    params = dict(equation.params)
    if params.get("update_jaxpr") is not None:
        raise ValueError("it does more than to overwrite entries")
    if "fill_value" in params:
        params["fill_value"] = -1
    which = [place for place in range(len(operands)) if movable(place)]
    if any(isinstance(each, Tensor) for place, each in enumerate(operands) if place not in which):
        raise ValueError("its index depends on the input")
    flat = [moved(operands[place], np.ravel) for place in which]
    whole = concatenated(flat, 0)
    arguments: list[Any] = list(operands)
    ends = np.cumsum([each.shape[0] for each in flat])
    parts = np.split(whole.places.astype(np.int32), ends[:-1])
    for place, part in zip(which, parts, strict=True):
        arguments[place] = part.reshape(np.shape(getattr(operands[place], "places", operands[place])))
    places = [
        np.asarray(each, np.intp) for each in _listed(equation, equation.primitive.bind(*arguments, **params))
    ]
    if any(np.any(each < 0) for each in places):
        raise ValueError("its index is out of bounds")
    return [Tensor(whole.value, each) for each in places]
