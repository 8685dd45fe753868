"""Log-mel frames of a stretch of samples."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from loquent.kernels.registry import Operation

QUIET = 1e-9  # added to a power before its root is taken


class Compression(NamedTuple):
    """How spectra become features.

    magnitude: filter the roots of powers instead of powers.
    floor:     least energy that is told apart.
    offset:    added to an energy.
    decimal:   whether the logarithm is to base 10, instead of natural.
    """

    magnitude: bool = False
    floor: float = 0.0
    offset: float = 0.0
    decimal: bool = False


def log_mel(x: Tensor, taper: Tensor, filters: Tensor, stride: int, compression: Compression) -> Tensor:
    """Frames, their power spectrum, mel filters and a logarithm::

        p[t, f] = |Σ_k taper[k] x[t · stride + k] exp(-2πi f k / N)|²        for f ≤ N / 2
        e[t, m] = Σ_f p[t, f] filters[f, m]     or, of magnitudes, Σ_f √(p[t, f] + 1e-9) filters[f, m]
        out     = log(max(e, floor) + offset)

    Args:
        x: (B, L) samples, L = (T - 1) · stride + K with T at least 1.
        taper: (K,), K at most N.
        filters: (N / 2 + 1, F).
        stride: samples from frame to frame.
        compression: see there.

    Returns:
        (B, T, F).
    """
    return LOG_MEL.choose(x, taper, filters)(x, taper, filters, stride, compression)


def _reference(x: Tensor, taper: Tensor, filters: Tensor, stride: int, compression: Compression) -> Tensor:
    frames = x.unfold(1, len(taper), stride)
    spectrum = torch.fft.rfft(frames * taper, n=2 * (len(filters) - 1))
    power = spectrum.real.square() + spectrum.imag.square()
    energy = ((power + QUIET).sqrt() if compression.magnitude else power) @ filters
    if compression.floor:
        energy = energy.clamp_min(compression.floor)
    if compression.offset:
        energy = energy + compression.offset
    return energy.log10() if compression.decimal else energy.log()


def _triton(x: Tensor, taper: Tensor, filters: Tensor, stride: int, compression: Compression) -> Tensor:
    if x.dtype != torch.float32:
        return _reference(x, taper, filters, stride, compression)
    from loquent.kernels.gpu.log_mel import log_mel

    return log_mel(x, taper, filters, stride, *compression)


LOG_MEL = Operation("log_mel", reference=_reference, triton=_triton)
