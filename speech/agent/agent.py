"""An agent: the engines and the chat model that its talks share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from loquent.speech.agent.conversation import Conversation
from loquent.speech.agent.options import INSTRUCTIONS, TalkOptions
from loquent.speech.agent.reply import Chat
from loquent.speech.agent.replying import SPEAK
from loquent.speech.agent.saved import unpacked
from loquent.speech.agent.talk import HEAR, NOTICE, Talk
from loquent.speech.runtime.engine import Engine
from loquent.speech.runtime.options import parse_options
from loquent.speech.runtime.pipeline import shared_out
from loquent.speech.runtime.session import Session
from loquent.speech.runtime.snapshot import Unpacked


@dataclass(frozen=True)
class Agent:
    """What talks are opened on.

    hear, notice, speak: engines of a recogniser, of an `ActivityTask` and of a voice.
    chat:         the model.
    instructions: to it.

    Raises:
        ValueError: the engines do not fit.
    """

    hear: Engine
    notice: Engine
    speak: Engine
    chat: Chat
    instructions: str = INSTRUCTIONS

    def __post_init__(self) -> None:
        for name, takes, gives in ((HEAR, "audio", "text"), (NOTICE, "audio", "text"), (SPEAK, "text", "audio")):
            task = self.stages[name].task
            if (task.takes.kind, task.gives.kind) != (takes, gives):
                raise ValueError(f"{name}: expected a task from {takes} to {gives}")

    @property
    def stages(self) -> Mapping[str, Engine]:
        """The engines by the names of their stages."""
        return {HEAR: self.hear, NOTICE: self.notice, SPEAK: self.speak}

    def open(
        self,
        *,
        sample_rate: int | None = None,
        channels: int = 1,
        stream: str | None = None,
        pressure: float = 0.0,
        patient: bool = False,
        **options: Any,
    ) -> Talk:
        """Start a talk.

        Args:
            sample_rate, channels: of the packets.
            pressure: as for `Engine.open`, of every stage.
            patient: see `Talk`.
            options: those of `TalkOptions`, of the recogniser and of the voice.

        Raises:
            EngineFull: an engine has no free slot; none is taken.
            ValueError: an option is wrong, or nobody has it.
        """
        own = {field.name for field in fields(TalkOptions)}
        talk = parse_options(TalkOptions, {name: value for name, value in options.items() if name in own})
        rest = {name: value for name, value in options.items() if name not in own}
        stages = {HEAR: self.hear, SPEAK: self.speak}
        chosen = shared_out(stages, rest) | {NOTICE: {}}
        audio: dict[str, Any] = {"sample_rate": sample_rate or self.hear.task.takes.sample_rate, "channels": channels}
        opened: dict[str, Session] = {}
        try:
            for name, engine in self.stages.items():
                form = audio if engine.task.takes.kind == "audio" else {}
                opened[name] = engine.open(**form, pressure=pressure, **chosen[name])
        except Exception:
            for session in opened.values():
                session.close()
            raise
        conversation = Conversation(self.instructions)
        return Talk(**opened, chat=self.chat, conversation=conversation, options=talk, patient=patient, stream=stream)

    def restore(self, snapshot: bytes | Unpacked, stream: str | None = None, patient: bool = False) -> Talk:
        """Continue a talk from `Talk.snapshot`, as if nothing had happened, on engines of the same tasks.

        Raises:
            EngineFull, TooManyTables: there is no room for it; no slot is taken.
            ValueError: not a snapshot of such a talk, or a damaged one; nothing is changed.
        """
        name, parts, saved = unpacked(snapshot, self.stages)
        opened: dict[str, Session] = {}
        try:
            for stage, engine in self.stages.items():
                opened[stage] = engine.restore(parts[stage])
        except Exception:
            for session in opened.values():
                session.close()
            raise
        turns: Any = [{"role": role, "content": content} for role, content in saved.turns]
        conversation = Conversation(saved.instructions, turns)
        talk = Talk(
            **opened,
            chat=self.chat,
            conversation=conversation,
            options=saved.options,
            patient=patient,
            stream=stream or name,
        )
        talk.resume(saved)
        return talk
