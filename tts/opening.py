"""The first word of an utterance, sooner than the renderer's look-ahead allows.

A renderer that looks ahead gives the end of a word when the frames of later words are known, which may need two words
more. The first word is therefore rendered, on a copy of the state, with the frames that its own window gives to the
words after it. What the renderer gives for it later is dropped, after a cross-fade over one frame.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from loquent.speech.nn.streaming import Chunk
from loquent.tts.acoustics import VoiceModel, WordAcoustics
from loquent.tts.memo import SpeechMemo


def frames_of(sound: WordAcoustics, limits: list[int]) -> Tensor:
    """Frames (T, C + D) for the renderer: of each phone all, or its last ones if they are more than its limit.

    Raises:
        ValueError: a phone has none.
    """
    durations = sound.durations.tolist()
    if min(durations) < 1:
        raise ValueError(f"the voice gave a phone {min(durations)} frames")
    kept = [min(pair) for pair in zip(durations, limits, strict=True)]
    ends = sound.durations.cumsum(0).tolist()
    index = torch.cat([torch.arange(end - count, end) for end, count in zip(ends, kept, strict=True)])
    phone = torch.repeat_interleave(torch.arange(len(kept)), torch.tensor(kept))
    return torch.cat([sound.phones[phone], sound.curves[index]], dim=1)


def open_early(voice: VoiceModel, state: Any, slot: int, frames: Tensor, following: WordAcoustics) -> Tensor:
    """Samples of the first word and of one frame more.

    Args:
        state: of the renderer; the slot is at the start of the utterance, and is left as it is.
        frames: (T, C + D) of the word.
        following: what its window says of the phones after it.

    Returns:
        ((T + 1) · hop_length,) or fewer, if the window ends sooner.
    """
    wanted = (len(frames) + 1) * voice.hop_length
    needed = voice.renderer.inputs_for(wanted)
    ahead = frames_of(following, following.durations.tolist())[: needed - len(frames)]
    whole = torch.cat([frames, ahead])[None]
    copy = state.gather([slot])
    said = voice.renderer.step(Chunk.of(whole, last=whole.shape[1] < needed), copy)
    return said.data[0, :wanted]


def follow(memo: SpeechMemo, samples: np.ndarray, ahead: np.ndarray) -> np.ndarray:
    """Those of the renderer's next samples (N,) that have not been given early.

    Args:
        ahead: (hop_length,) samples that would have followed those that were.
    """
    dropped = min(memo.lent, len(samples))
    memo.lent -= dropped
    rest = samples[dropped:]
    if not memo.fading or not len(rest):
        return rest
    memo.fading, n = False, min(len(ahead), len(rest))
    weight = (np.arange(n, dtype=np.float32) + 0.5) / n
    return np.concatenate([rest[:n] * weight + ahead[:n] * (1 - weight), rest[n:]])
