"""Long recordings, many recordings, and what goes wrong with them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from loquent.asr.recordings.recording import MelRecording
from loquent.asr.whisper.model import Whisper
from loquent.asr.whisper.offline.decoding import WindowDecoder
from loquent.asr.whisper.offline.options import TranscribeOptions
from loquent.asr.whisper.offline.transcribe import transcribe
from loquent.asr.whisper.recognizer import WhisperRecognizer
from loquent.asr.whisper.tokenizer import WhisperTokenizer
from loquent.speech.audio.errors import AudioError
from loquent.speech.audio.features import WhisperLogMel, normalize_window
from loquent.speech.audio.files import Audio, write_audio
from loquent.speech.transcript import Segment, Transcript


@pytest.fixture(scope="module")
def real(tiny_en: Whisper, tokenizer: WhisperTokenizer) -> WhisperRecognizer:
    return WhisperRecognizer(tiny_en, tokenizer)


@pytest.fixture(scope="module")
def toy(toy_whisper: Whisper, tokenizer: WhisperTokenizer) -> WindowDecoder:
    return WindowDecoder(toy_whisper, tokenizer)


@pytest.fixture(scope="module")
def noises() -> list[np.ndarray]:
    """Recordings of 1 to 9 s; the toy's windows have 4 s."""
    generator = np.random.default_rng(0)
    return [(generator.standard_normal(round(16_000 * s)) * 0.1).astype(np.float32) for s in (6.3, 1.0, 9.1, 4.0)]


QUICK = {"beam_size": 2, "best_of": 2, "temperatures": (0.0, 0.6), "sample_len": 12}


def collect(toy: WindowDecoder, sources: list[np.ndarray], batch: int, **options: object) -> list[Transcript]:
    items = list(transcribe(toy, sources, TranscribeOptions(**(QUICK | options)), batch=batch))  # type: ignore[arg-type]
    for number in range(len(sources)):
        segments = [item for index, item in items if index == number and isinstance(item, Segment)]
        (whole,) = [item for index, item in items if index == number and isinstance(item, Transcript)]
        assert tuple(segments) == whole.segments, "what was yielded is not what the transcript holds"
    wholes = {index: item for index, item in items if isinstance(item, Transcript)}
    return [wholes[number] for number in range(len(sources))]


def rounded(transcript: Transcript) -> Transcript:
    """Products of matrices of different sizes may differ in the last digit, and so may probabilities."""
    return replace(
        transcript,
        segments=tuple(
            replace(
                one,
                words=tuple(replace(word, confidence=round(word.confidence, 5)) for word in one.words),
                avg_logprob=round(one.avg_logprob, 4),
                no_speech_prob=round(one.no_speech_prob, 4),
            )
            for one in transcript.segments
        ),
    )


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"condition_on_previous_text": False, "word_timestamps": True},
        {"without_timestamps": True, "initial_prompt": "Names: Ada", "prefix": "So"},
    ],
    ids=["prompted", "words", "text only"],
)
def test_a_recording_gives_the_same_in_every_batch(
    toy: WindowDecoder, noises: list[np.ndarray], options: dict[str, object]
) -> None:
    together = collect(toy, noises, 3, **options)
    for one, noise in zip(together, noises, strict=True):
        assert rounded(collect(toy, [noise], 1, **options)[0]) == rounded(one)
    assert any(one.segments for one in together)


def test_windows_of_a_long_recording_join_without_a_seam(real: WhisperRecognizer, sample: np.ndarray) -> None:
    """Three times the sample is 45 s: two windows, the second beginning where the timestamps of the first say."""
    sentence = "without losing the last word"
    found = real.transcribe(np.concatenate([sample] * 3), beam_size=1, temperatures=(0.0,))
    assert found.text.count(sentence) == 3
    assert found.text.lower().count("streaming recognition") == 3
    assert found.duration_s == pytest.approx(3 * len(sample) / 16_000)
    starts = [segment.start for segment in found.segments]
    assert starts == sorted(starts)
    assert found.segments[-1].end == pytest.approx(found.duration_s, abs=1.5)


def test_segments_tell_how_their_window_was_decoded(real: WhisperRecognizer, sample: np.ndarray) -> None:
    """faster-whisper 1.2.1 gives these values for the sample, and the same tokens."""
    found = real.transcribe(sample)
    for segment in found.segments:
        assert (segment.seek, segment.temperature) == (0, 0.0)
        assert segment.avg_logprob == pytest.approx(-0.1926, abs=2e-3)
        assert segment.compression_ratio == pytest.approx(1.31646, abs=1e-5)
        assert segment.no_speech_prob == pytest.approx(0.0361, abs=2e-3)
        begin, *text, end = segment.tokens or ()
        assert real.tokenizer.decode(text) == segment.text
        stamps = [real.tokenizer.timestamp_s(token) for token in (begin, end)]
        assert stamps == pytest.approx([segment.start, min(segment.end, stamps[1])], abs=0.01)


