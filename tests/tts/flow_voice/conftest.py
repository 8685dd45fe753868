"""A flow voice in miniature, with random weights."""

from __future__ import annotations

import pytest
import torch

from loquent.tts.flow_voice.acoustic import AcousticConfig
from loquent.tts.flow_voice.model import Nets, NetsConfig
from loquent.tts.flow_voice.prosody import ProsodyConfig
from loquent.tts.flow_voice.vocoder import VocoderConfig

PHONES = " ,.?ˈabdefhijklmnopstuvwzæðŋɑɔəɛɜɡɪɹʃʊʌʒʤʧθ"


@pytest.fixture
def nets() -> Nets:
    """Networks whose outputs depend on all of their inputs."""
    torch.manual_seed(0)
    alphabet = {phone: number + 1 for number, phone in enumerate(PHONES)}
    count = len(alphabet) + 1
    config = NetsConfig(
        alphabet,
        ("high", "low"),
        ProsodyConfig(count, 2, channels=16, layers=1, heads=2, frame_channels=8, frame_layers=2),
        AcousticConfig(
            *(count, 2),
            features=8,
            phone_channels=12,
            phone_layers=1,
            channels=12,
            layers=1,
            conditions=10,
            estimator_channels=16,
            estimator_layers=2,
            attention=(1,),
            heads=2,
        ),
        VocoderConfig(channels=16, layers=2),
    )
    made = Nets(config).eval()
    with torch.no_grad():
        for weights in made.parameters():
            if weights.ndim > 1:
                weights.normal_(0, weights[0].numel() ** -0.5)
        parts = made.vocoder.stages[-1].bias.unflatten(0, (5, -1))
        parts[:] = torch.tensor([-1.0, 0.0, -3.0, -3.0, 0.0])[:, None]
        made.prosody.duration.bias.fill_(1.0)
    return made
