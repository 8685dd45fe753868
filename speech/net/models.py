"""What a server offers by name: an engine, or several in a row."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from loquent.speech.agent.agent import Agent
from loquent.speech.bilingual import RECOGNITION, TRANSLATION
from loquent.speech.runtime.engine import Engine
from loquent.speech.runtime.pipeline import Pipeline
from loquent.speech.runtime.stream import Stream
from loquent.speech.runtime.task import Port
from loquent.speech.text.languages import language_code


@dataclass(frozen=True)
class Model:
    """A name that clients may ask for.

    stages: engines by the name of the stage; one of them makes plain sessions, several pipelines.
    translators: of the text that comes out, by the codes of the languages that they translate from and to; a stream
        asks for one with the option ``translate_to``.
    """

    stages: Mapping[str, Engine]
    translators: Mapping[tuple[str, str], Engine] = field(default_factory=dict)

    @property
    def takes(self) -> Port:
        """What goes in."""
        return next(iter(self.stages.values())).task.takes

    @property
    def gives(self) -> Port:
        """What comes out at the end."""
        return [*self.stages.values()][-1].task.gives

    @property
    def active(self) -> int:
        """Streams of the stage that has most; an engine may belong to several models."""
        return max(engine.active for engine in self.stages.values())

    @property
    def capacity(self) -> int:
        """Streams that fit at a time."""
        return min(engine.capacity for engine in self.stages.values())

    def has_option(self, name: str) -> bool:
        """Whether a stage has an option of this name."""
        kinds = [engine.task.Options for engine in self.stages.values()]
        return any(name == field.name for kind in kinds for field in dataclasses.fields(kind))

    def asked(self, options: Mapping[str, Any]) -> tuple[Model, dict[str, Any]]:
        """What a stream with these options is opened on: with ``translate_to``, a translator is the last stage.

        Speech whose language is not told is taken to be in the one that is translated from.

        Raises:
            ValueError: nothing translates so.
        """
        chosen = dict(options)
        target = chosen.pop("translate_to", None)
        if target is None:
            return self, chosen
        spoken = chosen.get("language")
        spoken = language_code(spoken) if isinstance(spoken, str) and spoken else None
        written = "en" if chosen.get("task") == "translate" else spoken
        fitting = [pair for pair in self.translators if pair[1] == target and written in (None, pair[0])]
        if not fitting:
            known = ", ".join(f"{source} to {other}" for source, other in self.translators) or "nothing"
            wanted = f"{target!r} from {written!r}" if written else f"{target!r}"
            raise ValueError(f"translate_to: this model does not translate to {wanted}; it translates {known}")
        pair = fitting[0]
        if spoken is None and written is None and self.has_option("language"):
            chosen["language"] = pair[0]
        stages = {name or RECOGNITION: engine for name, engine in self.stages.items()}
        return Model({**stages, TRANSLATION: self.translators[pair]}), chosen

    def open(
        self, *, sample_rate: int | None = None, channels: int = 1, pressure: float = 0.0, **options: Any
    ) -> Stream:
        """Start a stream; see `Engine.open` and `Pipeline.open`."""
        asked: dict[str, Any] = {"sample_rate": sample_rate, "channels": channels, "pressure": pressure, **options}
        if len(self.stages) > 1:
            return Pipeline.open(self.stages, **asked)
        (engine,) = self.stages.values()
        return engine.open(**asked)


@dataclass(frozen=True)
class AgentModel(Model):
    """An agent that clients may talk with."""

    agent: Agent = field(kw_only=True)

    def open(
        self, *, sample_rate: int | None = None, channels: int = 1, pressure: float = 0.0, **options: Any
    ) -> Stream:
        """Start a talk; see `Agent.open`. Clients cannot make its audio wait."""
        if "patient" in options:
            raise ValueError("patient: unknown; live audio does not wait")
        return self.agent.open(sample_rate=sample_rate, channels=channels, pressure=pressure, **options)


def models_of(
    engines: Engine | Mapping[str, Engine | Mapping[str, Engine] | Agent],
    translators: Mapping[tuple[str, str], Engine] | None = None,
) -> dict[str, Model]:
    """Models by name, of an engine, or of engines, rows of engines and agents by name.

    Args:
        translators: for those that make text of speech.

    Raises:
        ValueError: there is none.
    """
    if isinstance(engines, Engine):
        engines = {"default": engines}
    if not engines:
        raise ValueError("a server needs at least one engine, got an empty mapping")
    models = {name: _model(one) for name, one in engines.items()}
    for name, model in models.items():
        if (model.takes.kind, model.gives.kind) == ("audio", "text"):
            models[name] = replace(model, translators=translators or {})
    return models


def _model(one: Engine | Mapping[str, Engine] | Agent) -> Model:
    if isinstance(one, Agent):
        return AgentModel(one.stages, agent=one)
    return Model({"": one} if isinstance(one, Engine) else dict(one))
