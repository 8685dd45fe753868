from __future__ import annotations

import itertools

import numpy as np
import pytest

from loquent.asr.whisper.alignment import AlignedWord, merge_punctuation, words_of_segments
from loquent.asr.whisper.model import Whisper
from loquent.asr.whisper.offline.options import TranscribeOptions
from loquent.asr.whisper.recognizer import WhisperRecognizer
from loquent.asr.whisper.tokenizer import WhisperTokenizer
from loquent.speech.transcript import Transcript

BEFORE, AFTER = TranscribeOptions().prepend_punctuations, TranscribeOptions().append_punctuations


def words(*spans: tuple[str, float, float]) -> list[AlignedWord]:
    return [AlignedWord(text, (index,), start, end, 0.9) for index, (text, start, end) in enumerate(spans)]


@pytest.fixture(scope="module")
def transcript(tiny_en: Whisper, tokenizer: WhisperTokenizer, sample: np.ndarray) -> Transcript:
    return WhisperRecognizer(tiny_en, tokenizer).transcribe(sample, word_timestamps=True, beam_size=1)


def test_the_samples_words_are_timed(transcript: Transcript) -> None:
    timed = [word for segment in transcript.segments for word in segment.words]
    assert "".join(word.text for word in timed).strip() == transcript.text
    assert all(earlier.end <= later.start + 1e-6 for earlier, later in itertools.pairwise(timed))
    assert all(word.confidence is not None and 0 < word.confidence <= 1 for word in timed)
    by_text = {word.text.strip(" .,"): word for word in timed}
    # The pauses after "speaking" and "1843" lie at 4.2 and 7.9 s of the recording.
    assert by_text["speaking"].end == pytest.approx(4.2, abs=0.3)
    assert by_text["Today"].start == pytest.approx(9.0, abs=0.4)
    assert transcript.segments[-1].end <= transcript.duration_s


def test_segments_begin_and_end_with_their_words(transcript: Transcript) -> None:
    for segment in transcript.segments:
        assert segment.start == segment.words[0].start
        assert segment.end == segment.words[-1].end


def test_punctuation_joins_the_word_it_belongs_to() -> None:
    merged = merge_punctuation(
        words((' "', 0, 1), ("Yes", 1, 2), (",", 2, 3), (" no", 3, 4), ("?", 4, 5)), BEFORE, AFTER
    )
    assert [(word.text, word.start, word.end) for word in merged] == [(' "Yes,', 1, 2), (" no?", 3, 4)]
    assert [token for word in merged for token in word.tokens] == [0, 1, 2, 3, 4]


def test_a_word_that_reaches_into_a_pause_is_shortened() -> None:
    timed = words((" one", 0.0, 4.0), (" two", 4.0, 4.3), (" three", 4.3, 4.6), (" four", 4.6, 4.9))
    ((start, end, mine),) = words_of_segments(timed, [4], [(3.5, 5.0)], -10.0, BEFORE, AFTER)
    assert (start, end) == (mine[0].start, 4.9)
    assert mine[0].length == pytest.approx(0.6)  # twice the median
    assert [word.text for word in mine] == [" one", " two", " three", " four"]


def test_words_are_dealt_out_by_tokens_and_none_is_lost() -> None:
    timed = words((" a", 0.0, 0.3), (" b", 0.3, 0.6), (" c", 1.0, 1.3))
    placed = words_of_segments(timed, [2, 0, 1], [(0.0, 0.6), (0.6, 0.7), (1.0, 1.3)], 0.0, BEFORE, AFTER)
    assert [[word.text for word in mine] for _, _, mine in placed] == [[" a", " b"], [], [" c"]]
    assert placed[1][:2] == (0.6, 0.7)
