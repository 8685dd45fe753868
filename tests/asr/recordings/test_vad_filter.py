"""Recordings whose pauses are left out: the same words at the same times, however they are read and batched."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from loquent.asr.recordings.recording import Frames, MelRecording
from loquent.asr.recordings.speech_filter import SpeechFilter
from loquent.asr.whisper.model import Whisper
from loquent.asr.whisper.offline.decoding import WindowDecoder
from loquent.asr.whisper.offline.options import TranscribeOptions
from loquent.asr.whisper.offline.transcribe import transcribe
from loquent.asr.whisper.recognizer import WhisperRecognizer
from loquent.asr.whisper.tokenizer import WhisperTokenizer
from loquent.speech.audio.endpoint import FILTERED_SPEECH, speech_segments
from loquent.speech.audio.errors import AudioError
from loquent.speech.audio.features import WhisperLogMel
from loquent.speech.audio.vad import SileroVad
from loquent.speech.transcript import Segment, Transcript

PAUSES = ((0.0, 10.0), (4.6, 20.0), (8.8, 40.0), (15.0, 15.0))  # inserted at a second of the sample, so many seconds
QUICK = {"beam_size": 1, "temperatures": (0.0,)}


@pytest.fixture(scope="module")
def real(tiny_en: Whisper, tokenizer: WhisperTokenizer) -> WhisperRecognizer:
    return WhisperRecognizer(tiny_en, tokenizer)


@pytest.fixture(scope="module")
def plain(real: WhisperRecognizer, sample: np.ndarray) -> Transcript:
    return real.transcribe(sample, word_timestamps=True, **QUICK)


@pytest.fixture(scope="module")
def vad() -> SileroVad:
    return SileroVad.from_pretrained()


def hush(seconds: float) -> np.ndarray:
    """The noise of a quiet room."""
    noise = np.random.default_rng(0).standard_normal(round(16_000 * seconds))
    return (noise * 1e-3).astype(np.float32)


@pytest.fixture(scope="module")
def interrupted(sample: np.ndarray) -> np.ndarray:
    """The sample with long pauses between its sentences and around them, 100 s."""
    pieces, done = [], 0
    for at, seconds in PAUSES:
        cut = round(at * 16_000)
        pieces += [sample[done:cut], hush(seconds)]
        done = cut
    return np.concatenate(pieces)


def later(second: float) -> float:
    """When the sample's second is heard in the interrupted one."""
    return second + sum(seconds for at, seconds in PAUSES if at <= second)


@pytest.mark.parametrize("prompted", [True, False])
def test_same_words_at_their_own_times(
    real: WhisperRecognizer, plain: Transcript, interrupted: np.ndarray, prompted: bool
) -> None:
    found = real.transcribe(
        interrupted, vad_filter=True, condition_on_previous_text=prompted, word_timestamps=True, **QUICK
    )
    assert found.text.lower() == plain.text.lower()  # it is not sure about "ADA"
    assert found.duration_s == pytest.approx(len(interrupted) / 16_000)
    expected, words = ([word for segment in one.segments for word in segment.words] for one in (plain, found))
    assert len(words) == len(expected)
    for word, other in zip(words, expected, strict=True):
        assert word.start == pytest.approx(later(other.start), abs=0.3)
        assert word.end == pytest.approx(later(other.end), abs=0.3)
    for segment in found.segments:
        assert (segment.start, segment.end) == (segment.words[0].start, segment.words[-1].end)


def test_segments_without_word_times_keep_out_of_pauses(real: WhisperRecognizer, interrupted: np.ndarray) -> None:
    found = real.transcribe(interrupted, vad_filter=True, **QUICK)
    starts = [segment.start for segment in found.segments]
    np.testing.assert_allclose(starts, [later(second) for second in (0.0, 4.98, 9.0)], atol=0.3)
    assert all(segment.end - segment.start < 6 for segment in found.segments)


def test_nothing_is_lost_between_windows_of_one_batch(
    real: WhisperRecognizer, plain: Transcript, sample: np.ndarray
) -> None:
    """45 s without a pause of two seconds: cut where it hurts least."""
    found = real.transcribe(np.tile(sample, 3), vad_filter=True, condition_on_previous_text=False, **QUICK)
    assert found.text.lower().split() == plain.text.lower().split() * 3
    starts = [segment.start for segment in found.segments]
    assert starts == sorted(starts)


@pytest.mark.parametrize("prompted", [True, False])
def test_silence_gives_nothing(real: WhisperRecognizer, prompted: bool) -> None:
    for silence in (hush(35), np.zeros(16_000, np.float32), np.zeros(0, np.float32)):
        found = real.transcribe(silence, vad_filter=True, condition_on_previous_text=prompted)
        assert (found.text, found.segments) == ("", ())
        assert found.duration_s == len(silence) / 16_000


