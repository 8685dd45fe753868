"""The flow voice as a `VoiceModel`."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Self

import torch
from torch import Tensor, nn

from loquent.tts.acoustics import PhoneWindow, WordAcoustics
from loquent.tts.flow.masks import ChunkMask
from loquent.tts.flow.noise import CounterNoise
from loquent.tts.flow_voice.acoustic import CURVES, HALVES
from loquent.tts.flow_voice.model import Nets
from loquent.tts.flow_voice.prosody import LEAD, Frames, frame_durations, hertz, places
from loquent.tts.flow_voice.renderer import SAMPLE_RATE, FlowRenderer
from loquent.tts.flow_voice.vocoder import HOP

CHUNK, LEFT = 10, 40  # frames
LONGEST = 1200  # frames of an utterance that is one chunk, 30 s; a longer one has another chunk
SILENCE = 0  # id of the phone at both ends of an utterance


class FlowVoice(nn.Module):
    """A voice of three small networks, at 24 kHz, in frames of 25 ms; several speakers and what lies between them.

    Prosody says how long phones are, and pitch and energy of their frames; a flow makes mel spectrograms of these; a
    vocoder makes samples. A frame's curves are pitch of its halves in Hz (0 where there is no voice), energy of its
    halves, and its place in its phone.

    Args:
        nets: the networks.
        chunk: frames that the flow solves together: 1, 5, 10 or 25; None for the whole utterance, of which nothing is
            heard before its text has ended.
        left: frames before its chunk that a frame sees.
        steps: of the flow's solver.
        guidance: weight of classifier-free guidance.
    """

    sample_rate, hop_length, curve_size = SAMPLE_RATE, HALVES * HOP, CURVES

    def __init__(
        self, nets: Nets, *, chunk: int | None = CHUNK, left: int = LEFT, steps: int = 1, guidance: float = 0.0
    ) -> None:
        super().__init__()
        self.nets = nets
        self.alphabet: Mapping[str, int] = nets.config.alphabet
        self.speakers = nets.config.speakers
        self.phone_size = nets.config.acoustic.features
        mask = ChunkMask(chunk or LONGEST, left)
        self.renderer = FlowRenderer(nets.acoustic, nets.vocoder, CounterNoise(), mask, steps=steps, guidance=guidance)
        settings = {"chunk": chunk, "left": left, "steps": steps, "guidance": guidance}
        self.fingerprint = nets.fingerprint(settings)

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str],
        *,
        chunk: int | None = CHUNK,
        steps: int = 1,
        guidance: float = 0.0,
    ) -> Self:
        """Read a voice, such as `resolve("loquent/voice")` finds; see the class for the settings.

        Raises:
            ValueError: the folder holds something else, or a damaged voice.
        """
        return cls(Nets.load(path), chunk=chunk, steps=steps, guidance=guidance).eval()

    @torch.inference_mode()
    def acoustics(self, windows: Sequence[PhoneWindow]) -> list[WordAcoustics]:
        """How words are to sound; each has heard all of its window, and nothing else.

        Raises:
            ValueError: there is no such speaker.
        """
        return [self._acoustics(window) for window in windows]

    def _acoustics(self, window: PhoneWindow) -> WordAcoustics:
        device = self.nets.acoustic.mean.device
        opening, closing = [SILENCE] * window.opens, [SILENCE] * window.closes
        phones = torch.tensor([[*opening, *window.phones, *closing]], device=device)
        begin = 0 if window.opens and window.begin == 0 else window.begin + len(opening)
        end = window.end + len(opening) + (window.closes and window.end == len(window.phones))
        mixture = self._mixture(window.speaker).to(device)[None]
        prosody = self.nets.prosody
        hidden, log_durations = prosody(phones, mixture)
        parts = log_durations[0].cpu().split([begin, end - begin, phones.shape[1] - end])
        before, durations, after = (frame_durations(part, window.speed) for part in parts)
        # The curves of these frames depend on those within reach only.
        opening_silence = before if begin else durations
        if window.opens:
            opening_silence[:1].clamp_(max=LEAD)
        first, count = int(before.sum()), int(durations.sum())
        low, high = max(first - prosody.config.reach, 0), first + count + prosody.config.reach
        phone, place = (part[low:high].to(device) for part in places(torch.cat([before, durations, after])))
        present = torch.ones(1, len(phone), dtype=torch.bool, device=device)
        made = prosody.curves(hidden, Frames(phone[None], place[None], present))[0, first - low :][:count]
        pitch, voicing, energy = made.split(HALVES, dim=1)
        place = place[first - low :][:count]
        features = self.nets.acoustic.phones(phones, mixture)[0, begin:end]
        return WordAcoustics(features, durations.to(device), torch.cat([hertz(pitch, voicing), energy, place], dim=1))

    def _mixture(self, speaker: int | Mapping[int, float]) -> Tensor:
        """(S,) weights of the speakers."""
        weights = {speaker: 1.0} if isinstance(speaker, int) else speaker
        if not weights or not set(weights) <= set(range(len(self.speakers))):
            numbers = ", ".join(f"{number} ({name})" for number, name in enumerate(self.speakers))
            raise ValueError(f"speaker: expected numbers of {numbers}, got {speaker!r}")
        mixture = torch.zeros(len(self.speakers))
        for number, weight in weights.items():
            mixture[number] = weight
        return mixture
