"""The functions of one number that activations and heads consist of; loops over them are vectorised.

They have no branches: a polynomial on a reduced argument, and selects. They
compute in the format of the number, gelu in float64. Errors are at most 1.1 units in the last place for
`exp`, 2 for `log1p`, 6 for `normal_tail`.
"""

# Compiled code carries no annotations: numba's types come from the arguments.
# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator"

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numba import njit, types
from numba.extending import overload

from fastjac.kernels.linking import INNER
from fastjac.kernels.llvm.intrinsics import from_bits, larger, polynomial, smaller, to_bits

NO_REST = -0.0  # LLVM knows that adding it changes nothing; adding 0.0 makes 0.0 of -0.0.
_SQRT_HALF = math.sqrt(0.5)
_DENSITY = 1 / math.sqrt(2 * math.pi)
# gelu_tanh is z times the sigmoid of ``z (linear + cubic z**2)``.
LINEAR, _LINEAR_REST = 1.5957691216057308, -9.96930880911092e-17
CUBIC, _CUBIC_REST = 0.07135481627260025, -6.175149918155315e-19
# Half of pi in three parts; the first two are short enough for products with numbers up to 1e5 to be exact.
_HALF_PI = 1.57079632673412561417, 6.07710050630396597660e-11, 2.02226624879595063154e-21
MOST_REDUCED = 1e5
# Of `normal_tail`, from the highest power on.
_TAIL = (
    -2.764120233734578e-10,
    9.297625263709659e-10,
    3.2323973445082033e-09,
    -1.2338731403798444e-08,
    -2.0725802488181963e-08,
    1.0631817593818149e-07,
    7.771943241086912e-08,
    -8.210647933297337e-07,
    2.9173425573089733e-07,
    5.70657829924074e-06,
    -1.1221135665965907e-05,
    -2.4397731143023292e-05,
    0.00015062142608651945,
    -0.0001992571524726518,
    -0.0007577732435942576,
    0.005031970069102256,
    -0.01619773406293477,
    0.037167515526338006,
    -0.06633036581186058,
    0.09373283499911264,
    -0.10103906603631811,
    0.06809705425466839,
    0.015379652102619974,
    -0.13962111684056228,
    1.2329951186255526,
)

# A call in a loop's body would keep it scalar.
inlined = njit(error_model="numpy", fastmath={"contract"}, forceinline=True, **INNER)


class _GeluTanh(NamedTuple):
    """The constants of gelu_tanh. Products of upper bits are exact, and so is their sum."""

    end: Any  # its slope is 0 or 1 from here on
    shifter: Any  # adding it rounds to a number of few bits
    linear: Any  # upper bits, and the rest
    linear_rest: Any
    cubic: Any
    cubic_rest: Any


class _Format(NamedTuple):
    """The constants of one floating-point format, all of that format or the integer of its size."""

    zero: Any
    one: Any
    two: Any
    lowest: Any  # exp is 0 from here down, also times any number below 1e4
    highest: Any  # and infinite from here up.
    shifter: Any  # 1.5 * 2**mantissa: adding it rounds to an integer, left in the low bits
    per_ln2: Any
    ln2: Any
    sqrt2m1: Any  # sqrt(2) - 1
    ln2_high: Any  # short enough for an exponent times it to be exact
    ln2_low: Any
    mantissa: Any
    bias: Any
    exp: Any  # 1 / n! for n from the last term to 2
    atanh: Any  # 1 / n for odd n from the last term to 3
    upper: Any  # the mask of the upper half of a number's bits
    sin: Any  # coefficients of x**3, x**5, ... from the last term on
    cos: Any  # of x**4, x**6, ...
    softsign_end: Any  # the slope of softsign is 0 from here on
    gelu_tanh: _GeluTanh


