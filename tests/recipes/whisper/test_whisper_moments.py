"""What should have been written when: targets at the ends of chunks, and their layout."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from loquent.recipes.whisper.moments import (
    NOTHING,
    Moment,
    MomentOptions,
    Transcript,
    pack,
    sample_moments,
    token_ends,
)

EOT = 999
CPU = torch.device("cpu")
few = settings(max_examples=60, deadline=None)


@st.composite
def transcripts(draw: st.DrawFn) -> Transcript:
    """Up to a dozen words of one to three tokens within 10 s."""
    edges = sorted(draw(st.lists(st.floats(0, 10), min_size=0, max_size=24)))
    words = [(draw(st.sampled_from(["a", "."])), *span) for span in zip(edges[::2], edges[1::2], strict=False)]
    counts = [draw(st.integers(1, 3)) for _ in words]
    return Transcript([500, 501][: draw(st.integers(1, 2))], list(range(sum(counts))), token_ends(words, counts))


def test_words_are_due_whole() -> None:
    assert token_ends([(" one", 1.0, 1.6), (" two", 1.6, 2.0)], [3, 1]) == [1.6, 1.6, 1.6, 2.0]


def test_silence_does_not_hold_punctuation_up() -> None:
    words = [(" late", 0.0, 2.0), (".", 2.0, 9.0), (" later", 9.0, 10.0)]
    assert token_ends(words, [2, 1, 1]) == [2.0, 2.0, 2.2, 10.0]


@few
@given(transcripts())
def test_tokens_are_said_in_order(transcript: Transcript) -> None:
    assert transcript.ends == sorted(transcript.ends)


@few
@given(
    transcripts(),
    st.integers(1, 500),
    st.integers(1, 50),
    st.floats(0.01, 1),
    st.integers(0, 400),
    st.integers(0, 2**31),
)
def test_at_the_end_of_a_chunk_what_has_been_said_is_due(
    transcript: Transcript, frames: int, block: int, share: float, delay_ms: int, seed: int
) -> None:
    torch.manual_seed(seed)
    moments = sample_moments(transcript, frames, range(block, frames + block, block), MomentOptions(share, 8, delay_ms))
    *inner, last = moments
    assert (last.heard, last.written) == (frames, len(transcript.tokens))  # nothing is lost at the end
    chunks = (frames - 1) // block
    assert len(inner) == min(8, math.ceil(share * chunks))
    heard = [moment.heard for moment in inner]
    assert heard == sorted(set(heard))
    for moment in inner:
        assert moment.heard % block == 0
        assert moment.heard < frames
        time_s = moment.heard / 50 - delay_ms / 1000
        for number, end in enumerate(transcript.ends):
            if abs(end - time_s) > 1e-5:
                assert (number < moment.written) == (end < time_s)


@few
@given(transcripts(), st.integers(0, 5), st.integers(0, 2**31))
def test_what_is_kept_stays_kept(transcript: Transcript, reread: int, seed: int) -> None:
    torch.manual_seed(seed)
    moments = sample_moments(transcript, 500, range(5, 505, 5), MomentOptions(0.4, 30, reread=reread))
    for before, moment in zip([Moment(0, 0, 0), *moments], moments, strict=False):
        assert before.kept <= moment.kept <= before.written <= moment.written
        assert moment.kept >= before.written - reread


@few
@given(st.lists(transcripts(), min_size=1, max_size=3), st.integers(1, 20), st.integers(0, 2**31))
def test_each_moment_reads_what_a_stream_would(rows: list[Transcript], block: int, seed: int) -> None:
    torch.manual_seed(seed)
    moments = [sample_moments(row, 500, range(block, 500 + block, block), MomentOptions(0.3, 4)) for row in rows]
    packed = pack(rows, moments, EOT, CPU)
    token_mask, audio_mask = packed.token_mask[:, 0], packed.audio_mask(500)[:, 0]
    for row, (transcript, of_row) in enumerate(zip(rows, moments, strict=True)):
        text, control = transcript.control + transcript.tokens, len(transcript.control)
        at, latest = 0, {}  # place in the text -> where its latest reading lies
        for number, moment in enumerate(of_row):
            begin = control - 1 + moment.kept if number else 0
            end = control + moment.written
            span = slice(at, at + end - begin)
            latest |= {place: at + place - begin for place in range(begin, end)}
            assert packed.tokens[row, span].tolist() == text[begin:end]
            assert packed.position[row, span].tolist() == list(range(begin, end))
            following = [NOTHING] * (control - 1) + text[control:end] + [EOT]
            assert packed.targets[row, span].tolist() == following[begin:]
            assert audio_mask[row, span].sum(-1).tolist() == [moment.heard] * (end - begin)
            for place in range(begin, end):
                seen = token_mask[row, at + place - begin].nonzero()[:, 0].tolist()
                assert seen == sorted(latest[earlier] for earlier in range(place + 1))
            at = span.stop
        assert (packed.targets[row, at:] == NOTHING).all()


def test_wrong_options_are_refused() -> None:
    for wrong in ({"share": 0.0}, {"most": 0}, {"delay_ms": -20}, {"reread": -1}):
        with pytest.raises(ValueError, match="expected share"):
            MomentOptions(**wrong)
