"""Group-residual vector quantisation: parts of a frame have their own codebooks, stage by stage (arXiv 2305.02765)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from loquent.kernels.best_tokens import linear_argmax


class GroupResidual(NamedTuple):
    """Quantised frames.

    values: (..., dim), with a gradient to the frames as if nothing had been rounded.
    codes:  (..., stages · groups) int64.
    loss:   scalar, of codebooks and commitment.
    """

    values: Tensor
    codes: Tensor
    loss: Tensor


class GroupResidualQuantizer(nn.Module):
    """Frames to codes and back as in HiFi-Codec; a frame depends on no other, so any stream of frames may go through.

    A frame's channels are split into ``groups``. Each stage replaces what earlier stages have left of each group by the
    nearest of ``codebook_size`` vectors::

        r_1 = x      c_s = argmin_k ‖r_s - e_{s,k}‖²      r_{s+1} = r_s - e_{s,c_s}      decoded = Σ_s e_{s,c_s}

    Codes come stage by stage, in a stage group by group. The loss is the mean over stages of ‖e - sg(r)‖² (codebooks) +
    ``commitment`` · ‖sg(e) - r‖², each a mean over channels. Unlike in AcademiCodec's code, from which the order and
    the loss are, the commitment of later stages reaches the frames, too.

    Args:
        dim: channels of a frame, a multiple of ``groups``.
        codebook_size, groups, stages: 2 groups in 2 stages by default: 4 codebooks.
        commitment: weight of that loss.

    Raises:
        ValueError: ``groups`` does not divide ``dim``.
    """

    def __init__(
        self, dim: int, codebook_size: int = 1024, groups: int = 2, stages: int = 2, commitment: float = 0.25
    ) -> None:
        super().__init__()
        if dim % groups:
            raise ValueError(f"groups={groups} must divide dim={dim}")
        self.codebook_size, self.groups, self.stages, self.commitment = codebook_size, groups, stages, commitment
        self.codebooks = nn.Parameter(torch.empty(stages, groups, codebook_size, dim // groups))
        nn.init.uniform_(self.codebooks, -1 / codebook_size, 1 / codebook_size)

    def forward(self, x: Tensor) -> GroupResidual:
        """Quantise frames (..., dim) for training."""
        residual, codes, losses = x.unflatten(-1, (self.groups, -1)), [], []
        left = residual
        for codebook in self.codebooks:
            code, found = self._nearest(left, codebook)
            codebook_loss, commitment_loss = F.mse_loss(found, left.detach()), F.mse_loss(left, found.detach())
            losses.append(codebook_loss + self.commitment * commitment_loss)
            codes.append(code)
            left = left - found.detach()
        values = residual + (-left).detach()  # x - (what is left) is what was found
        return GroupResidual(values.flatten(-2), torch.cat(codes, dim=-1), torch.stack(losses).mean())

    def encode(self, x: Tensor) -> Tensor:
        """Frames (..., dim) to codes (..., stages · groups), int64."""
        left, codes = x.unflatten(-1, (self.groups, -1)), []
        for codebook in self.codebooks:
            code, found = self._nearest(left, codebook)
            codes.append(code)
            left = left - found
        return torch.cat(codes, dim=-1)

    def decode(self, codes: Tensor) -> Tensor:
        """Codes (..., stages · groups) to frames (..., dim); with the codes of fewer stages, of their sum."""
        by_stage = codes.unflatten(-1, (-1, self.groups)).unbind(-2)
        found = [self._entries(codebook, code) for codebook, code in zip(self.codebooks, by_stage, strict=False)]
        return torch.stack(found).sum(0).flatten(-2)

    def _nearest(self, x: Tensor, codebook: Tensor) -> tuple[Tensor, Tensor]:
        """(..., G, D) to codes (..., G) and their vectors (..., G, D)."""
        with torch.no_grad():  # ‖x - e‖² is least where x · e - ‖e‖² / 2 is largest
            parts = zip(x.unbind(-2), codebook, codebook.square().sum(-1) / -2, strict=True)
            code = torch.stack([linear_argmax(*part)[0] for part in parts], dim=-1)
        return code, self._entries(codebook, code)

    def _entries(self, codebook: Tensor, code: Tensor) -> Tensor:
        return codebook[torch.arange(self.groups, device=code.device), code]
