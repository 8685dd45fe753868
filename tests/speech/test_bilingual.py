"""What is said finds its translation, whatever the order in which a pipeline or a server tells of both."""

import io
import itertools

import numpy as np
import pytest

from loquent.speech.bilingual import RECOGNITION, TRANSLATION, Bilingual
from loquent.speech.commands.translation.side_by_side import BilingualLines, BilingualTerminal
from loquent.speech.runtime.engine import Engine
from loquent.speech.runtime.events import Final, Partial, Translation, Word
from loquent.speech.runtime.pipeline import Pipeline


def said(*utterances):
    """The recogniser's events, with the positions of the words in its text."""
    events = []
    for number, utterance in enumerate(utterances):
        events += [
            Word(text=f" {word}", start=number, end=number + 1, confidence=1, stage=RECOGNITION)
            for word in utterance.split()
        ]
        events.append(Final(text=utterance, start=number, end=number + 1, stage=RECOGNITION))
    return events


def told(*parts):
    return [
        Final(text="", start=0, end=0, stage=TRANSLATION)
        if part is None
        else Translation(text=part[0], span=part[1:], stage=TRANSLATION)
        for part in parts
    ]


def interleavings(first, second):
    for places in itertools.combinations(range(len(first) + len(second)), len(first)):
        one, other = iter(first), iter(second)
        yield [next(one if at in places else other) for at in range(len(first) + len(second))]


def pairs(segments):
    return [(segment.text, segment.translation) for segment in segments]


def test_order_between_the_stages_does_not_matter():
    source = said("one two.", "three")
    translation = told((" uno", 0, 4), (" dos.", 4, 9), None, (" tres", 9, 15), (" más", 15, 15), None)
    for events in interleavings(source, translation):
        # The translator cannot know words before they are said.
        position = ready = 0
        for event in events:
            position += len(event.text) if isinstance(event, Word) else 0
            ready |= isinstance(event, Translation) and event.span[1] > position
        if ready:
            continue
        bilingual = Bilingual()
        done = [segment for event in events for segment in bilingual.add(event)]
        assert pairs(done) == [("one two.", "uno dos."), ("three", "tres más")]
        assert [len(segment.words) for segment in done] == [2, 1]
        assert bilingual.finish() == []


def test_an_utterance_without_a_translation_does_not_hold_up_the_others():
    bilingual = Bilingual()
    source = said("um", "one", "last")
    translation = told((" uno", 3, 7), None)
    assert pairs(s for e in [*source[:4], *translation] for s in bilingual.add(e)) == [("um", ""), ("one", "uno")]
    assert [s for e in source[4:] for s in bilingual.add(e)] == []
    assert pairs(bilingual.finish()) == [("last", "")]


def test_a_pipeline_of_both(band_energy, toy):
    from loquent.translate.task import TranslationTask

    engines = {RECOGNITION: Engine(band_energy.BandEnergy()), TRANSLATION: Engine(TranslationTask(toy.Mirror()))}
    stream = Pipeline.open(engines, k=2)
    samples = np.random.default_rng(0).integers(-20_000, 20_000, 48_000, np.int16)
    bilingual, finals = Bilingual(), 0
    done = []
    for event in [event for part in np.array_split(samples, 7) for event in stream.push(part)] + stream.finish():
        finals += isinstance(event, Final) and event.stage == RECOGNITION
        done += bilingual.add(event)
    done += bilingual.finish()
    assert len(done) == finals > 0
    assert all(segment.translation == segment.text.strip() for segment in done)


def test_lines_for_a_pipe():
    file = io.StringIO()
    display = BilingualLines(file)
    for event in [*said("one"), *told((" uno", 0, 4), None), *said("two")]:
        display.show(event)
    assert file.getvalue() == "one\nuno\n"
    display.close()
    assert file.getvalue() == "one\nuno\ntwo\n"


@pytest.fixture
def screen(monkeypatch):
    """Function that shows what a terminal of 20 columns and 6 rows has on it after some text."""
    monkeypatch.setenv("COLUMNS", "20")
    monkeypatch.setenv("LINES", "6")

    def shown(text):
        rows, at = [""], 0
        text = text.replace("\x1b[2m", "{").replace("\x1b[0m", "}")
        while text:
            if text.startswith("\x1b["):
                number, kind = text[2 : text.index("A" if text[2].isdigit() else "J")], ""
                kind = text[2 + len(number)]
                text = text[3 + len(number) :]
                if kind == "A":
                    at -= int(number)
                else:
                    rows = [*rows[:at], ""]
                continue
            letter, text = text[0], text[1:]
            if letter == "\n":
                at += 1
                rows += [""] * (at == len(rows))
            elif letter != "\r":
                rows[at] += letter
        return [row for row in rows if row]

    return shown


def test_a_terminal_tells_what_is_certain_from_what_is_not(screen):
    file = io.StringIO()
    display = BilingualTerminal(file)
    display.show(Partial(stable="one two", unstable=" three", stage=RECOGNITION))
    display.show(Word(text=" one", start=0, end=1, confidence=1, stage=RECOGNITION))
    display.show(Translation(text=" uno", span=(0, 4), stage=TRANSLATION))
    display.show(Partial(stable="uno", unstable=" dos", stage=TRANSLATION))
    assert screen(file.getvalue()) == ["one two{ three}", "  uno{ dos}"]
    display.show(Partial(stable="one two three four", unstable=" five", stage=RECOGNITION))
    assert screen(file.getvalue()) == ["one two three four", "{five}", "  uno{ dos}"]
    display.show(Final(text="one", start=0, end=1, stage=RECOGNITION))
    display.show(Final(text="uno", start=0, end=1, stage=TRANSLATION))
    display.show(Partial(stable="", unstable="next", stage=RECOGNITION))
    assert screen(file.getvalue()) == ["one", "  uno", "{next}"]
    display.show(Partial(stable="many words " * 20, unstable="end", stage=RECOGNITION))
    rows = screen(file.getvalue())
    assert rows[:2] == ["one", "  uno"]
    assert len(rows) == 2 + 5
    assert rows[-1].endswith("{end}")
