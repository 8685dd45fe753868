"""The CTC head: a distribution over tokens and blank at every encoder frame."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from loquent.kernels.best_tokens import linear_argmax
from loquent.speech.nn.linear import Linear


class CTCHead(nn.Module):
    """One linear layer over encoder frames.

    Tokens are 0 … V - 1 and the blank is V. NeMo's `ctc_decoder.decoder_layers.0` holds the same weights as a 1×1
    convolution.

    Args:
        dim: channels of an encoder frame.
        vocabulary: number of tokens V, without the blank.

    Source: Graves et al. 2006, "Connectionist temporal classification".
    """

    def __init__(self, dim: int, vocabulary: int) -> None:
        super().__init__()
        self.vocabulary = vocabulary
        self.out = Linear(dim, vocabulary + 1)

    @property
    def blank(self) -> int:
        """Id of the blank."""
        return self.vocabulary

    def forward(self, encoded: Tensor) -> Tensor:
        """Log-probabilities (…, V + 1), float32, of encoder frames (…, dim)."""
        return F.log_softmax(self.out(encoded).float(), dim=-1)

    def best(self, encoded: Tensor) -> tuple[Tensor, Tensor]:
        """The most probable id of every frame (…, dim), and its log-probability: int64 and float32 (…)."""
        return linear_argmax(encoded, self.out.weight, self.out.bias)

    def loss(self, encoded: Tensor, length: Tensor, targets: Tensor, target_length: Tensor) -> Tensor:
        """Minus the log-probability of each text.

        Args:
            encoded: (B, T, dim).
            length: (B,) int64 frames of each row.
            targets: (B, U) int64; what lies beyond a row's length is ignored.
            target_length: (B,) int64.

        Returns:
            (B,) nats; 0, and no gradient, for a text that does not fit into its frames.
        """
        log_probs = self(encoded).transpose(0, 1)
        return F.ctc_loss(
            log_probs, targets, length, target_length, blank=self.blank, reduction="none", zero_infinity=True
        )
