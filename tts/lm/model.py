"""The text-to-speech-token model of CosyVoice 2 and 3: any causal language model with an embedding of speech."""

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
from loquent.tts.lm.layout import SpeechLayout

IGNORED = -1  # in targets: a step from which nothing is to be predicted


class SpeechLanguageModel(nn.Module):
    """Steps of text, speech and marks to what comes next of speech (arXiv 2412.10117, section 2.3).

    Args:
        config: of the language model.
        layout: what the ids of steps mean; it has as much text as the language model.
        capacity: steps of a stream, at most.
    """

    def __init__(self, config: DecoderConfig, layout: SpeechLayout, capacity: int = 4096) -> None:
        super().__init__()
        if config.vocabulary != layout.text:
            raise ValueError(f"the language model has {config.vocabulary} text tokens, the layout {layout.text}")
        self.layout = layout
        self.decoder = Decoder(config, capacity)
        self.speech_embedding = nn.Embedding(layout.rows, config.dim)
        own = layout.marks is None
        self.llm_embedding = nn.Embedding(2, config.dim) if own else None
        self.llm_decoder = Linear(config.dim, layout.rows, bias=own)

    @classmethod
    def from_weights(
        cls, config: DecoderConfig, layout: SpeechLayout, weights: Mapping[str, Tensor], capacity: int = 4096
    ) -> SpeechLanguageModel:
        """A model in evaluation mode and float32.

        Args:
            weights: under CosyVoice's names, those of an `llm.pt`. What the language model would predict of text,
                `lm_head`, is not used.

        Raises:
            ValueError: weights are missing, unknown or of other shapes.
        """
        inner = "llm.model.model."
        found = {
            f"decoder.{name.removeprefix(inner)}" if name.startswith(inner) else name: weight
            for name, weight in weights.items()
            if name != "llm.model.lm_head.weight"
        }
        with Skeletons():
            model = cls(config, layout, capacity)
        expected = model.state_dict()
        if expected.keys() != found.keys():
            missing, unknown = sorted(expected.keys() - found.keys()), sorted(found.keys() - expected.keys())
            raise ValueError(
                f"not the language model of the configuration: missing {missing[:4]}, unknown {unknown[:4]}"
            )
        for name, weight in found.items():
            check_weight(name, weight, expected[name].shape)
        model.load_state_dict({name: weight.float() for name, weight in found.items()}, assign=True)
        return model.eval()

    def embed(self, ids: Tensor) -> Tensor:
        """Ids of steps (..., ) to embeddings (..., dim)."""
        rows = ids - self.layout.text
        text = self.decoder.embed_tokens(ids.clamp(max=self.layout.text - 1))
        speech = self.speech_embedding(rows.clamp(0, self.layout.rows - 1))
        embedded = torch.where((rows < 0)[..., None], text, speech)
        if self.llm_embedding is not None:
            marks = rows - self.layout.rows
            embedded = torch.where((marks < 0)[..., None], embedded, self.llm_embedding(marks.clamp(0, 1)))
        return embedded

    def forward(self, ids: Tensor) -> Tensor:
        """Whole sequences of ids (B, T), padded behind with any, to logits of rows (B, T, rows)."""
        return self.llm_decoder(self.decoder(self.embed(ids)))

    def loss(self, ids: Tensor, targets: Tensor) -> Tensor:
        """Mean cross-entropy over the steps whose target (B, T) is not -1."""
        return F.cross_entropy(self(ids).flatten(0, 1), targets.flatten(), ignore_index=IGNORED)
