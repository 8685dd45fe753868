"""The recipe of the cache-aware Conformer: CTC and transducer heads on one encoder, many latencies in one model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from loquent.asr.conformer import ConformerConfig
from loquent.asr.conformer_model import ConformerModel, ConformerModelConfig
from loquent.asr.ctc_search import CTCGreedySearch
from loquent.asr.subword_tokenizer import SubwordTokenizer
from loquent.asr.token_search import TokenSearch
from loquent.asr.transducer import TransducerConfig
from loquent.asr.transducer_search import TransducerGreedySearch
from loquent.recipes.augment import AugmentOptions, SpecAugment, SpecAugmentOptions
from loquent.recipes.batching import BatchOptions
from loquent.recipes.commands_data import CommandsDataOptions, prepare
from loquent.recipes.dataset import SourceOptions, TrainingData, padded, read_noises, read_source, whole_batches
from loquent.recipes.error_rate import ErrorTally
from loquent.recipes.manifest import Utterance
from loquent.speech.streaming import Chunk

FRAME_MS = 80  # an encoder frame


@dataclass(frozen=True)
class DataOptions:
    """Sources by name; error rates are told apart by these names."""

    train: dict[str, SourceOptions]
    valid: dict[str, SourceOptions]  # chooses the best weights
    test: dict[str, SourceOptions]
    commands: CommandsDataOptions | None = None  # prepare the data of the commands model


@dataclass(frozen=True)
class TokenizerOptions:
    """Subword tokens, learnt from the training texts."""

    size: int = 128
    kind: Literal["unigram", "bpe", "char"] = "unigram"


@dataclass(frozen=True)
class TransducerOptions:
    """Shape of the transducer head, see `TransducerConfig`."""

    predictor: Literal["lstm", "stateless"] = "lstm"
    predictor_dim: int = 640
    predictor_layers: int = 1
    context: int = 2
    joint_dim: int = 640
    activation: Literal["relu", "tanh", "sigmoid"] = "relu"
    max_symbols: int = 10
    dropout: float = 0.2


@dataclass(frozen=True)
class ConformerRecipeConfig:
    """Data, model and loss."""

    data: DataOptions
    encoder: ConformerConfig
    transducer: TransducerOptions | None = field(default_factory=TransducerOptions)
    tokenizer: TokenizerOptions = field(default_factory=TokenizerOptions)
    batch: BatchOptions = field(default_factory=BatchOptions)
    augment: AugmentOptions = field(default_factory=AugmentOptions)
    spec_augment: SpecAugmentOptions = field(default_factory=SpecAugmentOptions)
    ctc_weight: float = 0.3  # of the loss; the rest is the transducer's
    ctc_only: int = 0  # batches at the start that train the encoder through the CTC head alone
    language: str = "en"
    seed: int = 1

    def __post_init__(self) -> None:
        if not 0 < self.ctc_weight <= 1:
            raise ValueError(f"ctc_weight must be above 0 and at most 1, got {self.ctc_weight}")
        if (self.ctc_weight == 1) != (self.transducer is None):
            raise ValueError("ctc_weight=1 goes with transducer: null, and no other weight does")


class HybridLoss(nn.Module):
    """The model with its training loss: a weighted sum of CTC and transducer, at a random look-ahead for each batch."""

    def __init__(self, model: ConformerModel, config: ConformerRecipeConfig) -> None:
        super().__init__()
        self.model, self.config = model, config
        self.spec_augment = SpecAugment(config.spec_augment)
        self.register_buffer("batches", torch.zeros((), dtype=torch.long))  # so many have been trained on

    batches: Tensor

    def forward(self, batch: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss in nats per token of the batch's texts, and its parts.

        Args:
            batch: samples (B, N), length (B,) of them, targets (B, U), target_length (B,).
        """
        model, targets, target_length = self.model, batch["targets"], batch["target_length"]
        with torch.no_grad():
            mel, frames = model.log_mel(batch["samples"], batch["length"])
            mel = self.spec_augment(mel, frames)
        choices = model.config.encoder.lookaheads
        lookahead = choices[int(torch.randint(len(choices), ()))]
        encoded, length = model.encoder(mel, frames, lookahead), model.encoder.output_length(frames)
        self.batches += 1

        tokens = target_length.sum().clamp_min(1)
        assert model.ctc is not None  # the recipe's models have it
        ctc = model.ctc.loss(encoded, length, targets, target_length).sum() / tokens
        figures = {"ctc": ctc.detach()}
        if model.transducer is None or int(self.batches) <= self.config.ctc_only:
            return ctc, figures
        transducer = model.transducer.loss(encoded, length, targets, target_length).sum() / tokens
        figures["transducer"] = transducer.detach()
        return self.config.ctc_weight * ctc + (1 - self.config.ctc_weight) * transducer, figures


