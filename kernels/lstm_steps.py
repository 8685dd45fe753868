"""The recurrence of an LSTM over the few steps of a chunk, once the inputs' share of the gates is known."""

from __future__ import annotations

import torch
from torch import Tensor

from loquent.kernels.registry import Operation


def lstm_steps(
    gates: Tensor, weight: Tensor, hidden: Tensor, cell: Tensor, length: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Run an LSTM over the new steps of B rows::

        (i, f, g, o) = gates[t] + weight h[t - 1]
        c[t] = σ(f) c[t - 1] + σ(i) tanh(g),   h[t] = σ(o) tanh(c[t])        for t < length[b]; later ones repeat

    Args:
        gates: (B, T, 4 · H) what the inputs and both biases add, in torch's order; ignored beyond a row's length.
        weight: (4 · H, H), torch's ``weight_hh``.
        hidden, cell: (B, H) where each row begins.
        length: (B,) int64, valid steps of each row, 0 … T.

    Returns:
        (B, T, H) the hidden state after every step, and (B, H) hidden state and cell in the end.

    Source: Hochreiter and Schmidhuber 1997 with Gers et al. 2000, as in `torch.nn.LSTM`.
    """
    return LSTM_STEPS.choose(gates, weight, hidden, cell)(gates, weight, hidden, cell, length)


def _reference(
    gates: Tensor, weight: Tensor, hidden: Tensor, cell: Tensor, length: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    outputs, size = [], hidden.shape[1]
    valid = torch.arange(gates.shape[1], device=gates.device) < length[:, None]
    for gate, inside in zip(gates.unbind(1), valid[..., None].unbind(1), strict=True):
        gate = torch.addmm(gate, hidden, weight.T)
        write, keep, _, show = gate.sigmoid().chunk(4, dim=1)
        new = gate[:, 2 * size : 3 * size].tanh()
        cell = torch.where(inside, torch.addcmul(keep * cell, write, new), cell)
        hidden = torch.where(inside, show * cell.tanh(), hidden)
        outputs.append(hidden)
    return torch.stack(outputs, dim=1) if outputs else gates.new_zeros(len(gates), 0, size), hidden, cell


def _triton(
    gates: Tensor, weight: Tensor, hidden: Tensor, cell: Tensor, length: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    from loquent.kernels.gpu.lstm import lstm_steps

    return lstm_steps(gates, weight, hidden, cell, length)


LSTM_STEPS = Operation("lstm_steps", reference=_reference, triton=_triton)
