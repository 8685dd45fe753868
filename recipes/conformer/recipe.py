"""The recipe of the cache-aware Conformer: CTC and transducer heads on one encoder, many latencies in one model."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar, Literal, cast

import torch
from torch import Tensor, nn

from loquent.asr.conformer.adaptive import AdaptiveConformerEncoder
from loquent.asr.conformer.encoder import ConformerConfig, ConformerLayer
from loquent.asr.conformer.model import ConformerModel, ConformerModelConfig
from loquent.asr.conformer.tokenizer import SubwordTokenizer
from loquent.asr.emission.align_with_purpose import Earlier, WordCorrection, align_with_purpose_loss
from loquent.asr.heads.transducer import TransducerConfig
from loquent.recipes.conformer.auxiliary import AuxiliaryLosses, AuxiliaryOptions
from loquent.recipes.conformer.evaluation import evaluate
from loquent.recipes.conformer.intermediate_ctc import letter_targets
from loquent.recipes.data.augment import AugmentOptions, SpecAugment, SpecAugmentOptions
from loquent.recipes.data.batching import BatchOptions
from loquent.recipes.data.dataset import SourceOptions, TrainingData, padded, read_noises, read_source, whole_batches
from loquent.recipes.data.manifest import Utterance
from loquent.recipes.loop.config import ConfigError
from loquent.recipes.loop.model_soup import write_mean


@dataclass(frozen=True)
class TrainSource(SourceOptions):
    """Some rows of a manifest, and what they are for."""

    texts: bool = True  # false: only the auxiliary losses use these rows, the model does not learn to write their texts


@dataclass(frozen=True)
class MeasuredSource(SourceOptions):
    """Some rows of a manifest, to be measured with.

    Raises:
        ValueError: less silence than none.
    """

    silence_s: float = 0.0  # before each recording: a stream does not begin with its first word

    def __post_init__(self) -> None:
        if self.silence_s < 0:
            raise ValueError(f"silence_s: expected a number of at least 0, got {self.silence_s}")

    def rows(self, prepared: Sequence[Utterance], split: str) -> list[Utterance]:
        """See `read_source`."""
        return [replace(row, silence_s=self.silence_s) for row in read_source(self, prepared, split)]


@dataclass(frozen=True)
class DataOptions:
    """Sources by name; error rates are told apart by these names."""

    train: dict[str, TrainSource]
    valid: dict[str, MeasuredSource]  # chooses the best weights
    test: dict[str, MeasuredSource]


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
class AlignWithPurposeOptions:
    """A loss that prefers some CTC alignments to others, see `align_with_purpose_loss`."""

    purpose: Literal["low_latency", "word_errors"] = "low_latency"
    weight: float = 0.01
    samples: int = 5  # alignments of each utterance
    margin: float = 0.0  # nats
    after: int = 0  # batches; it is for models that have learnt to align


@dataclass(frozen=True)
class AdaptiveOptions:
    """Layers that decide for each frame how far to look ahead, see `AdaptiveConformerEncoder`."""

    lookahead: int = 2  # frames, of each layer, at most
    latency_weight: float = 0.02  # nats for each frame that an output waits, on average
    compute_weight: float = 0.0  # nats for each frame that a layer looks ahead, on average
    temperature: tuple[float, float] = (1.0, 0.1)  # noise of the decisions, falling from the one to the other
    cooling: int = 2000  # batches that this takes


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
    start: str | None = None  # folder of a trained model to go on from, with its tokenizer; it may have fewer layers
    mean_of: dict[str, float] | None = None  # or such folders, or earlier stages, and how much each counts in a mean
    frozen_layers: int = 0  # of the encoder, the lowest, which stay as they are, and all that is below them
    auxiliary: AuxiliaryOptions | None = None
    align_with_purpose: AlignWithPurposeOptions | None = None
    adaptive: AdaptiveOptions | None = None
    language: str = "en"
    seed: int = 1

    @property
    def auxiliary_alone(self) -> bool:
        """Whether only the auxiliary losses are trained."""
        return self.auxiliary is not None and self.auxiliary.alone

    def __post_init__(self) -> None:
        if not 0 < self.ctc_weight <= 1:
            raise ValueError(f"ctc_weight must be above 0 and at most 1, got {self.ctc_weight}")
        if (self.ctc_weight == 1) != (self.transducer is None):
            raise ValueError("ctc_weight=1 goes with transducer: null, and no other weight does")
        layers = self.encoder.layers
        if self.auxiliary is not None and not 1 <= (layer := self.auxiliary.layer or layers) <= layers:
            raise ValueError(f"auxiliary.layer must be from 1 to encoder.layers={layers}, got {layer}")
        if self.mean_of is not None and not (self.mean_of and min(self.mean_of.values()) > 0):
            raise ValueError(f"mean_of goes with at least one model, and shares above 0, got {self.mean_of}")
        if not 0 <= self.frozen_layers <= layers:
            raise ValueError(f"frozen_layers must be from 0 to encoder.layers={layers}, got {self.frozen_layers}")
        drawn = {name: source for name, source in self.data.train.items() if source.weight}
        wordless = [name for name, source in drawn.items() if not source.texts]
        if wordless and (self.auxiliary is None or len(wordless) == len(drawn)):
            raise ValueError(
                f"data.train.{wordless[0]}: texts=false goes with auxiliary, and with other sources that have texts"
            )


class HybridLoss(nn.Module):
    """The model with its training loss: a weighted sum of CTC and transducer, at a random look-ahead for each batch.

    Args:
        word_start: whether each token begins a word.
    """

    def __init__(self, model: ConformerModel, config: ConformerRecipeConfig, word_start: Sequence[bool]) -> None:
        super().__init__()
        self.model, self.config, self.word_start = model, config, word_start
        self.spec_augment = SpecAugment(config.spec_augment)
        self.auxiliary = None if config.auxiliary is None else AuxiliaryLosses(config.auxiliary, model.encoder)
        self.register_buffer("batches", torch.zeros((), dtype=torch.long))  # so many have been trained on

    batches: Tensor

    def forward(self, batch: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss in nats per token of the batch's texts, and its parts.

        Args:
            batch: samples (B, N), length (B,) of them, targets (B, U), target_length (B,), has_text (B,): which rows
                have any; and what `AuxiliaryLosses` needs.
        """
        model = self.model
        with torch.no_grad():
            mel, frames = model.log_mel(batch["samples"], batch["length"])
            mel = self.spec_augment(mel, frames)
        encoded, length, extra, figures = self._encode(mel, frames)
        self.batches += 1
        has_text = batch["has_text"]
        if self.auxiliary is not None:
            auxiliary, parts = self.auxiliary(length, batch)
            figures |= parts
            extra = extra + auxiliary
            if self.config.auxiliary_alone or not has_text.any():
                return extra, figures

        encoded, length = encoded[has_text], length[has_text]
        targets, target_length = batch["targets"][has_text], batch["target_length"][has_text]
        tokens = target_length.sum().clamp_min(1)
        assert model.ctc is not None  # the recipe's models have it
        ctc = model.ctc.loss(encoded, length, targets, target_length).sum() / tokens
        figures["ctc"] = ctc.detach()
        purpose = self.config.align_with_purpose
        if purpose is not None and int(self.batches) > purpose.after:
            aligned = self._align(purpose, model.ctc(encoded), length, targets, target_length).sum() / tokens
            figures["align_with_purpose"] = aligned.detach()
            extra = extra + purpose.weight * aligned
        if model.transducer is None or int(self.batches) <= self.config.ctc_only:
            return ctc + extra, figures
        transducer = model.transducer.loss(encoded, length, targets, target_length).sum() / tokens
        figures["transducer"] = transducer.detach()
        return self.config.ctc_weight * ctc + (1 - self.config.ctc_weight) * transducer + extra, figures

    def _encode(self, mel: Tensor, frames: Tensor) -> tuple[Tensor, Tensor, Tensor, dict[str, Tensor]]:
        """Encoder frames, how many are valid, what the encoder adds to the loss, and figures."""
        encoder, options = self.model.encoder, self.config.adaptive
        if not isinstance(encoder, AdaptiveConformerEncoder) or options is None:
            choices = encoder.config.lookaheads
            lookahead = choices[int(torch.randint(len(choices), ()))]
            return encoder(mel, frames, lookahead), encoder.output_length(frames), mel.new_zeros(()), {}
        first, final = options.temperature
        encoder.temperature = first * (final / first) ** min(int(self.batches) / max(options.cooling, 1), 1.0)
        found = encoder.encode(mel, frames)
        wait, ahead = found.mean_wait, found.mean_ahead
        extra = options.latency_weight * wait + options.compute_weight * ahead
        return found.encoded, found.length, extra, {"wait": wait.detach(), "ahead": ahead.detach()}

    def _align(
        self,
        options: AlignWithPurposeOptions,
        log_probs: Tensor,
        length: Tensor,
        targets: Tensor,
        target_length: Tensor,
    ) -> Tensor:
        """(B,) nats."""
        improve = (
            Earlier()
            if options.purpose == "low_latency"
            else WordCorrection(targets, target_length, self.word_start, seed=int(self.batches))
        )
        return align_with_purpose_loss(log_probs, length, improve, samples=options.samples, margin=options.margin)