class ConformerRecipe:
    """Trains a Conformer from scratch; see `Recipe` for what the training loop asks.

    Args:
        config: data, model and loss.
        folder: of the run; the tokenizer is kept there.
    """

    Config = ConformerRecipeConfig
    judged_by = "wer"

    def __init__(self, config: ConformerRecipeConfig, folder: Path) -> None:
        self.config = config
        data = config.data
        prepared = prepare(data.commands) if data.commands else []
        train = {name: read_source(source, prepared, "train") for name, source in data.train.items()}
        self.valid = {name: read_source(source, prepared, "valid") for name, source in data.valid.items()}
        self.held_out = {name: read_source(source, prepared, "eval") for name, source in data.test.items()}
        noises = read_noises(config.augment.noises) if config.augment.noises else []
        weighted = [(rows, data.train[name].weight) for name, rows in train.items()]
        self.data = TrainingData(weighted, config.batch, config.augment, noises, config.seed)
        self.tokenizer = self._tokenizer(folder)
        torch.manual_seed(config.seed)
        self.model = ConformerModel(_model_config(config, self.tokenizer.vocab_size))
        self._measure_statistics()
        self.module: nn.Module = HybridLoss(self.model, config)

    def batches(self, epoch: int, rank: int, processes: int) -> list[list[int]]:
        """Indices of utterances."""
        return self.data.batches.epoch(epoch, rank, processes)

    def collate(self, items: Sequence[int], epoch: int) -> dict[str, Tensor]:
        """Augmented recordings and their tokens."""
        samples, length = self.data.collate(items, epoch)
        tokens = [torch.tensor(self.tokenizer.encode(self.data.rows[index].text)) for index in items]
        return {
            "samples": samples,
            "length": length,
            "targets": nn.utils.rnn.pad_sequence(tokens, batch_first=True),
            "target_length": torch.tensor([len(one) for one in tokens]),
        }

    def evaluate(self) -> dict[str, float]:
        """Word error rates on the validation sources."""
        return error_rates(self.model, self.tokenizer, self.valid)

    def save(self, folder: Path) -> None:
        """Write the model's folder."""
        self.model.save_pretrained(folder, self.tokenizer)

    def test(self, folder: Path) -> dict[str, float]:
        """Word error rates of a saved model on the test sources."""
        model, tokenizer = ConformerModel.from_pretrained(folder)
        device = next(self.model.parameters()).device
        return error_rates(model.to(device), tokenizer, self.held_out)

    def _tokenizer(self, folder: Path) -> SubwordTokenizer:
        """The run's tokenizer: learnt when it begins, read when it goes on."""
        path = folder / "tokenizer.model"
        if path.is_file():
            return SubwordTokenizer.load(path)
        options = self.config.tokenizer
        texts = [row.text for row in self.data.rows]
        tokenizer = SubwordTokenizer.train(texts, options.size, options.kind)
        folder.mkdir(parents=True, exist_ok=True)
        path.write_bytes(tokenizer.to_bytes())
        return tokenizer

    def _measure_statistics(self, recordings: int = 300) -> None:
        """Mean and deviation of each mel bin over some augmented recordings, into the model."""
        order = torch.randperm(len(self.data.rows))[:recordings].tolist()
        with torch.no_grad():
            mels = [
                self.model.features(torch.from_numpy(self.data.samples(index, epoch=0))[None])[0] for index in order
            ]
        frames = torch.cat(mels)
        self.model.mean.copy_(frames.mean(0))
        self.model.deviation.copy_(frames.std(0))


def _model_config(config: ConformerRecipeConfig, vocabulary: int) -> ConformerModelConfig:
    transducer = None
    if config.transducer is not None:
        transducer = TransducerConfig(vocabulary=vocabulary, encoder_dim=config.encoder.dim, **vars(config.transducer))
    return ConformerModelConfig(
        config.encoder, vocabulary, ctc=True, transducer=transducer, language=config.language, fixed_statistics=True
    )


@torch.no_grad()
def error_rates(
    model: ConformerModel, tokenizer: SubwordTokenizer, sources: Mapping[str, Sequence[Utterance]], batch_s: float = 200
) -> dict[str, float]:
    """Word error rates in per cent by greedy search: of each source, head and latency, and "wer", their mean.

    Names are such as ``coffee/ctc/160ms``; the latency is how much later than a word's last frame it can be written,
    one chunk of the look-ahead's R + 1 frames.
    """
    device = next(model.parameters()).device
    searches: dict[str, TokenSearch] = {}
    if model.ctc is not None:
        searches["ctc"] = CTCGreedySearch(model.ctc)
    if model.transducer is not None:
        searches["transducer"] = TransducerGreedySearch(model.transducer)
    tallies: dict[str, ErrorTally] = {}
    for name, rows in sources.items():
        for batch in whole_batches(rows, batch_s):
            samples, length = padded(batch)
            mel, frames = model.log_mel(samples.to(device), length.to(device))
            for lookahead in sorted(model.config.encoder.lookaheads):
                encoded, valid = model.encoder(mel, frames, lookahead), model.encoder.output_length(frames)
                for head, search in searches.items():
                    tally = tallies.setdefault(f"{name}/{head}/{FRAME_MS * (lookahead + 1)}ms", ErrorTally())
                    for row, ids in zip(batch, _searched(search, encoded, valid), strict=True):
                        tally.add(row.text, tokenizer.decode(ids))
    rates = {name: tally.rate for name, tally in tallies.items()}
    return {"wer": sum(rates.values()) / max(len(rates), 1), **rates}


def _searched(search: TokenSearch, encoded: Tensor, length: Tensor) -> list[list[int]]:
    """Tokens of whole recordings."""
    rows = torch.arange(len(length), device=encoded.device)
    state, memos = search.initial_state(len(rows)), [search.start() for _ in rows]
    advances = search.step(Chunk(encoded, length, torch.ones_like(rows, dtype=torch.bool)), state, rows, memos)
    return [[token.id for token in advance.committed] for advance in advances]
