"""What should have been written when: targets at the ends of chunks, and their layout."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from loquent.recipes.whisper_prefixes import (
    NOTHING,
    Prefix,
    PrefixOptions,
    Transcript,
    pack,
    sample_prefixes,
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


def test_tokens_are_spread_evenly_within_their_word() -> None:
    assert token_ends([(" one", 1.0, 1.6), (" two", 1.6, 2.0)], [3, 1]) == pytest.approx([1.2, 1.4, 1.6, 2.0])


def test_pauses_do_not_count_as_speech() -> None:
    words = [(" late", 0.0, 2.0), (".", 2.0, 9.0), (" later", 9.0, 10.0)]
    assert token_ends(words, [2, 1, 1]) == pytest.approx([1.7, 2.0, 2.2, 10.0])


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
    prefixes = sample_prefixes(transcript, frames, block, PrefixOptions(share, 8, delay_ms))
    *inner, last = prefixes
    assert last == Prefix(frames, len(transcript.tokens))  # nothing is lost at the end
    chunks = (frames - 1) // block
    assert len(inner) == min(8, math.ceil(share * chunks))
    heard = [prefix.heard for prefix in inner]
    assert heard == sorted(set(heard))
    for prefix in inner:
        assert prefix.heard % block == 0
        assert prefix.heard < frames
        time_s = prefix.heard / 50 - delay_ms / 1000
        for number, end in enumerate(transcript.ends):
            if abs(end - time_s) > 1e-5:
                assert (number < prefix.written) == (end < time_s)


@few
@given(st.lists(transcripts(), min_size=1, max_size=3), st.integers(1, 20), st.integers(0, 2**31))
def test_prefixes_side_by_side_are_as_each_would_be_alone(rows: list[Transcript], block: int, seed: int) -> None:
    torch.manual_seed(seed)
    moments = [sample_prefixes(row, 500, block, PrefixOptions(0.3, 4)) for row in rows]
    packed = pack(rows, moments, EOT, CPU)
    token_mask, audio_mask = packed.token_mask[:, 0], packed.audio_mask(500)[:, 0]
    for row, (transcript, prefixes) in enumerate(zip(rows, moments, strict=True)):
        at = 0
        for prefix in prefixes:
            fed = transcript.control + transcript.tokens[: prefix.written]
            span = slice(at, at + len(fed))
            at += len(fed)
            assert packed.tokens[row, span].tolist() == fed
            assert packed.position[row, span].tolist() == list(range(len(fed)))
            wanted = [NOTHING] * (len(transcript.control) - 1) + transcript.tokens[: prefix.written] + [EOT]
            assert packed.targets[row, span].tolist() == wanted
            causal = torch.ones(len(fed), len(fed), dtype=torch.bool).tril()
            assert torch.equal(token_mask[row, span, span], causal)
            assert int(token_mask[row, span].sum()) == int(causal.sum())  # and nothing of other prefixes
            assert audio_mask[row, span].sum(-1).tolist() == [prefix.heard] * len(fed)
        assert (packed.targets[row, at:] == NOTHING).all()


def test_wrong_options_are_refused() -> None:
    for wrong in ({"share": 0.0}, {"most": 0}, {"delay_ms": -20}):
        with pytest.raises(ValueError, match="expected share"):
            PrefixOptions(**wrong)
