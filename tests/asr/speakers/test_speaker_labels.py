"""Speakers told apart by a model that is brought along: here one that knows how high a voice is, and nothing else."""

from __future__ import annotations

import dataclasses
import json
import math
from typing import Any

import numpy as np
import pytest

from loquent.asr.conformer.model import ConformerModel
from loquent.asr.conformer.options import ConformerOptions
from loquent.asr.conformer.recognizer import ConformerRecognizer
from loquent.asr.conformer.task import ConformerStreamingTask
from loquent.asr.conformer.tokenizer import SubwordTokenizer
from loquent.asr.speakers import SpeakerLabels, SpeakerTask
from loquent.asr.speakers.clustering import FOLLOWED, MOST_LABELS, Voices
from loquent.asr.whisper.live.options import StreamingOptions
from loquent.asr.whisper.live.task import WhisperStreamingTask
from loquent.asr.whisper.model import Whisper
from loquent.asr.whisper.recognizer import WhisperRecognizer
from loquent.asr.whisper.tokenizer import WhisperTokenizer
from loquent.speech.audio.resample import resample
from loquent.speech.runtime.engine import Engine
from loquent.speech.runtime.events import Event, Final, Word
from loquent.speech.runtime.task import Relaxing
from loquent.speech.transcript import Segment, Transcript, WordTiming

RATE = 16_000
FRAME, HOP, SHORTEST, LONGEST = 640, 320, 40, 230  # samples: of frames, and of the periods of voices


class Pitch:
    """The usual period of a voice, as an angle: half an octave is about a right angle."""

    fingerprint = "pitch"
    calls = 0

    def __call__(self, samples: np.ndarray) -> np.ndarray:
        self.calls += 1
        frames = np.lib.stride_tricks.sliding_window_view(samples, FRAME)[::HOP]
        loud = frames[(frames**2).mean(-1) >= np.median((frames**2).mean(-1))]
        likeness = [np.correlate(frame, frame, "full")[FRAME - 1 :][SHORTEST:LONGEST] for frame in loud]
        angle = 3 * math.log2(SHORTEST + float(np.median(np.argmax(likeness, -1))))
        return np.array([math.cos(angle), math.sin(angle)])


LABELS = SpeakerLabels(Pitch(), threshold=0.4)


@pytest.fixture(scope="module")
def conversation(sample: np.ndarray) -> np.ndarray:
    """Two voices, one of which is the other one deeper: the first, the second, and the first again."""
    deeper = resample(sample[: 4 * RATE], 10_500, RATE)
    pause = np.zeros(RATE, np.float32)
    return np.concatenate([sample[: 4 * RATE], pause, deeper, pause, sample[: 4 * RATE]])


@pytest.fixture(scope="module")
def recognizer(tiny_en: Whisper, tokenizer: WhisperTokenizer) -> WhisperRecognizer:
    return WhisperRecognizer(tiny_en, tokenizer)


def speakers_at(words: list[Any], times: tuple[float, ...]) -> list[int | None]:
    """Who spoke the word that is nearest to each time."""
    return [min(words, key=lambda word: abs(word.start + word.end - 2 * at)).speaker for at in times]


def test_words_and_utterances_of_live_speech_say_whose_they_are(
    recognizer: WhisperRecognizer, conversation: np.ndarray
) -> None:
    session = recognizer.session(policy="incremental", speakers=LABELS)
    events = session.push(conversation) + session.finish()
    words = [event for event in events if isinstance(event, Word)]
    first, second, third = speakers_at(words, (2.0, 8.0, 14.0))
    assert first == 0 == third != second
    finals = [event.speaker for event in events if isinstance(event, Final)]
    assert {first, second} <= set(finals)
    assert None not in [*finals, *(word.speaker for word in words)]
    plain = recognizer.session(policy="incremental")
    unlabelled = [dataclasses.replace(e, speaker=None) if isinstance(e, Word | Final) else e for e in events]
    assert [e.to_dict() for e in unlabelled] == [e.to_dict() for e in plain.push(conversation) + plain.finish()]
    assert Event.from_dict(words[0].to_dict()) == dataclasses.replace(words[0], **rounded(words[0]))


def rounded(word: Word) -> dict[str, float]:
    names = ("start", "end", "confidence", "emission_time")
    return {name: round(getattr(word, name), 4) for name in names}


@pytest.mark.parametrize("word_timestamps", [True, False], ids=["words", "segments"])
def test_recordings_are_labelled(
    recognizer: WhisperRecognizer, conversation: np.ndarray, word_timestamps: bool
) -> None:
    found = recognizer.transcribe(conversation, word_timestamps=word_timestamps, beam_size=1, speakers=LABELS)
    if word_timestamps:
        words = [word for segment in found.segments for word in segment.words]
        first, second, third = speakers_at(words, (2.0, 8.0, 14.0))
        assert first == 0 == third != second
    assert all(segment.speaker is not None for segment in found.segments)


