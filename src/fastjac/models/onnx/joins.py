"""Sums and products of two tensors, and the patterns among them that are one operation.

Exporters spell layer normalisation as a dozen nodes: the mean, the difference to it, its square, the mean of
that, a root, a quotient. A root or a quotient is no operation of fastjac, so it waits for the other parts of
the pattern. Each pattern looks at a few steps only, so that a file of many nodes takes linear time.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from fastjac.layers import Activation
from fastjac.models.onnx.values import Base, Limits, Mean, Normalise, Power, Spread
from fastjac.models.steps import Affine, Float64, Scale, Select, scale

_MOST_STEPS = 6
# To the precision of float32 constants.
_CLOSE = 1e-6
_EXPONENTS = (0.5, -0.5, -1.0)
_LARGER_THAN_0 = Limits(0.0, math.inf)


def is_step(base: Base, name: str) -> bool:
    """Return whether the last step is an activation of this name."""
    return isinstance(base.step, Activation) and base.step.name == name


class Line(NamedTuple):
    """A tensor as ``gain * core + shift``; the core may have one entry only, which is repeated."""

    gain: Float64
    shift: Float64
    core: Base
    is_spread: bool

    @property
    def factor(self) -> float:
        """The gain, if it is one number and nothing is added; NaN otherwise."""
        return float(self.gain[0]) if self.gain.size == 1 and not self.shift.any() else math.nan


def line(base: Base) -> Line:
    """Return what is left of a tensor when its last scales are taken off."""
    gain, shift, is_spread = np.ones(1), np.zeros(1), False
    for _ in range(_MOST_STEPS):
        step = base.step
        if isinstance(step, Scale):
            gain, shift = gain * step.factor, gain * step.shift + shift
        elif isinstance(step, Spread):
            is_spread = True
        else:
            break
        (base,) = base.before
    return Line(_one(gain), _one(shift), base, is_spread)


def _one(numbers: Float64) -> Float64:
    """Return one number where all are equal."""
    return numbers[:1] if np.all(numbers == numbers[0]) else numbers


def scaled(base: Base, gain: Any, shift: Any = 0.0, where: str = "") -> Base:
    """Return ``gain * base + shift``."""
    factor, offset = np.atleast_1d(gain), np.atleast_1d(shift)
    if np.all(factor == 1) and np.all(offset == 0):
        return base
    return base.then(scale(factor, offset, where), where)


def same(a: Base, b: Base) -> bool:
    """Return whether two tensors are the same, or made by the same steps without weights."""
    for _ in range(_MOST_STEPS):
        if a is b:
            return True
        is_alike = type(a.step) is type(b.step) and not isinstance(a.step, (Affine, Scale, Select))
        if not is_alike or a.step != b.step or len(a.before) != 1 or len(b.before) != 1:
            return False
        (a,), (b,) = a.before, b.before
    return False


def added(a: Base, b: Base, where: str) -> Base:
    """Return ``a + b``."""
    one, two = line(a), line(b)
    found = _difference(one, two, where) or _difference(two, one, where) or _distributed(one, two, where)
    return found or Base((a, b), "add", where)


def _difference(one: Line, two: Line, where: str) -> Base | None:
    """Return ``one + two``, if that is a pattern."""
    if one.is_spread:
        return None
    return _less(one, two, where) or _variance(one, two, where) or _log_softmax(one, two, where)


def _less(one: Line, two: Line, where: str) -> Base | None:
    """Return x less its mean or its largest entry."""
    if not math.isclose(one.factor, -two.factor, rel_tol=_CLOSE) or len(two.core.before) != 1:
        return None
    if not same(two.core.before[0], one.core):
        return None
    if isinstance(two.core.step, Mean):
        return scaled(one.core.then("centre", where), one.gain, where=where)
    if two.core.step == "largest" and one.factor == 1:
        return one.core.then("less_largest", where)
    return None


def _variance(one: Line, two: Line, where: str) -> Base | None:
    """Return the variance of x if it is spelled mean(x**2) - mean(x)**2."""
    if not (one.factor == 1 and two.factor == -1 and isinstance(one.core.step, Mean)) or two.is_spread:
        return None
    if not (is_step(one.core.before[0], "square") and is_step(two.core, "square")):
        return None
    mean = two.core.before[0]
    if not isinstance(mean.step, Mean) or not same(mean.before[0], one.core.before[0].before[0]):
        return None
    return mean.before[0].then("centre", where).then(Activation("square"), where).then(one.core.step, where)


def _log_softmax(one: Line, two: Line, where: str) -> Base | None:
    """Return x - log(sum(exp(x)))."""
    if not (one.factor == 1 and two.factor == -1 and two.core.step == "log"):
        return None
    total = line(two.core.before[0])
    if not isinstance(total.core.step, Mean) or not is_step(total.core.before[0], "exp"):
        return None
    logits = total.core.before[0].before[0]
    if total.factor != total.core.step.size or not same(logits, one.core):
        return None
    return _logits(logits).then(Activation("log_softmax"), where)


def _logits(base: Base) -> Base:
    return base.before[0] if base.step == "less_largest" else base


def _distributed(one: Line, two: Line, where: str) -> Base | None:
    """Return ``p r + q r`` as ``(p + q) r``, where r waits for its pattern."""
    if one.gain.size > 1 or two.gain.size > 1 or one.is_spread or two.is_spread:
        return None
    if one.core.step != "multiply" or two.core.step != "multiply":
        return None
    for place, r in enumerate(one.core.before):
        for other_place, other in enumerate(two.core.before):
            if r is other and isinstance(line(r).core.step, Power):
                p = scaled(one.core.before[1 - place], one.gain, where=where)
                q = scaled(two.core.before[1 - other_place], two.gain, where=where)
                parts = line(p), line(q)
                total = _difference(*parts, where) or _difference(*parts[::-1], where)
                total = total or Base((p, q), "add", where)
                return scaled(multiplied(total, r, where), 1.0, one.shift + two.shift, where)
    return None


def multiplied(a: Base, b: Base, where: str) -> Base:
    """Return ``a * b``."""
    if a is b:
        return a.then(Activation("square"), where)
    for x, other in ((a, b), (b, a)):
        found = _gated(x, other, where)
        last = line(other)
        if found is None and isinstance(last.core.step, Power) and not last.shift.any():
            found = _divided(line(x), line(last.core.before[0]), last.core.step.exponent, where)
            found = None if found is None else scaled(found, last.gain, where=where)
        if found is not None:
            return found
    return Base((a, b), "multiply", where)


def _gated(x: Base, gate: Base, where: str) -> Base | None:
    """Return the activation that x times a function of x is."""
    for name, function in (("silu", "sigmoid"), ("hard_swish", "hard_sigmoid")):
        if is_step(gate, function) and same(gate.before[0], x):
            return x.then(Activation(name), where)
    return None


def _divided(x: Line, inner: Line, exponent: float, where: str) -> Base | None:
    """Return ``x * inner ** exponent``, if that is a pattern."""
    if x.is_spread:
        return None
    if exponent == -0.5:
        return _normalised(x, inner, where)
    if exponent != -1 or inner.gain.size > 1 or inner.shift.size > 1:
        return None
    f, s, core = float(inner.gain[0]), float(inner.shift[0]), inner.core
    if (
        isinstance(core.step, Mean)
        and s == 0
        and f
        and same(core.before[0], x.core)
        and is_step(x.core, "exp")
    ):
        probabilities = _logits(x.core.before[0]).then(Activation("softmax"), where)
        share = core.step.size / f
        gain = x.gain * (1.0 if math.isclose(share, 1, rel_tol=_CLOSE) else share)
        return scaled(probabilities, gain, where=where) if not x.shift.any() else None
    return None


def _normalised(x: Line, inner: Line, where: str) -> Base | None:
    """Return ``x / sqrt(f mean(d**2) + s)`` where x is a multiple of d."""
    if inner.gain.size > 1 or inner.shift.size > 1 or x.shift.any():
        return None
    f, s, mean = float(inner.gain[0]), float(inner.shift[0]), inner.core
    if mean.step == _LARGER_THAN_0 and isinstance(mean.step, Limits):
        (mean,) = mean.before
    if not isinstance(mean.step, Mean) or not is_step(mean.before[0], "square"):
        return None
    d = line(mean.before[0].before[0])
    f *= d.factor**2
    if d.is_spread or not (f > 0 and s >= 0 and same(d.core, x.core)):
        return None
    centred = d.core.step == "centre"
    epsilon, divisor = s / f, math.sqrt(f)
    if math.isclose(divisor, 1, rel_tol=_CLOSE):
        divisor = 1.0
    of = d.core.before[0] if centred else d.core
    return scaled(of.then(Normalise(epsilon, centred), where), x.gain / divisor, where=where)


def powered(base: Base, exponent: float, where: str) -> Base:
    """Return ``base ** exponent``.

    Raises
    ------
    ValueError
        If it is no power of fastjac, and no part of one of its operations.
    """
    if isinstance(base.step, Power):
        exponent *= base.step.exponent
        (base,) = base.before
    if exponent == 1:
        return base
    if exponent == 2:
        return base.then(Activation("square"), where)
    if exponent == 3:
        return Base((base.then(Activation("square"), where), base), "multiply", where)
    if exponent not in _EXPONENTS:
        raise ValueError(f"it raises to the power {exponent:g}, expected 2, 3, 1/2, -1/2 or -1")
    inner = line(base)
    is_one = inner.gain.size == inner.shift.size == 1 and inner.gain[0] == inner.shift[0] == 1
    if exponent == -1 and is_one and is_step(inner.core, "exp"):
        return scaled(inner.core.before[0], -1.0, where=where).then(Activation("sigmoid"), where)
    return base.then(Power(exponent), where)
