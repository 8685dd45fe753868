"""Windows of utterances: what is said in them is where the transcript says, however they are made."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from loquent.asr.whisper.tokenizer import WhisperTokenizer
from loquent.recipes.data.augment import Augmenter, AugmentOptions
from loquent.recipes.data.batching import BatchOptions
from loquent.recipes.data.manifest import SAMPLE_RATE, Utterance
from loquent.recipes.whisper.windows import TimedUtterance, WindowData, WindowOptions
from loquent.recipes.whisper.word_times import TimedText
from loquent.speech.audio.files import write_audio
from loquent.speech.hub import resolve

QUIET = AugmentOptions(speed=(0.8, 1.2), gain_db=(0.0, 0.0), padding_s=(0.0, 0.5))


@pytest.fixture(scope="module")
def tokenizer() -> WhisperTokenizer:
    return WhisperTokenizer.load(resolve("tiny.en").path)


@pytest.fixture(scope="module")
def utterances(tmp_path_factory: pytest.TempPathFactory) -> list[TimedUtterance]:
    """Recordings in which each word is a click at the time of its end."""
    folder = tmp_path_factory.mktemp("clicks")
    made = []
    for number in range(9):
        duration, words = 1.0 + 0.5 * number, []
        samples = np.zeros(round(duration * SAMPLE_RATE), np.float32)
        for at in range(1, int(duration / 0.4)):
            end = 0.4 * at
            samples[round(end * SAMPLE_RATE) - 80 : round(end * SAMPLE_RATE)] = 0.5
            words.append((f" word{at}", end - 0.2, end))
        path = folder / f"{number}.wav"
        write_audio(path, samples, SAMPLE_RATE)
        row = Utterance(str(path), "", duration, id=f"clicks/{number}", language="en" if number % 3 else "de")
        made.append(TimedUtterance(row, TimedText(tuple(words), 1.0)))
    return made


def windows_of(
    utterances: list[TimedUtterance], tokenizer: WhisperTokenizer, seed: int = 0, **options: float
) -> WindowData:
    english = [
        dataclasses.replace(one, row=dataclasses.replace(one.row, language="en")) for one in utterances
    ] if not tokenizer.is_multilingual else utterances  # fmt: skip
    chosen = dataclasses.replace(WindowOptions(joined=0.7, longest_s=20, level_db=(0.0, 0.0)), **options)
    batch = BatchOptions(duration_s=40, buckets=2)
    return WindowData([(english, 1.0)], tokenizer, chosen, batch, QUIET, (), seed, context=24)


@settings(max_examples=5, deadline=None)
@given(st.integers(0, 1000))
def test_words_are_where_the_transcript_says(
    utterances: list[TimedUtterance], tokenizer: WhisperTokenizer, seed: int
) -> None:
    data = windows_of(utterances, tokenizer, seed, continued=0.5, noise_only=0.0)
    for window in data.windows(epoch=0):
        samples, _, transcript = data.make(window, epoch=0)
        clicks = np.flatnonzero(np.abs(samples) > 0.2) / SAMPLE_RATE
        last = np.append(np.diff(clicks) > 0.05, True)  # of each click
        text = tokenizer.decode(transcript.tokens)
        spoken = [end for end, token in zip(transcript.ends, transcript.tokens, strict=True)
                  if tokenizer.decode([token])[-1:].isdigit()]  # fmt: skip
        assert len(spoken) == text.count("word")
        np.testing.assert_allclose(clicks[last][-len(spoken) :] if spoken else [], spoken, atol=0.02)
        assert transcript.ends == sorted(transcript.ends)
        prompt = transcript.control[: -len(tokenizer.sot_sequence("en", timestamps=False))]
        assert prompt == [] or prompt[0] == tokenizer.sot_prev
        assert len(prompt) <= 25
        if not prompt:
            assert abs(len(samples) / SAMPLE_RATE - data.duration(window)) < 0.01
        assert len(samples) / SAMPLE_RATE < 29.95


def test_an_epoch_has_every_utterance_once_and_is_the_same_every_time(
    utterances: list[TimedUtterance], tokenizer: WhisperTokenizer
) -> None:
    data = windows_of(utterances, tokenizer, noise_only=0.3)
    windows = data.windows(epoch=3)
    assert sorted(number for window in windows for number in window.utterances) == list(range(len(utterances)))
    assert any(len(window.utterances) > 1 for window in windows)
    assert any(not window.utterances for window in windows)
    assert windows == windows_of(utterances, tokenizer, noise_only=0.3).windows(epoch=3)
    assert windows != data.windows(epoch=4)
    batches = data.batches(epoch=3)
    assert sorted(window.seed for batch in batches for window in batch) == sorted(window.seed for window in windows)
    first, again = data.collate(batches[0], 3), data.collate(batches[0], 3)
    assert torch.equal(first["samples"], again["samples"])
    assert first["transcripts"] == again["transcripts"]


def test_the_clean_window_is_the_one_before_noise_and_lines(
    utterances: list[TimedUtterance], tokenizer: WhisperTokenizer
) -> None:
    """A teacher hears it: the same words at the same times."""
    quiet, noisy = (windows_of(utterances, tokenizer, noise_only=0.0) for _ in range(2))
    noisy.augment = Augmenter(
        AugmentOptions((1.0, 1.0), gain_db=(0.0, 0.0), noise=1.0, telephone=0.5, padding_s=(0.0, 0.0))
    )
    for window in quiet.windows(0)[:5]:
        expected, made = quiet.make(window, 0), noisy.make(window, 0)
        np.testing.assert_array_equal(made.clean, expected.samples)
        assert made.samples.shape == made.clean.shape
        assert float(np.abs(made.samples - made.clean).max()) > 1e-3
        assert made.transcript == expected.transcript


def test_nobody_speaks_in_noise(utterances: list[TimedUtterance], tokenizer: WhisperTokenizer) -> None:
    data = windows_of(utterances, tokenizer, noise_only=1.0)
    silent = [window for window in data.windows(0) if not window.utterances]
    for window in silent:
        samples, _, transcript = data.make(window, 0)
        assert transcript.tokens == []
        assert abs(len(samples) / SAMPLE_RATE - window.silences[0]) < 0.01
    assert len(silent) == sum(1 for window in data.windows(0) if window.utterances)


def test_a_long_recording_fits_however_slowly_it_is_played(tokenizer: WhisperTokenizer) -> None:
    row = Utterance("", "", 28.9, id="long")
    one = TimedUtterance(row, TimedText(((" word", 0.0, 1.0),), 1.0))
    data = windows_of([one] * 20, tokenizer, longest_s=29)
    assert all(data.duration(window) <= 29.91 for window in data.windows(0))


def test_longer_windows_than_the_model_hears_are_refused() -> None:
    with pytest.raises(ValueError, match="longest_s"):
        WindowOptions(longest_s=31)
