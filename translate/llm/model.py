"""A causal language model as a model of the translation task: what was read and written is never read again."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import torch
from tokenizers import Tokenizer
from torch import Tensor

from loquent.speech.devices import compute_device
from loquent.speech.lm.language_model import LanguageModel
from loquent.speech.text.languages import SPACELESS_LANGUAGES
from loquent.translate.llm.checkpoint import owns, read_llm
from loquent.translate.llm.codec import LanguageModelCodec
from loquent.translate.llm.decoding import Decoding, Place
from loquent.translate.llm.settings import LanguageModelSettings
from loquent.translate.llm.state import SOURCE, TARGET, LanguageModelState, Progress
from loquent.translate.model import MOST_DRAFT, Draft, Search
from loquent.translate.search.beam import beam_search
from loquent.translate.search.greedy import greedy_search
from loquent.translate.search.stepper import Scores

MARKS = 4  # entries of the target that are left for them
SPARE = MOST_DRAFT + 2 * MARKS  # entries of the target that are free after every commit
SAMPLED = 16  # numbers of each weight that the fingerprint covers


def load_llm(
    path: str | os.PathLike[str],
    *,
    settings: LanguageModelSettings | None = None,
    source: str | None = None,
    target: str | None = None,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
) -> LanguageModelTranslator:
    """A language model as a translator.

    Args:
        path: a folder with `config.json`, `tokenizer.json` and weights; a GGUF file, with a `tokenizer.json` beside it
            or its own tokenizer; or a folder with an adapter in PEFT's format, whose base is one of these.
        settings: how the model is asked; by default the entry `loquent_translation` of `config.json`.
        source, target: codes of the languages, for a stock chat model without such an entry.
        device, dtype: where and in which numbers the model computes.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: a file is damaged, or of a model that is not supported; or nothing says how to ask the model.
    """
    model, tokenizer, settings = read_llm(Path(path), settings, source, target, dtype)
    return LanguageModelTranslator(model.to(compute_device(device)), tokenizer, settings)


class LanguageModelTranslator:
    """A `TranslationModel` with any `LanguageModel`; see `LanguageModelSettings.layout` for how it is asked.

    What is drafted is kept where it would stand, so a commit only says how much of it counts. A word that is read costs
    one step for each of its pieces, however long the segment is; in the layout "prompt" also one for each piece that
    was written.

    Args:
        model: in evaluation mode.
        tokenizer: of both languages.
        settings: languages and layout.

    Raises:
        ValueError: they do not fit each other.
    """

    def __init__(self, model: LanguageModel, tokenizer: Tokenizer, settings: LanguageModelSettings) -> None:
        size = model.model.config.vocabulary
        self.codec = LanguageModelCodec(tokenizer, settings.source, size)
        alike = (settings.source in SPACELESS_LANGUAGES) == (settings.target in SPACELESS_LANGUAGES)
        self.target_codec = self.codec if alike else LanguageModelCodec(tokenizer, settings.target, size)
        self.settings, self.source, self.target = settings, settings.source, settings.target
        self.decoding = Decoding(model, settings, self.target_codec)
        self.waits = self.decoding.joint
        self.default_policy = {"interleaved": "learned", "grouped": "wait-k", "prompt": "alignatt"}[settings.layout]
        self.most_source = settings.source_capacity
        self.fingerprint = _fingerprint(model, tokenizer, settings)

    @staticmethod
    def owns(path: Path) -> bool:
        """Whether a folder holds such a model."""
        return owns(path)

    @classmethod
    def load(cls, path: Path, device: torch.device) -> LanguageModelTranslator:
        """Read a model's folder; errors are those of `load_llm`."""
        return load_llm(path, device=device)

    def initial_state(self, slots: int) -> LanguageModelState:
        """See `TranslationModel`."""
        return self.decoding.initial_state(slots)

    @torch.no_grad()
    def read(
        self, pieces: Sequence[Sequence[int]], ends: Sequence[bool], state: LanguageModelState, rows: Tensor
    ) -> None:
        """See `TranslationModel.read`. The model is given them when the next draft is looked for.

        Raises:
            ValueError: more pieces than can be held.
        """
        progress = state.where(rows)
        for one, some in zip(progress, pieces, strict=True):
            if one.source + len(some) > self.most_source:
                raise ValueError(f"a segment has more than {self.most_source} source pieces; forget some before")
        for at, (slot, some) in enumerate(zip(rows.tolist(), pieces, strict=True)):
            if some:
                progress[at] = self._read(slot, progress[at], list(some), state)
        state.move_on(rows, progress)

    @torch.no_grad()
    def draft(self, searches: Sequence[Search], state: LanguageModelState, rows: Tensor) -> list[Draft]:
        """See `TranslationModel.draft`."""
        drafts = [Draft() for _ in searches]
        place = Place(state, rows, [one._replace(drafted=0) for one in state.where(rows)])
        begun = [at for at, one in enumerate(place.progress) if one.source + one.gone and searches[at].most_pieces]
        if not begun:
            return drafts
        place = place.select(begun)
        self.decoding.instruct(place, [searches[at].latency for at in begun])
        newest = _Newest(*self.decoding.catch_up(place))
        searches = [self._fitting(search, one) for search, one in zip(searches, state.where(rows), strict=True)]
        if self.decoding.joint:
            going = self._ask(place, newest, [searches[at] for at in begun], drafts, begun)
            place, newest, begun = place.select(going), newest.select(going), [begun[at] for at in going]
        for beam in sorted({searches[at].beam for at in begun}):
            chosen = [number for number, at in enumerate(begun) if searches[at].beam == beam]
            stepper = _Stepper(self, place.select(chosen), newest.select(chosen), in_place=beam == 1)
            some = [searches[begun[number]] for number in chosen]
            found = greedy_search(stepper, some) if beam == 1 else beam_search(stepper, some, beam)
            for number, draft in zip(chosen, found, strict=True):
                drafts[begun[number]] = draft
        return drafts

    @torch.no_grad()
    def commit(self, drafts: Sequence[Draft], counts: Sequence[int], state: LanguageModelState, rows: Tensor) -> None:
        """See `TranslationModel.commit`."""
        progress = state.where(rows)
        for at, (slot, draft, count) in enumerate(zip(rows.tolist(), drafts, counts, strict=True)):
            if count:
                whole = draft.complete and count == len(draft.pieces)
                progress[at] = self._commit(slot, progress[at], draft.pieces[:count], whole, state)
        state.move_on(rows, progress)

    @torch.no_grad()
    def forget(self, counts: Sequence[int], state: LanguageModelState, rows: Tensor) -> None:
        """See `TranslationModel.forget`. Entries move up; positions, and the instruction, stay."""
        progress = state.where(rows)
        for at, (slot, asked) in enumerate(zip(rows.tolist(), counts, strict=True)):
            one = progress[at]
            count = min(asked, one.source)
            state.drop(slot, self.decoding.entry.first(SOURCE), one.source, count)
            progress[at] = one._replace(
                source=one.source - count,
                source_run=max(one.source_run - count, 0),
                gone=one.gone + count,
                drafted=0,
            )
        state.move_on(rows, progress)

    # ----------------------------------------------------------------------------------------------------------------

    def _read(self, slot: int, one: Progress, pieces: list[int], state: LanguageModelState) -> Progress:
        decoding, first = self.decoding, self.decoding.entry.first(TARGET)
        if decoding.joint and one.writing:  # what was written ends before more is read
            state.write(slot, first + one.target, [decoding.end], [one.clock])
            one = one._replace(target=one.target + 1, clock=one.clock + 1, writing=0)
        if not one.target and decoding.opening:
            places = [decoding.place_of(one, at) for at in range(len(decoding.opening))]
            state.write(slot, first, decoding.opening, places)
            one = one._replace(target=len(decoding.opening))
        places = list(range(one.clock, one.clock + len(pieces)))
        state.write(slot, decoding.entry.first(SOURCE) + one.source, pieces, places)
        one = one._replace(source=one.source + len(pieces), clock=one.clock + len(pieces), drafted=0, newest=SOURCE)
        return self._moved(slot, one, state) if decoding.moves else one

    def _moved(self, slot: int, one: Progress, state: LanguageModelState) -> Progress:
        """The target anew behind the source."""
        first = self.decoding.entry.first(TARGET)
        places = torch.arange(one.clock, one.clock + one.target, device=state.places.device)
        state.places[slot, first : first + one.target] = places
        return one._replace(target_run=0)

    def _commit(self, slot: int, one: Progress, pieces: list[int], whole: bool, state: LanguageModelState) -> Progress:
        decoding, first = self.decoding, self.decoding.entry.first(TARGET)
        writing = 0
        if decoding.joint:
            pieces = [*([] if one.writing else [decoding.end_of_read]), *pieces, *([decoding.end] if whole else [])]
            writing = int(not whole)
        behind = first + one.target
        given = state.tokens[slot, behind : behind + one.drafted].tolist()
        same = 0
        while same < min(len(given), len(pieces)) and given[same] == pieces[same]:
            same += 1
        # What a search was given last is behind all that the model was given.
        run = one.target_run + same if one.target_run == one.target else one.target_run
        places = [decoding.place_of(one, one.target + at) for at in range(len(pieces))]
        state.write(slot, behind, pieces, places)
        one = one._replace(
            target=one.target + len(pieces),
            target_run=run,
            clock=one.clock + len(pieces) if decoding.joint else one.clock,
            drafted=0,
            writing=writing,
            newest=TARGET,
        )
        return self._with_room(slot, one, state)

    def _with_room(self, slot: int, one: Progress, state: LanguageModelState) -> Progress:
        """Forget the oldest half of what was written, once the next draft might not fit."""
        decoding, opening = self.decoding, len(self.decoding.opening)
        if one.target + SPARE <= decoding.entry.target:
            return one
        count = (one.target - opening) // 2
        state.drop(slot, decoding.entry.first(TARGET) + opening, one.target - opening, count)
        one = one._replace(
            target=one.target - count,
            target_run=max(one.target_run - count, min(one.target_run, opening)),
            lost=one.lost + count,
        )
        return self._moved(slot, one, state) if decoding.moves else one

    def _fitting(self, search: Search, one: Progress) -> Search:
        """A search whose draft fits behind the target with the term that it may end with, which is cut if it is longer.

        EAST writes at most (read + 25) · 2 pieces at a time.
        """
        room = self.decoding.entry.target - one.target - MARKS
        most = 2 * (one.source + one.gone + 25) if self.decoding.joint else room
        terms = tuple(replace(term, pieces=term.pieces[: room // 2]) for term in search.terms)
        longest = max((len(term.pieces) for term in terms), default=0)
        return replace(search, most_pieces=min(search.most_pieces, most, room - longest), terms=terms)

    def _ask(
        self, place: Place, newest: _Newest, searches: Sequence[Search], drafts: list[Draft], begun: Sequence[int]
    ) -> list[int]:
        """Let the model decide, in each stream that reads, whether to write; the others keep an empty draft.

        Returns:
            The streams that write; they are behind the mark that ends reading.
        """
        decoding = self.decoding
        scores = decoding.model.scores(newest.hidden).float()
        finite = torch.isfinite(scores).all(-1).tolist()
        wants = (scores.argmax(-1) == decoding.end_of_read).tolist()
        going, marked = [], []
        for at, (one, search) in enumerate(zip(place.progress, searches, strict=True)):
            if not finite[at]:
                drafts[begun[at]] = Draft(finite=False)
            elif one.writing or wants[at] or search.ended:
                going.append(at)
                if not one.writing:
                    marked.append(at)
            else:
                drafts[begun[at]] = Draft(complete=True, breaks=True)
        if marked:
            some = place.select(marked)
            mark = torch.full_like(some.rows, decoding.end_of_read)
            newest.hidden[marked], newest.attended[marked] = decoding.go_on(some, mark)
            for at, one in zip(marked, some.progress, strict=True):
                place.progress[at] = one
        return going


class _Newest:
    """Hidden steps (B, dim) of the newest pieces of streams, and the source pieces (B,) that they attend to most."""

    def __init__(self, hidden: Tensor, attended: Tensor) -> None:
        self.hidden, self.attended = hidden, attended

    def select(self, index: Sequence[int]) -> _Newest:
        return _Newest(self.hidden[list(index)], self.attended[list(index)])


class _Stepper:
    """Hypotheses behind what is committed; see `loquent.translate.search.stepper`.

    In place, there is one for each stream, whose entries it fills; else each has a copy of them.
    """

    def __init__(self, model: LanguageModelTranslator, place: Place, newest: _Newest, *, in_place: bool) -> None:
        self.decoding, self.place, self.in_place = model.decoding, place, in_place
        self.newest: _Newest | None = newest
        self.first = torch.full_like(place.rows, -1)  # the model was given the newest pieces already
        self.read = [one.source + one.gone for one in place.progress]
        self.end, self.begins_word = self.decoding.end, model.target_codec.begins_word
        self.inner = self.decoding.inner

    def step(self, pieces: Tensor) -> Scores:
        """See `Stepper.step`."""
        newest, self.newest = self.newest, None
        if newest is not None:
            return self.decoding.scores(newest.hidden, newest.attended)
        return self.decoding.scores(*self.decoding.go_on(self.place, pieces))

    def select(self, index: Tensor) -> None:
        """See `Stepper.select`."""
        some = index.tolist()
        self.place = self.place.select(some) if self.in_place else self.place.copied(some)
        if self.newest is not None:
            self.newest = self.newest.select(some)


def _fingerprint(model: LanguageModel, tokenizer: Tokenizer, settings: LanguageModelSettings) -> str:
    digest = hashlib.sha256(repr(asdict(settings)).encode() + tokenizer.to_str().encode())
    for name, weight in model.state_dict().items():
        some = weight.detach().flatten()[:: max(1, weight.numel() // SAMPLED)][:SAMPLED]
        digest.update(f"{name} {tuple(weight.shape)}".encode() + some.float().cpu().numpy().tobytes())
    return digest.hexdigest()
