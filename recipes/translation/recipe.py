"""The recipe of the translation models: one network for every k, offline and simultaneous, clean and as heard."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from loquent.recipes.data.batching import BatchOptions, DurationBatches
from loquent.recipes.loop.config import ConfigError
from loquent.recipes.translation.corpus import Pair, ParallelText, read_pairs
from loquent.recipes.translation.examples import IGNORED, NEVER, ExampleOptions, Examples, batch_of
from loquent.recipes.translation.noise import as_heard, confusions
from loquent.recipes.translation.pieces import train_pieces
from loquent.translate.pieces import Pieces
from loquent.translate.score import score, word_by_word
from loquent.translate.seq2seq.checkpoint import save_model
from loquent.translate.seq2seq.config import Seq2SeqConfig
from loquent.translate.seq2seq.model import Seq2SeqTranslator
from loquent.translate.seq2seq.network import Seq2Seq, seen
from loquent.translate.translator import Translator

MOST_VALID = 600


@dataclass(frozen=True)
class NetworkSize:
    """See `Seq2SeqConfig`."""

    channels: int = 256
    heads: int = 4
    hidden: int = 1024
    encoder_layers: int = 6
    decoder_layers: int = 2
    decoder: Literal["ssru", "attention"] = "ssru"
    dropout: float = 0.1


@dataclass(frozen=True)
class TranslationDataOptions:
    """What is translated.

    source, target: codes of the languages.
    texts:          files of pairs.
    vocabulary:     pieces of both languages.
    most_words:     of a sentence.
    """

    source: str
    target: str
    texts: tuple[ParallelText, ...]
    vocabulary: int = 8000
    most_words: int = 60


@dataclass(frozen=True)
class TranslationRecipeConfig:
    """Data and network.

    batch:     ``duration_s`` counts pieces of both sides.
    smoothing: share of the probability that is spread over all pieces (Szegedy et al. 2016).
    short_first: epochs in which short sentences come first.
    start:     folder of a model to go on from, with its pieces.
    """

    data: TranslationDataOptions
    network: NetworkSize = field(default_factory=NetworkSize)
    examples: ExampleOptions = field(default_factory=ExampleOptions)
    batch: BatchOptions = field(default_factory=BatchOptions)
    smoothing: float = 0.1
    short_first: int = 1
    start: str | None = None
    seed: int = 1


class TranslationRecipe:
    """Trains an incremental encoder-decoder; see `Recipe` for the interface.

    Args:
        config: data and network.
        folder: of the run.
    """

    Config: ClassVar[type[TranslationRecipeConfig]] = TranslationRecipeConfig
    judged_by = "loss"

    def __init__(self, config: TranslationRecipeConfig, folder: Path) -> None:
        self.config = config
        data = config.data
        self.pairs, weights, held_out = read_pairs(data.texts, data.most_words)
        self.valid = held_out[:MOST_VALID]
        self.pieces = Pieces.load(self._pieces(folder, weights))
        if data.target not in self.pieces.tags:
            raise ConfigError(f"data.target: expected one of {', '.join(self.pieces.tags)}, got {data.target!r}")
        similar = confusions(pair.source for pair in self.pairs)
        self.examples = Examples(self.pairs, self.pieces, data.target, config.examples, similar, config.seed)
        torch.manual_seed(config.seed)
        network = Seq2Seq(Seq2SeqConfig(self.pieces.size, **asdict(config.network)))
        if config.start is not None:
            network.load_state_dict(load_file(Path(config.start) / "model.safetensors"))
        self.network = network
        self.module: nn.Module = TrainedModel(network, config.smoothing)
        self._lengths = np.array([self._length(pair) for pair in self.pairs], dtype=np.float64)
        self._batches = DurationBatches(self._lengths.tolist(), config.batch, config.seed, weights)

    def batches(self, epoch: int, rank: int, processes: int) -> list[list[int]]:
        """Numbers of pairs; in the first epochs, about in order of length."""
        batches = self._batches.epoch(epoch, rank, processes)
        if epoch >= self.config.short_first:
            return batches
        jitter = np.random.default_rng((self.config.seed, epoch)).normal(0, 4, len(batches))
        order = np.argsort([self._lengths[batch].max() for batch in batches] + jitter)
        return [batches[at] for at in order]

    def collate(self, items: Sequence[int], epoch: int) -> Mapping[str, Tensor]:
        """See `Examples.batch`."""
        return self.examples.batch(items, epoch)

    def evaluate(self) -> dict[str, float]:
        """Cross-entropy of a piece: with the whole source, with wait-3, and of a source as it is heard."""
        pairs = self.valid
        return {
            "loss": self._loss([(pair.source, pair.target, NEVER) for pair in pairs]),
            "loss_wait_3": self._loss([(pair.source, pair.target, 3) for pair in pairs]),
            "loss_heard": self._loss([(as_heard(pair.source) or pair.source, pair.target, NEVER) for pair in pairs]),
        }

    def save(self, folder: Path) -> None:
        """Write the model's folder."""
        save_model(folder, self.network, self.pieces, self.config.data.source, self.config.data.target)

    def test(self, folder: Path) -> dict[str, float]:
        """`evaluate`, and quality and delay of the saved weights on the held-out sentences, offline and by wait-3."""
        model = Seq2SeqTranslator.load(folder, next(self.network.parameters()).device)
        self.network.load_state_dict(model.network.state_dict())
        self.network.eval()
        figures, translator = self.evaluate(), Translator(model)
        policies: dict[str, dict[str, Any]] = {"offline": {"policy": "offline"}, "wait_3": {"policy": "wait-k", "k": 3}}
        for name, options in policies.items():
            streams = tqdm(self.valid, name)
            instances = [word_by_word(translator.session(**options), *pair[:2]) for pair in streams]
            scores = score(instances)
            figures |= {f"{figure}_{name}": scores[figure] or 0.0 for figure in ("BLEU", "chrF", "LAAL")}
        return figures

    def _pieces(self, folder: Path, weights: Sequence[float]) -> Path:
        if self.config.start is not None:
            return Path(self.config.start) / "pieces.model"
        file = folder / "pieces.model"
        if not file.exists():
            rng = np.random.default_rng(self.config.seed)
            chosen = [pair for pair, w in zip(self.pairs, weights, strict=True) if rng.random() < w]
            # As heard, too: lower case needs pieces of its own.
            texts = [text for pair in chosen for text in (pair.source, pair.target, as_heard(pair.source))]
            train_pieces(texts, file, self.config.data.vocabulary, self.config.seed)
        return file

    def _length(self, pair: Pair) -> int:
        return len(self.pieces.encode(pair.source)) + len(self.pieces.encode(pair.target))

    def _loss(self, rows: Sequence[tuple[str, str, int]]) -> float:
        total, count = 0.0, 0
        device = next(self.network.parameters()).device
        for at in range(0, len(rows), 50):
            batch = batch_of(rows[at : at + 50], self.pieces, self.pieces.tags[self.config.data.target])
            batch = {name: value.to(device) for name, value in batch.items()}
            hidden, wanted = hidden_of(self.network, batch)
            total += float(F.cross_entropy(self.network.logits(hidden), wanted, reduction="sum"))
            count += len(wanted)
        return total / count


class TrainedModel(nn.Module):
    """The network with its loss."""

    def __init__(self, network: Seq2Seq, smoothing: float) -> None:
        super().__init__()
        self.network, self.smoothing = network, smoothing

    def forward(self, batch: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, Any]]:
        """The mean cross-entropy of a piece, with smoothed labels."""
        hidden, wanted = hidden_of(self.network, batch)
        logits = self.network.logits(hidden)
        loss = F.cross_entropy(logits, wanted, label_smoothing=self.smoothing)
        return loss, {"pieces": float(len(wanted))}


def hidden_of(network: Seq2Seq, batch: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Hidden states (N, C) of the pieces that are wanted, and those (N,); padding is left out."""
    mask = seen(batch["source_words"], batch["words"], batch["k"])
    hidden = network(batch["source"], batch["given"], mask)
    valid = batch["wanted"] != IGNORED
    return hidden[valid], batch["wanted"][valid]
