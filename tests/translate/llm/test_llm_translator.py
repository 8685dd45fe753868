"""A language model that translates: every draft is that of a run over everything, by transformers, from the start."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

import pytest
import torch

from loquent.translate.llm.model import LanguageModelTranslator
from loquent.translate.model import Draft, Search, Term

LAYOUTS = ("prompt", "grouped", "interleaved")
KINDS: list[tuple[str, dict[str, Any]]] = [
    ("Llama", {"tie_word_embeddings": True}),
    ("Qwen2", {}),
    ("Qwen3", {"head_dim": 8}),
]


@dataclass
class Step:
    """A piece that a model was given; ``sees`` are the steps it saw when it was given last, None before."""

    piece: int
    position: int
    source: bool = False
    sees: set[int] | None = None
    gone: bool = False


class Dense:
    """The same translator, dense: a mask and positions for all pieces, of which nothing is ever kept."""

    def __init__(self, theirs: Any, ours: LanguageModelTranslator) -> None:
        self.theirs, self.ours, self.settings = theirs, ours, ours.settings
        self.layout, self.codec = ours.settings.layout, ours.target_codec
        self.steps: list[Step] = []
        self.source: list[int] = []
        self.target: list[int] = []
        self.writing = False

    def read(self, pieces: list[int]) -> None:
        if not self.steps:
            for piece in self.codec.marks(self.settings.instruction(None)):
                self._add(piece)
            self.prefix = len(self.steps)
            opening = [] if self.layout == "interleaved" else self.codec.marks(self.settings.between)
        else:
            opening = []
        if self.writing:
            self.target.append(self._add(self.codec.piece(self.settings.end_of_write)))
            self.writing = False
        for piece in pieces:
            self.source.append(self._add(piece, source=True))
        for piece in opening:
            self.target.append(self._add(piece))
        if self.layout == "prompt":
            for number in self.target:
                self.steps[number].sees = None

    def draft(self, count: int, *, ended: bool = False) -> Draft:
        self._catch_up()
        found = Draft()
        scores, attended = self._scores([])
        first: list[int] = []
        if self.layout == "interleaved" and not self.writing:
            mark = self.codec.piece(self.settings.end_of_read)
            if not ended and int(scores.argmax()) != mark:
                return Draft(complete=True)
            first = [mark]
            scores, attended = self._scores(first)
        while True:
            piece, probability = self._likeliest(scores)
            if piece is None or len(found.pieces) == count:
                found.complete = piece is None
                return found
            found.pieces.append(piece)
            found.probabilities.append(probability)
            found.attended.append(attended)
            scores, attended = self._scores([*first, *found.pieces])

    def commit(self, draft: Draft, count: int) -> None:
        if self.layout == "interleaved" and not self.writing:
            self.target.append(self._add(self.codec.piece(self.settings.end_of_read)))
        self.writing = self.layout == "interleaved"
        for piece in draft.pieces[:count]:
            self.target.append(self._add(piece))
        if self.layout != "prompt":
            self._catch_up()  # these see what was read by then; grouped, the last one will see more
        if self.writing and draft.complete and count == len(draft.pieces):
            self.target.append(self._add(self.codec.piece(self.settings.end_of_write)))
            self.writing = False

    def forget(self, count: int) -> None:
        held = [number for number in self.source if not self.steps[number].gone]
        for number in held[:count]:
            self.steps[number].gone = True

    def _add(self, piece: int, *, source: bool = False) -> int:
        self.steps.append(Step(piece, 0, source))
        return len(self.steps) - 1

    def _order(self) -> list[int]:
        return list(range(len(self.steps))) if self.layout == "interleaved" else self._groups()

    def _groups(self) -> list[int]:
        return [*range(self.prefix), *self.source, *self.target]

    def _catch_up(self) -> None:
        order = self._order()
        if self.layout == "grouped":
            self.steps[self.target[-1]].sees = None
        behind = self.prefix + len(self.source)
        for place, number in enumerate(order):
            step = self.steps[number]
            step.position = place
            if self.layout == "grouped" and place >= behind:
                step.position = place - behind + self.settings.offset
            if step.sees is None:
                step.sees = {one for one in order[: place + 1] if not self.steps[one].gone}

    def _scores(self, more: list[int]) -> tuple[torch.Tensor, int]:
        order = self._order()
        newest = self.steps[order[-1]].position
        at = {number: place for place, number in enumerate(order)}
        size = len(order) + len(more)
        seen = torch.zeros(size, size, dtype=torch.bool)
        for number in order:
            for other in self.steps[number].sees or ():
                seen[at[number], at[other]] = True
        for place in range(len(order), size):
            seen[place, : place + 1] = True
            seen[place, [at[number] for number in order if self.steps[number].gone]] = False
        pieces = [self.steps[number].piece for number in order] + more
        positions = [self.steps[number].position for number in order] + [newest + 1 + n for n in range(len(more))]
        mask = torch.zeros(1, 1, size, size).masked_fill(~seen, torch.finfo(torch.float32).min)
        out = self.theirs(
            input_ids=torch.tensor([pieces]),
            attention_mask=mask,
            position_ids=torch.tensor([positions]),
            output_attentions=True,
            use_cache=False,
        )
        held = [number for number in self.source if not self.steps[number].gone]
        weights = out.attentions[1][0, :, -1, [at[number] for number in held]].mean(0)
        return out.logits[0, -1], self.source.index(held[int(weights.argmax())])

    def _likeliest(self, scores: torch.Tensor) -> tuple[int | None, float]:
        marks = [self.codec.piece(f"<|{name}|>") for name in ("im_start", "im_end", "end-of-read", "end-of-write")]
        breaks = [piece for piece in range(404) if "\n" in self.codec.decode([piece])]
        name = self.settings.end_of_write if self.layout == "interleaved" else "<|im_end|>"
        ends = [self.codec.piece(name), *([] if self.layout == "interleaved" else breaks)]
        end = scores[ends].max()
        text = scores.clone()
        text[[*marks, *breaks, *range(self.codec.vocabulary.__len__(), len(scores))]] = -torch.inf
        piece = int(text.argmax())
        total = torch.cat([text, end[None]]).logsumexp(0)
        return (None, 0.0) if end > text[piece] else (piece, float((text[piece] - total).exp()))


def same(found: Draft, expected: Draft) -> None:
    assert found.pieces == expected.pieces
    assert found.complete == expected.complete
    assert found.attended == expected.attended
    torch.testing.assert_close(found.probabilities, expected.probabilities, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("kind", "values"), KINDS)
@torch.no_grad()
def test_every_draft_is_that_of_a_run_from_the_start(
    tiny_lm: Any, waiting_lm: Any, layout: str, kind: str, values: dict[str, Any]
) -> None:
    theirs, ours = waiting_lm(layout, kind, values)
    dense, rng = Dense(theirs, ours), random.Random(1)
    state, rows, written = ours.initial_state(2), torch.tensor([1]), 0
    for at, word in enumerate(tiny_lm.made_up(9, seed=2).split()):
        pieces = ours.codec.encode(word)
        ours.read([pieces], [False], state, rows)
        dense.read(pieces)
        if at == 6:
            ours.forget([3], state, rows)
            dense.forget(3)
        search = Search(most_pieces=rng.randint(1, 5), ended=rng.random() < 0.5)
        found = ours.draft([search], state, rows)[0]
        same(found, dense.draft(search.most_pieces, ended=search.ended))
        count = min(rng.randint(0, 5), len(found.pieces))
        if count:
            ours.commit([found], [count], state, rows)
            dense.commit(found, count)
            written += count
        state.check()
    assert written > 4


@pytest.mark.parametrize(("kind", "values"), [*KINDS, ("Mistral", {"sliding_window": None})])
@torch.no_grad()
def test_a_stock_model_writes_what_transformers_generates(tiny_lm: Any, kind: str, values: dict[str, Any]) -> None:
    theirs = tiny_lm.hugging_face(kind, **values)
    ours = tiny_lm.translator(theirs, "prompt")
    source = ours.codec.encode("bade fogu")
    prompt = [*ours.codec.marks("<|im_start|>English:"), *source, *ours.codec.marks("<|im_end|>\n<|im_start|>")]
    barred = [piece for piece in range(408) if not ours.target_codec.decode([piece]).strip(" ")]
    generated = theirs.generate(
        torch.tensor([prompt]),
        max_new_tokens=12,
        do_sample=False,
        suppress_tokens=barred,
        pad_token_id=0,
        eos_token_id=None,
    )
    state, rows = ours.initial_state(1), torch.tensor([0])
    ours.read([source], [True], state, rows)
    expected = generated[0, len(prompt) :].tolist()
    found = ours.draft([Search(most_pieces=12, ended=True)], state, rows)[0].pieces
    assert found == expected[: len(found)]
    assert len(found) > 1


@pytest.mark.parametrize("layout", LAYOUTS)
@torch.no_grad()
def test_drafts_leave_no_trace_and_streams_do_not_see_each_other(tiny_lm: Any, waiting_lm: Any, layout: str) -> None:
    _, ours = waiting_lm(layout)
    texts = [tiny_lm.made_up(6, seed).split() for seed in range(3)]
    together, alone = ours.initial_state(4), [ours.initial_state(1) for _ in texts]
    rows, zero = torch.tensor([3, 0, 2]), torch.tensor([0])
    for at in range(6):
        pieces = [ours.codec.encode(text[at]) if at % 3 != number else [] for number, text in enumerate(texts)]
        ours.read(pieces, [False] * 3, together, rows)
        # Drafts of other lengths and with a beam, that are thrown away.
        ours.draft([Search(most_pieces=7, ended=True, beam=beam) for beam in (1, 3, 1)], together, rows)
        searches = [Search(most_pieces=4 + number, ended=at == 4) for number in range(3)]
        drafts = ours.draft(searches, together, rows)
        counts = [len(draft.pieces) // 2 for draft in drafts]
        ours.commit(drafts, counts, together, rows)
        for number, state in enumerate(alone):
            ours.read([pieces[number]], [False], state, zero)
            draft = ours.draft([searches[number]], state, zero)[0]
            same(drafts[number], draft)
            ours.commit([draft], counts[number : number + 1], state, zero)


@pytest.mark.parametrize("layout", LAYOUTS)
@torch.no_grad()
def test_a_stream_goes_on_elsewhere(tiny_lm: Any, waiting_lm: Any, layout: str) -> None:
    theirs, ours = waiting_lm(layout)
    state, rows = ours.initial_state(1), torch.tensor([0])
    ours.read([ours.codec.encode("bade fogu")], [False], state, rows)
    draft = ours.draft([Search(most_pieces=5, ended=True)], state, rows)
    ours.commit(draft, [3], state, rows)
    other = tiny_lm.translator(theirs, layout)
    assert other.fingerprint == ours.fingerprint
    restored = other.initial_state(1)
    restored.from_bytes(state.to_bytes())
    for model, pool in ((ours, state), (other, restored)):
        model.read([ours.codec.encode("liti")], [True], pool, rows)
    search = [Search(most_pieces=6, ended=True)]
    assert ours.draft(search, state, rows) == other.draft(search, restored, rows)


def test_another_model_is_another_one(tiny_lm: Any) -> None:
    theirs = tiny_lm.hugging_face()
    fingerprint = tiny_lm.translator(theirs, "prompt").fingerprint
    assert tiny_lm.translator(theirs, "prompt", heads=((0, 0),)).fingerprint != fingerprint
    theirs.lm_head.weight.data += 1
    assert tiny_lm.translator(theirs, "prompt").fingerprint != fingerprint


@pytest.mark.parametrize("layout", LAYOUTS)
@torch.no_grad()
def test_what_was_written_long_ago_is_forgotten(waiting_lm: Any, layout: str) -> None:
    _, ours = waiting_lm(layout, target_capacity=384)
    state, rows = ours.initial_state(1), torch.tensor([0])
    size = state.nbytes
    for at in range(300):
        if at:
            ours.forget([1], state, rows)
        ours.read([ours.codec.encode("ba")], [False], state, rows)
        draft = ours.draft([Search(most_pieces=4, ended=True)], state, rows)[0]
        draft.pieces += ours.codec.encode("bade") * 15  # more than the model wrote
        ours.commit([draft], [len(draft.pieces)], state, rows)
        state.check()
        if state.where(rows)[0].lost:
            break
    assert state.where(rows)[0].lost > 0
    assert state.nbytes == size
    places = state.places[0, state.entry.first(1) :][: state.where(rows)[0].target]
    assert (places.diff() > 0).all()


def test_too_much_at_a_time_is_refused(waiting_lm: Any) -> None:
    _, ours = waiting_lm("prompt", source_capacity=96)
    state, rows = ours.initial_state(1), torch.tensor([0])
    ours.read([[5] * 96], [False], state, rows)
    with pytest.raises(ValueError, match="more than 96 source pieces; forget"):
        ours.read([[5]], [False], state, rows)
    saved = ours.initial_state(1)
    saved.tokens[0, 0] = 408
    with pytest.raises(ValueError, match="outside 0 … 407"):
        state.from_bytes(saved.to_bytes())


@torch.no_grad()
def test_scores_that_are_no_numbers_are_told(waiting_lm: Any) -> None:
    for layout in LAYOUTS:
        _, ours = waiting_lm(layout)
        ours.decoding.model.model.norm.weight.fill_(torch.nan)
        state, rows = ours.initial_state(1), torch.tensor([0])
        ours.read([[5]], [False], state, rows)
        assert not ours.draft([Search()], state, rows)[0].finite


@torch.no_grad()
def test_nothing_read_is_nothing_written(waiting_lm: Any) -> None:
    for layout in LAYOUTS:
        _, ours = waiting_lm(layout)
        state, rows = ours.initial_state(1), torch.tensor([0])
        assert ours.draft([Search(ended=True)], state, rows) == [Draft()]


@torch.no_grad()
def test_a_segment_is_translated_with_the_latency_that_it_began_with(waiting_lm: Any) -> None:
    _, ours = waiting_lm("interleaved", before="<|im_start|>{latency} bade")
    drafts = {}
    for latency in ("low", "high", None, "medium"):
        state, rows = ours.initial_state(1), torch.tensor([0])
        ours.read([ours.codec.encode("fogu")], [True], state, rows)
        drafts[latency] = ours.draft([Search(most_pieces=3, ended=True, latency=latency)], state, rows)[0]
        same(ours.draft([Search(most_pieces=3, ended=True, latency="low")], state, rows)[0], drafts[latency])
    assert drafts[None] == drafts["medium"]
    assert drafts["low"].probabilities != drafts["high"].probabilities


@pytest.mark.parametrize("layout", LAYOUTS)
@torch.no_grad()
def test_terms_are_written_and_fit_however_long_they_are(waiting_lm: Any, layout: str) -> None:
    _, ours = waiting_lm(layout, target_capacity=384)
    state, rows = ours.initial_state(1), torch.tensor([0])
    ours.read([ours.codec.encode("ba")], [False], state, rows)
    for pieces in (3, 1000):
        term = Term(0, 0, tuple(ours.codec.encode("bade") * pieces)[:pieces])
        draft = ours.draft([Search(most_pieces=2, ended=True, terms=(term,))], state, rows)[0]
        assert draft.written == [0]
        written = len(draft.pieces)
        assert draft.pieces[:3] == list(term.pieces[:3])
        ours.commit([draft], [written], state, rows)
        state.check()
    assert 100 < written < 384
