"""The non-autoregressive model: one pass gives a draft, which depends on the prefix and on what is committed alone."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from loquent.translate.families import load_translation_model
from loquent.translate.model import Draft, Search, Term
from loquent.translate.non_autoregressive.checkpoint import save_model
from loquent.translate.non_autoregressive.model import NonAutoregressiveTranslator
from loquent.translate.non_autoregressive.network import NonAutoregressive, NonAutoregressiveConfig
from loquent.translate.seq2seq.config import Seq2SeqConfig
from loquent.translate.task import TranslationTask

ROWS = torch.tensor([0])


@cache
def model_of(toy: ModuleType) -> NonAutoregressiveTranslator:
    """A small model with random weights, whose blank is likely enough."""
    torch.manual_seed(0)
    encoder = Seq2SeqConfig(toy.toy_pieces().size, 32, 2, 64, 2, 2, left_context=24, memory=192)
    network = NonAutoregressive(NonAutoregressiveConfig(encoder, 2, 3)).eval()
    with torch.no_grad():
        network.blank.bias.fill_(2.0)
    return NonAutoregressiveTranslator(network, toy.toy_pieces(), "en", "es")


def drafted(model: NonAutoregressiveTranslator, pieces: list[int], ended: bool, *, at_once: bool = True) -> Draft:
    """The draft of a segment that is read at once, or piece by piece."""
    state = model.initial_state(1)
    if at_once:
        model.read([pieces], [ended], state, ROWS)
    else:
        for at, piece in enumerate(pieces, start=1):
            model.read([[piece]], [ended and at == len(pieces)], state, ROWS)
    return model.draft([Search(ended=ended)], state, ROWS)[0]


def test_a_prefix_that_was_read_piece_by_piece_is_drafted_like_one_read_from_scratch(toy: ModuleType) -> None:
    model = model_of(toy)
    pieces = model.codec.encode(toy.made_up(10, 1))
    state = model.initial_state(1)
    for at in range(len(pieces)):
        model.read([pieces[at : at + 1]], [False], state, ROWS)
        (draft,) = model.draft([Search()], state, ROWS)
        anew = drafted(model, pieces[: at + 1], False)
        assert (draft.pieces, draft.attended) == (anew.pieces, anew.attended)
        assert draft.probabilities == pytest.approx(anew.probabilities, abs=1e-5)
        assert draft.complete
    assert drafted(model, pieces, True).pieces == drafted(model, pieces, True, at_once=False).pieces


def test_drafts_of_a_batch_are_those_of_each_alone(toy: ModuleType) -> None:
    model = model_of(toy)
    sources = [model.codec.encode(toy.made_up(words, words)) for words in (9, 2, 14)]
    state = model.initial_state(5)
    rows = torch.tensor([3, 0, 4, 1])  # the last has read nothing
    model.read([*sources, []], [True, False, True, False], state, rows)
    drafts = model.draft([Search()] * 4, state, rows)
    for pieces, ended, draft in zip(sources, (True, False, True), drafts, strict=False):
        alone = drafted(model, pieces, ended)
        assert (draft.pieces, draft.attended) == (alone.pieces, alone.attended)
        assert draft.probabilities == pytest.approx(alone.probabilities, abs=1e-5)
    assert drafts[3] == Draft()


def test_the_network_reads_padding_as_nothing(toy: ModuleType) -> None:
    network, source = model_of(toy).network, torch.randint(3, 300, (2, 7))
    with torch.no_grad():
        both = network(source, torch.tensor([4, 7]))
        alone = network(source[:1, :4], torch.tensor([4]))
    torch.testing.assert_close(both[:1, :12], alone, atol=1e-5, rtol=1e-5)


def test_frames_collapse_to_pieces_with_the_source_they_stand_for(
    toy: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = model_of(toy)
    blank, frames = model.blank, [305, 305, model.blank, 305, 306, 306, 306, model.blank, 307]
    logits = torch.zeros(1, len(frames), blank + 1)
    logits[0, torch.arange(len(frames)), torch.tensor(frames)] = 20.0
    monkeypatch.setattr(model.network, "write", lambda memory, length: logits)
    draft = drafted(model, [10, 11, 12], False)
    assert draft.pieces == [305, 305, 306, 307]
    assert draft.attended == [0, 1, 1, 2]
    assert min(draft.probabilities) > 0.99


def test_what_is_committed_stays_in_front_and_what_is_forgotten_binds_no_more(toy: ModuleType) -> None:
    model = model_of(toy)
    pieces = model.codec.encode(toy.made_up(12, 3))
    state = model.initial_state(1)
    model.read([pieces[:8]], [False], state, ROWS)
    (draft,) = model.draft([Search()], state, ROWS)
    model.commit([draft], [3], state, ROWS)
    (rest,) = model.draft([Search()], state, ROWS)
    assert rest.pieces == draft.pieces[3:]  # the likeliest path began so anyway
    assert rest.attended == draft.attended[3:]
    model.read([pieces[8:]], [True], state, ROWS)
    model.forget([6], state, ROWS)
    assert int(state.held) == len(pieces) + 1 - 6
    kept = [place for place in draft.attended[:3] if place >= 6]
    assert state.places[0, : int(state.count)].tolist() == kept
    (later,) = model.draft([Search(ended=True)], state, ROWS)
    assert min(later.attended) >= 6


def test_a_search_ends_the_draft_and_writes_its_terms(toy: ModuleType) -> None:
    model = model_of(toy)
    pieces = model.codec.encode(toy.made_up(12, 5))
    state = model.initial_state(1)
    model.read([pieces], [False], state, ROWS)
    begins = model.codec.begins_word
    (free,) = model.draft([Search()], state, ROWS)
    (short,) = model.draft([Search(most_words=2)], state, ROWS)
    assert short.pieces == free.pieces[: len(short.pieces)]
    assert begins[free.pieces[len(short.pieces)]]
    assert 1 + sum(begins[piece] for piece in short.pieces[1:]) == 2
    assert (short.complete, short.breaks) == (False, True)
    (fresh,) = model.draft([Search(margin=4)], state, ROWS)
    assert max(fresh.attended) < len(pieces) - 4
    term = Term(3, 5, tuple(model.codec.encode("tata")))
    (with_term,) = model.draft([Search(terms=(term,))], state, ROWS)
    assert with_term.written == [0]
    at = with_term.attended.index(5)
    assert tuple(with_term.pieces[at : at + len(term.pieces)]) == term.pieces


def test_a_model_is_the_same_after_saving(toy: ModuleType, tmp_path: Path) -> None:
    model = model_of(toy)
    save_model(tmp_path, model.network, model.codec, "en", "es")
    loaded = load_translation_model(tmp_path, torch.device("cpu"))
    assert isinstance(loaded, NonAutoregressiveTranslator)
    pieces = model.codec.encode(toy.made_up(6, 2))
    assert drafted(loaded, pieces, True).pieces == drafted(model, pieces, True).pieces


POLICIES: dict[str, dict[str, Any]] = {
    "re-translation": {},
    "biased": {"bias": 0.3, "masked": 0, "most_behind_words": 2},
    "wait-k": {"policy": "wait-k", "k": 1, "glossary": {"ba": "lalala"}},
}


@pytest.mark.parametrize("policy", POLICIES)
def test_streams_obey_the_laws(toy: ModuleType, task_laws: ModuleType, policy: str) -> None:
    words, flush = toy.made_up, task_laws.FLUSH
    texts = [[words(5, 1), "! ba ", words(2, 3)], [words(3, 4), " ", flush, "bi"]]
    task = TranslationTask(model_of(toy))
    task_laws.check_task(task_laws.on_engine(task, **POLICIES[policy]), texts, examples=2)
