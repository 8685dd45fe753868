"""Greedy search over whole batches, for error rates while training."""

from __future__ import annotations

import torch
from torch import Tensor

from loquent.asr.transducer import Transducer


def ctc_greedy(log_probs: Tensor, length: Tensor) -> list[list[int]]:
    """The likeliest token of each frame, repetitions merged and blanks (the last index) dropped.

    Args:
        log_probs: (B, T, V + 1).
        length: (B,) valid frames.
    """
    best, blank = log_probs.argmax(-1), log_probs.shape[-1] - 1
    found = []
    for row, frames in zip(best, length.tolist(), strict=True):
        merged = torch.unique_consecutive(row[:frames])
        found.append(merged[merged != blank].tolist())
    return found


def transducer_greedy(transducer: Transducer, encoded: Tensor, length: Tensor) -> list[list[int]]:
    """At every frame the likeliest token, again and again until it is the blank.

    Args:
        encoded: (B, T, dim).
        length: (B,) valid frames.
    """
    blank, device = transducer.blank, encoded.device
    rows = torch.arange(len(length), device=device)
    enc = transducer.joiner.enc(encoded)
    pred, state = transducer.advance(torch.full_like(rows, blank), transducer.predictor.initial_state(len(rows)))
    found: list[list[int]] = [[] for _ in rows]
    for frame in range(int(length.max())):
        active = rows[frame < length]
        for _ in range(transducer.config.max_symbols):
            token = transducer.joiner(enc[active, frame], pred[active]).argmax(-1)
            active, token = active[token != blank], token[token != blank]
            if len(active) == 0:
                break
            for row, id_ in zip(active.tolist(), token.tolist(), strict=True):
                found[row].append(id_)
            following, after = transducer.advance(token, state.gather(active))
            pred = pred.index_copy(0, active, following)
            state.scatter(active, after)
    return found