def test_seek_is_where_the_window_is_in_the_recording(real: WhisperRecognizer, first_sentence: np.ndarray) -> None:
    quick = {"beam_size": 1, "temperatures": (0.0,)}
    pause = np.zeros(40 * 16_000, np.float32)
    late = real.transcribe(np.concatenate([pause, first_sentence]), vad_filter=True, **quick)
    assert late.segments
    assert all(segment.seek == pytest.approx(4000, abs=100) for segment in late.segments)
    clip = real.transcribe(np.concatenate([pause, first_sentence]), clip_timestamps=(40.0,), **quick)
    assert clip.segments[0].seek == 4000


def test_silence_is_silent(real: WhisperRecognizer) -> None:
    found = real.transcribe(np.zeros(5 * 16_000, np.float32))
    assert found.text in ("", "you", "You")  # what the model is known to hear in digital silence


def test_a_clip_is_transcribed_alone(real: WhisperRecognizer, sample: np.ndarray) -> None:
    found = real.transcribe(sample, clip_timestamps=(4.6, 8.6), beam_size=1)
    assert "Lovelace dreamed" in found.text
    assert "Streaming" not in found.text
    assert "Today" not in found.text
    assert all(4.6 <= segment.start <= segment.end <= 8.6 for segment in found.segments)


PREFIXES = {
    "a few words": "Streaming recognition",
    "a sentence": "Streaming recognition writes each word down while you are still speaking.",
    "another's words": "Well, streaming recognition",
}


@pytest.mark.parametrize("options", [{}, {"without_timestamps": True}, {"word_timestamps": True}], ids=str)
@pytest.mark.parametrize("prefix", PREFIXES.values(), ids=PREFIXES)
def test_a_prefix_is_in_the_text_and_so_is_what_follows(
    real: WhisperRecognizer, sample: np.ndarray, prefix: str, options: dict[str, object]
) -> None:
    found = real.transcribe(sample[: round(8.6 * 16_000)], prefix=prefix, beam_size=1, **options)
    assert found.text.startswith(prefix)
    assert found.text.lower().count("still speaking") == 1
    assert found.text.endswith("machines in 1843.")


def test_a_prefix_that_is_the_whole_text_is_all_there_is(real: WhisperRecognizer, first_sentence: np.ndarray) -> None:
    prefix = PREFIXES["a sentence"]
    for options in ({}, {"without_timestamps": True}):
        assert real.transcribe(first_sentence, prefix=prefix, beam_size=1, **options).text == prefix


def test_a_prefix_begins_the_first_clip_and_is_never_cut(real: WhisperRecognizer, sample: np.ndarray) -> None:
    found = real.transcribe(sample, clip_timestamps=(4.6, 8.6), prefix="Ada Lovelace", beam_size=1)
    assert found.text.startswith("Ada Lovelace dreamed")
    with pytest.raises(ValueError, match="prefix: expected at most 223 tokens, got 4"):
        real.transcribe(sample, prefix="word " * 400)


