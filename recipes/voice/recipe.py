"""The recipe of the flow voice: three networks, one after another, learn from a teacher that is a voice itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from loquent.recipes.data.batching import BatchOptions, DurationBatches
from loquent.recipes.loop.config import ConfigError
from loquent.recipes.voice.corpus import Corpus, Part
from loquent.recipes.voice.data import DataOptions, Utterance, prepare, read_alphabet
from loquent.recipes.voice.flow_part import FlowOptions, FlowPart, batch_of, rendered, some_mels
from loquent.recipes.voice.prosody_part import ProsodyPart
from loquent.recipes.voice.vocoder_part import Mels, VocoderPart, warm_start
from loquent.tts.flow_voice.acoustic import HALVES, AcousticConfig
from loquent.tts.flow_voice.model import Nets, NetsConfig
from loquent.tts.flow_voice.prosody import ProsodyConfig
from loquent.tts.flow_voice.vocoder import VocoderConfig


@dataclass(frozen=True)
class ProsodySize:
    """See `ProsodyConfig`."""

    channels: int = 192
    convolutions: int = 2
    layers: int = 4
    heads: int = 4
    frame_channels: int = 128
    frame_layers: int = 3


@dataclass(frozen=True)
class AcousticSize:
    """See `AcousticConfig`."""

    features: int = 128
    phone_channels: int = 192
    phone_layers: int = 3
    channels: int = 192
    layers: int = 2
    conditions: int = 160
    estimator_channels: int = 256
    estimator_layers: int = 6
    expansion: int = 3
    attention: tuple[int, ...] = (1, 3, 5)
    heads: int = 4


@dataclass(frozen=True)
class VocoderSize:
    """See `VocoderConfig`."""

    channels: int = 256
    expansion: int = 3
    layers: int = 8


@dataclass(frozen=True)
class VoiceRecipeConfig:
    """Data, networks, and which of them is trained.

    part:      the network that this run trains.
    batch:     ``duration_s`` counts phones for the prosody, and seconds for the others.
    sentences: share of whole sentences among the prosody's examples, which are else a word and what is known then.
    warm_start: whether the vocoder begins with the layers of hibari's decoder.
    hears:     whose mel frames the vocoder hears: those of the recordings, or those that the flow makes of them.
    start:     folder of a voice to go on from; all of its networks are kept.
    """

    data: DataOptions
    part: Literal["prosody", "flow", "vocoder"]
    prosody: ProsodySize = field(default_factory=ProsodySize)
    acoustic: AcousticSize = field(default_factory=AcousticSize)
    vocoder: VocoderSize = field(default_factory=VocoderSize)
    flow: FlowOptions = field(default_factory=FlowOptions)
    batch: BatchOptions = field(default_factory=BatchOptions)
    sentences: float = 0.3
    warm_start: bool = False
    hears: Literal["teacher", "flow"] = "teacher"
    start: str | None = None
    seed: int = 1


class VoiceRecipe:
    """Trains a network of the flow voice; see `Recipe` for the interface.

    Args:
        config: data and networks.
        folder: of the run.
    """

    Config: ClassVar[type[VoiceRecipeConfig]] = VoiceRecipeConfig

    def __init__(self, config: VoiceRecipeConfig, folder: Path) -> None:
        self.config = config
        train, valid = prepare(config.data)
        torch.manual_seed(config.seed)
        self.nets = Nets(_nets_config(config, read_alphabet(valid)))
        if config.start is not None:
            self._start_from(Nets.load(config.start))
        self.part = self._part(train, valid)
        self.module: nn.Module = self.part.module
        self.judged_by = self.part.judged_by
        self._batches = DurationBatches(self.part.lengths(), config.batch, config.seed)

    def batches(self, epoch: int, rank: int, processes: int) -> list[list[int]]:
        """Numbers of utterances."""
        return self._batches.epoch(epoch, rank, processes)

    def collate(self, items: Sequence[int], epoch: int) -> Mapping[str, Any]:
        """See the parts."""
        return self.part.collate(items, epoch)

    def evaluate(self) -> dict[str, float]:
        """See the parts."""
        return self.part.evaluate()

    def save(self, folder: Path) -> None:
        """Write the voice's folder, with the networks that are not trained here as they are."""
        self.nets.save(folder)

    def test(self, folder: Path) -> dict[str, float]:
        """The figures of validation of the saved weights."""
        self.nets.load_state_dict(Nets.load(folder).state_dict())
        self.nets.eval()
        return self.part.evaluate()

    def _part(self, train: Sequence[Path], valid: Path) -> Part:
        config, held_out = self.config, Corpus([valid])
        if config.part == "prosody":
            space = self.nets.config.alphabet[" "]
            return ProsodyPart(
                *(self.nets.prosody, Corpus(train), held_out),
                space=space,
                sentences=config.sentences,
                seed=config.seed,
            )
        acoustic = self.nets.acoustic
        if bool((acoustic.mean == 0).all()):
            acoustic.measure(some_mels(Corpus(train)))
        if config.part == "flow":
            return FlowPart(acoustic, Corpus(train), held_out, config.flow)
        if config.warm_start:
            warm_start(self.nets.vocoder)
        recorded = Corpus(train[: config.data.recorded])
        return VocoderPart(self.nets.vocoder, recorded, held_out, self._mels(), seed=config.seed)

    def _mels(self) -> Mels:
        """What the vocoder hears: the teacher's mel frames, or what the flow makes of the same utterance."""
        acoustic = self.nets.acoustic
        if self.config.hears == "teacher":
            return lambda row: acoustic.stacked(row.mel[None])[0].unflatten(1, (HALVES, -1)).flatten(0, 1)

        def made(row: Utterance) -> Tensor:
            batch = {name: value.to(acoustic.mean.device) for name, value in batch_of([row]).items()}
            with torch.no_grad():
                mel = rendered(acoustic, batch, self.config.flow, self.config.flow.default, 1)
            return mel[0].unflatten(1, (HALVES, -1)).flatten(0, 1).cpu()

        return made

    def _start_from(self, other: Nets) -> None:
        try:
            self.nets.load_state_dict(other.state_dict())
        except RuntimeError as error:
            raise ConfigError(f"start: the voice in {self.config.start} has another shape: {error}") from error


def _nets_config(config: VoiceRecipeConfig, alphabet: dict[str, int]) -> NetsConfig:
    phones, speakers = max(alphabet.values()) + 1, tuple(config.data.speakers)
    prosody = ProsodyConfig(phones, len(speakers), **vars(config.prosody))
    acoustic = AcousticConfig(phones, len(speakers), **vars(config.acoustic))
    return NetsConfig(alphabet, speakers, prosody, acoustic, VocoderConfig(**vars(config.vocoder)))
