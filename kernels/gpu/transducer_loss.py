"""Transducer loss: the scores of every node are read once for the loss and once for the gradient, never copied.

One kernel finds what the lattice needs of each node, one runs through a row's lattice, and one writes the gradient.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from loquent.kernels.gpu.runtime import LOWEST, block_of, launch, strides_of

SCORES = 1024  # that a program reads at a time


def transducer_loss(logits: Tensor, targets: Tensor, length: Tensor, target_length: Tensor) -> Tensor:
    """See `loquent.kernels.transducer_loss`."""
    loss: Tensor = _Lattice.apply(logits, targets.contiguous(), length.contiguous(), target_length.contiguous())
    return loss


class _Lattice(torch.autograd.Function):
    """The gradient follows from the posterior of every arc, as in `loquent.kernels.transducer_loss._Lattice`."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, targets: Tensor, length: Tensor, target_length: Tensor) -> Tensor:
        batch, frames, positions, scores = logits.shape
        scores_of_arcs = torch.empty(2, batch, frames, positions, device=logits.device)
        nodes = torch.empty(3, batch, frames, positions, device=logits.device)  # posteriors of arcs, normaliser
        alpha = torch.empty(batch, frames, positions, dtype=torch.float64, device=logits.device)
        loss, places = nodes.new_empty(batch), (targets, length, target_length)
        launch(
            arcs,
            (batch * frames * positions,),
            *(logits, *places, *scores_of_arcs, nodes[2], *strides_of(logits), frames, positions, scores),
            SCORES=block_of(scores, 16, SCORES),
        )
        launch(
            lattice,
            (batch,),
            *(*scores_of_arcs, alpha, *nodes[:2], loss, length, target_length, frames, positions),
            POSITIONS=block_of(positions, 2),
        )
        ctx.save_for_backward(logits, *places, nodes)
        return loss

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        logits, targets, length, target_length, nodes = ctx.saved_tensors
        batch, frames, positions, scores = logits.shape
        out = torch.empty(logits.shape, dtype=logits.dtype, device=logits.device)
        launch(
            gradient,
            (batch * frames * positions,),
            *(logits, targets, length, target_length, *nodes, grad.contiguous(), out, *strides_of(logits)),
            *(frames, positions, scores),
            SCORES=block_of(scores, 16, SCORES),
        )
        return out, None, None, None


@triton.jit
def _node(length, target_length, frames, positions):
    """Row, frame and position of the program's node, and whether an alignment may go through it."""
    u, t = tl.program_id(0) % positions, tl.program_id(0) // positions % frames
    row = tl.program_id(0) // positions // frames
    return row, t, u, (t < tl.load(length + row)) & (u <= tl.load(target_length + row))


@triton.jit
def arcs(
    logits, targets, length, target_length, blank, token, normalizer, row_stride, t_stride, u_stride,
    frames, positions, scores, SCORES: tl.constexpr,
):  # fmt: skip
    """Log-probabilities of one node's blank and next token, and what scores are normalised by."""
    row, t, u, inside = _node(length, target_length, frames, positions)
    at = logits + row.to(tl.int64) * row_stride + t * t_stride + u * u_stride
    top = tl.full([SCORES], LOWEST, tl.float32)
    total = tl.zeros([SCORES], tl.float32)
    for k_0 in range(0, tl.where(inside, scores, 0), SCORES):
        k = k_0 + tl.arange(0, SCORES)
        score = tl.load(at + k, mask=k < scores, other=LOWEST)
        high = tl.maximum(top, score)
        total = total * tl.exp(top - high) + tl.where(k < scores, tl.exp(score - high), 0)
        top = high
    highest = tl.max(top, 0)
    norm = highest + tl.log(tl.sum(total * tl.exp(top - highest), 0))
    more = inside & (u < tl.load(target_length + row))
    target = tl.load(targets + row * (positions - 1) + u, mask=more, other=0)
    tl.store(blank + tl.program_id(0), tl.load(at + scores - 1, mask=inside, other=0) - norm, mask=inside)
    tl.store(token + tl.program_id(0), tl.load(at + target, mask=more, other=0) - norm, mask=more)
    tl.store(normalizer + tl.program_id(0), norm, mask=inside)