def test_text_given_before_a_window_never_costs_its_text(
    real: WhisperRecognizer, first_sentence: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the model ends at once because of a prompt, the window is decoded without it."""
    decode, asked = WindowDecoder.decode, []

    def ends_at_once(self, memory, rows, options):  # type: ignore[no-untyped-def]
        asked.extend(options)
        results = decode(self, memory, rows, options)
        return [replace(r, tokens=(), text="") if o.prompt else r for r, o in zip(results, options, strict=True)]

    monkeypatch.setattr(WindowDecoder, "decode", ends_at_once)
    for option in ("initial_prompt", "hotwords"):
        asked.clear()
        assert "still speaking" in real.transcribe(first_sentence, beam_size=1, **{option: "A talk."}).text
        assert [bool(one.prompt) for one in asked] == [True, False]


def test_what_is_in_the_prompt_of_every_window(real: WhisperRecognizer, sample: np.ndarray) -> None:
    encode, seen = real.tokenizer.encode, []
    decode = WindowDecoder.decode

    def noted(self, memory, rows, options):  # type: ignore[no-untyped-def]
        seen.extend(options)
        return decode(self, memory, rows, options)

    quick = {"beam_size": 1, "temperatures": (0.0,), "condition_on_previous_text": False}
    quick |= {"sample_len": 4, "without_timestamps": True}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(WindowDecoder, "decode", noted)
        long = np.concatenate([sample] * 3)[: 40 * 16_000]
        for options, before in (
            ({"initial_prompt": "Ada."}, [" Ada.", ""]),
            ({"initial_prompt": "Ada.", "carry_initial_prompt": True}, [" Ada.", " Ada."]),
            ({"hotwords": "Lovelace", "initial_prompt": "Ada."}, [" Lovelace Ada.", " Lovelace"]),
            ({"hotwords": "Lovelace", "prefix": "Streaming"}, ["", " Lovelace"]),
        ):
            seen.clear()
            real.transcribe(long, **quick, **options)
            assert [real.tokenizer.decode(one.prompt) for one in seen[:2]] == before
            assert seen[0].prefix == tuple(encode(" Streaming") if "prefix" in options else ())


def test_every_window_may_have_its_language(
    base: WhisperRecognizer, sample: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    languages: list[str | None] = []
    decode = WindowDecoder.decode
    heard = iter([{"de": 0.8, "en": 0.2}, {"fr": 0.9}])

    def noted(self, memory, rows, options):  # type: ignore[no-untyped-def]
        languages.extend(one.language for one in options)
        return decode(self, memory, rows, options)

    monkeypatch.setattr(WindowDecoder, "decode", noted)
    monkeypatch.setattr(WindowDecoder, "detect_language", lambda self, memory, rows: [next(heard) for _ in rows])
    quick = {"temperatures": (0.0,), "beam_size": 1, "sample_len": 4, "without_timestamps": True}
    found = base.transcribe(np.concatenate([sample] * 3)[: 40 * 16_000], multilingual=True, **quick)
    assert languages == ["de", "fr"]
    assert (found.language, found.language_probability) == ("de", 0.8)


def test_files_of_any_rate_and_a_bad_one_among_them(
    real: WhisperRecognizer, sample: np.ndarray, tmp_path: Path
) -> None:
    write_audio(tmp_path / "a.wav", sample[: 5 * 16_000], 16_000)
    (tmp_path / "b.wav").write_bytes(b"not audio at all")
    write_audio(tmp_path / "odd.wav", sample[:3999], 3999)
    first, bad, missing, odd = real.transcribe_files(
        [tmp_path / name for name in ("a.wav", "b.wav", "c.wav", "odd.wav")], beam_size=1
    )
    assert isinstance(first, Transcript)
    assert first.text.startswith("Streaming recognition")
    assert isinstance(bad, AudioError)
    assert isinstance(missing, AudioError)
    assert isinstance(odd, AudioError)
    assert "odd.wav' cannot be resampled: sample rate 3999 Hz" in str(odd)
    with pytest.raises(AudioError, match="no such audio file"):
        real.transcribe(tmp_path / "c.wav")


def test_progress_ends_at_the_end(toy: WindowDecoder, noises: list[np.ndarray]) -> None:
    calls: list[tuple[int, float, float | None]] = []
    list(transcribe(toy, noises[:1], TranscribeOptions(**QUICK), progress=lambda *call: calls.append(call)))  # type: ignore[arg-type]
    assert [done for _, done, _ in calls] == sorted(done for _, done, _ in calls)
    assert calls[-1][1] >= 6.3 - 0.02
    assert calls[-1][2] == pytest.approx(6.3)


def test_a_recording_is_whispers_features_whatever_its_length_and_rate(sample: np.ndarray) -> None:
    recording = MelRecording(sample)
    size = recording.size_until(3000)
    expected = normalize_window(WhisperLogMel()(torch.from_numpy(sample)[None]))[0]
    assert size == len(expected) == recording.frames
    torch.testing.assert_close(recording.window(0, size).mel, expected)
    doubled = MelRecording(Audio(np.repeat(sample, 2), 32_000))
    assert abs(doubled.size_until(3000) - size) <= 1


def test_a_long_recording_is_forgotten_behind() -> None:
    recording = MelRecording(np.zeros(16_000 * 200, np.float32))
    for start in range(0, 17_000, 2500):
        assert recording.window(start, recording.size_until(start + 3000)).mel.shape == (3000, 80)
        assert len(recording._held.mel) <= 4001
    with pytest.raises(ValueError, match="gone or do not exist"):
        recording.window(0, 100)


def test_options_that_cannot_be_are_refused() -> None:
    with pytest.raises(ValueError, match="temperatures: expected at least one"):
        TranscribeOptions(temperatures=())
    with pytest.raises(ValueError, match="needs word_timestamps"):
        TranscribeOptions(hallucination_silence_threshold=2.0)
    with pytest.raises(ValueError, match="must not decrease"):
        TranscribeOptions(clip_timestamps=(3.0, 2.0))
    for wrong in (
        {"beam_size": 0},
        {"best_of": 0},
        {"sample_len": 0},
        {"patience": 0.0},
        {"repetition_penalty": -1.0},
        {"no_repeat_ngram_size": -1},
        {"temperatures": (-0.2,)},
        {"suppress_tokens": (-2,)},
        {"language": "xx"},
        {"multilingual": True, "language": "de"},
        {"carry_initial_prompt": True},
    ):
        with pytest.raises(ValueError, match=f"^{next(iter(wrong))}: "):
            TranscribeOptions(**wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("beam_size", [1, 5])
def test_tokens_of_a_segment_make_up_its_text(real: WhisperRecognizer, sample: np.ndarray, beam_size: int) -> None:
    told = real.transcribe(sample, token_logprobs=True, beam_size=beam_size)
    plain = real.transcribe(sample, beam_size=beam_size)
    assert told.text == plain.text
    assert [segment.logprobs for segment in plain.segments] == [None] * len(plain.segments)
    for segment in told.segments:
        assert segment.logprobs is not None
        assert bytes(byte for one in segment.logprobs for byte in one.bytes).decode() == segment.text
        assert "".join(one.text for one in segment.logprobs) == segment.text
        assert all(one.logprob <= 0 for one in segment.logprobs)
