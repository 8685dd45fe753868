"""Speaker labels: how voices are told apart, and what is labelled with them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from loquent.asr.recordings.recording import SAMPLE_RATE, RecordingSource, open_blocks
from loquent.asr.speakers.clustering import Voices
from loquent.speech.nn.state import MOST
from loquent.speech.transcript import Transcript

HOP_S = 0.5  # between places that are looked at
KEPT_S = 12.0  # audio that is kept of a stream: how late a word may come


class SpeakerEmbedding(Protocol):
    """A model that makes vectors of speech, whose directions are near each other if the voice is the same.

    fingerprint: tells its weights from others: a stream goes on with the model that it began with.
    """

    fingerprint: str

    def __call__(self, samples: np.ndarray) -> np.ndarray:
        """The vector (D,) of a stretch of speech, (N,) float32 at 16 kHz. The same samples give the same vector."""


@dataclass(frozen=True)
class SpeakerLabels:
    """How speakers are told apart: the audio around each word is made a vector, and these are clustered online.

    No model for it comes with loquent. Words carry the number of their speaker, in the order of first speaking; numbers
    mean nothing beyond the stream or the recording.

    embedding: the model.
    threshold: cosine from which two stretches are of the same voice; it depends on the model.
    most:      speakers that there may be; further voices count as the nearest one.
    window_s:  length of the stretches, in seconds.

    Source: vectors of sliding windows, clustered online, as in Wang et al. 2018 (arXiv 1710.10468).
    """

    embedding: SpeakerEmbedding
    threshold: float = 0.5
    most: int = 8
    window_s: float = 1.5

    def __post_init__(self) -> None:
        if not -1 <= self.threshold <= 1:
            raise ValueError(f"threshold: expected a cosine from -1 to 1, got {self.threshold}")
        if not 1 <= self.most <= 64:
            raise ValueError(f"most: expected 1 to 64 speakers, got {self.most}")
        if not 0.5 <= self.window_s <= 5:
            raise ValueError(f"window_s: expected 0.5 to 5 seconds, got {self.window_s}")

    def transcript(self, transcript: Transcript, source: RecordingSource) -> Transcript:
        """Label what was recognised in a recording: its words if they are timed, and its segments.

        Args:
            source: the recording, which is read once more.

        Raises:
            AudioError: it cannot be read.
        """
        opened, voices, most = open_blocks(source), Voices(), round(KEPT_S * SAMPLE_RATE)
        kept, first = np.zeros(0, np.float32), 0  # the latest samples, and the number of the first of them

        def speaker(middle_s: float) -> int:
            nonlocal kept, first
            _, end = self.stretch(middle_s, 0, MOST)
            while first + len(kept) < end and (block := next(opened.blocks, None)) is not None:
                first += max(len(kept) - most, 0)
                kept = np.concatenate([kept[-most:], block[0].numpy()])
            begin, end = self.stretch(middle_s, first, first + len(kept))
            return self.speaker(voices, end, lambda: kept[begin - first : end - first])

        segments = []
        for segment in transcript.segments:
            words = tuple(dataclasses.replace(w, speaker=speaker((w.start + w.end) / 2)) for w in segment.words)
            spans = [(word.speaker, word.end - word.start) for word in words]
            if not words:
                spans = [(speaker(float(at)), HOP_S) for at in np.arange(segment.start, segment.end, HOP_S)]
            segments.append(dataclasses.replace(segment, words=words, speaker=main_speaker(spans)))
        opened.blocks.close()
        return dataclasses.replace(transcript, segments=tuple(segments))

    def speaker(self, voices: Voices, place: int, samples: Callable[[], np.ndarray]) -> int:
        """Whose voice a stretch has.

        Args:
            voices: of the stream, updated.
            place: number of the sample after the stretch.
            samples: gives it, if it is a new one.
        """
        if (voice := voices.known(place)) is None:
            voice = voices.assign(place, self.embedding(samples()), self.threshold, self.most)
        return voice

    def stretch(self, middle_s: float, earliest: int, heard: int) -> tuple[int, int]:
        """The stretch for a word: the number of its first sample, and of the one after its last.

        Args:
            middle_s: of the word, in seconds.
            earliest, heard: samples that there are: the number of the first, and of the one after the last.
        """
        window, hop = round(self.window_s * SAMPLE_RATE), round(HOP_S * SAMPLE_RATE)
        begin = round(middle_s * SAMPLE_RATE / hop) * hop - window // 2
        begin = max(min(begin, heard - window), earliest)
        return begin, min(begin + window, heard)


def main_speaker(spans: Iterable[tuple[int | None, float]]) -> int | None:
    """Who speaks longest, of speakers with seconds; the first of equals, None of none."""
    seconds: dict[int, float] = {}
    for speaker, span in spans:
        if speaker is not None:
            seconds[speaker] = seconds.get(speaker, 0.0) + span
    return max(seconds, key=seconds.__getitem__, default=None)