class ConformerRecipe:
    """Trains a Conformer; see `Recipe` for the interface.

    Args:
        config: data, model and loss.
        folder: of the run; the tokenizer is kept there.
    """

    Config: ClassVar[type[ConformerRecipeConfig]] = ConformerRecipeConfig
    config: ConformerRecipeConfig

    def __init__(self, config: ConformerRecipeConfig, folder: Path) -> None:
        if config.mean_of is not None:
            write_mean(config.mean_of, folder / "start")
            config = replace(config, start=str(folder / "start"))
        self.config = config
        data, prepared = self.prepare_data()
        train = {name: read_source(source, prepared, "train") for name, source in data.train.items()}
        self.valid = {name: source.rows(prepared, "valid") for name, source in data.valid.items()}
        self.held_out = {name: source.rows(prepared, "eval") for name, source in data.test.items()}
        noises = read_noises(config.augment)
        weighted = [(rows, data.train[name].weight) for name, rows in train.items()]
        self.data = TrainingData(weighted, config.batch, config.augment, noises, config.seed)
        self.has_text = torch.tensor([data.train[name].texts for name, rows in train.items() for _ in rows])
        texts = [row.text for name, rows in train.items() if data.train[name].texts for row in rows]
        self.tokenizer = self._tokenizer(folder, texts)
        torch.manual_seed(config.seed)
        self.model = ConformerModel(_model_config(config, self.tokenizer.vocab_size))
        _initialise(self.model, [token for text in texts for token in self.tokenizer.encode(text)])
        if config.start is None:
            self._measure_statistics()
        else:
            self._start_from(ConformerModel.from_pretrained(config.start)[0])
        self._freeze(config.frozen_layers)
        word_start = [self.tokenizer.is_word_start(token) for token in range(self.tokenizer.vocab_size)]
        self.loss = HybridLoss(self.model, config, word_start)
        if self.loss.auxiliary is not None and config.start is not None:
            self.loss.auxiliary.load(Path(config.start))
        self.module: nn.Module = self.loss
        self.judged_by = "distance" if config.auxiliary_alone else "wer"

    def prepare_data(self) -> tuple[DataOptions, list[Utterance]]:
        """The sources to read, and the rows of those that name no manifest. A recipe that makes its data overrides it.

        Raises:
            ManifestError: what the data is made of is missing.
        """
        return self.config.data, []

    def batches(self, epoch: int, rank: int, processes: int) -> list[list[int]]:
        """Indices of utterances."""
        return self.data.batches.epoch(epoch, rank, processes)

    def collate(self, items: Sequence[int], epoch: int) -> dict[str, Tensor]:
        """Augmented recordings and their tokens."""
        texts = [self.data.rows[index].text for index in items]
        tokens, letters = (
            [torch.tensor(self.tokenizer.encode(text)) for text in texts],
            list(map(letter_targets, texts)),
        )
        return self.data.collate(items, epoch) | {
            "has_text": self.has_text[list(items)],
            "targets": nn.utils.rnn.pad_sequence(tokens, batch_first=True),
            "target_length": torch.tensor([len(one) for one in tokens]),
            "letters": nn.utils.rnn.pad_sequence(letters, batch_first=True),
            "letter_count": torch.tensor([len(one) for one in letters]),
        }

    def evaluate(self) -> dict[str, float]:
        """Word error rates on the validation sources; for an encoder without heads yet its distance to the teacher."""
        if self.judged_by == "wer":
            return evaluate(self.model, self.tokenizer, self.valid)
        auxiliary = self.loss.auxiliary
        assert auxiliary is not None
        assert auxiliary.distillation is not None
        distances = []
        for rows in self.valid.values():
            for batch in whole_batches(rows, self.config.batch.duration_s):
                samples, length = (one.to(self.model.mean.device) for one in padded(batch))
                _, frames = self.model(samples, length, max(self.config.encoder.lookaheads))
                distances.append(float(auxiliary.distillation(auxiliary.frames, frames, samples)))
        return {"distance": statistics.fmean(distances)}

    def save(self, folder: Path) -> None:
        """Write the model's folder, and beside it the weights of the auxiliary losses for a following stage."""
        self.model.save_pretrained(folder, self.tokenizer)
        if self.loss.auxiliary is not None:
            self.loss.auxiliary.save(folder)

    def test(self, folder: Path) -> dict[str, float]:
        """Word error rates and emission delays of a saved model on the test sources.

        Words are timed by the model that training started from, so that the delays of its descendants compare; where
        there is none, by the model itself if it has fixed look-aheads. Heads that were not trained have no figures.
        """
        if self.config.auxiliary_alone:
            return {}
        model, tokenizer = ConformerModel.from_pretrained(folder)
        device = next(self.model.parameters()).device
        reference = model if self.config.start is None else ConformerModel.from_pretrained(self.config.start)[0]
        fixed = not isinstance(reference.encoder, AdaptiveConformerEncoder)
        return evaluate(model.to(device), tokenizer, self.held_out, reference.to(device) if fixed else None)

    def _tokenizer(self, folder: Path, texts: Sequence[str]) -> SubwordTokenizer:
        """The run's tokenizer: learnt when it begins, read when it goes on."""
        path = folder / "tokenizer.model"
        if path.is_file():
            return SubwordTokenizer.load(path)
        if self.config.start is not None:
            return ConformerModel.from_pretrained(self.config.start)[1]
        options = self.config.tokenizer
        tokenizer = SubwordTokenizer.train(texts, options.size, options.kind)
        folder.mkdir(parents=True, exist_ok=True)
        path.write_bytes(tokenizer.to_bytes())
        return tokenizer

    def _start_from(self, trained: ConformerModel) -> None:
        own = self.model.encoder
        try:
            if isinstance(own, AdaptiveConformerEncoder) and not isinstance(trained.encoder, AdaptiveConformerEncoder):
                own.take_weights(trained.encoder)
                trained.encoder = own
            beyond = tuple(f"encoder.layers.{at}." for at in range(len(trained.encoder.layers), len(own.layers)))
            new = {name: value for name, value in self.model.state_dict().items() if name.startswith(beyond)}
            self.model.load_state_dict(trained.state_dict() | new)
        except (RuntimeError, ValueError) as error:
            raise ConfigError(f"start: the model in {self.config.start} has another shape: {error}") from error

    def _freeze(self, layers: int) -> None:
        if layers and self.config.start is None:
            raise ConfigError("frozen_layers goes with start: layers with random weights have to be trained")
        lower = [self.model.encoder.subsampling, *self.model.encoder.layers[:layers]]
        for module in lower if layers else ():
            module.requires_grad_(False)

    def _measure_statistics(self, recordings: int = 300) -> None:
        """Mean and deviation of each mel bin over some augmented recordings, into the model."""
        order = torch.randperm(len(self.data.rows))[:recordings].tolist()
        with torch.no_grad():
            mels = [
                self.model.features(torch.from_numpy(self.data.samples(index, epoch=0)[0])[None])[0] for index in order
            ]
        frames = torch.cat(mels)
        self.model.mean.copy_(frames.mean(0))
        self.model.deviation.copy_(frames.std(0))


