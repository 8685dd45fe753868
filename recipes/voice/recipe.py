"""The recipe of the flow voice: three networks, one after another, learn from a teacher that is a voice itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from torch import nn

from loquent.recipes.data.batching import BatchOptions, DurationBatches
from loquent.recipes.loop.config import ConfigError
from loquent.recipes.voice.corpus import Corpus, Part
from loquent.recipes.voice.data import DataOptions, prepare, read_alphabet
from loquent.recipes.voice.flow_part import FlowOptions, FlowPart
from loquent.recipes.voice.prosody_part import ProsodyPart
from loquent.tts.flow_voice.acoustic import AcousticConfig
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
        new = bool((self.nets.acoustic.mean == 0).all())
        return FlowPart(self.nets.acoustic, Corpus(train), held_out, config.flow, new)

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