def _format(
    real: Any,
    integer: Any,
    ln2_high: float,
    ln2_low: float,
    terms: int,
    odd: int,
    sin: tuple[float, ...],
    cos: tuple[float, ...],
    end: float,
    places: int,
    more: int,
) -> _Format:
    info = np.finfo(real)
    # Of numbers with ``places`` binary places, cubes have three times as many.
    linear = round(LINEAR * 2 ** (2 * places + more)) / 2 ** (2 * places + more)
    cubic = round(CUBIC * 2**more) / 2**more
    return _Format(
        zero=real(0),
        one=real(1),
        two=real(2),
        lowest=real(math.log(info.smallest_subnormal) - 20),
        highest=real(math.log(info.max) + 1),
        shifter=real(1.5 * 2**info.nmant),
        per_ln2=real(1 / math.log(2)),
        ln2=real(math.log(2)),
        sqrt2m1=real(math.sqrt(2) - 1),
        ln2_high=real(ln2_high),
        ln2_low=real(ln2_low),
        mantissa=integer(info.nmant),
        bias=integer(info.maxexp - 1),
        exp=tuple(real(1 / math.factorial(n)) for n in range(terms, 1, -1)),
        atanh=tuple(real(1 / n) for n in range(odd, 1, -2)),
        upper=integer(-(2 ** ((info.nmant + 2) // 2))),
        sin=tuple(real(c) for c in sin),
        cos=tuple(real(c) for c in cos),
        softsign_end=real(2.0 ** (3 * info.maxexp // 4)),
        gelu_tanh=_GeluTanh(
            end=real(end),
            shifter=real(1.5 * 2 ** (info.nmant - places)),
            linear=real(linear),
            linear_rest=real(LINEAR - linear + _LINEAR_REST),
            cubic=real(cubic),
            cubic_rest=real(CUBIC - cubic + _CUBIC_REST),
        ),
    )


# The minimax polynomials of sine and cosine for abs(x) <= pi / 4 are those of Sun's fdlibm in double, of
# Moshier's Cephes in single.
_DOUBLE = _format(
    np.float64,
    np.int64,
    6.93147180369123816490e-01,
    1.90821492927058770002e-10,
    13,
    21,
    (
        1.58969099521155010221e-10,
        -2.50507602534068634195e-08,
        2.75573137070700676789e-06,
        -1.98412698298579493134e-04,
        8.33333333332248946124e-03,
        -1.66666666666666324348e-01,
    ),
    (
        -1.13596475577881948265e-11,
        2.08757232129817482790e-09,
        -2.75573143513906633035e-07,
        2.48015872894767294178e-05,
        -1.38888888888741095749e-03,
        4.16666666666666019037e-02,
    ),
    23.0,
    6,
    25,
)
_SINGLE = _format(
    np.float32,
    np.int32,
    0.693145751953125,
    1.42860682030941723212e-06,
    7,
    11,
    (-1.9515295891e-4, 8.3321608736e-3, -1.6666654611e-1),
    (2.443315711809948e-5, -1.388731625493765e-3, 4.166664568298827e-2),
    11.0,
    2,
    11,
)


def format_of(x: Any) -> _Format:
    """Return the constants of a number's format, also in compiled code."""
    return _DOUBLE if x.itemsize == 8 else _SINGLE


@overload(format_of, jit_options=INNER)
def _overload_format_of(x):
    constants = _DOUBLE if x == types.float64 else _SINGLE
    return lambda x: constants


@inlined
def exp_parts(x, rest):
    """Return ``expm1(r)``, ``2**a`` and ``2**b`` with ``exp(x + rest) = (1 + expm1(r)) * 2**a * 2**b``.

    ``x`` is between the lowest and the highest of its format or a little beyond, or NaN, which becomes r.
    ``rest`` is a small part of the exponent that ``x`` has no digits for, NO_REST if there is none.
    """
    f = format_of(x)
    shifted = (x + rest) * f.per_ln2 + f.shifter
    n = shifted - f.shifter
    r = (x - n * f.ln2_high) - n * f.ln2_low + rest
    p = polynomial(f.exp, r) * r * r + r  # Taylor's series on |r| <= ln(2) / 2
    exponent = to_bits(shifted) - to_bits(f.shifter)
    half = exponent >> 1
    return p, _power(half, f), _power(exponent - half, f)


@inlined
def _power(exponent, f):
    """Return ``2**exponent``."""
    return from_bits(type(f.bias)((exponent + f.bias) << f.mantissa))


@inlined
def exp(x):
    """Return ``e**x``; NaN for NaN."""
    f = format_of(x)
    p, a, b = exp_parts(smaller(larger(x, f.lowest), f.highest), type(x)(NO_REST))
    return (p * a + a) * b


@inlined
def decay_parts(z):
    """Return ``x = -abs(z)``, not below the lowest of its format, and the parts of ``exp(x)``.

    These are a normal number, and a power of 2 to multiply it with.
    """
    x = larger(-abs(z), format_of(z).lowest)
    p, a, b = exp_parts(x, type(z)(NO_REST))
    return x, p * a + a, b


@inlined
def decay(z):
    """Return ``exp(-abs(z))``."""
    _, low, high = decay_parts(z)
    return low * high


@inlined
def log1p(e):
    """Return ``log(1 + e)`` for 0 <= e <= 1, by the series of the inverse hyperbolic tangent."""
    f = format_of(e)
    large = e > f.sqrt2m1
    s = (e - f.one) / (e + (f.two + f.one)) if large else e / (e + f.two)
    q = s * s
    result = f.two * (s + s * q * polynomial(f.atanh, q))
    return f.ln2 + result if large else result


@inlined
def normal_tail(y):
    """Return ``P(Z > y)`` and the density at ``y`` of a standard normal Z, for 0 <= y <= 40.

    Both are without their common factor, a power of 2 that follows.

    ``(1 + 2 x) exp(x**2) erfc(x)`` is a Chebyshev series in ``(x - 4) / (x + 4)`` (Shepherd and
    Laframboise, Mathematics of Computation 36, 1981), here of degree 24, error 1e-17.
    """
    x = y * _SQRT_HALF
    t = (x - 4.0) / (x + 4.0)
    p = polynomial(_TAIL, t)
    # exp(-y**2 / 2) from the upper bits of y, whose square is exact, and the small rest.
    upper = from_bits(to_bits(y) & -134217728)
    rest = 0.5 * (y - upper) * (y + upper)
    q, low, high = exp_parts(-0.5 * upper * upper, -rest)
    e = q * low + low
    return 0.5 * e * p / (1.0 + 2.0 * x), e * _DENSITY, high


@inlined
def gelu_tanh_argument(y):
    """Return two numbers whose sum is ``y (linear + cubic y**2)``, for 0 <= y <= its end."""
    g = format_of(y).gelu_tanh
    upper = (y + g.shifter) - g.shifter
    lower, square = y - upper, upper * upper
    exact = g.linear * upper + g.cubic * (square * upper)
    # y**3 - upper**3 is lower times the parenthesis behind the constant.
    rest = lower * (g.linear + g.cubic * (y * y + (upper * y + square)))
    return exact, rest + y * (g.linear_rest + g.cubic_rest * (y * y))


@inlined
def quotient(x, divisor, inverse):
    """Return ``x / divisor``, and what rounding has lost."""
    f = format_of(x)
    q = x * inverse
    high = from_bits(type(f.upper)(to_bits(q) & f.upper))
    divisor_high = from_bits(type(f.upper)(to_bits(divisor) & f.upper))
    low, divisor_low = q - high, divisor - divisor_high
    left = ((x - high * divisor_high) - high * divisor_low) - low * divisor_high - low * divisor_low
    return q, left * inverse


@inlined
def sine(z, quarters):
    """Return ``sin(z + quarters * pi / 2)`` and its derivative for abs(z) <= 1e5."""
    f = format_of(z)
    wide = np.float64(z)
    shifted = wide * (2 / math.pi) + _DOUBLE.shifter
    n = shifted - _DOUBLE.shifter
    x = type(z)(((wide - n * _HALF_PI[0]) - n * _HALF_PI[1]) - n * _HALF_PI[2])
    q = x * x
    sine = polynomial(f.sin, q) * q * x + x
    cosine = f.one - (q / f.two - polynomial(f.cos, q) * q * q)
    turns = to_bits(shifted) + quarters
    value, slope = (cosine, sine) if turns & 1 else (sine, cosine)
    return (-value if turns & 2 else value), (-slope if (turns + 1) & 2 else slope)


@njit(error_model="numpy", fastmath={"contract"}, **INNER)
def exponentials(z, size, best, top, out):
    """Write ``exp(z - top)`` for the first ``size`` of whole vectors, but 0 for the best, and 0 behind."""
    for i in range(z.size):
        out[i] = exp(z[i] - top) if i < size and i != best else 0.0
