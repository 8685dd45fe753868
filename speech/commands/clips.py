"""Which stretches of a recording have speech in them."""

from __future__ import annotations

from pathlib import Path

from loquent.speech.audio import blocks
from loquent.speech.endpoint import SpeechOptions, speech_segments
from loquent.speech.resample import Resampler
from loquent.speech.vad import SAMPLE_RATE, SileroVad

# Pauses shorter than two seconds stay: cutting there costs a window each and gains nothing.
OPTIONS = SpeechOptions(min_speech_s=0.0, min_silence_s=2.0, padding_s=0.4)


def speech_clips(path: Path) -> tuple[float, ...]:
    """Start, end, start, end, … of the speech in a recording, in seconds; read in constant memory.

    Raises:
        AudioError: it cannot be read.
    """
    import torch

    vad, resampler, probabilities = SileroVad.from_pretrained(), None, []
    state = vad.initial_state(1)
    with torch.inference_mode():
        for block in blocks(path, 10.0):
            if resampler is None:
                resampler = Resampler(block.sample_rate, SAMPLE_RATE)
                resampled = resampler.initial_state(1)
            samples = resampler.step(torch.from_numpy(block.samples)[None], resampled).data
            probabilities += vad.step(samples, state).data[0].tolist()
        if resampler is not None:
            tail = resampler.step(torch.zeros(1, 0), resampled, last=True).data
            probabilities += vad.step(tail, state, last=True).data[0].tolist()
    return tuple(second for segment in speech_segments(probabilities, OPTIONS) for second in segment)
