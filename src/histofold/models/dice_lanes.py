"""Sixteen neighbouring float32 values as one value of Numba's: the vector instructions of a kernel, written out.

LLVM turns a plain loop into vector instructions only where it can show that what is written overlaps nothing that is
read, and it stops trying at nine streams; a pixel of a DiCE unit reads twenty-eight. Here the kernel says what is a
vector, so that a pass over the memory does all of the arithmetic of a pixel. A processor without 512-bit registers
computes the same in two or four pieces. Nothing is reordered, so the bits are the same wherever it is compiled.
"""

# Numba infers the types of what it compiles; annotations would only repeat that.
# ruff: noqa: ANN001, ANN201, ANN202
# mypy: disable-error-code="no-untyped-def, no-untyped-call, misc"

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, models, register_model

from histofold.models.dice_taps import U, inner

LANES = 16
"""Values of a vector."""

_VECTOR = ir.VectorType(ir.FloatType(), LANES)
_INDEX = ir.IntType(32)


class _Lanes(types.Type):
    """Numba's type of a vector."""

    def __init__(self) -> None:
        super().__init__(name="Lanes")


LANES_TYPE = _Lanes()


@register_model(_Lanes)
class _Model(models.PrimitiveModel):
    def __init__(self, manager: Any, kind: Any) -> None:
        super().__init__(manager, kind, _VECTOR)


def _pointer(context: Any, builder: Any, kind: Any, array: Any, index: Any) -> Any:
    data = context.make_array(kind)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [index]), _VECTOR.as_pointer())


@intrinsic
def load(typing, array, index):
    """The values array[index …], wherever in memory they begin; the index is not tested."""

    def code(context, builder, signature, arguments):
        value = builder.load(_pointer(context, builder, signature.args[0], *arguments))
        value.align = 4
        return value

    return LANES_TYPE(array, types.intp), code


@intrinsic
def store(typing, array, index, value):
    """Write the values to array[index …]."""

    def code(context, builder, signature, arguments):
        at = _pointer(context, builder, signature.args[0], *arguments[:2])
        builder.store(arguments[2], at).align = 4
        return context.get_dummy_value()

    return types.void(array, types.intp, value), code


@intrinsic
def splat(typing, value):
    """The same float32 in every place."""

    def code(context, builder, signature, arguments):
        empty = ir.Constant(_VECTOR, ir.Undefined)
        first = builder.insert_element(empty, arguments[0], _INDEX(0))
        return builder.shuffle_vector(first, empty, ir.Constant(ir.VectorType(_INDEX, LANES), [0] * LANES))

    return LANES_TYPE(types.float32), code


@intrinsic
def fma(typing, a, b, c):
    """a · b + c, rounded once where the processor can."""

    def code(context, builder, signature, arguments):
        kind = ir.FunctionType(_VECTOR, [_VECTOR] * 3)
        function = cgutils.get_or_insert_function(builder.module, kind, f"llvm.fmuladd.v{LANES}f32")
        return builder.call(function, arguments)

    return LANES_TYPE(LANES_TYPE, LANES_TYPE, LANES_TYPE), code


@intrinsic
def mul(typing, a, b):
    """a · b."""

    def code(context, builder, signature, arguments):
        return builder.fmul(*arguments)

    return LANES_TYPE(LANES_TYPE, LANES_TYPE), code


@intrinsic
def add(typing, a, b):
    """a + b."""

    def code(context, builder, signature, arguments):
        return builder.fadd(*arguments)

    return LANES_TYPE(LANES_TYPE, LANES_TYPE), code


@intrinsic
def larger(typing, a, b):
    """The larger of a and b, value by value; b where one is not a number."""

    def code(context, builder, signature, arguments):
        return builder.select(builder.fcmp_ordered(">", *arguments), *arguments)

    return LANES_TYPE(LANES_TYPE, LANES_TYPE), code


@intrinsic
def maximum(typing, a, b):
    """The larger of a and b, value by value; not a number where one is none."""

    def code(context, builder, signature, arguments):
        kind = ir.FunctionType(_VECTOR, [_VECTOR] * 2)
        function = cgutils.get_or_insert_function(builder.module, kind, f"llvm.maximum.v{LANES}f32")
        return builder.call(function, arguments)

    return LANES_TYPE(LANES_TYPE, LANES_TYPE), code


@intrinsic
def kept(typing, a, n):
    """The first n values, zeros behind them."""

    def code(context, builder, signature, arguments):
        places = ir.Constant(ir.VectorType(_INDEX, LANES), list(range(LANES)))
        count = builder.insert_element(
            ir.Constant(places.type, ir.Undefined), builder.trunc(arguments[1], _INDEX), _INDEX(0)
        )
        everywhere = builder.shuffle_vector(count, count, ir.Constant(places.type, [0] * LANES))
        inside = builder.icmp_signed("<", places, everywhere)
        return builder.select(inside, arguments[0], ir.Constant(_VECTOR, [0.0] * LANES))

    return LANES_TYPE(LANES_TYPE, types.intp), code


@intrinsic
def total(typing, a):
    """The sum of the sixteen values, from the first to the last."""

    def code(context, builder, signature, arguments):
        parts = [builder.extract_element(arguments[0], _INDEX(lane)) for lane in range(LANES)]
        result = parts[0]
        for part in parts[1:]:
            result = builder.fadd(result, part)
        return result

    return types.float32(LANES_TYPE), code


@intrinsic
def evens(typing, a, b):
    """The values at even places of a and b behind one another."""
    return LANES_TYPE(LANES_TYPE, LANES_TYPE), _shuffle(range(0, 2 * LANES, 2))


@intrinsic
def odds(typing, a, b):
    """The values at odd places of a and b behind one another."""
    return LANES_TYPE(LANES_TYPE, LANES_TYPE), _shuffle(range(1, 2 * LANES, 2))


@intrinsic
def zip_low(typing, a, b):
    """The first half of a and of b, value beside value."""
    return LANES_TYPE(LANES_TYPE, LANES_TYPE), _shuffle(i // 2 + i % 2 * LANES for i in range(LANES))


@intrinsic
def zip_high(typing, a, b):
    """The second half of a and of b, value beside value."""
    half = LANES // 2
    return LANES_TYPE(LANES_TYPE, LANES_TYPE), _shuffle(half + i // 2 + i % 2 * LANES for i in range(LANES))


def _shuffle(places: Any) -> Any:
    """Code that picks places out of two vectors behind one another."""
    mask = ir.Constant(ir.VectorType(_INDEX, LANES), list(places))

    def code(context, builder, signature, arguments):
        return builder.shuffle_vector(*arguments, mask)

    return code


def whole(n: int) -> int:
    """The next multiple of a vector's length."""
    return -(-n // LANES) * LANES


@inner
def aligned(n):
    """Memory for n values that begins where a line of the cache begins."""
    buffer = np.empty(n + LANES, np.float32)
    first = (-(buffer.ctypes.data // 4)) % LANES
    return buffer[first : first + n]


@inner
def carry(to, o, source, i, n):
    """Copy n values."""
    full = n // LANES * LANES
    for w in range(0, full, LANES):
        store(to, o + w, load(source, i + w))
    for w in range(full, n):
        to[U(o + w)] = source[U(i + w)]
