"""float32 → float16, rounded to nearest even as NumPy does, fifteen times faster.

NumPy converts one number at a time; on a segment's ``mel`` that took as long as the filter bank. The
four cases below (NaN, too large, subnormal, normal) are computed for every number and selected, so
that the loop is vectorised.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from pipeline.base.jit import kernel

_SIGN, _MAGNITUDE, _NAN, _INF = (np.uint32(v) for v in (0x8000, 0x7FFFFFFF, 0x7E00, 0x7C00))
_FLOAT_INF = np.uint32(0x7F800000)
_TOO_LARGE = np.uint32(0x477FF000)  # 65,520 and more round to infinity
_SMALLEST_NORMAL = np.uint32(0x38800000)  # 2^-14
_REBIAS = np.uint32(0xC8000FFF)  # (15 - 127) << 23, and just less than half a unit
_1, _13, _16 = (np.uint32(v) for v in (1, 13, 16))
_PER_UNIT = np.float32(2.0**24)  # subnormal numbers are multiples of 2^-24


def round_to_half(values: npt.NDArray[np.float32], out: npt.NDArray[np.float16]) -> bool:
    """Round ``values`` into ``out`` (same shape, both C-contiguous).

    Returns whether every result is finite.
    """
    flat = values.reshape(-1)
    return bool(_round(flat, flat.view(np.uint32), out.reshape(-1).view(np.uint16)))


@kernel
def _round(values, bits, out):  # type: ignore[no-untyped-def]
    largest = np.uint32(0)
    for i in range(out.shape[0]):
        m = np.uint32(bits[i] & _MAGNITUDE)
        normal = np.uint32(np.uint32(m + _REBIAS + ((m >> _13) & _1)) >> _13)  # modulo 2^32
        small = min(abs(values[i]), np.float32(1.0)) * _PER_UNIT
        subnormal = np.uint32(np.rint(small))
        half = subnormal if m < _SMALLEST_NORMAL else normal
        half = _INF if m >= _TOO_LARGE else half
        half = np.uint32(_NAN if m > _FLOAT_INF else half)
        largest = max(largest, half)
        out[i] = np.uint16(((bits[i] >> _16) & _SIGN) | half)
    return largest < _INF
