"""Activations that exporters spell out: x * sigmoid(x), x * (1 + erf(x / sqrt(2))) / 2 and their kin.

The output of elementwise nodes is a polynomial in their input x, whose terms may have one factor f(p(x)).
Each activation has one such polynomial, in whatever order an exporter writes its nodes.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from fastjac.layers import Activation
from fastjac.models.steps import Step, scale


class Factor(NamedTuple):
    """``function`` of a polynomial in x without factors, which is given as ((power, coefficient), ...)."""

    function: str
    argument: tuple[tuple[int, float], ...]


# (power of x, factor) -> coefficient.
Terms = dict[tuple[int, Factor | None], float]


class Above(NamedTuple):
    """The condition ``terms > limit``."""

    terms: Terms
    limit: float


X: Terms = {(1, None): 1.0}
COMPLEMENT: Terms = {(0, None): 1.0, (1, None): -1.0}
# Operator -> the activation that it is; the error function is none.
FUNCTIONS = {
    "Abs": "abs",
    "Cos": "cos",
    "Erf": "",
    "Exp": "exp",
    "HardSigmoid": "hard_sigmoid",
    "HardSwish": "hard_swish",
    "Mish": "mish",
    "Sigmoid": "sigmoid",
    "Sin": "sin",
    "Softplus": "softplus",
    "Softsign": "softsign",
    "Tanh": "tanh",
}
_TANH_OF_SOFTPLUS = "tanh of softplus"
# Function -> the activation that is x times it.
_GATED = {"Sigmoid": "silu", "HardSigmoid": "hard_swish", _TANH_OF_SOFTPLUS: "mish"}
_MOST_TERMS = 8
_GELU_TANH = math.sqrt(2 / math.pi)
_NOTHING_KNOWN = "it is part of no activation that fastjac has"


def combine(op: str, inputs: list[Any]) -> Any:
    """Return the terms of a node's output; inputs are terms, conditions or floats.

    Raises
    ------
    ValueError
        If it is not one of the operations that activations are spelled with.
    """
    if op == "Where" and len(inputs) == 3:
        return _where(*inputs)
    terms: list[Terms] = [{(0, None): value} if isinstance(value, float) else value for value in inputs]
    if any(isinstance(term, Above) for term in inputs):
        raise ValueError(_NOTHING_KNOWN)
    if op == "Tanh" and is_softplus(terms[0]):
        ((_, factor),) = terms[0]
        assert factor is not None
        return {(0, factor._replace(function=_TANH_OF_SOFTPLUS)): 1.0}
    if op in FUNCTIONS and len(terms) == 1:
        return {(0, Factor(op, _polynomial(terms[0]))): 1.0}
    if op == "Identity" or op == "Cast":
        return terms[0]
    if op == "Neg":
        return _times(terms[0], -1.0)
    if len(terms) == 2:
        a, b = terms
        if op == "Div" and isinstance(inputs[0], float):
            raise ValueError("it divides by the input")
        if op == "Add" or op == "Sub":
            return _plus(a, _times(b, -1.0 if op == "Sub" else 1.0))
        if op == "Mul":
            return _product(a, b)
        if op == "Div" and not isinstance(inputs[1], float):
            return _softsign(a, b)
        if isinstance(inputs[1], float):
            if op == "Div" and inputs[1]:
                return _times(a, 1 / inputs[1])
            if op == "Pow" and inputs[1] in (2.0, 3.0):
                return _product(a, a) if inputs[1] == 2 else _product(a, _product(a, a))
            if op == "Greater":
                return Above(a, inputs[1])
    raise ValueError(_NOTHING_KNOWN)


def has_factors(terms: Terms | Above) -> bool:
    """Return whether terms are more than a polynomial."""
    return not isinstance(terms, Above) and any(factor for _, factor in terms)


def is_softplus(terms: Terms | Above) -> bool:
    """Return whether terms are the softplus of a multiple of x."""
    if isinstance(terms, Above) or list(terms.values()) != [1.0]:
        return False
    ((power, factor),) = terms
    return power == 0 and factor is not None and factor.function == "Softplus" and len(factor.argument) == 1


def _softsign(a: Terms, b: Terms) -> Terms:
    """Return ``x / (1 + abs(x))`` and its multiples."""
    factor = next((factor for _, factor in b if factor), None)
    if (
        factor
        and factor.function == "Abs"
        and a.keys() == {(1, None)}
        and b.keys() == {(0, None), (0, factor)}
    ):
        stretch = b[0, factor] * abs(dict(factor.argument).get(1, 0.0))
        if len(factor.argument) == 1 and stretch > 0 and b[0, None] > 0:
            argument = ((1, stretch / b[0, None]),)
            return {(0, Factor("Softsign", argument)): a[1, None] / stretch}
    raise ValueError(_NOTHING_KNOWN)


def _plus(a: Terms, b: Terms) -> Terms:
    total = {key: a.get(key, 0.0) + b.get(key, 0.0) for key in (*a, *b)}
    if len(total) > _MOST_TERMS:
        raise ValueError(_NOTHING_KNOWN)
    return {key: value for key, value in total.items() if value}


def _times(a: Terms, number: float) -> Terms:
    return {key: value * number for key, value in a.items()}


def _product(a: Terms, b: Terms) -> Terms:
    total: Terms = {}
    for (power, factor), value in a.items():
        for (other_power, other_factor), other in b.items():
            if (factor and other_factor) or power + other_power > 3:
                raise ValueError(_NOTHING_KNOWN)
            total = _plus(total, {(power + other_power, factor or other_factor): value * other})
    return total


def _polynomial(a: Terms) -> tuple[tuple[int, float], ...]:
    if any(factor for _, factor in a):
        raise ValueError(_NOTHING_KNOWN)
    return tuple(sorted((power, value) for (power, _), value in a.items()))


def _where(condition: Any, above: Any, below: Any) -> Terms:
    """Return ``below`` for PyTorch's softplus, which is x itself where ``beta x > threshold``."""
    is_terms = isinstance(below, dict) and isinstance(above, dict)
    if is_terms and isinstance(condition, Above) and len(below) == 1:
        ((power, factor), value), *_ = below.items()
        if factor and power == 0 and factor.function == "Softplus" and condition.limit >= 20:
            ((degree, beta),) = factor.argument if len(factor.argument) == 1 else ((0, 0.0),)
            straight = _close(condition.terms, {(1, None): beta}) and _close(above, {(1, None): beta * value})
            if degree == 1 and straight:
                return dict(below)
    raise ValueError(_NOTHING_KNOWN)


