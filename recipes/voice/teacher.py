"""The teacher: hibari-tts, which tells the duration, pitch and energy of what it says, and speakers made of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from loquent.speech.audio.resample import resample

RATE, HOP, UNIT = 24000, 300, 600  # Hz; samples between frames of pitch and energy, and of a unit of duration
VOICED = 40.0  # Hz; the teacher's pitch is below it where there is none
_DURATIONS, _ENERGY = "/Clip_output_0", "/Gather_37_output_0"  # values inside the graph


@dataclass(frozen=True)
class Spoken:
    """A sentence as the teacher says it, or a speaker made of it.

    phones:    (P,) ids, with the silences at both ends.
    durations: (P,) of each, in units of 25 ms; U in all.
    pitch:     (2 U,) Hz, one for 12.5 ms; 0 where there is none.
    energy:    (2 U,) as the teacher measures it.
    samples:   (600 U,) float32 at 24 kHz.
    pulses:    (600 U,) what the samples' voiced part is a filter of: a pulse train at their pitch.
    """

    phones: np.ndarray
    durations: np.ndarray
    pitch: np.ndarray
    energy: np.ndarray
    samples: np.ndarray
    pulses: np.ndarray


class Teacher:
    """hibari-tts in onnxruntime, on one thread."""

    def __init__(self) -> None:
        import hibari
        import onnx
        import onnxruntime

        self.hibari = hibari.Hibari()
        graph = onnx.load(self.hibari.model_path)
        for name in (_DURATIONS, _ENERGY):
            graph.graph.output.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None))
        options: Any = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        self._session = onnxruntime.InferenceSession(
            graph.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )

    @property
    def alphabet(self) -> dict[str, int]:
        """Id of each phone; 0 is the silence at both ends of an utterance."""
        return dict(self.hibari.vocab)

    @property
    def vocabulary(self) -> list[str]:
        """The common words of its lexicon that are spelled with small letters alone."""
        words = self.hibari.g2p.lexicon.golds.d
        return sorted(word for word in words if word.isascii() and word.isalpha() and word.islower() and len(word) > 2)

    def phonemes(self, text: str) -> list[str]:
        """The phonemes of each sentence of a text."""
        return list(self.hibari.phonemize(text))

    def speak(self, phonemes: str, seed: int, *, speed: float = 1.0, shift: float = 1.0) -> Spoken:
        """Say a sentence.

        Args:
            phonemes: of the sentence.
            seed: of the noise in it.
            speed: factor of tempo.
            shift: factor of pitch and formants, to the per cent: what is said slower and played faster, or the other
                way round, is another speaker. 1 is the teacher's own.
        """
        from hibari import dsp

        shift = round(100 * shift) / 100
        ids = self.hibari.ids(phonemes)
        feed = {"ids": np.asarray([ids], np.int64), "speed": np.asarray([speed / shift], np.float32)}
        *parts, pitch, durations, energy = self._session.run(None, feed)
        pitch, energy = np.where(pitch[0] > VOICED, pitch[0], 0.0).astype(np.float32), energy.reshape(-1)
        samples = dsp.synth(*(part[0] for part in parts), pitch, np.random.default_rng(seed))
        pulses = dsp.pulses(pitch, fmax=11000.0 / max(shift, 1.0))
        ends = np.cumsum(durations.reshape(-1).astype(np.int64))
        if shift != 1.0:
            ends = np.maximum(np.round(ends / shift).astype(np.int64), np.arange(1, len(ends) + 1))
            samples, pulses = (_played(x, shift, ends[-1] * UNIT) for x in (samples, pulses))
            pitch, energy = (
                shift * _stretched_pitch(pitch, shift, 2 * ends[-1]),
                _stretched(energy, shift, 2 * ends[-1]),
            )
        durations = np.diff(ends, prepend=0)
        return Spoken(np.asarray(ids), durations, pitch.astype(np.float32), energy.astype(np.float32), samples, pulses)


def _played(samples: np.ndarray, shift: float, length: int) -> np.ndarray:
    """Play ``shift`` times as fast, cut or filled up to ``length`` samples."""
    played = resample(samples, round(100 * shift) * RATE // 100, RATE)[:length]
    return np.pad(played, (0, length - len(played)))


def _sources(shift: float, length: int) -> np.ndarray:
    """Where in a curve its frames lie that are played ``shift`` times as fast."""
    return (np.arange(length) + 0.5) * shift - 0.5


def _stretched(curve: np.ndarray, shift: float, length: int) -> np.ndarray:
    return np.interp(_sources(shift, length), np.arange(len(curve)), curve)


def _stretched_pitch(pitch: np.ndarray, shift: float, length: int) -> np.ndarray:
    """Between voiced frames on a line; none where the nearest frame has none."""
    known = np.flatnonzero(pitch)
    if not len(known):
        return np.zeros(length, np.float32)
    at = _sources(shift, length)
    nearest = pitch[np.clip(np.round(at).astype(int), 0, len(pitch) - 1)]
    return np.where(nearest > 0, np.interp(at, known, pitch[known]), 0.0)
