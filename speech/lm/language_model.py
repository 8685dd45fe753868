"""A causal language model: a decoder, and the scores of the piece that comes next."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from loquent.speech.lm.decoder import Decoder
from loquent.speech.lm.decoder_config import DecoderConfig
from loquent.speech.nn.linear import Linear
from loquent.speech.nn.skeleton import Skeletons
from loquent.speech.weight_files import check_weight

HEAD = "lm_head.weight"


class LanguageModel(nn.Module):
    """Pieces in, scores of the next piece out. Parameters have the names that Hugging Face gives them.

    Args:
        tied: whether the scores come from the embedding.
        capacity: steps of a stream of `Decoder.step`, at most.
    """

    def __init__(self, config: DecoderConfig, *, tied: bool, capacity: int = 4096) -> None:
        super().__init__()
        self.model = Decoder(config, capacity)
        self.lm_head = None if tied else Linear(config.dim, config.vocabulary, bias=False)

    @classmethod
    def from_weights(
        cls, config: DecoderConfig, weights: Mapping[str, Tensor], dtype: torch.dtype = torch.float32
    ) -> LanguageModel:
        """A model in evaluation mode.

        Args:
            weights: under Hugging Face's names; without a head, it is tied to the embedding.
            dtype: that it computes in.

        Raises:
            ValueError: weights are missing, unknown or of other shapes.
        """
        found = {name: weight for name, weight in weights.items() if not name.endswith("rotary_emb.inv_freq")}
        with Skeletons():
            model = cls(config, tied=HEAD not in found)
        expected = model.state_dict()
        if expected.keys() != found.keys():
            missing, unknown = sorted(expected.keys() - found.keys()), sorted(found.keys() - expected.keys())
            raise ValueError(f"not the model of the configuration: missing {missing[:4]}, unknown {unknown[:4]}")
        for name, weight in found.items():
            check_weight(name, weight, expected[name].shape)
        model.load_state_dict({name: weight.to(dtype) for name, weight in found.items()}, assign=True)
        return model.eval()

    def forward(self, ids: Tensor) -> Tensor:
        """Whole sequences (B, T) int64, padded behind with any, to scores (B, T, vocabulary)."""
        return self.scores(self.model(self.model.embed_tokens(ids)))

    def scores(self, hidden: Tensor) -> Tensor:
        """Of the next piece, (..., vocabulary), from hidden steps (..., dim)."""
        return F.linear(hidden, self.model.embed_tokens.weight) if self.lm_head is None else self.lm_head(hidden)
