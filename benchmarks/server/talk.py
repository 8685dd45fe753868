"""How soon does an agent reply? Times in the audio of a talk, from the end of the user's speech.

A voice asks questions, each begun at several places of the recogniser's grid of chunks; the agent replies with the same
words at once. So what is measured is what the agent decides, not how fast a chat model or this machine is::

    python benchmarks/server/talk.py --model tiny.en --speak loquent/voice --pause 0.5 0.8
"""

from __future__ import annotations

import argparse
import dataclasses
import statistics
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from loquent.asr import Recognizer
from loquent.speech.agent.activity import ActivityTask
from loquent.speech.agent.agent import Agent
from loquent.speech.agent.conversation import Message
from loquent.speech.agent.reply import Reply
from loquent.speech.agent.talk import Talk
from loquent.speech.audio.endpoint import DEFAULT_RULES
from loquent.speech.audio.vad import SileroVad
from loquent.speech.runtime.engine import Engine
from loquent.speech.runtime.events import Activity, Speech
from loquent.tts import Synthesizer

QUESTIONS = (
    "What time is it?",
    "Tell me about the weather.",
    "How are you today?",
    "Where can I buy a ticket to London?",
    "Please switch off the light in the kitchen.",
    "I would like to order a pizza.",
    "Who wrote this book?",
    "Can you help me with my homework?",
)
REPLY = "Fine, thank you very much."
OFFSETS_S = (0.1, 0.2, 0.3)
PARTS = ("end known", "asked", "turn over", "first speech", "first sound")


class Prompt:
    """A chat model that replies at once, and notes when it was asked."""

    talk: Talk

    def __init__(self) -> None:
        self.asked_s: list[float] = []

    def ask(self, messages: Sequence[Message], notify: Callable[[], None]) -> Reply:
        self.asked_s.append(self.talk.clock_s)
        return Reply(lambda reply: reply.put(REPLY) and None, notify)


def measured(agent: Agent, chat: Prompt, question: np.ndarray, rate: int, offset_s: float) -> tuple[float, ...] | None:
    """Seconds from the end of speech to each of `PARTS`; None if the question was not one turn."""
    chat.asked_s.clear()
    talk = chat.talk = agent.open(sample_rate=rate, patient=True)
    silence = np.zeros(2 * rate, np.float32)
    events = talk.push(np.concatenate([silence[: round(offset_s * rate)], question, silence]))
    talk.close()
    turns = [event for event in events if event.stage == "turn"]
    speech = [event for event in events if isinstance(event, Speech)]
    if len(turns) != 1 or not speech:
        return None
    over_s = turns[0].emission_time
    end = [e for e in events if isinstance(e, Activity) and not e.speaking and e.emission_time <= over_s][-1]
    sound_s = next(
        s.start + np.flatnonzero(loud)[0] / s.sample_rate for s in speech if (loud := abs(s.samples) > 0.01).any()
    )
    return tuple(float(t - end.time) for t in (end.emission_time, chat.asked_s[-1], over_s, speech[0].start, sound_s))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="tiny.en")
    parser.add_argument("--speak", default="loquent/voice", help="the agent's voice")
    parser.add_argument("--user", default="loquent/hibari", help="the user's voice")
    parser.add_argument("--pause", type=float, nargs="+", default=[0.5], help="that closes an utterance, in seconds")
    arguments = parser.parse_args()
    recognizer: Any = Recognizer.from_pretrained(arguments.model)
    user = Synthesizer.from_pretrained(arguments.user)
    voice = Synthesizer.from_pretrained(arguments.speak).streaming_task()
    questions = [user.synthesize(question).samples for question in QUESTIONS]
    for pause in arguments.pause:
        rules = tuple(dataclasses.replace(r, silence_s=pause) if r.name == "pause" else r for r in DEFAULT_RULES)
        chat = Prompt()
        notice = Engine(ActivityTask(SileroVad.from_pretrained()))
        agent = Agent(Engine(recognizer.streaming_task(rules=rules)), notice, Engine(voice), chat)
        rows = [measured(agent, chat, one, user.sample_rate, offset) for one in questions for offset in OFFSETS_S]
        whole = [row for row in rows if row is not None]
        print(f"pause {pause} s: {len(whole)} of {len(rows)} questions were one turn")
        for part, times in zip(PARTS, zip(*whole, strict=True), strict=True):
            print(f"  {part:13} median {statistics.median(times):.2f} s, most {max(times):.2f} s")


if __name__ == "__main__":
    main()
