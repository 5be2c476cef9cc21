"""exp, expm1, log1p, sigmoid, normal, larger and quotient, as arithmetic that vectorises.

The C library's exp takes one number at a time. These are plain sums and products, without
a branch: a `@compiled` loop that calls one of them on its elements works on as many
elements at once as a vector register holds. They take and return float32 or float64.

Formulas

    (1)  exp(x)   = 2^k * (1 + q(r))
    (2)  expm1(x) = 2^k * q(r) + (2^k - 1)
         with k = round(x / ln 2), r = x - k*ln 2, q(r) = r + r^2/2! + r^3/3! + ...
    (3)  log1p(x) = 2 * (s + s^3/3 + s^5/5 + ...) with s = x / (2 + x), for 0 <= x <= 1
    (4)  normal(x) = exp(-x^2 / 2) * f(t) / (4 - x) with t = (-x - 4) / (4 - x), for x <= 0

k is whole, so 2^k costs no multiplication: its bits are k + 127 in the exponent's place
(1023 in float64). r is at most ln 2 / 2 = 0.35 away from 0 and s at most 1/3: few terms
suffice, and the terms left out are below the rounding. f, which runs from 0.4 to 2 where t
runs from 1 to -1, is a polynomial fitted for the least largest relative error, 9e-9.

Three tricks, all old:

- *Rounding by a sum.* At 1.5 * 2^23 neighbouring float32 numbers are 1 apart. Adding that
  number and taking it away again rounds to a whole number; in between, k is in the
  lowest bits of the sum.
- *ln 2 in two parts*, of which the first has so few digits that k times it is exact.
- *2^k as a product of two powers*, so that neither overflows before the result does, and
  a result below the smallest normal number is rounded once.

Reordering a sum would undo the first two: these functions allow the compiler to contract
a product and a sum, no more.

Errors are below 1.1 units in the last place for exp, 2 for expm1 and log1p, 2.5 for the
sigmoid, in both dtypes; the small tail of normal loses x^2/2 units, as x^2 does when it is
rounded. Edges: exp(-inf) = 0, exp(inf) = inf, NaN stays NaN; what is too large gives inf,
what is too small a subnormal number and then 0, as in the C library.

Source: Cody & Waite, Software Manual for the Elementary Functions (1980), chapters 4, 6.
"""

from decimal import Decimal, localcontext
from math import erfc, factorial, sqrt
from typing import Any, NamedTuple

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic, overload, register_jitable

elementary = register_jitable(fastmath={"contract"}, error_model="numpy")


FITTED = (  # f of (4); f(-1) = 2, for normal(0) = 1/2
    *(-1.26373107e-4, 1.89424714e-4, 1.57122970e-3, -3.51810186e-3, -7.52699255e-3),
    *(6.04048150e-2, -1.86523150e-1, 3.87136841e-1, -6.07896599e-1, 7.55285136e-1),
)


class Constants(NamedTuple):
    """What the formulas need, as numbers of one dtype."""

    zero: Any
    half: Any
    one: Any
    two: Any
    four: Any
    lowest: Any  # below it exp is 0, and
    highest: Any  # above it infinite
    per_ln2: Any  # 1 / ln 2
    ln2_high: Any
    ln2_low: Any
    rounder: Any  # numbers of this size are 1 apart
    factorials: tuple  # 1/n!, the highest n first, down to n = 2
    odd: tuple  # 1/n for n odd, the highest n first, down to n = 3
    f: tuple  # the polynomial of (4), the highest power first


def _constants(real, digits, spare, last_factorial, last_odd, lowest, highest):
    """Return the constants for a dtype with so many binary digits after the first."""
    with localcontext(prec=40):
        ln2 = Decimal(2).ln()
        high = round(ln2 * 2 ** (digits - spare)) / Decimal(2 ** (digits - spare))
        return Constants(
            zero=real(0),
            half=real(0.5),
            one=real(1),
            two=real(2),
            four=real(4),
            lowest=real(lowest),
            highest=real(highest),
            per_ln2=real(1 / ln2),
            ln2_high=real(high),
            ln2_low=real(ln2 - high),
            rounder=real(1.5 * 2**digits),
            factorials=tuple(real(1 / factorial(n)) for n in range(last_factorial, 1, -1)),
            odd=tuple(real(1 / n) for n in range(last_odd, 1, -2)),
            f=tuple(map(real, FITTED)),
        )


CONSTANTS = {
    "float32": _constants(np.float32, 23, 12, 7, 13, lowest=-105, highest=90),
    "float64": _constants(np.float64, 52, 20, 13, 31, lowest=-750, highest=720),
}


