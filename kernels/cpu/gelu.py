"""The Gaussian error linear unit, for kernels."""

from __future__ import annotations

import math

import numpy as np

from loquent.kernels.cpu.compiler import jit

HALF, ONE, MOST = np.float32(0.5), np.float32(1), np.float32(3.9)
ROOT_HALF = np.float32(math.sqrt(0.5))
# erf(x) = x P(x²) / Q(x²) for |x| < 3.9, and ±1 beyond, to 4e-7; a fit by least squares, the highest power first
P = tuple(map(np.float32, (2.0503978e-6, 2.8745711e-4, 3.8368497e-3, 5.2966838e-2, 1.9194032e-1, 1.128379)))
Q = tuple(map(np.float32, (3.8230845e-5, 1.1817289e-3, 1.5109151e-2, 1.1475793e-1, 5.0343446e-1, 1.0)))


@jit
def gelu(x):
    """x (1 + erf(x / √2)) / 2."""
    y = min(max(x * ROOT_HALF, -MOST), MOST)
    z = y * y
    p = ((((P[0] * z + P[1]) * z + P[2]) * z + P[3]) * z + P[4]) * z + P[5]
    q = ((((Q[0] * z + Q[1]) * z + Q[2]) * z + Q[3]) * z + Q[4]) * z + Q[5]
    return HALF * x * (ONE + y * p / q)