def test_a_long_recording_is_read_once_and_its_labels_are_those_of_its_parts(conversation: np.ndarray) -> None:
    long = np.tile(conversation, 4)
    seconds = len(conversation) / RATE
    words = [WordTiming("x", at - 0.1, at + 0.1) for turn in range(4) for at in (turn * seconds + t for t in (2, 8))]
    segment = Segment(0.0, 4 * seconds, "x" * 8, tuple(words))
    embedding = Pitch()
    labels = SpeakerLabels(embedding, threshold=0.4)
    (labelled,) = labels.transcript(Transcript("", (segment,), "en", 1.0, 4 * seconds), long).segments
    assert [word.speaker for word in labelled.words] == [0, 1] * 4
    assert embedding.calls == 8


@pytest.mark.parametrize("kind", ["whisper", "conformer"])
def test_streams_with_speakers_obey_the_laws(
    kind: str,
    toy_whisper: Whisper,
    tokenizer: WhisperTokenizer,
    toy_conformer: tuple[ConformerModel, SubwordTokenizer],
    conversation: np.ndarray,
    task_laws: Any,
) -> None:
    task: Any = ConformerStreamingTask(*toy_conformer, ConformerOptions())
    if kind == "whisper":
        options = StreamingOptions(policy="alignatt", chunk_ms=500, overlap_s=1.0, tokens_per_second=4.0)
        task = WhisperStreamingTask(toy_whisper, tokenizer, options)
    inputs = [conversation[3 * RATE : 7 * RATE], conversation[6 * RATE : 8 * RATE]]
    labelling = SpeakerTask(task, LABELS)
    task_laws.check_task(task_laws.on_engine(labelling), inputs, examples=2)
    assert isinstance(labelling, Relaxing) == isinstance(task, Relaxing)


def test_a_stream_may_do_without(
    toy_conformer: tuple[ConformerModel, SubwordTokenizer], conversation: np.ndarray
) -> None:
    embedding = Pitch()
    recognizer = ConformerRecognizer(*toy_conformer)
    engine = Engine(SpeakerTask(recognizer.streaming_task(), SpeakerLabels(embedding)))
    session = engine.open(speakers=False, phrases=["fox"])
    events = session.push(conversation[: 5 * RATE]) + session.finish()
    assert embedding.calls == 0
    assert all("speaker" not in event.to_dict() for event in events)
    session = engine.open()
    session.configure(chunk_ms=80)
    with pytest.raises(ValueError, match="speakers: fixed at the start"):
        session.configure(speakers=False)
    with pytest.raises(ValueError, match="speakers: unknown"):
        Engine(recognizer.streaming_task()).open(speakers=True)


def test_a_broken_embedding_ends_its_stream(
    toy_conformer: tuple[ConformerModel, SubwordTokenizer], conversation: np.ndarray
) -> None:
    class Silent(Pitch):
        def __call__(self, samples: np.ndarray) -> np.ndarray:
            return np.zeros(4)

    session = Engine(SpeakerTask(ConformerRecognizer(*toy_conformer).streaming_task(), SpeakerLabels(Silent()))).open()
    events = session.push(conversation)
    assert events[-1].type == "failure"
    assert "speaker embedding is zero" in events[-1].message  # type: ignore[attr-defined]


def test_there_are_no_more_voices_than_asked_for_and_what_is_kept_is_bounded() -> None:
    draw, voices = np.random.default_rng(0), Voices()
    found = [voices.assign(place, draw.normal(size=16), 0.9, 3) for place in range(1000)]
    assert set(found) == {0, 1, 2}
    assert found[:3] == [0, 1, 2]
    assert len(voices.labels) == MOST_LABELS
    assert max(voices.counts) == FOLLOWED
    assert voices.known(999) == found[-1]
    assert voices.known(0) is None
    assert Voices.from_dict(json.loads(json.dumps(dataclasses.asdict(voices)))) == voices


@pytest.mark.parametrize(
    "change",
    [
        {"centres": [[1.0], [1.0, 0.0]]},
        {"centres": [[1.0, "x"]]},
        {"centres": [[2.0, 0.0]]},
        {"counts": [1, 1]},
        {"labels": [[0, 1]]},
        {"labels": [[-1, 0]]},
        {"labels": 3},
        {"more": 1},
    ],
)
def test_voices_that_are_none_are_refused(change: dict[str, Any]) -> None:
    sound = {"centres": [[1.0, 0.0]], "counts": [1], "labels": [[0, 0]]}
    assert Voices.from_dict(sound) == Voices([[1.0, 0.0]], [1], [(0, 0)])
    with pytest.raises(ValueError, match="not the voices"):
        Voices.from_dict(sound | change)


@pytest.mark.parametrize("wrong", [{"threshold": 2.0}, {"most": 0}, {"window_s": 0.1}])
def test_settings_that_make_no_sense_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        SpeakerLabels(Pitch(), **wrong)


def test_snapshots_go_on_under_the_same_embedding_only(toy_conformer: tuple[ConformerModel, SubwordTokenizer]) -> None:
    task = ConformerRecognizer(*toy_conformer).streaming_task()

    class Other(Pitch):
        fingerprint = "other"

    saved = Engine(SpeakerTask(task, LABELS)).open().snapshot()
    with pytest.raises(ValueError, match="another model"):
        Engine(SpeakerTask(task, SpeakerLabels(Other(), threshold=0.4))).restore(saved)
