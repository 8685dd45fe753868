"""Transducer (RNN-T) loss: minus the log-probability of a text, summed over all of its alignments with the audio."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from loquent.kernels.registry import Operation, asked_backend

LOWEST = -1e30  # stands for log 0: the gradient of logaddexp at two infinities would be NaN


def transducer_loss(logits: Tensor, targets: Tensor, length: Tensor, target_length: Tensor) -> Tensor:
    """Loss of each row; an alignment emits any number of tokens at a frame and then a blank, which ends the frame::

        log p(k | t, u) = log_softmax(logits[t, u])[k]
        α[t, u] = logaddexp(α[t - 1, u] + log p(blank | t - 1, u), α[t, u - 1] + log p(y[u] | t, u - 1)),  α[0, 0] = 0
        loss    = -α[T - 1, U] - log p(blank | T - 1, U)

    The lattice runs forward and backward in a compiled kernel, which yields the gradient; on a GPU without Triton that
    of torchaudio, where it can be loaded; otherwise autograd differentiates the recursion.

    Args:
        logits: (B, T, U + 1, V + 1) scores or log-probabilities of what follows the first u tokens at frame t, float32,
            or a smaller float that is computed with in float32. The blank is the last of the V + 1.
        targets: (B, U) int64 tokens 0 … V - 1; what lies beyond a row's length is arbitrary, but within that range.
        length: (B,) int64 frames of each row, 1 … T.
        target_length: (B,) int64 tokens of each row, 0 … U.

    Returns:
        (B,) float32, in nats.

    Raises:
        ValueError: shapes that do not fit each other, or lengths out of range.

    Source: Graves 2012 (arXiv 1211.3711), equations 16 to 20.
    """
    batch, frames, positions, _ = logits.shape
    if targets.shape != (batch, positions - 1):
        raise ValueError(
            f"logits of {positions} positions for {batch} rows need targets of shape ({batch}, {positions - 1}), "
            f"got {tuple(targets.shape)}"
        )
    if batch == 0:
        return logits.new_zeros(0, dtype=torch.float32)
    shortest, longest = int(length.min()), int(length.max())
    fewest, most = int(target_length.min()), int(target_length.max())
    if not 1 <= shortest <= longest <= frames or not 0 <= fewest <= most < positions:
        raise ValueError(
            f"expected lengths of 1 … {frames} frames and 0 … {positions - 1} tokens, "
            f"got {shortest} … {longest} frames and {fewest} … {most} tokens"
        )
    logits, targets = logits[:, :longest, : most + 1].float(), targets[:, :most].to(logits.device)
    length, target_length = length.to(logits.device), target_length.to(logits.device)
    run = TRANSDUCER_LOSS.choose(logits.detach())  # which differentiates by itself
    if run is _reference and logits.is_cuda and asked_backend() != "reference" and _torchaudio_loads():
        run = _torchaudio
    return run(logits, targets, length, target_length)


def _arcs(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Log-probabilities of the blank (B, T, U + 1) and of the next token (B, T, U) at every node of the lattice."""
    log_probs = F.log_softmax(logits, dim=-1)
    index = targets[:, None, :, None].expand(-1, logits.shape[1], -1, -1)
    return log_probs[..., -1], log_probs[:, :, :-1].gather(-1, index)[..., 0]


def _reference(logits: Tensor, targets: Tensor, length: Tensor, target_length: Tensor) -> Tensor:
    """The recursion over anti-diagonals n = t + u, whose nodes do not depend on each other."""
    blank, token = _arcs(logits, targets)
    batch, frames, positions = blank.shape
    u = torch.arange(positions, device=logits.device)
    impossible = logits.new_full((batch, 1), LOWEST)
    alpha = torch.cat([logits.new_zeros(batch, 1), impossible.expand(-1, positions - 1)], dim=1)
    diagonals = [alpha]
    for n in range(1, frames + positions - 1):
        t = n - u  # of the nodes on this diagonal; the arcs into them start at (t - 1, u) and (t, u - 1)
        through_blank = alpha + blank[:, (t - 1).clamp(0, frames - 1), u]
        through_blank = torch.where((t >= 1) & (t <= frames), through_blank, LOWEST)
        through_token = alpha[:, :-1] + token[:, t[1:].clamp(0, frames - 1), u[:-1]]
        through_token = torch.where((t[1:] >= 0) & (t[1:] < frames), through_token, LOWEST)
        alpha = torch.logaddexp(through_blank, torch.cat([impossible, through_token], dim=1)).clamp(min=LOWEST)
        diagonals.append(alpha)
    row = torch.arange(batch, device=logits.device)
    end = torch.stack(diagonals)[length - 1 + target_length, row, target_length]
    return -(end + blank[row, length - 1, target_length])


def _numba(logits: Tensor, targets: Tensor, length: Tensor, target_length: Tensor) -> Tensor:
    loss: Tensor = _Lattice.apply(logits, targets, length, target_length)
    return loss


class _Lattice(torch.autograd.Function):
    """Forward and backward variables by numba; the gradient follows from the posterior of every arc::

        d loss / d logits[t, u, k] = p(k | t, u) · γ[t, u] - γ_k[t, u]

    where γ_k[t, u] is the posterior probability that an alignment takes the arc k from node (t, u), γ their sum.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, targets: Tensor, length: Tensor, target_length: Tensor) -> Tensor:
        from loquent.kernels.cpu.runtime import kernel, run

        blank, token = (arc.contiguous() for arc in _arcs(logits, targets))
        batch, frames, positions = blank.shape
        length, target_length = length.contiguous(), target_length.contiguous()
        loss, blank_posterior, token_posterior = blank.new_empty(batch), blank.new_empty(blank.shape), token.clone()
        tensors = (blank, token, length, target_length, loss, blank_posterior, token_posterior)
        work = 40 * batch * frames * positions  # a logarithm and some exponentials per node
        run(
            kernel("transducer_loss", "lattice"),
            batch,
            work,
            frames,
            positions,
            *(tensor.data_ptr() for tensor in tensors),
        )
        ctx.save_for_backward(logits, targets, blank_posterior, token_posterior)
        return loss

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        logits, targets, blank, token = ctx.saved_tensors
        visited = blank.clone()
        visited[:, :, :-1] += token
        out = F.softmax(logits, dim=-1)
        # Rows beyond a length may hold anything, NaN too.
        out = torch.where((visited > 0)[..., None], out, 0).mul_(visited[..., None])
        out[..., -1] -= blank
        index = targets[:, None, :, None].expand(-1, logits.shape[1], -1, -1)
        out[:, :, :-1].scatter_add_(-1, index, -token[..., None])
        return out.mul_(grad[:, None, None, None]), None, None, None


def _torchaudio_loads() -> bool:
    try:
        from torchaudio.functional import rnnt_loss  # noqa: F401
    except (ImportError, OSError):
        return False
    return True


def _torchaudio(logits: Tensor, targets: Tensor, length: Tensor, target_length: Tensor) -> Tensor:
    from torchaudio.functional import rnnt_loss

    return rnnt_loss(
        logits.contiguous(),
        targets.int().contiguous(),
        length.int(),
        target_length.int(),
        blank=logits.shape[-1] - 1,
        reduction="none",
    )


def _triton(logits: Tensor, targets: Tensor, length: Tensor, target_length: Tensor) -> Tensor:
    from loquent.kernels.gpu.transducer_loss import transducer_loss

    return transducer_loss(logits, targets, length, target_length)


TRANSDUCER_LOSS = Operation("transducer_loss", reference=_reference, numba=_numba, triton=_triton)
