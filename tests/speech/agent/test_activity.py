"""Voice activity as a task: the laws, and how soon it knows."""

from __future__ import annotations

from types import ModuleType

import numpy as np

from loquent.speech.agent.activity import ActivityTask
from loquent.speech.audio.vad import SileroVad
from loquent.speech.runtime.engine import Engine
from loquent.speech.runtime.events import Activity


def test_laws(task_laws: ModuleType, sentence: np.ndarray) -> None:
    task = ActivityTask(SileroVad.from_pretrained())
    audio = [sentence, np.concatenate([sentence[20_000:40_000], np.zeros(9000, np.float32)])]
    task_laws.check_task(task_laws.on_engine(task, sample_rate=16_000), audio, examples=4)


def test_a_beginning_is_known_within_a_fifth_of_a_second(sentence: np.ndarray) -> None:
    session = Engine(ActivityTask(SileroVad.from_pretrained())).open()
    heard = [event for event in session.push(sentence) + session.finish() if isinstance(event, Activity)]
    assert [event.speaking for event in heard] == [True, False, True, False]
    assert all(event.emission_time - event.time <= 0.2 for event in heard)
