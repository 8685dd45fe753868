"""CosyVoice 2 and 3: text in, also piece by piece, and speech out, in the voice of a recording."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from loquent.speech.audio.features import MatchaMel
from loquent.speech.audio.files import Audio, read_audio
from loquent.speech.audio.resample import resample
from loquent.speech.devices import compute_device
from loquent.tts.cosyvoice.checkpoint import Parts, load_parts
from loquent.tts.cosyvoice.config import CosyVoiceConfig
from loquent.tts.cosyvoice.stages import Stages, StagesState, Utterance
from loquent.tts.cosyvoice.text_tokenizer import END_OF_PROMPT
from loquent.tts.cosyvoice.voice import FRAMES_PER_TOKEN, RATE, SpeakerEncoder, Voice, read_voices
from loquent.tts.flow.token_flow import Inference
from loquent.tts.lm.generation import SpeechTokenGenerator
from loquent.tts.tokens.tokenizer import load_s3_tokenizer

SHORTEST_S = 0.1  # of a recording that tells something of a voice
NEUTRAL = {2: "", 3: "You are a helpful assistant."}  # instructions that the models were trained with


class CosyVoice:
    """A CosyVoice checkpoint that speaks.

    Text is taken as it is: numbers and abbreviations are to be spelt out before. A whole text is one utterance, whose
    length the language model's capacity bounds.

    Args:
        folder: of the checkpoint, where the models that read recordings are found when they are asked for.
        config: its settings. parts: its models, in evaluation mode.

    Attributes:
        sample_rate: of its speech, in Hz.
        voices: that the checkpoint knows, by name.
        stages: the models in a row, for streams that share batches.
    """

    def __init__(self, folder: Path, config: CosyVoiceConfig, parts: Parts) -> None:
        self.folder, self.config, self.tokenizer = folder, config, parts.tokenizer
        self.sample_rate = config.sample_rate
        self.stages = Stages(
            SpeechTokenGenerator(parts.language_model, config.sampling), parts.flow, parts.vocoder, config.silent
        )
        known = folder / "spk2info.pt"
        voices = read_voices(known) if known.is_file() else {}
        self.voices = {name: self.prompt_of(voice) for name, voice in voices.items()}

    @property
    def speakers(self) -> tuple[str, ...]:
        """Names of the known voices; the first is the default."""
        return tuple(self.voices)

    @classmethod
    def from_pretrained(
        cls,
        folder: str | os.PathLike[str],
        *,
        device: str | torch.device = "auto",
        flow: Inference | None = None,
        capacity: int = 4096,
    ) -> CosyVoice:
        """Load the folder of a CosyVoice 2 or 3 as upstream publishes it; nothing in it is executed.

        It needs `cosyvoice2.yaml` or `cosyvoice3.yaml`, `llm.pt`, `flow.pt`, `hift.pt` and `CosyVoice-BlankEN`; for
        voices from recordings also `campplus.onnx` and `speech_tokenizer_v2.onnx` or `_v3.onnx`.

        Args:
            flow: how it is solved; as upstream unless given, in chunks with a bounded past.
            capacity: text and speech tokens of an utterance, at most, with those of the voice.

        Raises:
            FileNotFoundError: a file is missing.
            ValueError: a file is damaged or unsafe, or the parts do not fit each other; the message says which.
            ImportError: a package is needed that is not installed.
        """
        path = Path(folder)
        config = CosyVoiceConfig.read(path)
        return cls(path, config, load_parts(path, config, flow, capacity).to(compute_device(device)))

    def voice(
        self, recording: str | os.PathLike[str] | Audio, text: str = "", *, instruction: str | None = None
    ) -> Voice:
        """The voice of a recording, to be imitated.

        Args:
            recording: a file, or samples; of 3 to 10 s, at most 30 s.
            text: what it says. Without, only the sound of the voice is imitated, as for text in another language.
            instruction: how to speak, such as a dialect or a mood; with or without ``text`` as the model was trained.
                None for what the model knows as neutral.

        Raises:
            AudioError: the file is no audio.
            FileNotFoundError, ImportError: what reads recordings is not there.
            ValueError: the recording is too short or too long.
        """
        audio = recording if isinstance(recording, Audio) else read_audio(os.fspath(recording))
        if audio.duration_s < SHORTEST_S:
            raise ValueError(f"a recording of {audio.duration_s:.3f} s tells nothing of a voice, expected 3 to 10 s")
        narrow, wide = (_resampled(audio, rate) for rate in (RATE, self.sample_rate))
        tokenizer = load_s3_tokenizer(self.folder / self.config.tokenizer_file)
        speech = tokenizer.tokens_of(narrow)
        with torch.inference_mode():
            mel = MatchaMel(self.config.f_max)(wide[None])[0]
        count = min(len(mel) // FRAMES_PER_TOKEN, len(speech))
        return Voice(
            SpeakerEncoder(self.folder / "campplus.onnx")(narrow),
            (*self._instructed(instruction), *self.tokenizer.encode(text)),
            tuple(speech[:count].tolist()),
            mel[: FRAMES_PER_TOKEN * count].clone(),
            continued=bool(text),
        )

    def synthesize(self, text: str, voice: Voice | str, *, in_turns: bool = False, seed: int = 0) -> Audio:
        """Speak a whole text.

        Args:
            voice: or the name of a known one.
            in_turns: text and speech tokens in turns, as `stream` has them; then the samples are those of `stream`.
                Otherwise speech begins when all text is known, which sounds better.
            seed: of all that is drawn.

        Raises:
            ValueError: there is no such voice, or the text is too long.
        """
        tokens = self.tokenizer.encode(text)
        samples = self.stages.whole(tokens, self.prompt_of(voice), in_turns=in_turns, seed=seed)
        return Audio(samples.cpu().numpy(), self.sample_rate)

    def stream(
        self, pieces: Iterable[str], voice: Voice | str, *, in_turns: bool = True, seed: int = 0
    ) -> Iterator[np.ndarray]:
        """Speak a text that comes in pieces, however it is cut.

        Args:
            pieces: of the text. The next one is asked for when all that follows from those before has been given.
            voice, in_turns, seed: see `synthesize`.

        Yields:
            Samples (N,) float32, in their order.

        Raises:
            ValueError: there is no such voice, or the text is too long.
        """
        state, held = self.stages.initial_state(1), ""
        utterance = self.stages.begin(state, 0, self.prompt_of(voice), in_turns=in_turns, seed=seed)
        for piece in pieces:
            tokens, held = self.tokenizer.advance(held + piece)
            utterance.push(tokens)
            for samples in self._advance(state, utterance):
                yield samples.cpu().numpy()
        utterance.push(self.tokenizer.encode(held))
        utterance.finish()
        for samples in self._advance(state, utterance):
            yield samples.cpu().numpy()

    def prompt_of(self, voice: Voice | str) -> Voice:
        """A voice as the stages take it, in CosyVoice 3 with an instruction; a known one by name.

        Raises:
            ValueError: there is no voice of that name.
        """
        if isinstance(voice, str):
            if voice not in self.voices:
                known = ", ".join(sorted(self.voices)) or "none"
                raise ValueError(f"there is no voice {voice[:60]!r}; known are {known}")
            voice = self.voices[voice]
        if self.config.version == 3 and self.tokenizer.end_of_prompt not in voice.text:
            return dataclasses.replace(voice, text=(*self._instructed(None), *voice.text))
        return voice

    def _advance(self, state: StagesState, utterance: Utterance) -> Iterator[Tensor]:
        while self.stages.ready(utterance):
            (samples,) = self.stages.step(state, [0], [utterance])
            if len(samples):
                yield samples

    def _instructed(self, instruction: str | None) -> list[int]:
        """Tokens of an instruction and of the mark behind it."""
        if instruction is None:
            instruction = NEUTRAL[self.config.version]
        return self.tokenizer.encode(f"{instruction}{END_OF_PROMPT}") if instruction else []


def _resampled(audio: Audio, rate: int) -> Tensor:
    samples = audio.samples if audio.sample_rate == rate else resample(audio.samples, audio.sample_rate, rate)
    return torch.from_numpy(np.ascontiguousarray(samples, np.float32))