@triton.jit
def _log_add(a, b):
    high = tl.maximum(a, b)
    return high + tl.log(1 + tl.exp(tl.minimum(a, b) - high))


@triton.jit
def _follow(arc_1, sum_1, arc_2, sum_2):
    """Paths along tokens: log-probability of a stretch of arcs, and of all paths that end after them."""
    return arc_1 + arc_2, _log_add(sum_1 + arc_2, sum_2)


@triton.jit
def lattice(
    blank, token, alpha, from_blank, from_token, loss, length, target_length, frames, positions,
    POSITIONS: tl.constexpr,
):  # fmt: skip
    """One row's loss, and the posteriors of its arcs: frames one after another, the positions of a frame by a scan.

    In float64, because the gradient takes differences of sums over whole paths.
    """
    row, u = tl.program_id(0), tl.arange(0, POSITIONS)
    count, tokens = tl.load(length + row).to(tl.int32), tl.load(target_length + row).to(tl.int32)
    inside, more = u <= tokens, u < tokens
    nodes = row.to(tl.int64) * frames * positions
    blank, token, alpha = blank + nodes, token + nodes, alpha + nodes
    from_blank, from_token = from_blank + nodes, from_token + nodes
    before = tl.where(u == 0, 0.0, LOWEST).to(tl.float64)  # all that leads to a node from the frame before
    for t in range(count):
        at = t * positions + u
        arc = tl.load(token + at - 1, mask=inside & (u > 0), other=0).to(tl.float64)
        _, here = tl.associative_scan((arc, before), 0, _follow)
        tl.store(alpha + at, here, mask=inside)
        before = here + tl.load(blank + at, mask=inside, other=LOWEST).to(tl.float64)
    total = tl.sum(tl.where(u == tokens, before, 0), 0)
    tl.store(loss + row, -total.to(tl.float32))
    tl.debug_barrier()  # alpha is written

    after = tl.where(u == tokens, 0.0, LOWEST).to(tl.float64)  # all that follows a node's blank
    for i in range(count):
        at = (count - 1 - i) * positions + u
        through = tl.load(blank + at, mask=inside, other=LOWEST).to(tl.float64) + after
        arc = tl.load(token + at, mask=more, other=0).to(tl.float64)
        _, after = tl.associative_scan((arc, tl.where(inside, through, LOWEST)), 0, _follow, reverse=True)
        reached = tl.load(alpha + at, mask=inside, other=LOWEST) - total
        by_blank = tl.exp(tl.minimum(reached + through, 0))
        by_any = tl.exp(tl.minimum(reached + after, 0))
        tl.store(from_blank + at, by_blank.to(tl.float32), mask=inside)
        tl.store(from_token + at, tl.maximum(by_any - by_blank, 0).to(tl.float32), mask=more)


@triton.jit
def gradient(
    logits, targets, length, target_length, blank, token, normalizer, grad, out,
    row_stride, t_stride, u_stride, frames, positions, scores, SCORES: tl.constexpr,
):  # fmt: skip
    """Gradient of one node's scores; zero for a node that no alignment goes through."""
    row, t, u, inside = _node(length, target_length, frames, positions)
    at = logits + row.to(tl.int64) * row_stride + t * t_stride + u * u_stride
    by_blank = tl.load(blank + tl.program_id(0), mask=inside, other=0)
    more = inside & (u < tl.load(target_length + row))
    by_token = tl.load(token + tl.program_id(0), mask=more, other=0)
    target = tl.load(targets + row * (positions - 1) + u, mask=more, other=-1)
    norm, factor = tl.load(normalizer + tl.program_id(0), mask=inside, other=0), tl.load(grad + row)
    for k_0 in range(0, scores, SCORES):
        k = k_0 + tl.arange(0, SCORES)
        score = tl.load(at + k, mask=(k < scores) & inside, other=LOWEST)
        slope = tl.exp(score - norm) * (by_blank + by_token)
        slope -= tl.where(k == scores - 1, by_blank, 0) + tl.where(k == target, by_token, 0)
        tl.store(out + tl.program_id(0).to(tl.int64) * scores + k, slope * factor, mask=k < scores)
