"""Translation as a task: the laws and the promises, for every policy."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import pytest

from loquent.speech.runtime.engine import Engine
from loquent.speech.runtime.events import Partial
from loquent.translate.model import Draft
from loquent.translate.task import TranslationTask

POLICIES: list[dict[str, Any]] = [
    {"policy": "wait-k", "k": 2},
    {"policy": "local-agreement"},
    {"policy": "hold", "drafts": True},
    {"policy": "alignatt", "most_behind_words": 6, "drafts": True},
    {"policy": "re-translation", "bias": 0.4},
    {"policy": "offline"},
]
every_policy = pytest.mark.parametrize("options", POLICIES, ids=lambda options: options["policy"])


@every_policy
def test_streams_obey_the_laws(toy: ModuleType, task_laws: ModuleType, options: dict[str, Any]) -> None:
    flush, words = task_laws.FLUSH, toy.made_up
    texts = [
        [words(6, 1), ". ", words(3, 2), "! ", words(2, 3)],
        [words(9, 4), " ", flush, words(4, 5), flush, words(3, 6)],
        [f"{words(3, 7)}?\n{words(9, 8)} Łódź 東京 {'x' * 120}"],
    ]
    task_laws.check_task(task_laws.on_engine(TranslationTask(toy.Mirror()), **options), texts, examples=5)


@pytest.mark.parametrize("decoder", ["ssru", "attention"])
@pytest.mark.parametrize("options", [{"policy": "wait-k", "k": 2}, {"policy": "ralcp"}], ids=["wait-k", "ralcp"])
def test_the_network_obeys_them(
    toy: ModuleType, task_laws: ModuleType, monkeypatch: pytest.MonkeyPatch, decoder: str, options: dict[str, Any]
) -> None:
    monkeypatch.setattr("loquent.translate.task.PIECES_MORE", 4)  # random weights hardly ever end a draft themselves
    monkeypatch.setattr("loquent.translate.task.PIECES_PER_PIECE", 2)
    texts = [[toy.made_up(4, 1), "! ", toy.made_up(2, 3)], [toy.made_up(3, 4), " ", task_laws.FLUSH, "bi"]]
    task_laws.check_task(task_laws.on_engine(TranslationTask(toy.toy_network(decoder)), **options), texts, examples=2)


@pytest.mark.parametrize(
    "options",
    [
        {"policy": "wait-k", "k": 1},
        {"policy": "local-agreement"},
        {"policy": "ralcp"},
        {"policy": "alignatt", "beam_size": 2},
    ],
    ids=lambda options: options["policy"],
)
def test_no_word_goes_on_after_it_was_committed(toy: ModuleType, options: dict[str, Any]) -> None:
    """A network of random weights would do so at once."""
    session = Engine(TranslationTask(toy.toy_network())).open(**options)
    events = session.push(toy.made_up(40, 1)) + session.finish()
    begun = [event.text[:1] for event in events if event.type == "translation"][1:]
    assert len(begun) > 5
    assert not [character for character in begun if character.isalnum()]


@pytest.mark.parametrize("policy", ["local-agreement", "alignatt", "re-translation", "offline"])
def test_nothing_is_lost(toy: ModuleType, policy: str) -> None:
    text = f"{toy.made_up(5, 1)}. {toy.made_up(130, 2)} Łódź 東! {toy.made_up(3, 3)}"
    session = Engine(TranslationTask(toy.Mirror())).open(policy=policy)
    said = toy.translated(session.push(text) + session.finish())
    assert said.replace(" ", "") == text.replace(" ", "")


def test_the_draft_of_a_sentence_goes_on_after_the_sentence_before(toy: ModuleType) -> None:
    """Like what is committed: both are shown behind one another, where one utterance has several sentences."""
    session = Engine(TranslationTask(toy.Mirror())).open(policy="hold", held=6, drafts=True)
    events = session.push(f"{toy.made_up(5, 1)}. {toy.made_up(5, 2)}")
    drafts = [event.unstable for event in events if isinstance(event, Partial) and event.unstable]
    firsts = [event for event in events if isinstance(event, Partial) and event.unstable and not event.stable]
    assert firsts
    assert all(draft.startswith(" ") for draft in drafts)


def test_words_behind_what_the_model_takes_for_the_end_are_translated(toy: ModuleType, task_laws: ModuleType) -> None:
    """In speech without punctuation a model believes that it is done while words go on coming."""

    class Brief(toy.Mirror):  # type: ignore[name-defined,misc]
        def draft(self, searches: Any, state: Any, rows: Any) -> list[Draft]:
            drafts = super().draft(searches, state, rows)
            done = [int(state.written[row]) > 8 and not bool(state.ended[row]) for row in rows]
            return [Draft(complete=True, breaks=True) if end else one for end, one in zip(done, drafts, strict=True)]

    text = toy.made_up(60, 2)
    for policy in ("alignatt", "local-agreement"):
        session = Engine(TranslationTask(Brief())).open(policy=policy)
        assert toy.translated(session.push(text) + session.finish()).split() == text.split()
    task_laws.check_task(
        task_laws.on_engine(TranslationTask(Brief()), policy="alignatt"), [[toy.made_up(14, 3)]], examples=4
    )


def test_what_is_of_another_script_is_written_as_it_is(toy: ModuleType) -> None:
    session = Engine(TranslationTask(toy.Mirror())).open()
    text = f"{'ф' * 1000} 東京, ко? {toy.made_up(2, 1)}"
    events = session.push(text) + session.finish()
    assert toy.translated(events).replace(" ", "") == text.replace(" ", "")
    spans = [event.span for event in events if event.type == "translation"]
    assert [end for _, end in spans[:-1]] == [begin for begin, _ in spans[1:]]
    assert spans[0][0] == 0
    assert spans[-1][1] == len(text)


def test_terms(toy: ModuleType) -> None:
    first, second, third = toy.made_up(3, 4).split()
    session = Engine(TranslationTask(toy.Mirror())).open(glossary={f"{first} {second}": "two words"}, keep=(third,))
    said = toy.translated(session.push(f"ba {first.upper()} {second}, {third}.") + session.finish())
    assert "two words" in said
    with pytest.raises(ValueError, match="glossary"):
        Engine(TranslationTask(toy.Mirror())).open(glossary={" ": "x"})


@pytest.mark.parametrize("policy", ["offline", "wait-k", "re-translation"])
def test_a_stream_is_never_further_behind_than_it_may(toy: ModuleType, policy: str) -> None:
    """Whatever the policy, each word is out once so many more were read."""
    words = toy.made_up(40, 2).split()
    session = Engine(TranslationTask(toy.Mirror())).open(policy=policy, k=50, most_behind_words=4)
    said = 0
    for number, word in enumerate(words, start=1):
        said += len(toy.translated(session.push(f"{word} ")).split())
        assert number - said <= 5


def test_a_policy_may_change_in_mid_stream(toy: ModuleType) -> None:
    session = Engine(TranslationTask(toy.Mirror())).open(policy="offline")
    assert session.push("ba be bi bo ") == []
    session.configure(policy="alignatt", margin=1)
    assert toy.translated(session.push("bu ")).split() == ["ba", "be", "bi", "bo"]
    with pytest.raises(ValueError, match="taught when to wait"):
        session.configure(policy="learned")
