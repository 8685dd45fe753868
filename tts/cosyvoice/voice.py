"""Voices: what a prompt tells of one, from a recording or from a file of known speakers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from loquent.speech.weight_files import check_stored, read_weights

RATE = 16_000  # of recordings for speaker embeddings, in Hz
FRAMES_PER_TOKEN = 2


@dataclass(frozen=True, eq=False)
class Voice:
    """A voice to speak with: imitated from a recording and its text (zero-shot), or hinted at by an embedding alone.

    speaker: (E,) embedding.
    text:    tokens of an instruction and of what the recording says.
    speech:  speech codes of the recording. mel: (2 · codes, F) its frames.
    continued: whether the language model goes on from the recording's speech, too; not without what it says.

    Raises:
        ValueError: frames and codes do not fit each other, or numbers are not finite.
    """

    speaker: Tensor
    text: tuple[int, ...] = ()
    speech: tuple[int, ...] = ()
    mel: Tensor | None = None
    continued: bool = True

    def __post_init__(self) -> None:
        frames = 0 if self.mel is None else len(self.mel)
        if frames != FRAMES_PER_TOKEN * len(self.speech):
            raise ValueError(f"a prompt of {len(self.speech)} speech codes needs twice as many frames, got {frames}")
        if self.speaker.ndim != 1 or (self.mel is not None and self.mel.ndim != 2):
            raise ValueError("expected a speaker embedding (E,) and a mel (T, F)")
        for one in (self.speaker, self.mel):
            if one is not None and not bool(one.isfinite().all()):
                raise ValueError("a prompt has numbers that are not finite")

    @property
    def spoken(self) -> tuple[int, ...]:
        """The speech codes that the language model goes on from."""
        return self.speech if self.continued else ()


class SpeakerEncoder:
    """CAM++ (arXiv 2303.00332) from its ONNX file: 16 kHz samples to the embedding of their speaker.

    Raises:
        FileNotFoundError: there is no such file.
        ImportError: onnxruntime is not installed.
        ValueError: the file is damaged or another model's.
    """

    def __init__(self, file: Path) -> None:
        try:
            import onnxruntime
        except ImportError as error:
            raise ImportError(
                'speaker embeddings need onnxruntime: in a checkout of loquent, pip install ".[cosyvoice]"'
            ) from error
        if not file.is_file():
            raise FileNotFoundError(f"no such file: {file}")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        try:
            self.session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
            (self.input,) = [one.name for one in self.session.get_inputs()]
        except Exception as error:  # of onnxruntime's own kinds
            raise ValueError(f"{file} is no speaker encoder: {error}") from error

    def __call__(self, samples: Tensor) -> Tensor:
        """(N,) float32 at 16 kHz, at least 25 ms, to (E,)."""
        from torchaudio.compliance import kaldi

        features = kaldi.fbank(samples[None], num_mel_bins=80, dither=0, sample_frequency=RATE)
        features = features - features.mean(dim=0, keepdim=True)
        embedding = self.session.run(None, {self.input: features[None].numpy()})[0]
        return torch.from_numpy(embedding).flatten().float()


def read_voices(file: Path) -> dict[str, Voice]:
    """The voices of a `spk2info.pt`: embeddings by name, and prompts that upstream's `save_spkinfo` wrote.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is damaged or unsafe, or holds something else.
    """
    voices = {}
    for name, info in read_weights(file).items():
        if not isinstance(info, dict):
            raise ValueError(
                f"{file} has a {type(info).__name__} for the voice {name[:60]!r}, expected its parts by name"
            )
        try:
            voices[name] = _voice_of(info)
        except ValueError as error:
            raise ValueError(f"{file}, voice {name[:60]!r}: {error}") from error
    return voices


def _voice_of(info: Mapping[str, Any]) -> Voice:
    speaker = _tensor(info, "embedding" if "embedding" in info else "flow_embedding").flatten().float()
    if "prompt_speech_feat" not in info:
        return Voice(speaker)
    mel = _tensor(info, "prompt_speech_feat").float()
    text = _tensor(info, "prompt_text").flatten().tolist() if "prompt_text" in info else []
    speech = _tensor(info, "flow_prompt_speech_token").flatten().tolist()
    continued = "llm_prompt_speech_token" in info
    return Voice(speaker, tuple(map(int, text)), tuple(map(int, speech)), mel[0] if mel.ndim == 3 else mel, continued)


def _tensor(info: Mapping[str, Any], name: str) -> Tensor:
    value = info.get(name)
    if not isinstance(value, Tensor):
        raise ValueError(f"{name} is {type(value).__name__}, expected a tensor")
    check_stored(name, value)
    return value.detach()
