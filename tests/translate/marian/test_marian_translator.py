"""Marian's models as models of the translation task."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from loquent.translate.marian.model import MarianTranslator
from loquent.translate.marian.state import MOST_SOURCE, MOST_TARGET
from loquent.translate.model import Draft, Search, Term

CPU = torch.device("cpu")


@pytest.fixture(scope="module", params=["opus", "student"])
def model(request):
    """A model with each kind of decoder."""
    return MarianTranslator.load(request.getfixturevalue(request.param)[0], CPU)


def rows(*slots):
    return torch.tensor(slots)


def reading(model, texts, slots=None):
    """A pool that has read texts."""
    state = model.initial_state(slots or len(texts))
    model.read([model.codec.encode(text) for text in texts], [False] * len(texts), state, rows(*range(len(texts))))
    return state


def same(one, other):
    """Whether two drafts are, but for the last digits of probabilities."""
    plain = [dataclasses.replace(draft, probabilities=[]) for draft in (one, other)]
    return plain[0] == plain[1] and one.probabilities == pytest.approx(other.probabilities, abs=1e-5)


class TestPrefix:
    """What is committed comes first, and the draft goes on behind it."""

    def test_the_draft_is_that_of_transformers_behind_the_same_prefix(self, opus, tiny):
        folder, theirs = opus
        model = MarianTranslator.load(folder, CPU)
        start = theirs.config.decoder_start_token_id
        text = tiny.sentences("en")[0]
        pieces, committed = model.codec.encode(text), []
        state = model.initial_state(1)
        for at in range(0, len(pieces), 3):
            model.read([pieces[at : at + 3]], [at + 3 >= len(pieces)], state, rows(0))
            (draft,) = model.draft([Search(most_pieces=6)], state, rows(0))
            source = torch.tensor([[*pieces[: at + 3], 0]])
            out = theirs.generate(
                source,
                attention_mask=torch.ones_like(source),
                decoder_input_ids=torch.tensor([[start, *committed]]),
                max_new_tokens=6,
                num_beams=1,
                do_sample=False,
                bad_words_ids=[[piece] for piece, silent in enumerate(model.codec.silent) if silent],
            )
            assert draft.pieces == [piece for piece in out[0, 1 + len(committed) :].tolist() if piece]
            model.commit([draft], [2], state, rows(0))
            committed += draft.pieces[:2]
        assert len(committed) > 3

    def test_a_draft_that_was_committed_in_parts_is_the_whole_one(self, model, tiny):
        state = reading(model, tiny.sentences("en")[:1])
        (whole,) = model.draft([Search(most_pieces=12)], state, rows(0))
        for at in range(len(whole.pieces)):
            (draft,) = model.draft([Search(most_pieces=12 - at)], state, rows(0))
            assert draft.pieces == whole.pieces[at:]
            assert draft.attended == whole.attended[at:]
            model.commit([draft], [1], state, rows(0))

    def test_a_draft_changes_nothing(self, model, tiny):
        state = reading(model, tiny.sentences("en")[:2])
        before = state.to_bytes()
        model.draft([Search(), Search(beam=2)], state, rows(0, 1))
        assert state.to_bytes() == before


class TestBatches:
    """Nobody notices who shares a batch."""

    @pytest.mark.parametrize("beam", [1, 3])
    def test_drafts_of_many_are_those_of_one(self, model, tiny, beam):
        texts = tiny.sentences("en")[:5]
        state = reading(model, texts)
        search = Search(most_pieces=10, beam=beam)
        for _ in range(2):
            together = model.draft([search] * 5, state, rows(*range(5)))
            alone = [model.draft([search], state, rows(slot))[0] for slot in range(5)]
            assert all(same(one, other) for one, other in zip(together, alone, strict=True))
            counts = [min(slot, len(draft.pieces)) for slot, draft in enumerate(together)]
            model.commit(together, counts, state, rows(*range(5)))

    def test_searches_of_several_kinds(self, model, tiny):
        state = reading(model, tiny.sentences("en")[:3])
        searches = [Search(beam=2, most_pieces=8), Search(most_words=1), Search(margin=1, most_pieces=5)]
        together = model.draft(searches, state, rows(2, 0, 1))
        alone = [model.draft([one], state, rows(slot))[0] for one, slot in zip(searches, (2, 0, 1), strict=True)]
        assert all(same(one, other) for one, other in zip(together, alone, strict=True))

    def test_streams_that_have_read_nothing(self, model, tiny):
        state = reading(model, tiny.sentences("en")[:1], slots=2)
        alone = model.draft([Search(most_pieces=5)], state, rows(0))[0]
        nothing, draft = model.draft([Search(most_pieces=5)] * 2, state, rows(1, 0))
        assert nothing == Draft()
        assert same(draft, alone)


class TestDrafts:
    """What a search asks for."""

    def test_attention_is_to_pieces_of_the_source(self, model, tiny):
        text = tiny.sentences("en")[0]
        (draft,) = model.draft([Search(most_pieces=12)], reading(model, [text]), rows(0))
        assert len(draft.attended) == len(draft.pieces)
        assert set(draft.attended) <= set(range(len(model.codec.encode(text))))

    def test_a_margin_keeps_away_from_the_newest_pieces(self, model, tiny):
        state = reading(model, tiny.sentences("en")[:6])
        read = state.read.tolist()
        drafts = model.draft([Search(margin=2, most_pieces=10)] * 6, state, rows(*range(6)))
        free = model.draft([Search(most_pieces=10)] * 6, state, rows(*range(6)))
        for draft, other, count in zip(drafts, free, read, strict=True):
            stop = next((at for at, one in enumerate(other.attended) if one >= count - 2), len(other.pieces))
            assert draft.pieces == other.pieces[:stop]
        assert any(len(one.pieces) < len(other.pieces) for one, other in zip(drafts, free, strict=True))

    def test_a_given_translation_is_written(self, model, tiny):
        state = reading(model, tiny.sentences("en")[:1])
        pieces = tuple(model.target_codec.encode("gato viejo"))
        last = int(state.read[0]) - 1
        (draft,) = model.draft([Search(most_pieces=3, terms=(Term(0, last, pieces),))], state, rows(0))
        assert draft.written == [0]
        assert tuple(draft.pieces[: len(pieces)]) == pieces

    def test_the_unknown_piece_is_never_written(self, model, tiny):
        state = reading(model, tiny.sentences("en")[:1])
        bias = model.network.output_bias
        kept = bias.clone()
        try:
            bias[model.never.isinf()] = 1e4
            (draft,) = model.draft([Search(most_pieces=5)], state, rows(0))
        finally:
            bias.copy_(kept)
        assert not set(draft.pieces) & set(model.never.isinf().nonzero()[:, 0].tolist())

    def test_numbers_that_are_none_end_one_stream(self, model, tiny):
        state = reading(model, tiny.sentences("en")[:2])
        broken = model.codec.encode(tiny.sentences("en")[0])[0]
        state.source[1] = torch.where(state.source[1] == broken, 2, state.source[1])
        (alone,) = model.draft([Search(most_pieces=5)], state, rows(1))
        table = model.network.source_embedding
        broken_table = table.clone()
        broken_table[broken] = torch.nan
        try:
            model.network.source_embedding = torch.nn.Parameter(broken_table)
            first, second = model.draft([Search(most_pieces=5)] * 2, state, rows(0, 1))
        finally:
            model.network.source_embedding = table
        assert not first.finite
        assert same(second, alone)


class TestMemory:
    """What is held of a segment, and what is not."""

    def test_what_is_forgotten_is_not_there(self, model, tiny):
        first, second = tiny.sentences("en")[:2]
        state = reading(model, [f"{first} {second}"])
        gone = len(model.codec.encode(first))
        model.forget([gone], state, rows(0))
        (draft,) = model.draft([Search(most_pieces=6)], state, rows(0))
        (alone,) = model.draft([Search(most_pieces=6)], reading(model, [second]), rows(0))
        alone.attended = [number + gone for number in alone.attended]
        assert same(draft, alone)

    def test_words_that_stand_for_forgotten_ones_go_with_them(self, model, tiny):
        state = reading(model, tiny.sentences("en")[:1])
        words = [model.target_codec.encode(word) for word in ("gato", "viejo", "duerme")]
        attended = [number for number, word in zip((0, 1, 3), words, strict=True) for _ in word]
        model.commit([Draft([piece for word in words for piece in word], attended)], [len(attended)], state, rows(0))
        model.forget([2], state, rows(0))
        assert state.written_by(0) == (words[2], [3] * len(words[2]))
        model.forget([100], state, rows(0))
        assert state.written_by(0) == ([], [])
        assert (int(state.held[0]), int(state.read[0])) == (0, len(model.codec.encode(tiny.sentences("en")[0])))
        assert model.draft([Search(most_pieces=2)], state, rows(0))[0].finite

    def test_a_long_translation_keeps_its_newest_pieces(self, model, tiny):
        state = reading(model, tiny.sentences("en")[:1])
        count = MOST_TARGET + 30
        pieces = [2 + at % 7 for at in range(count)]
        model.commit([Draft(pieces, [0] * count)], [count], state, rows(0))
        assert state.written_by(0)[0] == pieces[30:]

    def test_too_many_pieces_are_refused(self, model):
        state = model.initial_state(2)
        before = state.to_bytes()
        with pytest.raises(ValueError, match=f"more than {MOST_SOURCE} source pieces; forget some"):
            model.read([[2], [2] * (MOST_SOURCE + 1)], [False, False], state, rows(0, 1))
        assert state.to_bytes() == before

    def test_reading_in_parts_is_reading_at_once(self, model, tiny):
        pieces = [model.codec.encode(text) for text in tiny.sentences("en")[:2]]
        whole, parts = model.initial_state(3), model.initial_state(3)
        model.read(pieces, [True, True], whole, rows(2, 0))
        model.read([pieces[0][:2], []], [False, False], parts, rows(2, 0))
        model.read([pieces[0][2:], pieces[1]], [True, True], parts, rows(2, 0))
        assert whole.to_bytes() == parts.to_bytes()

    def test_a_saved_stream_goes_on_elsewhere(self, model, tiny):
        state = reading(model, tiny.sentences("en")[:2])
        drafts = model.draft([Search(most_pieces=4)] * 2, state, rows(0, 1))
        model.commit(drafts, [2, 1], state, rows(0, 1))
        other = model.initial_state(2)
        other.from_bytes(state.to_bytes())
        search = [Search(most_pieces=6)] * 2
        assert model.draft(search, other, rows(0, 1)) == model.draft(search, state, rows(0, 1))

    @pytest.mark.parametrize(
        ("name", "value"), [("source", 10**6), ("target", -1), ("held", 500), ("written", 600), ("read", 1)]
    )
    def test_saved_numbers_are_checked(self, model, tiny, name, value):
        state = reading(model, tiny.sentences("en")[:1])
        getattr(state, name)[0] = value
        with pytest.raises(ValueError, match="state '"):
            state.check()