def _close(a: Terms, b: Terms) -> bool:
    """Return whether terms agree to the precision of float32 constants."""
    return a.keys() == b.keys() and all(math.isclose(a[key], b[key], rel_tol=1e-6) for key in a)


def activation_steps(terms: Terms | Above, where: str) -> list[Step]:
    """Return the steps that compute ``terms`` of x.

    Raises
    ------
    ValueError
        If they are neither affine nor a multiple of one of our activations.
    """
    if isinstance(terms, Above):
        raise ValueError(_NOTHING_KNOWN)
    if set(terms) <= {(0, None), (1, None)}:
        return _line(terms.get((1, None), 0.0), terms.get((0, None), 0.0), where)
    factors = {factor for _, factor in terms if factor}
    if len(factors) == 1:
        (factor,) = factors
        argument = dict(factor.argument)
        slope, cubic = argument.get(1, 0.0), argument.get(3, 0.0)
        gated = {(1, None), (1, factor)}  # c x + c x f, as in both spellings of gelu
        twice = 2 * terms.get((1, factor), 0.0)
        if terms.keys() == gated and _close(terms, dict.fromkeys(gated, twice / 2)):
            if factor.function == "Erf" and argument.keys() == {1}:
                return _scaled("gelu", slope * math.sqrt(2), twice, where)
            if factor.function == "Tanh" and argument.keys() == {1, 3}:
                stretch = slope / _GELU_TANH
                if math.isclose(cubic, 0.044715 * _GELU_TANH * stretch**3, rel_tol=1e-6):
                    return _scaled("gelu_tanh", stretch, twice, where)
        if factor.function in _GATED and argument.keys() == {1} and terms.keys() == {(1, factor)}:
            return _scaled(_GATED[factor.function], slope, terms[1, factor], where)
        if factor.function == "Softplus" and argument.keys() == {1} and terms.keys() == {(0, factor)}:
            return _scaled("softplus", slope, terms[0, factor] * slope, where)
        names = ["softplus", "tanh"] if factor.function == _TANH_OF_SOFTPLUS else [FUNCTIONS[factor.function]]
        if all(names) and argument.keys() <= {0, 1} and terms.keys() <= {(0, None), (0, factor)}:
            return [
                *_line(slope, argument.get(0, 0.0), where),
                *map(Activation, names),
                *_line(terms[0, factor], terms.get((0, None), 0.0), where),
            ]
    raise ValueError(_NOTHING_KNOWN)


def _line(slope: float, shift: float, where: str) -> list[Step]:
    return [] if (slope, shift) == (1, 0) else [scale(slope, shift, where)]


def _scaled(name: str, stretch: float, gain: float, where: str) -> list[Step]:
    """Return the steps of ``gain / stretch * f(stretch * x)``; a float32 constant that should be 1 is 1."""
    if math.isclose(stretch, 1, rel_tol=1e-6):
        stretch = 1.0
    after = gain / stretch
    if math.isclose(after, 1, rel_tol=1e-6):
        after = 1.0
    return [*_line(stretch, 0.0, where), Activation(name), *_line(after, 0.0, where)]
