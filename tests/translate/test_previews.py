"""Drafts past the end of what was said: shown, and without any effect on what is committed."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import pytest

from loquent.speech.runtime.engine import Engine
from loquent.speech.runtime.events import Event, Final, Partial, Translation
from loquent.speech.text.words import Draft, Text
from loquent.translate.task import TranslationTask


def committed(events: list[Event]) -> list[dict[str, Any]]:
    values = [event.to_dict() for event in events if isinstance(event, Translation | Final)]
    return [{name: value for name, value in one.items() if name != "sequence"} for one in values]


def with_drafts(toy: ModuleType, flush: object) -> list[Any]:
    """A text with drafts of what follows, right and wrong ones."""
    words = toy.made_up
    return [
        Draft(words(3, 9)),
        Text(f"{words(6, 1)}. {words(2, 2)}", 1.0),
        Draft(f" {words(4, 7)}. {words(2, 8)}"),
        Text(f" {words(2, 2)}", 1.5, whole=True),
        Draft(""),
        Draft(f" {words(60, 5)}"),
        flush,
        Draft(f" {words(2, 6)}"),
        Text(f" {words(7, 3)}", 4.0),
    ]


def pushed(session: Any, pieces: list[Any], task_laws: ModuleType) -> list[Event]:
    return [event for piece in pieces for event in task_laws.pushed(session, piece)] + session.finish()


@pytest.mark.parametrize("policy", ["wait-k", "local-agreement", "alignatt", "re-translation", "offline"])
def test_drafts_change_nothing_that_is_committed(toy: ModuleType, task_laws: ModuleType, policy: str) -> None:
    pieces = with_drafts(toy, task_laws.FLUSH)
    plain = [piece for piece in pieces if not isinstance(piece, Draft)]
    engine = Engine(TranslationTask(toy.Mirror()), capacity=3)
    one, other, third = (engine.open(stream="s", policy=policy, drafts=drafts) for drafts in (True, True, False))
    drafted = pushed(one, pieces, task_laws)
    assert committed(drafted) == committed(pushed(other, plain, task_laws))
    ignoring = pushed(third, pieces, task_laws)
    assert committed(drafted) == committed(ignoring)
    if policy != "re-translation":  # which always shows its own
        assert not any(isinstance(event, Partial) for event in ignoring)


def test_streams_with_drafts_obey_the_laws(toy: ModuleType, task_laws: ModuleType) -> None:
    opener = task_laws.on_engine(TranslationTask(toy.Mirror()), policy="local-agreement", drafts=True)
    texts = [with_drafts(toy, task_laws.FLUSH), [toy.made_up(4, 1), Draft(" la"), " ", toy.made_up(2, 2)]]
    task_laws.check_task(opener, texts, examples=4)


def test_a_draft_is_shown_translated_behind_what_is_committed(toy: ModuleType) -> None:
    session = Engine(TranslationTask(toy.Mirror())).open(policy="local-agreement", drafts=True)
    events = session.push(Text("bababa dede fififi", whole=True)) + session.push(Draft(" goge lulu. hahe"))
    shown = events[-1]
    assert isinstance(shown, Partial)
    assert shown.stable + shown.unstable == "bababa dede fififi goge lulu."
    assert shown.stable == toy.translated(events).strip()
    (gone,) = session.push(Draft(""))
    assert isinstance(gone, Partial)
    assert gone.unstable == ""


def test_a_draft_behind_half_a_word_goes_on_with_it(toy: ModuleType) -> None:
    session = Engine(TranslationTask(toy.Mirror())).open(policy="local-agreement", drafts=True)
    *_, shown = session.push("baba de") + session.push(Draft("de. "))
    assert isinstance(shown, Partial)
    assert (shown.stable + shown.unstable).strip() == "baba dede."


def test_nothing_is_shown_before_the_third_word_of_a_sentence(toy: ModuleType) -> None:
    session = Engine(TranslationTask(toy.Mirror())).open(policy="local-agreement", drafts=True)

    def tails(piece: Text | Draft) -> list[str]:
        return [event.unstable.strip() for event in session.push(piece) if isinstance(event, Partial)]

    for first in ("bababa", " goge"):  # a sentence, and one behind it
        assert not any(tails(Draft(f"{first} dede")))
        assert not any(tails(Text(first, whole=True)))
        assert not any(tails(Draft(" dede")))
        assert tails(Draft(" dede.")) == [f"{first.strip()} dede."]  # it is complete
        assert tails(Draft(" dede")) == [""]
        assert tails(Draft(" dede fififi"))[0].startswith(f"{first.strip()} dede")
        tails(Text(" dede", whole=True))
        assert tails(Draft(" fififi"))
        tails(Text(" fififi.", whole=True))


def test_what_does_not_preview_ignores_drafts(swapped: ModuleType) -> None:
    session = Engine(swapped.Swapped()).open()
    assert session.push(Draft("a b c")) == []
    assert session.inbox.pending == 0