@torch.no_grad()
def _initialise(model: ConformerModel, tokens: Sequence[int]) -> None:
    """Weights to begin with, such that what distinguishes frames reaches the heads and training can find it.

    - The subsampling keeps the variance of its input (He et al. 2015) and has no biases. With torch's default the
      difference between frames fades to an eighth of the constant part.
    - Every layer begins near the identity: what its branches add is scaled by the root of their number.
    - The heads begin with the frequencies of blank and ``tokens``. Otherwise the first hundred steps teach the layers
      to add large constants, which drown the rest.
    """
    encoder = model.encoder
    for module in encoder.subsampling.modules():
        if isinstance(weight := getattr(module, "weight", None), nn.Parameter):
            last = module is encoder.subsampling.out
            nn.init.kaiming_normal_(weight, nonlinearity="linear" if last else "relu")
            nn.init.zeros_(module.get_parameter("bias"))
    for layer in cast(list[ConformerLayer], encoder.layers):
        branches = (
            layer.feed_forward1.linear2,
            layer.attention.out,
            layer.conv.pointwise2,
            layer.feed_forward2.linear2,
        )
        for branch in branches:
            branch.weight.mul_((4 * len(encoder.layers)) ** -0.5)
            if branch.bias is not None:
                nn.init.zeros_(branch.bias)
    counts = torch.bincount(torch.tensor(tokens), minlength=model.config.vocabulary) + 1.0
    frequencies = torch.cat([0.2 * counts / counts.sum(), torch.tensor([0.8])])  # a token in about every fifth frame
    outputs = [] if model.ctc is None else [model.ctc.out]
    outputs += [] if model.transducer is None else [model.transducer.joiner.out]
    for output in outputs:
        output.weight.mul_(0.1)
        output.bias.copy_(frequencies.log())


def _model_config(config: ConformerRecipeConfig, vocabulary: int) -> ConformerModelConfig:
    transducer = None
    if config.transducer is not None:
        transducer = TransducerConfig(vocabulary=vocabulary, encoder_dim=config.encoder.dim, **vars(config.transducer))
    return ConformerModelConfig(
        config.encoder,
        vocabulary,
        transducer=transducer,
        language=config.language,
        adaptive_lookahead=config.adaptive.lookahead if config.adaptive else 0,
        fixed_statistics=True,
    )
