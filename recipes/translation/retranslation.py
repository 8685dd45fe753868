"""The recipe of the models that translate again at every word: a decoder that writes all at once learns from a model
that writes piece by piece, behind the encoder of that one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from loquent.recipes.data.batching import BatchOptions, DurationBatches
from loquent.recipes.loop.config import ConfigError
from loquent.recipes.loop.error_rate import ErrorTally
from loquent.recipes.translation.corpus import ParallelText, read_pairs
from loquent.recipes.translation.distillation import Distilled, distil, sources_of
from loquent.speech.devices import compute_device
from loquent.speech.hub import resolve
from loquent.translate.model import Search
from loquent.translate.non_autoregressive.checkpoint import load_model, save_model
from loquent.translate.non_autoregressive.model import NonAutoregressiveTranslator
from loquent.translate.non_autoregressive.network import NonAutoregressive, NonAutoregressiveConfig
from loquent.translate.pieces import Pieces
from loquent.translate.seq2seq.model import Seq2SeqTranslator
from loquent.translate.seq2seq.network import Seq2Seq

MOST_VALID = 300


@dataclass(frozen=True)
class DistillationOptions:
    """What the teacher translates.

    texts:      files of pairs, of which the sources are used.
    sentences:  how many, drawn by the weights of their corpora.
    most_words: of a sentence.
    prefixes:   share of them that are cut at a word: what is read so far, when it is translated again.
    folder:     where the translations are kept, for other runs too; that of the run by default.
    """

    texts: tuple[ParallelText, ...]
    sentences: int = 100_000
    most_words: int = 25
    prefixes: float = 0.2
    folder: str | None = None


@dataclass(frozen=True)
class DecoderSize:
    """See `NonAutoregressiveConfig`."""

    layers: int = 3
    upsampling: int = 3


@dataclass(frozen=True)
class RetranslationRecipeConfig:
    """Data and network.

    teacher:   name or folder of a model of the family "seq2seq".
    batch:     ``duration_s`` counts pieces of the source.
    short_first: epochs in which short sentences come first.
    """

    teacher: str
    data: DistillationOptions
    network: DecoderSize = field(default_factory=DecoderSize)
    batch: BatchOptions = field(default_factory=BatchOptions)
    short_first: int = 1
    seed: int = 1


class RetranslationRecipe:
    """Trains a non-autoregressive decoder; see `Recipe` for the interface.

    Args:
        config: data and network.
        folder: of the run.
    """

    Config: ClassVar[type[RetranslationRecipeConfig]] = RetranslationRecipeConfig
    judged_by = "loss"

    def __init__(self, config: RetranslationRecipeConfig, folder: Path) -> None:
        self.config = config
        path = resolve(config.teacher).path
        if not Seq2SeqTranslator.owns(path):
            raise ConfigError(f"teacher: {config.teacher!r} is no model of the family 'seq2seq'")
        self.teacher = Seq2SeqTranslator.load(path, compute_device("auto"))
        self.pieces = self.teacher.codec
        torch.manual_seed(config.seed)
        sizes = NonAutoregressiveConfig(self.teacher.network.config, **vars(config.network))
        self.network = NonAutoregressive(sizes)
        start_from(self.network, self.teacher.network)
        self.module: nn.Module = TrainedModel(self.network)
        train, self.valid = (list(filter(self._fits, part)) for part in self._distilled(folder))
        if not train or not self.valid:
            raise ConfigError("data: no sentences to learn from; raise data.sentences or network.upsampling")
        self.train = train
        self._lengths = np.array([len(self.pieces.encode(one.source)) + 1 for one in train], dtype=np.float64)
        self._batches = DurationBatches(self._lengths.tolist(), config.batch, config.seed)

    def batches(self, epoch: int, rank: int, processes: int) -> list[list[int]]:
        """Numbers of sentences; in the first epochs, about in order of length."""
        batches = self._batches.epoch(epoch, rank, processes)
        if epoch >= self.config.short_first:
            return batches
        jitter = np.random.default_rng((self.config.seed, epoch)).normal(0, 2, len(batches))
        order = np.argsort([self._lengths[batch].max() for batch in batches] + jitter)
        return [batches[at] for at in order]

    def collate(self, items: Sequence[int], epoch: int) -> Mapping[str, Tensor]:
        """See `batch_of`."""
        return batch_of([self.train[item] for item in items], self.pieces)

    @torch.no_grad()
    def evaluate(self) -> dict[str, float]:
        """CTC loss of a piece on held-out sentences, and the word error rate against what the teacher writes."""
        device = self.network.frame.device
        total, pieces, tally = 0.0, 0, ErrorTally()
        for at in range(0, len(self.valid), 50):
            some = self.valid[at : at + 50]
            batch = {name: value.to(device) for name, value in batch_of(some, self.pieces).items()}
            logits = self.network(batch["source"], batch["length"])
            total += float(ctc_loss(logits, batch, self.config.network.upsampling))
            pieces += int(batch["target_length"].sum())
        for one, text in zip(self.valid, self._written(), strict=True):
            tally.add(one.target, text)
        return {"loss": total / pieces, "wer": tally.rate}

    def save(self, folder: Path) -> None:
        """Write the model's folder, with the teacher's encoder."""
        save_model(folder, self.network, self.pieces, self.teacher.source, self.teacher.target)

    def test(self, folder: Path) -> dict[str, float]:
        """The figures of validation of the saved weights."""
        self.network.load_state_dict(load_model(folder).network.state_dict())
        self.network.eval()
        return self.evaluate()

    def _written(self) -> list[str]:
        model = NonAutoregressiveTranslator(self.network, self.pieces, self.teacher.source, self.teacher.target)
        state, texts = model.initial_state(50), list[str]()
        for at in range(0, len(self.valid), 50):
            some = self.valid[at : at + 50]
            rows = torch.arange(len(some), device=self.network.frame.device)
            state.reset()
            model.read([self.pieces.encode(one.source) for one in some], [one.whole for one in some], state, rows)
            drafts = model.draft([Search(ended=one.whole) for one in some], state, rows)
            texts += [self.pieces.decode(draft.pieces) for draft in drafts]
        return texts

    def _distilled(self, folder: Path) -> tuple[list[Distilled], list[Distilled]]:
        config, options = self.config, self.config.data
        pairs, weights, held_out = read_pairs(options.texts, options.most_words)
        rng = np.random.default_rng(config.seed)
        # Efraimidis and Spirakis 2006: the largest u^(1/w) are a sample without replacement, by weight.
        keys = np.log(rng.random(len(pairs))) / np.maximum(weights, 1e-9)
        chosen = np.sort(np.argsort(-keys)[: options.sentences])
        parts = {"train": [pairs[at].source for at in chosen], "valid": [pair.source for pair in held_out[:MOST_VALID]]}
        kept = Path(options.folder) if options.folder else folder
        return tuple(  # type: ignore[return-value]
            distil(
                self.teacher,
                sources_of(sentences, options.prefixes, config.seed),
                kept / f"{name}-{self.teacher.fingerprint[:12]}.tsv",
            )
            for name, sentences in parts.items()
        )

    def _fits(self, one: Distilled) -> bool:
        """Whether there are frames for every piece, and for a blank between equal ones."""
        target = self.pieces.encode(one.target)
        needed = len(target) + sum(a == b for a, b in pairwise(target))
        frames = self.config.network.upsampling * (len(self.pieces.encode(one.source)) + one.whole)
        return 0 < needed <= frames


class TrainedModel(nn.Module):
    """The network with its loss; the encoder stays as it is."""

    def __init__(self, network: NonAutoregressive) -> None:
        super().__init__()
        self.network = network

    def train(self, mode: bool = True) -> TrainedModel:
        """Only what is trained drops anything out."""
        super().train(mode)
        for part in (*self.network.encoder, self.network.dropout):
            part.eval()
        return self

    def forward(self, batch: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, Any]]:
        """The mean CTC loss of a piece."""
        with torch.no_grad():
            memory = self.network.encode(batch["source"])
        loss = ctc_loss(self.network.write(memory, batch["length"]), batch, self.network.config.upsampling)
        pieces = float(batch["target_length"].sum())
        return loss / pieces, {"pieces": pieces}


def start_from(network: NonAutoregressive, teacher: Seq2Seq) -> None:
    """Take over a teacher's embedding and encoder, which are not trained, and begin with what its decoder knows.

    The last layers begin with the attention to the source, and the feed-forward layers, of the last ones there: these
    turn states of the encoder into pieces of the target.
    """
    own = {name for name, _ in network.named_parameters()}
    theirs = {name: value for name, value in teacher.named_parameters() if name in own}
    network.load_state_dict(theirs, strict=False)
    for name, weight in network.named_parameters():
        weight.requires_grad_(name not in theirs)
    for layer, other in zip(reversed(network.layers), reversed(teacher.decoder), strict=False):
        layer.attention.load_state_dict(other.cross.state_dict())
        layer.attention_norm.load_state_dict(other.cross_norm.state_dict())
        layer.feed.load_state_dict(other.feed.state_dict())
        layer.feed_norm.load_state_dict(other.feed_norm.state_dict())
    network.norm.load_state_dict(teacher.decoder_norm.state_dict())


def ctc_loss(logits: Tensor, batch: Mapping[str, Tensor], upsampling: int) -> Tensor:
    """The sum over a batch (Graves et al. 2006) of scores (B, T, V + 1), the blank last."""
    return F.ctc_loss(
        logits.float().log_softmax(-1).transpose(0, 1),
        batch["target"],
        upsampling * batch["length"],
        batch["target_length"],
        blank=logits.shape[-1] - 1,
        reduction="sum",
    )


def batch_of(rows: Sequence[Distilled], pieces: Pieces) -> dict[str, Tensor]:
    """A batch of sentences; a whole one has its end behind it.

    Returns:
        ``source`` (B, S) and ``target`` (B, T) pieces, with their ``length`` and ``target_length`` (B,). All int64.
    """
    read = [torch.tensor([*pieces.encode(one.source), *[pieces.end] * one.whole]) for one in rows]
    written = [torch.tensor(pieces.encode(one.target)) for one in rows]
    return {
        "source": pad_sequence(read, batch_first=True),
        "length": torch.tensor([len(one) for one in read]),
        "target": pad_sequence(written, batch_first=True),
        "target_length": torch.tensor([len(one) for one in written]),
    }
