"""Translation as a task of the runtime: words in, one at a time, and committed words of another language out.

A sentence is a segment: the model begins anew with each. Within one, every word that is read may bring a draft of what
comes next, and the policy says how much of it is certain. What is committed is whole words, and never taken back.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from loquent.speech.nn.state import State
from loquent.speech.runtime.events import Event, Final, Partial, Translation
from loquent.speech.runtime.options import parse_options
from loquent.speech.runtime.task import Port, Turn
from loquent.speech.runtime.turns import Turns
from loquent.speech.text.languages import SPACELESS_LANGUAGES
from loquent.speech.text.words import TimedWord, WordChunk, split_words
from loquent.translate.loops import before_loop
from loquent.translate.memo import OpenTerm, SourceWord, TranslationMemo
from loquent.translate.model import Draft, Search, Term, TranslationModel
from loquent.translate.options import TranslationOptions
from loquent.translate.policies import policy_of, search_of
from loquent.translate.sentences import ends_sentence
from loquent.translate.terms import Glossary, around

MOST_PIECES = 32  # of a word that the model reads; what is longer is no word, and is written as it is
MOST_HELD = 160  # source pieces that are attended to, before the oldest are forgotten
RETAINED = 8  # words at the end of what is committed whose source is never forgotten
LEFT_BEHIND = 6  # words beyond the end of a translation that begin another segment
MOST_TEXT = 1000  # characters of a segment without an end, before a `Final` is due
LEAST_SHOWN = 3  # words of a sentence under way before a draft of it is shown: of fewer it would be a guess
PIECES_PER_PIECE, PIECES_MORE = 3, 16  # the longest draft, by the source pieces that are not covered


class Step(NamedTuple):
    """A step that is to be made."""

    inputs: Sequence[WordChunk]
    state: Any
    rows: Tensor  # (B,)
    memos: list[TranslationMemo]


@dataclass
class _Row:
    """One stream in a step.

    at:     its place in the batch.
    pieces: that the model reads.
    closes: whether its segment ends here.
    copied: a word behind the segment that is written as it is.
    ends:   whether a text ends here, if anything was written since the last `Final`.
    """

    at: int
    memo: TranslationMemo
    pieces: list[int]
    closes: bool
    copied: str = ""
    ends: bool = False
    search: Search | None = None
    count: int = 0  # pieces to commit


class TranslationTask:
    """Translates streams of text with one model, each by the policy of its own.

    Args:
        model: of any kind.
    """

    takes = gives = Port("text")
    Options = TranslationOptions

    def __init__(self, model: TranslationModel) -> None:
        self.model = model
        self.fingerprint = f"translation {model.fingerprint}"
        self.limit = min(MOST_HELD, model.most_source - 2 * MOST_PIECES)
        if self.limit < MOST_PIECES:
            raise ValueError(f"the model holds {model.most_source} source pieces; expected {3 * MOST_PIECES} or more")
        self._joiner = "" if model.target in SPACELESS_LANGUAGES else " "

    # ------------------------------------------------------------------------------------------- what the engine calls

    def initial_state(self, slots: int) -> State:
        """Pool of ``slots`` streams."""
        return self.model.initial_state(slots)

    def start(self, options: TranslationOptions) -> TranslationMemo:
        """Begin a stream.

        Raises:
            ValueError: the model cannot do what the options ask.
        """
        self._check(options)
        return TranslationMemo(options)

    def restore(self, values: dict[str, Any]) -> TranslationMemo:
        """Inverse of ``TranslationMemo.to_dict``.

        Raises:
            ValueError: the values are not those of such a stream.
        """
        memo: TranslationMemo = parse_options(TranslationMemo, values)
        self._check(memo.options)
        size = len(self.model.target_codec.begins_word)
        counts = (memo.told, memo.position, memo.read, memo.held, memo.count, memo.written, memo.covered + 1)
        drafts = [piece for draft in memo.drafts for piece in draft]
        places = [place for word in memo.attended for place in word]
        spans = [(word.first, word.last) for word in memo.words] + [(term.first, term.last) for term in memo.terms]
        sound = min(counts) >= 0 and memo.held <= memo.read and memo.told <= memo.position
        sound &= memo.held <= self.model.most_source and len(memo.words) <= memo.count
        sound &= all(0 <= piece < size for piece in drafts) and all(0 <= place < memo.read + 1 for place in places)
        sound &= all(0 <= first <= last < memo.read for first, last in spans)
        if not sound:
            raise ValueError("not the memo of a stream of this model: its counts do not fit each other")
        return memo

    def configure(self, memo: TranslationMemo, options: TranslationOptions) -> None:
        """Change the policy of a stream under way; any option may change.

        Raises:
            ValueError: the model cannot do what the options ask.
        """
        self._check(options)
        memo.options = options

    def wants(self, memo: TranslationMemo) -> int | None:
        """A word."""
        return None if memo.ended else 1

    def launch(self, inputs: Sequence[WordChunk], state: Any, rows: Tensor, memos: list[TranslationMemo]) -> Step:
        """Nothing: what the model writes decides what the device does next."""
        return Step(inputs, state, rows, memos)

    def read(self, pending: Step) -> list[Turn]:
        """Read a word of each stream, and write what its policy lets out."""
        inputs, state, rows, memos = pending
        turns, steps, previews = Turns(len(memos)), list[_Row](), list[_Row]()
        for at, (chunk, memo) in enumerate(zip(inputs, memos, strict=True)):
            with turns.of(at):
                memo.ended |= chunk.last
                if (row := self._row(at, memo, chunk)) is not None:
                    steps.append(row)
                if chunk.draft is not None:
                    previews.append(self._preview_row(at, memo, chunk.draft))
        self._forget(steps, state, rows)
        self._run(steps, state, rows, turns)
        self._preview(previews, state, rows, memos, turns)
        return turns.finish([memo.ended for memo in memos])

    def interrupt(self, memo: TranslationMemo, played_s: float | None = None) -> list[Event]:
        """Nothing: a translator does not speak."""
        return []

    def end(self, memo: TranslationMemo) -> None:
        """Nothing is held."""

    def previews(self, memo: TranslationMemo) -> bool:
        """See `loquent.speech.runtime.task.Previewing`."""
        return memo.options.drafts

    # ------------------------------------------------------------------------------------------------ words to segments

    def policy(self, options: TranslationOptions) -> str:
        """Name of the policy of a stream."""
        return options.policy or self.model.default_policy

    def _check(self, options: TranslationOptions) -> None:
        if self.policy(options) == "learned" and not self.model.waits:
            raise ValueError("policy: 'learned' is for models that were taught when to wait, and this one was not")
        _glossary(options)

    def _row(self, at: int, memo: TranslationMemo, chunk: WordChunk) -> _Row | None:
        """Take in a stream's word; None if there is nothing to do."""
        pieces, copied, ends = list[int](), "", chunk.flush or chunk.last
        for word in chunk.words:
            memo.position = chunk.begin + len(word.text)
            text = word.text.strip()
            if not text:
                continue
            if not memo.count and not memo.text:
                memo.start_s = word.time_s
            ends |= ends_sentence(text)
            pieces = self.model.codec.encode(text)
            if self._exotic(pieces) and (not memo.count or len(pieces) > MOST_PIECES):
                pieces, copied = [], word.text
            elif pieces:
                self._append(memo, SourceWord(word.text, memo.position, word.time_s, 0, 0), pieces)
        if not (pieces or copied or (ends and (memo.count or memo.text))):
            return None
        closes = memo.count > 0 and (ends or bool(copied) or self._crowded(memo))
        row = _Row(at, memo, pieces, closes, copied, ends)
        glossary = _glossary(memo.options)
        if closes or (pieces and not glossary.open([word.text for word in memo.words])):
            row.search = self._search(memo, closes)
        return row

    def _append(self, memo: TranslationMemo, word: SourceWord, pieces: Sequence[int]) -> None:
        """Take a word into the segment, with the space before it, which its text loses here."""
        first = memo.read
        memo.read, memo.held, memo.count = first + len(pieces), memo.held + len(pieces), memo.count + 1
        memo.words += (replace(word, text=word.text.strip(), first=first, last=memo.read - 1),)
        self._find_terms(memo, word.text if self._exotic(pieces) else None)

    def _crowded(self, memo: TranslationMemo) -> bool:
        """Whether the model would have to forget source that has not been translated: the segment ends first."""
        return memo.covered < memo.read - self.limit

    def _exotic(self, pieces: Sequence[int]) -> bool:
        """Whether a word is of a script that the model does not know, or is no word at all: it is written as it is."""
        exotic = self.model.codec.exotic
        return len(pieces) > MOST_PIECES or 2 * sum(exotic[piece] for piece in pieces) > len(pieces)

    def _find_terms(self, memo: TranslationMemo, copied: str | None) -> None:
        words = memo.words
        found = _glossary(memo.options).ending([word.text for word in words])
        if found is not None:
            count, text = found
            first, last = words[-count].first, words[-1].last
            memo.terms = (*(term for term in memo.terms if term.last < first),)
            memo.terms += (OpenTerm(first, last, text + around(words[-1].text)),)
        elif copied is not None:
            first, text = words[-1].first, copied.strip()
            if memo.terms and memo.terms[-1].last == first - 1 and not copied[0].isspace():
                first, text = memo.terms[-1].first, memo.terms[-1].text + text
                memo.terms = memo.terms[:-1]
            memo.terms += (OpenTerm(first, words[-1].last, text),)

    def _search(self, memo: TranslationMemo, closes: bool) -> Search | None:
        options = memo.options
        search = search_of(self.policy(options), options, memo, closes)
        if search is None and self._overdue(memo) > memo.covered + 1:
            search = Search()
        return None if search is None else self._bounded(memo, search)

    def _bounded(self, memo: TranslationMemo, search: Search) -> Search:
        """A search with the terms of the segment, and no longer than what was read calls for."""
        codec = self.model.target_codec
        terms = tuple(Term(term.first, term.last, tuple(codec.encode(term.text))) for term in memo.terms)
        uncovered = memo.read - 1 - memo.covered
        most = min(search.most_pieces, PIECES_PER_PIECE * uncovered + PIECES_MORE)
        most += sum(len(term.pieces) for term in terms)
        if terms and search.beam > 1:
            search = replace(search, beam=1)  # terms are written by the greedy search
        return replace(search, most_pieces=most, follows=memo.written > 0, terms=terms)

    def _preview_row(self, at: int, memo: TranslationMemo, draft: str) -> _Row:
        """What to read, and to look for, if a draft followed: on a copy of the memo. It ends with its sentence."""
        ahead, pieces, closes = replace(memo), list[int](), False  # all values of a memo are immutable
        for word in split_words(draft):
            row = self._row(at, ahead, WordChunk((TimedWord(word, memo.start_s),), ahead.position, False, False))
            pieces += row.pieces if row else []
            closes = row is not None and row.closes
            if closes or len(pieces) >= MOST_PIECES:
                break
        shown = closes or ahead.count >= LEAST_SHOWN
        search = self._bounded(ahead, Search(ended=closes)) if pieces and shown else None
        return _Row(at, ahead, pieces[:MOST_PIECES], closes, search=search)

    def _preview(
        self, steps: Sequence[_Row], state: Any, rows: Tensor, memos: list[TranslationMemo], turns: Turns
    ) -> None:
        """Show what would come of drafts, computed on a copy of the streams' rows."""
        found: dict[int, Draft] = {}
        if reading := [row for row in steps if row.search is not None]:
            copy, slots = state.gather(self._slots(reading, rows)), torch.arange(len(reading), device=rows.device)
            self.model.read([row.pieces for row in reading], [row.closes for row in reading], copy, slots)
            drafts = self.model.draft([row.search for row in reading if row.search], copy, slots)
            found = {row.at: draft for row, draft in zip(reading, drafts, strict=True)}
        for row in steps:
            with turns.of(row.at) as events:
                draft = found.get(row.at)
                pieces = draft.pieces[: before_loop(draft.pieces)] if draft is not None and draft.finite else []
                self._show(memos[row.at], pieces, events)

    def _overdue(self, memo: TranslationMemo) -> int:
        """Number of the source piece before which everything has to be committed by now."""
        options, due = memo.options, 0
        for at, word in enumerate(memo.words):
            behind = len(memo.words) - 1 - at
            late = options.most_behind_words is not None and behind >= options.most_behind_words
            late |= options.most_behind_s is not None and memo.words[-1].time_s - word.time_s >= options.most_behind_s
            if late:
                due = word.last + 1
        return due

    # ---------------------------------------------------------------------------------------------- drafts to committed

    def _forget(self, steps: Sequence[_Row], state: Any, rows: Tensor) -> None:
        """Make room for what is read next: drop source pieces before those that the newest words came from.

        Source: StreamAtt, Papi et al. 2024 (arXiv 2406.06097), section 3.2, for text.
        """
        counts = []
        for row in steps:
            memo = row.memo
            surplus = 0 if row.closes else memo.held - self.limit  # there is room for the last word of a segment
            if surplus > 0:
                oldest = memo.read - memo.held
                needed = min((place for word in memo.attended for place in word), default=oldest)
                surplus = max(surplus, needed - oldest)
            counts.append(max(surplus, 0))
        if not any(counts):
            return
        chosen = [row.at for row, count in zip(steps, counts, strict=True) if count]
        slots = rows[torch.tensor(chosen, device=rows.device)]
        self.model.forget([count for count in counts if count], state, slots)
        for row, count in zip(steps, counts, strict=True):
            memo = row.memo
            memo.held -= count
            oldest = memo.read - memo.held
            memo.words = tuple(word for word in memo.words if word.last >= oldest)

    def _run(self, steps: list[_Row], state: Any, rows: Tensor, turns: Turns) -> None:
        """Read, draft, commit and tell, each for all streams at once."""
        model, reading = self.model, [row for row in steps if row.pieces or row.closes]
        if reading:
            slots = self._slots(reading, rows)
            model.read([row.pieces for row in reading], [row.closes for row in reading], state, slots)
        searching = [row for row in steps if row.search is not None]
        drafts: dict[int, Draft] = {}
        if searching:
            found = model.draft([row.search for row in searching if row.search], state, self._slots(searching, rows))
            drafts = {row.at: draft for row, draft in zip(searching, found, strict=True)}
        for row in searching:
            with turns.of(row.at):
                draft = drafts[row.at]
                if not draft.finite:
                    raise FloatingPointError("the scores of the model are not finite numbers")
                row.count = self._certain(row, draft)
        sound = [row for row in searching if turns.errors[row.at] is None]
        going = [row for row in sound if row.count and not row.closes]
        if going:
            chosen, counts = [drafts[row.at] for row in going], [row.count for row in going]
            model.commit(chosen, counts, state, self._slots(going, rows))
        for row in steps:
            with turns.of(row.at) as events:
                if turns.errors[row.at] is None:
                    self._tell(row, drafts.get(row.at), events)
        if closed := [row for row in steps if row.closes]:
            state.reset(self._slots(closed, rows))
            for row in closed:
                row.memo.begin_segment()
        if stuck := [row for row in steps if row.at in drafts and self._stuck(row, drafts[row.at])]:
            state.reset(self._slots(stuck, rows))
            model.read(
                [self._restart(row.memo) for row in stuck], [False] * len(stuck), state, self._slots(stuck, rows)
            )

    def _stuck(self, row: _Row, draft: Draft) -> bool:
        """Whether the model believes that the sentence is over although words have come that it has not translated, as
        in speech without punctuation."""
        memo = row.memo
        if row.closes or not memo.written or not draft.complete or row.count < len(draft.pieces) or self.model.waits:
            return False
        return len(_uncovered(memo)) >= LEFT_BEHIND

    def _restart(self, memo: TranslationMemo) -> list[int]:
        """Begin a segment with the words that were left behind; returns their pieces."""
        words, read = _uncovered(memo), list[int]()
        memo.begin_segment()
        for word in words:
            pieces = self.model.codec.encode(word.text)
            self._append(memo, replace(word, text=f" {word.text}"), pieces)
            read += pieces
        return read

    def _slots(self, steps: Sequence[_Row], rows: Tensor) -> Tensor:
        return rows[torch.tensor([row.at for row in steps], device=rows.device)]

    def _certain(self, row: _Row, draft: Draft) -> int:
        """Pieces of a draft that are committed: whole words."""
        memo, options = row.memo, row.memo.options
        if not row.search or not row.search.terms:
            looped = before_loop(draft.pieces)
            if looped < len(draft.pieces):
                _cut(draft, looped)
        if row.closes:
            return len(draft.pieces)
        rule = policy_of(self.policy(options), options, memo).rule
        count = self._whole_words(draft, rule(memo.drafts, draft, memo.read))
        due = self._overdue(memo)
        if due > memo.covered + 1:
            places = draft.attended or list(range(len(draft.pieces)))
            late = max((at + 1 for at, place in enumerate(places) if place < due), default=0)
            while late < len(draft.pieces) and not self._ends_word(draft, late):
                late += 1
            count = max(count, late)
        return count

    def _whole_words(self, draft: Draft, count: int) -> int:
        while count and not self._ends_word(draft, count):
            count -= 1
        return count

    def _ends_word(self, draft: Draft, count: int) -> bool:
        if count == len(draft.pieces):
            return draft.breaks or draft.complete
        return self.model.target_codec.begins_word[draft.pieces[count]]

    def _tell(self, row: _Row, draft: Draft | None, events: list[Event]) -> None:
        memo = row.memo
        if draft is not None:
            self._commit(row, draft, events)
        if row.closes or row.copied:
            memo.told = memo.position - len(row.copied)
        if row.copied:
            text = row.copied.strip()
            joined = f"{self._joiner}{text}" if row.copied[0].isspace() or not memo.text else text
            events.append(Translation(text=joined, span=(memo.told, memo.position)))
            memo.told, memo.text = memo.position, memo.text + joined
        if (row.closes and not row.copied) or row.ends or len(memo.text) >= MOST_TEXT:
            if memo.shown[1]:
                events.append(Partial(stable=memo.text.strip(), unstable=""))
            self._finish(memo, events)

    def _commit(self, row: _Row, draft: Draft, events: list[Event]) -> None:
        """Tell what is committed, and show what is not."""
        memo, codec = row.memo, self.model.target_codec
        pieces, places = draft.pieces[: row.count], draft.attended[: row.count]
        text = codec.decode(pieces).strip()
        if text:
            memo.covered = max([memo.covered, *places])
            ends = [word.end for word in memo.words if not places or word.last <= memo.covered]
            end = memo.position - len(row.copied) if row.closes else max([memo.told, *ends])
            follows = (
                codec.begins_word[pieces[0]] or not memo.written
            )  # else it is a mark behind a word that was certain
            joined = f"{self._joiner}{text}" if follows else text
            events.append(Translation(text=joined, span=(memo.told, end)))
            memo.told, memo.text = end, memo.text + joined
            self._remember(memo, pieces, places)
        written = set(draft.written)
        kept = [term for at, term in enumerate(memo.terms) if at not in written or not self._has(text, term)]
        memo.terms = tuple(kept)
        rest = draft.pieces[row.count :]
        keep = policy_of(self.policy(memo.options), memo.options, memo).earlier
        memo.drafts = tuple(tuple(one[row.count :]) for one in (*memo.drafts, draft.pieces))[-keep:] if keep else ()
        revised = self.policy(memo.options) == "re-translation"
        if not row.closes and (memo.options.drafts or revised):
            self._show(memo, rest if revised or memo.count >= LEAST_SHOWN else [], events)

    def _has(self, text: str, term: OpenTerm) -> bool:
        return term.text.strip() in text

    def _remember(self, memo: TranslationMemo, pieces: Sequence[int], places: Sequence[int]) -> None:
        """Where the newest words came from."""
        begins = self.model.target_codec.begins_word
        words: list[list[int]] = []
        for at, place in enumerate(places):
            if not words or begins[pieces[at]]:
                words.append([])
            words[-1].append(place)
        memo.attended = (*memo.attended, *map(tuple, words))[-RETAINED:]
        memo.written += sum(begins[piece] or not (at or memo.written) for at, piece in enumerate(pieces))

    def _show(self, memo: TranslationMemo, rest: list[int], events: list[Event]) -> None:
        """A `Partial`, if the segment reads differently now with what may follow its committed text."""
        options = memo.options
        tail = self.model.target_codec.decode(rest).strip()
        if self.policy(options) == "re-translation" and options.masked:
            tail = " ".join(tail.split(" ")[: -options.masked])
        stable = memo.text.strip()
        shown = (stable, f"{self._joiner}{tail}" if tail else "")  # a sentence goes on after another, too
        if shown != memo.shown:
            memo.shown = shown
            events.append(Partial(stable=shown[0], unstable=shown[1]))

    def _finish(self, memo: TranslationMemo, events: list[Event]) -> None:
        text = memo.text.strip()
        end_s = memo.words[-1].time_s if memo.words else memo.start_s
        if text:
            events.append(Final(text=text, start=memo.start_s, end=max(end_s, memo.start_s)))
        memo.text, memo.shown, memo.start_s = "", ("", ""), end_s


def _uncovered(memo: TranslationMemo) -> list[SourceWord]:
    return [word for word in memo.words if word.first > memo.covered]


def _cut(draft: Draft, count: int) -> None:
    for values in (draft.pieces, draft.attended, draft.probabilities):
        del values[count:]
    draft.breaks = draft.complete = True


@lru_cache(maxsize=256)
def _glossary_of(terms: tuple[tuple[str, str], ...]) -> Glossary:
    return Glossary(dict(terms))


def _glossary(options: TranslationOptions) -> Glossary:
    return _glossary_of((*options.glossary.items(), *((term, term) for term in options.keep)))
