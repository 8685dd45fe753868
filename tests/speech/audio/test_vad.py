"""The voice activity network: the published one's probabilities, in any packets and company."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import torch
from torch import Tensor

from loquent.speech.audio.files import read_audio
from loquent.speech.audio.resample import resample
from loquent.speech.audio.vad import FRAME, SileroVad

SAMPLE = Path(__file__).parents[3] / "speech" / "assets" / "sample.flac"


@pytest.fixture(scope="module")
def vad() -> SileroVad:
    return SileroVad.from_pretrained()


@pytest.fixture(scope="module")
def speech() -> Tensor:
    """The sample recording at 16 kHz, (N,), with noise in front."""
    audio = read_audio(SAMPLE)
    samples = torch.from_numpy(resample(audio.samples, audio.sample_rate, 16000)).reshape(-1)
    noise = 0.003 * torch.randn(16000, generator=torch.Generator().manual_seed(0))
    return torch.cat([noise, samples])


@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
def test_equals_the_published_model(vad, speech):
    package = Path(importlib.util.find_spec("silero_vad").origin).parent
    published = torch.jit.load(package / "data" / "silero_vad.jit")
    padded = torch.nn.functional.pad(speech, (0, -len(speech) % FRAME))
    with torch.inference_mode():
        expected = torch.cat([published(frame[None], 16000)[0] for frame in padded.split(FRAME)])
    got = vad(speech[None])[0]
    assert got.shape == expected.shape
    assert (got - expected).abs().max() < 1e-4
    assert got[:25].max() < 0.2
    assert got[40:].median() > 0.9


def test_laws(check_streaming, vad, speech):
    x = torch.stack([speech[start : start + 4000] for start in (14000, 40000, 80000)])
    check_streaming(vad, x, shortest=0, atol=1e-4, examples=10)


def test_declared_grid(vad):
    assert vad.stride == FRAME
    assert vad.latency == FRAME - 1


@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
def test_only_the_right_checkpoint_loads(tmp_path):
    with pytest.raises(FileNotFoundError, match="no Silero VAD checkpoint"):
        SileroVad.from_pretrained(tmp_path / "nothing.jit")
    torch.jit.script(torch.nn.Linear(2, 2)).save(tmp_path / "other.jit")
    with pytest.raises(ValueError, match="does not hold the 16 kHz network"):
        SileroVad.from_pretrained(tmp_path / "other.jit")
