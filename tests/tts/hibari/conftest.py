"""Hibari's own weights and graph where they are installed, and a voice of random weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from loquent.speech.hub import CheckpointError, resolve
from loquent.tts.hibari.config import DecoderConfig, HibariConfig, ProsodyConfig, TextEncoderConfig
from loquent.tts.hibari.voice import HibariVoice
from loquent.tts.hibari.weights import find_voice


@pytest.fixture(scope="session")
def hibari_file() -> Path:
    """The voice's graph."""
    try:
        return find_voice(resolve("loquent/hibari").path)
    except CheckpointError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def hibari_voice(hibari_file: Path) -> HibariVoice:
    return HibariVoice.load(hibari_file)


@pytest.fixture(scope="session")
def small_voice() -> HibariVoice:
    """Of hibari's shape, with few channels and random weights; it babbles phones of all lengths."""
    torch.manual_seed(3)
    config = HibariConfig(
        TextEncoderConfig(dim=8, hidden=12, passes=2),
        ProsodyConfig(TextEncoderConfig(dim=12, hidden=16, passes=2), (1, 2, 1), 16),
        DecoderConfig(10, 16, 24, blocks=2),
    )
    voice = HibariVoice(config).eval()
    for weight in voice.parameters():
        weight.requires_grad_(False)
        if weight.ndim > 1:
            weight.normal_(std=1.5 * weight[0].numel() ** -0.5)
    voice.prosody.duration_out.weight.mul_(0.3)
    voice.prosody.duration_out.bias.fill_(1.8)
    voice.prosody.curves_out.weight.mul_(0.2)
    voice.prosody.curves_out.bias.copy_(torch.tensor([1.0, 1.2, 0.1, 0.1]))
    voice.renderer.decoder.stages[4].weight.mul_(0.5)
    return voice