def exact(item: Segment | Transcript | AudioError) -> object:
    """What has to be the same for every batch; probabilities may differ in their last digits."""
    rounded = {"avg_logprob": None, "no_speech_prob": None}
    if isinstance(item, Segment):
        return dataclasses.replace(item, **rounded)
    if isinstance(item, Transcript):
        return dataclasses.replace(item, segments=tuple(dataclasses.replace(one, **rounded) for one in item.segments))
    return item


def test_the_batch_changes_nothing(
    toy_whisper: Whisper, tokenizer: WhisperTokenizer, sample: np.ndarray, interrupted: np.ndarray
) -> None:
    """The toy's windows have 4 s, so that each recording has several passages."""
    toy = WindowDecoder(toy_whisper, tokenizer)
    options = TranscribeOptions(
        beam_size=2, best_of=2, temperatures=(0.0, 0.6), sample_len=8, vad_filter=True, condition_on_previous_text=False
    )
    sources = [interrupted, "nowhere.wav", hush(3), sample[: 6 * 16_000]]
    runs = []
    for batch in (1, 3, 8):
        items = list(transcribe(toy, sources, options, batch=batch))
        runs.append([[item for number, item in items if number == wanted] for wanted in range(len(sources))])
    for long, missing, silent, short in runs:
        assert isinstance(missing[0], AudioError)
        assert isinstance(silent[0], Transcript)
        for *segments, whole in (long, short):
            assert isinstance(whole, Transcript)
            assert tuple(segments) == whole.segments
            times = [time for one in segments if isinstance(one, Segment) for time in (one.start, one.end)]
            assert times == sorted(times)
    comparable = [[list(map(exact, items)) for items in (long, silent, short)] for long, _, silent, short in runs]
    assert comparable[0] == comparable[1] == comparable[2]
    assert len(runs[0][0]) > 4


@settings(max_examples=5, deadline=None)
@given(sizes=st.lists(st.integers(1, 200_000), min_size=1, max_size=4))
def test_what_is_kept_does_not_depend_on_the_blocks(vad: SileroVad, interrupted: np.ndarray, sizes: list[int]) -> None:
    """It is what `speech_segments` finds in the whole."""
    samples = torch.from_numpy(interrupted[: 40 * 16_000])[None]
    probabilities = vad(samples)[0]
    expected = [
        frame
        for start, end in speech_segments(probabilities.tolist(), FILTERED_SPEECH)
        for frame in range(round(100 * start), round(100 * end))
    ]
    extract, keep = WhisperLogMel(), SpeechFilter(vad)
    state, kept, done = extract.initial_state(1), [], 0
    for size in itertools.chain(sizes, itertools.repeat(160_000)):
        block = samples[:, done : done + size]
        last = done + size >= samples.shape[1]
        kept.append(keep.step(block, extract.step(block, state, last=last).data[0], last=last))
        done += size
        if last:
            break
    mel, places, speech = (torch.cat(parts) for parts in zip(*kept, strict=True))
    assert places.tolist() == expected
    torch.testing.assert_close(mel, extract(samples)[0][places])
    torch.testing.assert_close(speech, probabilities[places * 160 // 512])


def test_memory_is_bounded(vad: SileroVad, sample: np.ndarray) -> None:
    """Six minutes, half of them silent, hold no more than a passage and the block that is being read."""
    recording = MelRecording(np.tile(np.concatenate([sample, hush(15)]), 12), vad=vad)
    ends = []
    for passage in recording.passages(3000):
        assert passage.start == (ends[-1] if ends else 0)
        assert len(passage.mel) <= 3000
        assert len(recording._held.mel) <= 5000
        assert recording._filter is not None
        assert recording._filter._mel is not None
        assert len(recording._filter._mel) <= 300
        ends.append(passage.frames)
    assert ends[-1] == recording.frames
    assert recording.frames < 12 * (15 + 2) * 100


def test_times_at_a_cut_belong_to_the_nearer_speech() -> None:
    """Frames 0 … 199 and 1000 … 1199, of which 160 … 199 and 1000 … 1039 are padding."""
    places = torch.cat([torch.arange(200), torch.arange(1000, 1200)])
    frames = Frames(50, torch.zeros(400, 80), places, torch.ones(400))
    assert frames.original_times(0.5, 1.5) == (0.0, 1.0)
    assert frames.original_times(3.0, 4.0) == (10.5, 11.5)
    assert frames.original_times(2.2, 4.0) == (10.3, 11.5)  # began in the padding before the cut
    assert frames.original_times(1.0, 2.7) == (0.5, 1.7)  # ended in the padding after it
    assert frames.original_times(2.1, 2.8) == (1.6, 2.0)  # the longer part of what is short on both sides
    assert frames.original_times(0.5, 4.5) == (0.0, 12.0)  # a pause within a segment
    assert frames.original_times(4.5, 4.5) == (12.0, 12.0)


def test_two_filters_at_once_are_refused() -> None:
    with pytest.raises(ValueError, match="vad_filter: clip_timestamps says"):
        TranscribeOptions(vad_filter=True, clip_timestamps=(1.0, 2.0))
