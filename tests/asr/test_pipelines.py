"""A recogniser as the first stage of a pipeline: what it commits goes on, and all laws hold for the whole."""

from __future__ import annotations

from types import ModuleType

import numpy as np
import pytest

from loquent.asr.conformer.model import ConformerModel
from loquent.asr.conformer.options import ConformerOptions
from loquent.asr.conformer.task import ConformerStreamingTask
from loquent.asr.conformer.tokenizer import SubwordTokenizer
from loquent.asr.whisper.live.options import StreamingOptions
from loquent.asr.whisper.live.task import WhisperStreamingTask
from loquent.asr.whisper.model import Whisper
from loquent.asr.whisper.tokenizer import WhisperTokenizer
from loquent.speech.runtime.engine import Engine
from loquent.speech.runtime.events import Final, Partial, Speech, Translation, Word
from loquent.speech.runtime.pipeline import Pipeline


@pytest.mark.parametrize("head", ["ctc", "transducer"])
def test_laws_of_a_conformer_whose_words_are_spoken(
    head: str,
    toy_conformer: tuple[ConformerModel, SubwordTokenizer],
    task_laws: ModuleType,
    swapped: ModuleType,
    tones: ModuleType,
    talk: np.ndarray,
) -> None:
    tasks = {
        "write": ConformerStreamingTask(*toy_conformer, ConformerOptions(head=head)),
        "swap": swapped.Swapped(),
        "say": tones.Tones(),
    }
    opener = task_laws.in_a_row(tasks, sample_rate=16_000)
    task_laws.check_task(opener, [talk[:40_000], talk[80_000:]], examples=3)


def test_laws_of_a_whisper_whose_words_are_spoken(
    toy_whisper: Whisper, tokenizer: WhisperTokenizer, task_laws: ModuleType, tones: ModuleType, talk: np.ndarray
) -> None:
    settings = StreamingOptions(policy="incremental", chunk_ms=500, overlap_s=1.0, tokens_per_second=4.0)
    tasks = {"write": WhisperStreamingTask(toy_whisper, tokenizer, settings), "say": tones.Tones()}
    task_laws.check_task(task_laws.in_a_row(tasks, sample_rate=16_000), [talk[:50_000], talk[90_000:]], examples=2)


def test_what_is_spoken_is_what_was_committed(
    tiny_en: Whisper, tokenizer: WhisperTokenizer, swapped: ModuleType, tones: ModuleType, sample: np.ndarray
) -> None:
    recogniser = WhisperStreamingTask(tiny_en, tokenizer, StreamingOptions(chunk_ms=1000))
    engines = {"write": Engine(recogniser), "swap": Engine(swapped.Swapped()), "say": Engine(tones.Tones())}
    stream = Pipeline.open(engines, sample_rate=16_000)
    packets = np.array_split(sample[:140_000], 30)
    events = [event for packet in packets for event in stream.push(packet)] + stream.finish()
    words = [event for event in events if isinstance(event, Word)]
    swaps = [event for event in events if isinstance(event, Translation)]
    speech = [event for event in events if isinstance(event, Speech)]
    text = "".join(event.text for event in words)
    assert sorted(text.split()) == sorted(word.partition("#")[0] for swap in swaps for word in swap.text.split())
    letters = [letter for swap in swaps for letter in swap.text.lower() if letter.isascii() and letter.isalpha()]
    assert [event.text for event in speech] == letters
    # The clock of the recording goes through: nothing is said before the words it stands for were committed.
    assert [event.emission_time for event in speech] == sorted(event.emission_time for event in speech)
    assert {event.emission_time for event in swaps} <= {event.emission_time for event in words}
    assert any(isinstance(event, Partial) for event in events)
    assert [event.stage for event in events if isinstance(event, Final)] == ["write"] * sum(
        isinstance(event, Final) for event in events
    )