def constants(x: Any) -> Constants:
    """Return the constants in the dtype of x."""
    return CONSTANTS[str(x.dtype)]


@overload(constants)
def _constants_compiled(x):
    found = CONSTANTS[str(x)]
    return lambda x: found


def power(k: Any) -> Any:
    """Return 2^k for a whole k that leaves it normal."""
    return np.exp2(k)


@overload(power, jit_options={"fastmath": {"contract"}})
def _power_compiled(k):
    """Add k to the exponent of 1.0, which is 127 or 1023."""
    rounder = CONSTANTS[str(k)].rounder

    def power32(k):
        bits = np.float32(k + rounder).view(np.int32)
        return np.int32((bits << 23) + (127 << 23)).view(np.float32)

    def power64(k):
        bits = np.float64(k + rounder).view(np.int64)
        return np.int64((bits << 52) + (1023 << 52)).view(np.float64)

    return power32 if k is types.float32 else power64


@elementary
def _reduced(x):
    """Return q(r) of formulas (1) and (2), and two powers whose product is 2^k."""
    c = constants(x)
    x = c.lowest if x < c.lowest else x
    x = c.highest if x > c.highest else x
    k = (x * c.per_ln2 + c.rounder) - c.rounder
    r = x - k * c.ln2_high - k * c.ln2_low
    tail = c.factorials[0]
    for factor in c.factorials[1:]:
        tail = tail * r + factor
    half = (k * c.half + c.rounder) - c.rounder
    return tail * r * r + r, power(half), power(k - half)


@elementary
def exp(x):
    """Return formula (1), e^x.

    >>> float(exp(np.float64(0)))
    1.0
    """
    q, a, b = _reduced(x)
    return (q * a + a) * b


@elementary
def expm1(x):
    """Return formula (2), e^x - 1, with all its digits where x is near 0.

    >>> float(expm1(np.float64(1e-20)))
    1e-20
    """
    q, a, b = _reduced(x)
    return (q * a + (a - constants(x).one / b)) * b


@elementary
def log1p(x):
    """Return formula (3), log(1 + x), for x from 0 to 1, as exp of what is negative is.

    >>> float(log1p(np.float64(1e-20))), float(log1p(np.float64(1)))
    (1e-20, 0.6931471805599453)
    """
    c = constants(x)
    s = x / (c.two + x)
    square = s * s
    tail = c.odd[0]
    for factor in c.odd[1:]:
        tail = tail * square + factor
    return c.two * (tail * square * s + s)


@elementary
def sigmoid(x):
    """Return 1 / (1 + e^-x), with exp of negative numbers only: nothing overflows.

    >>> float(sigmoid(np.float64(0)))
    0.5
    """
    c = constants(x)
    small = exp(-abs(x))
    return (c.one if x > c.zero else small) / (c.one + small)


def normal(x):
    """Return formula (4), the probability that a normal number is below x, and e^(-x^2/2).

    >>> [float(value) for value in normal(np.float64(0))]
    [0.5, 1.0]
    """
    real = type(x)
    return real(erfc(-x * sqrt(0.5)) / 2), exp(real(-0.5) * x * x)


@overload(normal, jit_options={"fastmath": {"contract"}, "error_model": "numpy"})
def _normal_compiled(x):
    """The fit has the digits of float32 only: float64 asks the C library."""

    def normal32(x):
        c = constants(x)
        bell = exp(-c.half * x * x)
        share = c.one / (c.four + abs(x))
        t = c.one - c.two * c.four * share
        f = c.f[0]
        for factor in c.f[1:]:
            f = f * t + factor
        tail = bell * f * share
        return (c.one - tail if x > c.zero else tail), bell

    def normal64(x):
        c = constants(x)
        return c.half * erfc(-x * sqrt(c.half)), exp(-c.half * x * x)

    return normal32 if x is types.float32 else normal64


@elementary
def quotient(a, b):
    """Return a / b, computed where it is written.

    Loops that may reorder products make of x[k] * (a / b) a division for every k, which
    takes as long as ten products: x[k] * a / b.

    >>> quotient(1.0, 4.0)
    0.25
    """
    return a / b


@intrinsic
def larger(context, a, b):
    """Return the larger of two numbers, or NaN if one of them is.

    `b if b > a else a` would be one instruction too, but LLVM does not find the largest
    of a row with it in vector registers.
    """

    def generate(context, builder, signature, numbers):
        kind = ir.FunctionType(numbers[0].type, [number.type for number in numbers])
        maximum = builder.module.declare_intrinsic("llvm.maximum", [numbers[0].type], kind)
        return builder.call(maximum, numbers)

    return a(a, a), generate
